"""The HTTP gateway between a real client and a real server: `mcp` 2.x, both protocol eras."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

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

    def __init__(self, folder: Path, template: str | None = "writing", **options: Any) -> None:
        self.ran: list[str] = []
        self.server = MCPServer(NOTES)
        self.template = template
        self.heard: list[dict[str, str]] = []
        self.url = self.front = ""
        self.offer()
        options.setdefault("policy", UnsafeAllowAll())
        options.setdefault(
            "settings",
            {
                "agents": {"bot": {"owner": "alice"}},
                "users": {"alice": {}, "bob": {}},
                "tasks": {"writing": {"tools": ["notes/look", "notes/put", "notes/ask"]}},
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
