"""A stream of records checked link by link, whether it comes from a store or from an export.

Rules enforced here:

1. Every record is hashed again from its bytes; a gap, an edited body, a moved or missing record
   is named by stream and seq.
2. A chain alone detects accidental damage. Who can rewrite the file can rewrite the chain: only a
   head kept elsewhere (every decision's log event carries one) shows a cut or rewritten tail.
3. An exported line is checked without the store: the body's canonical bytes give its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from lictor.canonical import Json, canonical
from lictor.errors import ConfigError
from lictor.ports import Head

_ROOT: Final = bytes(32)
_HEX: Final = frozenset("0123456789abcdef")


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


@dataclass(slots=True)
class Walk:
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
        """Notes what is wrong at one record."""
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


def expected(heads: Iterable[Head]) -> dict[str, dict[int, str]]:
    """Heads kept elsewhere, by stream and seq."""
    kept: dict[str, dict[int, str]] = {}
    for head in heads:
        if head.seq:
            kept.setdefault(head.stream, {})[head.seq] = head.hash
    return kept


def absent(kept: dict[str, dict[int, str]]) -> list[Problem]:
    """What is wrong when heads name streams that were not met."""
    what = "a head kept elsewhere names this stream and it is not here: replaced or cut"
    return [Problem(stream, max(seqs), what) for stream, seqs in kept.items()]


def verify_lines(lines: Iterable[str], *, expect: Iterable[Head] = ()) -> Verification:
    """Checks an exported journal without its store; streams may be mixed.

    Args:
        lines: What `export` wrote.
        expect: Heads kept elsewhere that must be in it.
    """
    kept = expected(expect)
    problems: list[Problem] = []
    walks: dict[str, Walk] = {}
    closed: set[str] = set()
    for number, text in enumerate(lines, 1):
        line = _parse(text)
        if line is None:
            problems.append(Problem("", 0, f"line {number} is torn or not of this format"))
            continue
        walk = walks.get(line.stream)
        if walk is None:
            walk = Walk(line.stream, kept.pop(line.stream, {}), problems)
            walks[line.stream] = walk
        walk.step(line.seq, bytes.fromhex(line.hash), canonical(line.body))
        if (line.body.get("kind"), line.body.get("code")) == ("stream", "closed"):
            closed.add(line.stream)
    reports = tuple(walk.end(closed=name in closed) for name, walk in walks.items())
    return Verification(reports, (*problems, *absent(kept)))


def _parse(text: str) -> Line | None:
    try:
        value = json.loads(text)
        place = parse_head(f"{value['stream']}:{value['seq']}:{value['hash']}")
        body = value["body"]
        canonical(body)
    except (ValueError, KeyError, TypeError, ConfigError):
        return None
    return Line(place.stream, place.seq, place.hash, body) if isinstance(body, dict) else None
