"""The HTTP gateway before a server that misbehaves: nothing hangs, nothing is made up."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lictor.ports import Known
from lictor.testing import UnsafeAllowAll, reviewed
from lictor_langchain.testing import Scene
from lictor_mcp import methods
from lictor_mcp.callers import Caller
from lictor_mcp.gateway import http_incoming
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Event, Upstream

pytestmark = pytest.mark.asyncio
NOTES = "notes"
URL = "http://notes.test/mcp"
LOOK = {
    "name": "look",
    "description": "Reads.",
    "inputSchema": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    },
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "look"}
RESULT = {"content": [{"type": "text", "text": "note"}]}


def answer(id: Any, result: Any = RESULT) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode()


class Server:
    """A server that answers calls as it is told.

    Attributes:
        how: Answers a call; gets the message and what sends.
        resumed: Answers a GET.
        calls: Bodies of calls that it got.
        left: Set when a client left in the middle.
    """

    def __init__(self) -> None:
        self.how: Callable[..., Any] = self.plain
        self.resumed: Callable[..., Any] = self.refused
        self.calls: list[dict[str, Any]] = []
        self.heard: list[bytes] = []
        self.asked: list[dict[str, str]] = []
        self.left = asyncio.Event()
        self.session = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        self.asked.append({k.decode(): v.decode() for k, v in scope["headers"]})
        if scope["method"] == "GET":
            await self.resumed(Out(send, receive, self))
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        await self.answered(body, Out(send, receive, self))

    async def answered(self, body: bytes, out: Out) -> None:
        message = json.loads(body)
        method = message.get("method")
        if method == "initialize":
            said = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "serverInfo": {"name": "n"},
            }
            await out.whole(answer(message["id"], said), session=self.session)
        elif method == "tools/list":
            await out.whole(answer(message["id"], {"tools": [LOOK]}))
        elif method == "tools/call":
            self.calls.append(message)
            await self.how(message, out)
        elif "id" in message and method:
            said = {"code": -32601, "message": "no"}
            await out.whole(
                json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": said}).encode()
            )
        else:
            self.heard.append(body)
            await out.whole(b"", 202)

    async def plain(self, message: Any, out: Out) -> None:
        await out.whole(answer(message["id"]))

    async def refused(self, out: Out) -> None:
        await out.whole(b"", 405)


class Out:
    def __init__(self, send: Any, receive: Any, server: Server) -> None:
        self.send, self.receive, self.server = send, receive, server

    async def whole(
        self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str
    ) -> None:
        named = {"session": "mcp-session-id"}
        sent = [(b"content-type", kind.encode())]
        sent += [(named.get(k, k).encode(), v.encode()) for k, v in headers.items() if v]
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        await self.send({"type": "http.response.body", "body": body})

    async def begin(self) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def part(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def event(self, data: bytes = b"", id: str | None = None) -> None:
        await self.part(Event(data, id).encode())

    async def end(self) -> None:
        await self.send({"type": "http.response.body", "body": b""})

    async def hang(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.server.left.set()


@asynccontextmanager
async def listening(app: Any, sock: socket.socket) -> AsyncIterator[str]:
    running = server(app)
    task = asyncio.create_task(running.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/mcp"
    finally:
        running.should_exit = True
        await task


class World(Scene):
    """The gateway before such a server."""

    def __init__(self, folder: Path, *known: Known) -> None:
        super().__init__(
            folder, reviewed(methods.tool_of(NOTES, URL, LOOK)), *known, policy=UnsafeAllowAll()
        )
        self.server = Server()

    @asynccontextmanager
    async def running(
        self, seconds: float = 20.0, url: str = ""
    ) -> AsyncIterator[httpx.AsyncClient]:
        async with AsyncExitStack() as stack:
            url = url or await stack.enter_async_context(
                listening(self.server, listener("127.0.0.1:0"))
            )
            sock = listener("127.0.0.1:0")
            hosts, origins = loopback(sock.getsockname()[1])
            gateway = HttpGateway(
                self.gate,
                [Served(NOTES, Upstream(url), URL, seconds=seconds)],
                who=lambda _: Caller("alice", "test"),
                agent="bot",
                hosts=hosts,
                origins=origins,
            )
            self.url = await stack.enter_async_context(listening(gateway, sock))
            client = httpx.AsyncClient(headers=HEADERS, trust_env=False)
            yield await stack.enter_async_context(client)

    async def call(
        self, http: httpx.AsyncClient, *, id: Any = 1, headers: Any = None, **given: Any
    ) -> httpx.Response:
        return await http.post(
            self.url, json=look(id, **given), headers={**MODERN, **(headers or {})}
        )


def look(id: Any = 1, *, modern: bool = True, **given: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": "look", "arguments": given}
    if modern:
        params["_meta"] = META
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def mark(text: str) -> str:
    """The first id of an event in a stream."""
    found = re.search("^id: (.+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def messages(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer holds, in whichever form."""
    if answer.headers["content-type"].startswith("application/json"):
        return [answer.json()]
    lines = answer.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*known: Known) -> World:
        made.append(World(tmp_path, *known))
        return made[-1]

    yield make
    for each in made:
        each.gate.close()


