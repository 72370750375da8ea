"""Sub-agents, for adapters: under whose authority a call is made that another model has chosen.

Rules enforced here:

1. An agent started inside a tool's body does not act with the caller's authority: mapped to an
   agent of the directory it gets a delegated part of the grant, unmapped it may only read.
2. What a sub-agent is called by a model is no identity; only the program's `agent=` is.
3. Code of a tool that calls another tool by hand stays under the same task.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from lictor.gate import Gate
from lictor.model import ToolKey
from lictor.task import Task, current

_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True, slots=True)
class Inside:
    """A body is running.

    Attributes:
        task: The task it was authorized under.
        effect: It, or a body around it, has an effect.
    """

    task: Task | None
    effect: bool = True


inside: Final[ContextVar[Inside | None]] = ContextVar("lictor_inside", default=None)
"""What body calls in this context are made in; adapters set it around every body."""


@contextlib.contextmanager
def setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Sets a context variable for a block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def acting(host_id: str) -> AbstractContextManager[None]:
    """The authority for a call that carries a model's tool-call id.

    Such a call inside the body of a guarded tool was chosen by another model than the one that
    chose the body. Unless somebody delegated in between, it may only read.
    """
    place = inside.get()
    if place is None or not host_id:
        return _NOTHING
    task = current()
    if task is None or task is not place.task or not task.live:
        return _NOTHING
    return task.reading().here()


class Delegation:
    """The child tasks of one mapped sub-agent, one for each task it works in."""

    def __init__(self, agent: str, gate: Gate) -> None:
        self._agent, self._gate = agent, gate
        self._lock = threading.Lock()
        self._children: dict[Task, Task] = {}

    def acting(self, held: Iterable[ToolKey]) -> AbstractContextManager[None]:
        """The child task of the current one, made the first time and when its grant has changed.

        Raises:
            TaskError: The agent is not in the directory, or stands in the chain already.
        """
        task = self._gate.current()
        if task is None or not task.live:
            return _NOTHING
        if task.grant.agents[-1] == self._agent and task.grant.depth > 1:
            return _NOTHING
        with self._lock:
            child = self._children.get(task)
            if child is None or not child.live or child.grant.parent != task.grant.id:
                child = self._delegate(task, frozenset(held))
                self._children = {t: c for t, c in self._children.items() if c.live}
                self._children[task] = child
        return child.here()

    def _delegate(self, task: Task, held: frozenset[ToolKey]) -> Task:
        given = task.grant.tools
        names = None if given is None else [str(key) for key in sorted(given & held)]
        child = task.delegate(self._agent, tools=names)
        # Entered in a context of its own: it lasts until its parent ends, across threads.
        contextvars.copy_context().run(child.__enter__)
        return child
