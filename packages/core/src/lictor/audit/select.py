"""Choosing records: by what stands in their columns, and by what their bodies say.

Rules enforced here:

1. Columns are compared by the database, bodies one at a time as they come: the journal is never
   held in memory, and a limit counts what was chosen.
2. A record of a call (its outcome, its ask, its answer) has what the call's decision has: whoever
   looks for the transfers of October finds how they ended, too.
3. A value that no record can have is refused with those that it can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from lictor.audit.chain import Line
from lictor.audit.journal import COLUMNS, SELECT, connect, line_of, unreadable
from lictor.canonical import Json
from lictor.errors import ConfigError
from lictor.model import Impact, Outcome, Verdict

_VERDICTS: Final = frozenset(
    {each.value for each in Verdict}
    | {each.value for each in Outcome}
    | {"running", "ended", "pending", "granted", "rejected", "expired", "withdrawn"}
)
# `call <> ''` is what lets the database use the index on calls.
_RELATED: Final = (
    f"{SELECT} WHERE call = ? AND call <> '' AND kind IN ('decision', 'answer') "
    "ORDER BY rowid LIMIT 100"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records are wanted; what is empty does not matter.

    Attributes:
        since: Epoch seconds; made at or after.
        until: Epoch seconds; made before.
        kind: Kind of record.
        call: Call id.
        tenant: Tenant.
        task: Task id.
        tool: `server/name`, with `*` and `?` for what may vary.
        verdict: Verdict, outcome, state of a task or of an ask.
        code: Reason code.
        stream: Stream id.
        impact: One thing that the tool can do.
        agent: Who acted, as `name` or `tenant/name`.
        user: For whom, alike.
        approver: Who answered an ask.
        template: Task template.
        session: The host's id of the conversation.
    """

    since: float | None = None
    until: float | None = None
    kind: str = ""
    call: str = ""
    tenant: str = ""
    task: str = ""
    tool: str = ""
    verdict: str = ""
    code: str = ""
    stream: str = ""
    impact: str = ""
    agent: str = ""
    user: str = ""
    approver: str = ""
    template: str = ""
    session: str = ""

    def __post_init__(self) -> None:
        _check("impact", self.impact, frozenset(each.value for each in Impact))
        _check("verdict", self.verdict, _VERDICTS)

    def told(self) -> dict[str, str]:
        """The filters that are set, besides the times."""
        names = [each.name for each in fields(self) if each.name not in ("since", "until")]
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def sql(self) -> tuple[str, list[object]]:
        """The condition on columns, and its values."""
        conditions, values = ["1 = 1"], list[object]()
        for name in (*COLUMNS, "stream"):
            value = getattr(self, name, "") if name != "at" else ""
            if not value:
                continue
            glob = name == "tool" and set(value) & set("*?")
            conditions.append(f"{name} {'GLOB' if glob else '='} ?")
            values.append(value.replace("[", "[[]") if glob else value)
            if name == "call":
                conditions.append("call <> ''")
        if self.since is not None:
            conditions.append("at >= ?")
            values.append(int(self.since * 1_000_000))
        if self.until is not None:
            conditions.append("at < ?")
            values.append(int(self.until * 1_000_000))
        return " AND ".join(conditions), values


def _check(name: str, value: str, known: frozenset[str]) -> None:
    if value and value not in known:
        mend = f"use one of: {', '.join(sorted(known))}"
        raise ConfigError(f"audit --{name}", f"no record has {name} {value!r}", mend)


def filters(since: float | None, until: float | None, where: Mapping[str, str]) -> Filters:
    """Filters by name.

    Raises:
        ConfigError: There is none of a name, or no record can have a value.
    """
    known = [each.name for each in fields(Filters)]
    for name in where:
        if name not in known:
            mend = f"use one of: {', '.join(known)}"
            raise ConfigError("audit show", f"records have no {name!r}", mend)
    return Filters(since, until, **where)


