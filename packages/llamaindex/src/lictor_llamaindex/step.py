"""The workflow step that runs here: the host's id of a call, and its pause.

Rules enforced here:

1. A tool call that an agent's model has made is named by the step that makes it, once: what happens
   inside the tool's body is another attempt.
2. A pause is transport. What the program sends to end it reaches no decision: the gate decides the
   call anew, and the store says what was answered.
3. Only a model's own call pauses, and nothing does inside a body: the host would run that body a
   second time, and nobody listens to an agent in there.
4. It says what waits, and nothing of the arguments.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from llama_index.core.agent.workflow.workflow_events import ToolCall
from llama_index.core.workflow import Context, HumanResponseEvent, InputRequiredEvent
from workflows.runtime.types.results import (
    AddWaiter,
    DeleteWaiter,
    StepWorkerStateContextVar,
    WaitingForEvent,
)

from lictor import Decision
from lictor.model import Enforcement
from lictor.subagent import inside

PAUSES: Final = (WaitingForEvent,)

entered: ContextVar[object | None] = ContextVar("lictor_llamaindex_entered", default=None)
"""The step whose call has led into the body that runs here."""


class GateAsk(InputRequiredEvent):
    """A call waits for a person. Streamed like any other request for input.

    Attributes:
        decision: Id of the decision.
        call_id: The call; what ends the pause must name it.
        tool: `server/name`.
        text: One sentence.
    """

    decision: str
    call_id: str
    tool: str
    text: str


class GateAnswer(HumanResponseEvent):
    """Ends a pause: look again. It carries no answer; that is given where the question was asked.

    Attributes:
        call_id: Of the `GateAsk`.
    """

    call_id: str


class Step:
    """The step that runs here, as far as a call needs it.

    Attributes:
        host_id: The host's id of the call; empty where no model has made it.
    """

    __slots__ = ("_waiter", "_within", "host_id", "running")

    def __init__(self, name: str) -> None:
        self.running: Any = StepWorkerStateContextVar.get(None)
        self.host_id, self._waiter = "", ""
        self._within = inside.get() is not None
        if self.running is None or entered.get() is self.running:
            return
        event = self.running.event
        if isinstance(event, ToolCall) and event.tool_name == name and event.tool_id:
            self.host_id = event.tool_id
            self._waiter = f"lictor:{event.tool_id}:{self.running.state.work_item_id}"

    def pause(self, decision: Decision) -> WaitingForEvent[Any] | None:
        """What to raise so that the run waits; `None` where it cannot, or nobody can answer."""
        if not self.host_id or self._within or not waits(decision):
            return None
        event = GateAsk(
            decision=decision.id,
            call_id=decision.call_id,
            tool=str(decision.tool),
            text=decision.text,
        )
        if self._waited():  # the host tells a second time only what waits under another name
            Context.get_step_context().write_event_to_stream(event)
        return WaitingForEvent(
            AddWaiter(
                waiter_id=self._waiter,
                waiter_event=event,
                requirements={"call_id": decision.call_id},
                timeout=None,
                event_type=GateAnswer,
            )
        )

    def settle(self) -> None:
        """Takes back a pause that is over: another answer would have the step run again."""
        if self.host_id and self._waited():
            self.running.returns.return_values.append(DeleteWaiter(waiter_id=self._waiter))

    def _waited(self) -> bool:
        waiters = self.running.state.collected_waiters
        return any(each.waiter_id == self._waiter for each in waiters)


def waits(decision: Decision) -> bool:
    """Whether somebody was asked and can still answer."""
    return decision.enforcement is Enforcement.SUSPEND
