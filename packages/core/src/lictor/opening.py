"""Opening tasks: from names and a template to a grant, and to what the store knows of the task.

Rules enforced here:

1. Users, agents, tenants and owners are the directory's; a name it does not have opens nothing.
2. A template may only be narrowed by what is given beside it, a parent only by what is delegated.
3. A task without a user is autonomous, says so, and has its owner stand in the chain.
4. A resumed task has the grant it was suspended with, its principals and template looked up anew.
5. A task that cannot be recorded does not run.
6. A suspended task continues once, with the budget it had left; a delegated one with its parent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakValueDictionary

from lictor.canonical import MAX_INTEGER, InputInvalid, Json, canonical
from lictor.errors import StoreError, TaskError, table
from lictor.grant import Grant, wider
from lictor.model import Assurance, Kind, Principal, ulid
from lictor.ports import Clock, Directory, Entry, PutTask, Store, TaskIs, TaskRow, Write
from lictor.session import Sessions
from lictor.task import Task
from lictor.telemetry import Telemetry
from lictor.template import Template, keys_of, limits_of

RESUME_SECONDS: Final = 10.0

MAX_GRACE: Final = 3600
_INSIDE: Final = "  mend: make it inside the block of the task"


@dataclass(slots=True, eq=False)
class Opener:
    """Opens, delegates, resumes and records tasks. Its identity is what ties a task to its gate."""

    store: Store
    directory: Directory
    templates: Mapping[str, Template]
    clock: Clock
    telemetry: Telemetry
    sessions: Sessions = field(init=False)
    live: WeakValueDictionary[str, Task] = field(default_factory=WeakValueDictionary, init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.store)

    def open(
        self,
        template: str | None,
        *,
        agent: str,
        on_behalf_of: str | None,
        tenant: str | None,
        purpose: str,
        tools: Iterable[str] | None,
        limits: Mapping[str, Mapping[str, object]] | None,
        expires_in: int | None,
        session: str | None,
        autonomous: bool,
        grace: float,
    ) -> Task:
        """A root task; see `Gate.task`."""
        _check_types(agent, on_behalf_of, tenant, session, grace)
        part = self._template(template)
        autonomous = autonomous or (on_behalf_of is None and part.autonomous)
        chain = self._parties(agent, on_behalf_of, tenant, autonomous=autonomous)
        at = int(self.clock())
        grant = Grant(
            id=ulid(self.clock()),
            template=template or "",
            tenant=chain[0].tenant,
            user=on_behalf_of or "",
            agents=(agent,),
            autonomous=autonomous,
            tools=part.tools,
            limits=part.limits,
            issued=at,
            expires=at + part.expires_in,
            max_calls=part.calls,
            max_spend=part.spend,
            purpose=purpose or part.purpose,
        )
        if template is None and tools is not None:
            grant = self._own(grant, tools, limits)
        elif tools is not None or limits is not None:
            grant = self._narrowed(grant, tools, limits)
        if expires_in is not None:
            grant = self._expiring(grant, expires_in, template is not None)
        return self._open(grant, session, grace=grace)

    def _own(
        self,
        grant: Grant,
        tools: Iterable[str],
        limits: Mapping[str, Mapping[str, object]] | None,
    ) -> Grant:
        # A grant without tools is read-only by construction; this one is not made from it.
        return replace(
            grant,
            tools=keys_of(tools),
            limits=limits_of(limits or {}, "limits"),
            read_only=False,
        )

    @staticmethod
    def _narrowed(
        grant: Grant,
        tools: Iterable[str] | None,
        limits: Mapping[str, Mapping[str, object]] | None,
    ) -> Grant:
        keys = grant.tools if tools is None else keys_of(tools)
        merged = {**grant.limits, **limits_of(limits or {}, "limits")}
        if keys is not None:
            merged = {key: named for key, named in merged.items() if key in keys}
        made = replace(grant, tools=keys, limits=merged)
        wide = wider(made, grant)
        if wide:
            raise TaskError(
                f"what is given beside a template may only narrow it: {wide}\n  mend: leave it out"
            )
        return made

    @staticmethod
    def _expiring(grant: Grant, seconds: int, narrowing: bool) -> Grant:
        if type(seconds) is not int or not 0 < seconds <= MAX_INTEGER - grant.issued:
            raise TaskError(
                "expires_in must be a positive whole number of seconds\n  mend: expires_in=900"
            )
        expires = grant.issued + seconds
        return replace(grant, expires=min(expires, grant.expires) if narrowing else expires)

    def _template(self, name: str | None) -> Template:
        if name is None:
            return Template()
        found = self.templates.get(name)
        if found is None:
            known = ", ".join(sorted(self.templates)) or "none yet"
            raise TaskError(
                f"there is no task template {name!r} (known: {known})\n"
                f"  mend: add {table('tasks', name)} to lictor.toml"
            )
        return found

    def _parties(
        self, agent: str, user: str | None, tenant: str | None, *, autonomous: bool
    ) -> tuple[Principal, Principal]:
        acting = self._party(Kind.AGENT, agent, "agents")
        if user is None and not autonomous:
            raise TaskError(
                "a task without a user would be wider than one with a user\n"
                "  mend: on_behalf_of=..., or autonomous=True where really nobody is there"
            )
        if user is not None and autonomous:
            raise TaskError("a task for a user is not autonomous\n  mend: leave one of them out")
        if user is None and not acting.owner:
            raise TaskError(
                f"agent {agent} has no owner to answer for an autonomous task\n"
                f'  mend: owner = "NAME" in {table("agents", agent)}'
            )
        person = self._party(Kind.USER, user or acting.owner, "users")
        named = {person.tenant, acting.tenant} | ({tenant} if tenant is not None else set())
        if len(named) != 1:
            raise TaskError(
                f"tenants differ: user {person.tenant}, agent {acting.tenant}, "
                f"task {tenant or person.tenant}\n"
                f"  mend: one tenant in {table('users', person.id)} and "
                f"{table('agents', acting.id)} of lictor.toml, and none in gate.task(...)"
            )
        return person, acting

    def _party(self, kind: Kind, name: str, section: str) -> Principal:
        found = self.directory.principal(kind, name)
        if found is None:
            near = ", ".join(self.directory.near(kind, name))
            hint = f" (known: {near})" if near else ""
            raise TaskError(
                f"{kind.lower()} {name!r} is not in the directory{hint}\n"
                f"  mend: add {table(section, name)} to lictor.toml"
            )
        return found

    def _open(
        self,
        grant: Grant,
        session: str | None,
        *,
        grace: float = 0.0,
        parent: Task | None = None,
        task_id: str | None = None,
        used: tuple[int, int] | None = None,
    ) -> Task:
        task_id = task_id or ulid(self.clock())
        conversation = session if session is not None else f"task:{task_id}"
        try:
            canonical([grant.to_json(), conversation])
        except InputInvalid as error:
            raise TaskError(
                f"what the task is given cannot be recorded: {error}\n  mend: give it other text"
            ) from None
        try:
            opened = self.sessions.open(grant.tenant, conversation, known=session is not None)
        except StoreError as error:
            raise TaskError(f"the session cannot be opened: {error}") from error
        return Task(
            self,
            grant,
            opened,
            assurance=Assurance.ASSERTED if parent is None else parent.assurance,
            task_id=task_id,
            parent=parent,
            grace=grace,
            used=used,
            now=self.clock(),
        )

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
        """Makes a child task; see `Task.delegate` and `Task.start`."""
        if not task.live:
            raise TaskError(f"task {task.id} is not running, so it has nothing to give\n{_INSIDE}")
        acting = self._party(Kind.AGENT, agent, "agents")
        if acting.tenant != task.grant.tenant:
            raise TaskError(
                f"agent {agent} belongs to another tenant ({acting.tenant})\n"
                "  mend: name an agent of the task's own tenant"
            )
        if own:
            if task.grant.autonomous and not acting.owner:
                raise TaskError(
                    f"agent {agent} has no owner to answer for an autonomous task\n"
                    f'  mend: owner = "NAME" in {table("agents", agent)}'
                )
            grant = self._started(task, agent, template)
        else:
            at = int(self.clock())
            grant = task.grant.child(
                agent,
                tools=None if tools is None else keys_of(tools),
                limits=limits_of(limits or {}, "limits"),
                expires=None if expires_in is None else at + expires_in,
                issued=at,
                read_only=tools is None,
            )
        return self._open(grant, task.session.conversation, parent=task)

    def reading(self, task: Task) -> Task:
        """Makes a child task that may only read; see `Task.reading`."""
        if not task.live:
            raise TaskError(f"task {task.id} is not running, so it has nothing to give\n{_INSIDE}")
        grant = replace(
            task.grant,
            id=ulid(self.clock()),
            read_only=True,
            depth=task.grant.depth + 1,
            parent=task.grant.id,
        )
        return self._open(grant, task.session.conversation, parent=task)

    def _started(self, task: Task, agent: str, template: str | None) -> Grant:
        part, at = self._template(template), int(self.clock())
        return Grant(
            id=ulid(self.clock()),
            template=template or "",
            tenant=task.grant.tenant,
            user=task.grant.user,
            agents=(agent,),
            autonomous=task.grant.autonomous,
            tools=part.tools,
            limits=part.limits,
            issued=at,
            expires=at + part.expires_in,
            max_calls=part.calls,
            max_spend=part.spend,
            purpose=part.purpose,
        )

    def resume(self, task_id: str) -> Task:
        """A suspended task, continued; see `Gate.resume`."""
        try:
            # That it was suspended may be on its way to the store: from this process, a moment ago.
            self.store.commit(durable=False).result(RESUME_SECONDS)
        except Exception as error:
            raise TaskError(f"whether task {task_id} is suspended is not known: {error}") from error
        row = self.store.task(task_id)
        if row is None or row.state != "suspended":
            state = "not known" if row is None else row.state
            raise TaskError(
                f"task {task_id} is {state}, so it cannot be resumed\n  mend: open a new task"
            )
        grant = Grant.from_json(row.grant)
        if grant.parent:
            raise TaskError(
                f"task {task_id} was delegated: its authority ended with its parent's\n"
                "  mend: resume the parent, which delegates anew"
            )
        if self.clock() >= grant.expires:
            raise TaskError(f"the grant of task {task_id} has expired\n  mend: open a new task")
        self._parties(
            grant.agents[0], grant.user or None, grant.tenant, autonomous=grant.autonomous
        )
        self._refuse_narrowed(grant)
        return self._open(grant, row.conversation, task_id=row.id, used=(row.calls, row.spent))

    def _refuse_narrowed(self, grant: Grant) -> None:
        """What the operator has taken out of a template since is not to come back by a resume."""
        if not grant.template:
            return
        part = self._template(grant.template)
        now = replace(
            grant,
            tools=part.tools,
            read_only=part.tools is None,
            limits=part.limits,
            max_calls=part.calls,
            max_spend=part.spend,
        )
        wide = wider(grant, now)
        if wide:
            raise TaskError(
                f"[tasks.{grant.template}] is narrower now than this task: {wide}\n"
                "  mend: open a new task"
            )

    def task_moved(self, task: Task, running: tuple[str, ...]) -> None:
        """Stores and records that a task is running, suspended or ended."""
        if task.state == "running":
            self.live[task.id] = task
        else:
            self.live.pop(task.id, None)
        row = TaskRow(
            task.id,
            task.state,
            task.grant.tenant,
            task.session.conversation,
            task.grant.to_json(),
            *(task.used if task.state == "suspended" else (0, 0)),
            stream=self.store.head.stream,
        )
        body: dict[str, Json] = {**task.facts(), "state": task.state, "bodies": list(running)}
        entry = Entry(
            "task",
            int(self.clock() * 1_000_000),
            body,
            tenant=row.tenant,
            task=task.id,
            verdict=task.state,
        )
        writes: list[Write] = [PutTask(row)]
        unsaved = task.session.unsaved() if task.state != "running" else None
        if unsaved is not None:
            writes.append(unsaved)
        again = task.resumed and task.state == "running"
        guards = (TaskIs(task.id, "suspended"),) if again else ()
        try:
            future = self.store.commit(guards, tuple(writes), (entry,), durable=False)
            if again and future.result(RESUME_SECONDS).moved is not None:
                raise TaskError(
                    f"task {task.id} was resumed somewhere else\n  mend: leave it to go on there"
                )
        except TaskError:
            raise
        except Exception as error:
            if task.state == "running":
                raise TaskError(f"the task cannot be recorded: {error}") from error
            with contextlib.suppress(Exception):
                self.telemetry.degraded(str(error))


def _check_types(
    agent: object, user: object, tenant: object, session: object, grace: object
) -> None:
    """Names come from the program's own data, where a `None` or a number slips in easily."""
    given = {"agent": agent, "on_behalf_of": user, "tenant": tenant, "session": session}
    for name, value in given.items():
        if value is None and name != "agent":
            continue
        if not isinstance(value, str) or not value:
            raise TaskError(
                f'{name} must be text that is not empty, not {value!r}\n  mend: {name}="NAME"'
            )
    number = isinstance(grace, int | float) and not isinstance(grace, bool)
    if not number or not 0 <= grace <= MAX_GRACE:  # type: ignore[operator]
        raise TaskError(
            f"grace must be seconds from 0 to {MAX_GRACE}, not {grace!r}\n  mend: grace=0"
        )
