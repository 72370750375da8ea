"""What ran is what was decided about, argument by argument."""

from __future__ import annotations

from lictor.testing.adapter_suite.driver import Driver
from lictor.testing.adapter_suite.trial import attempt, demand, nothing_ran, opened, recorded
from lictor.testing.adapter_suite.world import Call, World


def mutated(driver: Driver) -> None:
    """A list that somebody else holds is changed while the guard decides: the first values run."""
    items = [1]

    def change(_: Call) -> None:
        items.append(1000)

    world = World(during=change)
    with opened(driver, world) as session:
        said = attempt(session.call, driver.paths[0], "act", {"n": 3, "items": items})
        demand(len(world.asked) == 1, f"decided {len(world.asked)}x ({said})")
        demand(world.ran in ([], world.asked), f"ran {world.ran}, decided {world.asked}")
        recorded(session, 1, "arguments changed meanwhile")


def coerced(driver: Driver) -> None:
    """Values of other types: refused, or decided about as they run (`opened` compares)."""
    for n in ("5", 5.0, True, "five", None, [5], {"n": 5}, 10**30):
        world = World()
        with opened(driver, world) as session:
            attempt(session.call, driver.paths[0], "act", {"n": n})
            recorded(session, 1, f"{n!r}")
        kinds = [type(call.arguments.get("n")) for call in world.ran]
        demand(all(kind in (int, float) for kind in kinds), f"{n!r} ran as {kinds}")


def unknown_argument(driver: Driver) -> None:
    """An argument that the tool does not have does not reach the body undecided."""
    world = World()
    with opened(driver, world) as session:
        attempt(session.call, driver.paths[0], "act", {"n": 3, "cc": "everybody"})
        recorded(session, 1, "an argument too many")


def no_arguments(driver: Driver) -> None:
    """A call without what the tool demands runs nothing, whatever the host makes of it."""
    world = World()
    with opened(driver, world) as session:
        attempt(session.call, driver.paths[0], "act", {})
        nothing_ran(world)
        recorded(session, 1, "arguments left out")
