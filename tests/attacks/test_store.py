"""Attacks on the store: races, replays, and what is done to its file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lictor.audit import verify
from lictor.errors import StoreError
from lictor.ports import (
    BudgetFits,
    CallIsNew,
    CallRow,
    Entry,
    GrowSession,
    PutTask,
    SessionIs,
    SettleCall,
    StartCall,
    TaskRow,
)
from lictor.store import SqlStore, database, open_store

WAIT = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lictor.db"


def begin(path: Path) -> SqlStore:
    store = open_store(path)
    store.commit((), (PutTask(TaskRow("T", "running", "a", "c", {})),), durable=True).result(WAIT)
    return store


def pay(store: SqlStore, call: str, *, most: int | None = None, digest: str = "", repeat=False):
    digest = digest or f"d-{call}"
    guards = (
        CallIsNew(call, digest, "a", "c", repeat=repeat),
        BudgetFits("T", 1, 5, most, None),
    )
    row = CallRow(call, "started", digest, "local/pay", "T", "D")
    writes = (StartCall(row, "a", "c", 5), GrowSession("a", "c", calls=1, effects=1, spent=5))
    entry = Entry("decision", 1, {"id": call}, call=call, verdict="allow")
    return store.commit(guards, writes, (entry,), durable=True).result(WAIT)


def settle(store: SqlStore, call: str, outcome: str) -> None:
    entry = Entry("outcome", 1, {}, call=call, verdict=outcome)
    store.commit((), (SettleCall(call, outcome),), (entry,), durable=False).result(WAIT)


def race(count: int, act) -> list:
    """So many callers at once; their answers."""
    gate, answers = threading.Barrier(count), []

    def caller(n: int) -> None:
        gate.wait()
        answers.append(act(n))

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(count)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return answers


@pytest.mark.attack("X45")
def test_a_hundred_callers_cannot_pass_a_limit_of_37(path):
    store = begin(path)
    answers = race(100, lambda n: pay(store, f"C{n}", most=37))
    assert sum(answer.moved is None for answer in answers) == 37
    assert {answer.detail for answer in answers if answer.moved} == {"calls"}
    assert (store.task("T").calls, store.task("T").spent) == (37, 185)
    assert store.session("a", "c").calls == 37
    store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM call").fetchone() == (37,)
    assert db.execute("SELECT count(*) FROM record WHERE kind='decision'").fetchone() == (37,)
    db.close()


SPEND = """
import sys, threading
from pathlib import Path
from lictor.ports import *
from lictor.store import open_store

store = open_store(Path(sys.argv[1]))
won, gate = [], threading.Barrier(8)

def spend(n):
    gate.wait()
    for k in range(5):
        call = f"{sys.argv[2]}-{n}-{k}"
        guards = (CallIsNew(call, call, "a", "c"), BudgetFits("T", 1, 5, 37, None))
        row = CallRow(call, "started", call, "local/pay", "T", "D")
        done = store.commit(guards, (StartCall(row, "a", "c", 5),), (), durable=True).result(30)
        won.append(done.moved is None)

