"""Reading the journal: is it whole, what does it say, and a copy that others can check.

Rules enforced here:

1. Read-only connections; a gate may write meanwhile, and nothing here waits for it or holds it up.
2. Every record is hashed again from its bytes; a gap, an edited body, a moved or missing record
   is named by stream and seq. Columns are compared with the body they were taken from.
3. A chain alone detects accidental damage. Who can rewrite the file can rewrite the chain: only a
   head kept elsewhere (every decision's log event carries one) shows a cut or rewritten tail.
4. An exported line is checked without the store: the body's canonical bytes give its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from lictor.errors import ConfigError, StoreError
from lictor.model import Json, canonical
from lictor.ports import Head

POLL: Final = 0.2
"""Seconds between looks at the store while following it."""
READER: Final = 1
"""Newest `min_reader` that this code understands."""
_PAGE: Final = 1_000
_ROOT: Final = bytes(32)
_COLUMNS: Final = ("kind", "at", "call", "tenant", "task", "tool", "verdict", "code")
_SELECT: Final = f"SELECT stream, seq, hash, body, {', '.join(_COLUMNS)} FROM record"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of a stream."""

    stream: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"{self.stream}:{self.seq}: {self.what}" if self.stream else self.what


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream as found.

    Attributes:
        stream: Its id.
        records: Records found.
        first: Seq of the first.
        last: Seq of the last.
        head: Hash of the last, as computed.
        closed: The process ended it in order.
    """

    stream: str
    records: int
    first: int
    last: int
    head: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. `ok` only if there is no problem at all."""

    streams: tuple[StreamReport, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems

    @property
    def records(self) -> int:
        """Records of all streams."""
        return sum(stream.records for stream in self.streams)


@dataclass(frozen=True, slots=True)
class Line:
    """One record: its place, its hash, and its body as JSON."""

    stream: str
    seq: int
    hash: str
    body: dict[str, Json]

    def __str__(self) -> str:
        """The exported form: one line of canonical JSON."""
        place: dict[str, Json] = {"stream": self.stream, "seq": self.seq, "hash": self.hash}
        return canonical({**place, "body": self.body}).decode()


class _Out(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def parse_head(text: str) -> Head:
    """Reads `stream:seq:hash`, as `--expect` takes it and log events show it.

    Raises:
        ConfigError: It is not of that form.
    """
    stream, _, rest = text.partition(":")
    seq, _, digest = rest.partition(":")
    if not stream or not seq.isdecimal() or len(digest) != 64 or set(digest) - _HEX:
        raise ConfigError(
            "--expect", f"{text!r} is not stream:seq:hash", "copy lictor.store.head of a log event"
        )
    return Head(stream, int(seq), digest)


_HEX: Final = frozenset("0123456789abcdef")


# -- verifying


@dataclass(slots=True)
class _Walk:
    """One stream, record by record."""

    stream: str
    expected: dict[int, str]
    problems: list[Problem]
    records: int = 0
    first: int = 0
    last: int = 0
    before: bytes = _ROOT
    met: set[int] = field(default_factory=set)

    def step(self, seq: int, digest: bytes, body: bytes) -> dict[str, Json]:
        """Checks the next record and returns its body."""
        self.records += 1
        self.first = self.first or seq
        if seq != self.last + 1:
            self._gap(seq)
        elif hashlib.sha256(self.before + body).digest() != digest:
            self.problem(seq, "does not hang on the record before it, or was edited")
        if self.expected.get(seq, digest.hex()) != digest.hex():
            self.problem(seq, "is not the record whose head was kept elsewhere: rewritten")
        self.met |= {seq} & self.expected.keys()
        self.last, self.before = seq, digest
        return self._body(seq, body)

    def _gap(self, seq: int) -> None:
        if seq <= self.last:
            self.problem(seq, f"comes after {self.last}: repeated or out of order")
        else:
            self.problem(seq, f"records {self.last + 1} to {seq - 1} are missing")

    def _body(self, seq: int, body: bytes) -> dict[str, Json]:
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            self.problem(seq, "is not a JSON object: torn or overwritten")
            return {}
        if (value.get("stream"), value.get("seq")) != (self.stream, seq):
            self.problem(seq, "says it belongs elsewhere: moved")
        return value

    def problem(self, seq: int, what: str) -> None:
        self.problems.append(Problem(self.stream, seq, what))

    def end(self, *, closed: bool, seq: int | None = None, digest: bytes = b"") -> StreamReport:
        """Checks the tail against the stream's own row and the heads kept elsewhere."""
        if seq is not None and seq > self.last:
            self.problem(seq, f"the tail from {self.last + 1} is missing")
        elif seq is not None and (seq, digest) != (self.last, self.before):
            self.problem(self.last, "is not the head that the stream's row names")
        for kept in sorted(self.expected.keys() - self.met):
            self.problem(kept, "a head kept elsewhere names it and it is not here: the tail is cut")
        return StreamReport(
            self.stream, self.records, self.first, self.last, self.before.hex(), closed
        )


def _expected(heads: Iterable[Head]) -> dict[str, dict[int, str]]:
    kept: dict[str, dict[int, str]] = {}
    for head in heads:
        if head.seq:
            kept.setdefault(head.stream, {})[head.seq] = head.hash
    return kept


def verify(path: Path, *, expect: Iterable[Head] = ()) -> Verification:
    """Checks every record of a store.

    Args:
        path: The database file.
        expect: Heads kept elsewhere that must be in it.

    Raises:
        StoreError: It cannot be read at all.
    """
    kept = _expected(expect)
    problems: list[Problem] = []
    reports: list[StreamReport] = []
    with closing(_connect(path)) as db:
        try:
            _check_file(db, problems)
            for (stream,) in db.execute("SELECT id FROM stream ORDER BY opened, id").fetchall():
                walk = _Walk(stream, kept.pop(stream, {}), problems)
                reports.append(_verify_stream(db, walk))
            for (stray,) in db.execute(_STRAYS).fetchall():
                problems.append(Problem(stray, 0, "records of a stream that has no row"))
        except sqlite3.DatabaseError as error:
            problems.append(Problem("", 0, f"the database is damaged: {error}"))
    problems += _absent(kept)
    return Verification(tuple(reports), tuple(problems))


_STRAYS: Final = "SELECT DISTINCT stream FROM record WHERE stream NOT IN (SELECT id FROM stream)"


def _absent(kept: dict[str, dict[int, str]]) -> list[Problem]:
    what = "a head kept elsewhere names this stream and it is not here: replaced or cut"
    return [Problem(stream, max(seqs), what) for stream, seqs in kept.items()]


def _check_file(db: sqlite3.Connection, problems: list[Problem]) -> None:
    for (text,) in db.execute("PRAGMA quick_check(10)"):
        if text != "ok":
            problems.append(Problem("", 0, f"the database is damaged: {text}"))


def _verify_stream(db: sqlite3.Connection, walk: _Walk) -> StreamReport:
    db.execute("BEGIN")  # one view of the stream's row and its records while a gate writes on
    try:
        row = db.execute("SELECT seq, hash, closed FROM stream WHERE id = ?", (walk.stream,))
        seq, digest, closed = row.fetchone()
        rows = db.execute(f"{_SELECT} WHERE stream = ? ORDER BY seq", (walk.stream,))
        for _, place, found, body, *columns in rows:
            value = walk.step(place, _bytes(found), _bytes(body))
            if value and columns != [value.get(name) for name in _COLUMNS]:
                walk.problem(place, "its columns differ from its body: edited")
    finally:
        db.rollback()
    return walk.end(closed=bool(closed), seq=seq, digest=_bytes(digest))


def verify_lines(lines: Iterable[str], *, expect: Iterable[Head] = ()) -> Verification:
    """Checks an exported journal without its store; streams may be mixed.

    Args:
        lines: What `export` wrote.
        expect: Heads kept elsewhere that must be in it.
    """
    kept = _expected(expect)
    problems: list[Problem] = []
    walks: dict[str, _Walk] = {}
    closed: set[str] = set()
    for number, text in enumerate(lines, 1):
        line = _parse(text)
        if line is None:
            problems.append(Problem("", 0, f"line {number} is torn or not of this format"))
            continue
        walk = walks.get(line.stream)
        if walk is None:
            walk = _Walk(line.stream, kept.pop(line.stream, {}), problems)
            walks[line.stream] = walk
        walk.step(line.seq, bytes.fromhex(line.hash), canonical(line.body))
        if (line.body.get("kind"), line.body.get("code")) == ("stream", "closed"):
            closed.add(line.stream)
    reports = tuple(walk.end(closed=name in closed) for name, walk in walks.items())
    return Verification(reports, (*problems, *_absent(kept)))


def _parse(text: str) -> Line | None:
    try:
        value = json.loads(text)
        place = parse_head(f"{value['stream']}:{value['seq']}:{value['hash']}")
        body = value["body"]
        canonical(body)
    except (ValueError, KeyError, TypeError, ConfigError):
        return None
    return Line(place.stream, place.seq, place.hash, body) if isinstance(body, dict) else None


# -- reading


def show(
    path: Path,
    *,
    limit: int = 50,
    since: float | None = None,
    **where: str,
) -> Iterator[Line]:
    """The newest records, oldest of them first.

    Args:
        path: The database file.
        limit: How many at most.
        since: Epoch seconds; only records made at or after.
        where: Columns that must be equal: `kind`, `call`, `tenant`, `task`, `tool`, `verdict`,
            `code`, `stream`.

    Raises:
        StoreError: It cannot be read.
        ConfigError: A column does not exist.
    """
    conditions, values = ["1 = 1"], list[object]()
    for name, value in where.items():
        if name not in (*_COLUMNS, "stream"):
            known = ", ".join((*_COLUMNS, "stream"))
            raise ConfigError("audit show", f"records have no {name!r}", f"use one of: {known}")
        conditions.append(f"{name} = ?")
        values.append(value)
    if since is not None:
        conditions.append("at >= ?")
        values.append(int(since * 1_000_000))
    query = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY rowid DESC LIMIT ?"
    return iter(_read(path, query, (*values, limit))[::-1])


def find(path: Path, identifier: str) -> tuple[Line, ...]:
    """Every record of a call, or that names a decision: what `explain` starts from.

    Args:
        path: The database file.
        identifier: A call id or a decision id.

    Raises:
        StoreError: It cannot be read.
    """
    of_call = f"{_SELECT} WHERE call = ? ORDER BY rowid"
    found = _read(path, of_call, (identifier,))
    if not found:
        naming = f"{_SELECT} WHERE instr(body, CAST(? AS BLOB)) > 0 ORDER BY rowid"
        found = _read(path, naming, (json.dumps(identifier),))
        calls = {str(line.body.get("call", "")) for line in found} - {""}
        if len(calls) == 1:
            found = _read(path, of_call, (*calls,))
    return tuple(found)


def export(
    path: Path, *, out: _Out, follow: bool = False, stop: threading.Event | None = None
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
    with closing(_connect(path)) as db:
        while True:
            last = not follow or stop.is_set()
            try:
                (version,) = db.execute("PRAGMA data_version").fetchone()
                if version != seen or last:
                    written += sum(_export_new(db, done, out))
                    seen = version
            except sqlite3.Error as error:
                raise _unreadable(path, error) from error
            if last:
                return written
            stop.wait(POLL)


def _export_new(db: sqlite3.Connection, done: dict[str, int], out: _Out) -> Iterator[int]:
    heads = db.execute("SELECT id, seq FROM stream ORDER BY opened, id").fetchall()
    for stream, seq in heads:
        while done.get(stream, 0) < seq:
            query = f"{_SELECT} WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            rows = db.execute(query, (stream, done.get(stream, 0), seq, _PAGE)).fetchall()
            for row in rows:
                out.write(f"{_line(row)}\n")
            yield len(rows)
            done[stream] = rows[-1][1] if rows else seq
    out.flush()


def _read(path: Path, query: str, values: Sequence[object]) -> list[Line]:
    with closing(_connect(path)) as db:
        try:
            return [_line(row) for row in db.execute(query, values).fetchall()]
        except (sqlite3.Error, ValueError) as error:
            raise _unreadable(path, error) from error


def _line(row: Sequence[Any]) -> Line:
    return Line(row[0], row[1], _bytes(row[2]).hex(), json.loads(row[3]))


def _bytes(cell: object) -> bytes:
    """A cell as bytes, whatever an editor left in it."""
    return cell if isinstance(cell, bytes) else str(cell).encode(errors="replace")


def _connect(path: Path) -> sqlite3.Connection:
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
        raise _unreadable(path, error) from error
    if reader > READER:
        raise StoreError(
            f"{path}: the store needs a reader of schema {reader} or newer, this is {READER}",
            "upgrade lictor on this machine to the version that wrote the store",
        )
    return db


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: cannot be read as a store: {error}",
        "name a Lictor store that this user may read, or restore a backup",
    )
