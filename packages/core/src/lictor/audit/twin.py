"""A report as JSON, and what checks it without the store.

Rules enforced here:

1. The twin holds all records of the period, so that their chain can be hashed again; what a filter
   left out of the table is in it, or a gap could hide there.
2. A decision in the table must be, word for word, the record that it names.
3. A rule's text must be that of the snapshot which the period's records hold.
4. Records from outside the period are not proven by it, and are counted as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TextIO

from lictor.audit.chain import Problem, StreamReport, Verification, Walk, expected
from lictor.audit.report import FORMAT, Report
from lictor.audit.rules import Rule, rules_of
from lictor.canonical import InputInvalid, Json, canonical
from lictor.errors import ConfigError
from lictor.ports import Head

START: Final = f'{{"lictor_report": {FORMAT},'
BLOCK: Final = '<script type="application/json" id="lictor-report">'
_ROWS: Final = ("asks", "answers", "outcomes")


def write_json(report: Report, hidden: Iterable[Mapping[str, Json]], out: TextIO) -> None:
    """Writes the twin.

    Args:
        report: The report.
        hidden: What was not recorded.
        out: Where to.
    """
    for text in pieces(report, hidden):
        out.write(text)


def pieces(report: Report, hidden: Iterable[Mapping[str, Json]]) -> Iterator[str]:
    """The twin in parts that fit into memory."""
    yield f"{START}\n"
    for name, value in report.head.items():
        yield f'"{name}": {json.dumps(value)},\n'
    gaps = {"listed": report.gaps, "more": report.more}
    yield f'"not_recorded": {json.dumps(list(hidden))},\n"gaps": {json.dumps(gaps)},\n'
    yield '"decisions": ['
    for number, row in enumerate(report.rows()):
        yield f"{',' if number else ''}\n{json.dumps(row)}"
    yield '],\n"sections": ['
    for number, (anchor, lines) in enumerate(report.sections()):
        yield f'{"," if number else ""}\n{{"on": {json.dumps(anchor)}, "records": ['
        for place, line in enumerate(lines):
            yield f"{',' if place else ''}\n{_ascii(line)}"
        yield "]}"
    yield "]}\n"


def _ascii(line: str) -> str:
    return line if line.isascii() else json.dumps(json.loads(line))


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        verification: Of the records in it.
        unproven: Records and rules that the table shows and the period does not hold.
        damaged: The report itself says that the store was damaged.
    """

    verification: Verification
    unproven: int
    damaged: bool

    @property
    def ok(self) -> bool:
        """Whether the report is what its records say, and the store was whole."""
        return self.verification.ok and not self.damaged


def is_report(text: str) -> bool:
    """Whether a file that starts so is a report."""
    return text.startswith((START, "<!doctype html>"))


def check(text: str, *, expect: Iterable[Head] = ()) -> Checked:
    """Checks a report, JSON or HTML, without the store.

    Args:
        text: All of it.
        expect: Heads kept elsewhere; those that the period covers must be in it.

    Raises:
        ConfigError: It is no report.
    """
    found = _parsed(text)
    kept = expected(expect)
    problems: list[Problem] = []
    met: dict[str, bytes] = {}
    reports = tuple(_section(each, kept, problems, met) for each in found["sections"])
    unproven, snapshots = 0, _snapshots(met)
    for row in found["decisions"]:
        unproven += _compare_rules(row, snapshots, problems)
        if _compare(row.get("decision"), met, problems):
            problems.append(Problem("", 0, "the table has a decision that is no record"))
        for each in (each for name in _ROWS for each in row.get(name, ())):
            unproven += _compare(each, met, problems)
    problems += _left_out(found, met)
    damaged = found["verification"].get("ok") is not True
    return Checked(Verification(reports, tuple(problems)), unproven, damaged)


def _snapshots(met: Mapping[str, bytes]) -> dict[str, dict[str, Rule]]:
    """The policies that the period's records hold, by digest."""
    bodies = (json.loads(body) for body in met.values() if b'"kind":"policy"' in body)
    return {str(each["code"]): rules_of(each) for each in bodies if each.get("kind") == "policy"}


