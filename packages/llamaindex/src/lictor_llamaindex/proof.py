"""The proof that this version of the host calls the seam.

Rules enforced here:

1. Every entry of every copy is tried once as the host calls it, before the copy is handed out; the
   gate must be met, and the tool must not.
2. The sign is a nonce that the gate holds in the context; no argument can be one.
3. A probe is nobody's call: no task, no record, no span.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from llama_index.core.tools import AsyncBaseTool, BaseTool

from lictor.errors import HostChanged
from lictor.gate import Gate, Probed
from lictor.telemetry import quiet
from lictor_llamaindex.seam import Seam, probing


def prove(copy: BaseTool, seam: Seam) -> AsyncBaseTool:
    """Tries the entries and demands that each has met the gate.

    Raises:
        HostChanged: One has not.
    """
    if not isinstance(copy, AsyncBaseTool):
        raise changed(seam.shape.tool.key.name)
    entries: tuple[Callable[..., Any], ...] = (copy.call, copy.acall, copy)
    for entry in (*entries, *seam.fields.values()):
        demand(seam.gate, seam, entry)
    return copy


def demand(gate: Gate, seam: Seam, entry: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Tries one entry.

    Raises:
        HostChanged: The gate was not met.
    """
    with _as_probe(gate, seam) as proved:
        begun = entry(*args, **kwargs)
        if hasattr(begun, "send"):
            try:
                begun.send(None)  # the gate is the first thing it meets, before any event loop
            finally:
                begun.close()
    if proved != [True]:
        raise changed(seam.shape.tool.key.name)


@contextlib.contextmanager
def _as_probe(gate: Gate, seam: Seam) -> Iterator[list[bool]]:
    proved: list[bool] = []
    token = probing.set(True)
    try:
        with quiet(), gate.probing() as probe:
            try:
                yield proved
            except Probed as reached:
                mine = probe.hits == [seam.shape.tool.key]
                proved.append(reached.args == (probe.nonce,) and mine)
            except Exception:
                proved.append(False)
    finally:
        probing.reset(token)


def changed(name: str) -> HostChanged:
    """The error for a host that goes another way."""
    return HostChanged(
        f"{host()} does not call tool {name!r} where Lictor guards it, so nothing was guarded\n"
        "  mend: use a version of the host that docs/llamaindex.md lists"
    )


def host() -> str:
    """Name and version of the host."""
    return f"llama-index-core {version('llama-index-core')}"
