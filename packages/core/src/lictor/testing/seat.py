"""A person at a terminal, for tests: a program runs on a pseudo-terminal and is typed at."""

from __future__ import annotations

import codecs
import contextlib
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from fcntl import ioctl
from types import TracebackType
from typing import Any, Final

WAIT: Final = 30.0
_SIT_DOWN: Final = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[78=>])|\r")


class Seat:
    """One pseudo-terminal with a program in its foreground.

    Args:
        argv: The program, by its absolute path, and its arguments.
        env: More environment.
        rows: Height of the terminal.
        columns: Width of the terminal.
        hear: Told what comes, as it comes.
        more: For `subprocess.Popen` (`cwd`, …); `stdin` and `stdout` may be other than the
            terminal, as long as `stdin` is it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rows: int = 40,
        columns: int = 120,
        hear: Callable[[bytes], None] = lambda data: None,
        **more: Any,
    ) -> None:
        self.master, self.slave = pty.openpty()
        ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.seen = ""
        self._mark = 0
        self._hear = hear
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        given = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **more}
        self.program = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", _SIT_DOWN, *argv],
            env={**os.environ, "TERM": "xterm", **(env or {})},
            **given,
        )

    def until(self, text: str, seconds: float = WAIT) -> str:
        """Reads until a text is on the screen, and returns what came with it.

        Raises:
            AssertionError: It did not come; says what did.
        """
        deadline = time.monotonic() + seconds
        while text not in self.seen[self._mark :]:
            if time.monotonic() >= deadline or not self.look(0.1):
                raise AssertionError(f"{text!r} did not come; seen:\n{self.seen}")
        end = self.seen.index(text, self._mark) + len(text)
        found, self._mark = self.seen[self._mark : end], end
        return found

    def press(self, keys: str) -> None:
        """Presses keys."""
        os.write(self.master, keys.encode())

    def rest(self, seconds: float = WAIT) -> str:
        """Waits for the program to end, and returns what else it showed."""
        deadline = time.monotonic() + seconds
        while self.program.poll() is None and time.monotonic() < deadline:
            self.look(0.05)
        code = self.program.wait(timeout=max(deadline - time.monotonic(), 0.1))
        while select.select([self.master], [], [], 0)[0] and self.look(0):
            pass
        found, self._mark = self.seen[self._mark :], len(self.seen)
        return f"{found}[exit {code}]"

    def modes(self) -> list[Any]:
        """The modes of the terminal, to be compared."""
        return termios.tcgetattr(self.slave)

    def hang_up(self) -> None:
        """Closes the terminal under the program."""
        for handle in (self.slave, self.master):
            with contextlib.suppress(OSError):
                os.close(handle)
        self.master = self.slave = -1

    def close(self) -> None:
        """Ends the program and the terminal."""
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        if self.master >= 0:
            self.hang_up()

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def look(self, seconds: float = 0.0) -> bool:
        """Reads what has come, waiting a little for it; false when the terminal is gone."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65_536)
        except OSError:
            return False
        self._hear(data)
        self.seen += _ESCAPES.sub("", self._decode.decode(data))
        return bool(data)
