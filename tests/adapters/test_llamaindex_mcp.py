"""Tools that LlamaIndex makes of an MCP server's: validated, decided, and sent as decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llama_index.tools.mcp")

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.tools.mcp import McpToolSpec

from lictor_llamaindex import Unguardable, guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the host
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "integer"}, "text": {"type": "string"}},
    "required": ["to"],
}


class Session:
    """Stands for a client session; what it was asked to call is what a server would get."""

    def __init__(self, *, fails: bool = False) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.fails = fails

    async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
        tool = SimpleNamespace(
            name="note", description="Notes.", inputSchema=SCHEMA, input_schema=SCHEMA
        )
        return SimpleNamespace(tools=[tool], nextCursor=None, next_cursor=None)

    async def call_tool(self, name: str, arguments: Any) -> Any:
        self.sent.append((name, arguments))
        return SimpleNamespace(isError=self.fails, content=[])


def tools_of(session: Session, **options: Any) -> list[Any]:
    return asyncio.run(McpToolSpec(session, **options).to_tool_list_async())  # type: ignore[arg-type]


def test_what_is_sent_to_the_server_is_what_was_decided(world: Callable[..., Any]) -> None:
    session = Session()
    (raw,) = tools_of(session)
    made = world(known(raw, "write", server="notes"))
    wanted = [("note", {"to": "5"}), ("note", {"to": "x"}), ("note", {"to": 5, "cc": "eve"})]
    agent = FunctionAgent(tools=[raw], llm=Script(calls(*wanted)).model())
    guard_agent(agent, made.gate, "notes")

    async def go() -> Any:
        return await agent.run("go")

    with made.task(tools=["notes/note"]):
        found = asyncio.run(go()).tool_calls

    assert session.sent == [("note", {"to": 5})]
    assert sorted(each.tool_output.is_error for each in found) == [False, True, True]
    assert sorted(made.decisions()) == ["allow:permit", "deny:input_invalid", "deny:input_invalid"]


def test_its_tools_must_say_which_server_they_come_from(world: Callable[..., Any]) -> None:
    made = world()

    with pytest.raises(Unguardable, match="which one cannot be told"):
        guard(tools_of(Session()), made.gate)


def test_what_the_program_sends_besides_is_named_for_an_effect(world: Callable[..., Any]) -> None:
    session = Session()
    (raw,) = tools_of(session, global_partial_params={"tenant": "acme"})
    hidden = world(known(raw, "write", server="notes"))

    with hidden.task(tools=["notes/note"]):
        assert asyncio.run(guard(raw, hidden.gate, "notes").acall(to=5)).is_error
    assert hidden.decisions() == ["deny:input_hidden"]

    named = world(known(raw, "write", server="notes", inputs=("tenant",)))
    with named.task(tools=["notes/note"]):
        assert asyncio.run(guard(raw, named.gate, "notes").acall(to=5, tenant="evil")).is_error
        asyncio.run(guard(raw, named.gate, "notes").acall(to=5))
    assert session.sent == [("note", {"to": 5, "tenant": "acme"})]


def test_a_server_that_says_error_has_failed(world: Callable[..., Any]) -> None:
    (raw,) = tools_of(Session(fails=True))
    made = world(known(raw, "write", server="notes"))

    with made.task(tools=["notes/note"]):
        asyncio.run(guard(raw, made.gate, "notes").acall(to=5))

    assert made.outcomes() == ["failed"]
