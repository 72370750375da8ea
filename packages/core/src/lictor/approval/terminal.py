"""Asking at the controlling terminal: one question at a time, one key for an answer.

Rules enforced here:

1. A question takes its turn among the threads of this process and all programs of this user on
   the same terminal; who waits for the turn still notices that his caller is gone.
2. What was typed before the prompt stood is no answer; nor is a key of several bytes, a paste, or
   more than one key at once.
3. No answer in time, a caller that is gone, and a terminal that goes away are three different
   errors, and none of them is an answer.
4. Only visible text is shown: `forms.visible` for whatever a model, a tool or a host wrote; and no
   row is left to the terminal to break, whatever its width.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lictor.approval import tty
from lictor.approval.render import confirm_lines, digest_of, fitted, full_lines, is_cut
from lictor.approval.tty import WATCH, NoTerminal, Tty
from lictor.forms import visible
from lictor.model import Assurance
from lictor.ports import Ask, Reply

SECONDS: Final = 120.0
GLANCE: Final = 0.05
"""Seconds between looks at whether the caller is gone."""
LEAVE: Final = 0.5
"""Seconds in which a program that was interrupted lets go of its question, if it can."""
LOOK: Final = 0.2
"""Seconds between looks at whether the ask was answered elsewhere."""
TURNS: Final = Path("/tmp")  # noqa: S108
"""Where the turns are taken: one place for all programs, whatever each calls its own."""
_ENTER: Final = "\n"
_RUBOUT: Final = ("\x7f", "\b")
_MAX_LINE: Final = 200


class Unanswered(Exception):
    """Nobody answered in time."""


class Gone(Exception):
    """The caller is gone; the answer would help nobody."""


class Leaving(Protocol):
    """Tells whether the caller is gone: an `Event`, or something like it."""

    def is_set(self) -> bool:
        """Whether he is."""
        ...


class Screen:
    """The terminal while a question stands. Each method may raise the three errors of rule 3."""

    def __init__(self, device: Tty, gone: Leaving, seconds: float) -> None:
        self._tty, self._gone, self._seconds = device, gone, seconds
        self._deadline = time.monotonic() + seconds

    @property
    def rows(self) -> int:
        """Height of the terminal."""
        return self._tty.size().lines

    @property
    def columns(self) -> int:
        """Width of the terminal."""
        return self._tty.size().columns

    def say(self, text: str) -> None:
        """Shows a line (or several); the caller has made it visible."""
        self._write("".join(f"{row}\n" for row in fitted(text.split("\n"), self.columns)))

    def key(self, prompt: str, allowed: str, *, many: bool = False) -> str:
        """Waits for one key out of `allowed`, or Enter.

        Args:
            prompt: Shown after everything typed so far was dropped.
            allowed: Lower-case letters; a capital one counts as its small one.
            many: Collects several keys until Enter.

        Returns:
            The key; empty for Enter. With `many`, the keys in the order they were pressed.
        """
        self._prompt(prompt)
        chosen, told = "", False
        while True:
            keys = self._keys(prompt + chosen)
            if not many and len(keys) > 1 and keys[1:] != [_ENTER]:
                keys, told = ["?"], False  # a word, or a paste: nobody has chosen one of the keys
            for key in keys:
                if key == _ENTER:
                    self._write("\n")
                    return chosen
                if many and key in _RUBOUT:
                    chosen = self._rub_out(chosen)
                elif key.lower() not in allowed or not key.strip():
                    told = told or self._explain(prompt + chosen, allowed)
                elif not many:
                    self._write(f"{key.lower()}\n")
                    return key.lower()
                elif key.lower() not in chosen:
                    chosen += key.lower()
                    self._write(key.lower())

    def line(self, prompt: str) -> str:
        """Waits for a short text, ended with Enter; empty if nothing was typed."""
        self._prompt(prompt)
        text = ""
        while True:
            for key in self._keys(prompt + text):
                if key == _ENTER:
                    self._write("\n")
                    return text.strip()
                if key in _RUBOUT:
                    text = self._rub_out(text)
                elif visible(key) in (key, "\\\\") and len(text) < _MAX_LINE:
                    text += key
                    self._write(key)

    def _prompt(self, prompt: str) -> None:
        self._deadline = time.monotonic() + self._seconds
        self._tty.forget()
        self._write(prompt)

    def _rub_out(self, text: str) -> str:
        if text:
            self._write("\b \b")
        return text[:-1]

    def _explain(self, prompt: str, allowed: str) -> bool:
        self._write(f"\n  (one key: {', '.join(allowed)} or Enter)\n{prompt}")
        return True

    def _keys(self, standing: str) -> list[str]:
        while True:
            self._check()
            if self._tty.again():
                self._write(f"\n{standing}")
            keys = self._tty.keys(GLANCE)
            if keys:
                return keys

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            self._check()
            data = self._tty.write(data, GLANCE)

    def _check(self) -> None:
        if self._tty.interrupted:
            self._leave()
        if self._gone.is_set():
            raise Gone("nobody waits for the answer any more")
        if time.monotonic() >= self._deadline:
            raise Unanswered(f"nobody answered in {self._seconds:g} s")

    def _leave(self) -> None:
        """The program learns of its interruption first, and says so in its record."""
        until = time.monotonic() + LEAVE
        while time.monotonic() < until and not self._gone.is_set():
            time.sleep(0.01)
        raise Gone("interrupted")


class Terminal:
    """The controlling terminal of this process, one question at a time."""

    def __init__(self, device: str = tty.DEVICE) -> None:
        self._device = device

    def ready(self) -> str:
        """Empty if a person can be asked here; else why not, and what helps."""
        try:
            handle = tty.device(self._device)
        except NoTerminal as error:
            return str(error)
        try:
            return tty.behind(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def question(self, gone: Leaving, seconds: float = SECONDS) -> Iterator[Screen]:
        """Takes the turn and the terminal for one question; not for a question inside it.

        Args:
            gone: Set, from another thread, when the caller is gone.
            seconds: Time for each key or line, and to wait for the turn.

        Raises:
            NoTerminal: Nobody can be asked here.
            Unanswered: The turn did not come, or the time was over.
            Gone: The caller is gone.
        """
        handle = tty.device(self._device)
        try:
            turn = _turn_file(tty.number(handle, self._device))
        except NoTerminal:
            os.close(handle)
            raise
        try:
            _wait_for(turn, gone, seconds)
            with tty.taken(os.dup(handle)) as device:
                unready = tty.behind(handle)
                if unready:
                    raise NoTerminal(unready)
                yield from _asked(Screen(device, gone, seconds), device)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(turn, fcntl.LOCK_UN)  # a child forked meanwhile shares the handle
            os.close(turn)
            os.close(handle)


def _asked(screen: Screen, device: Tty) -> Iterator[Screen]:
    """The block; a question that ends without an answer is taken back in words."""
    try:
        yield screen
    except (Unanswered, Gone, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        with contextlib.suppress(NoTerminal):
            device.write(f"\n  (the question is withdrawn: {why})\n".encode())
        raise


def _turn_file(terminal: int) -> int:
    path = TURNS / f"lictor-{os.geteuid()}-tty-{terminal}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoTerminal(f"{path}: {error.strerror}; remove it, or {WATCH}") from None
    found = os.fstat(handle)
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise NoTerminal(f"{path} is not a file of ours; remove it, or {WATCH}")
    return handle


def _wait_for(turn: int, gone: Leaving, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if gone.is_set():
                raise Gone("nobody waits for the answer any more") from None
            time.sleep(GLANCE)
            if time.monotonic() >= deadline:
                problem = f"another question stood at this terminal for {seconds:g} s"
                raise Unanswered(problem) from None


@dataclass(slots=True)
class _GoneOrSettled:
    """A caller that is gone, or an answer that came by another way."""

    ask: Ask
    settled: Callable[[str], bool]
    _looked: float = 0.0

    def is_set(self) -> bool:
        if self.ask.gone.is_set():
            return True
        now = time.monotonic()
        if not self.ask.id or now - self._looked < LOOK:
            return False
        self._looked = now
        return self.settled(self.ask.id)


@dataclass(frozen=True, slots=True)
class AtTerminal:
    """The channel that asks at the terminal of this process. An `Approvals`.

    Attributes:
        terminal: Where.
        by: Who sits there, as far as the operating system knows.
        seconds: How long a question stands.
        settled: Tells whether an ask, by its id, was answered elsewhere meanwhile.
    """

    terminal: Terminal
    by: str
    seconds: float = SECONDS
    settled: Callable[[str], bool] | None = None

    @property
    def lasting(self) -> bool:
        """When the question has gone, nobody can answer it."""
        return False

    def ready(self, ask: Ask) -> str:
        """Why nobody can be asked at this terminal, or nothing."""
        return self.terminal.ready()

    def answer(self, ask: Ask) -> Reply:
        """Shows the call exactly, and waits for a key."""
        lines = confirm_lines(ask)
        shown = digest_of(lines)
        seconds = min(self.seconds, ask.expires - time.time()) if ask.expires else self.seconds
        try:
            with self.terminal.question(self._gone(ask), max(seconds, 0.0)) as screen:
                state = "granted" if agreed(screen, lines, ask) else "rejected"
        except Unanswered as error:
            return self._reply("expired", shown, str(error))
        except (NoTerminal, Gone) as error:
            return self._reply("unavailable", shown, str(error))
        return self._reply(state, shown)

    def _gone(self, ask: Ask) -> Leaving:
        return ask.gone if self.settled is None else _GoneOrSettled(ask, self.settled)

    def _reply(self, state: str, shown: str, detail: str = "") -> Reply:
        by = self.by if state in ("granted", "rejected") else ""
        return Reply(state, "", by, "terminal", Assurance.DEV.value, shown=shown, detail=detail)


def agreed(screen: Screen, lines: Iterable[str], ask: Ask) -> bool:
    """Shows a question about a call and waits for yes or no; `v` shows it all first."""
    for line in lines:
        screen.say(line)
    keys, offer = ("ynv", ", [v]iew all") if is_cut(ask) else ("yn", "")
    while True:
        key = screen.key(f"Run exactly this call? [y/N{offer}] ", keys)
        if key != "v":
            return key == "y"
        show_pages(screen, full_lines(ask))


def show_pages(screen: Screen, lines: list[str]) -> None:
    """Shows long text page by page."""
    size, lines = max(screen.rows - 2, 5), fitted(lines, screen.columns)
    for start in range(0, len(lines), size):
        screen.say("\n".join(lines[start : start + size]))
        left = len(lines) - start - size
        if left > 0 and screen.key(f"-- {left:,} more lines: [Enter] next, [q] back -- ", "q"):
            return
