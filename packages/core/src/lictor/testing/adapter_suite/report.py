"""What a run of the suite found: as text, as JSON, and as a table of shapes and paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from lictor.testing.adapter_suite.driver import Driver
from lictor.testing.adapter_suite.trial import Result, Trial
from lictor.testing.adapter_suite.trials import trials

STATES: Final = ("held", "broken", "not applicable")
_MARKS: Final = {"held": "✓", "broken": "✗", "not applicable": "–"}


@dataclass(frozen=True, slots=True)
class Report:
    """Trials of one guard and how they ended.

    Attributes:
        name: The guard.
        host: What it guards.
        found: Each trial with its result.
    """

    name: str
    host: str
    found: tuple[tuple[Trial, Result], ...]

    @property
    def broken(self) -> tuple[Result, ...]:
        """What did not hold."""
        return tuple(result for _, result in self.found if result.state == "broken")

    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        tally = Counter(result.state for _, result in self.found)
        return {state: tally[state] for state in STATES}

    def table(self) -> str:
        """The scorecard."""
        lines = [f"{self.name} on {self.host}"]
        lines += self._paths()
        for trial, result in self.found:
            if trial.part == "paths":
                continue
            ids = " ".join(trial.attacks)
            lines.append(f"  {_MARKS[result.state]} {trial.title}" + (f"  [{ids}]" if ids else ""))
            if result.text:
                lines.append(f"      {result.text}")
        counts = self.counts()
        lines.append("  " + ", ".join(f"{counts[state]} {state}" for state in STATES))
        return "\n".join(lines)

    def _paths(self) -> Iterable[str]:
        """One line a path: its broken cells, else how many held."""
        paths = dict.fromkeys(t.cell[1] for t, _ in self.found if t.part == "paths")
        for path in paths:
            inside = [(t, r) for t, r in self.found if t.part == "paths" and t.cell[1] == path]
            broken = [(t, r) for t, r in inside if r.state == "broken"]
            held = sum(r.state == "held" for _, r in inside)
            mark = _MARKS["broken"] if broken else _MARKS["held" if held else "not applicable"]
            yield f"  {mark} path {path}: {held} of {held + len(broken)} shapes and verdicts"
            for trial, result in broken[:1]:
                yield f"      {trial.cell[0]}, {trial.cell[2]}: {result.text}"

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "guard": self.name,
            "host": self.host,
            "counts": self.counts(),
            "trials": [
                {
                    "id": trial.id,
                    "title": trial.title,
                    "attacks": list(trial.attacks),
                    "part": trial.part,
                    "cell": list(trial.cell) if trial.part == "paths" else [],
                    "state": result.state,
                    "text": result.text,
                }
                for trial, result in self.found
            ],
        }


def run(driver: Driver, tell: Callable[[Trial, Result], None] | None = None) -> Report:
    """Tries a guard.

    Args:
        driver: The guard on its host.
        tell: Is told of each trial as it ends.
    """
    found = []
    for trial in trials(driver):
        result = trial.run(driver)
        if tell is not None:
            tell(trial, result)
        found.append((trial, result))
    return Report(driver.name, driver.host, tuple(found))
