"""What has changed between the locked definitions and those that gates have met.

Rules enforced here:

1. Every part that a pin covers is compared; a change of one letter shows.
2. What is shown has no character that hides, moves the cursor or turns the reading order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lictor.canonical import Json
from lictor.forms import visible
from lictor.model import Tool, ToolKey

if TYPE_CHECKING:
    from lictor.catalog.reviewed import Catalog


@dataclass(frozen=True, slots=True)
class Change:
    """One tool that is new or not what was locked.

    Attributes:
        key: The tool.
        new: Nothing was locked under this name.
        parts: Part of the definition → its words, `[-gone-]` and `{+come+}` marked.
    """

    key: ToolKey
    new: bool
    parts: Mapping[str, str]

    def __str__(self) -> str:
        head = f"{visible(str(self.key))} {'is new' if self.new else 'has changed'}"
        return "\n".join([head, *(f"  {name}: {words}" for name, words in self.parts.items())])


def diff(catalog: Catalog, seen: Mapping[ToolKey, Tool]) -> list[Change]:
    """What waits for the operator, in words.

    Args:
        catalog: What is locked.
        seen: What gates have met (`read_seen`).
    """
    changes = []
    for key in sorted(seen):
        locked = catalog.locked.get(key)
        if locked is None:
            changes.append(Change(key, True, _parts({}, seen[key].definition())))
        elif locked.pin != seen[key].pin:
            changes.append(Change(key, False, _parts(locked.definition(), seen[key].definition())))
    return changes


def _parts(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, str]:
    return {
        name: _words(_text(before.get(name)), _text(value))
        for name, value in after.items()
        if before.get(name) != value and name not in ("server", "name")
    }


def _text(value: Json) -> str:
    if value is None or value in ("", {}, []):
        return ""
    return (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )


def _words(before: str, after: str) -> str:
    """A word-level difference on one line."""
    from difflib import SequenceMatcher

    old, new = re.findall(r"\w+|\W", before), re.findall(r"\w+|\W", after)
    shown = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = visible("".join(old[a:b])), visible("".join(new[c:d]))
        if kind == "equal":
            shown.append(gone)
            continue
        shown.append((f"[-{gone}-]" if gone else "") + (f"{{+{come}+}}" if come else ""))
    return "".join(shown)
