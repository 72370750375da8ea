"""The official conformance suite against a client: plain, and with the guarded transport.

A guarded run in which nothing is reviewed comes first: it meets what there is to review.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import checks
from checks import Leg
from conformance import Column, suite
from home import POLICIES, changed, entered, home
from parts import Parts
from talk import NEW, OLD

LEGS = {"F": OLD, "G": NEW}
BASELINE = {"F": (247, 0), "G": (411, 0)}
"""Passed and failed of the plain client, as they were measured when this was written.

On a machine so slow that the client's first request times out, leg G has fewer.
"""
_NULL = "G http-custom-headers: {} sep-2243-client-omit-null {}"
KNOWN = (_NULL.format("lost", "success"), _NULL.format("new", "failure"))
"""The suite has its client send null for an argument that its tool's schema calls a boolean.

The gate denies that, as a server of the SDK does too; a relay that made it absent would coerce.
"""
MUST_BREAK = {
    "F": ("tools_call", "elicitation-sep1034-client-defaults", "auth/scope-step-up"),
    "G": ("tools_call", "sep-2322-client-request-state", "http-custom-headers"),
}
"""Scenarios that cannot hold where no tool may be called."""
CHANGED, TOOL = "tools_call", "add_numbers"
"""A scenario, and the tool that it calls."""
FOLDER = Path(__file__).parent
SERVER = "scenario"
TIMEOUT = "600000"
"""Milliseconds: a client also waits here for its place."""


class Clients:
    """Runs the columns.

    Args:
        parts: What is foreign.
        folder: Where everything is written.
        legs: Which of them.
    """

    def __init__(self, parts: Parts, folder: Path, legs: Sequence[str] = tuple(LEGS)) -> None:
        self.parts, self.folder, self.legs = parts, folder, legs
        self._client = parts.sdist / ".github/actions/conformance/client.py"

    def columns(self) -> Iterator[Column]:
        """The plain client, then the guarded one with each policy."""
        plain = Column("client plain")
        for leg in self.legs:
            plain.legs[leg] = self._run(leg, "plain", self._client)
        yield plain
        unbroken = [each for leg in self.legs for each in self._learn(leg, plain.legs[leg])]
        for policy in POLICIES:
            column = Column(f"client {policy}", controls=list(unbroken))
            for leg in self.legs:
                column.left += self._enter(leg, policy, policy)
                column.legs[leg] = self._run(leg, policy, *self._guarded(leg, policy))
                column.controls += self._fault(leg, policy)
            yield column

    def _learn(self, leg: str, plain: Leg) -> list[str]:
        for name in plain:
            home(self._homes(leg, "unreviewed") / _folder(name))
        ran = {"nothing reviewed": self._run(leg, "unreviewed", *self._guarded(leg, "unreviewed"))}
        self._enter(leg, "deny-all", "deny-all")
        denying = self._guarded(leg, "deny-all")
        ran["deny-all"] = {}
        for name in MUST_BREAK[leg]:
            ran["deny-all"] |= self._run(leg, "deny-all", *denying, scenario=name)
        return [
            f"{leg} {name}: holds with {control}"
            for control, found in ran.items()
            for name in checks.unbroken(MUST_BREAK[leg], found)
        ]

    def _enter(self, leg: str, name: str, policy: str, tool: str = "") -> list[str]:
        """Reviews what was met; `tool` as another than it is."""
        left = []
        for learnt in sorted(self._homes(leg, "unreviewed").iterdir()):
            folder = self._homes(leg, name) / learnt.name
            refused = entered(learnt, folder, SERVER, policy, changed(tool))
            left += [f"{leg} {learnt.name}: {each}" for each in refused]
        return left

    def _fault(self, leg: str, policy: str) -> list[str]:
        """The review of one tool is of another definition, which must be seen."""
        name = f"{policy}-changed"
        self._enter(leg, name, policy, TOOL)
        ran = self._run(leg, name, *self._guarded(leg, name), scenario=CHANGED)
        return [
            f"{leg} {each}: holds with a changed tool" for each in checks.unbroken([CHANGED], ran)
        ]

    def _homes(self, leg: str, name: str) -> Path:
        return self.folder / f"homes-{leg}" / name

    def _guarded(self, leg: str, name: str) -> tuple[Path, ...]:
        return FOLDER / "guarded_client.py", self._client, self._homes(leg, name)

    def _run(self, leg: str, name: str, *script: Path, scenario: str = "") -> Leg:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = (self.parts.modern, FOLDER / "one_of_two.py", self.folder, *script)
        which = ("--scenario", scenario) if scenario else ("--suite", "all")
        arguments = ("client", "--command", shlex.join(map(str, command)), *which)
        more = ("--spec-version", LEGS[leg], "--timeout", TIMEOUT)
        return suite(self.parts, (*arguments, *more), self.folder / name / leg / _folder(scenario))


def _folder(scenario: str) -> str:
    return scenario.replace("/", "-")
