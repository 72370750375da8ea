"""No other tool, and no other way to the same one, runs under a decision."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lictor.testing.adapter_suite.driver import Driver, Probe
from lictor.testing.adapter_suite.trial import (
    SECONDS,
    attempt,
    demand,
    nothing_ran,
    opened,
    recorded,
)
from lictor.testing.adapter_suite.world import Call, World


def only(name: str) -> Callable[[Call], bool]:
    """An answer that allows one tool."""
    return lambda call: call.name == name


def raw_entrances(driver: Driver) -> None:
    """No entrance of the guarded tool leads around the guard."""
    for shape in driver.shapes:
        world = World(answer=False)
        with opened(driver, world, Probe(shape=shape)) as session:
            for label, enter in session.raw("act").items():
                attempt(enter, driver.arguments(shape, 3))
                nothing_ran(world, f"{shape} {label}")


def renamed(driver: Driver) -> None:
    """A denied tool under the name of an allowed one."""
    world = World(answer=only("fine"))
    with opened(driver, world, Probe(), Probe("fine")) as session:
        said = attempt(session.rename, "act", "fine")
        demand("act" not in {call.name for call in world.ran}, f"act ran ({said})")


def swapped(driver: Driver) -> None:
    """Another tool runs where an allowed one was called."""
    world = World(answer=only("act"))
    with opened(driver, world, Probe(), Probe("other", effect=True)) as session:
        said = attempt(session.swap, "act", "other")
        demand("other" not in {call.name for call in world.ran}, f"other ran ({said})")


def added(driver: Driver) -> None:
    """A tool that came after the guard is not run."""
    world = World(answer=only("act"))
    with opened(driver, world) as session:
        said = attempt(session.add, Probe("late", known=False))
        nothing_ran(world, said)


def shadowed(driver: Driver) -> None:
    """A second tool under an allowed name: its body does not run for the first."""
    world = World(answer=only("act"))
    with opened(driver, world) as session:
        said = attempt(session.shadow, Probe("act", known=False, body="second"))
        demand("second" not in {call.name for call in world.ran}, f"the second ran ({said})")


def invented(driver: Driver) -> None:
    """A name that does not exist runs nothing, and the attempt is on record."""
    world = World()
    with opened(driver, world) as session:
        attempt(session.call, driver.paths[0], "act", {"n": 3})
        before = len(world.ran)
        attempt(session.call, driver.paths[0], "acts", {"n": 3})
        demand(len(world.ran) == before == 1, f"ran {world.ran}")
        recorded(session, 2, "a call and an invented name")


def retried(driver: Driver) -> None:
    """What the host does again after a denial is not asked again and again."""
    world = World(answer=False)
    with opened(driver, world) as session:
        said = attempt(session.retry, "act", {"n": 3})
        nothing_ran(world, said)
        demand(len(world.asked) == 1, f"decided {len(world.asked)}x ({said})")


def fallen_back(driver: Driver) -> None:
    """A denial does not lead to the fallback."""
    world = World(answer=False)
    with opened(driver, world) as session:
        said = attempt(session.fall_back, "act", {"n": 3}, Probe("back", known=False))
        nothing_ran(world, said)


def replayed(driver: Driver) -> None:
    """One call of the host made twice: its effect happens once."""
    world = World()
    with opened(driver, world, Probe(effect=True)) as session:
        said = attempt(session.replay, "act", {"n": 3})
        demand(len(world.ran) <= 1, f"ran {len(world.ran)}x ({said})")
        demand(len(world.ran) == 1, f"it did not run at all ({said})")
        recorded(session, 2, "one call made twice")


def without_context(driver: Driver) -> None:
    """A thread that lost its context is decided about, or denied."""
    for allowed in (False, True):
        world = World(answer=allowed)
        with opened(driver, world) as session:
            worker = threading.Thread(
                target=attempt, args=(lambda: session.call(driver.paths[0], "act", {"n": 3}),)
            )
            worker.start()
            worker.join(SECONDS)
            if not allowed:
                nothing_ran(world)


def nobody(driver: Driver) -> None:
    """Without any task nobody has authority."""
    world = World(task=False)
    with opened(driver, world) as session:
        said = attempt(session.call, driver.paths[0], "act", {"n": 3})
        nothing_ran(world, said)
        recorded(session, 1, "a call without a task")


def lists(driver: Driver) -> None:
    """What is not offered cannot be called, and what is offered can."""
    world = World(answer=only("act"))
    with opened(driver, world, Probe(), Probe("hidden", known=False)) as session:
        listed = session.listed()
        for name in ("act", "hidden"):
            attempt(session.call, driver.paths[0], name, {"n": 3})
        ran = {call.name for call in world.ran}
        demand(ran == listed, f"offered {sorted(listed)}, ran {sorted(ran)}")
        recorded(session, 2, "one that is offered and one that is not")