async def test_the_bytes_of_a_request_and_of_its_answer_are_the_ones_that_were_sent(
    world: Callable[..., World],
) -> None:
    made = world()
    raw = b'{ "result":{"content":[ ],"x":"\\u00e9"},\t"id":"n",  "jsonrpc":"2.0"}'

    async def how(message: Any, out: Out) -> None:
        await out.whole(raw)

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http, id="n")

    assert found.content == raw


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"{", "unknown"),
        (200, b"", "unknown"),
        (200, answer(2), "unknown"),
        (200, answer("1"), "unknown"),
        (200, answer(1, [1]), "failed"),
        (500, b"broken", "unknown"),
        (404, b"nothing", "failed"),
        (200, b" " * (4 * 1024 * 1024 + 1), "unknown"),
    ],
)
async def test_an_answer_that_is_none_is_not_passed_on(
    world: Callable[..., World], status: int, body: bytes, outcome: str
) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.whole(body, status)

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http)

    assert found.json()["id"] == 1
    assert found.json()["error"]["code"] == -32603
    assert made.outcomes() == [outcome]


@pytest.mark.attack("X33")
async def test_a_redirect_is_not_followed(world: Callable[..., World]) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.whole(b"", 307, location=made.url)

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http)

    assert "elsewhere" in found.json()["error"]["message"]
    assert len(made.server.calls) == 1


async def test_a_server_that_is_not_there_is_said_to_be_so(world: Callable[..., World]) -> None:
    made = world()
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    nobody.close()
    async with made.running(url=f"http://127.0.0.1:{port}/mcp") as http:
        found = await made.call(http)
        listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": META}}
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
        asked = await http.post(made.url, json=listed, headers=headers)

    assert found.json()["error"]["message"] == "The server is not there."
    assert asked.json()["error"] == {"code": -32603, "message": "The server is not there."}


async def test_nobody_waits_for_ever(world: Callable[..., World]) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.event()
        await out.hang()

    made.server.how = how
    async with made.running(seconds=0.5) as http:
        found = await made.call(http)
        async with asyncio.timeout(20):
            await made.server.left.wait()

    assert "did not answer in time" in messages(found)[-1]["error"]["message"]
    assert made.outcomes() == ["unknown"]


async def test_a_stream_that_breaks_off_has_brought_no_answer(world: Callable[..., World]) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.part(b'data: {"jsonrpc":"2.0","id":1,"resu')
        await out.end()

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http)

    assert "not known" in messages(found)[-1]["error"]["message"]
    assert made.outcomes() == ["unknown"]


