"""LangChain's own `HumanInTheLoopMiddleware`, as a reference point for the adapter suite.

It asks a person before listed tools run. Here the trial's world is the person.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain import agents
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from lictor.testing.adapter_suite import World
from lictor_langchain.testing.host import LangChain


class Driver(LangChain):
    """An agent that pauses before each of its tools."""

    name = "HumanInTheLoopMiddleware"

    def agent(
        self, model: Any, tools: list[BaseTool], world: World, middleware: Sequence[Any]
    ) -> Any:
        """Every tool of the program is listed."""
        decisions: Any = {"allowed_decisions": ["approve", "reject"]}
        asking = HumanInTheLoopMiddleware({each.name: decisions for each in tools})
        return agents.create_agent(
            model, tools, middleware=[*middleware, asking], checkpointer=InMemorySaver()
        )

    def ask(self, go: Callable[[Any, Any], Any], said: Any, world: World) -> Any:
        """Answers its questions until it ends."""
        thread = _thread()
        result = go(said, thread)
        while asked := result.get("__interrupt__"):
            result = go(_answers(asked, world), thread)
        return result

    async def aask(self, go: Callable[[Any, Any], Awaitable[Any]], said: Any, world: World) -> Any:
        """The asynchronous twin."""
        thread = _thread()
        result = await go(said, thread)
        while asked := result.get("__interrupt__"):
            result = await go(_answers(asked, world), thread)
        return result


def _thread() -> Any:
    return {"configurable": {"thread_id": secrets.token_hex(8)}}


def _answers(asked: Any, world: World) -> Command[Any]:
    requests = asked[0].value["action_requests"]
    answers = [world.decide(each["name"], each["args"]) for each in requests]
    decisions = [
        {"type": "approve"} if answer is True else {"type": "reject", "message": "no"}
        for answer in answers
    ]
    return Command(resume={"decisions": decisions})
