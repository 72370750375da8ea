"""`python fixture.py PORT [LICTOR_TOML]`: the SDK's own server for the suite, guarded or not.

Its module comes from the SDK's sources, by `PYTHONPATH`.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from fixture_name import SERVER
from mcp_everything_server import server as fixture


def guarded(toml: Path) -> contextlib.AbstractContextManager[object]:
    """Puts the middleware in: one line, and a gate."""
    from lictor import Gate
    from lictor_mcp import GateMiddleware
    from lictor_mcp.callers import Caller

    gate = Gate.from_file(toml)
    middleware = GateMiddleware(
        gate, server=SERVER, agent="tester", task="interop", caller=lambda _: Caller("alice")
    )
    fixture.mcp.middleware.append(middleware)
    return contextlib.closing(gate)


if __name__ == "__main__":
    port, *rest = sys.argv[1:]
    with guarded(Path(rest[0])) if rest else contextlib.nullcontext():
        fixture.main(["--port", port, "--log-level", "ERROR"])
