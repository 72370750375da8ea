"""The proof that this version of the host calls the seam.

Rules enforced here:

1. Every copy is run once as the host runs it, before it is handed out; the gate must be met, and
   the tool must not.
2. The sign is a nonce that the gate holds in the context; no argument can be one.
3. A probe is nobody's call: no task, no record, no span, no trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version

from langchain_core.tools import BaseTool
from langsmith.run_helpers import tracing_context

from lictor.errors import HostChanged
from lictor.gate import Probed
from lictor.subagent import setting
from lictor.telemetry import quiet
from lictor_langchain.meeting import probing
from lictor_langchain.seam import Seam


def prove(copy: BaseTool, seam: Seam) -> None:
    """Runs the copy as the host does and demands that the gate was met, not the tool.

    Raises:
        HostChanged: It was not.
    """
    own = type(copy)._arun is not BaseTool._arun
    if "coroutine" in seam.fields or (own and not seam.fields):
        _in_a_thread(lambda: asyncio.run(_aproof(copy, seam)))
    if "func" in seam.fields or not seam.fields:
        with _as_probe(seam) as proved:
            copy.run({}, callbacks=[], tool_call_id="probe")
        _demand(seam, proved)


async def _aproof(copy: BaseTool, seam: Seam) -> None:
    with _as_probe(seam) as proved:
        await copy.arun({}, callbacks=[], tool_call_id="probe")
    _demand(seam, proved)


@contextlib.contextmanager
def _as_probe(seam: Seam) -> Iterator[list[bool]]:
    """A probe is nobody's call: no tracer, no span, no task."""
    proved: list[bool] = []
    with (
        quiet(),
        tracing_context(enabled=False),
        setting(probing, True),
        seam.gate.probing() as probe,
    ):
        try:
            yield proved
        except Probed as reached:
            proved.append(reached.args == (probe.nonce,) and probe.hits == [seam.shape.tool.key])
        except Exception:
            proved.append(False)


def _demand(seam: Seam, proved: list[bool]) -> None:
    if proved != [True]:
        raise HostChanged(
            f"{host()} does not call tool {seam.shape.tool.key.name!r} where Lictor guards it, so "
            "nothing was guarded\n  mend: use a version of the host that docs/langchain.md lists"
        )


def _in_a_thread(work: Callable[[], None]) -> None:
    """Runs to its end elsewhere, in this context: this thread may have an event loop."""
    context, failed = contextvars.copy_context(), []

    def run() -> None:
        try:
            context.run(work)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="lictor-probe", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def host() -> str:
    """Name and version of the host."""
    return f"langchain-core {version('langchain-core')}"
