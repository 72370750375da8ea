"""Lictor for MCP: every call between a client and a server, authorized.

`GateMiddleware` and `GatedServer` guard a server that you write (`mcp` 2.x), `guard_transport` the
calls that your agent makes, and `lictor gateway` a server that you cannot change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lictor_mcp.client import guard_transport
    from lictor_mcp.server import GatedServer, GateMiddleware

_HOMES: Final = {"GateMiddleware": "server", "GatedServer": "server", "guard_transport": "client"}
"""Loaded when asked for: the gateway needs no SDK, and each SDK has an adapter of its own."""

__all__ = ["GateMiddleware", "GatedServer", "guard_transport"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
