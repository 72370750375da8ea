"""A server's process: started with little, ended for certain.

Rules enforced here:

1. A server gets an allow-listed environment, and nothing of ours.
2. A message is a line; one that is too long is left out, and said so.
3. A process is asked to end, then told, then killed, with all that it started in its group. If we
   are killed ourselves, a keeper does it: no process is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from lictor_mcp.guard import Failed
from lictor_mcp.wire import INTERNAL_ERROR, MAX_BYTES

ENVIRONMENT: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH",
    "SHELL", "TERM", "TMPDIR", "TZ", "USER",
)  # fmt: skip
"""What every server gets of our environment; everything else must be named."""

GRACE: Final = 2.0
NOT_THERE: Final = "The server is not there."
_KEEP: Final = """\
trap '' HUP INT TERM
last=
while read -r line; do last=$line; done
[ -n "$last" ] || exit 0
for group in $last; do kill -TERM "-$group"; done
sleep 1
for group in $last; do kill -KILL "-$group"; done
"""
_log: Final = logging.getLogger("lictor.mcp")


class TooLong(Exception):
    """A line was longer than a message may be; it has been read past."""


def environment(more: Sequence[str] = (), given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of an upstream server.

    Args:
        more: Names of ours that it gets as well.
        given: Values set for it.
    """
    names = (*ENVIRONMENT, *more)
    return {**{name: os.environ[name] for name in names if name in os.environ}, **(given or {})}


class Keeper:
    """A small process that outlives us by a moment, to end what we could not.

    It reads which process groups there are, one line each time; when its input ends without an
    empty line before, we were killed.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, in a session of its own: what ends us together does not reach it."""
        self._process = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _KEEP],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )

    def keep(self, group: int) -> None:
        """This group is to end with us."""
        self._groups.add(group)
        self._tell()

    def drop(self, group: int) -> None:
        """This group has ended."""
        self._groups.discard(group)
        self._tell()

    def _tell(self) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(" ".join(map(str, sorted(self._groups))).encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Ends it; groups that are left end now."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait(10)


class Child:
    """The process of a server.

    Args:
        command: Program and arguments.
        env: Its environment.
        cwd: The folder that it starts in; ours if left out.
        keeper: Ends it if we are killed.
        errors: Where its stderr goes; to ours if left out.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | None = None,
        keeper: Keeper | None = None,
        errors: int | None = None,
    ) -> None:
        self._command, self._env, self._cwd = tuple(command), dict(env), cwd
        self._keeper, self._errors = keeper, errors
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own; 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> asyncio.StreamReader:
        """Starts it, and gives what it writes.

        Raises:
            OSError: It cannot be started.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            env=self._env,
            cwd=self._cwd,
            limit=MAX_BYTES,
            start_new_session=True,
        )
        if self._keeper is not None:
            self._keeper.keep(self._process.pid)
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout

    async def send(self, raw: bytes) -> None:
        """Writes one message.

        Raises:
            Failed: It is not there.
        """
        writer = self._process.stdin if self._process is not None else None
        if writer is None or writer.is_closing():
            raise Failed({"code": INTERNAL_ERROR, "message": NOT_THERE}, ours=True)
        try:
            writer.write(raw + b"\n")
            await writer.drain()
        except (ConnectionError, RuntimeError):
            raise Failed({"code": INTERNAL_ERROR, "message": NOT_THERE}, ours=True) from None

    async def stop(self) -> None:
        """Ends it and everything that it started in its group.

        Who is cancelled here has not ended it: then it is still ours, for the next one to end.
        """
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                _kill(process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
                break
        _kill(process.pid, signal.SIGKILL)  # what it has left behind
        if self._process is process:
            self._process = None
            if self._keeper is not None:
                self._keeper.drop(process.pid)


def _kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def line_of(reader: asyncio.StreamReader) -> bytes | None:
    """One line; `None` at the end, which half a line is too.

    Raises:
        TooLong: The line was longer than a message may be; the next one can be read.
    """
    long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            if end.partial.strip():
                _log.warning("half a message before the end was dropped")
            return None
        except ConnectionError:
            return None
        except asyncio.LimitOverrunError as over:
            long = True
            await reader.readexactly(over.consumed)
            continue
        if long:
            raise TooLong
        return line
