"""`guard_agent`: an agent or a workflow of agents whose every tool call is authorized.

Rules enforced here:

1. It decides nothing: it guards whatever `get_tools` gives, and the seam decides.
2. A name without a tool and a call without an id are refused, on record.
3. The model is offered what the task may call; the call decides.
4. The agent that a workflow begins with acts for the task. Whoever gets the word by hand-off, and
   an agent that is started in a tool's body, acts in a child task of its own name; one that the
   directory does not know may only read.
5. What runs code that a model has written is one decision, and is refused in this process.
6. The fifth identical denial ends the run.
7. A host whose hooks are not the ones we know is refused, naming its version.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from llama_index.core.agent.workflow import AgentOutput, AgentWorkflow, CodeActAgent, ToolCallResult
from llama_index.core.agent.workflow import multi_agent_workflow as host_workflow
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.agent.workflow.codeact_agent import EXECUTE_TOOL_NAME
from llama_index.core.llms import ChatMessage
from llama_index.core.objects import ObjectRetriever
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool, ToolOutput

from lictor import TaskError, Tool, ToolCall
from lictor.errors import HostChanged, Unguardable
from lictor.gate import Gate
from lictor.model import SERVER_ID, Decision
from lictor.subagent import Delegation, inside, setting
from lictor_llamaindex.denial import decision_of
from lictor_llamaindex.guarding import guard as guard_tools
from lictor_llamaindex.guarding import guarded, proven, refuse_doubles
from lictor_llamaindex.kind import base_of
from lictor_llamaindex.proof import demand, host
from lictor_llamaindex.seam import PEP, Seam
from lictor_llamaindex.shape import LOCAL

A = TypeVar("A", BaseWorkflowAgent, AgentWorkflow)

ENDED: Final = "Stopped: the same tool call was refused again and again."
NO_ID: Final = "the model's call has no id, so neither its origin nor a replay can be recognised"
_END: Final = "lictor_ended"
_GUARD: Final = "_lictor_guard"
_NEEDED: Final[dict[Callable[..., Any], set[str]]] = {
    BaseWorkflowAgent.get_tools: {"input_str"},
    BaseWorkflowAgent.take_step: {"ctx", "llm_input", "tools", "memory"},
    BaseWorkflowAgent._call_tool: {"ctx", "tool", "tool_input"},
    AgentWorkflow.get_tools: {"agent_name", "input_str"},
    AgentWorkflow._call_tool: {"ctx", "tool", "tool_input"},
}
_lock: Final = threading.RLock()
_classes: dict[type[Any], type[Any]] = {}


class _Guard:
    """What the guarded class of an agent knows.

    Attributes:
        gate: Who decides.
        server: Where tools that are not guarded yet come from.
        root: The host's name of the agent that acts for the task.
    """

    def __init__(
        self, gate: Gate, server: str, root: str, agents: Mapping[str, str], named: frozenset[str]
    ) -> None:
        self.gate, self.server, self.root = gate, server, root
        self._named = named
        self._delegations = {name: Delegation(agent, gate) for name, agent in agents.items()}
        self._handoffs: dict[tuple[str, str], AsyncBaseTool] = {}

    def __deepcopy__(self, memo: object) -> _Guard:
        return self

    def guarded(self, tools: Sequence[Any], agent: Any) -> list[AsyncBaseTool]:
        """Copies of whatever an agent has."""
        copies = [self._guarded(each, agent) for each in tools]
        refuse_doubles(copies)
        return copies

    def _guarded(self, tool: BaseTool, agent: Any) -> AsyncBaseTool:
        name = tool.metadata.get_name()
        if getattr(tool, "_real_fn", None) is host_workflow.handoff:
            # The host makes it anew each time.
            key = (name, tool.metadata.description)
            if key not in self._handoffs:
                self._handoffs[key] = guarded(tool, self.gate, LOCAL)
            return self._handoffs[key]
        code = isinstance(agent, CodeActAgent) and name == EXECUTE_TOOL_NAME
        made = guarded(tool, self.gate, self.server, executes=code)
        seam = self.seam(made)
        if code and seam is not None and not seam.shape.executes:
            raise Unguardable(
                name,
                "it was guarded as a tool like others, and it runs code that a model has written",
                "guard_agent(agent, gate) without guarding its tools before",
            )
        return made

    def acting(self, agent: str, tools: Sequence[BaseTool]) -> AbstractContextManager[Any]:
        """The authority of an agent of this workflow, here.

        Raises:
            TaskError: The program has mapped it to an agent that is not known.
        """
        task = self.gate.current()
        place = inside.get()
        within = place is not None and place.task is task
        if task is None or not task.live or (agent == self.root and not within):
            return nullcontext()
        held = [seam.shape.tool.key for each in tools if (seam := self.seam(each)) is not None]
        try:
            return self._delegations[agent].acting(held)
        except TaskError:
            if agent in self._named:
                raise
            return task.reading().here()

    def seam(self, tool: BaseTool) -> Seam | None:
        """The seam of a guarded tool."""
        found = self.gate.held(tool)
        return found if isinstance(found, Seam) else None

    def offered(self, tools: Sequence[BaseTool]) -> list[BaseTool]:
        """What the task may call."""
        known = [(each, seam.shape.tool) for each in tools if (seam := self.seam(each))]
        visible = self.gate.visible(tool for _, tool in known)
        return [each for each, tool in known if tool.key in visible]

    def refuse(self, event: Any, reason: str, detail: str) -> Decision:
        """Records a call that reaches no tool."""
        tool = Tool.unknown(self.server, str(event.tool_name))
        arguments = event.tool_kwargs if isinstance(event.tool_kwargs, dict) else {}
        call = ToolCall(tool, arguments, host_id=event.tool_id or "", pep=PEP)
        return self.gate.refuse(call, reason, detail)


def guard_agent(
    agent: A, gate: Gate, server: str = LOCAL, *, agents: Mapping[str, str] | None = None
) -> A:
    """Has every tool call of an agent authorized, whatever tools it will have.

    The agent itself is changed, so that no unguarded one is left behind.

    Args:
        agent: A `FunctionAgent`, `ReActAgent`, `CodeActAgent` or other workflow agent, or an
            `AgentWorkflow`; of one, its agents too.
        gate: Who decides.
        server: Where tools that are not guarded yet come from.
        agents: Name of an agent in the host → its name in the directory, where they differ.

    Returns:
        The agent.

    Raises:
        Unguardable: It is guarded by another gate, or has a tool that cannot be guarded.
        HostChanged: The host no longer has the hooks this stands on.
    """
    if not isinstance(gate, Gate):
        raise TypeError(f"gate must be a lictor Gate, not {type(gate).__name__}")
    if not isinstance(agent, BaseWorkflowAgent | AgentWorkflow):
        raise Unguardable(
            type(agent).__name__, "it is no agent of LlamaIndex", "guard(tools, gate) for its tools"
        )
    if not SERVER_ID.fullmatch(server):
        raise Unguardable(server, "this is no server id", "use [a-z][a-z0-9-]{0,31}")
    check_host()
    members = agent.agents if isinstance(agent, AgentWorkflow) else {agent.name: agent}
    root = agent.root_agent if isinstance(agent, AgentWorkflow) else agent.name
    mapped = dict(agents or {})
    unknown = sorted(mapped.keys() - members.keys())
    if unknown:
        raise Unguardable(unknown[0], "no agent has this name", f"one of {', '.join(members)}")
    names = {name: mapped.get(name, name) for name in members}
    guard = _Guard(gate, server, root, names, frozenset(mapped))
    if isinstance(agent, AgentWorkflow):
        for name, member in members.items():
            own = {name: names[name]}
            _become(member, _Guard(gate, server, name, own, frozenset(mapped) & own.keys()))
    for member in members.values():
        _keep(member, guard)
    _become(agent, guard)
    _prove(agent, guard)
    gate.announce(again=True)
    return agent


def check_host() -> None:
    """Demands the hooks that the adapter stands on.

    Raises:
        HostChanged: One is missing.
    """
    for hook, names in _NEEDED.items():
        missing = names - inspect.signature(hook).parameters.keys()
        if missing:
            raise HostChanged(
                f"{host()}: {hook.__qualname__} has no {', '.join(sorted(missing))}\n"
                "  mend: use a version that docs/llamaindex.md lists"
            )


def _become(agent: Any, guard: _Guard) -> None:
    known: _Guard | None = agent.__dict__.get(_GUARD)
    if known is not None and known.gate is not guard.gate:
        raise Unguardable(
            _name(agent), "another gate guards it already", "make an agent for each gate"
        )
    if known is None:
        object.__setattr__(agent, "__class__", _class_of(type(agent)))
    agent.__dict__[_GUARD] = guard


class _Kept(list[Any]):
    """Tools of an agent; a deep copy of the agent has the same, as a copy of one is no guard."""

    def __deepcopy__(self, memo: object) -> _Kept:
        return _Kept(self)


def _keep(agent: BaseWorkflowAgent, guard: _Guard) -> None:
    """Leaves guarded tools with an agent: a workflow made of it later reads them past its hooks."""
    if agent.tools:
        pairs = zip(agent.tools, guard.guarded(agent.tools, agent), strict=True)
        kept = [each if base_of(type(each)) is not None else made for each, made in pairs]
        agent.__dict__["tools"] = _Kept(kept)
    if isinstance(agent.tool_retriever, ObjectRetriever):
        found = guard_tools(agent.tool_retriever, guard.gate, guard.server)
        agent.__dict__["tool_retriever"] = found


def _name(agent: Any) -> str:
    return str(getattr(agent, "name", type(agent).__name__))


def _class_of(base: type[Any]) -> type[Any]:
    """A subclass whose tools are guarded and whose calls are watched."""
    with _lock:
        made = _classes.get(base)
        if made is None:
            names: dict[str, Any] = {
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "get_tools": _get_tools(base),
                "call_tool": _call_tool(base),
            }
            if issubclass(base, BaseWorkflowAgent):
                names["take_step"] = _take_step(base)
            made = type(base)(base.__name__, (base,), names)  # type: ignore[misc]
            made._step_functions = dict(base._step_functions)
            _classes[base] = made
        return made


_looked_up: Final[ContextVar[list[Any]]] = ContextVar("lictor_llamaindex_found")


def _found(agent: Any) -> list[AsyncBaseTool] | None:
    """What was looked up for this very call, once: a retriever need not be asked twice."""
    held = _looked_up.get([])
    if held and held[0] is agent:
        tools: list[AsyncBaseTool] = held[1]
        held.clear()
        return tools
    return None


def _get_tools(base: type[Any]) -> Any:
    if issubclass(base, AgentWorkflow):

        async def of_workflow(
            self: Any, agent_name: str, input_str: str | None = None
        ) -> list[AsyncBaseTool]:
            if (known := _found(self)) is not None:
                return known
            found = await base.get_tools(self, agent_name, input_str)
            return self.__dict__[_GUARD].guarded(found, self.agents[agent_name])  # type: ignore[no-any-return]

        return of_workflow

    async def get_tools(self: Any, input_str: str | None = None) -> list[AsyncBaseTool]:
        if (known := _found(self)) is not None:
            return known
        found = await base.get_tools(self, input_str)
        return self.__dict__[_GUARD].guarded(found, self)  # type: ignore[no-any-return]

    return get_tools


def _take_step(base: type[Any]) -> Any:
    async def take_step(self: Any, ctx: Any, llm_input: Any, tools: Any, memory: Any) -> Any:
        guard: _Guard = self.__dict__[_GUARD]
        if await ctx.store.get(_END, default=False):
            await ctx.store.set(_END, False)
            return AgentOutput(
                response=ChatMessage(role="assistant", content=ENDED), current_agent_name=self.name
            )
        with await _authority(guard, self, ctx, tools):
            return await base.take_step(self, ctx, llm_input, guard.offered(tools), memory)

    return take_step


def _call_tool(base: type[Any]) -> Any:
    config = getattr(base.call_tool, "_step_config", None)
    if config is None:
        raise Unguardable(base.__name__, "its call_tool is no step of the host", "put @step on it")

    async def call_tool(self: Any, **given: Any) -> Any:
        guard: _Guard = self.__dict__[_GUARD]
        event, ctx = given[config.event_name], given[config.context_parameter]
        tools = await _tools_of(self, ctx, event.tool_name)
        named = {each.metadata.name for each in tools}
        if event.tool_name in named and event.tool_id:
            with await _authority(guard, self, ctx, tools), setting(_looked_up, [self, tools]):
                result = await base.call_tool(self, **given)
            decision = decision_of(result.tool_output)
        else:
            reason, detail = "tool_unknown", "no tool of the agent has this name"
            if not event.tool_id:
                reason, detail = "input_invalid", NO_ID
            with await _authority(guard, self, ctx, tools):
                decision = guard.refuse(event, reason, detail)
            result = _told(event, decision)
            ctx.write_event_to_stream(result)
        if decision is not None and decision.final:
            await ctx.store.set(_END, True)
        return result

    call_tool._step_config = config  # type: ignore[attr-defined]
    return call_tool


async def _tools_of(agent: Any, ctx: Any, wanted: str) -> Sequence[BaseTool]:
    if isinstance(agent, AgentWorkflow):
        name = await ctx.store.get("current_agent_name")
        return await agent.get_tools(name, wanted)
    return await agent.get_tools(wanted)  # type: ignore[no-any-return]


async def _authority(
    guard: _Guard, agent: Any, ctx: Any, tools: Sequence[BaseTool]
) -> AbstractContextManager[Any]:
    """Whoever has the word: in a workflow that is not always the one it began with."""
    current = await ctx.store.get("current_agent_name", default=None)
    if current is None:
        return guard.acting(agent.name, tools)
    return guard.acting(str(current), tools)


def _told(event: Any, decision: Decision) -> Any:
    """The result of a call that reached no tool."""
    output = ToolOutput(
        tool_name=str(event.tool_name),
        content=decision.text,
        raw_input={},
        raw_output=None,
        is_error=True,
    )
    return ToolCallResult(
        tool_name=event.tool_name,
        tool_kwargs=event.tool_kwargs,
        tool_id=event.tool_id,
        tool_output=output,
        return_direct=False,
    )


def _prove(agent: Any, guard: _Guard) -> None:
    """Demands that the host takes the steps that are ours, and that its way of calling is met."""
    step = agent._get_steps().get("call_tool")
    if getattr(step, "__func__", step) is not type(agent).call_tool:
        raise HostChanged(f"{host()} does not take the steps of a subclass")

    def probe() -> None:
        """Is never run."""

    copy, seam = proven(FunctionTool.from_defaults(probe), guard.gate, LOCAL)
    demand(guard.gate, seam, agent._call_tool, None, copy, {})