async def test_what_nobody_asked_for_is_dropped_from_a_stream(world: Callable[..., World]) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.event(answer("1"))
        await out.event(answer(7))
        await out.event(b"{}")
        await out.part(b"event: other\ndata: {}\n\n: a comment\n\n")
        await out.event(b'{"jsonrpc":"2.0","method":"notifications/evil"}')
        await out.part(b"data: " + answer(1).replace(b"note", b"one") + b"\r\n\r\n")
        await out.event(answer(1))
        await out.end()

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http)

    assert [each["result"]["content"][0]["text"] for each in messages(found)] == ["one"]


@pytest.mark.attack("X31")
async def test_a_server_without_a_session_cannot_ask_the_client(
    world: Callable[..., World],
) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.event(b'{"jsonrpc":"2.0","id":9,"method":"roots/list"}')
        async with asyncio.timeout(20):
            while not made.server.heard:
                await asyncio.sleep(0.01)
        await out.event(answer(1))
        await out.end()

    made.server.how = how
    async with made.running() as http:
        found = await made.call(http)

    assert len(messages(found)) == 1
    assert json.loads(made.server.heard[0])["error"]["data"]["lictor"]["code"] == "tool_unreviewed"


async def test_a_client_that_goes_takes_its_stateless_request_along(
    world: Callable[..., World],
) -> None:
    made, begun = world(), asyncio.Event()

    async def how(message: Any, out: Out) -> None:
        begun.set()
        await out.hang()

    made.server.how = how
    async with made.running() as http:
        calling = asyncio.create_task(made.call(http))
        async with asyncio.timeout(20):
            await begun.wait()
            calling.cancel()
            await made.server.left.wait()

    assert made.outcomes() == ["unknown"]


async def test_a_client_goes_on_from_its_last_event(world: Callable[..., World]) -> None:
    made = world()
    made.server.session = "s1"

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.part(b"id: e1\nretry: 10\ndata: \n\n")
        await out.end()

    async def resumed(out: Out) -> None:
        await out.begin()
        await out.event(answer(1), "e2")
        await out.event(answer(5), "e3")
        await out.end()

    made.server.how, made.server.resumed = how, resumed
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running() as http:
        session = {
            "mcp-session-id": (await http.post(made.url, json=hello)).headers["mcp-session-id"]
        }
        first = await http.post(made.url, json=look(modern=False), headers=session)
        assert made.outcomes() == []
        rest = await http.get(made.url, headers={**session, "last-event-id": mark(first.text)})
        resumed_from = made.server.asked[-1]["last-event-id"]

    assert re.fullmatch(r"id: [0-9a-f]{32}\.e1\nretry: 10\ndata: \n\n", first.text)
    assert resumed_from == "e1"
    assert mark(rest.text).endswith(".e2")
    assert [each["result"] for each in messages(rest)] == [RESULT]
    assert made.outcomes() == ["done"]


async def test_an_answer_that_the_client_missed_is_there_when_it_goes_on(
    world: Callable[..., World],
) -> None:
    made, left = world(), asyncio.Event()
    made.server.session = "s1"

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.event(id="e1")
        await left.wait()
        await out.event(answer(1), "e2")
        await out.end()

    async def resumed(out: Out) -> None:
        await out.begin()
        await out.event(answer(1), "e2")
        await out.end()

    made.server.how, made.server.resumed = how, resumed
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running() as http:
        session = {
            "mcp-session-id": (await http.post(made.url, json=hello)).headers["mcp-session-id"]
        }
        body = look(modern=False)
        async with http.stream("POST", made.url, json=body, headers=session) as first:
            async for part in first.aiter_bytes():
                last = {"last-event-id": mark(part.decode())}
                break
        left.set()
        rest = await http.get(made.url, headers={**session, **last})
        again = await http.get(made.url, headers={**session, **last})

    assert [each["result"] for each in messages(rest)] == [RESULT]
    assert messages(again) == []
    assert made.outcomes() == ["done"]


