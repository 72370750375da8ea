"""Several servers behind one HTTP gateway: each has its path, its tools and its sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lictor.testing import UnsafeAllowAll, reviewed
from lictor_langchain.testing import Scene
from lictor_mcp import methods
from lictor_mcp.callers import Caller
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Upstream

pytestmark = pytest.mark.asyncio
NAMES = ("notes", "mail", "odd")
LOOK = {"name": "look", "description": "Reads.", "inputSchema": {"type": "object"}}
HEADERS = {"accept": "application/json, text/event-stream"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "look"}
OLD = {"mcp-protocol-version": "2025-11-25"}


class Server:
    """Answers with its name; both protocols, one session."""

    def __init__(self, name: str) -> None:
        self.name, self.called = name, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        body, more = b"", scope["method"] == "POST"
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        asked = json.loads(body or b"{}")
        answer = {"jsonrpc": "2.0", "id": asked.get("id"), "result": self._said(asked)}
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"same-everywhere")]
        status = 200 if "id" in asked else 202
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _said(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("method") == "initialize":
            info = {"name": self.name, "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
        if asked.get("method") == "tools/list":
            return {"tools": [LOOK]}
        if asked.get("method") != "tools/call":
            return {}
        self.called += 1
        return {"content": [{"type": "text", "text": self.name}]}


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    sock = listener("127.0.0.1:0")
    running = server(app)
    task = asyncio.create_task(running.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/mcp"
    finally:
        running.should_exit = True
        await task


class World:
    def __init__(self, http: httpx.AsyncClient, servers: dict[str, Server]) -> None:
        self.http, self.servers = http, servers

    async def call(self, path: str, headers: dict[str, str]) -> httpx.Response:
        params: dict[str, Any] = {"name": "look", "arguments": {}}
        if headers["mcp-protocol-version"] == MODERN["mcp-protocol-version"]:
            params["_meta"] = META
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        return await self.http.post(f"/mcp{path}", json=body, headers=headers)

    async def session(self, path: str) -> str:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        found = await self.http.post(f"/mcp{path}", json=body)
        return found.headers["mcp-session-id"]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three servers with one tool of one name; that of the third one nobody has reviewed."""
    servers = {name: Server(name) for name in NAMES}
    async with AsyncExitStack() as stack:
        urls = {
            name: await stack.enter_async_context(listening(each)) for name, each in servers.items()
        }
        known = [reviewed(methods.tool_of(name, urls[name], LOOK)) for name in NAMES[:2]]
        scene = Scene(tmp_path, *known, policy=UnsafeAllowAll())
        stack.callback(scene.gate.close)
        hosts, origins = loopback(8700)
        gateway = HttpGateway(
            scene.gate,
            [Served(name, Upstream(url), url) for name, url in urls.items()],
            who=lambda _: Caller("alice", "test"),
            agent="bot",
            hosts=hosts,
            origins=origins,
        )
        stack.push_async_callback(gateway.close)
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway),
            base_url="http://127.0.0.1:8700",
            headers=HEADERS,
        )
        yield World(await stack.enter_async_context(http), servers)


def said(answer: httpx.Response) -> Any:
    result = answer.json()["result"]
    return result["content"][0]["text"], bool(result.get("isError"))


async def test_each_path_leads_to_its_server_and_to_the_review_of_its_tools(world: World) -> None:
    assert said(await world.call("/notes", MODERN)) == ("notes", False)
    assert said(await world.call("/mail", MODERN)) == ("mail", False)
    text, refused = said(await world.call("/odd", MODERN))

    assert refused
    assert "has not been reviewed" in text
    assert [each.called for each in world.servers.values()] == [1, 1, 0]


@pytest.mark.parametrize("path", ["", "/", "/other", "/notes/mail", "/NOTES", "/notes/%2e%2e/mail"])
async def test_a_path_that_is_nobodys_leads_nowhere(world: World, path: str) -> None:
    answer = await world.http.post(
        httpx.URL("http://127.0.0.1:8700").copy_with(raw_path=f"/mcp{path}".encode()),
        json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
    )

    assert answer.status_code == 404
    assert sum(each.called for each in world.servers.values()) == 0


@pytest.mark.attack("X33", "X38")
async def test_a_session_at_one_server_is_none_at_another(world: World) -> None:
    mine = await world.session("/notes")

    here = await world.call("/notes", {**OLD, "mcp-session-id": mine})
    there = await world.call("/mail", {**OLD, "mcp-session-id": mine})
    guessed = await world.call("/mail", {**OLD, "mcp-session-id": "same-everywhere"})

    assert said(here) == ("notes", False)
    assert (there.status_code, guessed.status_code) == (404, 404)
    assert world.servers["mail"].called == 0
