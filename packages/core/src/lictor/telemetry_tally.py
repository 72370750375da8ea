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
from typing import Final, TypeAlias

from lictor import telemetry_names as names
from lictor.model import Decision, Enforcement, Pep, ToolKey, Verdict
from lictor.telemetry_event import Attributes, pep_kind, pep_side, reason, tool_names

MAX_TOOLS: Final = 200
"""Tools with series of their own; the rest share `_other`."""
OTHER: Final = ToolKey("_other", "_other")

_Key: TypeAlias = tuple[ToolKey, Verdict, Enforcement, str, str, str, str, bool]

LOCK: Final = RLock()
# A fork while another thread counts must not leave the child with a lock nobody will release.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release
    )


class Row:
    """One count.

    Attributes:
        count: Decisions so far.
        labels: Of the count.
        timed: Of their durations.
    """

    __slots__ = ("count", "labels", "timed")

    def __init__(self, labels: Attributes, timed: Attributes) -> None:
        self.count = 0
        self.labels = labels
        self.timed = timed


class Tally:
    """Totals since the process began.

    Attributes:
        errors: Signals lost because a tracer, logger or meter raised.
        lost: Records that could not be kept.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.lost = 0
        self._rows: dict[_Key, Row] = {}
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

    def count(self, tool: ToolKey, decision: Decision, pep: Pep, mode: str, failure: bool) -> Row:
        """Counts one decision and returns its row."""
        key = (
            tool,
            decision.verdict,
            decision.enforcement,
            decision.reason,
            pep.kind,
            pep.side,
            mode,
            failure,
        )
        row = self._rows.get(key) or self._row(key)
        with LOCK:
            row.count += 1
        return row

    def _row(self, key: _Key) -> Row:
        tool, verdict, enforcement, code, kind, side, mode, failure = key
        code, kind, side = reason(code), pep_kind(kind), pep_side(side)
        with LOCK:
            closed = (tool, verdict, enforcement, code, kind, side, mode, failure)
            row = self._rows.get(closed)
            if row is None:
                row = self._rows[closed] = Row(
                    {
                        **tool_names(tool),
                        names.DECISION_VERDICT: verdict.value,
                        names.DECISION_ENFORCEMENT: enforcement.value,
                        names.DECISION_REASON: code,
                        names.PEP_KIND: kind,
                        names.PEP_SIDE: side,
                        names.MODE: mode,
                    },
                    {
                        names.DECISION_VERDICT: verdict.value,
                        names.PEP_KIND: kind,
                        names.MODE: mode,
                        **({names.ERROR_TYPE: code} if failure else {}),
                    },
                )
        return row

    def failed(self) -> None:
        """Counts a lost signal."""
        with LOCK:
            self.errors += 1

    def missed(self) -> None:
        """Counts a lost record."""
        with LOCK:
            self.lost += 1

    def rows(self) -> list[Row]:
        """Every count with its labels."""
        with LOCK:
            return list(self._rows.values())