@pytest.mark.attack("X36")
async def test_headers_that_repeat_arguments_say_what_the_arguments_say(
    world: Callable[..., World],
) -> None:
    made = world()
    async with made.running() as http:
        same = await made.call(http, headers={"mcp-param-region": "eu"}, region="eu")
        other = await made.call(http, headers={"mcp-param-region": "us"}, region="eu")
        absent = await made.call(http, headers={"mcp-param-region": "us"})
        unknown = await made.call(http, headers={"mcp-param-place": "eu"}, region="eu")

    assert same.json()["result"] == RESULT
    assert [each.status_code for each in (other, absent, unknown)] == [400] * 3
    assert {each.json()["error"]["code"] for each in (other, absent, unknown)} == {-32020}
    assert len(made.server.calls) == 1


async def test_an_id_that_is_under_way_in_a_session_is_refused(world: Callable[..., World]) -> None:
    made, begun, go = world(), asyncio.Event(), asyncio.Event()
    made.server.session = "s1"

    async def how(message: Any, out: Out) -> None:
        begun.set()
        await go.wait()
        await out.whole(answer(message["id"]))

    made.server.how = how
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running() as http:
        session = {
            "mcp-session-id": (await http.post(made.url, json=hello)).headers["mcp-session-id"]
        }
        first = asyncio.create_task(http.post(made.url, json=look(modern=False), headers=session))
        async with asyncio.timeout(20):
            await begun.wait()
        second = await http.post(made.url, json=look(modern=False), headers=session)
        go.set()

        assert (await first).json()["result"] == RESULT

    assert "under way" in second.json()["error"]["message"]
    assert len(made.server.calls) == 1


async def test_a_grant_does_not_reach_a_server_that_is_none_of_ours(
    world: Callable[..., World],
) -> None:
    made = world()
    meta = {**META, "lictor/grant": "eyJ0"}
    asked = look()
    asked["params"]["_meta"] = meta
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"_meta": meta}}
    async with made.running() as http:
        await http.post(made.url, json=asked, headers=MODERN)
        headers = {**MODERN, "mcp-method": str(note["method"])}
        del headers["mcp-name"]
        await http.post(made.url, json=note, headers=headers)

    assert made.server.calls[0]["params"]["_meta"] == META
    assert json.loads(made.server.heard[0])["params"]["_meta"] == META


@pytest.mark.attack("X33")
async def test_an_event_of_another_session_replays_nothing(world: Callable[..., World]) -> None:
    made = world()

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        await out.event(id="e1")
        await out.end()

    async def resumed(out: Out) -> None:
        await out.begin()
        await out.event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}', "e2")
        await out.end()

    made.server.how, made.server.resumed = how, resumed
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running() as http:
        marks, sessions = [], []
        for made.server.session in ("s1", "s2"):
            opened = await http.post(made.url, json=hello)
            sessions.append({"mcp-session-id": opened.headers["mcp-session-id"]})
            said = await http.post(made.url, json=look(modern=False), headers=sessions[-1])
            marks.append(mark(said.text))
        asked = len(made.server.asked)
        others = [
            await http.get(made.url, headers={**sessions[1], "last-event-id": each})
            for each in (marks[0], "e1", f"{'0' * 32}.e1", marks[1] + "1", "")
        ]
        heard = len(made.server.asked) - asked
        hers = await http.get(made.url, headers={**sessions[1], "last-event-id": marks[1]})

    assert [each.status_code for each in others] == [400] * 5
    assert heard == 0
    assert "list_changed" in hers.text


