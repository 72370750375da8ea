"""Calls that are cancelled, meet each other, or come out of one another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from lictor.testing.adapter_suite.driver import Driver, Missing, Probe, Session
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

MANY: Final = 8
MEET: Final = 0.3
"""Seconds that one call waits for another to be decided about at the same time."""


def cancelled_while_deciding(driver: Driver) -> None:
    """The caller goes while the engine thinks: the body does not start afterwards."""
    go, came, late = threading.Event(), threading.Event(), threading.Event()

    def wait(_: Call) -> None:
        came.set()
        if not go.wait(SECONDS):
            late.set()  # nobody could go while it thought: whatever comes now proves nothing

    world = World(slow=True, during=wait)

    async def main(session: Session) -> None:
        call = asyncio.ensure_future(session.acall("act", {"n": 3}))
        reached = await asyncio.to_thread(came.wait, SECONDS)
        blocked = not reached or late.is_set()
        demand(not blocked, "the guard asked nobody, or blocks the event loop meanwhile")
        call.cancel()
        await asyncio.wait({call}, timeout=1.0)  # a guard may wait for its engine, or not
        go.set()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await call

    with opened(driver, world) as session:
        asyncio.run(main(session))
        nothing_ran(world)
        recorded(session, 1, "a cancelled attempt")


def fails_inside(driver: Driver) -> None:
    """A body that raises has run once, for one decision, and is not run again."""

    def burst(_: Call) -> str:
        raise ValueError("burst")

    for shape, path in every_path(driver):
        world = World(inside=burst)
        with opened(driver, world, Probe(shape=shape, effect=False)) as session:
            attempt(session.call, path, "act", driver.arguments(shape, 3))
            demand(len(world.ran) >= 1, f"{path}: it did not run")
            demand(len(world.ran) == len(world.asked), f"{path}: {world.ran} for {world.asked}")
            recorded(session, len(world.asked), path)


def threads(driver: Driver) -> None:
    """Many threads at once: each call is decided on its own arguments."""
    pair = threading.Barrier(2)

    def meet(_: Call) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            pair.wait(MEET)  # a guard may also decide one after the other: then nobody waits again

    world = World(answer=lambda call: call.arguments["n"] % 2 == 0, during=meet)
    with opened(driver, world) as session:
        context = contextvars.copy_context()

        def one(n: int) -> str:
            inside = context.copy()
            return inside.run(
                attempt, lambda: session.call(driver.paths[0], "act", {"n": n, "items": [n]})
            )

        with ThreadPoolExecutor(MANY) as pool:
            said = list(pool.map(one, range(2 * MANY)))
        _only_even(world, said)
        recorded(session, 2 * MANY, "calls in threads")


def together(driver: Driver) -> None:
    """Many calls at once on one event loop."""
    world = World(answer=lambda call: call.arguments["n"] % 2 == 0)

    async def main(session: Session) -> list[Any]:
        calls = (session.acall("act", {"n": n, "items": [n]}) for n in range(2 * MANY))
        return await asyncio.gather(*calls, return_exceptions=True)

    with opened(driver, world) as session:
        said = asyncio.run(main(session))
        for each in said:
            if isinstance(each, Missing):
                raise each
        _only_even(world, said)
        recorded(session, 2 * MANY, "calls on one loop")


def _only_even(world: World, said: list[Any]) -> None:
    ran = sorted(call.arguments["n"] for call in world.ran)
    demand(ran == [n for n in range(2 * MANY) if n % 2 == 0], f"ran {ran} ({said[:2]})")
    items = [call.arguments.get("items") == [call.arguments["n"]] for call in world.ran]
    demand(all(items), f"arguments crossed: {world.ran}")


def nested(driver: Driver) -> None:
    """A body that calls another tool: that one is decided on its own."""
    world = World(answer=lambda call: call.name == "act")
    with opened(driver, world, Probe(), Probe("other")) as session:
        world.inside = lambda call: (
            attempt(session.call, driver.paths[0], "other", {"n": 9})
            if call.name == "act"
            else "no"
        )
        attempt(session.call, driver.paths[0], "act", {"n": 3})
        demand([call.name for call in world.ran] == ["act"], f"ran {world.ran}")
        demand(len(world.asked) == 2, f"decided {world.asked}")
        recorded(session, 2, "a call in a call")


def re_entrant(driver: Driver) -> None:
    """A body that calls its own tool again, with other arguments or the same: decided again."""
    for n in (9, 3):
        world = World()
        _only_the_first(driver, world, n)


def _only_the_first(driver: Driver, world: World, n: int) -> None:
    world.answer = lambda _: len(world.asked) == 1
    with opened(driver, world) as session:
        world.inside = lambda _: (
            attempt(session.call, driver.paths[0], "act", {"n": n}) if len(world.ran) == 1 else "no"
        )
        attempt(session.call, driver.paths[0], "act", {"n": 3})
        ran = [call.arguments["n"] for call in world.ran]
        demand(ran == [3], f"ran {world.ran}")
        recorded(session, 2, "a call in itself")
