"""A task for every caller that proves who it is.

Rules enforced here:

1. A caller is an issuer and a subject that were authenticated; what a client says of itself is
   never one.
2. Facts and budgets belong to issuer, subject and task: not to a connection, which a caller can
   drop, and not to a session id, which it can choose.
3. A caller that the directory does not know gets no task.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from lictor.gate import Gate
from lictor.task import Task

MAX_CALLERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was authenticated.

    Attributes:
        subject: Who, as the issuer calls them; the directory must know the name.
        issuer: Who says so.
    """

    subject: str
    issuer: str = ""


class Callers:
    """The running tasks of callers, one each.

    Args:
        gate: Opens them.
        agent: The agent that every caller acts through.
        template: `[tasks.x]` that they run under; without one they may only read.
    """

    def __init__(self, gate: Gate, agent: str, template: str | None = None) -> None:
        self._gate, self._agent, self._template = gate, agent, template
        self._open: OrderedDict[Caller, Task] = OrderedDict()
        self._turn = asyncio.Lock()

    async def task(self, caller: Caller) -> Task:
        """The task of a caller; a new one when the last one is over.

        Raises:
            TaskError: The caller, the agent or the template is not known.
        """
        async with self._turn:
            found = self._open.get(caller)
            if found is None or not found.live or found.expired(time.time()):
                found = await asyncio.to_thread(self._begin, caller, found)
            self._open.move_to_end(caller)
            return found

    def _begin(self, caller: Caller, last: Task | None) -> Task:
        if last is not None:
            last.end(wait=False)
        made = self._gate.task(self._template, agent=self._agent, on_behalf_of=caller.subject)
        made.begin_process()
        self._open[caller] = made
        while len(self._open) > MAX_CALLERS:
            self._open.popitem(last=False)[1].end(wait=False)
        return made

    def end(self) -> None:
        """Ends them all."""
        while self._open:
            self._open.popitem()[1].end(wait=False)
