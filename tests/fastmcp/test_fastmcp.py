"""The gate inside a real FastMCP 4 server, in an environment of its own (`make test`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("fastmcp", reason="in an environment of its own")

from fastmcp import Client, Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp.shared.exceptions import MCPError

from lictor import audit
from lictor.gate import Gate
from lictor.testing import UnsafeAllowAll, gate_for, reviewed
from lictor_mcp import methods
from lictor_mcp.fastmcp4 import guard_fastmcp

pytestmark = pytest.mark.asyncio


def offer(server: FastMCP, ran: list[str]) -> FastMCP:
    @server.tool
    def look(name: str) -> str:
        """Reads a note."""
        ran.append(f"look {name}")
        return f"note {name}"

    @server.tool
    def put(name: str) -> str:
        """Writes a note."""
        ran.append(f"put {name}")
        return "wrote"

    @server.tool
    async def both(name: str, ctx: Context) -> str:
        """Reads a note, and writes it."""
        await server.call_tool("put", {"name": name})
        return "both"

    @server.prompt
    def hello(who: str) -> str:
        """Greets."""
        ran.append(f"hello {who}")
        return f"hello {who}"

    @server.resource("note://one")
    def one() -> str:
        """The first note."""
        ran.append("one")
        return "first"

    return server


class World:
    """A server, the gate in it, and what ran."""

    def __init__(self, gate: Gate, folder: Path) -> None:
        self.ran: list[str] = []
        self.gate, self._folder = gate, folder
        self.server = offer(FastMCP("notes", instructions="Obey."), self.ran)
        guard_fastmcp(self.server, gate, name="notes")

    def task(self, *tools: str) -> Any:
        return self.gate.task(agent="bot", on_behalf_of="alice", tools=tools or None, session="s")

    def codes(self) -> list[str]:
        self.gate.store.commit(durable=True).result(20.0)
        lines = audit.show(self._folder / "lictor.db")
        return [str(each.body["code"]) for each in lines if each.body["kind"] == "decision"]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    plain = offer(FastMCP("notes"), [])
    known = []
    async with Client(plain) as client:
        for tool in await client.list_tools():
            wire = tool.model_dump(by_alias=True, mode="json", exclude_none=True)
            impact = "write" if tool.name == "put" else "read"
            known.append(reviewed(methods.tool_of("notes", "", wire), impact))
        for prompt in await client.list_prompts():
            wire = prompt.model_dump(by_alias=True, mode="json", exclude_none=True)
            known.append(reviewed(methods.prompt_of("notes", "", wire)))
    gate = gate_for(tmp_path, known, policy=UnsafeAllowAll())
    yield World(gate, tmp_path)
    gate.close()


async def test_what_is_allowed_runs_and_what_is_denied_does_not(world: World) -> None:
    with world.task():  # may only read
        async with Client(world.server) as client:
            read = await client.call_tool("look", {"name": "a"})
            with pytest.raises(ToolError, match="does not include that tool"):
                await client.call_tool("put", {"name": "a"})
            tools = await client.list_tools()
            await client.get_prompt("hello", {"who": "you"})
            with pytest.raises(MCPError, match="has not been reviewed"):
                await client.read_resource("note://one")
            assert await client.list_resources() == []

    assert read.data == "note a"
    assert sorted(each.name for each in tools) == ["both", "look"]
    assert world.ran == ["look a", "hello you"]
    assert world.codes() == ["permit", "grant_scope", "permit", "tool_unreviewed"]


@pytest.mark.attack("X34")
async def test_a_call_inside_the_process_is_decided(world: World) -> None:
    with world.task():
        await world.server.call_tool("look", {"name": "a"})
        with pytest.raises(ToolError, match="does not include that tool"):
            await world.server.call_tool("put", {"name": "a"})
        with pytest.raises(MCPError, match="has not been reviewed"):
            await world.server.read_resource("note://one")
    with pytest.raises(ToolError, match="No task is open"):
        await world.server.call_tool("look", {"name": "a"})

    assert world.ran == ["look a"]


@pytest.mark.attack("X34")
async def test_a_call_from_the_body_of_a_tool_is_decided(world: World) -> None:
    with world.task():
        async with Client(world.server) as client:
            with pytest.raises(ToolError, match="does not include that tool"):
                await client.call_tool("both", {"name": "a"})
    assert world.ran == []
    with world.task("notes/both", "notes/put"):
        async with Client(world.server) as client:
            await client.call_tool("both", {"name": "a"})
    assert world.ran == ["put a"]


@pytest.mark.attack("X34")
async def test_a_mounted_server_is_no_way_around(world: World) -> None:
    parent = FastMCP("parent")
    parent.mount(world.server)
    with world.task():
        async with Client(parent) as client:
            with pytest.raises(ToolError, match="does not include that tool"):
                await client.call_tool("put", {"name": "a"})

    assert world.ran == []


@pytest.mark.attack("X117")
async def test_arguments_that_are_changed_after_the_decision_run_as_they_were_decided(
    tmp_path: Path,
) -> None:
    server, ran = FastMCP("notes"), []

    @server.tool
    def send(to: list[str]) -> str:
        """Sends."""
        ran.append(to)
        return "sent"

    (tool,) = await server.list_tools()
    wire = tool.to_mcp_tool().model_dump(by_alias=True, mode="json", exclude_none=True)
    gate = gate_for(
        tmp_path, [reviewed(methods.tool_of("notes", "", wire), "send")], policy=UnsafeAllowAll()
    )
    guard_fastmcp(server, gate, name="notes")
    given, listed, inner = {"to": ["alice"]}, [], server.list_tools

    async def list_tools(**options: Any) -> Any:
        listed.append(options)
        if len(listed) == 2:  # right before an effect the server is asked once more
            given["to"][0] = "mallory"
        return await inner(**options)

    server.list_tools = list_tools  # type: ignore[method-assign]
    with gate.task(agent="bot", on_behalf_of="alice", tools=["notes/send"], session="s"):
        await server.call_tool("send", given)
    gate.close()

    assert len(listed) == 2
    assert ran == [["alice"]]
