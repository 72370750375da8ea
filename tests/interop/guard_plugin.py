"""A pytest plugin: every server that the SDK's own tests make has the gate in its way.

The reviewer here accepts whatever he meets, at once: what is tried is that the gate, where it
allows, changes nothing. The rest of the gate is the real one.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from home import AGENT, READ, TASK, USER, home, methods
from mcp.server.lowlevel.server import Server

from lictor import Gate
from lictor.catalog import Catalog
from lictor.model import Review, Tool, ToolKey
from lictor.ports import Known
from lictor_mcp import GateMiddleware
from lictor_mcp.callers import Caller
from lictor_mcp.guard import Failed
from lictor_mcp.methods import OURS
from lictor_mcp.offers import Offers

SERVER = "local"


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
    gate = Gate.from_file(home(folder, allow_all=True))
    catalog = Agreeable()
    for tool in methods(SERVER).values():
        catalog.accept(tool)
    gate._stages.catalog = catalog
    gate.met = catalog.accept  # type: ignore[method-assign]
    return gate


_get = Offers.get


async def _offered(self: Any, name: str, *, anew: bool = False) -> Tool | None:
    """Many of those servers list nothing of what they offer: the guard would refuse all of it."""
    try:
        found = await _get(self, name, anew=anew)
    except Failed:
        found = None
    if found is None:
        shown = name if self._method == "tools/list" else f"{OURS}prompt/{name}"
        found = Tool(ToolKey(SERVER, shown), "", {"type": "object", "additionalProperties": True})
    return found


Offers.get = _offered  # type: ignore[method-assign]
_folder = Path(tempfile.mkdtemp(prefix="lictor-interop-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_gate = gate_of(_folder)
_init = Server.__init__


def _guarded(self: Any, *arguments: Any, **options: Any) -> None:
    _init(self, *arguments, **options)
    self.middleware.append(
        GateMiddleware(_gate, server=SERVER, agent=AGENT, task=TASK, caller=lambda _: Caller(USER))
    )


Server.__init__ = _guarded  # type: ignore[method-assign]
