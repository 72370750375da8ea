"""One person's decision about one tool, written into `catalog.toml` and `catalog.lock`.

Rules enforced here:

1. Only what was decided is written; every other byte of the human file stays. The new text is read
   back as loading would read it, and what would read differently is not written.
2. A file that does not load is refused and left alone.
3. One writer at a time, among threads and processes; both files change, or neither does.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lictor.catalog.locking import HEADER, TABLE, TOP, entry_text, locked_text, put, quoted, writing
from lictor.errors import ConfigError
from lictor.model import Impact, Tool, ToolKey
from lictor.ports import Known


@dataclass(frozen=True, slots=True)
class Decided:
    """What a person decided about one tool; the words are those of `Review`.

    Attributes:
        impact: One or more; may be empty for a tool that is blocked.
        reviewer: Who.
        reviewed_at: When, RFC 3339.
        target: Arguments that say where an effect goes.
        amount: Argument that says how much.
        recordable: Arguments that may stand in clear in records.
        produces: Labels that its results add.
        sources: Who can write what it returns.
        blocked: Refused.
        reviewed_in: `dev` for answers given under `Gate.dev()`.
    """

    impact: frozenset[Impact]
    reviewer: str
    reviewed_at: str
    target: tuple[str, ...] = ()
    amount: str = ""
    recordable: tuple[str, ...] = ()
    produces: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    blocked: bool = False
    reviewed_in: str = ""


def classify(toml: Path, lock: Path, tool: Tool, decided: Decided) -> Known:
    """Writes one decision.

    Args:
        toml: `catalog.toml`; written if it does not exist.
        lock: `catalog.lock`; likewise.
        tool: The definition that the person saw.
        decided: What he decided.

    Returns:
        The entry as it reads now, with what its owner had written beside the decision.

    Raises:
        ConfigError: A file does not load, the decision does not fit the tool, or nothing can be
            written. Then nothing was.
    """
    for path in (toml, lock):
        if path.is_symlink():
            raise ConfigError(str(path), "is a symbolic link", f"name {path.resolve()} itself")
    with writing(toml):
        return _classify(toml, lock, tool, decided)


def _classify(toml: Path, lock: Path, tool: Tool, decided: Decided) -> Known:
    from lictor.catalog import entries

    before = entries.text_of(toml) if toml.exists() else TOP
    locked = entries.read_lock(lock) if lock.exists() else {}
    entries.reviews(toml, before)
    parts = _parts(tool, decided)
    after = _written(toml, before, tool, parts)
    known = _verified(toml, before, after, tool, parts)
    old = entries.text_of(lock) if lock.exists() else None
    put(lock, locked_text({**locked, tool.key: tool}))
    try:
        put(toml, after)
    except ConfigError:
        with contextlib.suppress(ConfigError, OSError):  # the disk may not take anything now
            lock.unlink() if old is None else put(lock, old)
        raise
    return known


def _parts(tool: Tool, decided: Decided) -> dict[str, Any]:
    """Each key as it shall read; a part that says nothing has no line."""
    return {
        "impact": [each.value for each in Impact if each in decided.impact],
        "target": list(decided.target),
        "amount": decided.amount,
        "recordable": list(decided.recordable),
        "produces": sorted(decided.produces),
        "sources": sorted(decided.sources),
        "blocked": decided.blocked,
        "pin": tool.pin,
        "reviewer": decided.reviewer,
        "reviewed_at": decided.reviewed_at,
        "reviewed_in": decided.reviewed_in,
    }


_ALWAYS: Final = ("impact", "pin")


def _verified(path: Path, before: str, after: str, tool: Tool, parts: Mapping[str, Any]) -> Known:
    """Reads the new text as loading would, and compares it with what was to be written."""
    from lictor.catalog import entries

    wanted = entries.parsed(path, before)
    for n, entry in enumerate(wanted.tool):
        if ToolKey(entry.server, entry.name) == tool.key:
            wanted.tool[n] = entry.model_copy(update=parts)
            break
    else:
        wanted.tool.append(entries.Entry(server=tool.key.server, name=tool.key.name, **parts))
    if entries.parsed(path, after) != wanted:
        raise ConfigError(
            str(path),
            f"the decision about {tool.key} cannot be written without touching something else",
            'write each key of an entry on a line of its own: impact = ["read"]',
        )
    for place, review in entries.reviews(path, after):
        if review.key == tool.key:
            return entries.matched(place, review, tool) if review.impact else Known(review, tool)
    raise ConfigError(str(path), f"{tool.key} cannot be found", "write each entry as [[tool]]")


# -- text -----------------------------------------------------------------------------------------


def _written(path: Path, text: str, tool: Tool, parts: Mapping[str, Any]) -> str:
    from lictor.catalog import entries

    order = [ToolKey(each.server, each.name) for each in entries.parsed(path, text).tool]
    if tool.key not in order:
        order.append(tool.key)
        end = "" if text.endswith("\n") or not text else "\n"
        text += end + _ended(entry_text(tool), text)
    rows = text.splitlines(keepends=True)
    headers = [n for n, row in enumerate(rows) if HEADER.match(row)]
    if len(headers) != len(order):
        raise ConfigError(
            str(path), "its entries cannot be told apart", "write each entry as [[tool]]"
        )
    start = headers[order.index(tool.key)] + 1
    end_row = next((n for n in range(start, len(rows)) if TABLE.match(rows[n])), len(rows))
    entry = _Entry(rows[start - 1 : end_row])
    for name, value in parts.items():
        entry.set(name, value, wanted=name in _ALWAYS or bool(value))
    return "".join([*rows[: start - 1], *entry.rows, *rows[end_row:]])


def _ended(added: str, text: str) -> str:
    """With the line ends of the file."""
    return added.replace("\n", "\r\n") if "\r\n" in text else added


class _Entry:
    """The lines of one entry, its header first."""

    def __init__(self, rows: list[str]) -> None:
        self.rows = rows
        self.end = "\r\n" if rows[0].endswith("\r\n") else "\n"

    def set(self, name: str, value: object, *, wanted: bool) -> None:
        """Writes one key: in its place, or behind the last line that says something."""
        line = f"{name} = {_literal(value)}"
        found = self._find(name)
        if found is None:
            if wanted:
                self._insert(line)
            return
        first, last = found
        rows = self.rows[first:last]
        if tomllib.loads("".join(rows)) == {name: value}:
            return
        self.rows[first:last] = [f"{line}{_remark(rows)}{self._end(rows[-1])}"] if wanted else []

    def _end(self, row: str) -> str:
        return row[len(row.rstrip("\r\n")) :]

    def _find(self, name: str) -> tuple[int, int] | None:
        """The rows of a key: its value may take several."""
        starts = re.compile(rf"""[ \t]*(?:{name}|"{name}"|'{name}')[ \t]*=""")
        for first in range(1, len(self.rows)):
            if not starts.match(self.rows[first]):
                continue
            for last in range(first + 1, len(self.rows) + 1):
                with contextlib.suppress(tomllib.TOMLDecodeError):
                    tomllib.loads("".join(self.rows[first:last]))
                    return first, last
        return None

    def _insert(self, line: str) -> None:
        place = len(self.rows)
        while place > 1 and self.rows[place - 1].strip()[:1] in ("", "#"):
            place -= 1
        if not self.rows[place - 1].endswith("\n"):
            self.rows[place - 1] += self.end
        self.rows.insert(place, line + self.end)


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(map(quoted, value))}]"
        case _:
            return quoted(str(value))


def _remark(rows: list[str]) -> str:
    """The remark behind a value, with the blanks before it."""
    text = "".join(rows).rstrip("\r\n")
    value = tomllib.loads(text)
    for found in re.finditer("[ \t]*#", text):
        rest = text[found.start() :]
        with contextlib.suppress(tomllib.TOMLDecodeError):
            if "\n" not in rest and tomllib.loads(text[: found.start()]) == value:
                return rest
    return ""
