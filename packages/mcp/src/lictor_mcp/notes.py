"""What a server says without being asked: notifications.

Rules enforced here:

1. Of a notification only what is no text passes by itself: ids, numbers, that there is a change.
   Text, and members that the protocol does not have, need a review. What has white space in it is
   text, wherever it stands.
2. It passes once what it brings to the session is on disk: one decision for each task and kind.
3. That a list has changed is told once, until the client lists anew.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from lictor.errors import Denied
from lictor.gate import Gate
from lictor.model import ToolCall, Verdict
from lictor_mcp.methods import CHANGED, FROM_SERVER, PROTOCOL, TEXT

Wire: TypeAlias = Mapping[str, Any]
MAX_TOLD: Final = 1_000
_SUBSCRIPTION: Final = f"{PROTOCOL}subscriptionId"
_ABOUT: Final = frozenset({_SUBSCRIPTION, f"{PROTOCOL}related-task"})
"""Members of `_meta` that say what a notification belongs to."""
_WORD: Final = re.compile(r"\S{0,2048}")


def bare(method: str, params: Wire) -> Wire | None:
    """Parameters without text; the same object if there is none, `None` if nothing is left."""
    plain = FROM_SERVER[method]
    kept = {name: value for name, value in params.items() if _is(plain.get(name), value)}
    meta = params.get("_meta")
    if isinstance(meta, Mapping):
        kept["_meta"] = {name: meta[name] for name in meta if name in _ABOUT and _mute(meta[name])}
    if kept == params:
        return params
    return None if method == TEXT else kept


def _is(kinds: tuple[type, ...] | None, value: object) -> bool:
    return kinds is not None and type(value) in kinds and _mute(value)


def _mute(value: object) -> bool:
    """Whether a value holds words at most, as an id or an address is one."""
    if isinstance(value, Mapping):
        return all(_mute(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return all(map(_mute, value))
    return not isinstance(value, str) or _WORD.fullmatch(value) is not None


class Spoken:
    """Which text of a server reaches which task.

    Args:
        gate: Who decides.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._found: OrderedDict[tuple[str, str], bool] = OrderedDict()

    async def may(self, call: ToolCall) -> bool:
        """Whether text of this kind reaches the current task; its labels are on disk then."""
        task = self._gate.current()
        self._gate.met(call.tool)
        which = ("" if task is None else task.id, call.tool.key.name)
        found = self._found.get(which)
        if found is None or (found and self._gate.catalog.check(call.tool) is not None):
            found = self._found[which] = await self._decided(call)
            while len(self._found) > MAX_TOLD:
                self._found.popitem(last=False)
        return found

    async def _decided(self, call: ToolCall) -> bool:
        decision = self._gate.decide(call)
        if decision.verdict is not Verdict.ALLOW:
            self._gate.refuse(call, decision.reason, decision.detail)
            return False

        async def nothing(checked: dict[str, object]) -> None:
            """What it brings counts; there is nothing to run."""

        try:
            await self._gate.arun(call, nothing)
        except Denied:
            return False
        return True


class Told:
    """Which changes a client has been told and has not looked at yet."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def again(self, method: str, params: Wire) -> bool:
        """Whether the client knows it already."""
        if method not in CHANGED:
            return False
        meta = params.get("_meta")
        which = (method, str(meta.get(_SUBSCRIPTION)) if isinstance(meta, Mapping) else "")
        if which in self._told:
            return True
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add(which)
        return False

    def asked(self, method: str) -> None:
        """The client asks for this list, as it is from now on."""
        self._told = {each for each in self._told if method not in CHANGED[each[0]]}
