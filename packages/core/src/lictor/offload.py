"""Blocking ports: each on a thread, so many at once, and nobody takes the places of all.

Rules enforced here:

1. A blocking port runs in a daemon thread with the caller's context, so that one that hangs can
   neither block the event loop nor keep the process from ending.
2. So many run at once; past that, calls are denied instead of queued. Questions to people, which
   stand for minutes, have places of their own and take none from policy.
3. Who has as many places as are free gets no further one: the last one goes to somebody who has
   none.
4. A place is taken until its thread is over, whether or not anybody still waits for it.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


class Whose(NamedTuple):
    """Whom a call is made for: not a task, of which one user can have any number.

    Attributes:
        tenant: The tenant.
        user: The user; the owner of an autonomous agent.
    """

    tenant: str
    user: str


class Busy(Exception):
    """There is no place for one more."""


class Share:
    """Places for blocking calls of one kind.

    Args:
        places: How many there are.
        what: What is under way there, for the operator.
    """

    def __init__(self, places: int, what: str) -> None:
        self.places, self.what = places, what
        self.forked()

    def forked(self) -> None:
        """In a forked child: the threads, and whoever had the lock, stayed behind."""
        self._lock, self._taken = threading.Lock(), Counter[Whose]()

    def take(self, whose: Whose) -> None:
        """Takes a place.

        Raises:
            Busy: All are taken, or as many are taken for this user as are free.
        """
        with self._lock:
            mine, all_ = self._taken[whose], self._taken.total()
            if mine >= self.places - all_:
                raise Busy(
                    f"{all_} of {self.places} {self.what} are under way, {mine} of them for "
                    f"{whose.user}; nobody may have more than are left"
                )
            self._taken[whose] += 1

    def free(self, whose: Whose) -> None:
        """Gives a place back."""
        with self._lock:
            if self._taken[whose] > 1:
                self._taken[whose] -= 1
            else:  # or it was forked in here: then none is taken
                del self._taken[whose]


PORTS: Final = Share(128, "calls of policy engines and waits for a turn")
PEOPLE: Final = Share(48, "questions to people")


def offload(function: Callable[[], T], whose: Whose, share: Share = PORTS) -> Future[T]:
    """Runs a blocking port in a daemon thread that has the caller's context.

    Args:
        function: Calls the port.
        whose: Whom for.
        share: Where it takes a place.

    Returns:
        What it gives or raises; `Busy` if there is no place for it.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # nobody can take back what a thread works on
    try:
        share.take(whose)
    except Busy as busy:
        future.set_exception(busy)
        return future
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:
            share.free(whose)
            _fail(future, error)
        else:
            share.free(whose)  # before it is told: whoever has the answer can ask again
            future.set_result(result)

    try:
        threading.Thread(target=work, daemon=True, name="lictor-port").start()
    except RuntimeError as error:  # the system gives no more threads
        share.free(whose)
        future.set_exception(error)
    return future


def _fail(future: Future[T], error: BaseException) -> None:
    if isinstance(error, StopIteration):  # no future of an event loop can carry one
        error = RuntimeError(f"the port raised {error!r}")
    future.set_exception(error)


def _after_fork() -> None:
    for share in (PORTS, PEOPLE):
        share.forked()


os.register_at_fork(after_in_child=_after_fork)
