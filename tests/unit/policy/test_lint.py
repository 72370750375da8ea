"""The lint finds what is valid Cedar and still not what its author meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lictor.errors import ConfigError
from lictor.policy import PolicySource, guardrail, lint
from lictor.testing import reviewed, tool_of

NAMED = '@id("x") @reason("r") '
PAY = 'action == Lictor::Action::"pay/transfer"'
MAIL = 'action == Lictor::Action::"mail/send"'


def problems(desk: Any, text: str, tools: Any = None) -> list[tuple[str, str]]:
    found = lint([PolicySource("p", text)], desk.declared, desk.tools if tools is None else tools)
    return [(finding.level, finding.problem) for finding in found]


def test_the_starter_is_clean_with_and_without_tools(desk: Any) -> None:
    assert lint([guardrail("starter@1")], desk.declared, desk.tools) == []
    assert lint([guardrail("starter@1")], desk.declared, ()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('permit (principal in Lictor::Role::"acme/finnance", action, resource);', "finnance"),
        ('permit (principal in Lictor::Role::"finance", action, resource);', "Role 'finance'"),
        ('forbid (principal == Lictor::User::"acme/mallory", action, resource);', "mallory"),
        ('forbid (principal == Lictor::Agent::"acme/alice", action, resource);', "Agent"),
        ('forbid (principal in Lictor::Tenant::"acmee", action, resource);', "acmee"),
        ('forbid (principal, action, resource in Lictor::Server::"pai");', "Server 'pai'"),
        ('forbid (principal, action, resource == Lictor::Tool::"pay/transfr");', "transfr"),
        (
            'forbid (principal, action, resource) when { principal in Lictor::Role::"acme/bos" };',
            "Role 'acme/bos'",
        ),
        (
            "forbid (principal, action, resource) "
            'when { context.session.labels.contains("untrustd") };',
            "'untrustd' in context.session.labels",
        ),
        (
            "forbid (principal, action, resource) "
            'when { ["pii", "sensitiv"].containsAny(context.session.labels) };',
            "'sensitiv'",
        ),
        (
            "forbid (principal, action, resource) "
            'when { context.session.sources.contains("nobody") };',
            "'nobody'",
        ),
        (
            'forbid (principal, action, resource) when { context.assurance == "verifed" };',
            "verifed",
        ),
        ('forbid (principal, action, resource) when { principal.tenant == "acmme" };', "acmme"),
        ('forbid (principal, action, resource) when { context.grant.tenant != "x" };', "'x'"),
        (
            'permit (principal, action, resource) when { context.met.contains("confirm") };',
            "is no ask",
        ),
        (
            'forbid (principal, action, resource) unless { context.met.contains("confirm:user") };',
            "nobody will put",
        ),
        (
            '@require("approval:bozz") forbid (principal, action, resource) '
            'unless { context.met.contains("approval:bozz") };',
            "Role 'bozz'",
        ),
        (
            f"permit (principal, {PAY}, resource) "
            'when { context.input.amount.lessThan(decimal("500.0")) };',
            "maximum and no minimum",
        ),
        (
            f"permit (principal, {PAY}, resource) "
            'unless { context.input.amount.greaterThan(decimal("500.0")) };',
            "maximum and no minimum",
        ),
        (
            'permit (principal, action == Lictor::Action::"crm/find", resource) '
            "when { context.session.calls + context.input.id <= 9 };",
            "maximum and no minimum",
        ),
        (
            f'permit (principal, {MAIL}, resource) when {{ context.input.body like "*@a.b" }};',
            "wildcard",
        ),
        (
            f"permit (principal, {MAIL}, resource) when "
            '{ [{"local": "a", "domain": "b"}].containsAll(context.input.to) };',
            "is empty",
        ),
        ('permit (principal, action == Lictor::Action::"send", resource);', "matches no tool"),
        ('permit (principal, action == Lictor::Action::"send/_", resource);', "is no action"),
        (
            "forbid (principal is Lictor::Agent, action, resource) "
            'when { principal has owner && principal.owner in Lictor::Role::"acme/boss" };',
            "knows nothing",
        ),
        (
            "forbid (principal, action, resource) "
            'when { Lictor::User::"acme/alice" in Lictor::Role::"acme/boss" };',
            "knows nothing",
        ),
    ],
)
def test_errors(desk: Any, text: str, problem: str) -> None:
    found = problems(desk, NAMED + text)

    assert any(level == "error" and problem in said for level, said in found), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit (principal is Lictor::User, action, resource);", "has no id"),
        ('@id("pаy") permit (principal is Lictor::User, action, resource);', "not ASCII"),
        ('@id("x") forbid (principal, action, resource) when { context.autonomous };', "no reason"),
        (NAMED + "permit (principal, action, resource);", "without conditions"),
        (
            NAMED + 'permit (principal, action in Lictor::Action::"write", resource);',
            "without conditions",
        ),
        (NAMED + "forbid (principal, action, resource) when { 1 > 2 };", "always the same"),
        (
            NAMED + "forbid (principal, action, resource) when { context.autonomous && (2 < 1) };",
            "always the same",
        ),
        (NAMED + "forbid (principal, action, resource) when { false };", "always the same"),
        (
            NAMED + f"permit (principal, {MAIL}, resource) "
            'when { context.input.body like "SELECT *" };',
            "has no format",
        ),
        (
            NAMED + f"forbid (principal, {PAY}, resource) "
            'when { context.input.amount.greaterThan(decimal("500.0")) };',
            "no minimum",
        ),
        (
            NAMED
            + 'permit (principal, action, resource) when { context.met.contains("confirm:user") };',
            "nobody will put",
        ),
    ],
)
def test_warnings(desk: Any, text: str, problem: str) -> None:
    found = problems(desk, text)

    assert any(problem in said for _, said in found), found
    assert all(level == "warning" for level, _ in found), found


@pytest.mark.parametrize(
    "text",
    [
        'permit (principal, action in Lictor::Action::"read", resource);',
        'permit (principal in Lictor::Role::"globex/boss", action, resource);',
        'permit (principal is Lictor::User, action, resource) when { principal.tenant == "acme" };',
        "forbid (principal, action, resource) "
        'when { context.session.labels.containsAny(["pii", "secret", "untrusted"]) };',
        f"permit (principal, {PAY}, resource) "
        'when { context.input.amount.greaterThan(decimal("0.0")) && '
        'context.input.amount.lessThan(decimal("500.0")) };',
        f"permit (principal, {PAY}, resource) "
        'when { !(context.input.amount.lessThan(decimal("0.0"))) && '
        'context.input.amount.lessThan(decimal("500.0")) };',
        f"permit (principal, {MAIL}, resource) "
        'when { [{"local": "a", "domain": "b"}].containsAll(context.input.to) && '
        "context.input.to_count > 0 };",
        f"permit (principal, {MAIL}, resource) when {{ context.input.to_count < 3 }};",
        "permit (principal, action, resource) when { context.grant has user && "
        'context.grant.user in Lictor::Role::"acme/boss" };',
        'permit (principal, action, resource) when { resource in Lictor::Server::"pay" };',
    ],
)
def test_what_is_meant_so_is_left_alone(desk: Any, text: str) -> None:
    assert problems(desk, NAMED + text) == []


def test_a_minimum_of_the_tool_is_a_minimum(desk: Any) -> None:
    tool = reviewed(
        tool_of(
            "pay",
            {"n": {"type": "integer", "minimum": 0}, "m": {"type": "integer"}},
            required=["n", "m"],
        ),
        "transfer",
    )

    def limited(name: str) -> list[tuple[str, str]]:
        text = (
            NAMED + 'permit (principal, action == Lictor::Action::"local/pay", resource) '
            f"when {{ context.input.{name} < 5 }};"
        )
        return problems(desk, text, (tool,))

    assert limited("n") == []
    assert limited("m") != []


def test_a_path_with_a_format_may_be_compared_by_its_start(desk: Any) -> None:
    text = (
        NAMED + 'permit (principal, action == Lictor::Action::"local/write", resource) '
        'when { context.input.path like "/data/*" };'
    )
    tool = tool_of("write", {"path": {"type": "string"}}, required=["path"])

    plain = problems(desk, text, (reviewed(tool, "write"),))
    formed = problems(desk, text, (reviewed(tool, "write", formats={"path": "path"}),))

    assert [level for level, _ in plain] == ["warning"]
    assert formed == []


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        (
            '@require("approval:zebra") forbid (principal, action, resource) '
            'unless { context.met.contains("approval:zebra") };',
            'in lictor.toml: roles = ["zebra"] in [users.NAME] or [agents.NAME]',
        ),
        (
            'forbid (principal == Lictor::User::"acme/zoltan", action, resource);',
            'in lictor.toml: [users."zoltan"]',
        ),
        (
            'forbid (principal == Lictor::Agent::"acme/zebra-7", action, resource);',
            'in lictor.toml: [agents."zebra-7"]',
        ),
    ],
)
def test_a_name_that_is_like_none_is_mended_by_a_line(desk: Any, text: str, mend: str) -> None:
    found = lint([PolicySource("p", NAMED + text)], desk.declared, desk.tools)

    assert [finding.mend for finding in found] == [f"declare it {mend}"]


def test_a_name_that_is_like_one_is_mended_by_its_whole_id(desk: Any) -> None:
    text = NAMED + 'permit (principal in Lictor::Role::"finance", action, resource);'
    found = lint([PolicySource("p", text)], desk.declared, desk.tools)

    assert "did you mean acme/finance or globex/finance?" in [each.mend for each in found]


def test_errors_stop_the_load_and_warnings_do_not(desk: Any) -> None:
    two = (
        '\n@id("a") forbid (principal in Lictor::Role::"acme/bos", action, resource);'
        '\n@id("b") forbid (principal in Lictor::Role::"acme/bos", action, resource);'
    )
    with pytest.raises(ConfigError, match=r"Role 'acme/bos'\n  also local.cedar:3") as caught:
        desk.load(two)

    assert caught.value.where == "local.cedar:2"
    assert "acme/boss" in caught.value.mend
    policy = desk.load("permit (principal is Lictor::User, action, resource);")
    assert [finding.level for finding in policy.findings] == ["warning"]


def test_where_anybody_may_come_any_user_may_be_named(desk: Any) -> None:
    text = NAMED + 'forbid (principal == Lictor::User::"acme/mallory", action, resource);'
    open_house = replace(desk.declared, users=frozenset({"*"}))

    assert lint([PolicySource("p", text)], open_house, desk.tools) == []
    assert problems(desk, text) != []
