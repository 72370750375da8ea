"""The two drivers of the one pipeline.

Rules enforced here:

1. The pipeline is a generator; it yields `Io` (a future to wait for) or `Body` (run the tool now)
   and is sent `Ended`. No exception of a body or of the host is ever thrown into it.
2. Waiting is shielded: cancelling the caller does not cancel a commit. The pipeline learns that the
   caller is gone (`interrupted`) and settles before the driver lets the cancellation through; no
   body starts any more.
3. The driver re-raises the body's own exception, unchanged.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as first_wait
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from lictor.errors import Withheld
from lictor.model import Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Io:
    """Wait for this future, at most so many seconds.

    Attributes:
        future: What to wait for.
        seconds: How long.
        stop: Tells whoever works on it that nobody waits any more.
    """

    future: Future[Any]
    seconds: float
    stop: Callable[[], None] | None = None

    def stopped(self) -> None:
        """The wait is over before the work is."""
        if self.stop is not None:
            self.stop()


class Body(NamedTuple):
    """Run the tool with these arguments."""

    args: dict[str, object]


class Ended(NamedTuple):
    """How an `Io` or a `Body` ended.

    Attributes:
        outcome: Of a body; `done` or `failed` for an `Io`.
        value: What it gave.
        error: What it raised.
        interrupted: The caller was cancelled or interrupted meanwhile; start nothing more.
    """

    outcome: Outcome
    value: Any = None
    error: BaseException | None = None
    interrupted: bool = False


Steps: TypeAlias = Generator[Io | Body, Ended, None]
Pauses: TypeAlias = tuple[type[BaseException], ...]


def body_ended(error: BaseException, pauses: Pauses) -> Ended:
    """What a body that raised has left behind."""
    if isinstance(error, Withheld):
        return Ended(Outcome.DONE, error=error)
    if isinstance(error, pauses):
        return Ended(Outcome.SUSPENDED, error=error)
    if isinstance(error, Exception):
        return Ended(Outcome.FAILED, error=error)
    return Ended(Outcome.UNKNOWN, error=error)


def run(
    steps: Steps,
    body: Callable[[dict[str, object]], T],
    pauses: Pauses,
    left: Future[None] | None = None,
) -> T:
    """Drives the pipeline on this thread.

    Args:
        steps: The pipeline.
        body: What to run.
        pauses: Exceptions of the host that leave the body suspended.
        left: Done when the caller, who waits on another thread, is gone.
    """
    ended: Ended | None = None
    interruption: BaseException | None = None
    command = next(steps)
    while True:
        if left is not None and left.done():
            interruption = interruption or asyncio.CancelledError()
        if isinstance(command, Body) and interruption is not None:
            result = ended = Ended(Outcome.NOT_STARTED)
        elif isinstance(command, Body):
            try:
                result = ended = Ended(Outcome.DONE, value=_at_once(body(command.args)))
            except BaseException as error:
                result = ended = body_ended(error, pauses)
        else:
            result, stopped = wait(command, left)
            interruption = interruption or stopped
        try:
            command = steps.send(result)
        except StopIteration:
            break
        except Exception:
            if interruption is not None:
                raise interruption from None
            raise
    value: T = _finish(ended, interruption)
    return value


def _at_once(value: T) -> T:
    """Refuses a body that has not run: its coroutine would run later, under no authority."""
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("the body is a coroutine function: use arun")
    return value


def wait(command: Io, left: Future[None] | None = None) -> tuple[Ended, BaseException | None]:
    """Waits on this thread.

    Args:
        command: For what, and how long.
        left: See `run`.

    Returns:
        How it ended, and the interruption of this thread or its caller meanwhile, if any.
    """
    try:
        if left is not None and _outlived(command, left):
            raise asyncio.CancelledError
        error = command.future.exception(command.seconds)
    except Exception as late:
        command.stopped()
        return Ended(Outcome.FAILED, error=late), None
    except BaseException as stop:
        # Ctrl-C while a commit is on its way to the disk: learn how it ended, then stop.
        command.stopped()
        ended, again = wait(command)
        return Ended(ended.outcome, ended.value, ended.error, interrupted=True), again or stop
    if error is not None:
        return Ended(Outcome.FAILED, error=error), None
    return Ended(Outcome.DONE, value=command.future.result()), None


def _outlived(command: Io, left: Future[None]) -> bool:
    """Waits for either; whether the caller is gone and the work is not done."""
    first_wait((command.future, left), command.seconds, FIRST_COMPLETED)
    return left.done() and not command.future.done()


async def arun(
    steps: Steps, body: Callable[[dict[str, object]], Awaitable[T]], pauses: Pauses
) -> T:
    """Drives the pipeline on the running event loop, never blocking it."""
    ended: Ended | None = None
    interruption: BaseException | None = None
    command = next(steps)
    while True:
        if isinstance(command, Body) and interruption is not None:
            result = ended = Ended(Outcome.NOT_STARTED)
        elif isinstance(command, Body):
            try:
                result = ended = Ended(Outcome.DONE, value=await body(command.args))
            except BaseException as error:
                result = ended = body_ended(error, pauses)
        else:
            result, stopped = await _await(command)
            interruption = interruption or stopped
        try:
            command = steps.send(result)
        except StopIteration:
            break
        except Exception:
            if interruption is not None:
                raise interruption from None
            raise
    value: T = _finish(ended, interruption)
    return value


async def _await(command: Io) -> tuple[Ended, BaseException | None]:
    waiter = asyncio.wrap_future(command.future)
    stop: BaseException | None = None
    deadline = asyncio.get_running_loop().time() + command.seconds
    while not waiter.done():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            break
        try:
            await asyncio.wait({waiter}, timeout=left)
        except asyncio.CancelledError as cancelled:
            stop = cancelled
            command.stopped()
    if not waiter.done():
        command.stopped()
        waiter.add_done_callback(lambda late: late.cancelled() or late.exception())  # heard, late
        return Ended(Outcome.FAILED, error=TimeoutError(), interrupted=stop is not None), stop
    error = asyncio.InvalidStateError() if waiter.cancelled() else waiter.exception()
    if error is not None:
        return Ended(Outcome.FAILED, error=error, interrupted=stop is not None), stop
    return Ended(Outcome.DONE, value=waiter.result(), interrupted=stop is not None), stop


def _finish(ended: Ended | None, interruption: BaseException | None) -> Any:
    if interruption is not None:
        raise interruption
    if ended is None:  # INVARIANT: a pipeline that ends without a body has raised.
        raise AssertionError("the pipeline ended without a body and without a denial")
    if ended.error is not None:
        raise ended.error
    return ended.value
