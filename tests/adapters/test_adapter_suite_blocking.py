"""The suite on a guard that holds up the event loop while its engine thinks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from langchain import agents
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from lictor.testing.adapter_suite import World, flow, trials
from lictor_langchain.testing.host import LangChain


class Asking(AgentMiddleware[Any, Any]):
    """Asks before a tool runs, on the loop or beside it."""

    def __init__(self, world: World, beside: bool) -> None:
        super().__init__()
        self._world, self._beside = world, beside

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        call = request.tool_call
        given = call["name"], call["args"]
        if self._beside:
            answer = await asyncio.to_thread(self._world.decide, *given)
        else:
            answer = self._world.decide(*given)
        if answer is True:
            return await handler(request)
        return ToolMessage("No.", tool_call_id=call["id"], status="error")


class Driver(LangChain):
    shapes = ("function",)
    paths = ("agent.ainvoke",)

    def __init__(self, beside: bool) -> None:
        self._beside = beside

    def agent(
        self, model: Any, tools: list[BaseTool], world: World, middleware: Sequence[Any]
    ) -> Any:
        guards = [*middleware, Asking(world, self._beside)]
        return agents.create_agent(model, tools, middleware=guards)


@pytest.mark.parametrize(("beside", "state"), [(True, "held"), (False, "broken")])
def test_nobody_can_leave_while_a_guard_holds_up_the_loop(
    monkeypatch: pytest.MonkeyPatch, beside: bool, state: str
) -> None:
    if not beside:
        monkeypatch.setattr(flow, "SECONDS", 0.5)  # only a trial that fails waits so long
    (trial,) = [each for each in trials(Driver(beside)) if each.id == "cancelled"]

    result = trial.run(Driver(beside))

    assert result.state == state, result.text
    assert "blocks the event loop" in result.text or beside
