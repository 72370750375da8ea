"""What a terminal sends, taken apart into key presses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.approval import tty
from lictor.approval.tty import Keys

PIECES = [
    "y",
    "n",
    "\r",
    "ä",
    "東",
    "\x1b[A",
    "\x1bOP",
    "\x1b[1;5C",
    "\x1b[200~y\x1b[201~",
    "\x1bx",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.data())
def test_however_it_is_cut_the_keys_are_the_same(pieces: list[str], data: st.DataObject) -> None:
    sent = "".join(pieces).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    keys, found = Keys(), list[str]()

    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += keys.feed(sent[begin:end])

    assert found == ["\n" if each == "\r" else each for each in pieces if "\x1b" not in each]


def test_what_is_pasted_is_dropped_however_long_it_is() -> None:
    keys = Keys()

    found = keys.feed(b"\x1b[200~") + keys.feed(b"y\n" * 5_000) + keys.feed(b"\x1b[20")
    found += keys.feed(b"1~n")

    assert found == ["n"]


def test_an_escape_that_nothing_follows_is_the_key_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(tty.time, "monotonic", lambda: now[0])
    keys = Keys()

    assert keys.feed(b"\x1b") == []
    assert keys.late() == []
    now[0] += 2 * tty.SPLIT
    assert keys.late() == ["\x1b"]
    assert keys.late() == []


def test_bytes_that_are_no_text_are_no_answer() -> None:
    assert set(Keys().feed(b"\xff\xfe\x80")) == {"\ufffd"}
