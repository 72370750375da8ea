"""`Gate.dev()`: the first day, with the same pipeline and a person at the terminal.

Rules enforced here:

1. Nothing is looser than elsewhere: what nobody has reviewed does not run, what has an effect is
   confirmed, and there is no observing.
2. Only the person's key makes a tool known to a running gate; what changes on disk meanwhile counts
   from the next start.
3. It is refused in production, whoever says that this is one: file or environment.
4. What is decided here is marked `dev`, and is no evidence of a review or an approval.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Final

from lictor import settings as settings_file
from lictor.approval import Watched
from lictor.approval.terminal import AtTerminal, Gone, Terminal, Unanswered
from lictor.approval.tty import WATCH, NoTerminal
from lictor.assemble import Project, declare, gate_of, project_of, stage
from lictor.canonical import Json
from lictor.catalog import classify, diff, entries, propose
from lictor.errors import ConfigError
from lictor.gate import Gate
from lictor.model import Assurance, Tool, ToolKey, ulid
from lictor.policy import CedarPolicy
from lictor.ports import Approvals, Ask, Clock, Known, Reply, Store
from lictor.protect import refuse_unsafe
from lictor.review import ask_review
from lictor.settings import AgentPart, Settings, UserPart
from lictor.telemetry import Telemetry

MONTH: Final = 30 * 86_400
_REVIEW: Final = "run: lictor review"
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+")

_lock = threading.Lock()
_turn = threading.Lock()
_gates: dict[Path, Gate] = {}


def dev_gate(
    folder: str | os.PathLike[str] | None, *, telemetry: Callable[..., Telemetry], clock: Clock
) -> Gate:
    """The gate of this process for a folder; see `Gate.dev`."""
    place, agent = program() if folder is None else (Path(folder).resolve(), program()[1])
    with _lock:
        known = _gates.get(place)
        if known is None or known.closed:
            known = _gates[place] = _open(place, agent, telemetry=telemetry, clock=clock)
        return known


def program() -> tuple[Path, str]:
    """The folder of the running program, and its name; the working directory for a notebook."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return Path.cwd().resolve(), "python"
    path = Path(file).resolve()
    folder = next(each for each in path.parents if each.is_dir())  # an archive is none
    name = _named(path.parent.name if path.stem == "__main__" else path.stem)
    installed = any(
        path.is_relative_to(Path(root).resolve()) for root in {sys.prefix, sys.base_prefix}
    )
    return (Path.cwd().resolve() if installed else folder), name


