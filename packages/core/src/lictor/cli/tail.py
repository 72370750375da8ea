"""Records as they come, and each of them as one line for a person."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from lictor.approval.render import short
from lictor.canonical import Json
from lictor.errors import StoreError
from lictor.forms import visible
from lictor.store.stream import death

PAGE: Final = 1_000
_NEW: Final = "SELECT rowid, body FROM record WHERE rowid > ? ORDER BY rowid LIMIT ?"
_NEWEST: Final = "SELECT COALESCE(MAX(rowid), 0) FROM record"
_LAST: Final = (
    "SELECT rowid - 1 FROM record WHERE kind = 'decision' ORDER BY rowid DESC LIMIT 1 OFFSET ?"
)
_RUNNING: Final = (
    'SELECT task.id, task."grant", stream.id, stream.host, stream.boot, stream.pid, '
    "stream.started, stream.beat, stream.closed FROM task JOIN stream ON stream.id = task.stream "
    "WHERE task.state = 'running' ORDER BY task.id"
)
_COLOURS: Final = {"allow": "32", "deny": "31", "ask": "33"}
_BAD: Final = ("failed", "unknown")


@dataclass(frozen=True, slots=True)
class Running:
    """A task that a living process runs."""

    id: str
    grant: Mapping[str, Json]

    @property
    def name(self) -> str:
        """Its template, or its id."""
        return visible(str(self.grant.get("template") or self.id))

    @property
    def who(self) -> str:
        """Its agents and its user."""
        agents = self.grant.get("agents")
        names = " > ".join(map(str, agents)) if isinstance(agents, list) else "?"
        return visible(f"{names} for {self.grant.get('user') or '-'}")


class Tail:
    """The journal's end, read while gates write on. Nothing here holds a writer up.

    Args:
        path: The database file.
        last: How many decisions to begin with.

    Raises:
        StoreError: It cannot be read.
    """

    def __init__(self, path: Path, last: int) -> None:
        self._path, self._seen, self._more = path, -1, True
        try:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            query, values = (_LAST, (last - 1,)) if last else (_NEWEST, ())
            found = self._db.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        self._row = found[0] if found else 0

    def __enter__(self) -> Tail:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def moved(self) -> bool:
        """Whether anything was written since this was asked last, or is left to be read."""
        try:
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        changed = version != self._seen
        self._seen = version
        return changed or self._more

    def new(self) -> list[Mapping[str, Any]]:
        """The records that came, at most a page of them, in the order they were written."""
        try:
            rows = self._db.execute(_NEW, (self._row, PAGE)).fetchall()
            found = [json.loads(body) for _, body in rows]
        except (sqlite3.Error, ValueError) as error:
            raise self._unreadable(error) from error
        self._more = len(rows) == PAGE
        self._row = rows[-1][0] if rows else self._row
        return found

    def running(self, now: float) -> list[Running]:
        """The tasks that run now, in processes that live."""
        try:
            rows = self._db.execute(_RUNNING).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        alive = [row for row in rows if not death(row[2:], int(now * 1_000_000))]
        return [Running(row[0], json.loads(row[1])) for row in alive]

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: cannot be read: {error}", "lictor audit verify")


def line(number: int, body: Mapping[str, Any], *, colour: bool) -> str:
    """A decision as one line.

    Args:
        number: Its number on this screen.
        body: The record.
        colour: Whether the verdict has its colour.
    """
    verdict = str(body.get("verdict", ""))
    shown = f"{visible(verdict):<5}"
    if colour and verdict in _COLOURS:
        shown = f"\x1b[{_COLOURS[verdict]}m{shown}\x1b[0m"
    observed = " (observed: it ran)" if body.get("enforcement") == "observe" else ""
    parts = [
        f"{number:>4}  {_time(body)}  {shown} {_text(body, 'tool')}",
        f"{_text(body, 'code')}{observed}",
        _who(body.get("chain")),
        f"task {_text(body, 'template') or _text(body, 'task') or '-'}",
        _arguments(body.get("arguments")),
        _text(body, "id"),
    ]
    return "  ".join(part for part in parts if part)


def event(body: Mapping[str, Any]) -> str:
    """What else a person wants to see, as one line; empty for all other records."""
    kind, verdict = str(body.get("kind")), _text(body, "verdict")
    what = ""
    if kind in ("outcome", "recovery") and verdict in _BAD:
        why = f" ({_text(body, 'why') or _text(body, 'code')})".replace(" ()", "")
        what = f"{_text(body, 'tool')} {verdict}{why}"
    elif kind == "task":
        by = f" by {_text(body, 'by')}" if body.get("by") else ""
        state = "started" if verdict == "running" else verdict
        what = f"task {state}{by}: {_text(body, 'template') or _text(body, 'task')}"
    elif kind == "ask":
        what = f"{_text(body, 'tool')}: a person is asked"
    elif kind == "answer":
        by = f" by {_text(body, 'by')} ({_text(body, 'channel')})" if body.get("by") else ""
        what = f"{_text(body, 'tool')}: the question was {verdict}{by}"
    return f"      {_time(body)}  {what}" if what else ""


def _time(body: Mapping[str, Any]) -> str:
    try:
        at = datetime.fromtimestamp(int(body["at"]) / 1_000_000).astimezone()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "--:--:--"
    return f"{at:%H:%M:%S}"


def _text(body: Mapping[str, Any], name: str) -> str:
    return visible(str(body.get(name) or ""))


def _who(chain: object) -> str:
    """`banker for alice`, of `user:local/alice` and `agent:local/banker`."""
    if not isinstance(chain, list) or not chain:
        return ""
    names = [str(each).partition("/")[2] for each in chain]
    return visible(f"{' > '.join(names[1:]) or '-'} for {names[0]}")


def _arguments(arguments: object) -> str:
    if not isinstance(arguments, dict):
        return ""
    return " ".join(f"{visible(name)}={_value(value)}" for name, value in arguments.items())[:400]


def _value(value: Json) -> str:
    hidden = isinstance(value, dict) and set(value) == {"digest"}
    return "(not recorded)" if hidden else short(value, 40)
