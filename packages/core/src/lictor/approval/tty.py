"""One terminal as a device: opened, put into key mode, read key by key, put back.

Rules enforced here:

1. The modes found are the modes left, whatever ends the question; at exit too.
2. Signals of the keyboard keep working (Ctrl-C, Ctrl-Z), and a program in the background of its
   terminal neither reads from it nor changes it. Ctrl-C ends the question as well: in a program
   whose main thread waits for the thread that asks, the signal alone would end neither.
3. An arrow key, a function key, a key with Alt or a pasted text is no key press.
4. Nothing here waits longer than it was told to: reading and writing never block.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import os
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

DEVICE: Final = "/dev/tty"
WATCH: Final = "run: lictor watch (in another terminal)"
SPLIT: Final = 0.1
"""Seconds in which the rest of a key's escape sequence follows."""
INTERRUPT: Final = "\x03"
_CHUNK: Final = 4_096
_STOPS: Final = {signal.SIGTTIN, signal.SIGTTOU}


class NoTerminal(Exception):
    """Nobody can be asked at this terminal; the text says why and what helps."""


def device(path: str) -> int:
    """Opens a terminal.

    Raises:
        NoTerminal: There is none, or it is not one.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        none = error.errno in (errno.ENXIO, errno.ENOENT, errno.ENODEV, errno.EIO)
        why = "this program has no terminal" if none else f"{path}: {error.strerror}"
        raise NoTerminal(f"{why}; {WATCH}") from None
    if not os.isatty(handle):
        os.close(handle)
        raise NoTerminal(f"{path} is no terminal; {WATCH}")
    return handle


def behind(handle: int) -> str:
    """Why this process may not use the terminal now; empty in its foreground."""
    try:
        front = os.tcgetpgrp(handle)
    except OSError as error:
        # Not our controlling terminal: no job control there that could stop us.
        return "" if error.errno == errno.ENOTTY else f"the terminal is gone; {WATCH}"
    if front == os.getpgrp():
        return ""
    return f"this program runs in the background of its terminal; bring it back (fg), or {WATCH}"


def number(handle: int, path: str) -> int:
    """The device number of a terminal, alike in all processes that have it."""
    if path != DEVICE:
        return os.fstat(handle).st_rdev
    try:
        text = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        found = int(text.rpartition(")")[2].split()[4])
        if found:
            return found
    except (OSError, ValueError, IndexError):
        pass
    for standard in (0, 1, 2):
        with contextlib.suppress(OSError):
            return os.stat(os.ttyname(standard)).st_rdev
    return os.fstat(handle).st_rdev


_held: dict[int, tuple[int, list[Any]]] = {}
"""Handles in key mode: the process that did it, and the modes to put back."""


@atexit.register
def _restore_all() -> None:
    for handle in list(_held):
        _restore(handle)


def _restore(handle: int) -> None:
    process, before = _held.get(handle, (0, []))
    if process == os.getpid():
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(handle, termios.TCSANOW, before)
    _held.pop(handle, None)  # last: an interrupt before it leaves the rest to the exit


def _key_mode(before: list[Any]) -> list[Any]:
    changed = [*before[:6], list(before[6])]
    changed[0] = (changed[0] | termios.ICRNL) & ~(termios.INLCR | termios.IGNCR)
    changed[1] |= termios.OPOST | termios.ONLCR
    changed[3] = (changed[3] | termios.ISIG) & ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    changed[6][termios.VINTR] = b"\0"  # read as a key, and made a signal by `_signal`
    return changed


class Tty:
    """An open terminal in key mode. Make it with `taken`.

    Attributes:
        handle: The open device.
        interrupted: Ctrl-C was pressed.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.interrupted = False
        self._keys = Keys()
        self._enter()

    def _enter(self) -> None:
        try:
            before = termios.tcgetattr(self.handle)
            _held.setdefault(self.handle, (os.getpid(), before))
            termios.tcsetattr(self.handle, termios.TCSANOW, _key_mode(before))
        except termios.error:
            raise NoTerminal(f"the terminal is gone; {WATCH}") from None

    def again(self) -> bool:
        """Goes back into key mode if something has left it (a stop and `fg`), and says so."""
        try:
            lost = termios.tcgetattr(self.handle)[3] & (termios.ICANON | termios.ECHO)
        except termios.error:
            raise NoTerminal(f"the terminal is gone; {WATCH}") from None
        if not lost or behind(self.handle):
            return False
        self._enter()
        return True

    def keys(self, seconds: float) -> list[str]:
        """Waits for key presses; those that come at once are one list, perhaps of none.

        Raises:
            NoTerminal: The terminal has gone.
        """
        if not _ready(self.handle, seconds, write=False):
            return self._keys.late()
        if behind(self.handle):
            time.sleep(min(seconds, 0.05))  # what is typed now is not for us
            return []
        try:
            data = os.read(self.handle, _CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise NoTerminal(f"the terminal is gone; {WATCH}")
        found = self._keys.feed(data)
        if INTERRUPT not in found:
            return found
        self._signal()
        return []

    def _signal(self) -> None:
        """What the terminal does at Ctrl-C while nobody has taken it."""
        self.interrupted = True
        os.killpg(os.getpgrp(), signal.SIGINT)

    def forget(self) -> None:
        """Drops what was typed so far and not yet read, but for Ctrl-C."""
        self._keys = Keys()
        with contextlib.suppress(OSError):  # nothing left to read, or a terminal that has gone
            while not behind(self.handle) and (typed := os.read(self.handle, _CHUNK)):
                if INTERRUPT.encode() in typed:
                    self._signal()
        with contextlib.suppress(termios.error):
            termios.tcflush(self.handle, termios.TCIFLUSH)

    def write(self, data: bytes, seconds: float = 0.05) -> bytes:
        """Writes what the terminal takes now, waiting at most so long for it to take any.

        Returns:
            What is left.

        Raises:
            NoTerminal: The terminal has gone.
        """
        if not _ready(self.handle, seconds, write=True):
            return data
        try:
            return data[os.write(self.handle, data[:_CHUNK]) :]
        except BlockingIOError:
            return data
        except OSError:
            raise NoTerminal(f"the terminal is gone; {WATCH}") from None

    def size(self) -> os.terminal_size:
        """Columns and rows."""
        try:
            found = os.get_terminal_size(self.handle)
        except OSError:
            return os.terminal_size((80, 24))
        return os.terminal_size((found.columns or 80, found.lines or 24))


@contextlib.contextmanager
def taken(handle: int) -> Iterator[Tty]:
    """Takes an open terminal into key mode for a block, and closes it.

    Raises:
        NoTerminal: It has gone.
    """
    # Blocked in this thread, a read or a change of modes in the background fails instead of
    # stopping the whole program.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield Tty(handle)
    finally:
        _restore(handle)
        os.close(handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _ready(handle: int, seconds: float, *, write: bool) -> bool:
    if sys.platform == "darwin":  # poll does not know terminals there
        readers, writers = ([], [handle]) if write else ([handle], [])
        return any(select.select(readers, writers, [], seconds)[:2])
    poll = select.poll()
    poll.register(handle, select.POLLOUT if write else select.POLLIN)
    return bool(poll.poll(seconds * 1_000))


_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~]|[^\[O\x1b])")
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_PASTE: Final = ("\x1b[200~", "\x1b[201~")


class Keys:
    """Turns what a terminal sends into key presses of one character each."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._since = 0.0
        self._pasting = False

    def feed(self, data: bytes) -> list[str]:
        """The key presses in it; what may go on is kept."""
        text, self._rest = self._rest + self._decode.decode(data), ""
        found: list[str] = []
        place = 0
        while place < len(text):
            if self._pasting:
                place = self._skip_paste(text, place)
            elif text[place] != "\x1b":
                found.append("\n" if text[place] == "\r" else text[place])
                place += 1
            else:
                place = self._skip_sequence(text, place)
        return found

    def late(self) -> list[str]:
        """An escape that nothing followed was the key itself."""
        if not self._rest or self._pasting or time.monotonic() - self._since < SPLIT:
            return []
        self._rest = ""
        return ["\x1b"]

    def _skip_paste(self, text: str, place: int) -> int:
        end = text.find(_PASTE[1], place)
        if end >= 0:
            self._pasting = False
            return end + len(_PASTE[1])
        self._rest = text[max(place, len(text) - len(_PASTE[1]) + 1) :]
        return len(text)

    def _skip_sequence(self, text: str, place: int) -> int:
        match = _SEQUENCE.match(text, place)
        if match:
            self._pasting = match[0] == _PASTE[0]
            return match.end()
        if _BEGUN.match(text, place):
            self._rest, self._since = text[place:], time.monotonic()
            return len(text)
        return place + 1
