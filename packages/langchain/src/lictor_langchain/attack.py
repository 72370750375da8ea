"""A LangChain agent as `lictor attack` sees it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as Single
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langsmith.run_helpers import tracing_context

from lictor.attack.lab import Recorder, Target
from lictor_langchain.kind import base_of
from lictor_langchain.seam import Seam, replaced, seam_of

_ENTRANCES: Final = ("func", "coroutine", "_run", "_arun")


def target(agent: Any) -> Target | None:
    """The agent's tools, if it is a compiled graph with tool nodes."""
    found = list(dict.fromkeys(_tool_nodes(agent)))
    return _Agent(found) if found else None


def _tool_nodes(graph: Any) -> Iterator[ToolNode]:
    """The tool nodes of a graph and of the graphs that are its nodes."""
    nodes = getattr(graph, "nodes", None)
    for node in nodes.values() if isinstance(nodes, Mapping) else ():
        for part in (node, getattr(node, "bound", None)):
            if isinstance(part, ToolNode):
                yield part
        for below in getattr(node, "subgraphs", ()):
            yield from _tool_nodes(below)


class _Agent(Target):
    def __init__(self, nodes: list[ToolNode]) -> None:
        self._nodes = {name: node for node in reversed(nodes) for name in node.tools_by_name}
        self._first = nodes[0]
        every = [pair for node in nodes for pair in node.tools_by_name.items()]
        self.unguarded = tuple(
            sorted({name for name, tool in every if base_of(type(tool)) is None})
        )
        guarded = [(name, tool) for name, tool in every if base_of(type(tool)) is not None]
        self._seams = {seam_of(tool): tool for _, tool in guarded}
        self._tools: dict[str, BaseTool] = dict(reversed(guarded))
        self.tools = tuple(seam_of(tool).shape.tool for tool in self._tools.values())
        others = (seam.shape.tool for seam in self._seams)
        self.untried = tuple(tool for tool in others if tool not in self.tools)
        self.gates = tuple(dict.fromkeys(seam.gate for seam in self._seams))

    @contextmanager
    def staged(self, recorder: Recorder) -> Iterator[None]:
        with replaced({seam: _bodies(tool, seam, recorder) for seam, tool in self._seams.items()}):
            yield

    def call(self, name: str, arguments: Mapping[str, Any], call_id: str) -> str:
        node = self._nodes.get(name, self._first)
        asked = {"type": "tool_call", "name": name, "args": dict(arguments), "id": call_id}
        with tracing_context(enabled=False):
            result = asyncio.run(
                _graph(node).ainvoke({"messages": [AIMessage("", tool_calls=[asked])]})
            )
        return str(result["messages"][-1].content)

    def raw(self, name: str) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        tool = self._tools[name]
        entrances = {label: getattr(tool, label, None) for label in _ENTRANCES}
        return {label: entering(found) for label, found in entrances.items() if callable(found)}

    @contextmanager
    def put(self, name: str, recorder: Recorder) -> Iterator[None]:
        node = self._nodes.get(name, self._first)
        before = node.tools_by_name.get(name)
        like: Any = before.args_schema if before is not None else {"type": "object"}

        async def other(**arguments: Any) -> str:
            return recorder.run("put", arguments)

        node.tools_by_name[name] = StructuredTool(
            name=name, description="Another.", args_schema=like, coroutine=other
        )
        try:
            yield
        finally:
            if before is None:
                del node.tools_by_name[name]
            else:
                node.tools_by_name[name] = before


def _graph(node: ToolNode) -> Any:
    built = StateGraph(MessagesState)
    built.add_node("tools", node)
    built.add_edge(START, "tools")
    built.add_edge("tools", END)
    return built.compile()


def entering(found: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """How to get into a tool by a callable that it has, with what that demands beside arguments."""
    signature = inspect.signature(found)
    parameter = signature.parameters.get("config")
    host: dict[str, Any] = (
        {"config": {}} if parameter and parameter.default is parameter.empty else {}
    )

    def _takes(arguments: Mapping[str, Any]) -> bool:
        try:
            signature.bind(**arguments, **host)
        except TypeError:
            return False
        return True

    def enter(arguments: Mapping[str, Any]) -> Any:
        named = not isinstance(getattr(found, "__self__", None), Single) and _takes(arguments)
        if named:
            given = found(**arguments, **host)
        else:  # a tool of one text calls it whatever it likes
            given = found(*arguments.values(), **host)
        return asyncio.run(_wait(given)) if inspect.isawaitable(given) else given

    return enter


async def _wait(given: Any) -> Any:
    return await given


def _bodies(tool: BaseTool, seam: Seam, recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """Recorders for each entry: what they are given is what the original would have been."""
    name = seam.shape.tool.key.name
    pair = tool.response_format == "content_and_artifact"

    def record(*args: Any, **kwargs: Any) -> Any:
        given = {str(n): each for n, each in enumerate(args) if not isinstance(each, BaseTool)}
        said = recorder.run(name, {**given, **kwargs})
        return (said, None) if pair else said

    async def arecord(*args: Any, **kwargs: Any) -> Any:
        return record(*args, **kwargs)

    return {
        entry: arecord if entry in ("coroutine", "_arun") else record
        for entry in seam.shape.bindings
    }
