"""LangChain as the adapter suite sees it: every path to a tool, with any guard or none.

A guard of somebody else needs a subclass of `LangChain` with `guarded` or `agent`, and a name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from langchain import agents
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from lictor.testing.adapter_suite import Driver, Missing, Probe, Session, World
from lictor_langchain.attack import entering
from lictor_langchain.testing import ScriptedModel, calls
from lictor_langchain.testing.tools import ASYNC_ONLY, SHAPES

Arguments = Mapping[str, Any]
GO: Final = {"messages": [("user", "go")]}


def told(result: Any) -> str:
    """The text that reaches the model or the program."""
    while isinstance(result, list | tuple) and result:
        result = result[-1]
    if isinstance(result, dict):
        return told(result.get("messages") or result.get("output") or list(result.values()))
    return str(result.content) if hasattr(result, "content") else str(result)


def answered(result: dict[str, Any]) -> Any:
    """The last answer of a tool in a run of an agent."""
    found = [each for each in result["messages"] if isinstance(each, ToolMessage)]
    return found[-1] if found else result["messages"][-1]


class Tools(Session):
    """Guarded tools of one trial."""

    def __init__(self, driver: LangChain, world: World, tools: Sequence[BaseTool]) -> None:
        self.driver, self.world = driver, world
        self.tools = {each.name: each for each in tools}

    def call(self, path: str, name: str, arguments: Arguments) -> str:
        """By one of the host's paths."""
        if path in SYNC:
            return told(SYNC[path](self, name, dict(arguments)))
        return told(asyncio.run(self._awaited(ASYNC[path], name, arguments)))

    async def _awaited(self, path: AsyncPath, name: str, arguments: Arguments) -> Any:
        return await path(self, name, dict(arguments))

    async def acall(self, name: str, arguments: Arguments) -> str:
        """By an agent's asynchronous run."""
        return told(await ASYNC["agent.ainvoke"](self, name, dict(arguments)))

    def agent(self, *said: AIMessage, middleware: Sequence[Any] = (), **more: Any) -> Any:
        """An agent that calls what the messages say."""
        model = ScriptedModel(script=[*said])
        return self.driver.agent(model, [*self.tools.values()], self.world, middleware, **more)

    def listed(self) -> frozenset[str]:
        """What an agent offers its model."""
        model = ScriptedModel()
        tools = [*self.tools.values()]
        self.driver.ask(self.driver.agent(model, tools, self.world, ()).invoke, GO, self.world)
        return frozenset(name for offer in model.offered for name in offer)

    def raw(self, name: str) -> Mapping[str, Callable[[Arguments], Any]]:
        """The attributes behind the host's own methods."""
        tool = self.tools[name]
        entrances: dict[str, Callable[[Arguments], Any]] = {}
        for label in ("func", "coroutine", "_run", "_arun"):
            for part in ("", ".__wrapped__"):
                found: Any = getattr(tool, label, None)
                found = getattr(found, "__wrapped__", None) if part else found
                if callable(found):
                    entrances[label + part] = entering(found)
        return entrances

    def replay(self, name: str, arguments: Arguments) -> str:
        """The same message of the model answered twice."""
        for _ in range(2):
            agent = self.agent(calls((name, dict(arguments)), ids=["again"]))
            said = told(answered(self.driver.ask(agent.invoke, GO, self.world)))
        return said

    def rename(self, name: str, new: str) -> str:
        """By its attribute."""
        tool = self.tools.pop(name)
        tool.name = new
        self.tools[new] = tool
        return self._said(calls((new, {"n": 3})))

    def swap(self, name: str, other: str) -> str:
        """By a middleware that another part of the program brought along."""
        put = SHAPES[self.driver.shapes[0]](other, self.world.body(other))
        return self._said(calls((name, {"n": 3})), middleware=[_swapping(put)])

    def add(self, probe: Probe) -> str:
        """By a middleware that brings a tool along."""
        late = SHAPES[self.driver.shapes[0]](probe.name, self.world.body(probe.ran_as))

        bringing: AgentMiddleware[Any, Any] = AgentMiddleware()
        bringing.tools = [late]
        return self._said(calls((probe.name, {"n": 3})), middleware=[bringing])

    def shadow(self, probe: Probe) -> str:
        """Two tools in one list."""
        second = SHAPES[self.driver.shapes[0]](probe.name, self.world.body(probe.ran_as))
        model = ScriptedModel(script=[calls((probe.name, {"n": 3}))])
        both = [*self.tools.values(), second]
        agent = self.driver.agent(model, both, self.world, ())
        return told(answered(self.driver.ask(agent.invoke, GO, self.world)))

    def retry(self, name: str, arguments: Arguments) -> str:
        """`with_retry` of runnables."""
        return told(self.tools[name].with_retry(stop_after_attempt=3).invoke(dict(arguments)))

    def fall_back(self, name: str, arguments: Arguments, probe: Probe) -> str:
        """`with_fallbacks` of runnables."""
        back = SHAPES[self.driver.shapes[0]](probe.name, self.world.body(probe.ran_as))
        return told(self.tools[name].with_fallbacks([back]).invoke(dict(arguments)))

    def _said(self, message: AIMessage, **more: Any) -> str:
        agent = self.agent(message, **more)
        return told(answered(self.driver.ask(agent.invoke, GO, self.world)))


