"""`[[rule]]` says in TOML what a limit says in a grant, and compiles to Cedar that loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor import limits
from lictor.errors import ConfigError
from lictor.model import Kind, Principal
from lictor.policy import CedarPolicy, Declared, compile_rules
from lictor.ports import GrantFacts, Query, SessionFacts
from lictor.testing import reviewed, tool_of

WHERE = "lictor.toml [[rule]]"
CAROL = Principal(Kind.USER, "carol", "acme")
ACT = reviewed(
    tool_of(
        "act",
        {
            "text": {"type": "string"},
            "whole": {"type": "integer"},
            "price": {"type": "number"},
            "flag": {"type": "boolean"},
            "path": {"type": "string"},
            "url": {"type": "string"},
            "mail": {"type": "string"},
            "if": {"type": "string"},
            "a b": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object"},
        },
    ),
    "write",
    formats={"path": "path", "url": "uri", "mail": "email"},
)
Ask = Callable[..., str]


@pytest.fixture
def ruled(desk: Any, reason: Ask) -> Callable[..., Ask]:
    def make(*rules: dict[str, Any], tools: Any = None) -> Ask:
        tools = tools or desk.tools
        source = compile_rules(rules, where=WHERE, tools=tools, declared=desk.declared)
        policy = CedarPolicy.load(tools=tools, sources=[source], declared=desk.declared)
        return lambda known, *given, **facts: reason(policy, known, *given, **facts)

    return make


def pay(amount: float) -> dict[str, Any]:
    return {"amount": amount, "to": "bob"}


def test_a_range_allows_what_lies_in_it(desk: Any, ruled: Any) -> None:
    ask = ruled({"tool": "pay/transfer", "allow": {"amount": {"min": "0.01", "max": "500"}}})

    found = [ask(desk.pay, pay(amount)) for amount in (0.01, 20, 500, 500.01, 600, 0, -5)]

    assert found == ["permit"] * 3 + ["policy_denied"] * 4


def test_otherwise_a_person_is_asked(desk: Any, ruled: Any) -> None:
    ask = ruled(
        {
            "tool": "pay/transfer",
            "allow": {"amount": {"min": "0.01", "max": "500"}},
            "otherwise": "approval:boss",
        }
    )

    assert ask(desk.pay, pay(20)) == "permit"
    assert ask(desk.pay, pay(600)) == "ask_required"
    assert ask(desk.pay, pay(600), met={"approval:boss"}) == "permit"
    assert ask(desk.pay, pay(600), met={"confirm:user"}) == "ask_required"


def test_who_is_the_person_and_the_agent_together(desk: Any, ruled: Any) -> None:
    ask = ruled({"tool": "pay/transfer", "who": ["finance", "banker"]})
    other = Principal(Kind.AGENT, "other", "acme")

    assert ask(desk.pay) == "permit"
    assert ask(desk.pay, chain=(CAROL, desk.bot)) == "policy_denied"
    assert ask(desk.pay, chain=(desk.alice, other)) == "policy_denied"
    assert ask(desk.pay, chain=(desk.alice, desk.bot, other)) == "policy_denied"
    assert ask(desk.pay, user=None) == "policy_denied"


def test_a_role_in_who_is_asked_of_the_person_not_of_the_agent(desk: Any, ruled: Any) -> None:
    ask = ruled({"tool": "pay/transfer", "who": "finance"})
    plain = Principal(Kind.AGENT, "banker", "acme")

    assert ask(desk.pay, chain=(desk.alice, plain)) == "permit"
    assert ask(desk.pay, chain=(CAROL, desk.bot)) == "policy_denied"


def test_rules_of_one_tool_are_alternatives(desk: Any, ruled: Any) -> None:
    small = {"tool": "pay/transfer", "who": "carol", "allow": {"amount": {"min": 0, "max": 10}}}
    large = {
        "tool": "pay/transfer",
        "who": "finance",
        "allow": {"amount": {"min": 0, "max": 900}},
        "otherwise": "confirm:user",
    }
    ask = ruled(small, large)
    by_carol = (CAROL, desk.bot)
    nobody = (Principal(Kind.USER, "dan", "acme"), desk.bot)

    assert ask(desk.pay, pay(5), chain=by_carol) == "permit"
    assert ask(desk.pay, pay(50), chain=by_carol) == "policy_denied"
    assert ask(desk.pay, pay(50)) == "permit"
    assert ask(desk.pay, pay(5000)) == "ask_required"
    assert ask(desk.pay, pay(5), chain=nobody) == "policy_denied"


def test_pairs_of_different_rules_do_not_mix(desk: Any, ruled: Any) -> None:
    one = {"tool": "pay/transfer", "who": ["alice", "banker"]}
    two = {"tool": "pay/transfer", "who": ["carol"], "allow": {"to": "nobody"}}
    ask = ruled(one, two)

    assert ask(desk.pay) == "permit"
    assert ask(desk.pay, chain=(CAROL, desk.bot)) == "policy_denied"
    assert ask(desk.pay, {"amount": 1, "to": "nobody"}, chain=(CAROL, desk.bot)) == "permit"


def test_a_rule_narrows_what_the_starter_permits(desk: Any) -> None:
    rule = {"tool": "pay/transfer", "allow": {"amount": {"min": 1, "max": 5}}}
    source = compile_rules([rule], where=WHERE, tools=desk.tools, declared=desk.declared)
    policy = desk.load(source.text, starter=True)

    def reason(amount: float) -> str:
        query = desk.query(desk.pay, pay(amount), named=True, limited=True)
        return str(policy.evaluate(query).reason)

    assert (reason(3), reason(6)) == ("permit", "policy_denied")


def test_ids_say_which_rule(desk: Any) -> None:
    rule = {"tool": "pay/transfer", "allow": {"to": "bob"}}
    text = compile_rules([rule, rule], where=WHERE, tools=desk.tools, declared=desk.declared).text

    for name in ("", ":otherwise", ":2", ":2:otherwise"):
        assert f'@id("rule:pay/transfer{name}")' in text


@pytest.mark.parametrize(
    ("limit", "inside", "outside"),
    [
        ({"text": "bob"}, ["bob"], ["Bob", "bob ", "", None]),
        ({"text": ["a", 'q"*\\']}, ["a", 'q"*\\'], ["b", 'q"x\\']),
        ({"text": {"prefix": "in*v-"}}, ["in*v-", "in*v-7"], ["inxv-7", "x in*v-"]),
        ({"whole": 7}, [7, 7.0], [8, -7, None]),
        ({"whole": {"min": "1.5", "max": "4"}}, [2, 4], [1, 5, -9]),
        ({"price": 7}, [7, 7.0], [7.0001, 70]),
        ({"price": {"min": "0.01", "max": "500"}}, [0.01, 500], [0, 500.0001, -5]),
        ({"flag": True}, [True], [False]),
        ({"path": {"path_under": "/data"}}, ["/data", "/data/a"], ["/database", "/etc", "/"]),
        ({"path": {"path_under": "/"}}, ["/", "/etc"], []),
        (
            {"url": {"url_under": "https://acme.example/v1"}},
            ["https://acme.example/v1", "https://acme.example/v1/x?q=1"],
            [
                "https://acme.example/v10",
                "https://acme.example.evil.example/v1",
                "https://acme.example:8443/v1",
                "http://acme.example/v1",
            ],
        ),
        (
            {"url": "https://acme.example/a"},
            ["https://acme.example/a"],
            ["https://acme.example/a?q=1", "https://acme.example:8443/a"],
        ),
        (
            {"url": "https://acme.example:8443/a?q=1"},
            ["https://acme.example:8443/a?q=1"],
            ["https://acme.example:8443/a", "https://acme.example/a?q=1"],
        ),
        ({"mail": "a@acme.example"}, ["a@acme.example"], ["b@acme.example", "a@x.example"]),
        ({"if": "x", "a b": "y"}, [], []),
    ],
)
def test_each_limit(ruled: Any, limit: Any, inside: list[Any], outside: list[Any]) -> None:
    ask = ruled({"tool": "local/act", "allow": limit}, tools=(ACT,))
    (name,) = list(limit)[:1]

    assert [ask(ACT, {name: value}) for value in inside] == ["permit"] * len(inside)
    assert [ask(ACT, {name: value}) for value in outside] == ["policy_denied"] * len(outside)
    assert ask(ACT, {}) == "policy_denied", "a limited argument that is absent is outside"


def test_any_leaves_an_argument_free(ruled: Any) -> None:
    ask = ruled({"tool": "local/act", "allow": {"text": {"any": True}}}, tools=(ACT,))

    assert ask(ACT, {"text": "x"}) == ask(ACT, {}) == "permit"


@pytest.mark.parametrize(
    ("rule", "problem", "mend"),
    [
        ({"tool": "pay/transfer", "allows": {}}, "unknown key 'allows'", "allow"),
        ({"who": "alice"}, "has no tool", "server/name"),
        ({"tool": 5}, "has no tool", "server/name"),
        ({"tool": "pay/transfr"}, "no tool 'pay/transfr'", "pay/transfer"),
        ({"tool": "transfer"}, "is not server/name", "pay/transfer"),
        ({"tool": "pay/transfer", "allow": {"amuont": 5}}, "no such argument", "amount"),
        ({"tool": "pay/transfer", "allow": 5}, "allow is no table", "allow = {"),
        ({"tool": "pay/transfer", "allow": {"amount": {"max": "500"}}}, "without min", "add min"),
        ({"tool": "pay/transfer", "allow": {"amount": {"mn": 1}}}, "unknown operator", "min"),
        ({"tool": "pay/transfer", "allow": {"amount": "five"}}, "does not fit", "type"),
        ({"tool": "pay/transfer", "allow": {"amount": True}}, "does not fit", "type"),
        ({"tool": "pay/transfer", "allow": {"amount": 0.00001}}, "four decimal", "four"),
        ({"tool": "pay/transfer", "allow": {"to": {"min": 1, "max": 2}}}, "does not fit", ""),
        ({"tool": "pay/transfer", "allow": {"to": {"path_under": "/a"}}}, "does not fit", "path"),
        ({"tool": "mail/send", "allow": {"to": ["a@x.example"]}}, "does not fit", "Cedar"),
        ({"tool": "pay/transfer", "otherwise": "ask"}, "otherwise = 'ask'", "confirm:user"),
        ({"tool": "pay/transfer", "otherwise": "four-eyes:boss"}, "otherwise", "approval:ROLE"),
        ({"tool": "pay/transfer", "who": "alise"}, "nobody declares 'alise'", "alice"),
        ({"tool": "pay/transfer", "who": 5}, "who is no name", "who"),
        ({"tool": "pay/transfer", "who": "role:alice"}, "nobody declares", ""),
    ],
)
def test_what_is_wrong_names_the_rule_and_the_mend(
    desk: Any, rule: Any, problem: str, mend: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        compile_rules(
            [{"tool": "crm/find"}, rule], where=WHERE, tools=desk.tools, declared=desk.declared
        )

    assert caught.value.where.startswith(f"{WHERE} 2")
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ({"free": {"any": True}}, "cannot see"),
        ({"mail": "a@ACME.example"}, "canonical"),
        ({"whole": {"min": "1.2", "max": "1.8"}}, "no integer"),
        ({"url": {"prefix": "https://acme"}}, "does not fit"),
    ],
)
def test_what_cannot_be_compared_does_not_load(desk: Any, limit: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        rule = {"tool": "local/act", "allow": limit}
        compile_rules([rule], where=WHERE, tools=(ACT,), declared=desk.declared)


def test_a_name_of_two_kinds_must_say_which(desk: Any) -> None:
    declared = Declared(users=frozenset({"sam"}), agents=frozenset({"sam"}), tenant="acme")

    def compiled(who: str) -> str:
        rule = {"tool": "pay/transfer", "who": who}
        return compile_rules([rule], where=WHERE, tools=desk.tools, declared=declared).text

    with pytest.raises(ConfigError, match="name of several") as caught:
        compiled("sam")
    assert "user:sam" in caught.value.mend
    assert 'Lictor::Agent::"acme/sam"' in compiled("agent:sam")
    assert 'Lictor::User::"acme/sam"' in compiled("user:sam")


def test_where_anybody_may_come_a_user_is_named_as_one() -> None:
    declared = Declared(users=frozenset({"*"}), agents=frozenset({"bot"}), tenant="acme")

    def compiled(who: str) -> str:
        rule = {"tool": "local/act", "who": who}
        return compile_rules([rule], where=WHERE, tools=(ACT,), declared=declared).text

    assert 'Lictor::User::"acme/zoe"' in compiled("user:zoe")
    with pytest.raises(ConfigError, match="nobody declares"):
        compiled("zoe")


TEXTS = st.sampled_from(["", "a", "ab", 'a"*', "a*b", "\\", "é", "\x00", "a b"])
NUMBERS = st.integers(-20, 20) | st.sampled_from([0.5, -0.25, 1.75, 12.0001])
LIMITS = st.one_of(
    st.tuples(st.just("text"), TEXTS),
    st.tuples(st.just("text"), st.lists(TEXTS, min_size=1, max_size=3)),
    st.tuples(st.just("text"), TEXTS.filter(bool).map(lambda text: {"prefix": text})),
    st.tuples(st.just("price"), NUMBERS),
    st.tuples(
        st.just("price"),
        st.tuples(NUMBERS, NUMBERS).map(lambda p: {"min": min(p), "max": max(p)}),
    ),
    st.tuples(
        st.just("whole"),
        st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(
            lambda p: {"min": min(p), "max": max(p)}
        ),
    ),
)
PRICES = st.lists(NUMBERS, min_size=3, max_size=3)
WHOLES = st.lists(st.integers(-10, 10), min_size=3, max_size=3)
VALUES = {"text": st.lists(TEXTS, min_size=3, max_size=3), "price": PRICES, "whole": WHOLES}
ALICE = Principal(Kind.USER, "alice", "acme")


@given(data=st.data())
def test_a_rule_admits_what_its_limit_admits(data: st.DataObject) -> None:
    name, raw = data.draw(LIMITS)
    limit = limits.parse(raw, "test")
    declared = Declared(tenant="acme")
    rule = {"tool": "local/act", "allow": {name: raw}}
    source = compile_rules([rule], where=WHERE, tools=(ACT,), declared=declared)
    policy = CedarPolicy.load(tools=(ACT,), sources=[source], declared=declared)
    for value in data.draw(VALUES[name]):
        grant = GrantFacts(tenant="acme", user=ALICE)
        query = Query((ALICE,), ACT.review, {name: value}, grant, SessionFacts())
        assert policy.evaluate(query).allow is limits.admits(limit, value), (raw, value)
