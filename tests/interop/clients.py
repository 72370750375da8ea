"""The official conformance suite against a client: plain, and with the guarded transport.

The first guarded run finds nothing reviewed: it is the control, and meets what there is to review.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from conformance import Column, suite
from home import home, met, methods, review
from parts import Parts
from talk import NEW, OLD

LEGS = {"F": OLD, "G": NEW}
BASELINE = {"F": (247, 0), "G": (405, 0)}
KNOWN = frozenset({"G http-custom-headers: 1 failed"})
"""The suite has the client send null for an argument whose schema says boolean: that is denied."""
FOLDER = Path(__file__).parent
SERVER = "scenario"
TIMEOUT = "60000"


class Clients:
    """Runs the columns.

    Args:
        parts: What is foreign.
        folder: Where everything is written.
    """

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.parts, self.folder = parts, folder
        self._client = parts.sdist / ".github/actions/conformance/client.py"

    def columns(self) -> Iterator[Column]:
        """The plain client, the control, the guarded client."""
        plain = Column("client plain")
        for leg in LEGS:
            plain.lines[leg] = self._run(leg, "plain", self.parts.modern, self._client)
        yield plain
        guarded = Column("client guarded", control=True)
        for leg in LEGS:
            homes = self.folder / f"homes-{leg}"
            names = [each.replace("/", "-") for each in plain.lines[leg]]
            for name in names:
                home(homes / name)
            command = (self.parts.modern, FOLDER / "guarded_client.py", self._client, homes)
            control = self._run(leg, "control", *command)
            guarded.control = guarded.control and control != plain.lines[leg]
            for name in names:
                guarded.left += self._reviewed(homes / name)
            guarded.lines[leg] = self._run(leg, "guarded", *command)
        yield guarded

    def _reviewed(self, folder: Path) -> list[str]:
        found = {**met(folder), **methods(SERVER)}
        left = review(folder, found.values(), None)
        home(folder, found.keys() - set(left), allow_all=True)
        return [f"{folder.name}: {each}" for each in left]

    def _run(self, leg: str, name: str, *command: Path) -> dict[str, tuple[int, int]]:
        arguments = ("client", "--command", shlex.join(map(str, command)), "--suite", "all")
        more = ("--spec-version", LEGS[leg], "--timeout", TIMEOUT)
        return suite(self.parts, (*arguments, *more), self.folder / name / leg)[0]


def failing(column: Column) -> set[str]:
    """Scenarios that fail, and how often.

    How often one passes counts messages: of those the guard has some of its own.
    """
    return {
        f"{leg} {name}: {failed} failed"
        for leg, lines in column.lines.items()
        for name, (_, failed) in lines.items()
        if failed
    }


def lost(column: Column, plain: Column) -> list[str]:
    """Scenarios that were not run, or held nothing."""
    return [
        f"{leg} {name}: not run"
        for leg, lines in plain.lines.items()
        for name in lines
        if not sum(column.lines[leg].get(name, (0, 0)))
    ]
