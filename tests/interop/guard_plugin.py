"""A pytest plugin: every server that the SDK's own tests make has the gate in its way.

What is tried is that the gate, where it allows, changes nothing. So it allows all it can: the
reviewer accepts whatever he meets, at once, and four rules that those tests break on purpose are
lifted. Each has tests of its own elsewhere; the rest of the gate is the real one.

* A tool or prompt that the server does not list is called all the same.
* Arguments that its schema says nothing of pass.
* Two notifications that no protocol has, and those tests make up, pass.
* The gate's short looks at its own files count as no blocking of the event loop.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockbuster import BlockBuster
from home import AGENT, READ, TASK, USER, home, methods
from mcp.server.lowlevel.server import Server

import lictor_mcp.methods as m
from lictor import Gate
from lictor.catalog import Catalog
from lictor.model import Review, Tool, ToolKey
from lictor.ports import Known
from lictor.testing import UnsafeAllowAll
from lictor_mcp import GateMiddleware
from lictor_mcp.callers import Caller
from lictor_mcp.offers import Offers

SERVER = "local"
OPEN = {"type": "object", "additionalProperties": True}
LOOKS = (
    ("lictor/store/database.py", "read"),
    ("lictor/protect/reach.py", "reached"),
)
"""File and function of ours that ask the disk on the event loop: rows by their key, and paths."""

MADE_UP = frozenset({"custom/barrier", "notifications/custom"})


class Agreeable(Catalog):
    """A catalog whose reviewer says yes to whatever he is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[ToolKey, Known] = {}

    def accept(self, tool: Tool) -> None:
        """Enters a definition as it is now."""
        self.seen[tool.key] = Known(Review(tool.key, READ, tool.pin), tool)

    def known(self, key: ToolKey) -> Known | None:
        return self.seen.get(key)

    def check(self, tool: Tool) -> str | None:
        self.accept(tool)
        return None


def gate_of(folder: Path) -> Gate:
    """A gate that allows everything it can understand."""
    gate = Gate.from_file(home(folder))
    catalog = Agreeable()
    for tool in methods(SERVER).values():
        catalog.accept(tool)
    gate._stages.swap(catalog, UnsafeAllowAll())
    gate.met = catalog.accept  # type: ignore[method-assign]
    return gate


def _opened(read: Callable[..., Tool]) -> Callable[..., Tool]:
    def opened(server: str, identity: str, wire: Mapping[str, Any]) -> Tool:
        tool = read(server, identity, wire)
        return replace(tool, input_schema={**tool.input_schema, "additionalProperties": True})

    return opened


_get = Offers.get


async def _offered(self: Any, name: str, *, anew: bool = False) -> Tool | None:
    try:
        found = await _get(self, name, anew=anew)
    except Exception:  # a list that nobody was meant to ask for
        found = None
    if found is None:
        shown = name if self._method == "tools/list" else f"{m.OURS}prompt/{name}"
        found = Tool(ToolKey(SERVER, shown), "", OPEN)
        _gate.met(found)
    return found


_activate = BlockBuster.activate


def _looking(self: BlockBuster) -> None:
    for function in self.functions.values():
        for file, name in LOOKS:
            function.can_block_in(file, name)
    _activate(self)


_init = Server.__init__


def _guarded(self: Any, *arguments: Any, **options: Any) -> None:
    _init(self, *arguments, **options)
    self.middleware.append(
        GateMiddleware(_gate, server=SERVER, agent=AGENT, task=TASK, caller=lambda _: Caller(USER))
    )


_folder = Path(tempfile.mkdtemp(prefix="lictor-interop-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_gate = gate_of(_folder)
m.FROM_CLIENT |= MADE_UP  # type: ignore[misc]
m.tool_of, m.prompt_of = _opened(m.tool_of), _opened(m.prompt_of)
Offers.get = _offered  # type: ignore[method-assign]
BlockBuster.activate = _looking  # type: ignore[method-assign]
Server.__init__ = _guarded  # type: ignore[method-assign]
