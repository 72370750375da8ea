"""Decisions as values: one place that allows, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lictor.attempt import Attempt, Refuse
from lictor.errors import REFUSALS
from lictor.model import Enforcement, ToolCall, Verdict
from lictor.ports import Answer
from lictor.testing import tool_of
from lictor.verdicts import allow, late, permits, refusal

YES = Answer(True, "permit", ("p",))


def attempt(answer: Any = None) -> Attempt:
    return Attempt(ToolCall(tool_of("act"), {}), 0.0, 0, "ID", answered=answer)


def test_a_plain_yes_becomes_an_allow() -> None:  # rule 1
    decision = allow(attempt(YES), count=False)
    assert (decision.verdict, decision.enforcement) == (Verdict.ALLOW, Enforcement.PROCEED)
    assert decision.policies == ("p",)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        replace(YES, allow=False),
        replace(YES, allow=1),  # type: ignore[arg-type]
        replace(YES, allow="yes"),  # type: ignore[arg-type]
        replace(YES, reason="ok"),
        replace(YES, asks=("confirm:user",)),
    ],
    ids=str,
)
def test_nothing_else_does(answer: Any) -> None:
    assert answer is None or not permits(answer)
    with pytest.raises(Refuse) as caught:
        allow(attempt(answer), count=False)
    assert caught.value.code == "internal_error"


def test_what_is_observed_stays_a_denial() -> None:
    seen = attempt(YES)
    seen.observed = Refuse("policy_denied")
    decision = allow(seen, count=False)
    assert (decision.verdict, decision.enforcement) == (Verdict.DENY, Enforcement.OBSERVE)


@pytest.mark.parametrize(
    ("refuse", "verdict", "enforcement"),
    [
        (Refuse("no_permit"), Verdict.DENY, Enforcement.BLOCK),
        (Refuse("ask_unavailable", asks=("confirm:user",)), Verdict.ASK, Enforcement.BLOCK),
        (Refuse("ask_rejected", asks=("confirm:user",)), Verdict.DENY, Enforcement.BLOCK),
        (
            Refuse("ask_required", asks=("confirm:user",), pending=True),
            Verdict.ASK,
            Enforcement.SUSPEND,
        ),
    ],
    ids=lambda each: getattr(each, "code", str(each)),
)
def test_an_ask_is_one_while_somebody_can_answer(
    refuse: Refuse, verdict: Verdict, enforcement: Enforcement
) -> None:  # rule 3
    decision = refusal(attempt(), refuse, count=True)
    assert (decision.verdict, decision.enforcement) == (verdict, enforcement)
    assert decision.text == REFUSALS[refuse.code].model


def test_a_late_refusal_keeps_the_ids_and_allows_nothing() -> None:
    decision = late(allow(attempt(YES), count=False), "task_ended", "x")
    assert (decision.id, decision.verdict) == ("ID", Verdict.DENY)
    assert decision.enforcement == Enforcement.BLOCK
