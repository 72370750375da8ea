"""What a server offers of one kind, as it lists it now.

Rules enforced here:

1. Nothing is known before it was listed, after a change was announced, or when it was listed too
   long ago; a listing that fails leaves nothing known.
2. A change announced while we list means listing once more.
3. Two different definitions under one name are none: which of them would run is the server's
   secret.
4. What nobody can review is not offered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from lictor.canonical import InputInvalid
from lictor.model import Tool

Wire: TypeAlias = Mapping[str, Any]
Lister: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Wire]]
"""Asks the server something in our own name: method and parameters."""

LIST_SECONDS: Final = 10.0
KEPT_SECONDS: Final = 60.0
MAX_PAGES: Final = 100
MAX_LISTED: Final = 10_000


class Offers:
    """The tools, or the prompts, of one server.

    Args:
        lister: Asks the server.
        method: Lists them.
        member: Of the result: where they are.
        read: Makes a definition of what is listed; raises `ValueError` if it is none.
        note: Told every definition that was met.
    """

    def __init__(
        self,
        lister: Lister,
        method: str,
        member: str,
        read: Callable[[Wire], Tool],
        note: Callable[[Tool], None],
    ) -> None:
        self._lister, self._method, self._member = lister, method, member
        self._read, self._note = read, note
        self._found: dict[str, Tool] = {}
        self._until = 0.0
        self._rounds, self._changes = 0, 0
        self._turn = asyncio.Lock()

    def changed(self) -> None:
        """What is known may be true no longer."""
        self._changes += 1
        self._until = 0.0

    async def all(self) -> tuple[Tool, ...]:
        """All of them; raises like `get`."""
        if time.monotonic() >= self._until:
            await self._since(-1)
        return tuple(self._found.values())

    async def get(self, name: str, *, anew: bool = False) -> Tool | None:
        """The definition under a name; `None` if the server offers none.

        Args:
            name: Its name.
            anew: Ask the server also if it was asked a moment ago.

        Raises:
            TimeoutError: It does not answer.
            ValueError: Its list has no end, or changes faster than it can be read.
            Exception: What the lister raises.
        """
        known = time.monotonic() < self._until
        if anew or not known or name not in self._found:
            await self._since(self._rounds if anew or known else -1)
        return self._found.get(name)

    async def _since(self, rounds: int) -> None:
        """Lists, unless what is known was listed in a later round than this one."""
        async with self._turn:
            if self._rounds > rounds and time.monotonic() < self._until:
                return
            self._until = 0.0
            async with asyncio.timeout(LIST_SECONDS):
                await self._list()

    async def _list(self) -> None:
        for _ in range(MAX_PAGES):
            self._rounds += 1
            changes = self._changes
            self._found = await self._all()
            if changes == self._changes:
                self._until = time.monotonic() + KEPT_SECONDS
                return
        raise ValueError("what it offers does not stay")

    async def _all(self) -> dict[str, Tool]:
        wires: list[Wire] = []
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            page = await self._lister(self._method, params)
            wires += items(page, self._member)
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return {name: tool for name, tool in self.read(wires).items() if tool is not None}
            if len(wires) > MAX_LISTED:
                break
            params = {"cursor": cursor}
        raise ValueError("its list has no end")

    def read(self, wires: Iterable[Wire]) -> dict[str, Tool | None]:
        """Definitions by name; `None` for what nobody can review, and for what is offered twice."""
        found: dict[str, Tool | None] = {}
        for wire in wires:
            name, tool = str(wire.get("name")), self._one(wire)
            found[name] = tool if found.get(name, tool) == tool else None
        for tool in found.values():
            if tool is not None:
                self._note(tool)
        return found

    def _one(self, wire: Wire) -> Tool | None:
        try:
            return self._read(wire)
        except (ValueError, InputInvalid, TypeError):
            return None

    def passed(self, found: Mapping[str, Tool | None]) -> None:
        """A list that passes by tells as much as our own: where it differs, we list anew."""
        if any(self._found.get(name) != tool for name, tool in found.items()):
            self.changed()


def items(result: Wire, member: str) -> list[Wire]:
    """What a list holds; what is no object in it is left out."""
    found = result.get(member)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
