"""An engine or a record that fails: nothing runs."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from lictor.testing.adapter_suite.driver import Driver, Probe
from lictor.testing.adapter_suite.trial import (
    SECONDS,
    attempt,
    demand,
    every_path,
    nothing_ran,
    opened,
    recorded,
)
from lictor.testing.adapter_suite.world import Call, World


class Interruption(BaseException):
    """Not an `Exception`: what `except Exception` lets through."""


def raises(driver: Driver) -> None:
    """On no path does an error of the engine run anything."""
    _runs_nothing(driver, ValueError("no engine"))


def interrupts(driver: Driver) -> None:
    """Nor does what `except Exception` lets through."""
    _runs_nothing(driver, Interruption("no engine"))


def _runs_nothing(driver: Driver, answer: BaseException) -> None:
    for shape, path in every_path(driver):
        world = World(answer=answer)
        with opened(driver, world, Probe(shape=shape)) as session:
            said = attempt(session.call, path, "act", driver.arguments(shape, 3))
            nothing_ran(world, f"{path}: {said}")
            recorded(session, 1, path)


class Likely:
    """Equal to everything, and true."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        return True


def nonsense(driver: Driver) -> None:
    """Answers that are not `True`."""
    answers: list[Any] = [None, "allow", 1, 1.0, [], {"allow": True}, Likely()]
    for answer in answers:
        world = World(answer=answer)
        with opened(driver, world) as session:
            said = attempt(session.call, driver.paths[0], "act", {"n": 3})
            nothing_ran(world, f"{answer!r}: {said}")


def hangs(driver: Driver) -> None:
    """The engine does not answer; when it does, after the guard gave up, nothing starts."""
    go, came = threading.Event(), threading.Event()

    def wait(_: Call) -> None:
        came.set()
        go.wait(SECONDS)

    world = World(answer=True, slow=True, during=wait)
    with opened(driver, world) as session:
        inside = contextvars.copy_context()
        call = (session.call, driver.paths[0], "act", {"n": 3})
        worker = threading.Thread(target=inside.run, args=(attempt, *call), daemon=True)
        worker.start()
        demand(came.wait(SECONDS), "the guard asked nobody")
        worker.join(SECONDS / 3)
        waits = worker.is_alive()
        go.set()
        worker.join(SECONDS)
        demand(not waits, "the guard waits for its engine without end")
        nothing_ran(world)


def no_record(driver: Driver) -> None:
    """The record cannot be kept: an effect does not run."""
    world = World()
    with opened(driver, world, Probe(effect=True)) as session:
        session.lose_record()
        said = attempt(session.call, driver.paths[0], "act", {"n": 3})
        nothing_ran(world, said)
