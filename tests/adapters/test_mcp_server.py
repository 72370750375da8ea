"""The gate inside a real MCP server: `mcp` 2.x, both protocol eras."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

from mcp import Client
from mcp.server import MCPServer

from lictor.ports import Known
from lictor.testing import UnsafeAllowAll, reviewed
from lictor_langchain.testing import Scene
from lictor_mcp import GateMiddleware, methods

pytestmark = pytest.mark.asyncio
ERAS = ["legacy", "auto"]
NOTES = "notes"


class World(Scene):
    """A server with notes, the gate in it, and what ran."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.ran: list[str] = []
        self.server = MCPServer(NOTES)
        self.offer()
        known = options.pop("known", None)
        options.setdefault("policy", UnsafeAllowAll())
        super().__init__(folder, *(self.review() if known is None else known), **options)
        self.middleware = GateMiddleware(self.gate, server=NOTES)
        self.server.middleware.append(self.middleware)

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
            found.append(reviewed(methods.tool_of(NOTES, "", wire), impact))
        return found

    @asynccontextmanager
    async def client(self, era: str, **options: Any) -> AsyncIterator[Client]:
        async with Client(self.server, mode=era, **options) as client:
            yield client


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:

        def make(**options: Any) -> World:
            made = World(tmp_path, **options)
            stack.callback(made.gate.close)
            return made

        yield make


@pytest.mark.parametrize("era", ERAS)
async def test_what_is_allowed_runs_and_what_is_denied_does_not(
    world: Callable[..., World], era: str
) -> None:
    made = world()
    with made.task():  # may only read
        async with made.client(era) as client:
            read = await client.call_tool("look", {"name": "a"})
            written = await client.call_tool("put", {"name": "a", "text": "b"})

    assert (read.is_error, read.content[0].text) == (False, "note a")
    assert written.is_error
    assert "does not include that tool" in written.content[0].text
    assert made.ran == ["look a"]
    assert made.codes() == ["permit", "grant_scope"]
