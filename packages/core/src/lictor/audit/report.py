"""The answer to an auditor's question: what was decided, under which rule, and who was asked.

Rules enforced here:

1. Everything in a report is a record, or says that it is none; a rule's text is the one that the
   journal holds for the decision's own policy digest.
2. A damaged store is reported, and its report says so first.
3. What the journal does not hold is listed as carefully as what it does.
4. Rows wait in a file, not in memory; a journal may be larger than the machine.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from lictor.audit.chain import Line
from lictor.audit.journal import SELECT, connect, exported, line_of, verify
from lictor.audit.rules import Rule, rules_of
from lictor.audit.select import Filters, records, texts
from lictor.audit.when import shown
from lictor.canonical import Json
from lictor.errors import StoreError
from lictor.ports import Known

FORMAT: Final = 1
MAX_GAPS: Final = 1_000
"""Gaps that are listed; the others are counted."""
STATEMENT: Final = (
    "Written by Lictor from its own records. It is no certification and no opinion of an auditor. "
    "An unbroken chain of records shows accidental damage only: whoever can write the store can "
    "write another chain. Compare the heads with ones kept elsewhere (lictor.store.head of log "
    "events) to see a cut or rewritten tail."
)
_OF_CALL: Final = (
    f"{SELECT} WHERE call = ? AND call <> '' AND kind <> 'decision' ORDER BY rowid LIMIT 1000"
)
_FIRST: Final = "(SELECT rowid FROM record WHERE kind = 'policy' AND code = ? LIMIT 1)"
_POLICY: Final = f"{SELECT} WHERE rowid = {_FIRST}"
_RANGES: Final = "SELECT stream, MIN(seq), MAX(seq) FROM record WHERE {} GROUP BY stream"
_GAPS: Final = " AND (kind IN ('late', 'recovery') OR (kind = 'outcome' AND verdict = 'unknown'))"


@dataclass(slots=True)
class Hidden:
    """An argument of which records hold only a digest."""

    first: int
    last: int
    times: int = 1


@dataclass(slots=True)
class Report:
    """A report, gathered; `rows` and `lines` are read once for each file that is written.

    Attributes:
        head: What it is about, and the verdict on the chain.
        wanted: Which decisions.
        path: The store.
        count: Decisions in it.
        hidden: Tool → argument → where it was not recorded.
        gaps: What is missing, in words.
        more: Gaps beyond those.
    """

    head: dict[str, Json]
    wanted: Filters
    path: Path
    spool: TextIO
    count: int = 0
    hidden: dict[str, dict[str, Hidden]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)
    more: int = 0

    @property
    def ok(self) -> bool:
        """Whether the chain is whole and everything could be read."""
        verification = self.head["verification"]
        return isinstance(verification, dict) and verification["ok"] is True

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each decision with what belongs to it, oldest first."""
        self.spool.seek(0)
        for text in self.spool:
            yield json.loads(text)

    def sections(self) -> Iterator[tuple[dict[str, Json], Iterator[str]]]:
        """All records of the period, stream by stream: what the section hangs on, and its lines."""
        condition, values = Filters(self.wanted.since, self.wanted.until).sql()
        with closing(connect(self.path)) as db:
            ranges = db.execute(_RANGES.format(condition), values).fetchall()
            for stream, first, last in ranges:
                yield _anchor(db, stream, first), _lines(db, stream, first, last)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.spool.close()

    def gap(self, text: str) -> None:
        """Notes that something is missing."""
        if len(self.gaps) < MAX_GAPS:
            self.gaps.append(text)
        else:
            self.more += 1


