"""Canonical JSON: the fast path writes the bytes of RFC 8785, and a digest means one value."""

from __future__ import annotations

import json
import math

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.canonical import MAX_INTEGER, Json, canonical, digest, take

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=1_000)
@given(VALUES)
def test_canonical_is_rfc_8785_for_every_i_json_value(value: Json) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
def test_canonical_reads_back_as_the_same_value(value: Json) -> None:
    assert canonical(json.loads(canonical(value), parse_int=_number)) == canonical(value)


def _number(text: str) -> Json:
    """A float may be a whole number that no integer of ours may be."""
    return int(text) if abs(int(text)) <= MAX_INTEGER else float(text)


@given(VALUES, VALUES)
def test_equal_digests_are_equal_values(one: Json, two: Json) -> None:
    assert (digest(one) == digest(two)) == (rfc8785.dumps(one) == rfc8785.dumps(two))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4))
def test_taken_arguments_are_independent_and_alike(arguments: dict[str, Json]) -> None:
    before = json.dumps(arguments)
    taken = take(arguments)
    assert taken.view == arguments
    assert taken.encoded == canonical(taken.view)
    _spoil(taken.values)
    assert json.dumps(arguments) == before
    assert canonical(taken.view) == taken.encoded
    _spoil(arguments)
    assert canonical(taken.view) == taken.encoded


def _spoil(value: object) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoiled"] = math.pi
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoiled")
