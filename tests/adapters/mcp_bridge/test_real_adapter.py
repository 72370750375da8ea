"""Tools of the real langchain-mcp-adapters, from a real MCP server over stdio.

In an environment of its own (`make test`): the adapter needs mcp 1.x.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_mcp_adapters")

from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from langchain_mcp_adapters.client import MultiServerMCPClient

from lictor_langchain import Unguardable, create_agent, definition, guard
from lictor_langchain.testing import Scene, ScriptedModel, calls, known

pytestmark = pytest.mark.asyncio


async def tools_of(folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("notes_server.py")
    connection: Any = {
        "transport": "stdio",
        "command": sys.executable,
        "args": [str(script), str(folder / "sent.txt")],
    }
    found = await MultiServerMCPClient({"notes": connection}).get_tools()
    return {tool.name: tool for tool in found}


def catalog(tools: dict[str, Any]) -> list[Any]:
    return [
        known(tools["read_note"], server="notes"),
        known(tools["send_note"], "send", server="notes", target=("to",)),
        known(tools["fail"], server="notes"),
    ]


async def test_the_server_must_be_named(host: Callable[..., Scene], tmp_path: Path) -> None:
    tools = await tools_of(tmp_path)
    made = host(*catalog(tools))

    with pytest.raises(Unguardable, match="MCP server") as caught:
        guard(list(tools.values()), made.gate)

    assert 'server="name-of-the-server"' in caught.value.mend
    assert definition(tools["send_note"], server="notes").injected == ()
    assert definition(tools["send_note"], server="notes").origin == ""


async def test_an_agent_reads_sends_within_limits_and_nothing_else(
    host: Callable[..., Scene], tmp_path: Path
) -> None:
    tools = await tools_of(tmp_path)
    made = host(*catalog(tools))
    model = ScriptedModel(
        script=[
            calls(
                ("read_note", {"name": "a"}),
                ("send_note", {"name": "a", "to": "eve"}),
                ("send_note", {"name": "a", "to": "alice"}),
                ("send_note", {"name": "a", "to": "alice", "cc": "eve"}),
            )
        ]
    )
    agent = create_agent(model, list(tools.values()), gate=made.gate, server="notes")
    limits = {"notes/send_note": {"name": {"any": True}, "to": "alice"}}

    with made.task("notes/read_note", "notes/send_note", limits=limits):
        result = await agent.ainvoke({"messages": [("user", "go")]})

    answers = [m for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [m.status for m in answers] == ["success", "error", "success", "error"]
    assert "note a" in answers[0].text
    assert (tmp_path / "sent.txt").read_text(encoding="utf-8") == "a to alice\n"
    assert sorted(made.codes()) == ["grant_limit", "input_invalid", "permit", "permit"]


async def test_an_error_of_the_server_stays_the_servers(
    host: Callable[..., Scene], tmp_path: Path
) -> None:
    tools = await tools_of(tmp_path)
    made = host(*catalog(tools))
    copy = guard(tools["fail"], made.gate, server="notes")

    with made.task():
        try:
            told = str(await copy.ainvoke({}))
        except ToolException as error:
            told = str(error)

    assert "broken" in told
    assert made.codes() == ["permit"]
