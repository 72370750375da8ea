"""The writing thread: group commit, failure, and what is never lost (rules of writer.py)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future

import pytest

from lictor.audit import verify
from lictor.errors import StoreError
from lictor.ports import CallRow, Entry, PutTask, StartCall, TaskRow
from lictor.store import open_store, writer
from lictor.store.database import CommitLost, Database

WAIT = 20


def entry(n: int = 0) -> Entry:
    return Entry("decision", 1, {"n": n})


class Held:
    """Keeps the writer out of the database, so that what is put meanwhile waits together."""

    def __init__(self, store):
        self.lock = store._database.busy

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


def counts(monkeypatch) -> list[bool]:
    """Durability of each transaction from now on."""
    seen: list[bool] = []
    real = Database.transaction

    def counted(self, *, durable):
        seen.append(durable)
        return real(self, durable=durable)

    monkeypatch.setattr(Database, "transaction", counted)
    return seen


def test_all_that_waits_shares_one_transaction(store, monkeypatch):
    seen = counts(monkeypatch)
    with Held(store):
        first = store.commit((), (), (entry(),), durable=False)
        rest = [store.commit((), (), (entry(n),), durable=n == 29) for n in range(30)]
    places = [future.result(WAIT).head.seq for future in (first, *rest)]
    assert places == list(range(2, 33))
    assert len(seen) <= 2
    assert seen[-1] is True


def test_nothing_waits_for_a_relaxed_commit_but_its_answer_comes(store):
    future = store.commit((), (), (entry(),), durable=False)
    assert future.result(WAIT).moved is None


def test_a_wrong_member_fails_alone(store):
    bad = Entry("decision", 1, {"seq": 1})
    with Held(store):
        futures = [
            store.commit((), (PutTask(TaskRow(f"T{n}", "running", "a", "c", {})),), (e,), durable=d)
            for n, (e, d) in enumerate(
                [(entry(), True), (bad, True), (entry(), False), (bad, False)]
            )
        ]
    with pytest.raises(StoreError, match="which the store sets"):
        futures[1].result(WAIT)
    assert futures[0].result(WAIT).head.seq == 2
    assert futures[2].result(WAIT).head.seq == 3
    with pytest.raises(StoreError):
        futures[3].result(WAIT)
    assert [store.task(f"T{n}") is not None for n in range(4)] == [True, False, True, False]
    assert store.healthy


def test_a_commit_cannot_be_cancelled_half_way(store):
    with Held(store):
        future = store.commit((), (), (entry(),), durable=True)
        assert not future.cancel()
    assert future.result(WAIT).head.seq == 2


def test_a_full_queue_refuses(path):
    store = open_store(path, max_pending=3)
    with Held(store):
        taken: list[Future] = []
        with pytest.raises(StoreError, match="3 records wait"):
            for n in range(9):
                taken.append(store.commit((), (), (entry(n),), durable=False))
        assert not store.healthy
    for future in taken:
        future.result(WAIT)
    assert store.healthy
    store.close()


def test_a_closed_store_refuses_and_closing_twice_is_closing_once(store):
    store.close()
    store.close()
    assert not store.healthy
    with pytest.raises(StoreError, match="is closed"):
        store.commit(durable=False)
    with pytest.raises(StoreError, match="is closed"):
        store.task("T")


def test_closing_writes_what_waits(path):
    store = open_store(path)
    for n in range(200):
        store.commit((), (), (entry(n),), durable=False)
    store.close()
    db = sqlite3.connect(path)
    kinds = db.execute("SELECT code, count(*) FROM record GROUP BY 1 ORDER BY 1").fetchall()
    assert kinds == [("", 200), ("closed", 1), ("opened", 1)]
    assert db.execute("SELECT closed > 0, seq FROM stream").fetchall() == [(1, 202)]
    db.close()


def test_a_store_may_be_closed_from_its_own_answer(store):
    closed = threading.Event()
    future = store.commit((), (), (entry(),), durable=True)
    future.add_done_callback(lambda _: (store.close(), closed.set()))
    assert closed.wait(WAIT)
    store._writer._thread.join(WAIT)
    assert verify(store.path).streams[0].closed


def test_an_exit_without_close_loses_nothing(path):
    script = """
        import sys
        from pathlib import Path
        from lictor.ports import Entry
        from lictor.store import open_store
        store = open_store(Path(sys.argv[1]))
        for n in range(500):
            store.commit((), (), (Entry("decision", 1, {"n": n}),), durable=False)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=True)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM record WHERE kind = 'decision'").fetchone() == (500,)
    db.close()


