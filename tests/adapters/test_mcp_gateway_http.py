"""The HTTP gateway between a real client and a real server: `mcp` 2.x, both protocol eras."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError

from lictor import audit
from lictor.errors import ConfigError
from lictor.ports import Known
from lictor.testing import UnsafeAllowAll, reviewed
from lictor_langchain.testing import Scene
from lictor_mcp import methods
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_callers import Bearers
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Upstream

pytestmark = pytest.mark.asyncio
ERAS = ["legacy", "auto"]
NOTES = "notes"
IDENTITY = "http://notes.test/mcp"
_FORM: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
TOKENS = {"alice": "a" * 32, "bob": "b" * 32}


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
    """A server with notes behind a gateway, and what ran."""

    def __init__(
        self, folder: Path, template: str | None = "writing", *, asks: bool = False, **options: Any
    ) -> None:
        self.ran: list[str] = []
        self.server = MCPServer(NOTES)
        self.template = template
        self.asks = asks
        self.heard: list[dict[str, str]] = []
        self.url = self.front = ""
        self.offer()
        options.setdefault("policy", UnsafeAllowAll())
        options.setdefault(
            "settings",
            {
                "agents": {"bot": {"owner": "alice"}},
                "users": {"alice": {}, "bob": {}},
                "tasks": {
                    "writing": {
                        "tools": [
                            "notes/look",
                            "notes/put",
                            "notes/ask",
                            "notes/slow",
                            "notes/announce",
                            "notes/mcp:elicitation/create",
                        ]
                        if asks
                        else [
                            "notes/look",
                            "notes/put",
                            "notes/slow",
                            "notes/announce",
                            "notes/ask",
                        ]
                    }
                },
            },
        )
        super().__init__(folder, *self.review(), **options)
        self.bearers = [self.token(name) for name in TOKENS]

    def token(self, subject: str) -> Path:
        path = self.folder / f"{subject}.token"
        path.touch(mode=0o600)
        path.write_text(f'subject = "{subject}"\ntoken = "{TOKENS[subject]}"\n')
        return path

    def offer(self) -> None:
        @self.server.tool()
        def look(name: str) -> str:
            """Reads a note."""
            self.ran.append(f"look {name}")
            return f"note {name}"

        @self.server.tool()
        def put(name: str, text: str) -> str:
            """Writes a note."""
            self.ran.append(f"put {name}")
            return f"wrote {name}"

        @self.server.tool()
        async def ask(about: str, ctx: Context) -> str:
            """Asks the client's user."""
            self.ran.append(f"ask {about}")
            answered = await ctx.session.elicit_form(about, _FORM, ctx.request_id)
            return str(answered.action)

        @self.server.tool()
        async def announce(ctx: Context) -> str:
            """Says that the tools have changed."""
            await ctx.session.send_tool_list_changed()
            return "announced"

        @self.server.tool()
        async def slow(name: str, ctx: Context) -> str:
            """Reads a note, and says how far it is."""
            await ctx.report_progress(0.5, 1.0)
            self.ran.append(f"slow {name}")
            return f"note {name}"

    def review(self) -> list[Known]:
        """What a person would have reviewed: the definitions as the server lists them now."""
        found = []
        for info in self.server._tool_manager.list_tools():
            wire = {
                "name": info.name,
                "description": info.description,
                "inputSchema": info.parameters,
                "outputSchema": info.output_schema,
            }
            impact = "write" if info.name == "put" else "read"
            found.append(reviewed(methods.tool_of(NOTES, IDENTITY, wire), impact))
        if self.asks:
            found.append(reviewed(methods.method_tool(NOTES, "elicitation/create")))
        return found

    async def heard_by_server(self, scope: Any, receive: Any, send: Any) -> None:
        """The server's application, which notes what headers it gets."""
        if scope["type"] == "http":
            self.heard.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[World]:
        self._app = self.server.streamable_http_app(**options)
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(
                listening(self.heard_by_server, listener("127.0.0.1:0"))
            )
            sock = listener("127.0.0.1:0")
            hosts, origins = loopback(sock.getsockname()[1])
            self.gateway = HttpGateway(
                self.gate,
                [Served(NOTES, Upstream(url, token="ours"), IDENTITY, seconds=20.0)],
                who=Bearers(self.bearers),
                agent="bot",
                template=self.template,
                hosts=hosts,
                origins=origins,
            )
            self.url = await stack.enter_async_context(listening(self.gateway, sock))
            yield self

    @asynccontextmanager
    async def client(self, era: str, who: str = "alice", **options: Any) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {TOKENS[who]}"}
        async with httpx2.AsyncClient(headers=headers) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=era, **options) as client:
                yield client

    @asynccontextmanager
    async def raw(self, who: str = "alice") -> AsyncIterator[httpx.AsyncClient]:
        headers = {
            "authorization": f"Bearer {TOKENS[who]}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
            yield http


def call(tool: str, /, *, era: str = "auto", **arguments: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if era == "auto":
        params["_meta"] = META
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def routed(name: str, **more: str) -> dict[str, str]:
    """The headers that go with a call of the stateless protocol."""
    return {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": name,
        **{key.replace("_", "-"): value for key, value in more.items()},
    }


HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


async def opened(http: httpx.AsyncClient, url: str) -> str:
    """Opens a session."""
    answer = await http.post(url, json=HELLO)
    assert answer.status_code == 200
    session = answer.headers["mcp-session-id"]
    told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    answer = await http.post(url, json=told, headers={"mcp-session-id": session})
    assert answer.status_code == 202
    return str(session)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.gate.close()


@pytest.mark.parametrize("era", ERAS)
async def test_what_is_allowed_runs_and_what_is_denied_does_not(
    world: Callable[..., World], era: str
) -> None:
    async with world(template=None).running() as made, made.client(era) as client:
        read = await client.call_tool("look", {"name": "a"})
        written = await client.call_tool("put", {"name": "a", "text": "b"})

    assert (read.is_error, read.content[0].text) == (False, "note a")
    assert written.is_error
    assert "does not include that tool" in written.content[0].text
    assert made.ran == ["look a"]
    assert made.codes() == ["permit", "grant_scope"]


# -- sessions and streams -------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_server_says_on_the_way_reaches_the_client(
    world: Callable[..., World], era: str
) -> None:
    steps: list[float] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        steps.append(done)

    async with world().running() as made, made.client(era) as client:
        read = await client.call_tool("slow", {"name": "a"}, progress_callback=progress)

    assert read.content[0].text == "note a"
    assert steps == [0.5]


@pytest.mark.attack("X31")
@pytest.mark.parametrize("asks", [True, False])
async def test_a_server_asks_the_clients_user_only_if_that_is_reviewed(
    world: Callable[..., World], asks: bool
) -> None:
    asked: list[str] = []

    async def elicited(context: Any, params: Any) -> Any:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"name": "x"})

    async with (
        world(asks=asks).running() as made,
        made.client("legacy", elicitation_callback=elicited) as client,
    ):
        try:
            said = (await client.call_tool("ask", {"about": "who?"})).content[0].text
        except MCPError as refused:  # the server's tool passes the refusal on
            said = refused.error.data["lictor"]["code"]

    assert asked == (["who?"] if asks else [])
    assert said == ("accept" if asks else "tool_unreviewed")
    assert made.codes() == (["permit", "permit"] if asks else ["permit", "tool_unreviewed"])


