"""`make interop`: Lictor for MCP against parts of others. Tables, and build/interop/mcp.json.

A part that cannot be had here is skipped and counted; `LICTOR_NO_SKIPS=1` makes that a failure.
Names of legs may be given: `servers hostile conformance clients suite`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import clients
import conformance
import hostile
import servers
import suite
from checks import exempted
from parts import ROOT, Missing, Parts, skipping

OUT = ROOT / "build/interop"
Report = tuple[bool, dict[str, Any]]


def _servers(parts: Parts, folder: Path) -> Report:
    good, found = True, {}
    for make in servers.cases(parts, folder):
        case = make()
        for era, checks in servers.check(case, folder / case.name).items():
            bad = [name for name, held in checks if not held]
            found[f"{case.name} {era}"] = {
                "checks": len(checks),
                "listed": checks[0][0],
                "bad": bad,
            }
            print(f"  {case.name:<12} {era}  {checks[0][0]:<16} {len(checks)} checks  {_said(bad)}")
            good = good and not bad
    return good, found


def _hostile(parts: Parts, folder: Path) -> Report:
    folder.mkdir(parents=True)
    checks = hostile.check(parts, folder)
    bad = [name for name, held in checks if not held]
    print(f"  {len(checks)} checks  {_said(bad)}")
    return not bad, {"checks": len(checks), "bad": bad}


def _conformance(parts: Parts, folder: Path) -> Report:
    return _columns(conformance.Servers(parts, folder).columns(), conformance.BASELINE, ())


def _clients(parts: Parts, folder: Path) -> Report:
    return _columns(clients.Clients(parts, folder).columns(), clients.BASELINE, clients.KNOWN)


def _columns(
    columns: Iterable[conformance.Column],
    baseline: Mapping[str, tuple[int, int]],
    known: Iterable[str],
) -> Report:
    good, found = True, {"baseline": {leg: list(total) for leg, total in baseline.items()}}
    plain: conformance.Column | None = None
    for column in columns:
        if plain is None:
            plain, bad = column, column.unlike(baseline)
        else:
            bad = exempted(column.differences(plain), known) + column.controls
        totals = {leg: list(column.total(leg)) for leg in column.legs}
        good = good and not bad
        found[column.name] = {"totals": totals, "not_reviewable": column.left, "bad": bad}
        print(f"  {column.name:<22} {_totals(totals)}  {_said(bad)}", flush=True)
    if known:
        found["exempted"] = list(known)
    return good, found


def _suite(parts: Parts, folder: Path) -> Report:
    folder.mkdir(parents=True)
    plain = suite.run(parts, folder / "plain.txt", guarded=False)
    ours = suite.run(parts, folder / "guarded.txt", guarded=True)
    exempt = [test for tests in suite.EXEMPT.values() for test in tests]
    bad = suite.differences(plain, ours, exempt)
    print(f"  plain {len(plain.passing)} passed, {len(plain.failing)} not")
    print(f"  guarded {len(ours.passing)} passed, {len(ours.failing)} not  {_said(bad)}")
    found = {
        name: {"passed": len(ran.passing), "failing": sorted(ran.failing)}
        for name, ran in (("plain", plain), ("guarded", ours))
    }
    more = {"differences": bad, "exempt": suite.EXEMPT}
    return bool(plain.passing) and not bad, {**found, **more}


LEGS: dict[str, Callable[[Parts, Path], Report]] = {
    "servers": _servers,
    "hostile": _hostile,
    "conformance": _conformance,
    "clients": _clients,
    "suite": _suite,
}


def _totals(totals: dict[str, list[int]]) -> str:
    return "  ".join(f"{leg} {passed:>3}/{failed}" for leg, (passed, failed) in totals.items())


def _said(bad: list[str]) -> str:
    return "as it must be" if not bad else "DIFFERS: " + "; ".join(bad)


def main(names: list[str]) -> int:
    """Runs the legs; 0 if all that ran held."""
    unknown = set(names) - LEGS.keys()
    if unknown:
        print(f"no such leg: {', '.join(sorted(unknown))}; there are {', '.join(LEGS)}")
        return 2
    parts, folder = Parts(OUT / "parts"), OUT / "run"
    report: dict[str, Any] = {}
    good, skipped = True, 0
    for name in names or LEGS:
        print(name, flush=True)
        shutil.rmtree(folder / name, ignore_errors=True)
        try:
            held, report[name] = LEGS[name](parts, folder / name)
            good = good and held
        except Missing as missing:
            skipped += 1
            report[name] = {"skipped": str(missing)}
            print(f"  skipped: {missing}")
    report["good"], report["skipped"] = good, skipped
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "mcp.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"{'held' if good else 'FAILED'}, {skipped} skipped; build/interop/mcp.json")
    return 0 if good and (skipping() or not skipped) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
