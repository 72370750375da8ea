"""JSON-RPC over the wire: what is read is what every parser reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor_mcp.wire import MAX_BYTES, Malformed, parse, write

TEXTS = st.text(st.characters(codec=None), max_size=12)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS
MESSAGES = st.builds(
    lambda id, method, params: {"jsonrpc": "2.0", "id": id, "method": method, "params": params},
    IDS,
    TEXTS.filter(bool),
    st.dictionaries(TEXTS, VALUES, max_size=4),
)
PIECES = (
    rb""" " { } [ ] : , \ \u0061 \ud800 1 1.0 -0 1e9 NaN true null
    "id" "method" "jsonrpc" "2.0" "a" "A" """
).split()
TOKENS = st.sampled_from(
    [*PIECES, b"\r", b"\n", b" ", b"\xe2\x80\xa8", b"\xff", b"\x00", b"\xef\xbb\xbf"]
)


def twins(value: Any) -> bool:
    """Whether names of one object differ in case alone, anywhere."""
    if isinstance(value, list):
        return any(twins(each) for each in value)
    if not isinstance(value, dict):
        return False
    if len({name.casefold() for name in value}) != len(value):
        return True
    return any(twins(each) for each in value.values())


@given(MESSAGES)
def test_what_is_written_is_read_as_it_was(message: dict[str, Any]) -> None:
    raw = write(message)
    assert raw.isascii()
    read = parse(raw)
    assert dict(read.value) == message
    assert read.raw == raw
    assert parse(read.raw).key == read.key


@given(MESSAGES, st.sampled_from([None, 0, 1, "\t"]), st.booleans())
def test_white_space_and_line_ends_change_nothing_but_the_lines(
    message: dict[str, Any], indent: int | str | None, carriage: bool
) -> None:
    text = json.dumps(message, indent=indent)
    raw = (text.replace("\n", "\r") if carriage else text).encode()
    read = parse(b" \r\n" + raw + b"\r\n")
    assert b"\r" not in read.raw
    assert b"\n" not in read.raw
    assert json.loads(read.raw) == message
    assert len(read.raw) == len(raw)


@given(MESSAGES)
def test_twins_are_noticed_wherever_they_are(message: dict[str, Any]) -> None:
    assert parse(write(message)).loose or not twins(message)


@given(st.lists(TOKENS, max_size=24).map(b"".join) | st.binary(max_size=64))
def test_anything_at_all_is_one_message_or_malformed(raw: bytes) -> None:
    try:
        read = parse(raw)
    except Malformed:
        return
    assert json.loads(read.raw) == read.value
    assert len(read.raw.splitlines()) == 1


@given(MESSAGES, st.sampled_from(["id", "method", "jsonrpc", "params"]), VALUES)
def test_a_member_given_twice_is_refused(message: dict[str, Any], name: str, value: Any) -> None:
    raw = write(message)[:-1] + b"," + write({name: value})[1:-1] + b"}"
    with pytest.raises(Malformed):
        parse(raw)


def test_the_largest_message_that_is_read() -> None:
    frame = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"%b"}}'
    fits = frame % (b"a" * (MAX_BYTES - len(frame) + 2))
    assert len(fits) == MAX_BYTES
    assert parse(fits).method == "x"
    with pytest.raises(Malformed, match="larger"):
        parse(fits + b" ")