@pytest.mark.attack("X33")
async def test_a_session_is_not_there_for_anybody_else(world: Callable[..., World]) -> None:
    async with world().running() as made, made.raw("alice") as alice, made.raw("bob") as bob:
        session = {"mcp-session-id": await opened(alice, made.url)}
        before = len(made.heard)
        posted = await bob.post(
            made.url, json=call("look", era="legacy", name="a"), headers=session
        )
        guessed = await bob.post(
            made.url, json=call("look", era="legacy", name="a"), headers={"mcp-session-id": "x"}
        )
        listened = await bob.get(made.url, headers=session)
        deleted = await bob.delete(made.url, headers=session)
        heard = len(made.heard)
        hers = await alice.post(
            made.url, json=call("look", era="legacy", name="a"), headers=session
        )

    assert {each.status_code for each in (posted, guessed, listened, deleted)} == {404}
    assert posted.content == guessed.content
    assert heard == before
    assert "note a" in hers.text


async def test_a_session_that_its_client_ends_is_over(world: Callable[..., World]) -> None:
    async with world().running() as made, made.raw() as alice:
        session = {"mcp-session-id": await opened(alice, made.url)}
        ended = await alice.delete(made.url, headers=session)
        after = await alice.post(
            made.url, json=call("look", era="legacy", name="a"), headers=session
        )

    assert (ended.status_code, after.status_code) == (200, 404)
    assert made.ran == []


