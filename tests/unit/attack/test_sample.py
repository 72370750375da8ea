"""Arguments for an attack are ones that an honest call could have."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor import limits, schema
from lictor.attack.sample import outside, sample, value, within

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "minLength": 6},
        "n": {"type": "integer", "minimum": 3, "maximum": 9},
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "sure": {"type": "boolean"},
        "kind": {"enum": ["a", "b"]},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "some": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
        "where": {"$ref": "#/$defs/Place"},
        "left": {"type": "string"},
    },
    "required": ["to", "n", "share", "sure", "kind", "maybe", "some", "where"],
    "additionalProperties": False,
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        }
    },
}
LIMITS = [
    limits.Equals("x"),
    limits.Equals(3),
    limits.Equals(value=True),
    limits.OneOf(("a", "b")),
    limits.Range(Decimal(1), Decimal(5)),
    limits.Prefix("inv-"),
    limits.Prefix("attacker"),
    limits.PathUnder("/data"),
    limits.PathUnder("/"),
    limits.UrlUnder("https://api.example/v1"),
]


def test_a_sample_fits_the_definition() -> None:
    made = sample(SCHEMA, {}, {})

    assert "left" not in made
    schema.compile(SCHEMA).check(made, b"")


def test_a_sample_fits_the_limits_and_names_what_they_name() -> None:
    named = {"left": limits.Prefix("inv-"), "n": limits.Range(Decimal(4), Decimal(5))}

    made = sample(SCHEMA, named, {})

    assert made["left"].startswith("inv-")
    assert made["n"] == 4


@pytest.mark.parametrize("limit", LIMITS, ids=limits.describe)
def test_what_is_within_is_admitted_and_what_is_outside_is_not(limit: limits.Limit) -> None:
    kind = {"type": "number"} if isinstance(limit, limits.Range) else {"type": "string"}
    inside = within(limit)

    if isinstance(limit, limits.Range):
        inside = float(str(inside))
    assert limits.admits(limit, inside)
    assert not limits.admits(limit, outside(limit, kind))


def test_nothing_is_outside_of_any() -> None:
    assert outside(limits.Any(), {}) is None


@given(
    st.recursive(
        st.just({"type": "string"}),
        lambda s: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("abc"), s, min_size=1),
                "required": st.just(["a"]),
            }
        ),
    )
)
def test_any_nesting_ends(part: dict[str, Any]) -> None:
    value(part, part)


def test_a_definition_that_refers_to_itself_ends() -> None:
    loop: dict[str, Any] = {"$ref": "#"}

    assert value(loop, loop) is not None
