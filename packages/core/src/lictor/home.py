"""The watchman: looks after a running gate's home and its tasks, on a timer.

Rules enforced here:

1. The files that the gate was made from are looked at again and again: first whether they were
   touched at all, then whether they hold something else, or others may write them now.
2. What was changed is taken only if it is narrower; else it is said once, and effects are denied
   until the files are back as they were, or the program is started anew.
3. A task that was ended in another process ends here as well, so that its reads stop too.
4. The watch stops with its gate, goes on in a forked child, and nothing that goes wrong stops it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from lictor.ports import Store

EVERY: Final = 0.5
"""Seconds between two looks at the tasks."""
FILES_EVERY: Final = 10
"""Looks at the tasks between two at the files."""
TRIES: Final = 10
JOIN_SECONDS: Final = 5.0
BLOCK: Final = 1 << 20

Seals: TypeAlias = Mapping[Path, str]
"""What files held; empty for one that was not there."""


class Ending(Protocol):
    """What the watchman needs of a task."""

    def end(self, *, wait: bool = True) -> tuple[str, ...]:
        """Ends it now."""
        ...


def seal(paths: Iterable[Path]) -> dict[Path, str]:
    """Digests of files, and of what folders hold; with it, who may write them."""
    return {path: _seal(path) for path in paths}


def _seal(path: Path) -> str:
    try:
        found = path.lstat()
        kind = f"{stat.S_IFMT(found.st_mode):o} {found.st_mode & 0o022:o} {found.st_uid}"
        if stat.S_ISDIR(found.st_mode):
            parts = [f"{entry.name} {_seal(entry)}" for entry in sorted(path.iterdir())]
            content = "\n".join(parts).encode(errors="surrogateescape")
            return f"{kind} {hashlib.sha256(content).hexdigest()}"
        if stat.S_ISREG(found.st_mode):
            return f"{kind} {_digest(path)}"
        return kind
    except FileNotFoundError:
        return ""
    except OSError as error:  # unreadable is not what it was either
        return f"error {error.errno}"


def _digest(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            made.update(block)
    return made.hexdigest()


def _touched(paths: Iterable[Path]) -> tuple[object, ...]:
    """What changes whenever a file does: cheap, and nothing a writer can set back (`ctime`)."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> object:
    try:
        found = path.lstat()
        own = found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size
        if stat.S_ISDIR(found.st_mode):
            return own, tuple((entry.name, _stat(entry)) for entry in sorted(path.iterdir()))
        return own
    except OSError as error:
        return error.errno


class Watchman:
    """Looks after one gate. `start` begins, `stop` ends it; `tick` looks once.

    Args:
        files: What the gate was made from; folders with all that is in them.
        seals: What they held when they were read (`seal`).
        store: Knows which tasks have ended.
        tasks: The tasks that run in this process, by id.
        take: Tries to take the changed files; says why it did not, or nothing.
        hold: Is told why effects are to be denied from now on; nothing: no longer. Without it a
            change is only said: where a person edits the files beside the running program.
        alarm: Is told, once, what the operator should know.
    """

    def __init__(
        self,
        files: Iterable[Path],
        seals: Seals,
        *,
        store: Store,
        tasks: Callable[[], Mapping[str, Ending]],
        take: Callable[[], str],
        alarm: Callable[[str], None],
        hold: Callable[[str], None] | None = None,
    ) -> None:
        self._files = tuple(files)
        self._store, self._tasks = store, tasks
        self._take, self._hold, self._alarm = take, hold, alarm
        self._seals = dict(seals)
        self._touched: tuple[object, ...] | None = None
        self._refused: dict[Path, str] | None = None
        self._told = ""
        self._turn = 0
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the timer --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to look, on a thread that holds no program back from ending."""
        if self._thread is not None or self._done.is_set():
            return
        _watching.add(self)
        name = "lictor-watchman"
        self._thread = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._done), name=name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Looks no more. Idempotent."""
        self._done.set()
        _watching.discard(self)
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    def forked(self) -> None:
        """In a forked child: the thread stayed behind, and with it whatever it was holding."""
        self._lock, self._done, self._thread = threading.RLock(), threading.Event(), None
        self.start()

    def turn(self) -> None:
        """One turn of the timer: the tasks, and every so often the files."""
        self._turn += 1
        self.look_at_tasks()
        if self._turn % FILES_EVERY == 0:
            self.look_at_files()

    def tick(self) -> None:
        """Looks at everything, now."""
        self.look_at_tasks()
        self.look_at_files()

    # -- what it looks at -------------------------------------------------------------------------

    def look_at_tasks(self) -> None:
        """Ends the tasks that have been ended elsewhere."""
        try:
            live = self._live()
            for task in self._store.ended(tuple(live)) if live else ():
                with contextlib.suppress(Exception):  # one that cannot be recorded has stopped too
                    live[task].end(wait=False)
        except Exception as error:
            self._say(f"which tasks have ended cannot be read: {error}")

    def _live(self) -> dict[str, Ending]:
        """The tasks of this moment, though others begin and end meanwhile."""
        for _ in range(TRIES):
            with contextlib.suppress(RuntimeError):
                return dict(self._tasks())
        return {}

    def look_at_files(self) -> None:
        """Takes files that have become narrower, and holds effects back if they are not."""
        with self._lock:
            touched = _touched(self._files)
            if touched == self._touched:
                return
            found = seal(self._files)
            if found == self._seals:
                self._back()
            elif found != self._refused:
                self._changed(found)
            self._touched = touched

    def trust(self) -> None:
        """The files were changed by the gate itself: what they hold now is what it was made of."""
        with self._lock:
            self._seals, self._touched = seal(self._files), None
            self._back()

    def _back(self) -> None:
        if self._refused is None:
            return
        self._refused = None
        self._held_back("")
        self._say("the files are again as they were read")

    def _changed(self, found: dict[Path, str]) -> None:
        names = ", ".join(
            sorted(path.name for path in self._files if found[path] != self._seals.get(path))
        )
        self._held_back(f"{names} changed on disk")  # until it is known to be narrower
        try:
            problem = self._take()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if not problem and seal(self._files) == found:
            self._seals, self._refused = found, None
            self._held_back("")
            self._say(f"{names} changed on disk: narrower, and taken")
            return
        why = f"{names} changed on disk: {problem or 'still changing'}"
        self._refused = found
        self._held_back(why)
        self._say(why if self._hold is None else f"{why}; effects are denied until it is put back")

    def _held_back(self, why: str) -> None:
        if self._hold is not None:
            self._hold(why)

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            with contextlib.suppress(Exception):
                self._alarm(text)


def _watch(watchman: weakref.ref[Watchman], done: threading.Event) -> None:
    """Until the gate is closed, or nobody holds it any more."""
    while not done.wait(EVERY):
        held = watchman()
        if held is None:
            return
        with contextlib.suppress(Exception):
            held.turn()
        del held


_watching: weakref.WeakSet[Watchman] = weakref.WeakSet()


def _after_fork() -> None:
    for watchman in list(_watching):
        watchman.forked()


os.register_at_fork(after_in_child=_after_fork)
