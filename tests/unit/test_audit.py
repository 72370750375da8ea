"""The journal read by others: whole or not, what it says, a copy that proves itself."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from lictor.audit import (
    Verification,
    export,
    find,
    journal,
    parse_head,
    show,
    verify,
    verify_lines,
)
from lictor.errors import ConfigError, StoreError
from lictor.ports import Entry, Head
from lictor.store import SqlStore, open_store
from lictor.store.tables import MIGRATIONS

WAIT = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lictor.db"


def say(store: SqlStore, n: int, **more: object) -> Head:
    fields = {"call": f"C{n}", "tool": "local/pay", "verdict": "allow", "task": "T"} | more
    entry = Entry("decision", n * 1_000_000, {"id": f"D{n}", "n": n}, **fields)  # type: ignore[arg-type]
    return store.commit((), (), (entry,), durable=True).result(WAIT).head


@pytest.fixture
def heads(path: Path) -> list[Head]:
    """Two closed streams of 8 records each; the heads that log events carried away."""
    found = []
    for _ in range(2):
        store = open_store(path)
        found += [say(store, n) for n in range(6)]
        store.close()
    return found


def change(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        assert db.execute(statement, values).rowcount > 0
    db.close()


def told(found: Verification) -> str:
    assert not found.ok
    return "\n".join(map(str, found.problems))


# -- verify


def test_a_whole_journal_is_said_to_be_whole(path, heads):
    found = verify(path, expect=heads)
    assert found.ok
    assert found.records == 16
    for stream in found.streams:
        assert (stream.records, stream.first, stream.last, stream.closed) == (8, 1, 8, True)


def test_the_head_of_the_report_is_the_head_of_the_store(path):
    store = open_store(path)
    head = say(store, 1)
    [stream] = verify(path).streams
    assert Head(stream.stream, stream.last, stream.head) == head == store.head
    assert not stream.closed
    store.close()


def test_an_edited_body_is_named(path, heads):
    name = heads[2].stream
    change(
        path,
        "UPDATE record SET body = replace(body, CAST('\"n\":2' AS BLOB), CAST('\"n\":9' AS BLOB)) "
        "WHERE stream = ? AND seq = 4",
        name,
    )
    assert told(verify(path)) == (f"{name}:4: does not hang on the record before it, or was edited")


@pytest.mark.parametrize("column", ["call", "tool", "task", "verdict", "code", "kind", "tenant"])
def test_an_edited_column_is_named(path, heads, column):
    name = heads[0].stream
    change(path, f"UPDATE record SET {column} = 'x' WHERE stream = ? AND seq = 3", name)
    assert told(verify(path)) == f"{name}:3: its columns differ from its body: edited"


def test_a_gap_is_named(path, heads):
    name = heads[0].stream
    change(path, "DELETE FROM record WHERE stream = ? AND seq IN (3, 4)", name)
    assert told(verify(path)) == f"{name}:5: records 3 to 4 are missing"


def test_a_missing_beginning_is_named(path, heads):
    name = heads[0].stream
    change(path, "DELETE FROM record WHERE stream = ? AND seq < 3", name)
    assert told(verify(path)) == f"{name}:3: records 1 to 2 are missing"


def test_a_missing_tail_is_named_by_the_streams_own_row(path, heads):
    name = heads[0].stream
    change(path, "DELETE FROM record WHERE stream = ? AND seq > 6", name)
    assert told(verify(path)) == f"{name}:8: the tail from 7 is missing"


def test_a_tail_cut_with_care_is_shown_by_a_head_kept_elsewhere(path, heads):
    name, kept = heads[5].stream, heads[5]
    change(path, "DELETE FROM record WHERE stream = ? AND seq > 5", name)
    change(
        path,
        "UPDATE stream SET seq = 5, hash = (SELECT hash FROM record WHERE stream = ?1 AND seq = 5) "
        "WHERE id = ?1",
        name,
    )
    assert verify(path).ok
    assert told(verify(path, expect=[kept])) == (
        f"{name}:{kept.seq}: a head kept elsewhere names it and it is not here: the tail is cut"
    )


def test_a_chain_rewritten_with_care_is_shown_by_a_head_kept_elsewhere(path, heads):
    name, kept = heads[5].stream, heads[5]
    db = sqlite3.connect(path)
    before = bytes(32)
    rows = db.execute("SELECT seq, body FROM record WHERE stream = ? ORDER BY seq", (name,))
    for seq, body in rows.fetchall():
        body = body.replace(b'"n":2', b'"n":9')
        before = hashlib.sha256(before + body).digest()
        where = (body, before, name, seq)
        db.execute("UPDATE record SET body = ?, hash = ? WHERE stream = ? AND seq = ?", where)
    db.execute("UPDATE stream SET hash = ? WHERE id = ?", (before, name))
    db.commit()
    db.close()
    assert verify(path).ok
    assert "rewritten" in told(verify(path, expect=[kept]))


def test_a_replaced_store_is_shown_by_a_head_kept_elsewhere(path, heads, tmp_path):
    other = tmp_path / "other.db"
    open_store(other).close()
    os.replace(other, path)
    assert "it is not here: replaced or cut" in told(verify(path, expect=heads))


def test_records_without_a_stream_and_streams_without_records_are_named(path, heads):
    name = heads[0].stream
    change(path, "UPDATE stream SET id = 'renamed' WHERE id = ?", name)
    found = told(verify(path))
    assert "renamed:8: the tail from 1 is missing" in found
    assert f"{name}:0: records of a stream that has no row" in found


def test_a_moved_record_is_named(path, heads):
    first, second = heads[0].stream, heads[6].stream
    change(
        path,
        "UPDATE record SET (body, hash) = (SELECT body, hash FROM record WHERE stream = ? AND "
        "seq = 3) WHERE stream = ? AND seq = 3",
        first,
        second,
    )
    assert f"{second}:3: says it belongs elsewhere: moved" in told(verify(path))


def test_a_torn_body_is_named(path, heads):
    change(path, "UPDATE record SET body = substr(body, 1, 40) WHERE seq = 8")
    assert "is not a JSON object: torn or overwritten" in told(verify(path))


def test_a_damaged_file_is_reported_not_raised(path):
    store = open_store(path)
    for n in range(200):
        say(store, n)
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(b"\xa5" * 4096 * 6)
    assert "the database is damaged" in told(verify(path))


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 400])
def test_what_is_no_store_is_told_plainly(path, content):
    if content is not None:
        path.write_bytes(content)
    for use in (verify, lambda p: list(show(p)), lambda p: export(p, out=io.StringIO())):
        with pytest.raises(StoreError) as caught:
            use(path)
        assert str(path) in caught.value.problem


def test_a_store_for_newer_readers_is_refused(path, heads):
    assert journal.READER == len(MIGRATIONS)
    change(path, "UPDATE meta SET min_reader = ?", journal.READER + 1)
    with pytest.raises(StoreError, match="upgrade lictor"):
        verify(path)


def test_nothing_is_written_by_looking(path, heads):
    before = path.read_bytes()
    verify(path)
    list(show(path))
    export(path, out=io.StringIO())
    assert path.read_bytes() == before


# -- heads


def test_a_head_is_read_as_log_events_show_it():
    assert parse_head(f"S:7:{'a' * 64}") == Head("S", 7, "a" * 64)


@pytest.mark.parametrize(
    "text", ["", "S", "S:1", "S:x:" + "a" * 64, "S:1:abc", ":1:" + "a" * 64, "S:1:" + "G" * 64]
)
def test_what_is_no_head_is_refused(text):
    with pytest.raises(ConfigError, match="is not stream:seq:hash"):
        parse_head(text)


# -- show and find


def test_show_gives_the_newest_in_order(path, heads):
    lines = list(show(path, limit=3))
    assert [line.body["code"] or line.body["n"] for line in lines] == [4, 5, "closed"]


def test_show_selects(path):
    store = open_store(path)
    say(store, 1)
    say(store, 2, verdict="deny", code="no_permit")
    say(store, 3, task="U", tool="mail/send")
    store.close()

    def numbers(**where):
        return [line.body["n"] for line in show(path, kind="decision", **where)]

    assert numbers() == [1, 2, 3]
    assert numbers(verdict="deny") == [2]
    assert numbers(task="T", tool="local/pay") == [1, 2]
    assert numbers(code="no_permit", call="C2") == [2]
    assert numbers(since=2.5) == [3]


def test_show_names_the_columns_there_are(path, heads):
    with pytest.raises(ConfigError, match="no 'colour'"):
        show(path, colour="red")


def test_find_follows_a_decision_to_its_call(path):
    store = open_store(path)
    say(store, 1)
    outcome = Entry("outcome", 2, {"ms": 1}, call="C1", verdict="done")
    store.commit((), (), (outcome,), durable=True).result(WAIT)
    say(store, 2)
    store.close()
    assert [line.body["kind"] for line in find(path, "D1")] == ["decision", "outcome"]
    assert find(path, "D1") == find(path, "C1")
    assert find(path, "D") == ()


# -- export


def test_an_export_proves_itself_without_the_store(path, heads):
    out = io.StringIO()
    assert export(path, out=out) == 16
    lines = out.getvalue().splitlines()
    assert set(json.loads(lines[0])) == {"stream", "seq", "hash", "body"}
    found = verify_lines(lines, expect=heads)
    assert found.ok
    assert found.streams == verify(path).streams


def exported(path: Path) -> list[str]:
    out = io.StringIO()
    export(path, out=out)
    return out.getvalue().splitlines()


def test_a_changed_export_is_caught(path, heads):
    lines = exported(path)
    kept = heads[-1]
    assert "edited" in told(verify_lines([lines[0].replace('"pid":', '"pit":'), *lines[1:]]))
    assert "records 3 to 3 are missing" in told(verify_lines([*lines[:2], *lines[3:]]))
    assert "out of order" in told(verify_lines([*lines[:3], lines[1], *lines[3:]]))
    assert "line 16 is torn" in told(verify_lines([*lines[:-1], lines[-1][:50]]))
    assert verify_lines(lines[:-4]).ok
    assert "the tail is cut" in told(verify_lines(lines[:-4], expect=[kept]))


def test_streams_may_be_mixed_in_an_export(path, heads):
    lines = exported(path)
    mixed = [line for pair in zip(lines[:8], lines[8:], strict=True) for line in pair]
    assert verify_lines(mixed, expect=heads).ok


class Followed(io.StringIO):
    """Tells when so many lines have come."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted, self.come = wanted, threading.Event()

    def flush(self) -> None:
        if self.getvalue().count("\n") >= self.wanted:
            self.come.set()


