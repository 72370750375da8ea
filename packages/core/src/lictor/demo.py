"""What the adapters' demos show of a run, read back from its record."""

from __future__ import annotations

from pathlib import Path

from lictor import audit
from lictor.canonical import Json


def decisions(store: Path) -> list[dict[str, Json]]:
    """One row a call."""
    return [
        {
            "call": line.body["tool"],
            "arguments": line.body.get("arguments", {}),
            "impact": line.body.get("impact", []),
            "verdict": line.body["verdict"],
            "enforcement": line.body["enforcement"],
            "reason": line.body["code"],
            "why": line.body["detail"] or ", ".join(map(str, _policies(line))),
            "took_us": line.body["took_us"],
            "id": line.body["id"],
        }
        for line in audit.show(store, kind="decision")
    ]


def verified(store: Path) -> dict[str, Json]:
    """What `audit verify` finds."""
    found = audit.verify(store)
    return {
        "ok": found.ok,
        "records": found.records,
        "heads": [f"{each.stream}:{each.last}:{each.head}" for each in found.streams],
    }


def _policies(line: audit.Line) -> list[Json]:
    found = line.body.get("policies")
    return found if isinstance(found, list) else []
