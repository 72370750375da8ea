"""What the conformance suite says, check by check, and how two runs of it differ."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Check: TypeAlias = tuple[str, str, str]
"""Id, name and status."""

PER_MESSAGE: Check = ("valid-bearer-token", "ValidBearerToken", "SUCCESS")
"""Held once for each message of an authorized client: those of the guard too."""
_LINE = re.compile(r"^[✓✗] ([^:]+): (\d+) passed, (\d+) failed")
_FOLDER = re.compile(r"^(?:server-)?(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True)
class Scenario:
    """One scenario as the suite reports it.

    Attributes:
        passed: Of the line that is printed.
        failed: Likewise.
        checks: How often each check came out how; what only logs a message is left out.
        own: Requests of the guard itself that the suite has logged: their ids are texts, those of
            the SDK's client are numbers.
    """

    passed: int
    failed: int
    checks: Counter[Check] = field(default_factory=Counter)
    own: int = 0

    @property
    def held(self) -> Counter[Check]:
        """The checks without those of the guard's own messages."""
        kept = Counter(self.checks)
        if kept[PER_MESSAGE]:
            kept[PER_MESSAGE] -= self.own
        return +kept


Leg: TypeAlias = dict[str, Scenario]


def read(said: str, folder: Path) -> Leg:
    """Lines that a run printed, each with the checks that it wrote.

    A client's run of one scenario prints no such line: it is what its checks add up to.
    """
    lines = [match for line in said.splitlines() if (match := _LINE.match(line))]
    written = dict(_written(folder))
    none: tuple[Counter[Check], int] = (Counter(), 0)
    found = {name: _summed(*each) for name, each in written.items()}
    for each in lines:
        found[each[1]] = Scenario(int(each[2]), int(each[3]), *written.get(each[1], none))
    return found


def _summed(found: Counter[Check], own: int) -> Scenario:
    def ended(status: str) -> int:
        return sum(count for check, count in found.items() if check[2] == status)

    return Scenario(ended("SUCCESS"), ended("FAILURE"), found, own)


def _written(folder: Path) -> Iterable[tuple[str, tuple[Counter[Check], int]]]:
    for path in sorted(folder.rglob("checks.json")):
        match = _FOLDER.match(path.parent.name)
        if match is not None:
            name = path.parent.relative_to(folder).with_name(match[1])
            yield str(name), _counted(json.loads(path.read_text(encoding="utf-8")))


def _counted(checks: Iterable[Mapping[str, Any]]) -> tuple[Counter[Check], int]:
    found: Counter[Check] = Counter()
    own = 0
    for each in checks:
        if each["status"] != "INFO":
            found[each["id"], each["name"], each["status"]] += 1
        elif each["id"] == "incoming-request":
            body = (each.get("details") or {}).get("body")
            own += isinstance(body, dict) and isinstance(body.get("id"), str)
    return found, own


def differences(plain: Mapping[str, Scenario], ours: Mapping[str, Scenario]) -> list[str]:
    """What is not as it is without us, one line each."""
    found = []
    for name in sorted(plain.keys() | ours.keys()):
        if name not in ours or name not in plain:
            found.append(f"{name}: {'not run' if name in plain else 'run only here'}")
            continue
        theirs, mine = plain[name].held, ours[name].held
        found += [f"{name}: lost {_told(each)}" for each in sorted((theirs - mine).elements())]
        found += [f"{name}: new {_told(each)}" for each in sorted((mine - theirs).elements())]
    return found


def _told(check: Check) -> str:
    return f"{check[0]} {check[2].lower()}"


def exempted(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """Differences that nobody has explained, and explained ones that are no more."""
    found, known = list(found), list(known)
    gone = [f"expected, and not there: {each}" for each in known if each not in found]
    return [each for each in found if each not in known] + gone


def unbroken(names: Iterable[str], leg: Mapping[str, Scenario]) -> list[str]:
    """Scenarios that must fail under a control, and do not."""
    return [name for name in names if name not in leg or not leg[name].failed]
