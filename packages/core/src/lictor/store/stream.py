"""Who writes a stream, whether he still lives, and what becomes of the calls of the dead.

Rules enforced here:

1. A stream belongs to one opened store of one process: host, boot, pid and process start time.
2. On the same host a writer is dead when no process has its pid and start time; on another host
   (another PID namespace counts as one) when its heartbeat is older than 30 s.
3. The started calls of a dead or closed stream become `unknown`, each exactly once, by
   compare-and-set, with a `recovery` record in the stream of the finder. What they reserved
   stays reserved.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lictor.ports import Entry
from lictor.store import statements as s
from lictor.store.chain import Chain
from lictor.store.database import Statements

SILENCE: Final = 30.0
"""Seconds without heartbeat after which a writer on another host counts as dead."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so that another with the same pid is not mistaken for it."""

    host: str
    boot: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(_host(), _boot(), pid, process_start(pid) or 0)


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; `None` if there is no such process.

    Where the system has no `/proc`, every process that exists has start time 0.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _exists(pid)


def _exists(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def _host() -> str:
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{space}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def death(row: Sequence[Any], now: int) -> str:
    """Why the writer of a stream row counts as gone; empty while it may live.

    Args:
        row: id, host, boot, pid, started, beat, closed.
        now: Microseconds since the epoch.
    """
    _, host, boot, pid, started, beat, closed = row
    if closed:
        return "closed"
    if host != _host():
        return "silent" if now - beat > SILENCE * 1e6 else ""
    if boot != _boot():
        return "rebooted"
    return "" if process_start(pid) == started else "exited"


def owing(sql: Statements, stream: str, now: int) -> list[tuple[str, str]]:
    """Other streams with started calls whose writer is gone, and why."""
    rows = sql.rows(s.STREAMS_OWING, {"p_id": stream})
    return [(row[0], why) for row in rows if (why := death(row, now))]


def recover(sql: Statements, chain: Chain, now: int) -> list[str]:
    """Turns the started calls of gone writers into `unknown`, inside the open transaction.

    Returns:
        Their ids.
    """
    found: list[str] = []
    for stream, why in owing(sql, chain.stream, now):
        for call, tenant, task, tool, decision in sql.rows(s.CALLS_STARTED, {"p_stream": stream}):
            if not sql.run(s.CALL_SETTLE, {"p_id": call, "p_outcome": "unknown"}):
                continue
            entry = Entry(
                "recovery",
                now,
                {"of": stream, "why": why, "decision": decision},
                call=call,
                tenant=tenant,
                task=task,
                tool=tool,
                verdict="unknown",
            )
            sql.run(s.RECORD_ADD, chain.seal(entry))
            found.append(call)
    return found
