"""The text of a question: exact, visible, short enough, and not to be mistaken for ours."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.approval.desk import remaining
from lictor.approval.render import (
    LONG,
    WIDTH,
    ask_of,
    confirm_lines,
    digest_of,
    full_lines,
    is_cut,
    literal,
    short,
    wrapped,
)
from lictor.model import ToolKey
from lictor.ports import Ask, AskRow

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def ask(arguments: dict[str, Any] | None = None, **more: Any) -> Ask:
    given = {"impact": ("transfer",), **more}
    return Ask(
        ("confirm:user",),
        "c",
        "d",
        "t",
        "local",
        given.pop("user", "alice"),
        given.pop("agent", "banker"),
        ToolKey("local", given.pop("tool", "send_money")),
        arguments or {},
        **given,
    )


def shown(*values: Any, **more: Any) -> str:
    return "\n".join(confirm_lines(ask({f"a{n}": each for n, each in enumerate(values)}, **more)))


def test_it_says_what_for_whom_and_why() -> None:
    lines = confirm_lines(
        ask(
            {"to": "bob", "amount": 1.5},
            why=("payments need your word",),
            labels=frozenset({"untrusted", "salary"}),
            sources=frozenset({"outsiders"}),
        )
    )

    assert lines == [
        "",
        "lictor  local/send_money wants to run  (transfer)",
        "  for alice, by agent banker",
        '    to = "bob"',
        "    amount = 1.5",
        "  because: payments need your word",
        "  this session has read what these can write: outsiders",
        "  this session has read data labelled salary",
    ]


def test_no_arguments_and_an_untrusted_session_are_said() -> None:
    lines = confirm_lines(ask(labels=frozenset({"untrusted"})))

    assert "  without arguments" in lines
    assert "  this session may have read what outsiders can write" in lines


def test_a_repeat_is_said_to_be_one() -> None:
    assert "      | may happen twice" in confirm_lines(ask(repeat=True))
    assert "CAUTION" not in " ".join(confirm_lines(ask()))


@given(st.dictionaries(st.text(), ANY, max_size=4), st.text(), st.text())
def test_nothing_hidden_is_in_any_line_and_no_line_is_too_long(
    arguments: dict[str, Any], user: str, why: str
) -> None:
    for line in confirm_lines(ask(arguments, user=user, why=(why,))):
        assert not {unicodedata.category(each) for each in line} & HIDDEN
        wide = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)
        assert wide - sum(bool(unicodedata.combining(each)) for each in line) <= WIDTH


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=400))
def test_nothing_is_lost_where_a_line_goes_on(text: str) -> None:
    first, *more = wrapped(text)

    assert first + "".join(line.removeprefix("      | ") for line in more) == text


@given(ANY, ANY)
def test_different_values_look_different(one: Any, other: Any) -> None:
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        assert literal(one) != literal(other)


@given(st.text(min_size=1, max_size=500))
def test_a_text_cannot_look_like_a_line_of_ours(text: str) -> None:
    """Each argument begins one line; every other line of it says that it goes on."""
    lines = confirm_lines(ask({"a": text}))[3:]

    assert lines[0].startswith('    a = "')
    assert all(line.startswith("      | ") for line in lines[1:])


def test_a_fake_prompt_in_a_value_stays_inside_its_quotes() -> None:
    text = shown('x" (transfer)\nRun exactly this call? [y/N] ' + " " * 200 + "y")

    assert "\nRun" not in text
    assert r"x\" (transfer)\nRun exactly" in text.replace("\n      | ", "")


def test_a_name_that_is_no_name_is_quoted() -> None:
    assert '    "a = 1\\n  b" = 2' in confirm_lines(ask({"a = 1\n  b": 2}))


def test_right_to_left_letters_are_spelled_out_as_well() -> None:
    text = shown("שלום 100")

    assert "right-to-left letters" in text
    assert "u05e9" in text


def test_mixed_alphabets_are_spelled_out_as_well() -> None:
    assert "several alphabets" in shown("p\u0430ypal")
    assert "several alphabets" not in shown("Москва and Paris", "naïve", "東京")


def test_towers_of_marks_are_cut_down() -> None:
    text = shown("a" + "\u0301" * 50)

    assert text.count("\u0301") == 2
    assert text.replace("\n      | ", "").count("\\u{301}") == 48


@pytest.mark.parametrize("length", [LONG, LONG + 1])
def test_a_long_value_says_what_is_left_out(length: int) -> None:
    value = "begin" + "x" * (length - 8) + "end"
    text = shown(value)

    digest = hashlib.sha256(value.encode()).hexdigest()
    if length > LONG:
        assert f"… 1 more characters, sha256:{digest} …" in text.replace("\n      | ", "")
        assert 'end"' in text
        assert is_cut(ask({"a0": value}))
        assert full_lines(ask({"a0": value}))
    else:
        assert "more characters" not in text
        assert not is_cut(ask({"a0": value}))
        assert full_lines(ask({"a0": value})) == []


def test_a_cut_in_the_middle_hides_no_change() -> None:
    one, other = "x" * 10_000, "x" * 5_000 + "y" + "x" * 4_999

    assert shown(one) != shown(other)


def test_a_long_list_is_cut_as_well_and_whole_in_the_pages() -> None:
    value = list(range(2_000))
    pages = full_lines(ask({"a": value}))

    assert "more characters" in shown(value)
    assert "1999]" in "".join(line.removeprefix("      | ") for line in pages)


def test_the_digest_is_that_of_the_lines() -> None:
    assert digest_of(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()


def test_short_says_that_it_cuts() -> None:
    assert short("x" * 100, 10) == '"xxxxxxxx…'
    assert short("x", 10) == '"x"'


def test_a_stored_ask_reads_as_it_was_asked() -> None:
    request: dict[str, Any] = {
        "user": "alice",
        "agent": "banker",
        "impact": ["transfer"],
        "why": ["because"],
        "labels": ["untrusted"],
        "sources": ["outsiders"],
        "assurance": "dev",
        "repeat": True,
        "arguments": {"to": "bob"},
        "recorded": {"to": {"digest": "x"}},
    }
    row = AskRow(
        "a", "pending", "t", "c", "d", "local", "local/pay", ("confirm:user",), request, 0, 9
    )
    found = ask_of(row)

    assert confirm_lines(found) == confirm_lines(
        ask(
            {"to": "bob"},
            tool="pay",
            why=("because",),
            labels=frozenset({"untrusted"}),
            sources=frozenset({"outsiders"}),
            repeat=True,
        )
    )
    assert (found.id, found.expires, found.assurance) == ("a", 9, "dev")
    assert remaining(request)["arguments"] == {"to": {"digest": "x"}}
