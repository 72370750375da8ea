"""Two gateways on one catalog: neither loses what the other has met, decided, or found changed."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

from mcp import Client, StdioServerParameters

from lictor import audit
from lictor.catalog import Decided, classify, read_seen
from lictor.model import Impact, ToolKey

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]
SERVER = """
import sys
from pathlib import Path
from mcp.server import MCPServer
changed = Path(sys.argv[2])
server = MCPServer(sys.argv[1])
def tool(n):
    def read(name: str) -> str:
        return f"{sys.argv[1]} {n} {name}"
    about = "Sends it away." if changed.exists() else "Reads."
    server.add_tool(read, name=f"read_{n}", description=about, structured_output=False)
for n in range(int(sys.argv[3])):
    tool(n)
server.run("stdio")
"""
FRONT = "import sys; from lictor.cli import main; sys.argv[0] = 'lictor'; main()"
TOOLS = 6
SERVERS = ("notes", "mail")
ALL = [ToolKey(server, f"read_{n}") for server in SERVERS for n in range(TOOLS)]


class House:
    """One project, two servers, and a gateway for each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.changed = folder, folder / "changed"
        script = folder / "server.py"
        script.write_text(SERVER)
        parts = [
            f'[mcp.servers.{name}]\ncommand = ["{sys.executable}", "{script}", "{name}",'
            f' "{self.changed}", "{TOOLS}"]\n'
            for name in SERVERS
        ]
        self.file = folder / "lictor.toml"
        self.file.write_text(
            '[mcp]\nagent = "desktop"\ntask = "all"\nuser = "alice"\n'
            '[agents.desktop]\nowner = "alice"\n[users.alice]\n'
            f"[tasks.all]\ntools = {list(map(str, ALL))}\n{''.join(parts)}"
        )
        self.file.chmod(0o600)

    def gateway(self, server: str) -> StdioServerParameters:
        words = ["-c", FRONT, "gateway", "-p", str(self.file), "--server", server]
        return StdioServerParameters(command=sys.executable, args=words)

    async def both(self, stack: AsyncExitStack, *servers: str) -> list[Client]:
        """Two gateways that start at once."""
        clients = [Client(self.gateway(each), cache=None) for each in servers]
        return [await stack.enter_async_context(each) for each in clients]

    def met(self) -> set[ToolKey]:
        keys = read_seen(self.folder / ".lictor/seen.json")
        return {each for each in keys if not each.name.startswith("mcp:")}

    def review(self) -> None:
        for key, tool in read_seen(self.folder / ".lictor/seen.json").items():
            if not key.name.startswith("mcp:"):
                decided = Decided(frozenset({Impact.READ}), "alice", "2026-11-24T00:00:00Z")
                toml, lock = self.folder / "catalog.toml", self.folder / "catalog.lock"
                classify(toml, lock, tool, decided)

    def decisions(self) -> list[dict[str, Any]]:
        store = self.folder / ".lictor/lictor.db"
        return [each.body for each in audit.records(store, audit.Filters(kind="decision"))]


async def names(client: Client) -> set[str]:
    return {each.name for each in (await client.list_tools()).tools}


async def said(client: Client, tool: int, text: str) -> str:
    result = await client.call_tool(f"read_{tool}", {"name": text})
    return str(result.content[0].text)  # type: ignore[union-attr]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_what_each_of_them_meets_waits_for_review(house: House) -> None:
    async with AsyncExitStack() as stack:
        clients = await house.both(stack, *SERVERS)
        listed = await asyncio.gather(*(names(each) for each in clients))

    assert listed == [{"lictor_pending"}, {"lictor_pending"}]
    assert house.met() == set(ALL)


async def test_every_call_of_both_has_one_answer_and_one_record_in_one_chain(house: House) -> None:
    await test_what_each_of_them_meets_waits_for_review(house)
    house.review()
    calls = [(n % TOOLS, f"x{n}") for n in range(3 * TOOLS)]

    async with AsyncExitStack() as stack:
        clients = await house.both(stack, "notes", "notes")
        heard = await asyncio.gather(*(said(c, n, text) for c in clients for n, text in calls))

    assert heard == [f"notes {n} {text}" for n, text in calls] * 2
    permitted = [each for each in house.decisions() if each["code"] == "permit"]
    assert len(permitted) == 2 * len(calls)
    assert len({each["call"] for each in permitted}) == len(permitted)
    assert len({each["task"] for each in permitted}) == 2  # neither acts under the other's task
    assert audit.verify(house.folder / ".lictor/lictor.db").ok


async def test_a_tool_that_changes_for_one_of_them_changes_no_review_of_the_other(
    house: House,
) -> None:
    await test_what_each_of_them_meets_waits_for_review(house)
    house.review()
    before = (house.folder / "catalog.lock").read_bytes()

    async with AsyncExitStack() as stack:
        (old,) = await house.both(stack, "notes")
        assert await said(old, 1, "x") == "notes 1 x"
        house.changed.touch()
        (new,) = await house.both(stack, "notes")
        assert await names(new) == {"lictor_pending"}
        assert "has changed" in await said(new, 1, "x")
        assert await said(old, 1, "x") == "notes 1 x"

    assert (house.folder / "catalog.lock").read_bytes() == before
