"""A command that decides something refuses to be run by the very agent it decides about.

This is a hint to an agent that has a shell, and no wall: a process that detaches itself from its
parents, or another account's, is not recognised.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from lictor.errors import ConfigError, StoreError
from lictor.store.stream import Process, process_start

WATCH: Final = "watch"
"""Placement of the streams that `lictor watch` opens: it guards nothing."""
_MADE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'stream'"
_OPEN: Final = (
    "SELECT pid, started FROM stream WHERE closed = 0 AND host = ? AND boot = ? AND placement != ?"
)


def refuse_under_gate(store_path: Path) -> None:
    """Refuses if a process above this one writes the store as a gate.

    Args:
        store_path: The store of the project in question.

    Raises:
        ConfigError: It does.
        StoreError: The store cannot be read.
    """
    if not store_path.exists():
        return
    here = Process.here()
    try:
        with closing(sqlite3.connect(f"{store_path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            made = db.execute(_MADE).fetchone()  # its writer may only just have begun
            gates = set(db.execute(_OPEN, (here.host, here.boot, WATCH)) if made else ())
    except sqlite3.Error as error:
        raise StoreError(
            f"{store_path}: cannot be read as a store: {error}", "lictor audit verify"
        ) from error
    for pid in ancestors():
        if (pid, process_start(pid)) in gates:
            raise ConfigError(
                "lictor",
                f"this was started by process {pid}, whose calls the gate decides; what decides "
                "about a program is not for that program to run",
                "run it in a terminal of your own",
            )


def ancestors() -> Iterator[int]:
    """The processes above this one, the nearest first."""
    pid, seen = os.getppid(), {0}
    while pid not in seen:
        seen.add(pid)
        yield pid
        pid = _parent(pid)


def _parent(pid: int) -> int:
    """The parent of a process; 0 if that cannot be said."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return 0
    try:
        done = subprocess.run(  # noqa: S603
            ["/bin/ps", "-o", "ppid=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        return int(done.stdout.strip() or 0)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
