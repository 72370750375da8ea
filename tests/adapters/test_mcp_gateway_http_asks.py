"""A person is asked at the client that calls over HTTP: about its own call, and once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lictor.testing import gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp.callers import Caller
from lictor_mcp.gateway import http_sessions as sessions
from lictor_mcp.gateway.asking import CAPABILITIES, KEY, Asking
from lictor_mcp.gateway.http import HttpGateway, Served
from lictor_mcp.gateway.http_upstream import Upstream

URL = "http://notes.test/mcp"
PUT = {
    "name": "put",
    "description": "Puts.",
    "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}},
}
META = {m.VERSION: "2026-07-28", CAPABILITIES: {"elicitation": {}}}
YES = {"action": "accept", "content": {"allow": True}}
SETTINGS = {
    "agents": {"bot": {"owner": "alice"}},
    "users": {"alice": {}, "bob": {}},
    "tasks": {"putting": {"tools": ["notes/put"]}},
}


class World:
    """The gateway, two callers, and a server that notes what ran. No sockets."""

    def __init__(self, folder: Path) -> None:
        self.ran: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self.streams, self.now, self.given, self.left = False, 0.0, 0, 0
        self.gate = gate_for(
            folder,
            [reviewed(m.tool_of("notes", URL, PUT), "write")],
            approvals=Asking(),
            settings=SETTINGS,
        )
        upstream = Upstream(URL)
        transport = httpx.ASGITransport(app=self.server)
        upstream._clients = (httpx.AsyncClient(transport=transport),)
        upstream._turn = iter(lambda: upstream._clients[0], None)  # type: ignore[assignment]
        self.gateway = HttpGateway(
            self.gate,
            [Served("notes", upstream, URL, seconds=20.0)],
            who=lambda header: Caller((header or b"").decode().removeprefix("Bearer "), "test"),
            agent="bot",
            template="putting",
            hosts={"gateway"},
            asks=True,
            clock=lambda: self.now,
        )

    async def server(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        message = json.loads(body) if body else {}
        self.left += scope["method"] == "DELETE"
        headers = [(b"content-type", b"application/json")]
        result: dict[str, Any] = {"tools": [PUT]}
        if message.get("method") == "initialize":
            self.given += 1
            headers.append((b"mcp-session-id", f"s{self.given}".encode()))
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
        if message.get("method") == "tools/call":
            self.ran.append(message["params"]["arguments"]["to"])
            result = {"content": [{"type": "text", "text": "done"}]}
        self.heard.append(message)
        raw = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode()
        if self.streams and message.get("method") == "tools/call":
            headers = [(b"content-type", b"text/event-stream")]
            raw = b"data: " + raw + b"\n\n"
        status = 200 if "id" in message else 202
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    async def post(self, message: Any, who: str = "alice", **headers: str) -> list[dict[str, Any]]:
        """What comes back, all of it."""
        async with self.posting(message, who, **headers) as came:
            return [each async for each in came]

    @asynccontextmanager
    async def posting(
        self, message: Any, who: str = "alice", **headers: str
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What comes back, as it comes."""
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        taken = iter([json.dumps(message).encode()])
        left = asyncio.Event()
        named = {
            "host": "gateway",
            "authorization": f"Bearer {who}",
            "content-type": "application/json",
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "headers": [(key.encode(), value.encode()) for key, value in named.items()],
            "asgi": {"spec_version": "2.3"},
        }

        async def receive() -> dict[str, Any]:
            for body in taken:
                return {"type": "http.request", "body": body}
            await left.wait()
            return {"type": "http.disconnect"}

        async def came() -> AsyncIterator[dict[str, Any]]:
            while True:
                part = await sent.get()
                if part["type"] == "http.response.start":
                    self.status = part["status"]
                    self.session = dict(part["headers"]).get(b"mcp-session-id", b"").decode()
                    continue
                for line in part.get("body", b"").splitlines():
                    yield json.loads(line.removeprefix(b"data: ")) if line else {}
                if not part.get("more_body"):
                    return

        task = asyncio.create_task(self.gateway(scope, receive, sent.put))
        try:
            async with asyncio.timeout(30):
                yield (each async for each in came() if each)
        finally:
            left.set()
            await task

    def call(self, to: str = "alice", id: int = 1, **more: Any) -> dict[str, Any]:
        params = {"name": "put", "arguments": {"to": to}, **more}
        return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}

    async def ask(self, to: str = "alice", who: str = "alice", **more: Any) -> dict[str, Any]:
        """A call of the stateless protocol."""
        routed = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call"}
        message = self.call(to, _meta=META, **more)
        (found,) = await self.post(message, who, mcp_name="put", **routed)
        return found

    async def open(self, who: str = "alice", **capabilities: Any) -> str:
        """A session of the older protocol."""
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        await self.post(hello, who)
        return self.session


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.gateway.close()
    made.gate.close()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.asyncio