def gather(path: Path, wanted: Filters, head: Mapping[str, Json]) -> Report:
    """Reads what a report holds.

    Args:
        path: The store.
        wanted: Which decisions; `kind` is set here.
        head: Project, version and time of writing.

    Raises:
        StoreError: The store cannot be opened at all.
    """
    wanted = _decisions(wanted)
    spool = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")
    whole: dict[str, Json] = {
        **head,
        "statement": STATEMENT,
        "period": {
            "since": _utc(wanted.since, "the beginning"),
            "until": _utc(wanted.until, "the end"),
            "micros": [_micros(wanted.since), _micros(wanted.until)],
        },
        "filters": {k: v for k, v in wanted.told().items() if k != "kind"},
        "verification": {},
    }
    report = Report(whole, wanted, path, spool)
    try:
        problems = _verified(report)
        try:
            _gather_rows(report, problems)
            _gather_gaps(report)
        except StoreError as error:
            problems.append(f"reading stopped: {error.problem}")
    except BaseException:
        spool.close()
        raise
    whole["verification"] = {**_as_dict(whole["verification"]), "ok": not problems}
    return report


def _as_dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _micros(at: float | None) -> int | None:
    return None if at is None else int(at * 1_000_000)


def _utc(at: float | None, otherwise: str) -> str:
    return otherwise if at is None else f"{shown(int(at * 1_000_000))} UTC"


def _decisions(wanted: Filters) -> Filters:
    parts = {**wanted.told(), "kind": "decision"}
    return Filters(wanted.since, wanted.until, **parts)


def _verified(report: Report) -> list[Json]:
    found = verify(report.path)
    problems: list[Json] = [str(problem) for problem in found.problems]
    streams: list[Json] = [
        {
            "stream": each.stream,
            "records": each.records,
            "head": f"{each.stream}:{each.last}:{each.head}",
            "closed": each.closed,
        }
        for each in found.streams
    ]
    report.head["verification"] = {
        "ok": found.ok,
        "records": found.records,
        "problems": problems,
        "streams": streams,
    }
    for each in found.streams:
        if not each.closed:
            report.gap(
                f"stream {each.stream} was not closed: its process still runs, or it ended without "
                "writing what it had buffered"
            )
    return problems


def _gather_rows(report: Report, problems: list[Json]) -> None:
    torn: list[str] = []
    rules: dict[str, dict[str, Rule] | None] = {}
    with closing(connect(report.path)) as db:
        for line in records(report.path, report.wanted, torn=torn):
            row = _row(db, line, rules)
            report.spool.write(json.dumps(row) + "\n")
            report.count += 1
            _note_hidden(report, line.body)
            if line.body.get("enforcement") == "proceed" and not row["outcomes"]:
                report.gap(f"decision {line.body.get('id')}: how the call ended is not recorded")
    problems += [f"{place}: cannot be read, and is left out" for place in torn]


def _row(
    db: sqlite3.Connection, line: Line, known: dict[str, dict[str, Rule] | None]
) -> dict[str, Any]:
    related: dict[str, list[Json]] = {"ask": [], "answer": [], "outcome": [], "late": []}
    call = line.body.get("call")
    try:
        found = db.execute(_OF_CALL, (call,)).fetchall() if isinstance(call, str) and call else []
    except sqlite3.Error:
        found = []
    for row in found:
        try:
            other = line_of(row)
        except ValueError:
            continue
        kind = {"recovery": "outcome"}.get(str(other.body.get("kind")), other.body.get("kind"))
        if isinstance(kind, str) and kind in related and _belongs(other.body, line.body):
            related[kind].append(fact(other))
    return {
        "decision": fact(line),
        "asks": related["ask"],
        "answers": related["answer"],
        "outcomes": [*related["outcome"], *related["late"]],
        "rules": _rules(db, line.body, known),
    }


def _belongs(body: Mapping[str, Json], decision: Mapping[str, Json]) -> bool:
    """Outcomes name their decision; asks and answers belong to the call."""
    named = body.get("decision")
    return named in (None, "", decision.get("id"))


def fact(line: Line) -> dict[str, Json]:
    """A record, and where it stands."""
    return {"head": f"{line.stream}:{line.seq}:{line.hash}", "body": line.body}


