"""One attempt on a guarded tool, from the host's `run` to the gate.

Rules enforced here:

1. An attempt names its host call once; what happens inside its body is another attempt.
2. Nothing here is authority: it carries the host's call id and says which seam is being met.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from lictor import Decision
from lictor.subagent import Inside, setting

NO_ID: Final = "the model's call has no id, so neither its origin nor a replay can be recognised"


@dataclass(slots=True, eq=False)
class Permit:
    """Lets one entry of a tool reach each of its others once, as it was authorized itself."""

    entries: set[str]
    encoded: bytes
    place: Inside


@dataclass(slots=True, eq=False)
class Meeting:
    """An attempt.

    Attributes:
        seam: Where it is met.
        host_id: The host's id of the call; empty for calls from code.
        armed: The host has begun and nothing was met yet; what `GateCallbackHandler` looks at.
        permit: See `Permit`.
    """

    seam: Any
    host_id: str = ""
    armed: bool = True
    permit: Permit | None = None


@dataclass(slots=True, eq=False)
class Watch:
    """Tells the middleware what was decided about the call it let through."""

    host_id: str
    decision: Decision | None = None


meeting: ContextVar[Meeting | None] = ContextVar("lictor_langchain_meeting", default=None)
watching: ContextVar[Watch | None] = ContextVar("lictor_langchain_watch", default=None)
leaving: ContextVar[Future[None] | None] = ContextVar("lictor_langchain_leaving", default=None)
"""Tells a tool's thread that the run which waits for it was cancelled."""
probing: ContextVar[bool] = ContextVar("lictor_langchain_probing", default=False)


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """While a caller awaits what may run on another thread."""
    gone: Future[None] = Future()
    with setting(leaving, gone):
        try:
            yield
        except asyncio.CancelledError:
            gone.set_result(None)
            raise
