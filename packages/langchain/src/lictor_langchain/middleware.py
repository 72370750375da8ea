"""`GateMiddleware`: reaches what was not guarded beforehand, and tells the agent loop what to do.

Rules enforced here:

1. It decides nothing: it guards what is about to run, last of all middleware, and the seam decides.
2. A name without a tool, or a tool under another name, is refused.
3. The model is offered what the task may call, and no provider tool that was not allow-listed.
4. A denied tool that returns directly does not end the run; the fifth identical denial does.
5. With `agent=`, everything inside runs under a delegated task of that agent.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from lictor import Decision, TaskError, Tool, ToolCall
from lictor.errors import Unguardable
from lictor.gate import Gate
from lictor.model import SERVER_ID
from lictor.subagent import Delegation, acting, setting
from lictor_langchain import provider
from lictor_langchain.denial import ToolDenied, message
from lictor_langchain.guarding import guarded
from lictor_langchain.meeting import NO_ID, Watch, watching
from lictor_langchain.seam import PEP, seam_of
from lictor_langchain.shape import LOCAL

ENDED: Final = "Stopped: the same tool call was refused again and again."
Result = ToolMessage | Command[Any]
_MANY: Final = 1_000


class GateMiddleware(AgentMiddleware[Any, Any, Any]):
    """Guards whatever an agent is about to run. Must be the last middleware.

    Args:
        gate: Who decides.
        server: Where tools that are not guarded yet come from.
        agent: The sub-agent this middleware belongs to: a name of the directory. Everything it does
            runs under a child task that gets, of the current grant, the tools the sub-agent holds.
        provider_tools: Types of provider-side tools that the model may be given; the gate never
            sees what those do.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        server: str = LOCAL,
        agent: str | None = None,
        provider_tools: Iterable[str] = (),
    ) -> None:
        super().__init__()
        if not SERVER_ID.fullmatch(server):
            raise Unguardable(server, "this is no server id", "use [a-z][a-z0-9-]{0,31}")
        self.tools = []
        self.gate = gate
        self.server = server
        self.entry = "model"
        self.provider_tools = frozenset(provider_tools)
        self._delegation = Delegation(agent, gate) if agent is not None else None
        self._final: dict[tuple[str, str], bool] = {}
        self._lock = threading.Lock()

    # -- tool calls -------------------------------------------------------------------------------

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]
    ) -> Result:
        """Guards the tool of a call, then lets it run."""
        try:
            with self._as_agent(request):
                prepared = self._prepared(request)
                watch = Watch(request.tool_call["id"] or "")
                with setting(watching, watch):
                    return self._after(request, watch, handler(prepared))
        except _Refused as refused:
            return self._told(request, refused.decision)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """The asynchronous twin."""
        try:
            with self._as_agent(request):
                prepared = self._prepared(request)
                watch = Watch(request.tool_call["id"] or "")
                with setting(watching, watch):
                    return self._after(request, watch, await handler(prepared))
        except _Refused as refused:
            return self._told(request, refused.decision)

    def _prepared(self, request: ToolCallRequest) -> ToolCallRequest:
        call, tool = request.tool_call, request.tool
        if not call["id"]:
            raise self._refused(call, "input_invalid", NO_ID)
        if tool is None:
            raise self._refused(call, "tool_unknown", "no tool of the agent has this name")
        if tool.name != call["name"]:
            raise self._refused(call, "tool_changed", f"the tool under this name is {tool.name!r}")
        try:
            return request.override(tool=guarded(tool, self.gate, self.server))
        except Unguardable as error:
            raise self._refused(call, "tool_unguarded", error.problem) from error

    def _refused(self, call: Any, reason: str, detail: str) -> _Refused:
        tool = Tool.unknown(self.server, str(call["name"]))
        attempt = ToolCall(tool, _plain(call["args"]), host_id=call["id"] or "", pep=PEP)
        return _Refused(self.gate.refuse(attempt, reason, detail))

    def _after(self, request: ToolCallRequest, watch: Watch, result: Result) -> Result:
        if watch.decision is None:
            return result
        if watch.decision.final:
            self._end(watch.host_id)
        elif request.tool is not None and request.tool.return_direct:
            return Command(update={"messages": [result]}, goto=self.entry)
        return result

    def _told(self, request: ToolCallRequest, decision: Decision) -> Result:
        told = message(decision, request.tool_call)
        if decision.final:
            self._end(told.tool_call_id)
        return told

    def _end(self, host_id: str) -> None:
        with self._lock:
            self._final[self._run_key(host_id)] = True
            while len(self._final) > _MANY:
                self._final.pop(next(iter(self._final)))

    def _run_key(self, host_id: str) -> tuple[str, str]:
        task = self.gate.current()
        return (task.id if task is not None else "", host_id)

    # -- model calls ------------------------------------------------------------------------------

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Offers the model what the task may call."""
        with self._acting(request.tools):
            if self._ended(request.messages):
                return ModelResponse(result=[AIMessage(ENDED)])
            return self._seen(handler(self._offered(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """The asynchronous twin."""
        with self._acting(request.tools):
            if self._ended(request.messages):
                return ModelResponse(result=[AIMessage(ENDED)])
            return self._seen(await handler(self._offered(request)))

    def _ended(self, messages: list[AnyMessage]) -> bool:
        """Whether one of the calls just answered was refused for the last time."""
        for each in reversed(messages):
            if not isinstance(each, ToolMessage):
                return False
            with self._lock:
                if self._final.pop(self._run_key(each.tool_call_id), False):
                    return True
        return False

    def _offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        changed = provider.cleaned(request, self.provider_tools, self._refuse_provider)
        own = {id(t): self._definition(t) for t in request.tools if isinstance(t, BaseTool)}
        with acting("model"):
            visible = self.gate.visible(filter(None, own.values()))
        tools: list[Any] = []
        for tool in request.tools:
            if id(tool) not in own:
                tools += provider.kept([tool], self.provider_tools, self._refuse_provider)
            elif (known := own[id(tool)]) is not None and known.key in visible:
                tools.append(tool)
        return request.override(**{**changed, "tools": tools})

    def _definition(self, tool: BaseTool) -> Tool | None:
        """What the gate would decide about; `None` for a tool that nobody can guard."""
        try:
            return seam_of(guarded(tool, self.gate, self.server)).shape.tool
        except Unguardable:
            return None

    def _refuse_provider(self, kind: str) -> None:
        call = ToolCall(Tool.unknown(self.server, kind), {}, pep=PEP)
        self.gate.refuse(call, "provider_tool", "the model's provider would run it")

    def _seen(self, response: Any) -> Any:
        model_response = getattr(response, "model_response", response)
        for each in getattr(model_response, "result", [model_response]):
            for name in provider.executed(each) - self.provider_tools:
                call = ToolCall(Tool.unknown(self.server, name), {}, pep=PEP)
                detail = "the model's provider has run it already; its answer was withheld"
                raise ToolDenied(self.gate.refuse(call, "provider_tool", detail))
        return response

    # -- authority --------------------------------------------------------------------------------

    def _acting(self, tools: Iterable[Any]) -> AbstractContextManager[Any]:
        if self._delegation is None:
            return nullcontext()
        held = [self._definition(each) for each in tools if isinstance(each, BaseTool)]
        return self._delegation.acting([tool.key for tool in held if tool is not None])

    def _as_agent(self, request: ToolCallRequest) -> AbstractContextManager[Any]:
        try:
            return self._acting(request.runtime.tools if request.runtime else ())
        except TaskError as error:
            raise self._refused(request.tool_call, "principal_unknown", str(error)) from error


class _Refused(Exception):
    def __init__(self, decision: Decision) -> None:
        self.decision = decision


def _plain(arguments: Any) -> dict[str, Any]:
    return arguments if isinstance(arguments, dict) else {}
