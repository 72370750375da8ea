"""A LangChain agent as `lictor attack` sees it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from lictor.attack.lab import Recorder, Target
from lictor_langchain.kind import base_of
from lictor_langchain.seam import Seam, replaced, seam_of

_ENTRANCES: Final = ("func", "coroutine", "_run", "_arun")


def target(agent: Any) -> Target | None:
    """The agent's tools, if it is a compiled graph with tool nodes."""
    nodes = getattr(agent, "nodes", None)
    if not isinstance(nodes, Mapping):
        return None
    found = [node for each in nodes.values() if (node := _tool_node(each)) is not None]
    return _Agent(found) if found else None


def _tool_node(node: Any) -> ToolNode | None:
    for part in (node, getattr(node, "bound", None)):
        if isinstance(part, ToolNode):
            return part
    return None


class _Agent(Target):
    def __init__(self, nodes: list[ToolNode]) -> None:
        self._nodes = {name: node for node in nodes for name in node.tools_by_name}
        self._first = nodes[0]
        tools = {name: node.tools_by_name[name] for name, node in self._nodes.items()}
        guarded = {name: tool for name, tool in tools.items() if base_of(type(tool)) is not None}
        self.unguarded = tuple(sorted(tools.keys() - guarded.keys()))
        self._tools: dict[str, BaseTool] = guarded
        seams = [seam_of(tool) for tool in guarded.values()]
        self.tools = tuple(seam.shape.tool for seam in seams)
        self.gates = tuple(dict.fromkeys(seam.gate for seam in seams))

    @contextmanager
    def staged(self, recorder: Recorder) -> Iterator[None]:
        seams = {name: seam_of(tool) for name, tool in self._tools.items()}
        with replaced(
            {seams[name]: _bodies(self._tools[name], seams[name], recorder) for name in seams}
        ):
            yield

    def call(self, name: str, arguments: Mapping[str, Any], call_id: str) -> str:
        node = self._nodes.get(name, self._first)
        asked = {"type": "tool_call", "name": name, "args": dict(arguments), "id": call_id}
        result = asyncio.run(
            _graph(node).ainvoke({"messages": [AIMessage("", tool_calls=[asked])]})
        )
        return str(result["messages"][-1].content)

    def raw(self, name: str) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        tool = self._tools[name]
        entrances = {label: getattr(tool, label, None) for label in _ENTRANCES}
        return {label: _entering(found) for label, found in entrances.items() if callable(found)}

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


def _entering(found: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    def enter(arguments: Mapping[str, Any]) -> Any:
        given = found(**arguments)
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
