"""Writes a benchmark's figures where `make bench` and the reports look for them."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "bench"
_SHOWN = ("lictor", "sqlalchemy", "cedarpy", "langchain-core", "opentelemetry-api", "pydantic")


def write(
    name: str,
    figures: Mapping[str, float],
    ratios: Mapping[str, float],
    goals: Mapping[str, str],
) -> bool:
    """Writes `build/bench/<name>.json` and prints each ratio beside its goal.

    Args:
        name: File name without ending.
        figures: What was measured, unit in the key (`effect_us`).
        ratios: What counts: quotients of figures of this one run.
        goals: For each ratio `<= x` or `>= x`; keyed alike.

    Returns:
        Whether every goal was met.
    """
    if set(ratios) != set(goals):
        raise ValueError(f"ratios and goals differ: {sorted(set(ratios) ^ set(goals))}")
    report = {
        "name": name,
        "figures": {key: round(value, 3) for key, value in figures.items()},
        "ratios": {key: round(value, 3) for key, value in ratios.items()},
        "goals": dict(goals),
        "versions": versions(),
        "machine": machine(),
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    met = {key: meets(ratios[key], goal) for key, goal in goals.items()}
    for key, value in ratios.items():
        print(f"{name}: {key} = {value:.2f} (goal {goals[key]}) {'ok' if met[key] else 'MISSED'}")
    return all(met.values())


def meets(value: float, goal: str) -> bool:
    """Whether a ratio meets `<= x` or `>= x`."""
    sign, limit = goal.split()
    if sign not in ("<=", ">="):
        raise ValueError(f"goal {goal!r} is not '<= x' or '>= x'")
    return value <= float(limit) if sign == "<=" else value >= float(limit)


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """The machine, as far as it matters for ratios."""
    return {"system": platform.system(), "arch": platform.machine(), "cores": os.cpu_count()}
