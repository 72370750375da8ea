"""Ways around Cedar. Each was met for real: where it can be shown, plain cedarpy lets it through
first (so that an upgrade that changes the ground is noticed), and then the engine does not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import cedarpy
import pytest

from lictor.errors import ConfigError
from lictor.model import Assurance, Kind, Principal
from lictor.policy import CedarPolicy, Declared, PolicySource, guardrail, lint, snapshot
from lictor.policy.cedar import CedarPolicy as Engine
from lictor.policy.schema import schema_json, tool_entities
from lictor.policy.shape import NOTHING
from lictor.policy.source import parse
from lictor.ports import Answer, GrantFacts, Known, Query, SessionFacts
from lictor.testing import reviewed, tool_of

ALICE = Principal(Kind.USER, "alice", "acme", frozenset({"finance"}))
BOT = Principal(Kind.AGENT, "banker", "acme", owner="alice")
NAMES = Declared(
    roles=frozenset({"finance", "boss"}),
    users=frozenset({"alice"}),
    agents=frozenset({"banker"}),
    tenants=frozenset({"acme", "globex"}),
    tenant="acme",
)
SEND = reviewed(
    tool_of(
        "send",
        {
            "to": {"type": "string"},
            "n": {"type": "integer"},
            "amount": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "path": {"type": "string"},
            "url": {"type": "string"},
            "mail": {"type": "string"},
            "free": {"type": "object"},
        },
        server="mail",
    ),
    "send",
    formats={"path": "path", "url": "uri", "mail": "email"},
)
ALL = '@id("all") permit (principal, action, resource);\n'
HERE = 'action == Lictor::Action::"mail/send"'


def load(text: str, *tools: Known, starter: bool = False) -> CedarPolicy:
    sources = [guardrail("starter@1")] if starter else []
    sources += [PolicySource("p.cedar", text)]
    return CedarPolicy.load(tools=tools or (SEND,), sources=sources, declared=NAMES)


def ask(
    policy: CedarPolicy,
    arguments: dict[str, Any] | None = None,
    known: Known = SEND,
    chain: tuple[Principal, ...] = (ALICE, BOT),
    **facts: Any,
) -> Answer:
    grant = facts.pop("grant", GrantFacts(tenant="acme", user=chain[0] if chain else None))
    session = facts.pop("session", SessionFacts())
    return policy.evaluate(Query(chain, known.review, arguments or {}, grant, session, **facts))


def denied(answer: Answer, reason: str) -> None:
    assert (answer.allow, answer.reason) == (False, reason), answer


# -- plain cedarpy, the ground --------------------------------------------------------------------

PLAIN_SCHEMA = {
    "": {
        "entityTypes": {"U": {}, "T": {"shape": {"type": "Record", "attributes": {}}}},
        "actions": {
            "send": {},
            "mail": {
                "memberOf": [{"id": "send"}],
                "appliesTo": {
                    "principalTypes": ["U"],
                    "resourceTypes": ["T"],
                    "context": {
                        "type": "Record",
                        "attributes": {"n": {"type": "Long", "required": False}},
                    },
                },
            },
        },
    }
}
PLAIN_ENTITIES = [
    {"uid": {"type": "U", "id": "a"}, "attrs": {}, "parents": []},
    {"uid": {"type": "T", "id": "t"}, "attrs": {}, "parents": []},
]


def plain(
    text: str, context: dict[str, Any], *, entities: Any = None, schema: Any = None
) -> cedarpy.AuthzResult:
    request = {
        "principal": {"type": "U", "id": "a"},
        "action": {"type": "Action", "id": "mail"},
        "resource": {"type": "T", "id": "t"},
        "context": json.dumps(context),
    }
    return cedarpy.is_authorized(request, text, entities or PLAIN_ENTITIES, schema)


PLAIN_ALL = "permit (principal, action, resource);"


# -- trap 1: groups that the engine does not know -------------------------------------------------


@pytest.mark.attack("X27")
def test_entities_of_another_schema_lose_the_groups_and_do_not_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = PLAIN_ALL + 'forbid (principal, action in Action::"send", resource);'
    schema = cedarpy.Schema.from_json_str(json.dumps(PLAIN_SCHEMA))
    without = cedarpy.Entities.from_json_str(json.dumps(PLAIN_ENTITIES))
    with_schema = cedarpy.Entities.from_json_str(json.dumps(PLAIN_ENTITIES), schema)
    assert plain(text, {}, entities=without, schema=schema).allowed
    assert not plain(text, {}, entities=with_schema, schema=schema).allowed

    forbid = '@id("no-send") forbid (principal, action in Lictor::Action::"send", resource);'
    denied(ask(load(ALL + forbid)), "policy_denied")

    def schemaless(self: Engine, chain: Any) -> cedarpy.Entities:
        return cedarpy.Entities.from_json_str(json.dumps(tool_entities(self.tools)))

    monkeypatch.setattr(Engine, "_build", schemaless)
    with pytest.raises(ConfigError, match="groups"):
        load(ALL + forbid)


@pytest.mark.attack("X27")
def test_the_self_test_also_sees_a_group_too_many() -> None:
    policy = load(ALL)
    widened = schema_json([SEND], {"mail/send": NOTHING})
    widened["Lictor"]["actions"]["mail/send"]["memberOf"].append({"id": "read"})
    schema = cedarpy.Schema.from_json_str(json.dumps(widened))
    entities = cedarpy.Entities.from_json_str(json.dumps(tool_entities([SEND])), schema)

    with pytest.raises(ConfigError, match="groups"):
        snapshot.prove_groups(policy.slices.values(), entities)


# -- traps 2, 3: an error skips a forbid ----------------------------------------------------------


@pytest.mark.attack("X27")
def test_a_forbid_that_errs_is_skipped_by_cedar_and_denies_here() -> None:
    text = (
        PLAIN_ALL
        + "forbid (principal, action, resource) when { context.n * 9223372036854775807 > 5 };"
    )
    result = plain(text, {"n": 7})
    assert result.allowed
    assert result.diagnostics.errors

    forbid = f"""@id("f") forbid (principal, {HERE}, resource)
    when {{ context.input has n && context.input.n * 9223372036854775807 > 5 }};"""
    denied(ask(load(ALL + forbid), {"n": 7}), "policy_error")
    assert ask(load(ALL + forbid), {}).allow


@pytest.mark.attack("X27")
def test_an_error_in_the_second_pass_denies_too() -> None:
    text = f"""@id("r") @require("confirm:user") forbid (principal, action, resource)
    unless {{ context.met.contains("confirm:user") }};
    @id("f") forbid (principal, {HERE}, resource) when
    {{ context.met.contains("confirm:user") && context.now * 9223372036854775807 > 5 }}
    unless {{ context.autonomous }};"""
    policy = load(ALL + text.replace('@id("f") forbid', '@id("f") permit'))

    assert ask(policy, now=1).reason == "ask_required"
    denied(ask(policy, now=7), "policy_error")


@pytest.mark.attack("X27")
def test_an_entity_that_is_not_in_the_store_cannot_switch_a_forbid_off() -> None:
    text = PLAIN_ALL + "forbid (principal, action, resource) unless { resource.reviewed };"
    assert plain(text, {}, entities=[]).allowed

    literal = f"""@id("f") forbid (principal, {HERE}, resource)
    when {{ Lictor::User::"acme/alice".tenant == "globex" }};"""
    carol = Principal(Kind.USER, "carol", "acme")
    denied(ask(load(ALL + literal), chain=(carol, BOT)), "policy_error")

    membership = """@id("f") forbid (principal is Lictor::Agent, action, resource)
    when { principal has owner && principal.owner in Lictor::Role::"acme/boss" };"""
    with pytest.raises(ConfigError, match="knows nothing"):
        load(ALL + membership)


@pytest.mark.attack("X27")
def test_a_tool_outside_the_snapshot_never_reaches_cedar(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load(ALL)
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *_, **__: pytest.fail("asked"))

    denied(ask(policy, known=reviewed(tool_of("other", server="mail"))), "policy_error")


# -- traps 4-6, 14: arguments that are more than data ---------------------------------------------

ESCAPE = {"__entity": {"type": "U", "id": "a"}}


@pytest.mark.attack("X26")
def test_an_argument_cannot_become_an_entity() -> None:
    text = "permit (principal, action, resource) when { context.owner == principal };"
    assert plain(text, {"owner": ESCAPE}).allowed

    owner = reviewed(
        tool_of("act", {"owner": {"type": "object"}, "deep": {"type": "array"}}, server="mail")
    )
    policy = load(ALL, owner)
    for arguments in (
        {"owner": ESCAPE},
        {"owner": {"x": {"y": [ESCAPE]}}},
        {"deep": [[{"__extn": {"fn": "decimal", "arg": "1.0"}}]]},
        {"owner": {"__expr": 'Lictor::User::"acme/alice"'}},
        {"__entity": {"type": "Lictor::User", "id": "acme/alice"}},
    ):
        denied(ask(policy, arguments, owner), "input_invalid")
    assert ask(policy, {"owner": {"x": "__entity"}}, owner).allow


@pytest.mark.attack("X26")
def test_a_string_that_looks_like_an_escape_stays_a_string() -> None:
    text = (
        '@id("x") permit (principal, action, resource) when { context.input has to && '
        'context.input.to == "{\\"__entity\\":1}" };'.replace("action,", HERE + ",")
    )

    assert ask(load(text), {"to": '{"__entity":1}'}).allow
    denied(ask(load(text), {"to": '","x":{"__entity":1},"y":"'}), "no_permit")


@pytest.mark.attack("X21", "X27")
@pytest.mark.parametrize(
    "value",
    [True, "5", 5.5, [5], {"v": 5}, 1e300, float("nan"), float("inf"), 10**30, -(10**30)],
)
def test_a_value_of_another_type_is_refused_where_it_is_read(value: Any) -> None:
    assert plain(PLAIN_ALL, {"n": "five"}).allowed, "without schema, wrong types pass"

    read = (
        f'@id("x") permit (principal, {HERE}, resource) when {{ context.input has n && '
        "context.input.n == context.input.n };"
    )
    answer = ask(load(read), {"n": value})
    assert not answer.allow
    assert answer.reason in ("input_invalid", "policy_error")


@pytest.mark.attack("X21")
@pytest.mark.parametrize(
    "amount", [0.00001, 1e400, "$5", "5,0", Decimal("1"), 123456789012345678, True]
)
def test_a_number_that_is_no_decimal_is_refused(amount: Any) -> None:
    read = f"""@id("x") permit (principal, {HERE}, resource) when {{ context.input has amount &&
    context.input.amount.lessThan(decimal("500.0")) &&
    context.input.amount.greaterThanOrEqual(decimal("-900000000000000.0")) }};"""

    denied(ask(load(read), {"amount": amount}), "input_invalid")
    assert ask(load(read), {"amount": 4.9999}).allow


@pytest.mark.attack("X22")
def test_null_and_absent_are_one_and_neither_meets_a_condition() -> None:
    read = f"""@id("x") permit (principal, {HERE}, resource)
    when {{ context.input has to && context.input.to == "bob" }};"""

    denied(ask(load(read), {"to": None}), "no_permit")
    denied(ask(load(read), {}), "no_permit")
    assert ask(load(read), {"to": "bob"}).allow


@pytest.mark.attack("X22")
def test_an_argument_nobody_declared_is_refused_where_all_are_read() -> None:
    read = (
        f'@id("x") permit (principal, {HERE}, resource) when {{ context.input == context.input }};'
    )

    denied(ask(load(read), {"to": "bob", "bcc": "eve"}), "input_invalid")
    assert ask(load(read), {"to": "bob"}).allow


@pytest.mark.attack("X27")
def test_text_is_bounded_where_it_is_read() -> None:
    read = f"""@id("x") permit (principal, {HERE}, resource)
    when {{ context.input has to && context.input.to != "x" }};"""

    denied(ask(load(read), {"to": "x" * 65_537}), "input_invalid")
    assert ask(load(read), {"to": "\x00\u202eeve"}).allow
    assert ask(load(ALL), {"to": "x" * 1_000_000}).allow


@pytest.mark.attack("X25")
def test_a_context_never_says_one_name_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {
        "principal": {"type": "U", "id": "a"},
        "action": {"type": "Action", "id": "mail"},
        "resource": {"type": "T", "id": "t"},
        "context": '{"n": 1, "n": 2}',
    }
    assert cedarpy.is_authorized(asked, PLAIN_ALL, PLAIN_ENTITIES).allowed, "Cedar takes the last"

    names = reviewed(
        tool_of("act", {name: {"type": "string"} for name in ("input", "met", 'a"b', "é")})
    )
    policy = load(
        '@id("x") permit (principal, action, resource) when { context == context };', names
    )
    seen: list[str] = []
    real = cedarpy.is_authorized_batch

    def watched(requests: Any, *rest: Any) -> Any:
        seen.extend(request["context"] for request in requests)
        return real(requests, *rest)

    monkeypatch.setattr(cedarpy, "is_authorized_batch", watched)
    assert ask(policy, {"input": "1", "met": "2", 'a"b': "3", "é": "4"}, names).allow

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    for context in seen:
        written = json.loads(context, object_pairs_hook=unique)
        assert written["input"] == {"input": "1", "met": "2", 'a"b': "3", "é": "4"}
        assert written["met"] == []


# -- traps 8, 13, 18: who and what is asked about -------------------------------------------------


@pytest.mark.attack("X27")
def test_a_decision_that_is_none_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    none = cedarpy.AuthzResult({"decision": "NoDecision", "diagnostics": {"errors": []}})
    policy = load(ALL)
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda asked, *_: [none] * len(asked))

    denied(ask(policy), "policy_error")


@pytest.mark.attack("X27")
def test_an_allow_without_a_permit_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = cedarpy.AuthzResult({"decision": "Allow", "diagnostics": {"errors": [], "reason": []}})
    policy = load(ALL)
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda asked, *_: [odd] * len(asked))

    assert not ask(policy).allow


@pytest.mark.attack("X27")
def test_nobody_is_asked_to_approve_what_no_permit_covers() -> None:
    text = """@id("r") @require("approval:boss") forbid (principal, action, resource)
    unless { context.met.contains("approval:boss") };"""

    denied(ask(load(text)), "no_permit")
    assert ask(load(ALL + text)).asks == ("approval:boss",)


@pytest.mark.attack("X57", "X40")
def test_equal_ids_of_two_tenants_are_two_principals() -> None:
    policy = load('@id("x") permit (principal in Lictor::Role::"acme/finance", action, resource);')
    theirs = replace(ALICE, tenant="globex")

    assert ask(policy, chain=(ALICE,)).allow
    denied(ask(policy, chain=(theirs,)), "no_permit")
    split = Principal(Kind.USER, "b/c", "a"), Principal(Kind.USER, "c", "a/b")
    denied(ask(policy, chain=(split[1],)), "policy_error")


@pytest.mark.attack("X55")
def test_leaving_the_user_out_gains_nothing() -> None:
    policy = load(ALL)

    denied(ask(policy, chain=(BOT,)), "policy_error")
    denied(ask(policy, chain=()), "policy_error")
    assert ask(policy, chain=(ALICE, BOT)).allow


# -- traps 9-12, 15-17: text that says something else ---------------------------------------------


@pytest.mark.attack("X28")
@pytest.mark.parametrize(
    "text",
    [
        '@id("a") permit (principal, action, resource) when { context.autonomous } '
        "where { context.now > 5 };",
        '@id("a") permit (principal, action, resource); forbid',
        '@id("a") permit (principal, action, resource) when { context.now ~= 5 };',
        '@id("a") @only_when("context.autonomous") permit (principal, action, resource);',
        ALL + '@id("all") forbid (principal, action, resource);',
    ],
)
def test_text_that_would_be_dropped_does_not_load(text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.cedar:[12]"):
        load(text)


@pytest.mark.attack("X28")
def test_cedar_would_take_one_id_twice() -> None:
    twice = '@id("a") permit (principal, action, resource);' * 2

    assert len(cedarpy.PolicySet.from_str(twice)) == 2


@pytest.mark.attack("X27", "X20")
@pytest.mark.parametrize(
    "text",
    [
        'forbid (principal, action, resource) when { context.session.labels.contains("untrusd") };',
        'forbid (principal in Lictor::Role::"acme/bоss", action, resource);',  # Cyrillic о
        'forbid (principal in Lictor::Role::"acme/bos", action, resource);',
        'forbid (principal in Lictor::Role::"acme/boss ", action, resource);',
        'forbid (principal, action, resource in Lictor::Server::"Mail");',
        'forbid (principal, action, resource) when { context.assurance == "verfied" };',
    ],
)
def test_a_typo_that_strict_validation_passes_does_not_load(text: str) -> None:
    with pytest.raises(ConfigError, match="nothing declares"):
        load(ALL + '@id("f") ' + text)


@pytest.mark.attack("X27")
def test_a_guardrail_on_a_group_without_tools_still_validates() -> None:
    look = reviewed(tool_of("look"))
    policy = load(
        '@id("f") forbid (principal, action in Lictor::Action::"delete", resource);', look
    )

    assert [statement.id for statement in policy.slices[look.review.key].statements] == []
    for hidden in ("delete/_", "call/_"):
        assert hidden not in {str(key) for key in policy.slices}


@pytest.mark.attack("X21")
def test_a_maximum_alone_lets_negative_amounts_through_and_does_not_load() -> None:
    text = f"""@id("x") permit (principal, {HERE}, resource) when {{ context.input has n &&
    context.session.calls + context.input.n <= 2000 }};"""
    with pytest.raises(ConfigError, match="no minimum"):
        load(text)

    both = text.replace("<= 2000", "<= 2000 && context.input.n > 0")
    denied(ask(load(both), {"n": -5_000_000_000}), "no_permit")
    assert ask(load(both), {"n": 5}).allow


@pytest.mark.attack("X23", "X24")
@pytest.mark.parametrize(
    ("name", "condition", "good", "evil"),
    [
        (
            "path",
            'context.input.path like "/data/*"',
            "/data/a",
            ["/data/../etc/passwd", "/data//../etc", "/data/\x00", "/data/%2e%2e/etc", "\\data\\a"],
        ),
        (
            "url",
            'context.input.url.host == "acme.example"',
            "https://acme.example/x",
            [
                "https://acme.example.evil.example/",
                "https://acme.example@evil.example/",
                "https://ACME.example/",
                "https://acme.example./",
                "javascript:acme.example",
                "https://аcme.example/",
            ],
        ),
        (
            "mail",
            'context.input.mail.domain == "acme.example"',
            "boss@acme.example",
            [
                "evil@x.example,boss@acme.example",
                '"evil@x.example" <boss@acme.example>',
                "boss@acme.example.evil.example",
                "boss@ACME.example",
            ],
        ),
    ],
)
def test_text_with_a_format_is_compared_in_its_parts(
    name: str, condition: str, good: str, evil: list[str]
) -> None:
    policy = load(
        f'@id("x") permit (principal, {HERE}, resource) '
        f"when {{ context.input has {name} && {condition} }};"
    )

    assert ask(policy, {name: good}).allow
    for value in evil:
        answer = ask(policy, {name: value})
        assert not answer.allow, value
        assert answer.reason in ("not_canonical", "no_permit")


@pytest.mark.attack("X23")
def test_like_on_raw_text_is_pointed_out() -> None:
    sources = [
        PolicySource(
            "p",
            f'@id("x") @reason("r") permit (principal, {HERE}, resource) '
            'when { context.input has to && context.input.to like "/data/*" };',
        )
    ]

    assert "has no format" in lint(sources, NAMES, (SEND,))[0].problem


@pytest.mark.attack("X20")
def test_another_spelling_of_a_forbidden_text_is_refused() -> None:
    text = f"""@id("f") forbid (principal, {HERE}, resource)
    when {{ context.input has to && context.input.to == "caf\u00e9" }};"""
    policy = load(ALL + text)

    denied(ask(policy, {"to": "caf\u00e9"}), "policy_denied")
    denied(ask(policy, {"to": "cafe\u0301"}), "not_canonical")


@pytest.mark.attack("X27")
def test_the_empty_list_contains_nothing_it_was_asked_for() -> None:
    text = f"""@id("x") permit (principal, {HERE}, resource)
    when {{ context.input has tags && ["a", "b"].containsAll(context.input.tags) }};"""
    with pytest.raises(ConfigError, match="is empty"):
        load(text)

    counted = text.replace(
        "context.input.tags)",
        "context.input.tags) && context.input has tags_count && context.input.tags_count > 0",
    )
    denied(ask(load(counted), {"tags": []}), "no_permit")
    assert ask(load(counted), {"tags": ["a"]}).allow
    assert ask(load(counted), {"tags": ["b", "b", "a"]}).allow


@pytest.mark.attack("X27")
def test_repeats_that_a_set_forgets_are_counted() -> None:
    text = f"""@id("x") permit (principal, {HERE}, resource)
    when {{ context.input has tags_count && context.input.tags_count < 3 }};"""

    denied(ask(load(text), {"tags": ["a"] * 99}), "no_permit")
    assert ask(load(text), {"tags": ["a", "a"]}).allow


@pytest.mark.attack("X27")
def test_no_author_can_make_a_guardrail_approvable_by_accident() -> None:
    text = """@id("f") @require("confirm:user") forbid (principal, action, resource)
    when { context.autonomous }
    unless { context.met.contains("confirm:user") || context.now > 5 };"""

    with pytest.raises(ConfigError, match="@require"):
        parse([PolicySource("p", text)])


@pytest.mark.attack("X27")
def test_an_argument_cannot_reach_the_asks_already_met() -> None:
    text = """@id("r") @require("confirm:user") forbid (principal, action, resource)
    unless { context.met.contains("confirm:user") };"""
    met = reviewed(
        tool_of("act", {"met": {"type": "array", "items": {"type": "string"}}}, server="mail")
    )
    policy = load(ALL + text, met)

    assert ask(policy, {"met": ["confirm:user"]}, met).reason == "ask_required"


# -- memo -----------------------------------------------------------------------------------------


@pytest.mark.attack("X57")
def test_no_answer_outlives_the_facts_it_rested_on() -> None:
    text = """@id("x") permit (principal in Lictor::Role::"acme/finance", action, resource)
    when { context.assurance == "verified" && context.claims.contains("amr=mfa") &&
           !context.autonomous };"""
    policy = load(text)
    good: dict[str, Any] = {"assurance": Assurance.VERIFIED, "claims": {"amr": "mfa"}}
    user = (ALICE,)

    assert ask(policy, chain=user, **good).allow
    assert ask(policy, chain=user, **good).hit
    demoted = (replace(ALICE, roles=frozenset()),)
    for chain, facts in (
        (demoted, good),
        ((replace(ALICE, tenant="globex"),), good),
        ((ALICE, BOT), good),
        (user, good | {"assurance": Assurance.ASSERTED}),
        (user, good | {"claims": {"amr": "pwd"}}),
        (user, good | {"claims": {}}),
        (user, good | {"autonomous": True}),
    ):
        answer = ask(policy, chain=chain, **facts)
        assert (answer.allow, answer.hit) == (False, False), (chain, facts)


@pytest.mark.attack("X57")
def test_a_changed_review_or_policy_is_another_snapshot() -> None:
    policy = load(ALL)
    assert ask(policy).allow

    changed = replace(SEND, review=replace(SEND.review, pin="sha256:new"))
    denied(ask(policy, known=changed), "policy_error")
    denied(ask(load("", SEND)), "no_permit")
    assert load("").digest != policy.digest


@pytest.mark.attack("X57")
def test_true_and_one_are_not_one_key() -> None:
    text = (
        f'@id("x") permit (principal, {HERE}, resource) when {{ context.input has n && '
        "context.input.n == 1 };"
    )
    policy = load(text)

    assert ask(policy, {"n": 1}).allow
    denied(ask(policy, {"n": True}), "input_invalid")


# -- empty, and the session -----------------------------------------------------------------------


@pytest.mark.attack("X03")
def test_nothing_written_permits_nothing() -> None:
    for text in ("", "// only a comment", "\n\n"):
        denied(ask(load(text)), "no_permit")
    empty = CedarPolicy.load(tools=(), sources=(), declared=Declared())
    denied(ask(empty), "policy_error")
    assert not empty.could_allow((ALICE,), SEND.review)


@pytest.mark.attack("X48")
def test_reading_what_outsiders_wrote_stops_what_leaves() -> None:
    policy = load("", starter=True)
    grant = GrantFacts(tenant="acme", user=ALICE, named=True, limited=True)

    def send(*labels: str) -> Answer:
        return ask(policy, grant=grant, session=SessionFacts(frozenset(labels)))

    assert send().allow
    assert send("untrusted").asks == ("confirm:user",)
    assert not send("sensitive").allow
    assert send().hit


@pytest.mark.attack("X48")
def test_the_calls_of_a_session_are_decided_with_their_own_reservation() -> None:
    text = (
        """@id("x") permit (principal, action, resource) when { context.session.effects <= 2 };"""
    )
    policy = load(text)

    found = [ask(policy, session=SessionFacts(effects=n)).allow for n in (1, 2, 3)]
    assert found == [True, True, False]


@pytest.mark.attack("X46")
def test_a_load_that_fails_leaves_nothing_half_built() -> None:
    policy = load(ALL)
    with pytest.raises(ConfigError):
        CedarPolicy.load(
            tools=(SEND,),
            sources=[*policy.sources, PolicySource("new.cedar", "permit (oops);")],
            declared=NAMES,
        )

    assert ask(policy, now=int(time.time())).allow
