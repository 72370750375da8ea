"""A line to a server that cannot be trusted, with the gate in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from lictor.ports import Known
from lictor_mcp.testing import HostileServer, Line, definition, known

LOOK = definition("look", "name")
PUT = definition("put", "name", "text")


@pytest_asyncio.fixture
async def line(tmp_path: Path) -> AsyncIterator[Callable[..., Line]]:
    """Makes lines to a server with a tool that reads and one that writes, both reviewed."""
    made: list[Line] = []

    def make(*more: Known, server: HostileServer | None = None, **options: Any) -> Line:
        tools = options.pop("tools", (known(LOOK), known(PUT, "write")))
        one = Line(tmp_path, server or HostileServer(LOOK, PUT), (*tools, *more), **options)
        made.append(one)
        return one

    yield make
    for each in made:
        await each.close()
