"""Every shape of tool on every path of the host: one decision an attempt, no body without one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    StructuredTool,
    Tool,
    create_retriever_tool,
    tool,
)
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel, Field

from lictor.testing import DenyAll, UnsafeAllowAll
from lictor_langchain import create_agent, guard
from lictor_langchain.testing import ScriptedModel, calls

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"  # `as_tool` is a beta
)

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


# -- shapes ---------------------------------------------------------------------------------------


@tool
def sync_tool(n: int) -> str:
    """Acts."""
    RAN.append(n)
    return f"ran {n}"


@tool
async def async_tool(n: int) -> str:
    """Acts."""
    RAN.append(n)
    return f"ran {n}"


def _sync(n: int) -> str:
    RAN.append(n)
    return f"ran {n}"


async def _async(n: int) -> str:
    RAN.append(n)
    return f"ran {n}"


class Number(BaseModel):
    n: int = Field(description="which")


class SyncClass(BaseTool):
    name: str = "sync_class"
    description: str = "Acts."
    args_schema: type[BaseModel] = Number

    def _run(self, n: int, run_manager: CallbackManagerForToolRun | None = None) -> str:
        RAN.append(n)
        return f"ran {n}"


class InferredClass(BaseTool):
    name: str = "inferred_class"
    description: str = "Acts."

    def _run(self, n: int) -> str:
        RAN.append(n)
        return f"ran {n}"


class AsyncClass(BaseTool):
    name: str = "async_class"
    description: str = "Acts."
    args_schema: type[BaseModel] = Number

    def _run(self, n: int) -> str:
        raise NotImplementedError

    async def _arun(self, n: int) -> str:
        RAN.append(n)
        return f"ran {n}"


class BothClass(SyncClass):
    name: str = "both_class"

    async def _arun(self, n: int, config: RunnableConfig, **kwargs: Any) -> str:
        RAN.append(n)
        return f"ran {n}"


class ForwardingClass(SyncClass):
    name: str = "forwarding_class"

    async def _arun(self, n: int) -> str:
        return self._run(n)


class OwnStructured(StructuredTool):
    def _run(self, *args: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        return super()._run(*args, config=config, **kwargs)


@tool(response_format="content_and_artifact")
def artifact_tool(n: int) -> tuple[str, list[int]]:
    """Acts."""
    RAN.append(n)
    return f"ran {n}", [n]


@tool
def config_tool(n: int, config: RunnableConfig) -> str:
    """Acts."""
    assert config is None or "callbacks" in config
    RAN.append(n)
    return f"ran {n}"


@tool
def postponed_tool(n: int, user: Annotated[str, InjectedToolArg] = "nobody") -> str:
    """Acts."""
    assert user == "nobody"
    RAN.append(n)
    return f"ran {n}"


class Retriever(BaseRetriever):
    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        RAN.append(int(query))
        return [Document(page_content=f"ran {query}")]


class Toolkit:
    def method(self, n: int) -> str:
        """Acts."""
        RAN.append(n)
        return f"ran {n}"

    def tools(self) -> list[BaseTool]:
        return [StructuredTool.from_function(self.method, name="toolkit_tool")]


def _partial(prefix: str, n: int) -> str:
    RAN.append(n)
    return f"{prefix} {n}"


async def _remote(
    runtime: Annotated[object | None, InjectedToolArg()] = None, **arguments: Any
) -> tuple[str, None]:
    RAN.append(arguments["n"])
    return f"ran {arguments['n']}", None


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

SHAPES: dict[str, Callable[[], BaseTool]] = {
    "sync": lambda: sync_tool,
    "async": lambda: async_tool,
    "both": lambda: StructuredTool.from_function(
        _sync, coroutine=_async, name="both", description="Acts."
    ),
    "schema": lambda: StructuredTool.from_function(
        _sync, name="schema", description="Acts.", args_schema=Number
    ),
    "dict_schema": lambda: StructuredTool(
        name="dict_schema", description="Acts.", args_schema=SCHEMA, func=_sync
    ),
    "single": lambda: Tool(name="single", description="Acts.", func=lambda q: _sync(int(q))),
    "sync_class": SyncClass,
    "inferred_class": InferredClass,
    "async_class": AsyncClass,
    "both_class": BothClass,
    "forwarding_class": ForwardingClass,
    "own_structured": lambda: OwnStructured.from_function(
        _sync, name="own_structured", description="Acts."
    ),
    "artifact": lambda: artifact_tool,
    "config": lambda: config_tool,
    "injected_default": lambda: postponed_tool,
    "retriever": lambda: create_retriever_tool(Retriever(), "retriever", "Acts."),
    "toolkit": lambda: Toolkit().tools()[0],
    "partial": lambda: StructuredTool(
        name="partial",
        description="Acts.",
        args_schema=Number,
        func=functools.partial(_partial, "ran"),
    ),
    "remote": lambda: StructuredTool(
        name="remote",
        description="Acts.",
        args_schema=SCHEMA,
        coroutine=_remote,
        response_format="content_and_artifact",
    ),
}
ASYNC_ONLY = {"async", "remote"}
"""Shapes whose synchronous paths the host itself refuses."""
SERVER = {"remote": "notes"}


def arguments(shape: str) -> dict[str, Any]:
    """What a model would send for 3."""
    if shape == "single":
        return {"tool_input": "3"}
    return {"query": "3"} if shape == "retriever" else {"n": 3}


# -- paths ----------------------------------------------------------------------------------------


def as_call(copy: BaseTool, shape: str) -> dict[str, Any]:
    return {"type": "tool_call", "name": copy.name, "id": "c1", "args": arguments(shape)}


def message(copy: BaseTool, shape: str) -> AIMessage:
    return calls((copy.name, arguments(shape)))


def graph(copy: BaseTool) -> Any:
    built = StateGraph(MessagesState)
    built.add_node("tools", ToolNode([copy], handle_tool_errors=False))
    built.add_edge(START, "tools")
    built.add_edge("tools", END)
    return built.compile()


def told(result: Any) -> str:
    """The text that reaches the model or the program."""
    while isinstance(result, list | tuple) and result:
        result = result[-1]
    if isinstance(result, dict):
        return told(result.get("messages") or result.get("output") or list(result.values()))
    return str(result.content) if hasattr(result, "content") else str(result)


def agent(copy: BaseTool, shape: str, gate: Any) -> Any:
    model = ScriptedModel(script=[message(copy, shape)])
    return create_agent(model, [copy], gate=gate, server=SERVER.get(shape, "local"))


def last_tool_message(result: dict[str, Any]) -> Any:
    return [m for m in result["messages"] if isinstance(m, ToolMessage)][-1]


GO = {"messages": [("user", "go")]}


def functional(copy: BaseTool, shape: str) -> Any:
    @task
    def step(n: int) -> Any:
        return copy.invoke(as_call(copy, shape))

    @entrypoint()
    def flow(n: int) -> Any:
        return step(n).result()

    return flow


def nested(copy: BaseTool, shape: str) -> Any:
    """Called by hand in the body of a tool that nobody guards."""

    def outer() -> Any:
        """Calls another."""
        return copy.invoke(arguments(shape))

    return StructuredTool.from_function(outer).invoke({})


Path = Callable[[BaseTool, str, Any], Any]

SYNC: dict[str, Path] = {
    "invoke": lambda c, s, g: c.invoke(arguments(s)),
    "invoke_call": lambda c, s, g: c.invoke(as_call(c, s)),
    "run": lambda c, s, g: c.run(arguments(s)),
    "batch": lambda c, s, g: c.batch([arguments(s)]),
    "stream": lambda c, s, g: list(c.stream(arguments(s))),
    "with_retry": lambda c, s, g: c.with_retry(stop_after_attempt=3).invoke(arguments(s)),
    "with_fallbacks": lambda c, s, g: c.with_fallbacks([RunnableLambda(fallback)]).invoke(
        arguments(s)
    ),
    "sequence": lambda c, s, g: (c | RunnableLambda(lambda x: x)).invoke(arguments(s)),
    "as_tool": lambda c, s, g: (
        RunnableLambda(lambda _: c.invoke(arguments(s)))
        .as_tool(arg_types={"x": int}, name="t", description="d")
        .invoke({"x": 1})
    ),
    "nested": lambda c, s, g: nested(c, s),
    "node": lambda c, s, g: graph(c).invoke({"messages": [message(c, s)]}),
    "agent": lambda c, s, g: last_tool_message(agent(c, s, g).invoke(GO)),
    "agent_stream": lambda c, s, g: last_tool_message(
        list(agent(c, s, g).stream(GO, stream_mode="values"))[-1]
    ),
    "functional": lambda c, s, g: functional(c, s).invoke(1),
    "executor_thread": lambda c, s, g: asyncio.run(c.ainvoke(arguments(s))),
}


async def _events(copy: BaseTool, shape: str) -> Any:
    events = [e async for e in copy.astream_events(arguments(shape), version="v2")]
    return events[-1]["data"]["output"]


async def _astream(copy: BaseTool, shape: str) -> Any:
    return [chunk async for chunk in copy.astream(arguments(shape))]


async def _agent_astream(copy: BaseTool, shape: str, gate: Any) -> Any:
    made = agent(copy, shape, gate)
    return last_tool_message([s async for s in made.astream(GO, stream_mode="values")][-1])


async def _agent_ainvoke(copy: BaseTool, shape: str, gate: Any) -> Any:
    return last_tool_message(await agent(copy, shape, gate).ainvoke(GO))


ASYNC: dict[str, Path] = {
    "ainvoke": lambda c, s, g: c.ainvoke(arguments(s)),
    "ainvoke_call": lambda c, s, g: c.ainvoke(as_call(c, s)),
    "arun": lambda c, s, g: c.arun(arguments(s)),
    "abatch": lambda c, s, g: c.abatch([arguments(s)]),
    "astream": lambda c, s, g: _astream(c, s),
    "astream_events": lambda c, s, g: _events(c, s),
    "awith_retry": lambda c, s, g: c.with_retry(stop_after_attempt=3).ainvoke(arguments(s)),
    "anode": lambda c, s, g: graph(c).ainvoke({"messages": [message(c, s)]}),
    "aagent": lambda c, s, g: _agent_ainvoke(c, s, g),
    "aagent_stream": lambda c, s, g: _agent_astream(c, s, g),
}


def fallback(_: Any) -> str:
    RAN.append("fallback")
    return "fallback"


async def _awaited(path: Path, copy: BaseTool, shape: str, gate: Any) -> Any:
    return await path(copy, shape, gate)


def go(path: str, copy: BaseTool, shape: str, gate: Any) -> Any:
    if path in SYNC:
        return SYNC[path](copy, shape, gate)
    return asyncio.run(_awaited(ASYNC[path], copy, shape, gate))


SYNC_ONLY_PATHS = set(SYNC) - {"executor_thread"}


def refused_by_host(shape: str, path: str) -> bool:
    return path in SYNC_ONLY_PATHS and (shape in ASYNC_ONLY)


def cases() -> list[tuple[str, str]]:
    return [
        (shape, path)
        for shape in SHAPES
        for path in [*SYNC, *ASYNC]
        if not refused_by_host(shape, path)
        and not (shape == "async_class" and path in SYNC_ONLY_PATHS)
    ]


@pytest.mark.parametrize(("shape", "path"), cases())
def test_an_allowed_call_is_decided_once_and_runs_once(
    host: Callable[..., Any], shape: str, path: str
) -> None:
    world = setup(host, shape, UnsafeAllowAll())
    copy = guard(SHAPES[shape](), world.gate, server=SERVER.get(shape, "local"))

    with world.task():
        result = go(path, copy, shape, world.gate)

    assert RAN == [3]
    assert "ran 3" in told(result)
    assert world.codes() == ["permit"]
    assert world.outcomes() == ["done"]


@pytest.mark.parametrize(("shape", "path"), cases())
def test_a_denied_call_is_decided_once_and_is_a_value(
    host: Callable[..., Any], shape: str, path: str
) -> None:
    world = setup(host, shape, DenyAll())
    copy = guard(SHAPES[shape](), world.gate, server=SERVER.get(shape, "local"))

    with world.task():
        result = go(path, copy, shape, world.gate)

    assert RAN == []
    assert told(result).startswith("This is not permitted.")
    assert world.codes() == ["no_permit"]
    assert world.outcomes() == []


@pytest.mark.parametrize("shape", sorted(ASYNC_ONLY))
@pytest.mark.parametrize("path", ["invoke", "invoke_call", "run", "batch", "node"])
def test_an_attempt_that_the_host_itself_refuses_is_recorded(
    host: Callable[..., Any], shape: str, path: str
) -> None:
    world = setup(host, shape, UnsafeAllowAll())
    copy = guard(SHAPES[shape](), world.gate, server=SERVER.get(shape, "local"))

    with world.task(), pytest.raises(NotImplementedError):
        go(path, copy, shape, world.gate)

    assert RAN == []
    assert world.codes() == ["host_refused"]


def setup(host: Callable[..., Any], shape: str, policy: Any) -> Any:
    from lictor_langchain.testing import known

    server = SERVER.get(shape, "local")
    return host(known(SHAPES[shape](), server=server), policy=policy)
