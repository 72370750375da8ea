"""What has changed between the locked definitions and those that gates have met.

Rules enforced here:

1. Every part that a pin covers is compared; a change of one letter shows.
2. What is shown has no character that hides, moves the cursor or turns the reading order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lictor.canonical import Json
from lictor.catalog.remarks import remarks
from lictor.forms import visible
from lictor.model import Tool, ToolKey

if TYPE_CHECKING:
    from lictor.catalog.reviewed import Catalog

_KEY: Final = ("server", "name")
_COMPARED: Final = 1_000
"""Words between the first and the last difference that are compared one by one."""
_AROUND: Final = 200
"""Characters that are shown around a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One tool that is new or not what was locked.

    Attributes:
        key: The tool.
        new: Nothing was locked under this name.
        parts: Part of the definition → its words, `[-gone-]` and `{+come+}` marked.
        remarks: What to look at twice in what has come.
    """

    key: ToolKey
    new: bool
    parts: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{visible(str(self.key))} {'is new' if self.new else 'has changed'}"
        parts = [f"  {name}: {words}" for name, words in self.parts.items()]
        return "\n".join([head, *parts, *(f"  look twice: {each}" for each in self.remarks)])


@dataclass(frozen=True, slots=True)
class Drift:
    """How a program's tools differ from the catalog.

    Attributes:
        new: Tools that nobody has reviewed.
        changed: Tools that are not what was reviewed.
        blocked: Tools that were refused.
        missing: Reviewed tools that the program does not have.
        count: How many it has.
    """

    new: tuple[ToolKey, ...]
    changed: tuple[Change, ...]
    blocked: tuple[ToolKey, ...]
    missing: tuple[ToolKey, ...]
    count: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.blocked or self.missing)

    def __str__(self) -> str:
        if not self:
            return f"{self.count} tools, all as they were reviewed"
        told = [
            f"{visible(str(key))} {word}"
            for keys, word in (
                (self.new, "is not reviewed"),
                (self.blocked, "is blocked"),
                (self.missing, "is reviewed, and the program does not have it"),
            )
            for key in keys
        ]
        told += map(str, self.changed)
        if self.new or self.changed:
            told.append("mend: start the program once, then lictor review")
        elif self.blocked:
            told.append("mend: take it out of the program")
        else:
            told.append("mend: take its entry out of catalog.toml")
        return "\n".join(told)


def drift(catalog: Catalog, tools: Iterable[Tool]) -> Drift:
    """Compares a program's tools with what was reviewed.

    Args:
        catalog: What is reviewed.
        tools: All tools of the program, or of some servers; only those servers' tools can be
            missing.
    """
    seen = {tool.key: tool for tool in tools}
    codes = {key: catalog.check(tool) for key, tool in seen.items()}
    servers = {key.server for key in seen} or {"local"}
    changes = diff(catalog, {key: seen[key] for key in seen if codes[key] == "tool_changed"})
    return Drift(
        new=tuple(key for key in sorted(seen) if codes[key] == "tool_unreviewed"),
        changed=tuple(changes),
        blocked=tuple(key for key in sorted(seen) if codes[key] == "tool_blocked"),
        missing=tuple(
            known.review.key
            for known in catalog.known_tools()
            if known.review.key.server in servers
            and known.review.key not in seen
            and not known.review.blocked
        ),
        count=len(seen),
    )


def diff(catalog: Catalog, seen: Mapping[ToolKey, Tool]) -> list[Change]:
    """What waits for the operator, in words.

    Args:
        catalog: What is locked.
        seen: What gates have met (`read_seen`).
    """
    changes = []
    for key in sorted(seen):
        locked, tool = catalog.locked.get(key), seen[key]
        if locked is None:
            changes.append(Change(key, True, _parts({}, tool.definition()), remarks(tool)))
        elif locked.pin != tool.pin:
            parts = _parts(locked.definition(), tool.definition())
            changes.append(Change(key, False, parts, remarks(tool, locked)))
    return changes


def _parts(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, str]:
    return {
        name: _words(_text(before.get(name)), _text(value))
        for name, value in after.items()
        if before.get(name) != value and (before or _text(value)) and name not in _KEY
    }


def _text(value: Json) -> str:
    if value is None or value in ("", {}, []):
        return ""
    return (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )


def _words(before: str, after: str) -> str:
    """A word-level difference on one line."""
    old, new = re.findall(r"\w+|\W", before), re.findall(r"\w+|\W", after)
    head = _alike(old, new)
    tail = _alike(old[head:][::-1], new[head:][::-1])
    shown = [_same(visible("".join(old[:head])))]
    shown += _changes(old[head : len(old) - tail], new[head : len(new) - tail])
    return "".join([*shown, _same(visible("".join(old[len(old) - tail :])))])


def _alike(old: list[str], new: list[str]) -> int:
    """How many words at the front are the same."""
    count = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        count += 1
    return count


def _changes(old: list[str], new: list[str]) -> Iterator[str]:
    from difflib import SequenceMatcher

    codes = [("replace", 0, len(old), 0, len(new))]
    if max(len(old), len(new)) <= _COMPARED:  # a hostile text must not take minutes
        codes = list(SequenceMatcher(None, old, new, autojunk=False).get_opcodes())
    for kind, a, b, c, d in codes:
        gone, come = visible("".join(old[a:b])), visible("".join(new[c:d]))
        if kind == "equal":
            yield _same(gone)
        else:
            yield (f"[-{gone}-]" if gone else "") + (f"{{+{come}+}}" if come else "")


def _same(text: str) -> str:
    """What has not changed, cut where it is long; changes never are."""
    if len(text) <= 3 * _AROUND:
        return text
    return (
        f"{text[:_AROUND]} … {len(text) - 2 * _AROUND:,} characters as before … {text[-_AROUND:]}"
    )
