"""Counts of decisions, kept by ourselves and read by the metrics exporter when it collects.

Rules enforced here:

1. Nothing that a model or a caller can make up becomes a label: tools come from the catalog, the
   first 200 by name, all else from closed lists.
2. Every decision is counted once, from any thread, also after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import RLock
from typing import Final

from lictor import telemetry_names as names
from lictor.model import Decision, Pep, ToolKey
from lictor.telemetry_event import Attributes, pep_kind, pep_side, reason, tool_names

MAX_TOOLS: Final = 200
"""Tools with series of their own; the rest share `_other`."""
OTHER: Final = ToolKey("_other", "_other")

LOCK: Final = RLock()
# A fork while another thread counts must not leave the child with a lock nobody will release.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release
    )


class Tally:
    """Totals since the process began.

    Attributes:
        errors: Signals lost because a tracer, logger or meter raised.
        lost: Records that could not be kept.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.lost = 0
        self._decisions: dict[tuple[ToolKey, str, str, str, str, str, str], int] = {}
        self._tools: set[ToolKey] = set()

    def label(self, key: ToolKey, known: Callable[[], frozenset[str]]) -> ToolKey:
        """The tool itself if the catalog has it and there is room, else `_other`."""
        if key in self._tools:
            return key
        if str(key) in known():
            with LOCK:
                if len(self._tools) < MAX_TOOLS:
                    self._tools.add(key)
                    return key
        return OTHER

    def count(self, tool: ToolKey, decision: Decision, pep: Pep, mode: str) -> None:
        """Counts one decision."""
        key = (
            tool,
            decision.verdict.value,
            decision.enforcement.value,
            reason(decision.reason),
            pep_kind(pep),
            pep_side(pep),
            mode,
        )
        with LOCK:
            self._decisions[key] = self._decisions.get(key, 0) + 1

    def failed(self) -> None:
        """Counts a lost signal."""
        with LOCK:
            self.errors += 1

    def missed(self) -> None:
        """Counts a lost record."""
        with LOCK:
            self.lost += 1

    def rows(self) -> list[tuple[int, Attributes]]:
        """Every count with its labels."""
        with LOCK:
            counted = list(self._decisions.items())
        return [(count, _labels(*key)) for key, count in counted]


def _labels(
    tool: ToolKey, verdict: str, enforcement: str, code: str, kind: str, side: str, mode: str
) -> Attributes:
    return {
        **tool_names(tool),
        names.DECISION_VERDICT: verdict,
        names.DECISION_ENFORCEMENT: enforcement,
        names.DECISION_REASON: code,
        names.PEP_KIND: kind,
        names.PEP_SIDE: side,
        names.MODE: mode,
    }
