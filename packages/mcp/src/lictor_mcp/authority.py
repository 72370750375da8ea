"""Authority that travels in `_meta`: what stops here unless the other side is one of ours.

Rules enforced here:

1. Members of `wire.OURS` are taken out of `_meta` of a request, a notification or an answer that
   goes to a server which is not marked `lictor = true`; nothing else of it changes.
2. Anywhere else in such a message they do not belong, and the message goes nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lictor_mcp.wire import OURS, Malformed, Message, with_meta


class Misplaced(ValueError):
    """Authority stands where none belongs."""


def without(message: Message) -> Message:
    """A message without it; the same object if there is none.

    Raises:
        Misplaced: It stands somewhere else than in `_meta`, or cannot be taken out.
    """
    if not message.ours:
        return message
    body = message.value.get("params", message.value.get("result", message.value))
    rest = stripped(body)
    try:
        return replace(with_meta(message, rest["_meta"]), loose=message.loose)
    except Malformed as bad:  # what is written anew can be longer than it was
        raise Misplaced(f"without its grant the message {bad.problem}") from None


def stripped(body: Any) -> Any:
    """Parameters or a result without it; the same object if there is none.

    Raises:
        Misplaced: It stands somewhere else than in `_meta`.
    """
    meta = body.get("_meta") if isinstance(body, Mapping) else None
    kept = body
    if isinstance(meta, Mapping) and any(_is_ours(name) for name in meta):
        rest = {name: value for name, value in meta.items() if not _is_ours(name)}
        kept = {**body, "_meta": rest}
    if _holds(kept):
        raise Misplaced("a grant stands where none belongs")
    return kept


def _holds(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_ours(name) or _holds(each) for name, each in value.items())
    return isinstance(value, list | tuple) and any(_holds(each) for each in value)


def _is_ours(name: object) -> bool:
    return isinstance(name, str) and name.casefold() in OURS