threads = [threading.Thread(target=spend, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
store.close()
print(sum(won))
"""


@pytest.mark.attack("X45")
def test_a_second_process_does_not_double_a_limit(path):
    store = begin(path)
    others = [
        subprocess.Popen([sys.executable, "-c", SPEND, path, str(n)], stdout=subprocess.PIPE)
        for n in range(3)
    ]
    won = [int(other.communicate(timeout=60)[0]) for other in others]
    assert sum(won) == store.task("T").calls == 37
    store.close()
    assert verify(path).ok


@pytest.mark.attack("X45", "X52")
def test_one_call_id_has_one_winner(path):
    stores = [begin(path) for _ in range(4)]
    answers = race(100, lambda n: pay(stores[n % 4], "C", digest="d"))
    assert sum(answer.moved is None for answer in answers) == 1
    assert {answer.detail for answer in answers if answer.moved} == {"started"}
    assert stores[0].task("T").calls == 1
    for store in stores:
        store.close()


@pytest.mark.attack("X45", "X51")
def test_two_decisions_on_the_same_session_version_cannot_both_act(path):
    one, two = begin(path), open_store(path)
    guard = SessionIs("a", "c", version=0)
    grow = GrowSession("a", "c", calls=1)
    answers = race(
        40, lambda n: (one, two)[n % 2].commit((guard,), (grow,), durable=True).result(WAIT)
    )
    assert sum(answer.moved is None for answer in answers) == 1
    assert one.session("a", "c").calls == 1
    one.close()
    two.close()


@pytest.mark.attack("X51")
def test_labels_of_two_workers_are_united_and_seen_by_both(path):
    one, two = begin(path), open_store(path)
    labels = [f"label-{n}" for n in range(20)]
    race(
        20,
        lambda n: (
            (one, two)[n % 2]
            .commit((), (GrowSession("a", "c", labels=frozenset({labels[n]})),), durable=True)
            .result(WAIT)
        ),
    )
    assert one.session("a", "c") == two.session("a", "c")
    assert one.session("a", "c").labels == set(labels)
    assert one.session("a", "c").growth == 20
    one.close()
    two.close()


@pytest.mark.attack("X52")
@pytest.mark.parametrize("outcome", ["done", "failed", "unknown"])
def test_a_replayed_call_does_not_run_twice_in_any_process(path, outcome):
    store = begin(path)
    pay(store, "C")
    settle(store, "C", outcome)
    store.close()
    later = open_store(path)
    assert pay(later, "C").detail == outcome
    assert pay(later, "C", repeat=True).detail == outcome
    later.close()


@pytest.mark.attack("X52")
def test_a_model_that_repeats_after_unknown_is_stopped_until_a_person_agrees(path):
    store = begin(path)
    pay(store, "C1", digest="same")
    settle(store, "C1", "unknown")
    assert pay(store, "C2", digest="same").detail == "unknown"
    assert pay(store, "C2", digest="same", repeat=True).moved is None
    store.close()


@pytest.mark.attack("X47")
def test_a_full_store_takes_no_effect_and_no_read(path, monkeypatch):
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, "PRAGMA max_page_count=60"))
    store = begin(path)
    acknowledged = []
    with pytest.raises(StoreError, match="full"):
        for n in range(1000):
            acknowledged.append(pay(store, f"C{n}").head)
    assert not store.healthy
    with pytest.raises(StoreError, match="full"):
        store.commit((), (), (Entry("decision", 1, {}),), durable=False)
    assert store.task("T").calls == len(acknowledged)
    store.close()
    assert verify(path, expect=acknowledged).ok


@pytest.mark.attack("X47")
def test_a_journal_cut_in_the_middle_is_refused_or_named(path):
    store = begin(path)
    heads = [pay(store, f"C{n}").head for n in range(300)]
    store.close()
    with path.open("r+b") as file:
        file.truncate(os.path.getsize(path) // 2 // 4096 * 4096)
    with pytest.raises(StoreError, match="malformed"):
        verify(path, expect=heads)
    with pytest.raises(StoreError, match="damaged"):
        open_store(path)


@pytest.mark.attack("X47")
def test_a_torn_last_write_loses_only_what_was_never_acknowledged(path):
    store = begin(path)
    kept = pay(store, "C1").head
    size = path.with_name("lictor.db-wal").stat().st_size
    pay(store, "C2")
    copy = path.parent / "copy.db"
    copy.write_bytes(path.read_bytes())
    wal = path.with_name("lictor.db-wal").read_bytes()
    copy.with_name("copy.db-wal").write_bytes(wal[: size + 3000])
    for file in path.parent.glob("copy.db*"):
        file.chmod(0o600)
    store.close()
    again = open_store(copy)
    assert again.call("C1").state == "started"  # its process lives: the copy's stream is ours
    assert again.call("C2") is None
    again.close()
    assert verify(copy, expect=[kept]).ok


@pytest.mark.attack("X47")
def test_two_writers_of_one_stream_are_noticed(path):
    store = begin(path)
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE stream SET batch = batch + 1")
    db.close()
    with pytest.raises(StoreError, match="does not hold what this process wrote"):
        pay(store, "C1")
    assert store.call("C1") is None
    store.close()


@pytest.mark.attack("X47")
def test_a_store_replaced_under_a_running_gate_takes_nothing_more(path, tmp_path):
    other = tmp_path / "other.db"
    open_store(other).close()
    store = begin(path)
    head = pay(store, "C1").head
    os.replace(other, path)
    with pytest.raises(StoreError, match="replaced"):
        pay(store, "C2")
    assert not store.healthy
    store.close()
    for end in ("-wal", "-shm"):  # what the error says to do
        path.with_name(path.name + end).unlink(missing_ok=True)
    assert not verify(path, expect=[head]).ok
