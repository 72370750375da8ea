"""The decisions of the gate as values.

Rules enforced here:

1. Only `allow` builds an ALLOW, from a plain yes of the engine and from nothing else.
2. Identical denials are counted in the task: from the second one the text tells the model to stop,
   the fifth ends the run.
3. A decision is an ask only while somebody could still answer it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lictor.attempt import Attempt, Refuse
from lictor.errors import PERMIT, REFUSALS
from lictor.model import Decision, Enforcement, Verdict
from lictor.ports import Answer

STOP_AFTER: Final = 2
END_AFTER: Final = 5
STOP_TEXT: Final = " This was refused before: stop calling it."


def permits(answer: Answer) -> bool:
    """Whether the engine really permits: nothing but a plain yes counts."""
    return answer.allow is True and answer.reason == PERMIT and not answer.asks


def allow(a: Attempt, *, count: bool) -> Decision:
    """The only place that builds an ALLOW.

    Args:
        a: The attempt, through all stages.
        count: Count a denial that is only observed.
    """
    if a.observed is not None:
        return refusal(a, a.observed, count=count, enforcement=Enforcement.OBSERVE)
    if a.answered is None or not permits(a.answer):
        raise Refuse("internal_error", "no permit to build an ALLOW from")
    return Decision(
        a.id,
        a.call_id,
        a.call.tool.key,
        Verdict.ALLOW,
        Enforcement.PROCEED,
        PERMIT,
        "",
        a.answer.policies,
    )


def refusal(
    a: Attempt,
    refuse: Refuse,
    *,
    count: bool,
    enforcement: Enforcement = Enforcement.BLOCK,
) -> Decision:
    """The decision that refuses.

    Args:
        a: The attempt, as far as it came.
        refuse: What a stage said.
        count: Count it among the identical denials of its task.
        enforcement: What the gate does about it.
    """
    times = 0
    if count and a.found_task is not None:
        times = a.task.denied((*a.call.tool.key, a.digest, refuse.code))
    text = REFUSALS[refuse.code].model + (STOP_TEXT if times >= STOP_AFTER else "")
    asked = refuse.asks and refuse.code != "ask_rejected"
    return Decision(
        a.id,
        a.call_id,
        a.call.tool.key,
        Verdict.ASK if asked else Verdict.DENY,
        Enforcement.SUSPEND if refuse.pending else enforcement,
        refuse.code,
        text,
        refuse.policies,
        refuse.asks,
        refuse.detail,
        final=times >= END_AFTER,
    )


def late(decision: Decision, code: str, detail: str) -> Decision:
    """A refusal after the decision was recorded; the outcome's record tells of it."""
    return replace(
        decision,
        verdict=Verdict.DENY,
        enforcement=Enforcement.BLOCK,
        reason=code,
        text=REFUSALS[code].model,
        detail=detail,
    )