def _swapping(put: BaseTool) -> AgentMiddleware[Any, Any]:
    class Swapping(AgentMiddleware[Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=put))

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(tool=put))

    return Swapping()


# -- paths ----------------------------------------------------------------------------------------

Path = Callable[[Tools, str, dict[str, Any]], Any]
AsyncPath = Callable[[Tools, str, dict[str, Any]], Awaitable[Any]]


def as_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """As the host gives it to a tool."""
    return {"type": "tool_call", "name": name, "id": "c1", "args": arguments}


def graph(tools: Tools) -> Any:
    """A graph that somebody built by hand."""
    built = StateGraph(MessagesState)
    built.add_node("tools", ToolNode([*tools.tools.values()], handle_tool_errors=False))
    built.add_edge(START, "tools")
    built.add_edge("tools", END)
    return built.compile()


def _node(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return graph(tools).invoke({"messages": [calls((name, arguments))]})


def _anode(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return graph(tools).ainvoke({"messages": [calls((name, arguments))]})


def _agent(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    agent = tools.agent(calls((name, arguments)))
    return answered(tools.driver.ask(agent.invoke, GO, tools.world))


async def _agent_ainvoke(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    agent = tools.agent(calls((name, arguments)))
    return answered(await tools.driver.aask(agent.ainvoke, GO, tools.world))


def _agent_stream(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    agent = tools.agent(calls((name, arguments)))

    def go(said: Any, config: Any) -> Any:
        return list(agent.stream(said, config, stream_mode="values"))[-1]

    return answered(tools.driver.ask(go, GO, tools.world))


async def _agent_astream(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    agent = tools.agent(calls((name, arguments)))

    async def go(said: Any, config: Any) -> Any:
        return [each async for each in agent.astream(said, config, stream_mode="values")][-1]

    return answered(await tools.driver.aask(go, GO, tools.world))


def _functional(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    @task
    def step(n: int) -> Any:
        return tools.tools[name].invoke(as_call(name, arguments))

    @entrypoint()
    def flow(n: int) -> Any:
        return step(n).result()

    return flow.invoke(1)


def _nested(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    def outer() -> Any:
        """Calls another, in the body of a tool that nobody guards."""
        return tools.tools[name].invoke(arguments)

    return StructuredTool.from_function(outer).invoke({})


def _as_tool(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    inner = RunnableLambda(lambda _: tools.tools[name].invoke(arguments))
    return inner.as_tool(arg_types={"x": int}, name="t", description="d").invoke({"x": 1})


async def _astream(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    return [chunk async for chunk in tools.tools[name].astream(arguments)]


async def _events(tools: Tools, name: str, arguments: dict[str, Any]) -> Any:
    tool = tools.tools[name]
    events = [each async for each in tool.astream_events(arguments, version="v2")]
    return events[-1]["data"]["output"]


def _back(_: Any) -> str:
    return "fallback"


SYNC: Final[dict[str, Path]] = {
    "agent.invoke": _agent,
    "agent.stream": _agent_stream,
    "ToolNode": _node,
    "invoke": lambda t, name, args: t.tools[name].invoke(args),
    "invoke(call)": lambda t, name, args: t.tools[name].invoke(as_call(name, args)),
    "run": lambda t, name, args: t.tools[name].run(args),
    "batch": lambda t, name, args: t.tools[name].batch([args]),
    "stream": lambda t, name, args: list(t.tools[name].stream(args)),
    "with_retry": lambda t, name, args: t.tools[name].with_retry(stop_after_attempt=3).invoke(args),
    "with_fallbacks": lambda t, name, args: (
        t.tools[name].with_fallbacks([RunnableLambda(_back)]).invoke(args)
    ),
    "sequence": lambda t, name, args: (t.tools[name] | RunnableLambda(lambda x: x)).invoke(args),
    "as_tool": _as_tool,
    "nested": _nested,
    "functional": _functional,
}
ASYNC: Final[dict[str, AsyncPath]] = {
    "agent.ainvoke": _agent_ainvoke,
    "agent.astream": _agent_astream,
    "ToolNode.ainvoke": _anode,
    "ainvoke": lambda t, name, args: t.tools[name].ainvoke(args),
    "ainvoke(call)": lambda t, name, args: t.tools[name].ainvoke(as_call(name, args)),
    "arun": lambda t, name, args: t.tools[name].arun(args),
    "abatch": lambda t, name, args: t.tools[name].abatch([args]),
    "astream": _astream,
    "astream_events": _events,
    "awith_retry": lambda t, name, args: (
        t.tools[name].with_retry(stop_after_attempt=3).ainvoke(args)
    ),
}


class LangChain(Driver):
    """The host. As it is, nobody guards it."""

    name = "unguarded"
    host = "langchain"
    shapes = tuple(SHAPES)
    paths = (*SYNC, *ASYNC)

    def impossible(self, shape: str, path: str) -> str:
        """Shapes without a synchronous body on synchronous paths."""
        if shape in ASYNC_ONLY and path in SYNC:
            return "the host does not run a coroutine from synchronous code"
        return ""

    def arguments(self, shape: str, n: int) -> dict[str, Any]:
        """Some shapes take text."""
        if shape == "single":
            return {"tool_input": str(n)}
        return {"query": str(n)} if shape == "retriever" else {"n": n}

    @contextmanager
    def open(self, world: World, *probes: Probe) -> Iterator[Session]:
        """Tools as the host has them, then the guard."""
        if not world.task:
            raise Missing("the guard knows no task")
        made = [self.make(world, each) for each in probes]
        yield Tools(self, world, self.guarded(made, world))

    def make(self, world: World, probe: Probe) -> BaseTool:
        """A tool of the host."""
        shape = SHAPES[probe.shape or self.shapes[0]]
        return shape(probe.name, world.body(probe.ran_as))

    def guarded(self, tools: list[BaseTool], world: World) -> list[BaseTool]:
        """The tools under the guard, where it wraps tools."""
        return tools

    def agent(
        self, model: Any, tools: list[BaseTool], world: World, middleware: Sequence[Any]
    ) -> Any:
        """An agent under the guard, where it is a middleware."""
        return agents.create_agent(model, tools, middleware=[*middleware])

    def ask(self, go: Callable[[Any, Any], Any], said: Any, world: World) -> Any:
        """Runs an agent to its end, with whatever the guard wants to know meanwhile."""
        return go(said, None)

    async def aask(self, go: Callable[[Any, Any], Awaitable[Any]], said: Any, world: World) -> Any:
        """The asynchronous twin."""
        return await go(said, None)
