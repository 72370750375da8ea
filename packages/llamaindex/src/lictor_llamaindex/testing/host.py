"""LlamaIndex as the adapter suite sees it: every path to a tool, with any guard or none.

A guard of somebody else needs a subclass of `LlamaIndex` with `guarded` or `agent`, and a name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.objects import ObjectRetriever
from llama_index.core.tools import BaseTool, FunctionTool
from llama_index.core.tools.calling import (
    acall_tool,
    acall_tool_with_selection,
    call_tool,
    call_tool_with_selection,
)
from llama_index.core.tools.types import adapt_to_async_tool
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from lictor.testing.adapter_suite import Driver, Missing, Probe, Session, World
from lictor_llamaindex.testing import Script, calls
from lictor_llamaindex.testing.tools import SHAPES, TEXT

Arguments = Mapping[str, Any]
RETRIED: Final = "async-class"
"""The host calls what is no `FunctionTool` a second time if it raises."""
_ENTRANCES: Final = ("fn", "async_fn", "real_fn", "_fn", "_async_fn", "_real_fn")
_BEHIND: Final = {"_query_engine": ("query", "aquery"), "_retriever": ("retrieve", "aretrieve")}


def told(result: Any) -> str:
    """The text that reaches the model or the program."""
    return str(result.content) if hasattr(result, "content") else str(result)


class Tools(Session):
    """Guarded tools of one trial."""

    def __init__(self, driver: LlamaIndex, world: World, tools: Sequence[BaseTool]) -> None:
        self.driver, self.world = driver, world
        *first, self.spare = tools
        self.tools = {str(each.metadata.name): each for each in first}

    def call(self, path: str, name: str, arguments: Arguments) -> str:
        """By one of the host's paths."""
        if path in SYNC:
            return told(SYNC[path](self, name, dict(arguments)))
        return told(asyncio.run(self._awaited(ASYNC[path], name, arguments)))

    async def _awaited(self, path: AsyncPath, name: str, arguments: Arguments) -> Any:
        return await path(self, name, dict(arguments))

    async def acall(self, name: str, arguments: Arguments) -> str:
        """By an agent's run."""
        return told(await _agent(self, name, dict(arguments)))

    def agent(self, *turns: ChatMessage, **more: Any) -> Any:
        """An agent that calls what the messages say."""
        given = {"tools": [*self.tools.values()], **more}
        made = FunctionAgent(name="bot", llm=Script(*turns).model(), **given)
        return self.driver.agent(made, self.world)

    def listed(self) -> frozenset[str]:
        """What an agent offers its model."""
        script = Script()
        made = FunctionAgent(name="bot", llm=script.model(), tools=[*self.tools.values()])
        _said(self.driver.agent(made, self.world))
        return frozenset(name for offer in script.offered for name in offer)

    def raw(self, name: str) -> Mapping[str, Callable[[Arguments], Any]]:
        """The attributes behind the host's own methods."""
        tool = self.tools[name]
        found = {label: getattr(tool, label, None) for label in _ENTRANCES}
        for attribute, methods in _BEHIND.items():
            if (behind := getattr(tool, attribute, None)) is not None:
                found |= {f"{attribute}.{each}": getattr(behind, each) for each in methods}
        return {
            label + part: _entrance(entrance)
            for label, given in found.items()
            for part, entrance in (("", given), (".__wrapped__", _wrapped(given)))
            if callable(entrance)
        }

    def replay(self, name: str, arguments: Arguments) -> str:
        """The same message of the model answered twice."""
        for _ in range(2):
            said = _said(self.agent(calls((name, dict(arguments)), ids=["again"])))
        return said

    def rename(self, name: str, new: str) -> str:
        """By its metadata."""
        tool = self.tools.pop(name)
        tool.metadata.name = new
        self.tools[new] = tool
        return _said(self.agent(calls((new, {"n": 3}))))

    def swap(self, name: str, other: str) -> str:
        """By a retriever that gives another object when the call is made."""
        put = SHAPES["async-class"](name, self.world.body(other))
        retriever = _Changing([self.tools[name]], [put])
        return _said(self.agent(calls((name, {"n": 3})), tools=None, tool_retriever=retriever))

    def add(self, probe: Probe) -> str:
        """To the agent's list."""
        agent = self.agent(calls((probe.name, {"n": 3})))
        late = SHAPES[self.driver.shapes[0]](probe.name, self.world.body(probe.ran_as))
        agent.tools.append(late)
        return _said(agent)

    def shadow(self, probe: Probe) -> str:
        """Two tools in one list."""
        second = SHAPES[self.driver.shapes[0]](probe.name, self.world.body(probe.ran_as))
        both = [*self.tools.values(), second]
        return _said(self.agent(calls((probe.name, {"n": 3})), tools=both))

    def retry(self, name: str, arguments: Arguments) -> str:
        """`call_tool`, which tries another shape of arguments after an exception."""
        return told(call_tool(self.spare, dict(arguments)))


