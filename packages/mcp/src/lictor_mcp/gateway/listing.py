"""All that a server offers, asked for in our own name before anybody uses it.

Rules enforced here:

1. Definitions are made as the gateway makes them: what is locked is what calls are compared with.
2. Everything is read to the last page. A list that changes meanwhile is read anew.
3. What cannot be read is an error, never an empty list.
4. What nobody can review is named, never left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lictor.canonical import InputInvalid
from lictor.forms import visible
from lictor.model import Tool, ToolKey
from lictor_mcp import methods as m
from lictor_mcp.guard import Failed
from lictor_mcp.offers import MAX_LISTED, MAX_PAGES, Wire
from lictor_mcp.wire import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND

CAPABILITIES: Final[Wire] = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}
"""Some servers offer more to a client that can do more; nothing of this is ever done here."""
HELLO: Final[Wire] = {
    "protocolVersion": "2025-11-25",
    "capabilities": CAPABILITIES,
    "clientInfo": {"name": "lictor", "version": "1"},
}
READ: Final = f"{m.OURS}resources/read"
PROMPT: Final = f"{m.OURS}prompt/"
_NOT_THERE: Final = frozenset({METHOD_NOT_FOUND, INVALID_PARAMS, INVALID_REQUEST})
"""What a server answers that has no such list."""


class Nonsense(Exception):
    """The server answered, and not what the protocol says."""


class Talk(Protocol):
    """A conversation with one server, in our own name.

    Attributes:
        changes: How often it has announced that a list is another.
    """

    changes: int

    async def ask(self, method: str, params: Wire) -> Wire:
        """Asks it.

        Raises:
            Failed: It answered with an error, or not at all.
        """
        ...

    async def greeted(self, said: Wire) -> None:
        """It has answered the greeting of the protocol with sessions."""
        ...

    def stateless(self) -> None:
        """From now on the protocol without sessions is spoken."""
        ...

    async def identity(self) -> str:
        """What the server is, as part of every pin."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a server offers.

    Attributes:
        server: Its id in the catalog.
        tools: Tools, prompts, what it says of itself, and reading if it has resources.
        odd: What it lists that nobody can review, in words.
    """

    server: str
    tools: tuple[Tool, ...]
    odd: tuple[str, ...] = ()

    def gone(self, locked: Iterable[ToolKey]) -> tuple[ToolKey, ...]:
        """Which of these the server no longer offers.

        Args:
            locked: Keys of the catalog; methods that no list names are never gone.
        """
        there = {tool.key for tool in self.tools}
        return tuple(
            key
            for key in sorted(locked)
            if key.server == self.server and key not in there and _listed(key.name)
        )


def _listed(name: str) -> bool:
    return not name.startswith(m.OURS) or name == READ or name.startswith(PROMPT)


async def found(server: str, talk: Talk) -> Found:
    """Greets a server, and reads everything it offers.

    Args:
        server: Its id in the catalog.
        talk: Speaks to it.

    Raises:
        Failed: It answers with an error, or not at all.
        Nonsense: It answers something else than the protocol says.
    """
    said = await _opened(talk)
    identity = await talk.identity()
    able = said.get("capabilities")
    if not isinstance(able, dict):
        raise Nonsense("it does not say what it is able to do")
    for _ in range(MAX_PAGES):
        changes = talk.changes
        tools = await _all(talk, "tools/list", able)
        prompts = await _all(talk, "prompts/list", able)
        if changes == talk.changes:
            return _made(server, identity, said, tools, prompts)
    raise Nonsense("what it offers does not stay")


async def _opened(talk: Talk) -> Wire:
    """Greets it in the protocol with sessions, which most servers speak, or in the other."""
    try:
        said = await talk.ask("initialize", HELLO)
    except Failed as first:
        talk.stateless()
        try:
            return await talk.ask("server/discover", {})
        except Failed as second:
            raise (first if first.error == second.error else second) from first
    if not isinstance(said.get("protocolVersion"), str):
        raise Nonsense("it does not say which version of the protocol it speaks")
    await talk.greeted(said)
    return said


async def _all(talk: Talk, method: str, able: Wire) -> list[Wire]:
    """A whole list; empty where the server neither has it nor says that it has."""
    member, wires = m.LISTS[method], list[Wire]()
    params: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        try:
            page = await talk.ask(method, params)
        except Failed as failed:
            if params or member in able or failed.error.get("code") not in _NOT_THERE:
                raise
            return []
        if member not in page and member not in able and not params:
            return []
        wires += _page(page, method, member)
        cursor = page.get("nextCursor")
        if cursor is None:
            return wires
        if not isinstance(cursor, str):
            raise Nonsense(f"it answers {method} with a cursor that is no text")
        if len(wires) > MAX_LISTED:
            break
        params = {"cursor": cursor}
    raise Nonsense(f"its answer to {method} has no end")


def _page(page: Wire, method: str, member: str) -> list[Wire]:
    listed = page.get(member)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Nonsense(f"it answers {method} without a list of {member}")
    return listed


def _made(
    server: str, identity: str, said: Wire, tools: Iterable[Wire], prompts: Iterable[Wire]
) -> Found:
    known: dict[ToolKey, Tool] = {}
    odd: list[str] = []
    about = m.server_tool(server, identity, said)
    for wires, read in ((tools, m.tool_of), (prompts, m.prompt_of)):
        for wire in wires:
            try:
                tool = read(server, identity, wire)
            except (ValueError, TypeError, InputInvalid) as problem:
                odd.append(f"{_named(wire)}: {visible(str(problem))[:200]}")
                continue
            if known.setdefault(tool.key, tool) != tool:
                odd.append(f"{_named(wire)}: two different definitions have that name")
    return Found(server, (*known.values(), about, *_methods(server, said)), tuple(odd))


def _methods(server: str, said: Wire) -> Iterator[Tool]:
    if "resources" in said["capabilities"]:
        yield m.method_tool(server, "resources/read")


def _named(wire: Wire) -> str:
    return visible(str(wire.get("name")))[:128]