def _compare_rules(
    row: Mapping[str, Any], snapshots: Mapping[str, dict[str, Rule]], problems: list[Problem]
) -> int:
    """1 if the rules that are shown were written down outside the period."""
    shown = [rule for rule in row.get("rules", ()) if rule.get("text")]
    snapshot = snapshots.get(str(row.get("decision", {}).get("body", {}).get("policy")))
    if snapshot is None:
        return 1 if shown else 0
    for rule in shown:
        kept = snapshot.get(rule.get("id"))
        if kept is None or (kept.text, kept.where) != (rule["text"], rule.get("where")):
            what = f"the table shows rule {rule.get('id')} otherwise than it was"
            problems.append(Problem("", 0, what))
    return 0


def _left_out(found: Mapping[str, Any], met: Mapping[str, bytes]) -> Iterator[Problem]:
    """Decisions of the period that an unfiltered table does not have."""
    if found.get("filters") != {}:
        return
    since, until = found["period"]["micros"]
    shown = {row["decision"]["head"] for row in found["decisions"] if "decision" in row}
    for head, body in met.items():
        value = json.loads(body)
        if head in shown or value.get("kind") != "decision":
            continue
        if (since is None or value["at"] >= since) and (until is None or value["at"] < until):
            stream, seq, _ = head.rsplit(":", 2)
            yield Problem(stream, int(seq), "a decision that the table leaves out")


def _parsed(text: str) -> dict[str, Any]:
    if text.startswith("<!doctype html>"):
        text = text.partition(BLOCK)[2].partition("</script>")[0]
    try:
        found = json.loads(text)
        parts = (found["sections"], found["decisions"], found["verification"])
        if found["lictor_report"] != FORMAT or not all(isinstance(p, list | dict) for p in parts):
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"is not a report of format {FORMAT}: {error}"
        raise ConfigError(
            "--check", problem, "name a file that lictor audit report wrote"
        ) from None
    return dict(found)


def _section(
    section: Mapping[str, Any],
    kept: Mapping[str, Mapping[int, str]],
    problems: list[Problem],
    met: dict[str, bytes],
) -> StreamReport:
    try:
        on = section["on"]
        stream, after, before = str(on["stream"]), int(on["after"]), bytes.fromhex(on["hash"])
        wanted = {seq: head for seq, head in kept.get(stream, {}).items() if seq > after}
        walk = Walk(stream, wanted, problems, last=after, before=before)
        for each in section["records"]:
            _step(walk, each, met)
    except (KeyError, TypeError, ValueError):
        problems.append(Problem("", 0, "a section of records is torn or not of this format"))
        return StreamReport("", 0, 0, 0, "", closed=False)
    beyond = {seq for seq in wanted if seq > walk.last}
    walk.expected = {seq: head for seq, head in wanted.items() if seq not in beyond}
    return walk.end(closed=False)


def _step(walk: Walk, each: Mapping[str, Any], met: dict[str, bytes]) -> None:
    seq = int(each["seq"])
    if "body" not in each or each["stream"] != walk.stream:
        walk.problem(seq, "is torn, or belongs elsewhere")
        return
    body = canonical(each["body"])
    walk.step(seq, bytes.fromhex(each["hash"]), body)
    met[f"{walk.stream}:{seq}:{each['hash']}"] = body


def _compare(each: Mapping[str, Any], met: Mapping[str, bytes], problems: list[Problem]) -> int:
    """1 if the record that is shown lies outside the period."""
    try:
        head, shown = str(each["head"]), canonical(each["body"])
    except (KeyError, TypeError, InputInvalid):
        problems.append(Problem("", 0, "a row of the table is torn"))
        return 0
    if head not in met:
        return 1
    if met[head] != shown:
        stream, seq, _ = head.rsplit(":", 2)
        problems.append(Problem(stream, int(seq), "the table shows it otherwise than it is"))
    return 0