async def test_tools_that_change_are_announced_over_the_clients_own_stream(
    world: Callable[..., World],
) -> None:
    told = asyncio.Event()

    async def heard(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            told.set()

    async with (
        world().running() as made,
        made.client("legacy", message_handler=heard) as client,
    ):

        @made.server.tool()
        async def grow(ctx: Context) -> str:
            """Never reviewed."""
            return "grown"

        await client.call_tool("look", {"name": "a"})
        await client.call_tool("announce", {})
        async with asyncio.timeout(20):
            await told.wait()
        listed = {tool.name for tool in (await client.list_tools()).tools}
        grown = await client.call_tool("grow", {})

    assert "grow" not in listed
    assert grown.is_error


# -- callers --------------------------------------------------------------------------------------


@pytest.mark.attack("X37")
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {'a' * 32}", f"Bearer {'a' * 31}"]
)
async def test_nobody_calls_without_a_token(
    world: Callable[..., World], header: str | None
) -> None:
    async with world().running() as made, made.raw() as http:
        del http.headers["authorization"]
        given = {} if header is None else {"authorization": header}
        answers = [
            await http.post(made.url, json=call("look", name="a"), headers=routed("look") | given),
            await http.get(made.url, headers=given),
            await http.delete(made.url, headers=given),
        ]

    assert [each.status_code for each in answers] == [401] * 3
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert made.heard == []


@pytest.mark.attack("X33")
@pytest.mark.parametrize("era", ERAS)
async def test_the_server_gets_our_credential_and_never_the_callers(
    world: Callable[..., World], era: str
) -> None:
    async with world().running() as made, made.client(era) as client:
        await client.call_tool("look", {"name": "a"})

    assert {each["authorization"] for each in made.heard} == {"Bearer ours"}
    assert TOKENS["alice"] not in repr(made.heard)


async def test_only_headers_of_the_protocol_go_on(world: Callable[..., World]) -> None:
    extra = {
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "traceparent": "00-1-2-01",
        "mcp-x": "1",
    }
    async with world().running() as made, made.raw() as http:
        answer = await http.post(
            made.url, json=call("look", name="a"), headers=routed("look") | extra
        )

    assert "note a" in answer.text
    assert not {name for each in made.heard for name in each} & set(extra)


@pytest.mark.parametrize("era", ERAS)
async def test_each_caller_has_one_task_whatever_connections_he_makes(
    world: Callable[..., World], era: str
) -> None:
    async with world().running() as made:
        for who in ("alice", "bob", "alice"):
            async with made.client(era, who) as client:
                await client.call_tool("look", {"name": who})

    decisions = made.lines("decision")
    tasks = [body["task"] for body in decisions]
    assert made.ran == ["look alice", "look bob", "look alice"]
    assert tasks[0] == tasks[2] != tasks[1]


async def test_a_caller_that_the_directory_does_not_know_gets_nothing(
    world: Callable[..., World],
) -> None:
    settings = {
        "agents": {"bot": {"owner": "alice"}},
        "users": {"alice": {}},
        "tasks": {"writing": {}},
    }
    async with world(settings=settings).running() as made, made.raw("bob") as http:
        answer = await http.post(made.url, json=call("look", name="a"), headers=routed("look"))

    assert answer.json()["error"]["code"] == -32003
    assert made.codes() == ["principal_unknown"]
    assert made.heard == []


def broken(path: Path, kind: str) -> None:
    if kind == "open":
        path.chmod(0o640)
    elif kind == "short":
        path.write_text('subject = "alice"\ntoken = "abc"\n')
    elif kind == "nameless":
        path.write_text(f'token = "{"a" * 32}"\n')
    elif kind == "more":
        path.write_text(f'subject = "alice"\ntoken = "{"a" * 32}"\nrole = "admin"\n')
    elif kind == "link":
        path.rename(path.with_suffix(".real"))
        path.symlink_to(path.with_suffix(".real"))
    elif kind == "gone":
        path.unlink()
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif kind == "text":
        path.write_text("a" * 32)


