"""Every shape of tool on every path of the host, allowed and denied."""

from __future__ import annotations

from dataclasses import dataclass

from lictor.testing.adapter_suite.driver import Driver, Missing, Probe
from lictor.testing.adapter_suite.trial import (
    Trial,
    attempt,
    demand,
    nothing_ran,
    opened,
    recorded,
    records,
)
from lictor.testing.adapter_suite.world import World


def cells(driver: Driver) -> list[Trial]:
    """Every shape on every path, allowed and denied."""
    return [
        Trial(
            f"{verdict}-{shape}-{path}",
            f"{shape} by {path}: {'runs once' if verdict == 'allow' else 'does not run'}",
            ("X01", "X04"),
            _Cell(shape, path, verdict == "allow"),
            "paths",
            (shape, path, verdict),
        )
        for shape in driver.shapes
        for path in driver.paths
        for verdict in ("allow", "deny")
    ]


@dataclass(frozen=True, slots=True)
class _Cell:
    shape: str
    path: str
    allowed: bool

    def __call__(self, driver: Driver) -> None:
        impossible = driver.impossible(self.shape, self.path)
        world = World(answer=self.allowed)
        with opened(driver, world, Probe(shape=self.shape)) as session:
            arguments = driver.arguments(self.shape, 3)
            said = attempt(session.call, self.path, "act", arguments)
            if impossible:
                nothing_ran(world, said)
                found = records(session)
                demand(found is None or bool(found), "an attempt that the host refused is lost")
                raise Missing(impossible)
            recorded(session, 1, "one attempt")
            demand(len(world.asked) == 1, f"decided {len(world.asked)}x ({said})")
            if not self.allowed:
                nothing_ran(world, said)
                demand(said.startswith(driver.denied), f"a denial that is no value: {said}")
                return
            demand(world.ran == world.asked, f"ran {world.ran}, decided {world.asked} ({said})")
            demand("ran act" in said, f"its result was lost: {said}")
