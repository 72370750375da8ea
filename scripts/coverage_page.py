"""Runs the adapter suite on every adapter; writes `build/coverage.json` and `docs/coverage.md`.

Rules:

1. A mark in the page is what that trial gave in the run; the tests compare each with their own.
2. A page is written only if nothing is broken.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Final

from lictor.testing.adapter_suite import Driver, Report, Result, Trial, run

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "coverage.md"
FOUND: Final = ROOT / "build" / "coverage.json"
DRIVERS: Final = (
    "lictor_langchain.testing.driver:Driver",
    "lictor_llamaindex.testing.driver:Driver",
    "lictor_mcp.testing.driver:Middleware",
    "lictor_mcp.testing.driver:Transport",
    "lictor_mcp.testing.driver:Gateway",
)
MARKS: Final = {"held": "✓", "broken": "✗", "not applicable": "–"}
_HEAD: Final = """# Coverage: what was tried on every adapter

Made by `make coverage` from a run of `lictor.testing.adapter_suite`, which the tests repeat; the
run itself is in `build/coverage.json`. A mark says what happened: ✓ held, – does not apply to this
host. A ✗ would not be published.

## Shapes of tools on paths of the host

Each cell is two attempts, one that the engine allows and one that it denies: one decision on record
each, one run and none, and what ran is what was decided about. What the host itself cannot do is –.
"""


def drivers() -> list[Driver]:
    """One driver for each of our adapters."""
    found = []
    for name in DRIVERS:
        module, _, attribute = name.partition(":")
        found.append(getattr(importlib.import_module(module), attribute)())
    return found


def page(reports: list[Report]) -> str:
    """The page."""
    parts = [_HEAD, *map(_cells, reports), "## What goes wrong around a call\n", _failures(reports)]
    reasons = {
        f"* {report.host}, {trial.title}: {result.text}."
        for report in reports
        for trial, result in report.found
        if trial.part == "failures" and result.state == "not applicable"
    }
    parts.append("Where it does not apply:\n\n" + "\n".join(sorted(reasons)) + "\n")
    return "\n".join(parts)


def _cells(report: Report) -> str:
    found = {trial.cell: result for trial, result in report.found if trial.part == "paths"}
    shapes = list(dict.fromkeys(cell[0] for cell in found))
    paths = list(dict.fromkeys(cell[1] for cell in found))
    lines = [
        f"### {report.host}\n",
        f"| path | {' | '.join(shapes)} |",
        "|---" * (len(shapes) + 1) + "|",
    ]
    for path in paths:
        marks = [_both(found[shape, path, "allow"], found[shape, path, "deny"]) for shape in shapes]
        lines.append(f"| {path} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def _both(*results: Result) -> str:
    return "".join(dict.fromkeys(MARKS[each.state] for each in results))


def _failures(reports: list[Report]) -> str:
    hosts = [report.host for report in reports]
    lines = [f"| tried | attacks | {' | '.join(hosts)} |", "|---" * (len(hosts) + 2) + "|"]
    results = [{trial.id: (trial, result) for trial, result in r.found} for r in reports]
    for name, (trial, _) in results[0].items():
        if trial.part == "failures":
            marks = [MARKS[each[name][1].state] for each in results]
            lines.append(f"| {trial.title} | {' '.join(trial.attacks)} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def published(text: str, host: str, trial: Trial) -> str:
    """The mark that a page has for a trial; empty if it has none."""
    if trial.part == "paths":
        section = text.partition(f"### {host}\n")[2].partition("\n#")[0]
        return _mark(section, trial.cell[1], trial.cell[0])
    section = text.partition("## What goes wrong around a call\n")[2]
    return _mark(section, trial.title, host)


def _mark(section: str, row: str, column: str) -> str:
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    for cells in rows[1:]:
        if cells[0] == row and column in rows[0]:
            return cells[rows[0].index(column)]
    return ""


def main() -> int:
    """Runs everything."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    reports = [run(driver) for driver in drivers()]
    FOUND.parent.mkdir(exist_ok=True)
    found = [report.as_json() for report in reports]
    FOUND.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for report in reports:
        print(f"{report.name} on {report.host}: {report.counts()}")
        for result in report.broken:
            print(f"  broken: {result.trial}: {result.text}", file=sys.stderr)
    if any(report.broken for report in reports):
        return 1
    PAGE.write_text(page(reports))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