def account() -> str:
    """The operating-system account, as a name that may stand in records.

    Not `getpass.getuser`: what the environment says of it could be a user with more roles.
    """
    try:
        return _named(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return f"uid-{os.getuid()}"


def _named(text: str) -> str:
    return _UNFIT.sub("-", text).strip("-.")[:64] or "python"


def _open(folder: Path, agent: str, *, telemetry: Callable[..., Telemetry], clock: Clock) -> Gate:
    project, terminal = _project(folder, agent), Terminal()
    if (where := stage()) is not None:
        return where.rehearse(project)
    reviewer = LiveReview(project, terminal, account())

    def channel(store: Store) -> Approvals:
        def settled(ask: str) -> bool:
            row = store.ask(ask)
            return row is None or row.state != "pending"

        here = AtTerminal(terminal, account(), settled=settled)
        return FirstReady((here, Watched(store, project.watch)))

    gate = gate_of(
        project,
        channel=channel,
        telemetry=telemetry,
        clock=clock,
        reviewer=reviewer,
        profile="dev",
        warned=True,
    )
    try:
        tools = [str(known.review.key) for known in project.catalog.known_tools()]
        task = gate.task(agent=agent, on_behalf_of=account(), tools=tools, expires_in=MONTH)
        task.assurance = Assurance.DEV
        gate.adopt(task)
    except BaseException:
        gate.close()
        raise
    reviewer.gate = gate
    return gate


def _project(folder: Path, agent: str) -> Project:
    path = folder / "lictor.toml"
    if os.path.lexists(path):
        settings = settings_file.load(refuse_unsafe(path))
    else:
        _refuse_unwritable(folder)
        settings = Settings()
    if settings.production:
        raise ConfigError(
            str(path) if settings.profile == "production" else "LICTOR_PRODUCTION",
            "this is a production deployment, where nobody reviews tools at a terminal",
            'Gate.from_file(Path(__file__).with_name("lictor.toml"))',
        )
    user = account()
    update = {
        "mode": "enforce",
        "process": None,
        "users": {user: UserPart(), **settings.users},
        "agents": {agent: AgentPart(owner=user), **settings.agents},
    }
    return project_of(path, settings.model_copy(update=update))


def _refuse_unwritable(folder: Path) -> None:
    if os.path.isdir(folder):
        refuse_unsafe(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            str(folder),
            "is no folder that can be written, and reviewed tools and records must go somewhere",
            'Gate.dev("/a/folder/of/yours")',
        )


@dataclass(frozen=True, slots=True)
class FirstReady:
    """The first of several channels that can ask somebody now."""

    channels: tuple[Approvals, ...]

    @property
    def lasting(self) -> bool:
        """A question at the terminal goes with its caller."""
        return False

    def ready(self, ask: Ask) -> str:
        """Why none of them can, or nothing."""
        reasons = [channel.ready(ask) for channel in self.channels]
        return "" if "" in reasons else "; ".join(reasons)

    def answer(self, ask: Ask) -> Reply:
        """Asks through the first one."""
        for channel in self.channels:
            if not channel.ready(ask):
                return channel.answer(ask)
        return Reply("unavailable", detail=self.ready(ask))


@dataclass(slots=True)
class LiveReview:
    """Has the person at the terminal decide about a tool, and lets the running gate know it."""

    project: Project
    terminal: Terminal
    person: str
    gate: Gate | None = None

    def review(self, tool: Tool, arguments: Mapping[str, Json], code: str, gone: Event) -> str:
        """Asks; see `ports.Reviewer`."""
        gate = self.gate
        if gate is None:
            return "the gate is not open yet"
        with _turn_taken(gone) as mine:
            if not mine:
                return "the caller is gone"
            if gate.catalog.check(tool) not in ("tool_unreviewed", "tool_changed"):
                return ""  # answered meanwhile, for another call
            unready = self.terminal.ready()
            if unready:
                return _review_helps(unready)
            return self._ask(gate, tool, arguments, gone)

    def _ask(self, gate: Gate, tool: Tool, arguments: Mapping[str, Json], gone: Event) -> str:
        changes = diff(gate.catalog, {tool.key: tool})
        change = changes[0] if changes and not changes[0].new else None
        before = gate.catalog.known(tool.key)
        toml, lock = self._files()
        try:
            _refuse_blocked(toml, tool.key)
            with self.terminal.question(gone) as screen:
                decided = ask_review(
                    screen,
                    tool,
                    arguments,
                    propose(tool),
                    change,
                    self.person,
                    dev=True,
                    before=None if before is None else before.review,
                )
                if decided is None:
                    return "the person at the terminal did not decide about it"
                try:
                    if not decided.blocked:  # somebody else may have decided meanwhile
                        _refuse_blocked(toml, tool.key)
                    known = classify(toml, lock, tool, decided)
                except ConfigError as error:
                    screen.say(f"not written: {error}")
                    return str(error)
        except ConfigError as error:
            return str(error)
        except (Unanswered, Gone, NoTerminal) as error:
            return _review_helps(str(error))
        self._admit(gate, known)
        return ""

    def _files(self) -> tuple[Path, Path]:
        toml = self.project.path.parent / self.project.settings.catalog
        return toml, toml.with_suffix(".lock")

    def _admit(self, gate: Gate, known: Known) -> None:
        catalog = gate.catalog.with_known(known)
        declared = declare(self.project.settings, catalog)
        policy = CedarPolicy.load(
            tools=catalog.known_tools(), sources=self.project.sources, declared=declared
        )
        gate.swap(catalog, policy)
        gate.trust()  # what changed on disk was written here
        task = gate.process
        if task is not None and not known.review.blocked:
            tools = (task.grant.tools or frozenset()) | {known.review.key}
            task.regrant(replace(task.grant, id=ulid(), tools=tools))


def _refuse_blocked(toml: Path, key: ToolKey) -> None:
    """A block in the file holds at once: it is narrower than what the running gate knows."""
    if not toml.exists():
        return
    for _, review in entries.reviews(toml, entries.text_of(toml)):
        if review.key == key and review.blocked:
            raise ConfigError(
                str(toml), f"{key} was blocked there", "remove blocked = true, and start again"
            )


def _review_helps(problem: str) -> str:
    """`lictor watch` answers questions about calls; tools are reviewed elsewhere."""
    return f"{problem.removesuffix(f'; {WATCH}')}; {_REVIEW}"


@contextmanager
def _turn_taken(gone: Event) -> Iterator[bool]:
    """One review at a time; who waits for it may go."""
    lock = _turn
    while not lock.acquire(timeout=0.05):
        if gone.is_set():
            yield False
            return
    try:
        yield True
    finally:
        lock.release()


def _after_fork() -> None:
    """Whoever held them stayed behind."""
    global _lock, _turn
    _lock, _turn = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