def test_following_goes_on_while_a_gate_writes(path, monkeypatch):
    monkeypatch.setattr(journal, "POLL", 0.01)
    store = open_store(path)
    say(store, 1)
    out, stop = Followed(2), threading.Event()
    follower = threading.Thread(
        target=export, args=(path,), kwargs={"out": out, "follow": True, "stop": stop}
    )
    follower.start()
    assert out.come.wait(WAIT)
    out.wanted = 42
    out.come.clear()
    for n in range(40):
        say(store, n)
    assert out.come.wait(WAIT)
    store.close()
    stop.set()
    follower.join(WAIT)
    lines = out.getvalue().splitlines()
    assert len(lines) == 43
    assert verify_lines(lines).ok


def test_following_looks_only_when_something_changed(path, monkeypatch):
    store = open_store(path)
    say(store, 1)
    looks = []
    real = journal._export_new
    monkeypatch.setattr(journal, "_export_new", lambda *a: (looks.append(1), real(*a))[1])

    class Stop(threading.Event):
        polls = 0

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == journal.POLL
            self.polls += 1
            if self.polls == 20:
                self.set()
            return self.is_set()

    export(path, out=io.StringIO(), follow=True, stop=Stop())
    assert len(looks) <= 4  # the first, the last, and at most a heartbeat or two
    store.close()