@pytest.mark.parametrize(
    "kind", ["open", "short", "nameless", "more", "link", "gone", "pipe", "text"]
)
async def test_a_token_file_that_is_not_as_it_should_be_does_not_load(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "alice.token"
    path.touch(mode=0o600)
    path.write_text(f'subject = "alice"\ntoken = "{"a" * 32}"\n')
    Bearers([path])
    broken(path, kind)

    with pytest.raises(ConfigError) as refused:
        Bearers([path])

    assert str(path) in str(refused.value)
    assert "a" * 32 not in str(refused.value)


async def test_it_does_not_start_without_callers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no callers"):
        Bearers([])


# -- what a request says besides its body ---------------------------------------------------------


@pytest.mark.attack("X37")
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("host", "evil.example", 421),
        ("host", "127.0.0.1", 421),
        ("host", "127.0.0.1.evil.example:80", 421),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
    ],
)
async def test_a_page_elsewhere_cannot_call(
    world: Callable[..., World], header: str, value: str, status: int
) -> None:
    async with world().running() as made, made.raw() as http:
        answer = await http.post(
            made.url, json=call("look", name="a"), headers=routed("look") | {header: value}
        )

    assert answer.status_code == status
    assert made.heard == []


@pytest.mark.attack("X36")
@pytest.mark.parametrize(
    "bent",
    [
        {"mcp_name": "put"},
        {"mcp_method": "tools/list"},
        {"mcp_protocol_version": "2025-11-25"},
        {"mcp_name": "=?base64?cHV0?="},
        {"mcp_name": "=?base64?!?="},
        {"mcp_param_region": "eu"},
    ],
)
async def test_a_header_that_says_something_else_than_the_body_is_refused(
    world: Callable[..., World], bent: dict[str, str]
) -> None:
    headers = routed("look") | {key.replace("_", "-"): value for key, value in bent.items()}
    async with world().running() as made, made.raw() as http:
        answer = await http.post(made.url, json=call("look", name="a"), headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    assert answer.json()["id"] == 1
    assert made.codes() == ["not_canonical"]
    assert made.ran == []


async def test_a_header_that_is_there_twice_is_refused(world: Callable[..., World]) -> None:
    async with world().running() as made, made.raw() as http:
        headers = [*routed("look").items(), ("Mcp-Name", "put")]
        answer = await http.post(made.url, json=call("look", name="a"), headers=headers)

    assert answer.status_code == 400
    assert made.heard == []


async def test_a_name_may_be_encoded(world: Callable[..., World]) -> None:
    async with world().running() as made, made.raw() as http:
        answer = await http.post(
            made.url, json=call("look", name="a"), headers=routed("=?base64?bG9vaw==?=")
        )

    assert "note a" in answer.text


@pytest.mark.attack("X31")
@pytest.mark.parametrize("method", ["notes/burn", "resources/subscribe"])
async def test_a_method_that_nobody_knows_is_not_found(
    world: Callable[..., World], method: str
) -> None:
    body = {"jsonrpc": "2.0", "id": "x", "method": method, "params": {"_meta": META}}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    async with world().running() as made, made.raw() as http:
        answer = await http.post(made.url, json=body, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    assert made.heard == []


@pytest.mark.attack("X36")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16"), 400),
        (b"[" * 100_000, 400),
        (b" " * (4 * 1024 * 1024 + 1), 413),
    ],
)
async def test_a_body_that_cannot_be_read_goes_nowhere(
    world: Callable[..., World], body: bytes, status: int
) -> None:
    async with world().running() as made, made.raw() as http:
        answer = await http.post(made.url, content=body)

    assert answer.status_code == status
    assert "error" in answer.json()
    assert made.heard == []


async def test_a_body_of_another_type_and_another_path_are_refused(
    world: Callable[..., World],
) -> None:
    async with world().running() as made, made.raw() as http:
        typed = await http.post(made.url, content=b"{}", headers={"content-type": "text/plain"})
        named = await http.post(
            made.url + "/notes", json=call("look", name="a"), headers=routed("look")
        )
        elsewhere = await http.post(made.url + "/other", json=call("look", name="a"))
        put = await http.put(made.url, json={})

    assert [each.status_code for each in (typed, named, elsewhere, put)] == [415, 200, 404, 405]


# -- load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_replies_of_many_clients_do_not_cross(world: Callable[..., World], era: str) -> None:
    async def one(made: World, n: int) -> list[str]:
        async with made.client(era, "alice" if n % 2 else "bob") as client:
            found = [await client.call_tool("look", {"name": f"{n}-{k}"}) for k in range(5)]
            return [each.content[0].text for each in found]

    async with world().running() as made:
        heard = await asyncio.gather(*(one(made, n) for n in range(12)))

    assert heard == [[f"note {n}-{k}" for k in range(5)] for n in range(12)]
    made.gate.store.commit(durable=True).result(20.0)
    ends = [
        line.body["verdict"]
        for line in audit.show(made.folder / "lictor.db", limit=500, kind="outcome")
    ]
    assert ends == ["done"] * 60
