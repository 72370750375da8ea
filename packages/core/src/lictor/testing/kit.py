"""The neutral kit: the adapter suite on anybody's guard, as a scorecard.

    python -m lictor.testing.kit --driver module:Driver [--json FILE]

A driver for a guard of LangChain subclasses `lictor_langchain.testing.host.LangChain` and says how
that guard wraps tools or agents, and how it asks; thirty lines do. What the card prints was run. It
ends with what the list of attacks has for the host and the suite does not try.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from lictor.testing.adapter_suite import Driver, Report, run, trials

HOSTS: Final = {"langchain": "LC", "llamaindex": "LI", "mcp": "MCP"}
"""Hosts as the list names them."""


def load(name: str) -> Driver:
    """A driver by `module:Class`.

    Raises:
        ValueError: There is none; says what is missing.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} names no driver: write module:Class")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {attribute}")
        found = getattr(found, part)
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Driver):
        raise ValueError(f"{name} is no lictor.testing.adapter_suite.Driver")
    return made


def attacks() -> dict[str, dict[str, Any]]:
    """The list of known ways around: id → `hosts` and `what`."""
    return tomllib.loads((files("lictor.testing") / "attacks.toml").read_text("utf-8"))


def untried(report: Report) -> dict[str, str]:
    """What the list holds for this host and no trial of the suite is: the rest of a gate.

    Returns:
        Id → what it is.
    """
    tried = {id for trial, _ in report.found for id in trial.attacks}
    short = HOSTS.get(report.host.partition(" ")[0], "")
    return {
        id: str(row["what"])
        for id, row in attacks().items()
        if id not in tried and (not short or short in row["hosts"])
    }


@contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, nothing is logged or warned about: trials fail on purpose."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def main(arguments: list[str] | None = None) -> int:
    """Runs the kit.

    Returns:
        0 if everything held, 1 if something did not, 2 if the driver cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m lictor.testing.kit", description=__doc__)
    parser.add_argument("--driver", required=True, help="module:Class")
    parser.add_argument("--json", type=Path, help="write everything to a file too")
    given = parser.parse_args(arguments)
    try:
        driver = load(given.driver)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    total = len(trials(driver))
    ended = 0

    def tell(*_: object) -> None:
        nonlocal ended
        ended += 1
        if sys.stderr.isatty():
            print(f"\r{ended} of {total}", end="", file=sys.stderr, flush=True)

    with quiet():
        report = run(driver, tell)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    print(report.table())
    for id, what in untried(report).items():
        print(f"  not tried here: {id} {what}")
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
