"""An explanation names what decided, which conditions failed, and who may answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lictor.model import Kind, Principal
from lictor.policy import explain

TEXT = """
@id("finance") @reason("Finance may pay.")
permit (
  principal in Lictor::Role::"acme/finance", action == Lictor::Action::"pay/transfer", resource
)
when { context.input.amount.greaterThan(decimal("0.0")) && context.session.calls < 9 }
unless { context.autonomous || context.grant.depth > 3 };

@id("noted")
permit (principal, action == Lictor::Action::"pay/transfer", resource)
when { context.input has note && context.input.note == "rent" };

@id("large") @reason("Large transfers need the boss.") @require("approval:boss")
forbid (principal, action in Lictor::Action::"transfer", resource)
when { context.input has amount && context.input.amount.greaterThan(decimal("100.0")) }
unless { context.met.contains("approval:boss") };

@id("tenant") @reason("Another tenant.")
forbid (principal, action, resource)
unless { principal.tenant == context.grant.tenant && context.grant.depth < 5 };
"""
CAROL = Principal(Kind.USER, "carol", "acme")


def test_no_permit_shows_each_failed_condition_and_the_nearest_permit_first(desk: Any) -> None:
    query = desk.query(
        desk.pay, {"amount": -5, "to": "b"}, chain=(CAROL, desk.bot), calls=12, autonomous=True
    )
    found = explain(desk.load(TEXT), query)

    carol = {near.policy: near for near in found.near if near.principal == "user:acme/carol"}
    assert found.answer.reason == "no_permit"
    assert carol["finance"].failed == (
        'principal in Role::"acme/finance"',
        'context.input.amount.greaterThan(decimal("0.0"))',
        "context.session.calls < 9",
        "!context.autonomous",
    )
    assert carol["finance"].where == "local.cedar:2"
    assert carol["noted"].failed == ("context.input has note",)
    assert carol["noted"].unknown == ('context.input.note == "rent"',)
    assert found.near[0].policy == "noted"


def test_only_principals_that_no_permit_matches_are_listed(desk: Any) -> None:
    found = explain(desk.load(TEXT), desk.query(desk.pay, chain=(CAROL, desk.bot)))

    assert {near.principal for near in found.near} == {"user:acme/carol"}


def test_a_forbid_shows_where_it_stands_and_what_did_not_hold(desk: Any) -> None:
    query = desk.query(desk.pay, {"amount": 50, "to": "b"}, tenant="globex", depth=2)
    found = explain(desk.load(TEXT), query)

    (cause,) = found.causes
    assert (cause.policy, cause.where) == ("tenant", "local.cedar:18")
    assert cause.reason == "Another tenant."
    assert cause.missing == ("principal.tenant == context.grant.tenant",)


def test_an_ask_says_who_may_answer(desk: Any) -> None:
    found = explain(desk.load(TEXT), desk.query(desk.pay))

    assert found.answer.asks == ("approval:boss",)
    assert "role boss" in found.answers[0]
    assert found.causes[0].require == "approval:boss"
    assert 'context.input.amount.greaterThan(decimal("100.0"))' in found.causes[0].conditions
    confirm = desk.load(starter=True)
    asked = explain(confirm, desk.query(desk.pay, named=True))
    assert asked.answers == ("confirm:user: user:acme/alice agrees to this exact call",)


def test_what_is_allowed_names_its_permit(desk: Any) -> None:
    found = explain(desk.load(TEXT), desk.query(desk.pay, {"amount": 50, "to": "b"}))

    assert [cause.policy for cause in found.causes] == ["finance"]
    assert found.near == ()


def test_bad_arguments_and_unknown_tools_are_explained_without_policies(desk: Any) -> None:
    policy = desk.load(TEXT)
    bad = explain(policy, desk.query(desk.pay, {"amount": "five", "to": "b"}))
    unknown = replace(desk.look, review=replace(desk.look.review, pin="other"))

    assert (bad.answer.reason, bad.causes, bad.near) == ("input_invalid", (), ())
    assert "amount" in bad.lines()[1]
    assert explain(policy, desk.query(unknown)).answer.reason == "policy_error"


def test_the_text_tells_it_all(desk: Any) -> None:
    policy = desk.load(TEXT)
    denied = "\n".join(explain(policy, desk.query(desk.pay, chain=(CAROL,))).lines())
    asked = "\n".join(explain(policy, desk.query(desk.pay)).lines())

    assert "pay/transfer: no_permit" in denied
    assert "finance at local.cedar:2 would permit user:acme/carol if" in denied
    assert 'principal in Role::"acme/finance"' in denied
    assert "(not known yet)" in denied
    assert "large at local.cedar:13 (lifted by approval:boss): Large transfers need" in asked
    assert "one person with the role boss" in asked
