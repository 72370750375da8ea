"""A LlamaIndex agent, or a workflow of agents, as `lictor attack` sees it.

Rules enforced here:

1. A call is made by the agent's own step, in a run of its own; only what its model would say is
   ours, and the run ends with the first answer of a tool.
2. Of an agent with a retriever of tools, those are tried that it finds for an empty text.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias

from llama_index.core.agent.workflow import AgentOutput, AgentWorkflow, ToolCallResult
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import BaseTool, FunctionTool, ToolMetadata, ToolOutput

from lictor.attack.lab import Recorder, Target
from lictor_llamaindex.kind import base_of
from lictor_llamaindex.seam import FIELDS, METHODS, Seam, replaced, seam_of
from lictor_llamaindex.step import GateAsk

Arguments: TypeAlias = "Mapping[str, Any]"
_ENTRANCES: Final = ("fn", "async_fn", "real_fn", *FIELDS)
_BEHIND: Final = {"_query_engine": ("query", "aquery"), "_retriever": ("retrieve", "aretrieve")}
_AWAITED: Final = frozenset({"acall", "aquery", "aretrieve"})


def target(agent: Any) -> Target | None:
    """The agent's tools, if it is an agent or a workflow of agents."""
    return _Agent(agent) if isinstance(agent, BaseWorkflowAgent | AgentWorkflow) else None


class _Agent(Target):
    def __init__(self, agent: BaseWorkflowAgent | AgentWorkflow) -> None:
        self._agent: Any = agent
        workflow = isinstance(agent, AgentWorkflow)
        self._members: dict[str, Any] = agent.agents if workflow else {agent.name: agent}  # type: ignore[union-attr]
        found = [(name, tool) for name in self._members for tool in self._tools_of(name)]
        self._holders = {str(tool.metadata.name): name for name, tool in reversed(found)}
        guarded = [tool for _, tool in found if base_of(type(tool)) is not None]
        bare = {str(tool.metadata.name) for _, tool in found if base_of(type(tool)) is None}
        self.unguarded = tuple(sorted(bare))
        self._tools = {str(tool.metadata.name): tool for tool in reversed(guarded)}
        self._seams = list(dict.fromkeys(map(seam_of, guarded)))
        self.tools = tuple(seam_of(tool).shape.tool for tool in self._tools.values())
        others = (seam.shape.tool for seam in self._seams)
        self.untried = tuple(tool for tool in others if tool not in self.tools)
        self.gates = tuple(dict.fromkeys(seam.gate for seam in self._seams))

    def _tools_of(self, name: str) -> list[BaseTool]:
        given = (name, "") if isinstance(self._agent, AgentWorkflow) else ("",)

        async def look() -> Any:
            return await self._agent.get_tools(*given)

        return list(asyncio.run(look()))

    @contextmanager
    def staged(self, recorder: Recorder) -> Iterator[None]:
        with replaced({seam: _bodies(seam, recorder) for seam in self._seams}):
            yield

    def call(self, name: str, arguments: Arguments, call_id: str) -> str:
        holder = self._holders.get(name, next(iter(self._members)))
        wanted = ToolSelection(tool_id=call_id, tool_name=name, tool_kwargs=dict(arguments))

        async def say(ctx: Any, *_: Any, **__: Any) -> AgentOutput:
            if isinstance(self._agent, AgentWorkflow):
                await ctx.store.set("current_agent_name", holder)
            said = ChatMessage(role="assistant", content="")
            return AgentOutput(response=said, tool_calls=[wanted], current_agent_name=holder)

        with ExitStack() as stack:
            for member in self._members.values():
                stack.enter_context(_instead(member, "take_step", say))
            return asyncio.run(_first_answer(self._agent))

    def raw(self, name: str) -> Mapping[str, Callable[[Arguments], Any]]:
        tool = self._tools[name]
        own = {label: getattr(tool, label, None) for label in _ENTRANCES}
        entrances = {label: _entering(found) for label, found in own.items() if callable(found)}
        for attribute, methods in _BEHIND.items():
            behind = getattr(tool, attribute, None)
            for each in methods if behind is not None else ():
                found = getattr(behind, each)
                entrances[f"{attribute}.{each}"] = _entering(found, named=False)
        return entrances

    @contextmanager
    def put(self, name: str, recorder: Recorder) -> Iterator[None]:
        member = self._members[self._holders.get(name, next(iter(self._members)))]
        before = self._tools.get(name)

        async def other(**arguments: Any) -> str:
            return recorder.run("put", arguments)

        schema: dict[str, Any] = {}
        if before is not None:
            schema["fn_schema"] = before.metadata.fn_schema
        told = ToolMetadata("Another.", name, **schema)
        kept = [each for each in member.tools or () if _name(each) != name]
        with _instead(member, "tools", [*kept, FunctionTool(async_fn=other, metadata=told)]):
            yield


def _name(tool: Any) -> str:
    return str(tool.metadata.name) if isinstance(tool, BaseTool) else str(tool.__name__)


_ABSENT: Final = object()


@contextmanager
def _instead(agent: Any, name: str, value: object) -> Iterator[None]:
    values = vars(agent)
    before = values.get(name, _ABSENT)
    values[name] = value
    try:
        yield
    finally:
        if before is _ABSENT:
            del values[name]
        else:
            values[name] = before


async def _first_answer(agent: Any) -> str:
    """Runs an agent until a tool has answered, or somebody is asked."""
    handler = agent.run("go")
    try:
        async for event in handler.stream_events():
            if isinstance(event, ToolCallResult):
                return str(event.tool_output.content)
            if isinstance(event, GateAsk):
                return event.text
        return str(await handler)  # raises what has ended it
    finally:
        if not handler.done():
            await handler.cancel_run()
            await asyncio.gather(handler, return_exceptions=True)


def _entering(found: Callable[..., Any], *, named: bool = True) -> Callable[[Arguments], Any]:
    def enter(arguments: Arguments) -> Any:
        given = found(**arguments) if named else found(*arguments.values())
        return asyncio.run(_wait(given)) if inspect.isawaitable(given) else given

    return enter


async def _wait(given: Any) -> Any:
    return await given


def _bodies(seam: Seam, recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """Recorders for each entry: what they are given is what the original would have been."""
    return {entry: _body(seam, entry, recorder) for entry in seam.bindings}


def _body(seam: Seam, entry: str, recorder: Recorder) -> Callable[..., Any]:
    shape, binding = seam.shape, seam.bindings[entry]
    name = shape.tool.key.name

    def record(*args: Any, **kwargs: Any) -> Any:
        values = args[1:] if args and isinstance(args[0], BaseTool) else args
        given = {**dict(zip(binding.positional, values, strict=False)), **kwargs}
        given.pop(shape.context, None)
        return _as_answer(entry, name, recorder.run(name, given))

    async def arecord(*args: Any, **kwargs: Any) -> Any:
        return record(*args, **kwargs)

    awaited = entry in _AWAITED or inspect.iscoroutinefunction(seam.original(entry))
    return arecord if awaited else record


def _as_answer(entry: str, name: str, said: str) -> Any:
    """What the host expects of this entry."""
    if entry in METHODS:
        return ToolOutput(tool_name=name, content=said, raw_input={}, raw_output=said)
    if entry.endswith("query"):
        return Response(said)
    if entry.endswith("retrieve"):
        return [NodeWithScore(node=TextNode(text=said), score=1.0)]
    return said
