"""Tasks of a server that calls have started: whose each is.

Rules enforced here:

1. A task is the caller's whose call has started it, in that conversation.
2. An id that a server gives to two calls is the first one's; so many are remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from lictor.errors import Withheld
from lictor.gate import Gate
from lictor.model import ToolCall
from lictor_mcp import carried

MAX_TASKS: Final = 10_000


class Begun:
    """What calls on one connection have started.

    Args:
        gate: Knows whose task is current.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._begun: OrderedDict[str, tuple[object, ToolCall]] = OrderedDict()

    def by(self, call: ToolCall, result: Mapping[str, Any]) -> None:
        """Remembers what a call has started.

        Raises:
            Withheld: The server says that it was another call's.
        """
        for id in carried.tasks(result):
            owner, first = self._begun.setdefault(id, (self._caller(), call))
            same = (first.tool.key, first.arguments) == (call.tool.key, call.arguments)
            if owner != self._caller() or not same:
                raise Withheld("the server gives it the task of another call")
            while len(self._begun) > MAX_TASKS:
                self._begun.popitem(last=False)

    def of(self, id: str) -> ToolCall | None:
        """The call that has started a task, if it is the current caller's."""
        owner, call = self._begun.get(id, (None, None))
        return call if owner == self._caller() else None

    def _caller(self) -> object:
        task = self._gate.current()
        if task is None:
            return None
        grant = task.grant
        return grant.tenant, grant.user, grant.agents, task.session.conversation