@pytest.mark.attack("X113")
async def test_a_request_without_a_session_names_none_to_the_server(
    world: Callable[..., World],
) -> None:
    made = world()
    made.server.session = "s1"
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    named = {"mcp-session-id": "s1", "last-event-id": "e1"}
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
    async with made.running() as http:
        await http.post(made.url, json=hello)
        mine = await http.post(made.url, json=look(modern=False), headers=named)
        asked = len(made.server.asked)
        stateless = await made.call(http, headers=named)
        routed = {"mcp-protocol-version": "2026-07-28", "mcp-method": cancelled["method"]}
        noted = await http.post(
            made.url, json={**cancelled, "params": {"_meta": META}}, headers={**routed, **named}
        )
        others = made.server.asked[asked:]

    assert [each.status_code for each in (mine, stateless, noted)] == [200, 200, 202]
    assert len(made.server.calls) == 2
    assert [each for each in others if named.keys() & each.keys()] == []
    assert not any("last-event-id" in each for each in made.server.asked)


@pytest.mark.attack("X114")
async def test_a_session_whose_client_left_while_it_was_opened_takes_nothing_any_more(
    world: Callable[..., World],
) -> None:
    made, begun = world(), asyncio.Event()

    async def slow(body: bytes, out: Out) -> None:
        begun.set()
        await out.hang()

    made.server.answered = slow  # type: ignore[method-assign]
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running(seconds=1000.0) as http:
        opening = asyncio.create_task(http.post(made.url, json=hello))
        async with asyncio.timeout(20):
            await begun.wait()
            opening.cancel()
            await made.server.left.wait()


@pytest.mark.attack("X33")
@pytest.mark.parametrize("more", [{}, {"_meta": META}])
@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-method": "tools/call"},
        {"mcp-name": "look"},
        {"mcp-method": "notifications/progress", "mcp-name": "look"},
    ],
)
async def test_a_notification_or_an_answer_has_no_header_of_another_request(
    world: Callable[..., World], headers: dict[str, str], more: dict[str, Any]
) -> None:
    made = world()
    params = {"progressToken": 1, "progress": 1, **more}
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    async with made.running() as http:
        noted = await http.post(made.url, json=note, headers=headers)
        answered = await http.post(made.url, content=answer(1), headers=headers)

    assert [each.status_code for each in (noted, answered)] == [400, 400]
    assert made.server.asked == []


@pytest.mark.attack("X118")
@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_that_is_packed_is_not_unpacked(
    world: Callable[..., World], streams: bool
) -> None:
    made = world()
    bomb = gzip.compress(b" " * 20_000_000)

    async def how(message: Any, out: Out) -> None:
        kind = "text/event-stream" if streams else "application/json"
        await out.whole(bomb, 200, kind, **{"content-encoding": "GZip"})

    made.server.how = how
    async with made.running() as http:
        said = messages(await made.call(http))

    assert ["is packed" in each["error"]["message"] for each in said] == [True]
    assert {each["accept-encoding"] for each in made.server.asked} == {"identity"}


@pytest.mark.attack("X31")
async def test_a_server_that_asks_without_end_is_told_that_it_is_too_much(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_incoming, "MAX_BACKS", 3)
    elicitation = reviewed(methods.method_tool(NOTES, "elicitation/create"))
    made, full = world(elicitation), asyncio.Event()
    made.server.session = "s1"

    async def how(message: Any, out: Out) -> None:
        await out.begin()
        for n in range(5):
            asked = {"jsonrpc": "2.0", "id": n + 100, "method": "elicitation/create"}
            await out.event(json.dumps({**asked, "params": {"message": "?"}}).encode())
        async with asyncio.timeout(20):
            while len(made.server.heard) < 2:
                await asyncio.sleep(0.01)
        full.set()
        await out.event(answer(1))
        await out.end()

    made.server.how = how
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    async with made.running() as http:
        opened = await http.post(made.url, json=hello)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        await http.post(made.url, json=look(modern=False), headers=session)

    assert full.is_set()
    assert [json.loads(each)["error"]["message"] for each in made.server.heard[:2]] == [
        "too many requests are under way"
    ] * 2
