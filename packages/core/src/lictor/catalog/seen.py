"""`seen.json`: the definitions that gates have met, so that nobody has to import a program.

Rules enforced here:

1. The file is a note, never an authority: what stands here is reviewed before it counts.
2. It is replaced whole, is readable by its owner only, and two processes lose nothing.
3. A server cannot make it grow without end.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from lictor.canonical import Json
from lictor.model import Tool, ToolKey

MAX_SEEN: Final = 5_000
MAX_DEFINITION: Final = 524_288
"""Largest definition that is noted, in bytes."""


def read_seen(path: Path) -> dict[ToolKey, Tool]:
    """The definitions noted so far; an unreadable note is none, since gates write it anew."""
    found: dict[ToolKey, Tool] = {}
    for definition in _read(path).values():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            tool = Tool.from_definition(definition)  # type: ignore[arg-type]
            found[tool.key] = tool
    return found


def note(path: Path, tools: Iterable[Tool]) -> int:
    """Adds definitions to the note, or replaces what was known under the same names.

    Args:
        path: `.lictor/seen.json`.
        tools: What a gate has met.

    Returns:
        How many were new or different.

    Raises:
        OSError: The note cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _turn(path):
        known = _read(path)
        changed = 0
        for tool in tools:
            name, definition = str(tool.key), tool.definition()
            if known.get(name) == definition or (name not in known and len(known) >= MAX_SEEN):
                continue
            if len(json.dumps(definition)) > MAX_DEFINITION:
                continue
            known[name] = definition
            changed += 1
        if changed:
            write(path, lines({"v": 1, "tools": known}), 0o600)
    return changed


def _read(path: Path) -> dict[str, Json]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        tools = raw["tools"] if raw["v"] == 1 else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return tools if isinstance(tools, dict) else {}


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One writer at a time, where the system has file locks."""
    handle = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lines(value: Mapping[str, Json]) -> str:
    """JSON for people and version control: sorted, one item a line, nothing but ASCII."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def write(path: Path, text: str, mode: int) -> None:
    """Replaces a file whole: readers see the old one or the new one."""
    spare = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(spare, mode)
        os.replace(spare, path)
    except BaseException:
        spare.unlink(missing_ok=True)
        raise
