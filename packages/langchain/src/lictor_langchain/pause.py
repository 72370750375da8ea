"""A question that somebody can still answer: the host's own pause.

Rules enforced here:

1. Only a model's own call, in a graph that keeps checkpoints, pauses. Where that is in doubt the
   model gets the denial as a value.
2. A pause is transport. What the program resumes with reaches no decision and no `interrupt` of a
   tool; the gate decides the call anew, and the store says what was answered.
3. Nothing pauses inside the body of an effect: the host would run that body a second time.
4. It says what waits, and nothing of the arguments.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from langgraph import constants
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt

from lictor import Decision
from lictor.model import Enforcement
from lictor.subagent import inside

KIND: Final = "lictor.ask"
_CHECKPOINTER: Final = getattr(constants, "CONFIG_KEY_CHECKPOINTER", "")


def waits(decision: Decision) -> bool:
    """Whether somebody was asked and can still answer."""
    return decision.enforcement is Enforcement.SUSPEND


def pause(decision: Decision, host_id: str) -> GraphInterrupt | None:
    """What to raise so that the host's run waits; `None` where it cannot."""
    place = inside.get()
    if not host_id or not waits(decision) or not _kept() or (place and place.effect):
        return None
    value = {
        "kind": KIND,
        "decision": decision.id,
        "call_id": decision.call_id,
        "tool_call_id": host_id,
        "tool": str(decision.tool),
        "text": decision.text,
    }
    # Not `interrupt()`: that has the host keep a resume value in the slot that the first
    # `interrupt()` of the tool's own code would then read.
    return GraphInterrupt([Interrupt(value, _id(decision.call_id))])


def _id(call_id: str) -> str:
    """The same for every pause of one call, in the form of the host's own ids."""
    return hashlib.sha256(f"{KIND} {call_id}".encode()).hexdigest()[:32]


def _kept() -> bool:
    """Whether this runs in a graph that will find its way back here."""
    try:
        configurable: dict[str, Any] = get_config().get("configurable", {})
    except RuntimeError:  # no graph, no runnable
        return False
    return configurable.get(_CHECKPOINTER) not in (None, False)