def _said(agent: Any) -> str:
    async def go() -> Any:
        return await answered(agent)

    return told(asyncio.run(go()))


async def answered(agent: Any) -> Any:
    """The last answer of a tool in a run of an agent, or what the run says."""
    done = await agent.run("go")
    return done.tool_calls[-1].tool_output if done.tool_calls else done


def _wrapped(found: Any) -> Any:
    return getattr(found, "__wrapped__", None)


def _entrance(found: Callable[..., Any]) -> Callable[[Arguments], Any]:
    def enter(arguments: Arguments) -> Any:
        given = found(*arguments.values())
        return asyncio.run(_wait(given)) if isinstance(given, Awaitable) else given

    return enter


async def _wait(given: Awaitable[Any]) -> Any:
    return await given


class _Changing(ObjectRetriever[Any]):
    """Gives some tools to the model, and others to whoever calls."""

    def __init__(self, offered: list[BaseTool], called: list[BaseTool]) -> None:
        self._found = [offered, called]

    async def aretrieve(self, str_or_query_bundle: Any) -> list[BaseTool]:
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


# -- paths ----------------------------------------------------------------------------------------

Path = Callable[[Tools, str, dict[str, Any]], Any]
AsyncPath = Callable[[Tools, str, dict[str, Any]], Awaitable[Any]]


def _chosen(name: str, arguments: dict[str, Any]) -> ToolSelection:
    return ToolSelection(tool_id="c1", tool_name=name, tool_kwargs=arguments)


def _model(name: str, arguments: dict[str, Any]) -> Any:
    return Script(calls((name, arguments))).model()


