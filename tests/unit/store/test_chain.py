"""The hash chain (rules of lictor.store.chain)."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest

from lictor.canonical import canonical
from lictor.errors import StoreError
from lictor.ports import Entry


def _records(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT stream, seq, body, hash FROM record ORDER BY seq").fetchall()
    db.close()
    return rows


def test_every_record_hangs_on_the_one_before_and_the_head_is_the_last(act, store, path):
    for n in range(5):
        act.say(n=n)
    before = bytes(32)
    for place, (stream, seq, body, found) in enumerate(_records(path), 1):
        assert (stream, seq) == (store.head.stream, place)
        assert hashlib.sha256(before + body).digest() == found
        before = found
    assert (store.head.seq, store.head.hash) == (place, before.hex())


def test_the_body_is_canonical_and_names_its_own_place(act, path):
    act.say(policies=["b", "a"], ä="ö")
    _, seq, body, _ = _records(path)[-1]
    value = json.loads(body)
    assert canonical(value) == body
    assert (value["v"], value["seq"], value["verdict"], value["code"]) == (
        1,
        seq,
        "allow",
        "permit",
    )
    assert (value["placement"], value["ä"]) == ("p0", "ö")


@pytest.mark.parametrize("name", ["v", "stream", "seq", "kind", "at", "call", "verdict"])
def test_a_body_cannot_forge_its_place(act, store, name):
    before = store.head
    with pytest.raises(StoreError, match=f"sets {name}, which the store sets"):
        act.say(**{name: 1})
    assert store.head == before


def test_a_body_that_is_not_json_fails_alone(act, store):
    with pytest.raises(StoreError, match="cannot be recorded"):
        act.say(value=float("nan"))
    act.say(value=1)
    assert store.healthy


def test_the_head_in_the_answer_is_the_one_after_its_own_records(act, store):
    entries = (Entry("decision", 1, {"n": 1}), Entry("outcome", 1, {"n": 2}))
    first = store.commit((), (), entries, durable=True)
    second = store.commit((), (), entries, durable=True)
    assert second.result(20).head.seq == first.result(20).head.seq + 2
    assert store.head == second.result(20).head
