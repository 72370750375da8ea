"""From a project, or from nothing, to a gate and the task that a connection runs under.

Rules enforced here:

1. A project is named by its path, never found: a folder that an agent works in could hold one.
2. Without a project the gateway is a first day: a folder of its own under the account's home, what
   has an effect is asked for, what nobody has reviewed does not run, and it is no production.
3. A connection that brings no grant gets a task: agent and template from the operator, user the
   operating-system account, both `asserted`. What the client calls itself is recorded, no more.
4. A task whose time is over is followed by another in the same conversation, under the same
   template. One that somebody has ended is followed by none.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import getuid
from pathlib import Path
from typing import Any, Final, TypeAlias

from lictor.approval import Watched
from lictor.assemble import Project, gate_of, project_of, read
from lictor.dev import FirstReady, account
from lictor.errors import ConfigError, LictorError, table
from lictor.forms import visible
from lictor.gate import Gate
from lictor.model import Assurance, ulid
from lictor.ports import Approvals, Store
from lictor.protect import refuse_unsafe
from lictor.settings import AgentPart, McpPart, Settings, UserPart
from lictor.task import Task
from lictor.telemetry import Telemetry
from lictor_mcp.gateway.asking import Asking

MONTH: Final = 30 * 86_400
SOON: Final = 2.0
"""Seconds before its end that a task is followed by another."""
FOLDER: Final = ".lictor/gateway"
Open: TypeAlias = Callable[[str | None, str], Task]
"""Opens a task in a conversation (or a new one) and with a purpose."""
_log: Final = logging.getLogger("lictor.mcp")


@dataclass(frozen=True, slots=True)
class Opened:
    """A gate that is ready for a connection.

    Attributes:
        gate: It.
        project: What it was made from.
        mcp: What the operator says about the gateway.
        keeper: Keeps its task.
        asking: Asks at the client, where the operator says that it can.
    """

    gate: Gate
    project: Project
    mcp: McpPart
    keeper: TaskKeeper
    asking: Asking | None = None

    @property
    def review(self) -> str:
        """The command that reviews what waits here."""
        return f"lictor review -p {self.project.path.parent}"

    def close(self) -> None:
        """Ends the task, and closes the gate."""
        self.keeper.end()
        self.gate.close()


def home_of(server: str) -> Path:
    """The folder of a server that is used without a project.

    Not `$HOME`: whoever sets the environment of the client could move it.
    """
    return Path(pwd.getpwuid(getuid()).pw_dir) / FOLDER / server


def open_gate(path: Path | None, *, server: str = "", agent: str = "", task: str = "") -> Opened:
    """Opens a gate.

    Args:
        path: Absolute path of `lictor.toml`, or none.
        server: The server that is used without a project.
        agent: Who acts, instead of what the project says.
        task: The template, instead of what the project says.

    Raises:
        ConfigError: Something in it is wrong or missing; says what, where, and how to mend it.
        TaskError: The task cannot be opened.
    """
    if path is None:
        return _first_day(home_of(server), agent or "mcp-client")
    project, mcp, agent, task = chosen(path, agent=agent, task=task)
    process = project.settings.process
    user = mcp.user or (process.user if process else "") or account()
    asking = Asking() if mcp.confirm else None
    gate = gate_behind(project, asking, placement="p1" if mcp.separate else "p0")

    def opened(session: str | None, purpose: str) -> Task:
        return gate.task(task, agent=agent, on_behalf_of=user, session=session, purpose=purpose)

    return _begun(gate, project, mcp, opened, asking)


def chosen(path: Path, *, agent: str = "", task: str = "") -> tuple[Project, McpPart, str, str]:
    """A project, what it says about the gateway, and which agent and task calls are under.

    Args:
        path: Absolute path of `lictor.toml`, or of its folder.
        agent: Who acts, instead of what the project says.
        task: The template, instead of what the project says.

    Raises:
        ConfigError: Something in it is wrong or missing.
    """
    project = read(path / "lictor.toml" if path.is_dir() else path)
    mcp = project.settings.mcp or McpPart()
    process = project.settings.process
    agent = agent or mcp.agent or (process.agent if process else "")
    task = task or mcp.task or (process.task if process else "")
    if not agent or not task:
        raise ConfigError(
            str(project.path),
            f"does not say which {'agent acts' if not agent else 'task a connection gets'}",
            f"{table('mcp')} with agent = and task =, or --agent and --task",
        )
    return project, mcp, agent, task


def _first_day(folder: Path, agent: str) -> Opened:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = refuse_unsafe(folder) / "lictor.toml"
    if path.exists():
        return open_gate(path)
    user = account()
    settings = Settings(users={user: UserPart()}, agents={agent: AgentPart(owner=user)})
    if settings.production:
        raise ConfigError(
            "LICTOR_PRODUCTION",
            "this is a production deployment, where a gateway needs a project",
            "lictor gateway -p /absolute/lictor.toml -- COMMAND",
        )
    project = project_of(path, settings)
    gate = gate_behind(project)
    tools = [str(known.review.key) for known in project.catalog.known_tools()]

    def opened(session: str | None, purpose: str) -> Task:
        made = gate.task(
            agent=agent,
            on_behalf_of=user,
            tools=tools,
            expires_in=MONTH,
            session=session,
            purpose=purpose,
        )
        made.assurance = Assurance.DEV
        return made

    return _begun(gate, project, McpPart(), opened)


def gate_behind(project: Project, asking: Asking | None = None, *, placement: str = "p0") -> Gate:
    """The gate of a gateway: it asks at clients that can be asked, else at `lictor watch`.

    Args:
        project: It is made from this.
        asking: Asks at clients, where the operator says that they can.
        placement: Where it runs.
    """

    def channel(store: Store) -> Approvals:
        watched = Watched(store, project.watch)
        return watched if asking is None else FirstReady((asking, watched))

    return gate_of(
        project,
        channel=channel,
        telemetry=Telemetry,
        clock=time.time,
        placement=placement,
    )


def _begun(
    gate: Gate, project: Project, mcp: McpPart, opened: Open, asking: Asking | None = None
) -> Opened:
    try:
        return Opened(gate, project, mcp, TaskKeeper(gate, opened), asking)
    except BaseException:
        gate.close()
        raise


class TaskKeeper:
    """The task of a connection.

    Args:
        gate: Runs calls under it.
        opened: Opens one.
    """

    def __init__(self, gate: Gate, opened: Open) -> None:
        self._gate, self._opened = gate, opened
        self._over: list[Task] = []
        self._purpose = ""
        self._task = self._adopted(None)

    @property
    def task(self) -> Task:
        """The one that calls run under now."""
        return self._task

    def _adopted(self, session: str | None) -> Task:
        made: Task = self._opened(session, self._purpose)
        self._gate.adopt(made)
        return made

    def met(self, client: Mapping[str, Any]) -> None:
        """Records what the client calls itself. That is no identity: anybody can say anything."""
        name, version = (str(client.get(each, "")) for each in ("name", "version"))
        self._purpose = visible(f"MCP client {name} {version}".strip())[:200]
        self._task.regrant(replace(self._task.grant, id=ulid(), purpose=self._purpose))

    async def keep(self) -> None:
        """Follows a task whose time is nearly over by another, for as long as it is awaited."""
        while True:
            await asyncio.sleep(max(self._task.grant.expires - time.time() - SOON, SOON / 2))
            try:
                if not await asyncio.to_thread(self._follow):
                    return
            except LictorError as error:
                _log.error("the task cannot be followed by another: %s", error)
                return

    def _follow(self) -> bool:
        if self._task.state != "running":
            return False
        if time.time() < self._task.grant.expires - SOON:
            return True
        over, self._task = self._task, self._adopted(self._task.session.conversation)
        self._over = [each for each in self._over if not _ended(each)] + [over]
        return True

    def end(self) -> None:
        """Ends them all; the gate ends the last one."""
        for each in self._over:
            each.end(wait=False)


def _ended(task: Task) -> bool:
    """A task past its time starts nothing any more: now it can be recorded as ended."""
    if not task.expired(time.time()):
        return False
    task.end(wait=False)
    return True


def named(text: str) -> str:
    """A server id made of what a person would call the server."""
    word = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    word = re.sub(r"^(mcp-)?(server-)|(-mcp)?(-server)?$", "", word).strip("-") or "server"
    return (word if word[0].isalpha() else f"s-{word}")[:32].strip("-")
