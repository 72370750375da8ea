"""One trace from the agent through a gateway to the server, as MCP carries it (SEP-414).

Rules enforced here:

1. The carrier is `_meta`, in both protocols and over every transport; a header is none.
2. What goes on carries our own place in the trace and none of the client's; its baggage stays here.
3. Without tracing a message passes as it came. With it, nothing but `_meta` changes.
4. A method that the protocol does not have is not named in a span: a client can invent it.

Sources: MCP 2026-07-28, SEP-414; W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Literal, TypeAlias

from lictor_mcp import methods as m
from lictor_mcp.guard import Guard
from lictor_mcp.wire import Malformed, Message, with_meta

Trace: TypeAlias = Literal["continue", "link"]
"""What becomes of a trace that a client names: ours is part of it, or only points to it."""

CARRIED: Final = frozenset({"traceparent", "tracestate", "baggage"})
OTHER: Final = "_other"
_METHODS: Final = frozenset(m.PARAMS).union(
    m.LISTS, m.OPENING, m.KEEPING, m.TASKS, m.REMOVED, m.BACK, m.FROM_CLIENT
)


def received(guard: Guard, message: Message, how: Trace) -> AbstractContextManager[None]:
    """While open, what happens belongs to a message of the client."""
    remote = guard.gate.telemetry.remote
    return remote.received(_named(message.method), guard.server, _meta(message), link=how == "link")


@contextmanager
def sent(guard: Guard, message: Message) -> Iterator[Message]:
    """While open, a message is on its way to the server.

    Yields:
        The message as it goes there.
    """
    with guard.gate.telemetry.remote.sent(_named(message.method), guard.server) as context:
        yield message if context is None else carrying(message, context)


def carrying(message: Message, context: Mapping[str, str]) -> Message:
    """A request or notification with this trace context instead of its own."""
    if not isinstance(message.params.get("_meta", {}), dict):
        return message
    kept = {name: value for name, value in _meta(message).items() if not _carried(name)}
    try:
        return with_meta(message, {**kept, **context})
    except Malformed:  # it has become too large
        return message


def _meta(message: Message) -> Mapping[str, Any]:
    found = message.params.get("_meta")
    return found if isinstance(found, dict) else {}


def _carried(name: str) -> bool:
    """A server may read names without regard to case."""
    return name.casefold() in CARRIED


def _named(method: str) -> str:
    return method if method in _METHODS else OTHER
