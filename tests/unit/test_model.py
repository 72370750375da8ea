"""The words as values: arguments are copied and viewed, tools pinned, verdicts without truth."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pydantic
import pytest
from pydantic import BaseModel

from lictor.canonical import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_NODES,
    InputInvalid,
    canonical,
    digest,
    frozen,
    take,
    thawed,
)
from lictor.model import (
    Decision,
    Enforcement,
    Impact,
    Kind,
    Outcome,
    Principal,
    Review,
    Tool,
    ToolKey,
    Verdict,
    derived_id,
    ulid,
)


class Colour(Enum):
    RED = "red"


class Word(StrEnum):
    YES = "yes"


@dataclass
class Address:
    street: str
    tags: list[str]


class Person(BaseModel):
    name: str
    addresses: list[str] = []


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "view"),
    [
        ("x", "x"),
        (None, None),
        (True, True),
        (5, 5),
        (0.5, 0.5),
        ([1, [2]], [1, [2]]),
        ((1, "a"), [1, "a"]),
        ({"a": {"b": ()}}, {"a": {"b": []}}),
        (Colour.RED, "red"),
        (Word.YES, "yes"),
        (Decimal("1.10"), 1.1),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 11, 24), "2026-11-24"),
        (datetime(2026, 11, 24, 1, 2, tzinfo=UTC), "2026-11-24T01:02:00+00:00"),
        (timedelta(seconds=1.5), 1.5),
        (PurePosixPath("/a/b"), "/a/b"),
        (b"ab", "YWI="),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        (Address("x", ["y"]), {"street": "x", "tags": ["y"]}),
        (Person(name="n"), {"name": "n", "addresses": []}),
    ],
)
def test_take_views_what_it_knows(value: object, view: object) -> None:
    taken = take({"a": value})
    assert taken.view == {"a": view}
    assert taken.values["a"] == value
    assert type(taken.values["a"]) is type(value)
    assert taken.encoded == canonical(taken.view)


class Sly(str):
    """Another `str` at every look."""

    def __str__(self) -> str:
        return "harmless"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (math.nan, "not a finite number"),
        (-math.inf, "not a finite number"),
        (10**30, "2^53-1"),
        (-(MAX_INTEGER + 1), "2^53-1"),
        ("\ud800", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({1: 2}, "not a string"),
        (object(), "cannot be checked"),
        (Sly("x"), "cannot be checked"),
        (OrderedDict(a=1), "cannot be checked"),
        (Pair(1, 2), "cannot be checked"),
        (lambda: None, "cannot be checked"),
        (int, "cannot be checked"),
        (1j, "cannot be checked"),
        ([[object()]], "cannot be checked"),
    ],
)
def test_take_refuses_what_it_cannot_view(value: object, problem: str) -> None:
    with pytest.raises(InputInvalid, match=problem.replace("^", r"\^")) as refused:
        take({"amount": value})
    assert refused.value.path.startswith("amount")


def test_take_refuses_what_is_too_deep_too_many_or_too_large() -> None:
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(InputInvalid, match="deeper"):
        take({"a": deep})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputInvalid, match="deeper"):
        take({"a": endless})
    with pytest.raises(InputInvalid, match="more than"):
        take({"a": [0] * MAX_NODES})
    with pytest.raises(InputInvalid, match="larger"):
        take({"a": "x" * MAX_BYTES})


def test_error_says_where() -> None:
    with pytest.raises(InputInvalid, match=r"argument a\.b\[1\]: "):
        take({"a": {"b": [1, math.nan]}})


def test_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(InputInvalid):
        take({1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [[1], {"a": 1}, Address("x", []), Person(name="n"), {1}])
def test_what_runs_is_a_copy(value: object) -> None:
    assert take({"a": value}).values["a"] is not value


def test_canonical_sorts_and_refuses_what_is_not_json() -> None:
    assert canonical({"b": 1, "a": [1.0, "é"]}) == '{"a":[1,"é"],"b":1}'.encode()
    for value in (math.nan, 2**53, "\udfff"):
        with pytest.raises(InputInvalid):
            canonical(value)
    assert canonical({"\U0001f600": 1, "\ufb33": 2}) == '{"\U0001f600":1,"\ufb33":2}'.encode()


def test_digest_tells_types_apart() -> None:
    assert digest(1) == digest(1.0)
    assert len({digest(value) for value in (1, True, "1", [1], None, {"a": 1})}) == 6


def test_frozen_cannot_be_changed_and_thaws_to_the_same() -> None:
    value = {"a": [{"b": 1}], "c": None}
    held: Any = frozen(value)
    with pytest.raises(TypeError):
        held["a"] = 1
    with pytest.raises(TypeError):
        held["a"][0]["b"] = 2
    assert thawed(held) == value


@pytest.mark.parametrize("kind", [Verdict, Enforcement, Outcome])
def test_no_verdict_is_true_or_false(kind: Any) -> None:
    for member in kind:
        with pytest.raises(TypeError, match="no truth value"):
            bool(member)


def test_decision_has_no_truth_value() -> None:
    made = Decision("D", "C", ToolKey("local", "x"), Verdict.DENY, Enforcement.BLOCK, "x", "y")
    with pytest.raises(TypeError, match="compare decision"):
        bool(made)


@pytest.mark.parametrize("text", ["x", "Local/x", "1a/x", "a_b/x", "/x", "a/", "a/_", "a/x\n", ""])
def test_tool_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ToolKey.parse(text)


def test_only_the_first_slash_separates() -> None:
    assert ToolKey.parse("files/a/b") == ToolKey("files", "a/b")
    assert str(ToolKey("files", "a/b")) == "files/a/b"


TOOL = Tool(
    key=ToolKey("local", "pay"),
    description="Pays.",
    input_schema={"type": "object", "properties": {"to": {"type": "string"}}},
    title="Pay",
    output_schema={"type": "string"},
    annotations={"destructiveHint": True},
    origin="m:pay#py311-00",
    injected=("state",),
)


@pytest.mark.parametrize(
    "change",
    [
        {"key": ToolKey("local", "pay2")},
        {"key": ToolKey("bank", "pay")},
        {"description": "Pays!"},
        {"input_schema": {"type": "object", "properties": {"to": {"type": "string", "x": 1}}}},
        {"title": "Pay "},
        {"output_schema": None},
        {"annotations": {}},
        {"origin": "m:pay#py311-01"},
        {"injected": ()},
    ],
)
def test_pin_covers_every_part(change: dict[str, Any]) -> None:
    assert replace(TOOL, **change).pin != TOOL.pin


def test_definition_brings_the_tool_back() -> None:
    assert Tool.from_definition(TOOL.definition()) == TOOL
    assert Tool.from_definition(TOOL.definition()).pin == TOOL.pin


@pytest.mark.parametrize("change", [{"server": "X"}, {"name": ""}, {"extra": 1}])
def test_definition_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Tool.from_definition({**TOOL.definition(), **change})


def test_definition_cannot_change_after_pinning() -> None:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    tool = Tool(ToolKey("local", "x"), input_schema=schema)
    schema["properties"]["b"] = {}
    assert "b" not in tool.input_schema["properties"]  # type: ignore[operator]
    assert isinstance(tool.input_schema, MappingProxyType)


def test_everything_but_read_is_effectful() -> None:
    key = ToolKey("local", "x")
    assert not Review(key, frozenset({Impact.READ}), "").effectful
    assert Review(key, frozenset({Impact.READ, Impact.SEND}), "").effectful
    assert Review(key, frozenset(), "").effectful


def test_principal_names_its_tenant() -> None:
    assert str(Principal(Kind.USER, "alice", "acme")) == "user:acme/alice"


def test_ids_sort_by_time_and_retries_share_theirs() -> None:
    assert len(ulid()) == 26
    assert ulid(1.0) < ulid(2.0)
    assert ulid(1.0) != ulid(1.0)
    assert derived_id("a", "bc") == derived_id("a", "bc") != derived_id("ab", "c")


@pytest.mark.parametrize("at", [0.0, 1.0, 1_700_000_000.123, (2**48 - 1) / 1000])
def test_a_ulid_begins_with_its_milliseconds_and_spells_every_bit(at: float) -> None:
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    made = [ulid(at) for _ in range(500)]
    number = 0
    for letter in made[0][:10]:
        number = number * 32 + alphabet.index(letter)
    assert number == int(at * 1000)
    assert {each[:10] for each in made} == {made[0][:10]}
    for place in range(10, 26):
        assert {each[place] for each in made} == set(alphabet), "some bit of it never moves"


class _Hiding(pydantic.BaseModel):
    to: str
    iban: str = pydantic.Field("x", exclude=True)
    amount: int = 0

    @pydantic.field_serializer("amount")
    def _small(self, _: int) -> int:
        return 1


def test_a_model_cannot_hide_a_field_that_runs() -> None:
    taken = take({"p": _Hiding(to="landlord", iban="MALLORY", amount=999)})

    assert taken.view == {"p": {"to": "landlord", "iban": "MALLORY", "amount": 999}}


def test_a_secret_inside_a_model_cannot_be_checked() -> None:
    class Holding(pydantic.BaseModel):
        token: pydantic.SecretStr

    with pytest.raises(InputInvalid, match="cannot be checked"):
        take({"p": Holding(token=pydantic.SecretStr("s"))})


def test_a_root_model_is_its_root() -> None:
    numbers = pydantic.RootModel[list[int]]([1, 2])

    assert take({"p": numbers}).view == {"p": [1, 2]}


def test_a_model_with_a_field_called_root_is_no_root_model() -> None:
    class Tree(pydantic.BaseModel):
        root: str

    assert take({"p": Tree(root="oak")}).view == {"p": {"root": "oak"}}
