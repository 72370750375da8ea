"""Tasks: work under one grant, from `with gate.task(...)` to its end.

Rules enforced here:

1. A call belongs to the task that is current in its context; without one it is denied.
2. A task is not entered while another live one is current, except by `delegate` and `start`:
   interleaved streams of two tenants cannot act under each other's authority.
3. Leaving the block ends the task before anything else, also from a foreign context; with an ask
   pending it is suspended instead, and `gate.resume` continues it.
4. A child's authority ends with its parent's.
5. Ending a task starts no new body; bodies still running are waited for up to `grace` seconds, then
   listed in the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from lictor.canonical import Json
from lictor.errors import TaskError
from lictor.grant import Grant
from lictor.model import Assurance, ToolKey, ulid
from lictor.ports import GrantFacts
from lictor.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

P = ParamSpec("P")
T = TypeVar("T")

_current: ContextVar[Task | None] = ContextVar("lictor_task", default=None)
_call_id: ContextVar[str | None] = ContextVar("lictor_call_id", default=None)


def current() -> Task | None:
    """The task that calls in this context belong to, whatever its state."""
    return _current.get()


def call_id() -> str:
    """Inside a body: the id that every retry and resume of this call shares.

    Pass it on as the idempotency key of whatever the body calls.

    Raises:
        LookupError: Not inside an authorized body.
    """
    found = _call_id.get()
    if found is None:
        raise LookupError("lictor.call_id() is known only inside an authorized body")
    return found


class _Here:
    """A block in which a task is the current one; on the way of every call, hence no generator."""

    __slots__ = ("_task", "_token")

    def __init__(self, task: Task) -> None:
        self._task = task

    def __enter__(self) -> None:
        self._token = _current.set(self._task)

    def __exit__(self, *ended: object) -> None:
        _current.reset(self._token)


class Keeper(Protocol):
    """What a task needs of its gate."""

    def task_moved(self, task: Task, running: tuple[str, ...]) -> None:
        """Records that the task is running, suspended or ended."""
        ...

    def child(
        self,
        task: Task,
        agent: str,
        *,
        template: str | None,
        tools: Iterable[str] | None,
        limits: Mapping[str, Mapping[str, object]] | None,
        expires_in: int | None,
        own: bool,
    ) -> Task:
        """Makes a child task under a narrower grant, or one under a grant of its own."""
        ...

    def reading(self, task: Task) -> Task:
        """Makes a child task of the same agents that may only read."""
        ...


class Task:
    """Work under one grant. Made by `Gate.task`, used as a (sync or async) context manager.

    Attributes:
        id: ULID.
        grant: The authority of this task.
        session: The conversation it works in.
        assurance: How its principals were established.
        state: `new`, `running`, `suspended` or `ended`.
        resumed: It was suspended before: it may run once more, and once only.
        pending: Digests of calls that wait for a person, of delegated and started tasks too.
    """

    def __init__(
        self,
        keeper: Keeper,
        grant: Grant,
        session: Session,
        *,
        assurance: Assurance,
        task_id: str,
        parent: Task | None = None,
        grace: float = 0.0,
        used: tuple[int, int] | None = None,
        now: float = 0.0,
    ) -> None:
        self.id = task_id
        self.grant = grant
        self.session = session
        self.assurance = assurance
        self.state = "new"
        self.pending: set[str] = set()
        self.keeper = keeper
        self._parent = parent
        self._grace = grace
        self._calls, self._spent = used or (0, 0)
        self.resumed = used is not None
        self._deadline = time.monotonic() + grant.expires - now
        self.granted: dict[ToolKey, GrantFacts] = {}
        self._denials: Counter[tuple[str, ...]] = Counter()
        self._running: set[str] = set()
        self._idle = threading.Condition()
        self._token: Token[Task | None] | None = None
        self._children: list[Task] = []
        self._reading: Task | None = None

    # -- lifetime ---------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether calls may start: running, and so is every parent."""
        return self.state == "running" and (self._parent is None or self._parent.live)

    def line(self) -> Iterator[Task]:
        """This task, and those whose end is its end too."""
        task: Task | None = self
        while task is not None:
            yield task
            task = task._parent

    def expired(self, at: float) -> bool:
        """Whether the grant is over, by the wall clock or by the time that has really passed.

        A child's time is over with its parent's, whatever its own grant says.
        """
        if at >= self.grant.expires or time.monotonic() >= self._deadline:
            return True
        return self._parent is not None and self._parent.expired(at)

    def __enter__(self) -> Task:
        outer = _current.get()
        if outer is not None and outer.live and outer is not self._parent:
            raise TaskError(
                f"task {outer.id} is still open here: entering another one would mix up whose "
                "authority calls run under\n  mend: leave it first, or use task.delegate(...) or "
                "task.start(...); give each consumer of an interleaved stream its own context"
            )
        if self.state != "new":
            raise TaskError(f"task {self.id} was already entered\n  mend: open a new task")
        self._begin()
        self._token = _current.set(self)
        return self

    def _begin(self) -> None:
        self.state = "running"
        try:
            self.keeper.task_moved(self, ())
        except BaseException:
            self.state = "new"
            raise
        if self._parent is not None:
            with self._parent._idle:
                self._parent._children.append(self)

    def begin_process(self) -> None:
        """Starts without being entered: the task of calls for which no other one is open."""
        self._begin()

    def regrant(self, grant: Grant) -> None:
        """Goes on under another grant, which is recorded: a person has decided so.

        If that was for a call of a child task, the child gets the tools that are new as well; other
        children keep what they have.
        """
        line = self._line(current())
        more = (grant.tools or frozenset()) - (self.grant.tools or frozenset())
        self._go_on(grant)
        for parent, child in zip((self, *line), line, strict=False):
            tools = child.grant.tools if child.grant.tools is None else child.grant.tools | more
            child._go_on(replace(child.grant, id=ulid(), parent=parent.grant.id, tools=tools))

    def _line(self, task: Task | None) -> list[Task]:
        """The way down to a task whose authority is a part of this one's; empty to any other."""
        found: list[Task] = []
        while task is not None and task is not self:
            found.insert(0, task)
            task = task._payer
        return found if task is self else []

    def _go_on(self, grant: Grant) -> None:
        with self._idle:
            self.grant, self.granted, self._reading = grant, {}, None
        self.keeper.task_moved(self, ())

    def _forget(self, child: Task) -> None:
        with self._idle, contextlib.suppress(ValueError):
            self._children.remove(child)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    async def __aenter__(self) -> Task:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Bodies that are to end within the grace period may need this very loop for it.
        try:
            stopped = self._stop(self._last(), "running")
            if stopped and self._grace:
                await asyncio.to_thread(self._wait)
        finally:
            self._restore(stopped)

    def leave(self) -> None:
        """Suspends the task if an ask is pending, else ends it, then restores the context."""
        stopped = self._stop(self._last(), "running")
        if stopped:
            self._wait()
        self._restore(stopped)

    def end(self, *, wait: bool = True) -> tuple[str, ...]:
        """Ends the task now, from any thread.

        Args:
            wait: Give bodies still running the task's grace to end.

        Returns:
            Call ids of bodies that are still running; they cannot be stopped from here.
        """
        if not self._stop("ended", "running", "suspended"):
            return ()
        if wait:
            self._wait()
        return self._settle(wait=wait)

    def _last(self) -> str:
        return "suspended" if self.pending else "ended"

    def _stop(self, state: str, *after: str) -> bool:
        """From here on no body starts; `False` if somebody was here before."""
        with self._idle:
            if self.state not in after:
                return False
            self.state = state
            return True

    def _wait(self) -> None:
        with self._idle:
            if self._grace:
                self._idle.wait_for(lambda: not self._running, timeout=self._grace)

    def _settle(self, *, wait: bool = True) -> tuple[str, ...]:
        with self._idle:
            running = tuple(sorted(self._running))
            children, self._children, self._reading = self._children, [], None
        for child in children:
            child.end(wait=wait)
        if self._parent is not None:
            self._parent._forget(self)
        self.keeper.task_moved(self, running)
        return running

    def _restore(self, stopped: bool) -> None:
        try:
            if stopped:
                self._settle()
        finally:
            token, self._token = self._token, None
            # Left from another context (an async generator closed elsewhere): the task has ended,
            # so what the old context still sees can start nothing.
            with contextlib.suppress(ValueError):
                if token is not None:
                    _current.reset(token)

    def here(self) -> AbstractContextManager[None]:
        """Makes this running task the current one for a block, in any thread or context."""
        return _Here(self)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """A function that runs under this task in any thread or context.

        For bare threads and executors, which do not inherit context. The rest of the context is
        that of the caller of `bind`: an adapter's knowledge of whose body it is in goes along.
        """
        captured = contextvars.copy_context()

        def bound(*args: P.args, **kwargs: P.kwargs) -> T:
            def inside() -> T:
                with self.here():
                    return function(*args, **kwargs)

            return captured.copy().run(inside)

        return bound

    # -- other agents -----------------------------------------------------------------------------

    def delegate(
        self,
        agent: str,
        tools: Iterable[str] | None = None,
        limits: Mapping[str, Mapping[str, object]] | None = None,
        *,
        expires_in: int | None = None,
    ) -> Task:
        """A child task for another agent, with a part of this task's authority.

        Args:
            agent: Name of the other agent.
            tools: `server/name` of what it may call; none named: it may only read.
            limits: Narrower limits, by tool and argument.
            expires_in: Seconds; at most what is left.

        Raises:
            TaskError: It would be wider than this task; the message says what is too wide.
        """
        return self.keeper.child(
            self,
            agent,
            template=None,
            tools=tools,
            limits=limits,
            expires_in=expires_in,
            own=False,
        )

    def start(self, template: str, *, agent: str) -> Task:
        """A task of another agent under the operator's own template, not under this grant.

        It works for the same user, in the same tenant and conversation.

        Raises:
            TaskError: There is no such template or agent.
        """
        return self.keeper.child(
            self, agent, template=template, tools=None, limits=None, expires_in=None, own=True
        )

    def reading(self) -> Task:
        """The running child for work that nobody has mapped to an agent: it may only read.

        It is one for all such work, and ends with this task.

        Raises:
            TaskError: This task is not running.
        """
        with self._idle:
            if self._reading is None:
                child = self.keeper.reading(self)
                child._begin()
                self._reading = child
            return self._reading

    # -- for the pipeline -------------------------------------------------------------------------

    def reserve(self, spend: int) -> bool:
        """Counts one call and its spend (1/10,000) against the budget, if they still fit.

        What a delegated task uses is used of its parent's budget too.
        """
        payer = self._payer
        if payer is not None and not payer.reserve(spend):
            return False
        with self._idle:
            fits = self._fits(spend)
            if fits:
                self._calls += 1
                self._spent += spend
        if not fits and payer is not None:
            payer.refund(spend)
        return fits

    def _fits(self, spend: int) -> bool:
        grant, most = self.grant, self.grant.max_spend_units
        if grant.max_calls is not None and self._calls + 1 > grant.max_calls:
            return False
        return most is None or self._spent + spend <= most

    @property
    def _payer(self) -> Task | None:
        """The parent whose grant this one is a part of; a started task has a grant of its own."""
        parent = self._parent
        return parent if parent is not None and self.grant.parent == parent.grant.id else None

    def refund(self, spend: int) -> None:
        """Gives back what a call that did not run had reserved."""
        with self._idle:
            self._calls -= 1
            self._spent -= spend
        if self._payer is not None:
            self._payer.refund(spend)

    def begin(self, call: str) -> bool:
        """Registers a running body; `False` if the task no longer lets one start."""
        with self._idle:
            if not self.live:
                return False
            self._running.add(call)
            return True

    def finish(self, call: str) -> None:
        """Forgets a body that has ended."""
        with self._idle:
            self._running.discard(call)
            self._idle.notify_all()

    @property
    def used(self) -> tuple[int, int]:
        """Calls and spend (1/10,000) counted so far, reads and delegated work included."""
        with self._idle:
            return self._calls, self._spent

    def waits(self, digest: str) -> None:
        """A call waits for a person: the root task is then suspended instead of ended.

        A child has nothing to come back to without its parent: what it asked is asked again.
        """
        task = self
        while task._parent is not None:
            task = task._parent
        with task._idle:
            task.pending.add(digest)

    def heard(self, digest: str) -> None:
        """The person has answered."""
        task = self
        while task._parent is not None:
            task = task._parent
        with task._idle:
            task.pending.discard(digest)

    def denied(self, what: tuple[str, ...]) -> int:
        """How often this has now been denied in this task, this time included."""
        with self._idle:
            self._denials[what] += 1
            return self._denials[what]

    def facts(self) -> dict[str, Json]:
        """What the record of a task says."""
        return {
            "template": self.grant.template,
            "assurance": str(self.assurance),
            "conversation": self.session.conversation,
            "parent": self._parent.id if self._parent else "",
            "purpose": self.grant.purpose,
            "grant": self.grant.to_json(),
        }
