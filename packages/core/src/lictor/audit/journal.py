"""The journal in its store: verified, searched, exported, while gates write on.

Rules enforced here:

1. Read-only connections; nothing here waits for a writer or holds one up.
2. Columns are compared with the body they were taken from.
3. A store that needs a newer reader is refused; what cannot be read says why.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TextIO

from lictor.audit.chain import (
    Line,
    Problem,
    StreamReport,
    Verification,
    Walk,
    absent,
    expected,
)
from lictor.canonical import InputInvalid, Json, canonical
from lictor.errors import StoreError
from lictor.ports import Head

POLL: Final = 0.2
"""Seconds between looks at the store while following it."""
READER: Final = 3
"""Newest `min_reader` that this code understands."""
_PAGE: Final = 1_000
COLUMNS: Final = ("kind", "at", "call", "tenant", "task", "tool", "verdict", "code")
SELECT: Final = f"SELECT stream, seq, hash, body, {', '.join(COLUMNS)} FROM record"  # noqa: S608


def verify(path: Path, *, expect: Iterable[Head] = ()) -> Verification:
    """Checks every record of a store.

    Args:
        path: The database file.
        expect: Heads kept elsewhere that must be in it.

    Raises:
        StoreError: It cannot be read at all.
    """
    kept = expected(expect)
    problems: list[Problem] = []
    reports: list[StreamReport] = []
    with closing(connect(path)) as db:
        try:
            _check_file(db, problems)
            for (stream,) in db.execute("SELECT id FROM stream ORDER BY opened, id").fetchall():
                walk = Walk(stream, kept.pop(stream, {}), problems)
                reports.append(_verify_stream(db, walk))
            for (stray,) in db.execute(_STRAYS).fetchall():
                problems.append(Problem(stray, 0, "records of a stream that has no row"))
        except sqlite3.DatabaseError as error:
            problems.append(Problem("", 0, f"the database is damaged: {error}"))
    problems += absent(kept)
    return Verification(tuple(reports), tuple(problems))


_STRAYS: Final = "SELECT DISTINCT stream FROM record WHERE stream NOT IN (SELECT id FROM stream)"


def _check_file(db: sqlite3.Connection, problems: list[Problem]) -> None:
    for (text,) in db.execute("PRAGMA quick_check(10)"):
        if text != "ok":
            problems.append(Problem("", 0, f"the database is damaged: {text}"))


def _verify_stream(db: sqlite3.Connection, walk: Walk) -> StreamReport:
    db.execute("BEGIN")  # one view of the stream's row and its records while a gate writes on
    try:
        row = db.execute("SELECT seq, hash, closed FROM stream WHERE id = ?", (walk.stream,))
        seq, digest, closed = row.fetchone()
        rows = db.execute(f"{SELECT} WHERE stream = ? ORDER BY seq", (walk.stream,))
        for _, place, found, body, *columns in rows:
            value = walk.step(place, _bytes(found), _bytes(body))
            if value and columns != [value.get(name) for name in COLUMNS]:
                walk.problem(place, "its columns differ from its body: edited")
    finally:
        db.rollback()
    return walk.end(closed=bool(closed), seq=seq, digest=_bytes(digest))


def find(path: Path, identifier: str) -> tuple[Line, ...]:
    """Every record of a call, or that names a decision: what `explain` starts from.

    Args:
        path: The database file.
        identifier: A call id or a decision id.

    Raises:
        StoreError: It cannot be read.
    """
    of_call = f"{SELECT} WHERE call = ? AND call <> '' ORDER BY rowid"
    found = _read(path, of_call, (identifier,))
    if not found:
        naming = f"{SELECT} WHERE instr(body, CAST(? AS BLOB)) > 0 ORDER BY rowid"
        found = _read(path, naming, (json.dumps(identifier),))
        calls = {str(line.body.get("call", "")) for line in found} - {""}
        if len(calls) == 1:
            found = _read(path, of_call, (*calls,))
    return tuple(found)


def export(
    path: Path, *, out: TextIO, follow: bool = False, stop: threading.Event | None = None
) -> int:
    """Writes the journal as JSON lines that `verify_lines` checks.

    Args:
        path: The database file.
        out: Where to.
        follow: Go on as records come, until `stop` is set (and then once more).
        stop: Ends following.

    Returns:
        How many records were written.

    Raises:
        StoreError: It cannot be read.
    """
    stop = stop or threading.Event()
    written, seen, done = 0, -1, dict[str, int]()
    with closing(connect(path)) as db:
        while True:
            last = not follow or stop.is_set()
            try:
                (version,) = db.execute("PRAGMA data_version").fetchone()
                if version != seen or last:
                    written += sum(_export_new(db, done, out))
                    seen = version
            except sqlite3.Error as error:
                raise unreadable(path, error) from error
            if last:
                return written
            stop.wait(POLL)


def _export_new(db: sqlite3.Connection, done: dict[str, int], out: TextIO) -> Iterator[int]:
    heads = db.execute("SELECT id, seq FROM stream ORDER BY opened, id").fetchall()
    for stream, seq in heads:
        while done.get(stream, 0) < seq:
            query = f"{SELECT} WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            rows = db.execute(query, (stream, done.get(stream, 0), seq, _PAGE)).fetchall()
            for row in rows:
                out.write(f"{exported(row)}\n")
            yield len(rows)
            done[stream] = rows[-1][1] if rows else seq
    out.flush()


def _read(path: Path, query: str, values: Sequence[object]) -> list[Line]:
    with closing(connect(path)) as db:
        try:
            return [line_of(row) for row in db.execute(query, values).fetchall()]
        except (sqlite3.Error, ValueError) as error:
            raise unreadable(path, error) from error


def exported(row: Sequence[Any]) -> str:
    """A record's line; one that is damaged keeps its place, as text that does not verify."""
    try:
        return str(line_of(row))
    except (ValueError, InputInvalid):
        place: dict[str, Json] = {"stream": str(row[0]), "seq": int(row[1]), "torn": True}
        return canonical(place).decode()


def line_of(row: Sequence[Any]) -> Line:
    """A row of `SELECT`; raises `ValueError` if its body is torn."""
    return Line(row[0], row[1], _bytes(row[2]).hex(), json.loads(row[3]))


def _bytes(cell: object) -> bytes:
    """A cell as bytes, whatever an editor left in it."""
    return cell if isinstance(cell, bytes) else str(cell).encode(errors="replace")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Raises:
        StoreError: There is no store, it cannot be read, or it needs a newer reader.
    """
    if not path.is_file():
        raise StoreError(f"{path}: there is no store", "name the store's file (see lictor.toml)")
    wal = path.with_name(path.name + "-wal")
    # A closed store on a read-only medium: nobody writes there, and no lock file can be made.
    at_rest = not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)
    mode = "ro&immutable=1" if at_rest else "ro"
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
        db.isolation_level = None
        (reader,) = db.execute("SELECT min_reader FROM meta").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise unreadable(path, error) from error
    if reader > READER:
        raise StoreError(
            f"{path}: the store needs a reader of schema {reader} or newer, this is {READER}",
            "upgrade lictor on this machine to the version that wrote the store",
        )
    return db


def unreadable(path: Path, error: Exception) -> StoreError:
    """The error of a store that cannot be read."""
    return StoreError(
        f"{path}: cannot be read as a store: {error}",
        "name a Lictor store that this user may read, or restore a backup",
    )
