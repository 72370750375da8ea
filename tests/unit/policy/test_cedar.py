"""The engine allows what every principal of the chain is allowed, and remembers exactly that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from lictor.errors import REFUSALS, ConfigError
from lictor.model import Assurance, Kind, Principal
from lictor.policy import CedarPolicy, cedar
from lictor.testing import reviewed, tool_of

ALL = '@id("all") permit (principal, action, resource);'
FINANCE = """
@id("finance") @reason("Finance may pay.")
permit (
  principal in Lictor::Role::"acme/finance", action == Lictor::Action::"pay/transfer", resource
)
when { context.input.amount.greaterThan(decimal("0.0")) &&
       context.input.amount.lessThanOrEqual(decimal("500.0")) };
"""
LARGE = """
@id("large") @reason("Large transfers need the boss.") @require("approval:boss")
forbid (principal, action in Lictor::Action::"transfer", resource)
when { context.input has amount && context.input.amount.greaterThan(decimal("100.0")) }
unless { context.met.contains("approval:boss") };
"""
Reason = Callable[..., str]


def test_every_principal_of_the_chain_must_be_allowed(desk: Any, reason: Reason) -> None:
    policy = desk.load(FINANCE)
    carol = Principal(Kind.USER, "carol", "acme")

    assert reason(policy, desk.pay) == "permit"
    assert reason(policy, desk.pay, chain=(carol, desk.bot)) == "no_permit"
    assert reason(policy, desk.pay, chain=(desk.alice, replace(desk.bot, roles=frozenset()))) == (
        "no_permit"
    )


def test_the_answer_names_real_policies_their_reasons_and_the_snapshot(desk: Any) -> None:
    policy = desk.load(FINANCE)
    answer = policy.evaluate(desk.query(desk.pay))

    assert answer.allow is True
    assert answer.policies == ("finance",)
    assert answer.texts == ("Finance may pay.",)
    assert answer.digest == policy.digest
    assert not answer.hit


def test_no_policy_at_all_permits_nothing(desk: Any, reason: Reason) -> None:
    assert reason(desk.load(""), desk.look) == "no_permit"


def test_an_absolute_forbid_wins_and_comes_first(desk: Any) -> None:
    never = '@id("never") @reason("Never.") forbid (principal, action, resource);'
    answer = desk.load(ALL + LARGE + never).evaluate(desk.query(desk.pay))

    assert answer.reason == "policy_denied"
    assert answer.policies == ("never", "large")
    assert answer.texts[0] == "Never."
    assert answer.asks == ()


def test_an_ask_is_offered_only_if_it_would_help(desk: Any) -> None:
    may = desk.load(ALL + LARGE).evaluate(desk.query(desk.pay))
    hopeless = desk.load(LARGE).evaluate(desk.query(desk.pay))

    assert (may.reason, may.asks, may.allow) == ("ask_required", ("approval:boss",), False)
    assert may.texts == ("Large transfers need the boss.",)
    assert (hopeless.reason, hopeless.asks) == ("no_permit", ())


def test_an_answered_ask_lets_the_call_through(desk: Any, reason: Reason) -> None:
    policy = desk.load(ALL + LARGE)

    assert reason(policy, desk.pay, met={"approval:boss"}) == "permit"
    assert reason(policy, desk.pay, met={"approval:clerk", "confirm:user"}) == "ask_required"


def test_several_asks_are_demanded_together(desk: Any) -> None:
    confirm = """@id("sure") @require("confirm:user") forbid (principal, action, resource)
    unless { context.met.contains("confirm:user") };"""
    policy = desk.load(ALL + LARGE + confirm)

    both = policy.evaluate(desk.query(desk.pay))
    one = policy.evaluate(desk.query(desk.pay, met={"confirm:user"}))

    assert both.asks == ("approval:boss", "confirm:user")
    assert one.asks == ("approval:boss",)


def test_lifting_one_forbid_must_not_hide_another(desk: Any, reason: Reason) -> None:
    trap = """@id("trap") forbid (principal, action, resource)
    when { context.session.calls > 3 && context.session.labels.contains("secret") };"""
    policy = desk.load(ALL + LARGE + trap)

    assert reason(policy, desk.pay) == "ask_required"
    assert reason(policy, desk.pay, calls=4, labels={"secret"}) == "policy_denied"


def test_what_the_slice_reads_of_the_session_is_reported(desk: Any) -> None:
    text = """@id("a") permit (principal, action in Lictor::Action::"read", resource)
    when { context.session.calls < 9 };
    @id("b") forbid (principal, action in Lictor::Action::"send", resource)
    when { context.session.labels.contains("secret") || context.session == context.session };"""
    policy = desk.load(text)

    assert policy.reads(desk.look.review.key) == {"calls"}
    assert policy.reads(desk.pay.review.key) == set()
    assert policy.reads(desk.mail.review.key) == {"labels", "sources", "calls", "effects", "spent"}
    assert policy.evaluate(desk.query(desk.look)).reads == {"calls"}
    assert policy.evaluate(desk.query(desk.look)).reads == {"calls"}
    assert policy.reads(tool_of("nobody").key) == set()


def test_unread_facts_do_not_miss_the_memo_and_read_facts_do(desk: Any) -> None:
    policy = desk.load(
        FINANCE + '@id("r") permit (principal, action == Lictor::Action::"crm/find", '
        "resource) when { context.session.calls < 9 };"
    )

    def hit(known: Any, arguments: Any = None, **facts: Any) -> bool:
        answer = policy.evaluate(desk.query(known, arguments, **facts))
        assert answer.reason in ("permit", "no_permit")
        return answer.hit

    assert not hit(desk.pay)
    assert hit(desk.pay, calls=8, labels={"secret"}, now=99, assurance=Assurance.VERIFIED)
    assert hit(desk.pay, {"amount": 120.5, "to": "eve", "note": "unread"})
    assert not hit(desk.pay, {"amount": 120, "to": "bob"})
    assert not hit(desk.look, calls=1)
    assert not hit(desk.look, calls=2)
    assert hit(desk.look, {"id": 8}, calls=1)


def test_reads_of_a_session_hit_the_memo_though_its_counters_change(desk: Any) -> None:
    policy = desk.load(starter=True)
    answers = [
        policy.evaluate(
            desk.query(
                desk.look,
                {"id": n},
                calls=n,
                effects=n // 3,
                spent=n,
                labels={"pii"} if n > 9 else set(),
                now=1_000 + n,
            )
        )
        for n in range(40)
    ]

    assert all(answer.allow for answer in answers)
    assert sum(answer.hit for answer in answers) >= 36


def test_equal_chains_share_answers_and_unequal_ones_never(desk: Any) -> None:
    policy = desk.load(FINANCE)
    first = policy.evaluate(desk.query(desk.pay))
    twin = (replace(desk.alice), replace(desk.bot))
    demoted = (replace(desk.alice, roles=frozenset()), desk.bot)

    assert not first.hit
    assert policy.evaluate(desk.query(desk.pay, chain=twin)).hit
    refused = policy.evaluate(desk.query(desk.pay, chain=demoted))
    assert (refused.allow, refused.hit) == (False, False)


def test_two_tools_that_read_alike_do_not_share_answers(desk: Any, reason: Reason) -> None:
    policy = desk.load(
        '@id("x") permit (principal, action == Lictor::Action::"crm/find", resource);'
    )

    assert reason(policy, desk.look) == "permit"
    assert reason(policy, desk.mail) == "no_permit"
    assert reason(policy, desk.pay) == "no_permit"


def test_a_policy_error_denies_and_is_never_remembered(desk: Any) -> None:
    text = (
        ALL
        + """@id("boom") forbid (principal, action == Lictor::Action::"crm/find", resource)
    when { context.input.id * 9223372036854775807 > 5 };"""
    )
    policy = desk.load(text)

    for _ in range(3):
        answer = policy.evaluate(desk.query(desk.look))
        assert (answer.allow, answer.reason, answer.hit) == (False, "policy_error", False)
        assert "boom" in answer.detail


def test_an_engine_that_raises_or_panics_denies(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    policy = desk.load(ALL)
    for error in (RuntimeError("engine"), Panic("engine")):

        def broken(*_: object, error: BaseException = error, **__: object) -> object:
            raise error

        monkeypatch.setattr(cedarpy, "is_authorized_batch", broken)
        answer = policy.evaluate(desk.query(desk.look))
        assert (answer.allow, answer.reason) == (False, "policy_error")
        assert "engine" in answer.detail


def test_an_engine_that_answers_too_little_denies(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = desk.load(ALL)
    real = cedarpy.is_authorized_batch
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *a, **k: real(*a, **k)[:1])

    assert policy.evaluate(desk.query(desk.look)).reason == "policy_error"


def test_every_reason_is_in_the_table_of_refusals(desk: Any) -> None:
    policy = desk.load(ALL + LARGE)
    answers = [
        policy.evaluate(desk.query(desk.pay)),
        policy.evaluate(desk.query(desk.pay, {"amount": "x", "to": "bob"})),
        policy.evaluate(desk.query(desk.pay, chain=(desk.bot,))),
    ]

    assert [answer.reason for answer in answers] == [
        "ask_required",
        "input_invalid",
        "policy_error",
    ]
    assert all(answer.reason in REFUSALS for answer in answers)


def test_a_tool_or_a_review_that_the_snapshot_does_not_know_is_denied(desk: Any) -> None:
    policy = desk.load(ALL)
    stranger = reviewed(tool_of("stranger"))
    changed = replace(desk.look, review=replace(desk.look.review, pin="sha256:other"))

    assert policy.evaluate(desk.query(stranger, {})).reason == "policy_error"
    assert policy.evaluate(desk.query(changed, {"id": 1})).reason == "policy_error"
    assert policy.evaluate(desk.query(desk.look, {"id": 1})).allow


@pytest.mark.parametrize(
    "chain",
    [
        (),
        (Principal(Kind.AGENT, "banker", "acme"),),
        (Principal(Kind.USER, "alice", ""),),
        (Principal(Kind.USER, "", "acme"),),
        (Principal(Kind.USER, "c", "a/b"),),
        (
            Principal(Kind.USER, "alice", "acme"),
            Principal(Kind.USER, "alice", "acme", frozenset({"boss"})),
        ),
    ],
)
def test_a_chain_that_could_be_mistaken_is_denied(desk: Any, chain: Any) -> None:
    answer = desk.load(ALL).evaluate(desk.query(desk.look, {"id": 1}, chain=chain, user=None))

    assert (answer.allow, answer.reason) == (False, "policy_error")


def test_the_grants_user_must_stand_in_the_chain_on_every_call(desk: Any) -> None:
    policy = desk.load(ALL)
    assert policy.evaluate(desk.query(desk.look)).allow

    other = Principal(Kind.USER, "carol", "acme")
    assert policy.evaluate(desk.query(desk.look, user=other)).reason == "policy_error"


def test_what_no_permit_can_match_is_hidden(desk: Any) -> None:
    policy = desk.load(FINANCE)
    carol = Principal(Kind.USER, "carol", "acme")

    assert policy.could_allow((desk.alice, desk.bot), desk.pay.review)
    assert not policy.could_allow((carol, desk.bot), desk.pay.review)
    assert not policy.could_allow((desk.alice, desk.bot), desk.look.review)
    assert not policy.could_allow((), desk.pay.review)
    assert not policy.could_allow((desk.alice,), reviewed(tool_of("stranger")).review)
    assert not desk.load("").could_allow((desk.alice,), desk.pay.review)


@pytest.mark.parametrize(
    ("scope", "matches"),
    [
        ('principal == Lictor::User::"acme/alice"', True),
        ('principal == Lictor::User::"acme/carol"', False),
        ("principal is Lictor::User", True),
        ("principal is Lictor::Agent", False),
        ('principal is Lictor::User in Lictor::Role::"acme/finance"', True),
        ('principal is Lictor::User in Lictor::Role::"acme/boss"', False),
        ('principal in Lictor::Tenant::"acme"', True),
        ('principal in Lictor::Tenant::"globex"', False),
    ],
)
def test_the_hint_agrees_with_the_engine(desk: Any, scope: str, matches: bool) -> None:
    policy = desk.load(f'@id("x") permit ({scope}, action, resource);')
    chain = (desk.alice,)

    assert policy.could_allow(chain, desk.look.review) is matches
    assert policy.evaluate(desk.query(desk.look, chain=chain)).allow is matches


def test_the_digest_covers_policies_and_catalog(desk: Any) -> None:
    policy = desk.load(ALL)
    changed = reviewed(desk.look.tool, "read", "send")

    assert desk.load(ALL).digest == policy.digest
    assert desk.load(ALL + "\n").digest != policy.digest
    assert desk.load(ALL, (desk.pay, changed, desk.mail)).digest != policy.digest
    assert desk.load(ALL, (desk.pay,)).digest != policy.digest


def test_the_same_policies_over_another_catalog(desk: Any) -> None:
    policy = desk.load(ALL, ())
    assert policy.evaluate(desk.query(desk.look)).reason == "policy_error"

    wider = policy.with_tools((desk.look,))
    assert wider.evaluate(desk.query(desk.look)).allow
    assert wider.digest != policy.digest


def test_a_tool_stands_in_the_catalog_once_and_under_its_own_name(desk: Any) -> None:
    with pytest.raises(ConfigError, match="twice"):
        desk.load(ALL, (desk.look, desk.look))
    with pytest.raises(ConfigError, match="another tool's"):
        desk.load(ALL, (replace(desk.look, tool=desk.pay.tool),))


def test_a_tool_without_impact_does_not_load(desk: Any) -> None:
    idle = replace(desk.look, review=replace(desk.look.review, impact=frozenset()))

    with pytest.raises(ConfigError, match="no impact"):
        desk.load(ALL, (idle,))


def test_threads_share_one_snapshot(desk: Any) -> None:
    policy = desk.load(ALL + LARGE)
    amounts = [float(n % 200) for n in range(400)]

    def decide(amount: float) -> str:
        return policy.evaluate(desk.query(desk.pay, {"amount": amount, "to": "b"})).reason

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decide, amounts))

    assert found == ["ask_required" if amount > 100 else "permit" for amount in amounts]


def test_the_memo_is_bounded_and_keeps_no_long_texts(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cedar, "MEMO", 3)
    text = (
        '@id("n") permit (principal, action, resource) when { context.input has note && '
        'context.input.note != "x" };'
    )
    policy: CedarPolicy = desk.load(text)

    def hit(note: str) -> bool:
        answer = policy.evaluate(desk.query(desk.pay, {"amount": 1, "to": "b", "note": note}))
        assert answer.allow
        return answer.hit

    assert [hit(note) for note in ("a", "b", "c", "a", "d", "b")] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    assert [hit("long" * 2_000) for _ in range(2)] == [False, False]
