"""The future of a relaxed commit, which hardly anybody ever looks at.

A `Future` (a lock, a condition, two lists) costs more to make than its record costs to hand over,
so this one is made whole only when somebody waits for it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from lictor.ports import Committed

_lock = threading.Lock()


class Later(Future[Committed]):
    """A future that comes to be at the first look."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        """Meets the first look: nothing of a `Future` is there yet."""
        with _lock:
            if "_condition" not in self.__dict__:
                early = self.__dict__.pop("early", None)
                super().__init__()
                self.set_running_or_notify_cancel()
                if early is not None:
                    end(self, *early)
        return self.__getattribute__(name)


def forked() -> None:
    """In a child process: whoever held the lock is not here to give it back."""
    global _lock
    _lock = threading.Lock()


def end(future: Future[Committed], result: Committed | None, error: Exception | None) -> None:
    """Ends a future that the writer holds, with a result or an error."""
    if error is not None:
        future.set_exception(error)
    elif result is not None:
        future.set_result(result)


def settle(
    future: Future[Committed], result: Committed | None, error: Exception | None = None
) -> None:
    """Like `end`; a `Later` that nobody has looked at only remembers it."""
    if type(future) is Later:
        with _lock:
            if "_condition" not in future.__dict__:
                future.__dict__["early"] = (result, error)
                return
    end(future, result, error)
