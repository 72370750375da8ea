"""Policy texts keep their lines, ids and annotations, and what is odd does not load."""

from __future__ import annotations

from typing import Any

import pytest

from lictor.errors import ConfigError
from lictor.policy import PolicySource, guardrail
from lictor.policy.source import parse, split

TEXT = """// a comment; with "quotes
@id("one")
permit (principal, action, resource)
when { context.grant.task == "a;b // c \\" }" };

// another
  forbid (principal, action, resource); permit(principal,action,resource);
"""


def test_statements_know_their_lines() -> None:
    found = list(split(TEXT))

    assert [line for line, _ in found] == [2, 7, 7]
    assert found[0][1].startswith('@id("one")')


def test_policies_have_ids_of_their_own_or_of_their_place() -> None:
    found = parse([PolicySource("p.cedar", TEXT)])

    assert [s.id for s in found] == ["one", "p.cedar#2", "p.cedar#3"]
    assert [s.named for s in found] == [True, False, False]
    assert [s.where for s in found] == ["p.cedar:2", "p.cedar:7", "p.cedar:7"]
    assert [s.permits for s in found] == [True, False, True]


FORBID = "forbid (principal, action, resource)"


@pytest.mark.parametrize(
    ("text", "where", "problem", "mend"),
    [
        ("\n\npermit (principal action, resource);", ":3", "unexpected token", "syntax"),
        ("permit (principal, action, resource)", ":1", "end of input", "syntax"),
        ("permit (principal, action, resource); oops", ":1", "oops|end of input", "syntax"),
        ("/* c */ permit (principal, action, resource);", ":1", "unexpected token", "syntax"),
        ("permit (principal == ?principal, action, resource);", ":1", "template", "write"),
        (";", ":1", "unexpected token", ""),
        (
            '@id("a") permit (principal, action, resource);\n@id("a") ' + FORBID + ";",
            ":2",
            "already used at p.cedar:1",
            "@id of its own",
        ),
        (f'@requires("confirm:user") {FORBID};', ":1", "unknown annotation", "@require?"),
        (f'@mode("shadow") {FORBID};', ":1", "unknown annotation @mode", ""),
        (f'@require("redact:x") {FORBID};', ":1", "is no ask", "confirm:user"),
        (f'@require("approval:") {FORBID};', ":1", "is no ask", "approval:ROLE"),
        (f'@require("confirm:user") {FORBID};', ":1", "names the same ask", "unless"),
        (
            f'@require("confirm:user") {FORBID} unless {{ context.met.contains("approval:x") }};',
            ":1",
            "names the same ask",
            'contains("confirm:user")',
        ),
        (
            f'@require("confirm:user") {FORBID} '
            'unless { context.met.contains("confirm:user") || context.grant.limited };',
            ":1",
            "names the same ask",
            "unless",
        ),
        (
            f'@require("confirm:user") {FORBID} unless {{ context.met.contains("confirm:user") }} '
            "unless { context.grant.limited };",
            ":1",
            "names the same ask",
            "unless",
        ),
        (
            '@require("confirm:user") permit (principal, action, resource) '
            'unless { context.met.contains("confirm:user") };',
            ":1",
            "needs a forbid",
            "unless",
        ),
    ],
)
def test_what_is_odd_does_not_load(text: str, where: str, problem: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse([PolicySource("p.cedar", text)])

    assert caught.value.where == f"p.cedar{where}"
    assert mend in caught.value.mend


def test_ids_are_unique_over_all_files() -> None:
    one = '@id("a") permit (principal, action, resource);'
    with pytest.raises(ConfigError, match=r"already used at x:1"):
        parse([PolicySource("x", one), PolicySource("y", one)])


@pytest.mark.parametrize(
    ("text", "problem", "mend"),
    [
        (
            'permit (principal, action in Lictor::Action::"sennd", resource);',
            "unrecognized action",
            "send",
        ),
        (
            'permit (principal, action == Lictor::Action::"pay/transfer", resource)\n'
            'when { context.input.note == "x" };',
            "optional attribute",
            "context.input has note",
        ),
        (
            'permit (principal, action == Lictor::Action::"pay/transfer", resource)\n'
            'when { context.input.recipient == "x" };',
            "not found",
            "correct the name",
        ),
        (
            'forbid (principal, action in Lictor::Action::"send", resource)\n'
            "when { context.input.amount > 5 };",
            "not found",
            "context.input has amount",
        ),
        (
            'permit (principal, action == Lictor::Action::"crm/find", resource)\n'
            'when { context.input.id == "x" };',
            "types",
            "docs/policy.md",
        ),
        ("permit (principal, action, resource) when { context.session.lables };", "lables", ""),
    ],
)
def test_what_is_not_valid_names_file_line_and_mend(
    desk: Any, text: str, problem: str, mend: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        desk.load("\n" + text)

    assert caught.value.where == "local.cedar:2"
    assert mend in caught.value.mend


def test_guardrails_are_found_by_name_and_version() -> None:
    assert "starter:confirm" in guardrail("starter@1").text
    for name in ("starter@9", "starter", "../starter@1", ""):
        with pytest.raises(ConfigError, match=r"no guardrails") as caught:
            guardrail(name)
        assert "starter@1" in caught.value.mend