async def test_the_stateless_protocol_answers_with_the_question_and_runs_once_on_a_yes(
    world: World, streams: bool
) -> None:
    world.streams = streams
    asked = (await world.ask())["result"]
    assert asked["inputRequests"][KEY]["params"]["mode"] == "form"
    assert world.ran == []
    back = {"requestState": asked["requestState"], "inputResponses": {KEY: YES}}
    done, again = await world.ask(id=2, **back), await world.ask(id=3, **back)

    assert (done["id"], done["result"]["content"][0]["text"]) == (2, "done")
    assert "no longer open" in again["error"]["message"]
    assert world.ran == ["alice"]
    assert "lictor-" not in json.dumps([each for each in world.heard if "params" in each][-1])


@pytest.mark.attack("X33")
@pytest.mark.asyncio
async def test_nobody_else_answers_and_no_other_call_runs(world: World) -> None:
    asked = (await world.ask())["result"]
    back = {"requestState": asked["requestState"], "inputResponses": {KEY: YES}}
    hers = await world.ask(who="bob", **back)
    altered = await world.ask(requestState=back["requestState"] + "x", inputResponses={KEY: YES})
    other = await world.ask("mallory", **back)

    assert "no longer open" in hers["error"]["message"]
    assert "no longer open" in altered["error"]["message"]
    assert "not the request" in other["error"]["message"]
    assert world.ran == []


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.asyncio
async def test_a_session_is_asked_on_the_stream_of_the_request(world: World, streams: bool) -> None:
    world.streams = streams
    session = await world.open(elicitation={})
    async with world.posting(world.call(), mcp_session_id=session) as came:
        question = await anext(came)
        assert question["method"] == "elicitation/create"
        assert world.ran == []
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": YES}
        await world.post(reply, mcp_session_id=session)
        done = await anext(came)

    assert (done["id"], done["result"]["content"][0]["text"]) == (1, "done")
    assert world.ran == ["alice"]


@pytest.mark.attack("X33")
@pytest.mark.asyncio
async def test_another_session_does_not_answer_even_if_it_is_the_same_callers(
    world: World,
) -> None:
    session = await world.open(elicitation={})
    others = [("alice", await world.open(elicitation={})), ("bob", await world.open("bob"))]
    async with world.posting(world.call(), mcp_session_id=session) as came:
        question = await anext(came)
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": YES}
        for who, other in (*others, ("bob", session)):
            await world.post(reply, who, mcp_session_id=other)
        assert world.ran == []
        no = {**reply, "result": {"action": "decline"}}
        await world.post(no, mcp_session_id=session)
        done = await anext(came)

    assert done["result"]["isError"] is True
    assert world.ran == []


@pytest.mark.asyncio
async def test_a_request_that_is_taken_back_while_it_asks_ends_its_stream(world: World) -> None:
    session = await world.open(elicitation={})
    async with world.posting(world.call(), mcp_session_id=session) as came:
        await anext(came)
        told = {"method": "notifications/cancelled", "params": {"requestId": 1}}
        await world.post({"jsonrpc": "2.0", **told}, mcp_session_id=session)
        rest = [each async for each in came]

    assert rest == []
    assert world.ran == []


@pytest.mark.asyncio
async def test_a_session_whose_client_shows_no_forms_is_denied(world: World) -> None:
    session = await world.open()
    (done,) = await world.post(world.call(), mcp_session_id=session)

    assert done["result"]["isError"] is True
    assert world.ran == []


# -- sessions -------------------------------------------------------------------------------------


async def there(world: World, session: str, who: str = "alice") -> bool:
    ping = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await world.post(ping, who, mcp_session_id=session)
    return world.status != 404


@pytest.mark.asyncio
async def test_a_session_that_nobody_uses_is_over_here_and_at_the_server(world: World) -> None:
    used, idle = await world.open(), await world.open()
    world.now = sessions.IDLE_SECONDS - 1
    assert await there(world, used)
    world.now = sessions.IDLE_SECONDS

    assert [await there(world, each) for each in (used, idle)] == [True, False]
    await asyncio.gather(*world.gateway._ending)
    assert world.left == 1


@pytest.mark.asyncio
async def test_a_session_with_a_question_open_is_in_use(world: World) -> None:
    session = await world.open(elicitation={})
    async with world.posting(world.call(), mcp_session_id=session) as came:
        question = await anext(came)
        world.now = 2 * sessions.IDLE_SECONDS
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": YES}
        await world.post(reply, mcp_session_id=session)
        assert (await anext(came))["result"]["content"][0]["text"] == "done"


@pytest.mark.asyncio
async def test_who_opens_too_many_loses_his_own_oldest_and_nobody_elses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_OF_CALLER", 2)
    hers = await world.open("bob")
    mine = [await world.open() for _ in range(3)]

    assert [await there(world, each) for each in mine] == [False, True, True]
    assert await there(world, hers, "bob")


@pytest.mark.asyncio
async def test_who_has_too_many_in_use_gets_none_and_keeps_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)
    session = await world.open(elicitation={})
    async with world.posting(world.call(), mcp_session_id=session) as came:
        question = await anext(came)
        await world.open("bob")
        refused = world.status
        no = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
        await world.post(no, mcp_session_id=session)
        done = await anext(came)

    assert (refused, done["result"]["isError"]) == (503, True)
