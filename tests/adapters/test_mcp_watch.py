"""A gateway asks at `lictor watch`: whoever sits there answers for exactly this call."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

from mcp import Client, StdioServerParameters

from lictor import audit
from lictor.catalog import Decided, classify, read_seen
from lictor.model import Impact
from lictor.testing.seat import Seat

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]
SERVER = '''
from pathlib import Path
from mcp.server import MCPServer
server = MCPServer("files")
@server.tool(structured_output=False)
def put(name: str) -> str:
    """Writes a file."""
    Path(name).touch()
    return "written"
server.run("stdio")
'''
MAIN = "from lictor.cli import main; main()"
QUESTION = "run exactly this call? [y/n] "


def gateway(project: Path) -> Client:
    words = ["-c", MAIN, "gateway", "-p", str(project)]
    return Client(StdioServerParameters(command=sys.executable, args=words), cache=None)


@pytest_asyncio.fixture
async def project(tmp_path: Path) -> Path:
    """A project whose one tool writes where it is told to, and whose task has no limits for it."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    file = tmp_path / "lictor.toml"
    file.write_text(
        '[mcp]\nagent = "desktop"\ntask = "files"\nuser = "alice"\n'
        f'[mcp.servers.files]\ncommand = ["{sys.executable}", "{script}"]\n'
        '[agents.desktop]\nowner = "alice"\n[users.alice]\n[tasks.files]\ntools = ["files/put"]\n'
    )
    file.chmod(0o600)
    async with gateway(file) as client:
        await client.list_tools()
    decided = Decided(frozenset({Impact.WRITE}), "alice", "2026-11-24T00:00:00Z", ("name",))
    for key, tool in read_seen(tmp_path / ".lictor/seen.json").items():
        if key.name == "put":
            classify(tmp_path / "catalog.toml", tmp_path / "catalog.lock", tool, decided)
    return file


def asked(project: Path) -> list[dict[str, Any]]:
    store = project.parent / ".lictor/lictor.db"
    return [each.body for each in audit.records(store, audit.Filters(kind="decision"))]


@pytest.mark.parametrize("key", ["y", "n"])
async def test_what_is_pressed_at_watch_decides(project: Path, tmp_path: Path, key: str) -> None:
    target = tmp_path / "written"
    with Seat([sys.executable, "-c", MAIN, "watch", "-p", str(project)], columns=300) as seat:
        async with gateway(project) as client:
            call = asyncio.create_task(client.call_tool("put", {"name": str(target)}))
            shown = await asyncio.to_thread(seat.until, QUESTION)
            assert not target.exists()
            seat.press(key)
            result = await call

    assert "files/put" in shown
    assert str(target) in shown.replace("\n      | ", "")
    assert (result.is_error, target.exists()) == (key == "n", key == "y")


async def test_where_nobody_watches_it_is_denied(project: Path, tmp_path: Path) -> None:
    async with gateway(project) as client:
        result = await client.call_tool("put", {"name": str(tmp_path / "written")})

    assert result.is_error
    assert not (tmp_path / "written").exists()
    assert [each["code"] for each in asked(project)][-1] == "ask_unavailable"
