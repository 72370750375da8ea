"""starter@1: read-only by default, and a person for what the grant does not fix."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from lictor.model import Impact, Kind, Principal
from lictor.policy import CedarPolicy
from lictor.testing import reviewed, tool_of

Reason = Callable[..., str]
FIXED = {"named": True, "limited": True}
EFFECTS = [impact for impact in Impact if impact is not Impact.READ]


@pytest.fixture(scope="module")
def starter(desk: Any) -> CedarPolicy:
    policy: CedarPolicy = desk.load(starter=True)
    return policy


def one(*impact: str, **review: Any) -> Any:
    return reviewed(tool_of("t", server="srv"), *impact, **review)


def test_it_validates_with_any_mix_of_tools(desk: Any) -> None:
    desk.load(tools=(), starter=True)
    for count in (1, 2, 6):
        for impacts in combinations(Impact, count):
            desk.load(tools=(one(*impacts),), starter=True)


def test_reads_are_permitted_without_being_named(starter: Any, desk: Any, reason: Reason) -> None:
    assert reason(starter, desk.look) == "permit"
    assert reason(starter, desk.look, labels={"untrusted"}, autonomous=True) == "permit"


@pytest.mark.parametrize("impact", EFFECTS)
def test_effects_need_a_grant_that_names_them(desk: Any, reason: Reason, impact: str) -> None:
    for known in (one(impact), one("read", impact)):
        policy = desk.load(tools=(known,), starter=True)
        assert reason(policy, known) == "policy_denied"
        assert reason(policy, known, limited=True) == "policy_denied"
        assert reason(policy, known, **FIXED) == "permit"


@pytest.mark.parametrize("impact", EFFECTS)
def test_what_the_grant_does_not_fix_needs_a_confirm(
    desk: Any, reason: Reason, impact: str
) -> None:
    known = one(impact)
    policy = desk.load(tools=(known,), starter=True)

    assert reason(policy, known, named=True) == "ask_required"
    assert reason(policy, known, named=True, met={"confirm:user"}) == "permit"
    assert reason(policy, known, named=True, met={"approval:boss"}) == "ask_required"


@pytest.mark.parametrize("label", ["untrusted", "sensitive"])
def test_nothing_leaves_after_such_reads_without_a_confirm(
    starter: Any, desk: Any, reason: Reason, label: str
) -> None:
    assert reason(starter, desk.mail, **FIXED) == "permit"
    assert reason(starter, desk.mail, **FIXED, labels={label}) == "ask_required"
    assert reason(starter, desk.mail, **FIXED, labels={label}, met={"confirm:user"}) == "permit"
    assert reason(starter, desk.pay, **FIXED, labels={label}) == "permit"


@pytest.mark.parametrize("impact", ["transfer", "delete"])
def test_without_a_user_nothing_is_transferred_or_deleted(
    desk: Any, reason: Reason, impact: str
) -> None:
    known = one("write", impact)
    policy = desk.load(tools=(known,), starter=True)

    assert reason(policy, known, **FIXED, autonomous=True) == "policy_denied"
    assert reason(policy, known, **FIXED, autonomous=True, met={"confirm:user"}) == "policy_denied"
    assert reason(policy, known, **FIXED) == "permit"


def test_tenants_do_not_mix(desk: Any, reason: Reason) -> None:
    theirs = one("read", tenant="globex")
    policy = desk.load(tools=(theirs, desk.look), starter=True)
    stranger = (Principal(Kind.USER, "alice", "globex"), desk.bot)

    assert reason(policy, theirs) == "policy_denied"
    assert reason(policy, desk.look, tenant="globex") == "policy_denied"
    assert reason(policy, desk.look, chain=stranger) == "policy_denied"
    assert reason(policy, theirs, chain=(stranger[0],), tenant="globex") == "permit"


def test_a_read_rests_on_no_fact_that_moves(starter: Any, desk: Any) -> None:
    assert starter.reads(desk.look.review.key) == set()
    assert starter.reads(desk.pay.review.key) == set()
    assert starter.reads(desk.mail.review.key) == {"labels"}