class Broken:
    """A disk that fails at COMMIT: before it, after it, and for those who look afterwards."""

    def __init__(self, monkeypatch, *, written: bool, lookable: bool):
        self.times = 1
        self.blind = not lookable
        commit, read = Database._commit, Database.read

        def failing(db, held):
            if not self.times:
                return commit(db, held)
            self.times -= 1
            held.execute("COMMIT" if written else "ROLLBACK")
            raise CommitLost("disk I/O error") from sqlite3.OperationalError("disk I/O error")

        def blind(db, work):
            if self.blind:
                raise StoreError("unreachable", "wait")
            return read(db, work)

        monkeypatch.setattr(Database, "_commit", failing)
        monkeypatch.setattr(Database, "read", blind)


def test_a_lost_answer_is_looked_up_and_found_written(act, store, monkeypatch):
    act.task()
    Broken(monkeypatch, written=True, lookable=True)
    done = act.start("C1")
    assert done.moved is None
    assert (store.call("C1").state, store.head) == ("started", done.head)
    assert act.say(next=1).head.seq == done.head.seq + 1


def test_a_lost_answer_is_looked_up_and_found_missing(act, store, monkeypatch):
    act.task()
    before = store.head
    Broken(monkeypatch, written=False, lookable=True)
    with pytest.raises(StoreError, match="disk I/O error"):
        act.start("C1")
    assert (store.call("C1"), store.head) == (None, before)
    wait_healthy(store)
    assert act.say(next=1).head.seq > before.seq


@pytest.mark.parametrize("written", [True, False])
def test_a_lost_answer_that_cannot_be_looked_up_is_an_error_and_settled_later(
    act, store, monkeypatch, written
):
    act.task()
    broken = Broken(monkeypatch, written=written, lookable=False)
    with pytest.raises(StoreError):
        act.start("C1", spend=5)
    broken.blind = False
    wait_healthy(store)
    act.say(after=1)
    row = store.call("C1")
    assert (row.state if row else None) == ("not_started" if written else None)
    assert (store.task("T").calls, store.task("T").spent) == (0, 0)


def test_while_it_fails_nothing_is_taken_and_what_was_read_is_kept(act, store, path, monkeypatch):
    real = Database.transaction
    broken = True

    def failing(self, *, durable):
        if broken:
            raise sqlite3.OperationalError("disk I/O error")
        return real(self, durable=durable)

    with Held(store):
        kept = store.commit((), (), (entry(1),), durable=False)
        lost = store.commit((), (), (entry(2),), durable=True)
        monkeypatch.setattr(Database, "transaction", failing)
    with pytest.raises(StoreError, match="disk I/O error"):
        lost.result(WAIT)
    assert not store.healthy
    with pytest.raises(StoreError, match="disk I/O error"):
        store.commit(durable=False)
    assert not kept.done()
    broken = False
    assert kept.result(WAIT).moved is None
    wait_healthy(store)
    db = sqlite3.connect(path)
    bodies = [b for (b,) in db.execute("SELECT body FROM record WHERE kind = 'decision'")]
    db.close()
    assert [b'"n":1' in body for body in bodies] == [True]


def test_the_heartbeat_moves(path, monkeypatch):
    monkeypatch.setattr(writer, "HEARTBEAT", 0.01)
    beats = iter(range(1, 1_000_000))
    moved = threading.Event()
    real = writer.Writer._look_around

    def look(self, sql):
        real(self, sql)
        if next(beats) > 3:
            moved.set()

    monkeypatch.setattr(writer.Writer, "_look_around", look)
    ticks = iter(range(1_000_000))
    store = open_store(path, clock=lambda: float(next(ticks)))
    assert moved.wait(WAIT)
    db = sqlite3.connect(path)
    opened, beat = db.execute("SELECT opened, beat FROM stream").fetchone()
    db.close()
    assert beat > opened
    store.close()


def test_many_threads_get_one_contiguous_chain(store, path):
    places: list[int] = []

    def caller():
        for n in range(40):
            done = store.commit((), (), (entry(n),), durable=n % 4 == 0).result(WAIT)
            places.append(done.head.seq)

    threads = [threading.Thread(target=caller) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == list(range(2, 642))


def test_a_transaction_that_cannot_begin_leaves_the_connection_usable(store):
    with pytest.raises(ZeroDivisionError), store._database.transaction(durable=True):
        raise ZeroDivisionError
    assert store.commit((), (), (entry(),), durable=True).result(WAIT).head.seq == 2


@pytest.mark.parametrize("call", [None, CallRow("C", "started", "d", None, "T", "D")])  # type: ignore[arg-type]
def test_a_malformed_write_is_told_and_harms_nobody(store, call):
    with Held(store):
        good = store.commit((), (), (entry(),), durable=True)
        bad = store.commit((), (StartCall(call, "acme", "c", 5),), (), durable=True)
    with pytest.raises(StoreError, match="cannot be recorded"):
        bad.result(WAIT)
    assert good.result(WAIT).moved is None
    assert store.healthy


def wait_healthy(store):
    with store._writer._ready:
        assert store._writer._ready.wait_for(lambda: store.healthy, timeout=WAIT)
