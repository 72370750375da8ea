"""One trial of a guard, and what every trial demands.

Rules tried here:

1. What ran was decided about, with these arguments, and for each decision it ran once at most.
2. Each attempt is one decision on record, of a guard that keeps a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from lictor.testing.adapter_suite.driver import Driver, Missing, Probe, Session
from lictor.testing.adapter_suite.world import World

SECONDS: Final = 30.0
"""Longer than any guard may take; only a trial that fails waits as long."""


Ask: TypeAlias = Callable[[Driver], None]


class Broken(AssertionError):
    """The guard did not hold; says what happened."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a trial ended.

    Attributes:
        trial: Its id.
        state: `held`, `broken` or `not applicable`.
        text: What happened, or why it does not apply.
    """

    trial: str
    state: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One question to a guard.

    Attributes:
        id: Its name; with the shape and the path where there are any.
        title: What must hold.
        attacks: Known bypasses that it tries, by the ids of the attack list.
        ask: Raises `Broken` or `Missing`.
        part: `paths` for one cell of shapes and paths, else `failures`.
        cell: Shape, path and verdict of such a cell.
    """

    id: str
    title: str
    attacks: tuple[str, ...]
    ask: Ask
    part: str = "failures"
    cell: tuple[str, str, str] = ("", "", "")

    def run(self, driver: Driver) -> Result:
        """Tries the guard."""
        try:
            self.ask(driver)
        except Missing as why:
            return Result(self.id, "not applicable", str(why))
        except Broken as what:
            return Result(self.id, "broken", str(what))
        return Result(self.id, "held")


def demand(holds: bool, text: str) -> None:
    """What must hold.

    Raises:
        Broken: It does not.
    """
    if not holds:
        raise Broken(text)


@contextmanager
def opened(driver: Driver, world: World, *probes: Probe) -> Iterator[Session]:
    """Tools under the guard; afterwards nothing has run that was not decided about."""
    with driver.open(world, *(probes or (Probe(),))) as session:
        yield session
    ran, asked = Counter(world.ran), Counter(world.asked)
    for call, times in ran.items():
        demand(times <= asked[call], f"{call} ran {times}x and was decided {asked[call]}x")


def records(session: Session) -> list[str] | None:
    """Decisions on record; `None` for a guard that keeps none."""
    try:
        return session.recorded()
    except Missing:
        return None


def recorded(session: Session, times: int, what: str) -> None:
    """Demands so many decisions on record, of a guard that keeps a record."""
    found = records(session)
    demand(found is None or len(found) == times, f"{what}: {found} on record, {times} expected")


def attempt(do: Callable[..., Any], *given: Any) -> str:
    """What came of a call: its text, or the exception as text."""
    try:
        return str(do(*given))
    except Missing:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def nothing_ran(world: World, said: str = "") -> None:
    """Demands that no body has run."""
    ran = ", ".join(map(str, world.ran))
    demand(not world.ran, f"ran undecided or denied: {ran}" + (f" ({said})" if said else ""))


def every_path(driver: Driver) -> Iterator[tuple[str, str]]:
    """Each path with the plainest shape that can go it."""
    for path in driver.paths:
        for shape in driver.shapes:
            if not driver.impossible(shape, path):
                yield shape, path
                break
