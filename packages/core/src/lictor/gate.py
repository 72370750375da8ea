"""The gate: the one object that authorizes calls.

Rules enforced here:

1. `run` and `arun` run a body with the checked arguments or raise `Denied`; nothing else runs one.
2. What is guarded is known by a registry in the gate, never by a mark on the tool.
3. A gate that is half configured does not come to be.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from lictor import drive
from lictor.approval import Desk
from lictor.attempt import RecordKey
from lictor.catalog import Catalog
from lictor.errors import ConfigError
from lictor.forms import visible
from lictor.home import Watchman
from lictor.model import Decision, Mode, Principal, Tool, ToolCall, ToolKey
from lictor.opening import Opener
from lictor.pipeline import Pipeline
from lictor.ports import Approvals, Clock, Directory, Policy, Query, Reviewer, Store
from lictor.protect import Protected
from lictor.record import Teller
from lictor.stages import Stages
from lictor.task import Task, current
from lictor.telemetry import Telemetry
from lictor.template import Template

T = TypeVar("T")

_log: Final = logging.getLogger("lictor")
_NOWHERE: Final[AbstractContextManager[None]] = contextlib.nullcontext()
_probe: ContextVar[Probe | None] = ContextVar("lictor_probe", default=None)


class Probed(BaseException):
    """Stands in for a decision while an adapter proves that it intercepts; no body runs."""


@dataclass(slots=True)
class Probe:
    """One proof of interception.

    Attributes:
        nonce: Known to the gate and the adapter only; it travels in a context variable, so that no
            argument of a model can name it.
        hits: Tools that reached the gate.
    """

    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    hits: list[ToolKey] = field(default_factory=list)


def _close(gate: weakref.ref[Gate]) -> None:
    """A program that ends has ended its task too."""
    found = gate()
    if found is not None:
        found.close()


class Gate:
    """Authorizes every call that goes through it, and records what it decided.

    Use `Gate.from_file`. The constructor takes the parts themselves, for tests and other hosts.
    A gate is a context manager; `close` writes what waits.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        policy: Policy,
        store: Store,
        directory: Directory,
        key: RecordKey,
        telemetry: Telemetry | None = None,
        approvals: Approvals | None = None,
        reviewer: Reviewer | None = None,
        templates: Mapping[str, Template] | None = None,
        protected: Protected | None = None,
        clock: Clock = time.time,
        tenant: str = "local",
        mode: Mode = Mode.ENFORCE,
        placement: str = "p0",
        require_verified: bool = False,
        policy_seconds: float = 2.0,
        ask_seconds: float = 130.0,
        seen: Path | None = None,
        profile: str = "local",
        keep: Callable[[Policy], None] | None = None,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        self.store = store
        self.tenant = tenant
        self._seen, self._keep = seen, keep
        if keep is not None:
            keep(policy)
        self._met: dict[str, Tool] = {}
        self._profile, self._placement, self._say = profile, placement, say
        self._announced: int | None = None
        self._held: dict[int, tuple[weakref.ref[object], object]] = {}
        self.telemetry = telemetry or Telemetry(
            mode=mode, placement=placement, known_tools=lambda: self.catalog.names
        )
        self._opener = Opener(store, directory, dict(templates or {}), clock, self.telemetry)
        self._stages = Stages(
            catalog=catalog,
            policy=policy,
            directory=directory,
            key=key,
            keeper=self._opener,
            clock=clock,
            approvals=None if approvals is None else Desk(store, approvals, key.digest, clock),
            reviewer=reviewer,
            note=self.met,
            protected=protected or Protected(()),
            mode=mode,
            placement=placement,
            require_verified=require_verified,
            policy_seconds=policy_seconds,
            ask_seconds=ask_seconds,
        )
        teller = Teller(self.telemetry, key, clock, mode, placement, policy.engine, say)
        self._pipeline = Pipeline(self._stages, store, teller)
        self._process: Task | None = None
        self._adopter = 0
        self.closed = False
        self._watchman: Watchman | None = None
        self._reload: Callable[[], None] | None = None

    @property
    def catalog(self) -> Catalog:
        """The reviewed tools."""
        return self._stages.catalog

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        approvals: Approvals | None = None,
        telemetry: Callable[..., Telemetry] = Telemetry,
        clock: Clock = time.time,
    ) -> Gate:
        """A gate as `lictor.toml` describes it.

        Args:
            path: Absolute path of `lictor.toml`.
            approvals: A channel that can ask people; without one, an ask is a denial.
            telemetry: Makes the telemetry; `functools.partial(Telemetry, tracer_provider)` for
                providers other than the global OpenTelemetry ones.
            clock: Wall clock.

        Raises:
            ConfigError: A file is missing, wrong, or open to others; says which, where and how to
                mend it.
            StoreError: The store cannot be opened.
        """
        from lictor.assemble import assemble

        return assemble(Path(path), approvals=approvals, telemetry=telemetry, clock=clock)

    @classmethod
    def dev(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        telemetry: Callable[..., Telemetry] = Telemetry,
        clock: Clock = time.time,
    ) -> Gate:
        """A gate for the first day: nothing to write first, and enforcing like any other.

        A tool that nobody has reviewed is reviewed by the person at the terminal when it is first
        called, an effect is confirmed there, and what was decided is kept in `catalog.toml`. Calls
        made while no task is open run under one task of this process: agent = the program's name,
        user = the operating-system account, assurance `dev`. A second call in one process for the
        same folder gives the same gate.

        Args:
            folder: Where `catalog.toml` and `.lictor/` go; beside the program if left out.
            telemetry: As for `from_file`.
            clock: Wall clock.

        Raises:
            ConfigError: The folder cannot be written, a file in it is wrong, or it is a production
                deployment (`profile = "production"` or `LICTOR_PRODUCTION`).
            StoreError: The store cannot be opened.
        """
        from lictor.dev import dev_gate

        return dev_gate(folder, telemetry=telemetry, clock=clock)

    # -- calls ------------------------------------------------------------------------------------

    def run(
        self,
        call: ToolCall,
        body: Callable[[dict[str, object]], T],
        *,
        pauses: tuple[type[BaseException], ...] = (),
        left: Future[None] | None = None,
    ) -> T:
        """Runs the body with the checked arguments, if the call is allowed.

        Args:
            call: What is about to run.
            body: Receives the checked copy of the arguments, once, on this thread.
            pauses: The host's own control-flow exceptions; a body that raises one is `suspended`.
            left: Resolved when the caller, who waits for this thread elsewhere, is gone: its
                question is withdrawn and no body starts any more.

        Returns:
            What the body returned.

        Raises:
            Denied: The call was refused (`Pending`: somebody can still answer).
            BaseException: Whatever the body raised, unchanged.
        """
        self._show(call)
        self.announce()
        with self._at_home():
            return drive.run(self._pipeline.steps(call), body, pauses, left)

    async def arun(
        self,
        call: ToolCall,
        body: Callable[[dict[str, object]], Awaitable[T]],
        *,
        pauses: tuple[type[BaseException], ...] = (),
    ) -> T:
        """Like `run`, for a body to await. The event loop is never blocked."""
        self._show(call)
        self.announce()
        with self._at_home():
            return await drive.arun(self._pipeline.steps(call), body, pauses)

    def refuse(self, call: ToolCall, reason: str, detail: str = "") -> Decision:
        """Records an attempt that never reaches a body.

        Args:
            call: As far as it is known; arguments may be what the model sent.
            reason: A code of `errors.REFUSALS`.
            detail: For the operator.
        """
        with self._at_home():
            return self._pipeline.refuse(call, reason, detail).decision

    def decide(self, call: ToolCall) -> Decision:
        """A preview: records, reserves and consumes nothing, and is no authority to run."""
        return self.rehearse(call)[0]

    def rehearse(self, call: ToolCall) -> tuple[Decision, Query | None]:
        """A preview with the question that was put to policy; `lictor explain` takes it apart.

        The question is `None` where an earlier stage refused.
        """
        with self._at_home():
            return self._pipeline.preview(call)

    def visible(self, tools: Iterable[Tool]) -> frozenset[ToolKey]:
        """The tools that the current task may call at all: a hint for lists; the call decides."""
        task = self.current()
        if task is None or task.keeper is not self._opener or not task.live:
            return frozenset()
        try:
            chain = self._stages.chain(task)
            return frozenset(tool.key for tool in tools if self._could_run(task, chain, tool))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a hint that fails hints at nothing; engines panic past Exception
            return frozenset()

    def _could_run(self, task: Task, chain: tuple[Principal, ...], tool: Tool) -> bool:
        known, code = self.catalog.known(tool.key), self.catalog.check(tool)
        if code in ("tool_unreviewed", "tool_changed"):
            return self._stages.reviewer is not None  # a person looks at it when it is called
        return (
            known is not None
            and code is None
            and task.grant.covers(tool.key, known.review.effectful)
            and self._stages.policy.could_allow(chain, known.review)
        )

    # -- tasks ------------------------------------------------------------------------------------

    def task(
        self,
        template: str | None = None,
        *,
        agent: str,
        on_behalf_of: str | None = None,
        tenant: str | None = None,
        purpose: str = "",
        tools: Iterable[str] | None = None,
        limits: Mapping[str, Mapping[str, object]] | None = None,
        expires_in: int | None = None,
        session: str | None = None,
        autonomous: bool = False,
        grace: float = 0.0,
    ) -> Task:
        """Opens a task: work under one grant.

        Args:
            template: `[tasks.x]` of `lictor.toml`; what is given here besides it only narrows it.
            agent: Who acts; a name of the directory (assurance `asserted`).
            on_behalf_of: The user it is for.
            tenant: Must be the directory's for all of them; by default it is.
            purpose: Shown to people, never read by policy.
            tools: `server/name` of what it may call (`local/` may be left out). Without template
                and tools it may only read.
            limits: Tool → argument → limit, as in `lictor.toml`.
            expires_in: Seconds.
            session: The host's id of the conversation; facts belong to it and outlive the task. A
                task that names none starts with the label `untrusted`, since nobody knows what is
                in its conversation.
            autonomous: No user is present: the agent's owner stands in the chain.
            grace: Seconds that leaving the block waits for bodies still running.

        Raises:
            TaskError: Unknown template, agent, user or tool, another tenant, or wider than the
                template; nothing was opened.
        """
        return self._opener.open(
            template,
            agent=agent,
            on_behalf_of=on_behalf_of,
            tenant=tenant,
            purpose=purpose,
            tools=tools,
            limits=limits,
            expires_in=expires_in,
            session=session,
            autonomous=autonomous,
            grace=grace,
        )

    def resume(self, task_id: str) -> Task:
        """Continues a suspended task under the same grant and in the same session.

        Raises:
            TaskError: It is not known, not suspended, expired, or its principals are gone.
        """
        return self._opener.resume(task_id)

    def current(self) -> Task | None:
        """The task that a call made here would belong to, whatever its state."""
        task = current()
        return self._process if task is None else task

    def adopt(self, task: Task) -> None:
        """Lets calls that no task is open for run under this one, until the gate is closed.

        Raises:
            TaskError: It cannot be recorded.
        """
        task.begin_process()
        self._process, self._adopter = task, os.getpid()
        atexit.register(_close, weakref.ref(self))

    @property
    def process(self) -> Task | None:
        """The task of calls that no task is open for, if this gate has one."""
        return self._process

    def _at_home(self) -> AbstractContextManager[None]:
        if self._process is None or current() is not None:
            return _NOWHERE
        return self._process.here()

    # -- for adapters -----------------------------------------------------------------------------

    def met(self, tool: Tool) -> None:
        """Notes a definition that is about to be guarded, or was refused, for `lictor review`."""
        if self._met.get(str(tool.key)) == tool:
            return
        self._met[str(tool.key)] = tool
        if self._seen is not None:
            from lictor import catalog

            with contextlib.suppress(OSError):  # a read-only state folder must not stop a program
                catalog.note(self._seen, (tool,))

    def announce(self, *, again: bool = False) -> None:
        """Says once, for the developer, what is guarded here and where the record is.

        Args:
            again: Say it anew if more tools are guarded than were last time: a program may have
                several agents.
        """
        if self._announced is not None and not (again and len(self._met) > self._announced):
            return
        met = tuple(self._met.values())
        self._announced = len(met)
        codes = {str(tool.key): self.catalog.check(tool) for tool in met}
        blocked = sum(code == "tool_blocked" for code in codes.values())
        pending = [key for key, code in codes.items() if code not in (None, "tool_blocked")]
        counts = (
            f"{len(met)} tools guarded, {len(met) - len(pending) - blocked} reviewed, "
            f"{len(pending)} pending{f', {blocked} blocked' if blocked else ''}; "
        )
        line = (
            f"{counts if met else ''}"
            f"profile {self._profile}, placement {self._placement}; "
            f"record in {getattr(self.store, 'path', 'its store')}"
        )
        if pending and self._profile == "dev":
            line += "\n  a pending tool is reviewed in the terminal when it is first called"
        elif pending:
            line += f"\n  pending: {visible(', '.join(pending))}; run: lictor review"
        with contextlib.suppress(Exception):  # a closed stderr must not stop a program
            self._say(line)

    def hold(self, guarded: object, seam: object) -> None:
        """Registers an object whose calls go through this gate.

        Args:
            guarded: The guarded copy of a tool.
            seam: What must still be in place for that to be true; `held` gives it back.
        """
        key, held = id(guarded), self._held

        def forget(_: weakref.ref[object]) -> None:
            held.pop(key, None)

        held[key] = (weakref.ref(guarded, forget), seam)

    @property
    def live(self) -> Mapping[str, Task]:
        """The tasks that run in this process, by id."""
        return self._opener.live

    def listens_at(self, port: int) -> None:
        """Keeps tools away from a listener of ours on this machine."""
        stages = self._stages
        stages.protected = replace(stages.protected, ports=stages.protected.ports | {port})

    def hold_back(self, why: str) -> None:
        """Denies every effect from now on, for this reason; an empty one ends that."""
        self._stages.held_back = why

    def watch(self, watchman: Watchman, reload: Callable[[], None] | None = None) -> None:
        """Has somebody look after this gate's files and tasks until it is closed.

        Args:
            watchman: Looks after them.
            reload: Takes the files as they are now, if they are narrower.
        """
        self._watchman, self._reload = watchman, reload
        watchman.start()

    def reload(self) -> None:
        """Takes the files as they are now, if they are narrower than what is in force.

        That is: permits, tools, principals, roles or templates removed, tools blocked, forbids
        added, limits, budgets and times tightened, observing ended. Running tasks keep what they
        were granted until they end; each of their calls is decided under the new files.

        Raises:
            ConfigError: They are wrong, or wider: it names in what. Nothing was taken.
        """
        if self._reload is None:
            raise ConfigError(
                "Gate.reload", "this gate takes no files while it runs", "restart the program"
            )
        try:
            self._reload()
        finally:  # what was not taken is on disk all the same
            if self._watchman is not None:
                self._watchman.look_at_files()

    def narrow(
        self,
        *,
        catalog: Catalog,
        policy: Policy,
        directory: Directory,
        templates: Mapping[str, Template],
        mode: Mode,
        require_verified: bool,
    ) -> None:
        """Decides with these from now on; each of them allows no more than the one before.

        So it does not matter which of them a call under way has met already.
        """
        self._opener.directory = self._stages.directory = directory
        self._opener.templates = templates
        self._stages.require_verified = require_verified
        self._stages.mode = self._pipeline.teller.mode = mode
        self.telemetry.turn_to(mode)
        self.swap(catalog, policy)

    def trust(self) -> None:
        """Takes the files as they are now for what was loaded: they were written here."""
        if self._watchman is not None:
            self._watchman.trust()

    def swap(self, catalog: Catalog, policy: Policy) -> None:
        """Decides with these from now on."""
        if self._keep is not None:
            self._keep(policy)
        self._stages.swap(catalog, policy)

    def held(self, tool: object) -> object | None:
        """The seam of a guarded object, or `None` if this gate does not guard it."""
        entry = self._held.get(id(tool))
        return entry[1] if entry is not None and entry[0]() is tool else None

    @contextlib.contextmanager
    def probing(self) -> Iterator[Probe]:
        """While open in this context, a call that reaches the gate raises `Probed` instead.

        Adapters use it once per wrapped tool to prove that this version of the host still calls
        the seam.
        """
        probe = Probe()
        token = _probe.set(probe)
        try:
            yield probe
        finally:
            _probe.reset(token)

    @staticmethod
    def _show(call: ToolCall) -> None:
        probe = _probe.get()
        if probe is not None:
            probe.hits.append(call.tool.key)
            raise Probed(probe.nonce)

    # -- end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the process's own task, writes what waits, and releases the store. Idempotent."""
        self.closed = True
        if self._watchman is not None:
            self._watchman.stop()
        process, self._process = self._process, None
        if process is not None and self._adopter == os.getpid():  # not a forked child's to end
            process.end()
        self.store.close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
