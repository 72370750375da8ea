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
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from lictor.errors import TaskError
from lictor.gate import Gate
from lictor.model import Tool, ToolCall
from lictor.task import Task
from lictor_mcp.guard import Guard, Refused
from lictor_mcp.wire import DENIED

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


def of_token(request: Any) -> Caller | None:
    """The caller that the SDK's own token verifier has verified, if there is one."""
    scope = getattr(request, "scope", None)
    user = scope.get("user") if isinstance(scope, Mapping) else None
    token: Any = getattr(user, "access_token", None)
    subject = getattr(token, "subject", None)
    if not isinstance(subject, str) or not subject:
        return None
    return Caller(subject, str((token.claims or {}).get("iss", "")))


class Callers:
    """The running tasks of callers, one each.

    Args:
        gate: Opens them.
        agent: The agent that every caller acts through; without one callers may only read.
        template: `[tasks.x]` that they run under; without one they may only read.
        who: Says who is calling, from the HTTP request.
    """

    def __init__(
        self,
        gate: Gate,
        agent: str = "",
        template: str | None = None,
        who: Callable[[Any], Caller | None] = of_token,
    ) -> None:
        self._gate, self._agent, self._template, self._who = gate, agent, template, who
        self._open: OrderedDict[Caller, Task] = OrderedDict()
        self._turn = asyncio.Lock()

    async def home(self, request: Any, guard: Guard) -> AbstractContextManager[object]:
        """Whose authority a message is under.

        Args:
            request: The HTTP request it came with; `None` where there is none.
            guard: In front of the server.

        Raises:
            Refused: The caller is not one that the directory knows.
        """
        if request is None:  # stdio, in memory: the process is the caller
            return nullcontext()
        caller = self._who(request)
        if caller is None or not self._agent:
            task = self._gate.current()
            return task.reading().here() if task is not None and task.live else nullcontext()
        try:
            return (await self.task(caller)).here()
        except TaskError as error:
            call = ToolCall(Tool.unknown(guard.server, "caller"), {}, pep=guard.pep)
            decision = self._gate.refuse(call, "principal_unknown", str(error))
            raise Refused(DENIED, decision.text) from None

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