def show(
    path: Path,
    *,
    limit: int = 50,
    since: float | None = None,
    until: float | None = None,
    **where: str,
) -> Iterator[Line]:
    """The newest records, oldest of them first.

    Args:
        path: The database file.
        limit: How many at most.
        since: Epoch seconds; only records made at or after.
        until: Epoch seconds; only records made before.
        where: Other attributes of `Filters`.

    Raises:
        StoreError: The store cannot be read.
        ConfigError: A filter does not exist, or no record can have its value.
    """
    wanted = filters(since, until, where)
    found: list[Line] = []
    if limit > 0:
        for line in records(path, wanted, newest=True):
            found.append(line)
            if len(found) >= limit:
                break
    return iter(found[::-1])


def records(
    path: Path, wanted: Filters, *, newest: bool = False, torn: list[str] | None = None
) -> Iterator[Line]:
    """Records one at a time, in the order in which they were written.

    Args:
        path: The database file.
        wanted: Which.
        newest: The newest first.
        torn: Receives the places of records that cannot be read, which are then left out.

    Raises:
        StoreError: The store cannot be read, or a record cannot and nobody takes its place.
    """
    condition, values = wanted.sql()
    asked = {name: value for name, value in wanted.told().items() if name in _FACTS}
    order = "DESC" if newest else "ASC"
    with closing(connect(path)) as db:
        try:
            for row in db.execute(f"{SELECT} WHERE {condition} ORDER BY rowid {order}", values):
                try:
                    line = line_of(row)
                except ValueError as error:
                    if torn is None:
                        raise unreadable(path, error) from error
                    torn.append(f"{row[0]}:{row[1]}")
                    continue
                if all(_has(db, line, name, value) for name, value in asked.items()):
                    yield line
        except sqlite3.Error as error:
            raise unreadable(path, error) from error


def _has(db: sqlite3.Connection, line: Line, name: str, value: str) -> bool:
    facts = _FACTS[name]
    own = facts(line.body)
    call = line.body.get("call")
    if own or line.body.get("kind") == "decision" or not isinstance(call, str) or not call:
        return value in own
    for row in db.execute(_RELATED, (call,)):
        try:
            if value in facts(line_of(row).body):
                return True
        except ValueError:
            continue
    return False


# -- what a body says -----------------------------------------------------------------------------


def texts(value: Json) -> list[str]:
    """A list as texts; anything else is empty."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _impacts(body: Mapping[str, Json]) -> frozenset[str]:
    return frozenset(texts(body.get("impact")))


def _parties(body: Mapping[str, Json], kind: str) -> frozenset[str]:
    """Names of one kind in the chain of a decision, in an ask, or in the grant of a task."""
    found: set[str] = set()
    for text in texts(body.get("chain")):
        prefix, _, name = text.partition(":")
        if prefix == kind:
            found |= {name, name.partition("/")[2]}
    grant = body.get("grant")
    for part in (body, grant if isinstance(grant, dict) else {}):
        own = part.get(kind)
        found |= {own} if isinstance(own, str) else set()
        found |= set(texts(part.get(f"{kind}s")))
    return frozenset(found - {""})


def _agents(body: Mapping[str, Json]) -> frozenset[str]:
    return _parties(body, "agent")


def _users(body: Mapping[str, Json]) -> frozenset[str]:
    return _parties(body, "user")


def _approvers(body: Mapping[str, Json]) -> frozenset[str]:
    answers = body.get("answers")
    said = answers if isinstance(answers, list) else []
    by = [each.get("by") for each in said if isinstance(each, dict)]
    if body.get("kind") == "answer":
        by.append(body.get("by"))
    return frozenset(name for name in by if isinstance(name, str) and name)


def _templates(body: Mapping[str, Json]) -> frozenset[str]:
    return _word(body.get("template"))


def _sessions(body: Mapping[str, Json]) -> frozenset[str]:
    return _word(body.get("session")) | _word(body.get("conversation"))


def _word(value: Json) -> frozenset[str]:
    return frozenset({value} if isinstance(value, str) and value else ())


_FACTS: Final[Mapping[str, Callable[[Mapping[str, Json]], frozenset[str]]]] = {
    "impact": _impacts,
    "agent": _agents,
    "user": _users,
    "approver": _approvers,
    "template": _templates,
    "session": _sessions,
}
