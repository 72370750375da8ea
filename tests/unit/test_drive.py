"""The two drivers: the same generator, driven on a thread and on an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from typing import Any

import pytest

from lictor import drive
from lictor.drive import Body, Ended, Io, Steps
from lictor.model import Outcome
from lictor.offload import Whose, offload

WAIT = 20.0
ME = Whose("local", "alice")


class Panic(BaseException):
    """What an engine in another language raises."""


class Heard:
    """A pipeline that does as told and keeps what it is sent."""

    def __init__(self, *commands: Io | Body, then: Exception | None = None) -> None:
        self.sent: list[Ended] = []
        self.thrown: list[BaseException] = []
        self._commands, self._then = commands, then

    def steps(self) -> Generator[Io | Body, Ended, None]:
        for command in self._commands:
            try:
                self.sent.append((yield command))
            except BaseException as error:
                self.thrown.append(error)
                raise
        if self._then is not None:
            raise self._then


def done(value: object = None, error: BaseException | None = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return future


def sync(steps: Steps, body: Callable[[dict[str, object]], Any], pauses: Any = ()) -> Any:
    return drive.run(steps, body, pauses)


def on_loop(steps: Steps, body: Callable[[dict[str, object]], Any], pauses: Any = ()) -> Any:
    async def abody(args: dict[str, object]) -> Any:
        return body(args)

    return asyncio.run(drive.arun(steps, abody, pauses))


DRIVERS = pytest.mark.parametrize("drive_", [sync, on_loop])


@DRIVERS
def test_the_body_gets_the_arguments_and_the_caller_its_result(drive_: Any) -> None:
    heard = Heard(Io(done(7), 1), Body({"n": 1}))
    assert drive_(heard.steps(), lambda args: args) == {"n": 1}
    assert [each.value for each in heard.sent] == [7, {"n": 1}]
    assert [each.outcome for each in heard.sent] == [Outcome.DONE, Outcome.DONE]


@DRIVERS
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("x"), Outcome.FAILED),
        (StopAsyncIteration("x"), Outcome.FAILED),
        (LookupError("pause"), Outcome.SUSPENDED),
        (Panic("x"), Outcome.UNKNOWN),
        (GeneratorExit("x"), Outcome.UNKNOWN),
    ],
)
def test_what_a_body_raises_is_never_thrown_in_and_comes_out_unchanged(
    drive_: Any, error: BaseException, outcome: Outcome
) -> None:  # rules 1, 3
    def body(args: dict[str, object]) -> None:
        raise error

    heard = Heard(Body({}))
    with pytest.raises(type(error)) as caught:
        drive_(heard.steps(), body, (LookupError,))
    assert caught.value is error
    assert heard.thrown == []
    assert [each.outcome for each in heard.sent] == [outcome]


@pytest.mark.parametrize("error", [StopIteration(5), KeyboardInterrupt(), SystemExit(3)])
def test_a_sync_body_may_raise_what_ends_generators_and_programs(error: BaseException) -> None:
    def body(args: dict[str, object]) -> None:
        raise error

    heard = Heard(Body({}))
    with pytest.raises(type(error)) as caught:
        sync(heard.steps(), body)
    assert caught.value is error
    assert len(heard.sent) == 1


def test_a_body_that_is_cancelled_has_an_unknown_outcome() -> None:
    async def main() -> Heard:
        entered = asyncio.Event()

        async def body(args: dict[str, object]) -> None:
            entered.set()
            await asyncio.Event().wait()

        heard = Heard(Body({}))
        task = asyncio.create_task(drive.arun(heard.steps(), body, ()))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return heard

    heard = asyncio.run(main())
    assert [each.outcome for each in heard.sent] == [Outcome.UNKNOWN]


def test_a_cancelled_wait_is_finished_first_and_starts_no_body() -> None:  # rule 2
    async def main() -> tuple[Heard, list[object]]:
        commit: Future[int] = Future()
        runs: list[object] = []

        async def body(args: dict[str, object]) -> None:
            runs.append(args)

        heard = Heard(Io(commit, WAIT), Io(done(2), WAIT), Body({}))
        task = asyncio.create_task(drive.arun(heard.steps(), body, ()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()  # a second one changes nothing
        await asyncio.sleep(0)
        assert not task.done()
        commit.set_result(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not commit.cancelled()
        return heard, runs

    heard, runs = asyncio.run(main())
    assert runs == []
    assert [each.interrupted for each in heard.sent] == [True, False, False]
    assert heard.sent[-1].outcome is Outcome.NOT_STARTED


class CtrlC(Future[int]):
    """A future whose waiter meets Ctrl-C the first time."""

    met = False

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.met:
            self.met = True
            raise KeyboardInterrupt
        return super().exception(timeout)


def test_ctrl_c_during_a_wait_is_finished_first_and_starts_no_body() -> None:
    commit = CtrlC()
    commit.set_result(1)
    runs: list[object] = []
    heard = Heard(Io(commit, WAIT), Body({}))
    with pytest.raises(KeyboardInterrupt):
        sync(heard.steps(), runs.append)
    assert runs == []
    assert heard.sent[0] == Ended(Outcome.DONE, 1, interrupted=True)
    assert heard.sent[1].outcome is Outcome.NOT_STARTED


@DRIVERS
@pytest.mark.parametrize("error", [Panic("rust"), StopIteration(), OSError("x"), SystemExit(1)])
def test_whatever_a_port_raises_reaches_the_pipeline_as_a_value(
    drive_: Any, error: BaseException
) -> None:
    def port() -> None:
        raise error

    heard = Heard(Io(offload(port, ME), WAIT), then=ValueError("denied"))
    with pytest.raises(ValueError, match="denied"):
        drive_(heard.steps(), lambda args: args)
    assert not heard.sent[0].interrupted
    assert isinstance(heard.sent[0].error, type(error) | RuntimeError)


@DRIVERS
def test_a_wait_past_its_deadline_is_a_timeout(drive_: Any) -> None:
    heard = Heard(Io(Future(), 0.01), then=ValueError("denied"))
    with pytest.raises(ValueError, match="denied"):
        drive_(heard.steps(), lambda args: args)
    assert isinstance(heard.sent[0].error, TimeoutError)


@DRIVERS
def test_a_cancelled_future_is_an_error(drive_: Any) -> None:
    future: Future[int] = Future()
    future.cancel()
    heard = Heard(Io(future, WAIT), then=ValueError("denied"))
    with pytest.raises(ValueError, match="denied"):
        drive_(heard.steps(), lambda args: args)
    assert heard.sent[0].error is not None


@DRIVERS
def test_a_denial_passes(drive_: Any) -> None:
    runs: list[object] = []
    with pytest.raises(ValueError, match="denied"):
        drive_(Heard(then=ValueError("denied")).steps(), runs.append)
    assert runs == []


@DRIVERS
def test_a_pipeline_that_ends_without_a_body_is_no_success(drive_: Any) -> None:
    with pytest.raises((AssertionError, StopIteration, RuntimeError)):
        drive_(Heard().steps(), lambda args: args)
    with pytest.raises(AssertionError):
        drive_(Heard(Io(done(), 1)).steps(), lambda args: args)


def test_a_coroutine_is_not_a_result_of_the_sync_driver() -> None:
    """Its code would run after the record said `done`, under whatever authority is there then."""
    runs: list[object] = []

    async def body(args: dict[str, object]) -> None:
        runs.append(args)

    heard = Heard(Body({}))
    with pytest.raises(TypeError, match="use arun"):
        sync(heard.steps(), body)
    assert runs == []
    assert heard.sent[0].outcome is Outcome.FAILED


def test_a_hanging_port_does_not_block_the_event_loop() -> None:
    async def main() -> None:
        release = threading.Event()
        heard = Heard(Io(offload(lambda: release.wait(WAIT), ME), WAIT), Body({}))

        async def body(args: dict[str, object]) -> str:
            return "ran"

        task = asyncio.create_task(drive.arun(heard.steps(), body, ()))
        await asyncio.sleep(0)
        assert not task.done()  # this line would not be reached if the loop were blocked
        release.set()
        assert await task == "ran"

    asyncio.run(main())


def test_a_body_can_be_any_awaitable() -> None:
    def body(args: dict[str, object]) -> Awaitable[int]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(9)
        return future

    assert asyncio.run(drive.arun(Heard(Body({})).steps(), body, ())) == 9


def test_a_wait_whose_caller_left_on_another_thread_is_finished_first_and_starts_no_body() -> None:
    work: Future[Any] = Future()
    left: Future[None] = Future()
    runs: list[object] = []
    told = threading.Event()

    def stop() -> None:
        told.set()
        work.set_result(1)

    heard = Heard(Io(work, WAIT, stop), Body({}))
    threading.Timer(0.01, lambda: left.set_result(None)).start()
    with pytest.raises(asyncio.CancelledError):
        drive.run(heard.steps(), runs.append, (), left)

    assert (runs, told.is_set()) == ([], True)
    assert heard.sent[0] == Ended(Outcome.DONE, 1, interrupted=True)
    assert heard.sent[1].outcome is Outcome.NOT_STARTED


def test_who_left_before_anything_was_waited_for_starts_nothing() -> None:
    left: Future[None] = Future()
    left.set_result(None)
    runs: list[object] = []
    heard = Heard(Body({}))
    with pytest.raises(asyncio.CancelledError):
        drive.run(heard.steps(), runs.append, (), left)
    assert (runs, heard.sent[0].outcome) == ([], Outcome.NOT_STARTED)