def _run(path: AsyncPath) -> Path:
    """A path that the program takes from synchronous code."""

    def go(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
        async def main() -> Any:
            return await path(tools, name, arguments)

        return asyncio.run(main())

    return go


async def _agent(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return await answered(tools.agent(calls((name, arguments))))


async def _bare(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    """An agent that somebody built by hand over guarded tools."""
    model = _model(name, arguments)
    return await answered(FunctionAgent(tools=[*tools.tools.values()], llm=model, streaming=False))


async def _events(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    handler = tools.agent(calls((name, arguments))).run("go")
    seen = [each async for each in handler.stream_events()]
    await handler
    return [each.tool_output for each in seen if hasattr(each, "tool_output")][-1]


async def _retrieved(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    found = [*tools.tools.values()]
    retriever = _Changing(found, found)
    message = calls((name, arguments))
    return await answered(tools.agent(message, tools=None, tool_retriever=retriever))


async def _workflow(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    agent = FunctionAgent(name="bot", tools=[*tools.tools.values()], llm=_model(name, arguments))
    return await answered(tools.driver.agent(AgentWorkflow([agent]), tools.world))


async def _react(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    written = str(arguments).replace("'", '"')
    script = Script(
        ChatMessage(
            role="assistant", content=f"Thought: go\nAction: {name}\nAction Input: {written}"
        ),
        ChatMessage(role="assistant", content="Thought: I can answer.\nAnswer: done"),
    )
    found: list[Any] = [*tools.tools.values()]
    made = ReActAgent(name="bot", tools=found, llm=script.model(), streaming=False)
    return await answered(tools.driver.agent(made, tools.world))


async def _by_hand(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    """A workflow that somebody wrote."""

    class Flow(Workflow):
        @step
        async def go(self, event: StartEvent) -> StopEvent:
            return StopEvent(result=await acall_tool(tools.tools[name], arguments))

    return await Flow().run()


async def _apredicted(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    model = _model(name, arguments)
    return (await model.apredict_and_call([*tools.tools.values()], "go")).sources[0]


def _predicted(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    model = _model(name, arguments)
    return model.predict_and_call([*tools.tools.values()], "go").sources[0]


def _selected(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return call_tool_with_selection(_chosen(name, arguments), [*tools.tools.values()])


async def _aselected(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return await acall_tool_with_selection(_chosen(name, arguments), [*tools.tools.values()])


def _nested(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    def outer() -> Any:
        """Calls another, in the body of a tool that nobody guards."""
        return told(call_tool(tools.tools[name], arguments))

    return FunctionTool.from_defaults(outer).call()


AGENTS: Final[dict[str, AsyncPath]] = {
    "FunctionAgent": _agent,
    "FunctionAgent(guarded tools)": _bare,
    "FunctionAgent(tool_retriever)": _retrieved,
    "FunctionAgent.stream_events": _events,
    "ReActAgent": _react,
    "AgentWorkflow": _workflow,
}
SYNC: Final[dict[str, Path]] = {
    "call": lambda t, name, args: t.tools[name].call(**args),  # type: ignore[attr-defined]
    "tool(**)": lambda t, name, args: t.tools[name](**args),
    "tool(*)": lambda t, name, args: t.tools[name](*args.values()),
    "adapted": lambda t, name, args: adapt_to_async_tool(t.tools[name]).call(*args.values()),
    "call_tool": lambda t, name, args: call_tool(t.tools[name], args),
    "call_tool_with_selection": _selected,
    "predict_and_call": _predicted,
    "nested": _nested,
}
ASYNC: Final[dict[str, AsyncPath]] = {
    **AGENTS,
    "acall": lambda t, name, args: t.tools[name].acall(**args),  # type: ignore[attr-defined]
    "acall_tool": lambda t, name, args: acall_tool(t.tools[name], args),
    "acall_tool_with_selection": _aselected,
    "apredict_and_call": _apredicted,
    "Workflow": _by_hand,
}


class LlamaIndex(Driver):
    """The host. As it is, nobody guards it."""

    name = "unguarded"
    host = "llamaindex"
    shapes = tuple(SHAPES)
    paths = (*AGENTS, *SYNC, *(path for path in ASYNC if path not in AGENTS))

    def impossible(self, shape: str, path: str) -> str:
        """A context is given in an agent's step only."""
        if shape == "context" and path not in AGENTS:
            return "the host gives a tool its context in an agent's step only"
        return ""

    def arguments(self, shape: str, n: int) -> dict[str, Any]:
        """Some shapes take text."""
        return {"input": str(n)} if shape in TEXT else {"n": n}

    @contextmanager
    def open(self, world: World, *probes: Probe) -> Iterator[Session]:
        """Tools as the host has them, then the guard."""
        if not world.task:
            raise Missing("the guard knows no task")
        made = [self.make(world, each) for each in (*probes, SPARE)]
        yield Tools(self, world, self.guarded(made, world))

    def make(self, world: World, probe: Probe) -> BaseTool:
        """A tool of the host."""
        shape = SHAPES[probe.shape or self.shapes[0]]
        return shape(probe.name, world.body(probe.ran_as))

    def guarded(self, tools: list[BaseTool], world: World) -> list[BaseTool]:
        """The tools under the guard, where it wraps tools."""
        return tools

    def agent(self, agent: Any, world: World) -> Any:
        """The agent or workflow under the guard, where it guards agents."""
        return agent


SPARE: Final = Probe("spare", shape=RETRIED)
"""A tool that the host calls again, beside those of the trial."""
