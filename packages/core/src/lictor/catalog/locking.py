"""`lictor catalog lock`: from definitions that were met to entries that a person decides on.

Rules enforced here:

1. Nothing is classified here: a new tool gets `impact = []`, which denies it.
2. A pin that somebody has decided on moves only for the tools that are accepted by name.
3. In the human file only pin lines and whole new entries are written; the rest keeps its bytes.
   What would read back differently is not written.
4. A damaged lock is set aside and made anew from what gates have met, under the same pins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from lictor.canonical import Json
from lictor.catalog.seen import lines, write
from lictor.errors import ConfigError
from lictor.forms import visible
from lictor.model import Tool, ToolKey

if TYPE_CHECKING:
    from lictor.catalog.entries import Entry

HEADER: Final = re.compile(r"[ \t]*\[\[[ \t]*tool[ \t]*\]\]")
TABLE: Final = re.compile(r"[ \t]*\[")
TURN_SECONDS: Final = 10.0
"""How long to wait for another writer."""
_PIN: Final = re.compile(r"[ \t]*pin[ \t]*=")
TOP: Final = """\
# The tools that agents may use, as reviewed by a person. Lictor appends entries and moves pins;
# everything else is yours. impact: read write delete send transfer execute; [] is denied.
"""


@dataclass(frozen=True, slots=True)
class LockResult:
    """What locking did.

    Attributes:
        added: New entries; they wait for an impact.
        moved: Entries whose pin was moved.
        waiting: Entries that have changed and were not accepted.
    """

    added: tuple[ToolKey, ...]
    moved: tuple[ToolKey, ...]
    waiting: tuple[ToolKey, ...]


def lock(
    catalog_toml: Path,
    catalog_lock: Path,
    seen: Mapping[ToolKey, Tool],
    accept: Collection[ToolKey] = (),
) -> LockResult:
    """Writes new entries, moved pins and definitions.

    Args:
        catalog_toml: The human file; written if it does not exist.
        catalog_lock: Definitions; likewise.
        seen: What gates have met (`read_seen`).
        accept: Tools whose change the operator accepts.

    Raises:
        ConfigError: The human file is wrong, or written so that its pins cannot be found.
    """
    with writing(catalog_toml):
        return _lock(catalog_toml, catalog_lock, seen, accept)


def _lock(
    catalog_toml: Path,
    catalog_lock: Path,
    seen: Mapping[ToolKey, Tool],
    accept: Collection[ToolKey],
) -> LockResult:
    from lictor.catalog import entries

    text = entries.text_of(catalog_toml) if catalog_toml.exists() else TOP
    listed = {
        ToolKey(each.server, each.name): each for each in entries.parsed(catalog_toml, text).tool
    }
    locked = _locked(catalog_lock)
    added = [key for key in sorted(seen) if key not in listed]
    moved, waiting = _sort(listed, seen, accept)
    pins = {key: seen[key].pin for key in moved}
    changed = _moved(catalog_toml, text, list(listed), pins) if pins else text
    changed += "".join(entry_text(seen[key]) for key in added)
    _verify(catalog_toml, changed, listed, pins, {key: seen[key].pin for key in added})
    for key, tool in seen.items():
        if key in added or key in moved or listed[key].pin == tool.pin:
            locked[key] = tool
    document = {key: tool for key, tool in locked.items() if key in listed or key in seen}
    put(catalog_lock, locked_text(document))
    if changed != text or not catalog_toml.exists():
        put(catalog_toml, changed)
    return LockResult(tuple(added), tuple(moved), tuple(waiting))


def _locked(path: Path) -> dict[ToolKey, Tool]:
    """The definitions so far. A damaged lock is set aside: the pins say what may stand in it."""
    from lictor.catalog.entries import read_lock

    if not path.exists():
        return {}
    try:
        return read_lock(path)
    except ConfigError:
        path.replace(path.with_name(path.name + ".damaged"))
        return {}


def locked_text(tools: Mapping[ToolKey, Tool]) -> str:
    """What `catalog.lock` holds."""
    named: dict[str, Json] = {str(key): tool.definition() for key, tool in tools.items()}
    return lines({"v": 1, "tools": named})


def put(path: Path, text: str) -> None:
    """Replaces a file, which keeps its rights.

    Raises:
        ConfigError: The folder or the disk does not take it.
    """
    try:
        write(path, text, path.stat().st_mode & 0o777 if path.exists() else 0o644)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be written: {error.strerror}", f"make {path.parent} writable"
        ) from None


@contextlib.contextmanager
def writing(catalog_toml: Path) -> Iterator[None]:
    """One writer at a time, among threads and processes; the folder itself is what is locked.

    Raises:
        ConfigError: There is no such folder, or another writer does not finish.
    """
    import fcntl

    folder = catalog_toml.parent
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            str(folder), f"cannot be opened: {error.strerror}", "check the folder"
        ) from None
    try:
        deadline = time.monotonic() + TURN_SECONDS
        while not _taken(handle, fcntl):
            if time.monotonic() >= deadline:
                raise ConfigError(
                    str(folder), "is held by another program", "end what writes the catalog there"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _taken(handle: int, fcntl: ModuleType) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sort(
    listed: Mapping[ToolKey, Entry], seen: Mapping[ToolKey, Tool], accept: Collection[ToolKey]
) -> tuple[list[ToolKey], list[ToolKey]]:
    """Entries whose pin moves, and entries that wait for the operator."""
    moved: list[ToolKey] = []
    waiting: list[ToolKey] = []
    for key, entry in listed.items():
        if key in seen and seen[key].pin != entry.pin:
            undecided = not entry.impact and not entry.blocked
            (moved if undecided or key in accept else waiting).append(key)
    return moved, waiting


def _moved(path: Path, text: str, order: list[ToolKey], pins: Mapping[ToolKey, str]) -> str:
    """The text with other pin lines."""
    rows = text.splitlines(keepends=True)
    headers = [n for n, row in enumerate(rows) if HEADER.match(row)]
    if len(headers) != len(order):
        raise ConfigError(
            str(path), "its entries cannot be told apart", "write each entry as [[tool]]"
        )
    for key, header in reversed(list(zip(order, headers, strict=True))):
        if key in pins:
            _place(rows, header, f'pin = "{pins[key]}"\n')
    return "".join(rows)


def _place(rows: list[str], header: int, line: str) -> None:
    for n in range(header + 1, len(rows)):
        if TABLE.match(rows[n]):
            break
        if _PIN.match(rows[n]):
            rows[n] = line
            return
    if not rows[header].endswith("\n"):
        rows[header] += "\n"
    rows.insert(header + 1, line)


def _verify(
    path: Path,
    text: str,
    listed: Mapping[ToolKey, Entry],
    pins: Mapping[ToolKey, str],
    added: Mapping[ToolKey, str],
) -> None:
    """Reads the new text back: the entries of before with their new pins, and the new ones."""
    from lictor.catalog.entries import Entry, parsed

    wanted = [
        each.model_copy(update={"pin": pins.get(key, each.pin)}) for key, each in listed.items()
    ]
    wanted += [Entry(server=key.server, name=key.name, pin=pin) for key, pin in added.items()]
    if parsed(path, text).tool != wanted:
        raise ConfigError(
            str(path),
            "its pins cannot be written without touching something else",
            'write each pin on a line of its own: pin = "sha256:…"',
        )


def entry_text(tool: Tool) -> str:
    """A new entry that waits for an impact."""
    words = visible(tool.description.strip())
    about = words if len(words) <= 160 else words[:157] + "..."
    arguments = tool.input_schema.get("properties", {})
    names = ", ".join(visible(str(name)) for name in arguments) if arguments else "none"  # type: ignore[attr-defined]
    return (
        f"\n[[tool]]\nserver = {quoted(tool.key.server)}\nname = {quoted(tool.key.name)}\n"
        f"# {about}\n# arguments: {names}\nimpact = []\npin = {quoted(tool.pin)}\n"
    )


def quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
