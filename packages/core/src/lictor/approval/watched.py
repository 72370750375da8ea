"""The channel to `lictor watch`: another terminal, which answers through the store.

Rules enforced here:

1. Nobody is asked where nobody watches: a watcher holds a lock, which goes with its process.
2. A wait that ends leaves the ask: it can still be answered, and the task be resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lictor.ports import Ask, Reply, Store

WAIT: Final = 120.0
POLL: Final = 0.03
NOBODY: Final = "nobody is watching; run: lictor watch"


class Watched:
    """Waits until somebody at `lictor watch` has answered."""

    lasting = True

    def __init__(self, store: Store, lock: Path, *, wait: float = WAIT) -> None:
        self._store, self._lock, self._wait = store, lock, wait

    def ready(self, ask: Ask) -> str:
        """Whether somebody watches."""
        return "" if _held(self._lock) else NOBODY

    def answer(self, ask: Ask) -> Reply:
        """Waits for the stored ask to be answered."""
        deadline = time.monotonic() + self._wait
        while time.monotonic() < deadline and not ask.gone.wait(POLL):
            row = self._store.ask(ask.id)
            if row is None or row.state != "pending":
                break
        return Reply("pending", ask.id)


@contextlib.contextmanager
def watching(lock: Path) -> Iterator[None]:
    """Tells gates that somebody watches, for as long as the block lasts.

    Raises:
        OSError: The lock cannot be made.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _held(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
