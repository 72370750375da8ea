"""What is put before the policies is typed, canonical and small, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.policy.refuse import Refused, decimal_text, refuse_escapes, unquoted
from lictor.ports import Known
from lictor.testing import reviewed, tool_of

Reason = Callable[..., str]
PARTS = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "price": {"type": "number"},
    "flag": {"type": "boolean"},
    "mode": {"enum": ["w", "a"]},
    "level": {"enum": [1, 2]},
    "tags": {"type": "array", "items": {"type": "string"}},
    "home": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "zip": {"type": ["integer", "null"]}},
        "required": ["city"],
    },
    "path": {"type": "string"},
    "url": {"type": "string"},
    "mail": {"type": "string"},
    "free": {"type": "object"},
}
FORMATS = {"path": "path", "url": "uri", "mail": "email"}
TOOL = reviewed(tool_of("t", PARTS), formats=FORMATS)
CLEAR = reviewed(tool_of("t", PARTS), formats=FORMATS, recordable=("path",))
SHOWN = [name for name in PARTS if name != "free"]
READ_ALL = "".join(
    f'@id("{name}") permit (principal, action, resource) when '
    f"{{ context.input has {name} && context.input.{name} == context.input.{name} }};"
    for name in SHOWN
)


@pytest.fixture
def decided(desk: Any) -> Callable[..., Any]:
    text = READ_ALL.replace("action,", 'action == Lictor::Action::"local/t",')

    def decide(known: Known = TOOL, /, **arguments: Any) -> Any:
        return desk.load(text, (known,)).evaluate(desk.query(known, arguments))

    return decide


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": "é"},
        {"text": '"quoted" \\ \x00 \u202e 🦊'},
        {"text": "x" * 65_536},
        {"whole": 0},
        {"whole": 2**53 - 1},
        {"whole": 5.0},
        {"price": 5},
        {"price": -0.0},
        {"price": 0.0001},
        {"price": 922_337_203_685_477},
        {"flag": False},
        {"mode": "w"},
        {"level": 2},
        {"tags": []},
        {"tags": ["b", "a", "a"]},
        {"home": {"city": "rome"}},
        {"home": {"city": "rome", "zip": None}},
        {"home": {"city": "rome", "zip": 9}},
        {"path": "/data/a"},
        {"url": "https://acme.example:8443/x?y=1"},
        {"mail": "a.b@acme.example"},
    ],
)
def test_what_fits_is_decided(decided: Callable[..., Any], arguments: Any) -> None:
    answer = decided(**arguments)

    assert answer.allow, answer
    assert answer.policies == (next(iter(arguments)),)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"text": 5}, "input_invalid"),
        ({"text": ["x"]}, "input_invalid"),
        ({"text": "x" * 65_537}, "input_invalid"),
        ({"text": "é" * 40_000}, "input_invalid"),
        ({"text": "e\u0301"}, "not_canonical"),
        ({"whole": True}, "input_invalid"),
        ({"whole": "5"}, "input_invalid"),
        ({"whole": 5.5}, "input_invalid"),
        ({"whole": 1e300}, "input_invalid"),
        ({"price": True}, "input_invalid"),
        ({"price": "five"}, "input_invalid"),
        ({"price": "５"}, "input_invalid"),
        ({"price": "1_000"}, "input_invalid"),
        ({"price": 0.00001}, "input_invalid"),
        ({"price": 10**15}, "input_invalid"),
        ({"price": 1e300}, "input_invalid"),
        ({"price": float("nan")}, "input_invalid"),
        ({"price": float("inf")}, "input_invalid"),
        ({"flag": 1}, "input_invalid"),
        ({"flag": "true"}, "input_invalid"),
        ({"mode": "x"}, "input_invalid"),
        ({"level": 3}, "input_invalid"),
        ({"tags": "a"}, "input_invalid"),
        ({"tags": [1]}, "input_invalid"),
        ({"tags": ["e\u0301"]}, "not_canonical"),
        ({"home": "rome"}, "input_invalid"),
        ({"home": {}}, "input_invalid"),
        ({"home": {"city": None}}, "input_invalid"),
        ({"home": {"city": "rome", "planet": "earth"}}, "input_invalid"),
        ({"path": "/data/../etc/passwd"}, "not_canonical"),
        ({"path": "/data//a"}, "not_canonical"),
        ({"url": "https://ACME.example/"}, "not_canonical"),
        ({"url": "https://user@acme.example/"}, "not_canonical"),
        ({"mail": "evil@x.example,boss@acme.example"}, "not_canonical"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    decided: Callable[..., Any], arguments: Any, code: str
) -> None:
    answer = decided(**arguments)

    assert (answer.allow, answer.reason) == (False, code)
    assert next(iter(arguments)) in answer.detail


def test_a_refusal_quotes_no_value_but_a_canonical_form_that_may_be_recorded(
    decided: Callable[..., Any],
) -> None:
    assert "s3cret" not in decided(price="s3cret").detail
    hidden = decided(path="/data/../etc/passwd").detail
    assert hidden == "path: is not a plain path (dots, empty segments or a trailing slash)"
    assert decided(CLEAR, path="/data/../etc/passwd").detail == f"{hidden}; write /etc/passwd"


def test_an_error_of_the_engine_names_the_policy_and_no_value(desk: Any) -> None:
    known = reviewed(tool_of("t", {"number": {"type": "integer"}}))
    text = (
        '@id("faulty") permit (principal, action == Lictor::Action::"local/t", resource) when '
        "{ context.input has number && context.input.number * 9223372036854775807 > 3 };"
    )
    answer = desk.load(text, (known,)).evaluate(desk.query(known, {"number": 31337}))
    assert answer.reason == "policy_error"
    assert "faulty" in answer.detail
    assert "integer overflow" in answer.detail
    assert "31337" not in answer.detail


def test_what_an_engine_quotes_is_left_out() -> None:
    assert unquoted("while evaluating policy `p`: `s`: `x` is no decimal") == (
        "while evaluating policy `p`: … is no decimal"
    )
    assert unquoted("`secret`") == "…"


def test_what_no_policy_reads_is_not_encoded(desk: Any) -> None:
    policy = desk.load('@id("all") permit (principal, action, resource);', (TOOL,))

    answer = policy.evaluate(desk.query(TOOL, {"text": "e\u0301" * 99_999, "free": {"a": [1.5]}}))

    assert answer.allow


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (5, "5.0000"),
        (0.1, "0.1000"),
        (-0.0, "0.0000"),
        (1e3, "1000.0000"),
        ("12.50", "12.5000"),
        ("1E+2", "100.0000"),
        (Decimal("-3.1"), "-3.1000"),
        ("922337203685477.5807", "922337203685477.5807"),
    ],
)
def test_numbers_have_one_spelling(number: Any, text: str) -> None:
    assert decimal_text(number, "x") == text


@given(st.floats(-1e12, 1e12) | st.integers(-(10**8), 10**8).map(lambda n: n / 10_000))
def test_a_float_is_spelled_as_its_digits_say_or_refused(number: float) -> None:
    exact = Decimal(repr(number))
    fits = exact == round(exact, 4)
    try:
        assert Decimal(decimal_text(number, "x")) == exact
        assert fits
    except Refused:
        assert not fits


@pytest.mark.parametrize(
    "number", ["922337203685477.5808", "1e999", " 5", "+5", "0x5", "", "5.", ".5", 1e-9, None, b"5"]
)
def test_what_is_no_decimal_is_refused(number: Any) -> None:
    with pytest.raises(Refused):
        decimal_text(number, "x")


@pytest.mark.parametrize("word", ["__entity", "__extn", "__expr"])
@pytest.mark.parametrize(
    "shape", ["{}", '{{"a": {}}}', '{{"a": [[{}]]}}', '{{"a": {{"b": [{}]}}}}']
)
def test_names_with_a_meaning_are_refused_at_every_depth(word: str, shape: str) -> None:
    value = json.loads(shape.format(json.dumps({word: "x"})))

    with pytest.raises(Refused, match=word):
        refuse_escapes(value)


def test_the_same_names_as_text_are_only_text() -> None:
    refuse_escapes({"a": "__entity", "b": ["__expr"]})


def test_facts_reach_the_policy_as_they_are(desk: Any, reason: Reason) -> None:
    tests = {
        'context.grant.task == "rent"': {"task": "rent"},
        'context.grant.tenant == "acme"': {},
        "context.grant has user && context.grant.user == principal": {"chain": (desk.alice,)},
        "context.grant.named && !context.grant.limited": {"named": True},
        "context.grant.depth == 2 && context.grant.expires == 9": {"depth": 2, "expires": 9},
        'context.session.labels == ["secret", "pii"]': {"labels": {"pii", "secret"}},
        "context.session.calls == 3 && context.session.effects == 2": {"calls": 3, "effects": 2},
        'context.session.spent == decimal("1.5")': {"spent": Decimal("1.50")},
        "context.now == 12": {"now": 12},
        'context.assurance == "asserted"': {},
        "context.autonomous": {"autonomous": True},
        'context.claims.contains("amr=mfa")': {"claims": {"amr": "mfa"}},
        'resource == Lictor::Tool::"crm/find"': {},
        'resource.server == Lictor::Server::"crm"': {},
        "!(resource has tenant)": {},
        'principal.tenant == "acme"': {},
        'action in Lictor::Action::"read" && action in Lictor::Action::"call"': {},
    }
    for test, facts in tests.items():
        policy = desk.load(f'@id("x") permit (principal, action, resource) when {{ {test} }};')
        assert reason(policy, desk.look, **facts) == "permit", test
        negated = desk.load(f'@id("x") permit (principal, action, resource) unless {{ {test} }};')
        assert reason(negated, desk.look, **facts) == "no_permit", test


def test_claims_cannot_be_split_in_two_ways(desk: Any, reason: Reason) -> None:
    policy = desk.load(
        '@id("x") permit (principal, action, resource) when { context.claims.contains("a=b=c") };'
    )

    assert reason(policy, desk.look, claims={"a": "b=c"}) == "permit"
    assert reason(policy, desk.look, claims={"a=b": "c"}) == "policy_error"