def _rules(
    db: sqlite3.Connection,
    body: Mapping[str, Json],
    known: dict[str, dict[str, Rule] | None],
) -> list[dict[str, str]]:
    digest = str(body.get("policy", ""))
    if digest not in known:
        known[digest] = _snapshot(db, digest)
    snapshot = known[digest]
    found = []
    for name in texts(body.get("policies")):
        rule = None if snapshot is None else snapshot.get(name)
        part = {"id": name, "where": "", "text": ""}
        found.append(part if rule is None else {**part, "where": rule.where, "text": rule.text})
    return found


def _snapshot(db: sqlite3.Connection, digest: str) -> dict[str, Rule] | None:
    try:
        row = db.execute(_POLICY, (digest,)).fetchone()
        return None if row is None else rules_of(line_of(row).body)
    except (ValueError, sqlite3.Error):
        return None


def _note_hidden(report: Report, body: Mapping[str, Json]) -> None:
    arguments, at = body.get("arguments"), body.get("at")
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if not (isinstance(value, dict) and set(value) == {"digest"} and isinstance(at, int)):
            continue
        tool = report.hidden.setdefault(str(body.get("tool")), {})
        known = tool.setdefault(name, Hidden(at, at, 0))
        known.first, known.last = min(known.first, at), max(known.last, at)
        known.times += 1


def _gather_gaps(report: Report) -> None:
    condition, values = Filters(report.wanted.since, report.wanted.until).sql()
    with closing(connect(report.path)) as db:
        try:
            for row in db.execute(f"{SELECT} WHERE {condition}{_GAPS} ORDER BY rowid", values):
                stream, seq, _, _, kind, at, call, *_ = row
                report.gap(f"{_WORDS[kind]}: call {call} at {shown(at)} UTC ({stream}:{seq})")
        except sqlite3.Error as error:
            raise StoreError(str(error), "restore a backup") from error


_WORDS: Final = {
    "late": "an outcome came after the call was given up",
    "recovery": "the process ended before the call did, so whether it happened is not known",
    "outcome": "whether the call happened is not known",
}


def unrecorded(report: Report, catalog: tuple[Known, ...]) -> list[dict[str, Json]]:
    """What was not recorded in clear, by tool: as the records show, and as the catalog has it."""
    known = {str(each.review.key): each for each in catalog}
    found: list[dict[str, Json]] = []
    for tool in sorted({*report.hidden, *known}):
        part = known.get(tool)
        seen = report.hidden.get(tool, {})
        told: list[Json] = [
            {"name": n, "first": h.first, "last": h.last, "times": h.times}
            for n, h in sorted(seen.items())
        ]
        review = None if part is None else part.review
        properties = None if part is None else part.tool.input_schema.get("properties")
        arguments = set(properties) if isinstance(properties, Mapping) else set()
        closed = arguments - set(review.recordable if review is not None else ())
        if told or closed:
            found.append(
                {
                    "tool": tool,
                    "digests": told,
                    "not_recordable": [*sorted(map(str, closed))],
                    "since": "" if review is None else review.reviewed_at,
                    "reads_only": review is not None and not review.effectful,
                }
            )
    return found


# -- the lines of the period ----------------------------------------------------------------------


def _anchor(db: sqlite3.Connection, stream: str, first: int) -> dict[str, Json]:
    before = db.execute(
        "SELECT hash FROM record WHERE stream = ? AND seq = ?", (stream, first - 1)
    ).fetchone()
    found = bytes(32) if before is None else before[0]
    digest = found.hex() if isinstance(found, bytes) else ""
    return {"stream": stream, "after": first - 1, "hash": digest}


def _lines(db: sqlite3.Connection, stream: str, first: int, last: int) -> Iterator[str]:
    query = f"{SELECT} WHERE stream = ? AND seq BETWEEN ? AND ? ORDER BY seq"
    for row in db.execute(query, (stream, first, last)):
        yield exported(row)
