"""From `lictor.toml` to a gate: reads every file once, checks it, and puts the parts together.

Rules enforced here:

1. Everything is read from absolute paths that only we can write; nothing is searched for.
2. A gate comes to be whole or not at all; what was opened is closed again.
3. Names are checked, never imported: nothing of the user's program runs here.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lictor import audit, schema
from lictor import settings as settings_file
from lictor.approval import Watched
from lictor.attempt import RecordKey
from lictor.catalog import Catalog
from lictor.errors import ConfigError, table
from lictor.gate import Gate
from lictor.home import Seals, Watchman, seal
from lictor.model import Impact, Kind, Mode
from lictor.policy import CedarPolicy, Declared, PolicySource, compile_rules, guardrail
from lictor.ports import Approvals, Clock, Policy, Reviewer, Store
from lictor.protect import Exposed, Protected, exposed, refuse_exposed, refuse_unsafe
from lictor.reload import Reload
from lictor.settings import LocalDirectory, Settings
from lictor.store import SqlStore, open_store
from lictor.telemetry import Telemetry
from lictor.telemetry_none import unheard
from lictor.template import Template, template_of

SEEN: Final = "seen.json"
RESTART: Final = "restart the program to use it"
_log: Final = logging.getLogger("lictor")


@dataclass(frozen=True, slots=True)
class Project:
    """Everything that `lictor.toml` names, read and checked, before anything is opened.

    Attributes:
        path: The file itself.
        settings: What it says.
        catalog: The reviewed tools.
        sources: Guardrails, policy files and compiled rules.
        declared: Names that policies may use.
        policy: The engine, loaded.
        templates: Task templates.
        seals: What the files held when they were read.
    """

    path: Path
    settings: Settings
    catalog: Catalog
    sources: tuple[PolicySource, ...]
    declared: Declared
    policy: CedarPolicy
    templates: dict[str, Template]
    seals: Seals

    @property
    def state(self) -> Path:
        """The folder of store, key and notes."""
        return self.path.parent / self.settings.state

    def protected(self) -> Protected:
        """What no tool may reach: our files, and where our gateway listens."""
        mcp = self.settings.mcp
        listen = mcp.listen if mcp is not None else None
        ports = () if listen is None else (int(listen.rpartition(":")[2]),)
        return Protected.of(self.files(), ports, state=self.state)

    @property
    def store(self) -> Path:
        """The database."""
        return self.state / "lictor.db"

    @property
    def seen(self) -> Path:
        """The definitions that gates have met."""
        return self.state / SEEN

    @property
    def watch(self) -> Path:
        """The lock that `lictor watch` holds."""
        return self.state / "watch.lock"

    def config(self) -> list[Path]:
        """What the gate is made from."""
        return config_files(self.path, self.settings)

    def files(self) -> list[Path]:
        """What the gate must not let a tool reach."""
        return [*self.config(), self.state]

    def exposed(self) -> list[Exposed]:
        """The tools that may write what they must not reach."""
        reviews = (known.review for known in self.catalog.known_tools())
        limits = {name: template.limits for name, template in self.templates.items()}
        return exposed(reviews, limits, self.files())


def config_files(path: Path, settings: Settings) -> list[Path]:
    """The files of a project that a person writes."""
    folder = path.parent
    catalog = folder / settings.catalog
    return [path, catalog, catalog.with_suffix(".lock"), folder / settings.policies]


def read(path: Path) -> Project:
    """Reads and checks a project; opens and writes nothing.

    Raises:
        ConfigError: Something in it is wrong; says what, where and how to mend it.
    """
    refuse_unsafe(path)
    before = seal([path])
    project = project_of(path, settings_file.load(path))
    if project.seals[path] != before[path]:
        raise ConfigError(str(path), "changes while it is read", "start the program again")
    refuse_exposed(str(path), project.exposed())
    return project


def project_of(path: Path, settings: Settings) -> Project:
    """Reads and checks everything beside the settings.

    Args:
        path: Where the settings are, or would be.
        settings: What they say.

    Raises:
        ConfigError: Something in it is wrong; says what, where and how to mend it.
    """
    folder, seals = path.parent, seal(config_files(path, settings))
    toml = folder / settings.catalog
    lock = toml.with_suffix(".lock")
    for file in (toml, lock):
        if os.path.lexists(file):
            refuse_unsafe(file)
    if "catalog" in settings.model_fields_set and not toml.exists():
        raise ConfigError(str(toml), "does not exist", "lictor catalog lock, or mend catalog =")
    catalog = Catalog()  # before the first review: nothing is known, so nothing runs
    if toml.exists():
        catalog = Catalog.load(
            toml, lock if lock.exists() else None, production=settings.production
        )
    declared = declare(settings, catalog)
    tools = catalog.known_tools()
    sources = [guardrail(settings.guardrails)] if settings.guardrails else []
    sources += [
        PolicySource(os.path.relpath(file, folder), _text(file))
        for file in policy_files(
            folder / settings.policies, wanted="policies" in settings.model_fields_set
        )
    ]
    if settings.rule:
        sources.append(
            compile_rules(
                settings.rule, where=f"{path.name} [[rule]]", tools=tools, declared=declared
            )
        )
    if not sources:
        raise ConfigError(
            str(path), "there is no policy at all", 'guardrails = "starter@1", or add policies/'
        )
    policy = CedarPolicy.load(tools=tools, sources=tuple(sources), declared=declared)
    _check_owners(path, settings)
    templates = {name: template_of(name, part, path.name) for name, part in settings.tasks.items()}
    for name, template in templates.items():
        _check_limits(f"{path.name}: tasks.{name}", template, catalog)
    _check_process(path, settings)
    return Project(path, settings, catalog, tuple(sources), declared, policy, templates, seals)


def _check_owners(path: Path, settings: Settings) -> None:
    directory = LocalDirectory(settings)
    for name, agent in settings.agents.items():
        if not agent.owner:
            continue
        owner = directory.principal(Kind.USER, agent.owner)
        where, mend = (
            f"{path}: agents.{name}.owner",
            f"add {table('users', agent.owner)}, or mend the name",
        )
        if owner is None:
            near = ", ".join(directory.near(Kind.USER, agent.owner)) or "none"
            raise ConfigError(where, f"{agent.owner!r} is no user (known: {near})", mend)
        if owner.tenant != (agent.tenant or settings.tenant):
            problem = f"{agent.owner!r} belongs to another tenant ({owner.tenant})"
            raise ConfigError(where, problem, "an agent and its owner share one tenant")


def _check_process(path: Path, settings: Settings) -> None:
    process, where = settings.process, f"{path}: process"
    if process is None:
        return
    if settings.production:
        raise ConfigError(
            where, "names who acts instead of proving it", "open a task around the agent's run"
        )
    for word, name, known in (
        ("task", process.task, settings.tasks),
        ("agent", process.agent, settings.agents),
        ("user", process.user, settings.users),
    ):
        if name not in known and not (word == "user" and "*" in known):
            raise ConfigError(
                f"{where}.{word}", f"{name!r} is not known", f"add {table(f'{word}s', name)}"
            )


def _check_limits(where: str, template: Template, catalog: Catalog) -> None:
    """What a template says must mean something for the tools it names."""
    for key in sorted(template.tools or ()):
        known = catalog.known(key)
        moves = known is not None and Impact.TRANSFER in known.review.impact
        if known is not None and moves and template.spend is not None and not known.review.amount:
            raise ConfigError(
                f"{where}.spend",
                f"{key} transfers, and its catalog entry names no amount to count",
                'amount = "..." in catalog.toml',
            )
    for key, named in template.limits.items():
        known = catalog.known(key)
        if known is None:
            continue
        arguments = schema.compile(known.tool.input_schema).arguments
        real = frozenset(arguments) | frozenset(known.review.inputs)
        for name in named:
            if name not in real:
                near = difflib.get_close_matches(name, real, n=3) or sorted(real)
                raise ConfigError(
                    f"{where}.limits.{key}",
                    f"{name!r} is no argument of the tool",
                    f"did you mean {' or '.join(near)}?" if near else "it takes no arguments",
                )


def declare(settings: Settings, catalog: Catalog) -> Declared:
    """The names that policies may use."""
    parties = [*settings.users.values(), *settings.agents.values()]
    tenants = {party.tenant for party in parties if party.tenant} | {settings.tenant}
    produced = {label for known in catalog.known_tools() for label in known.review.produces}
    return Declared(
        labels=frozenset(settings.labels) | produced | {"untrusted", "sensitive"},
        roles=frozenset(role for party in parties for role in party.roles),
        users=frozenset(settings.users),
        agents=frozenset(settings.agents),
        tenants=frozenset(tenants),
        tenant=settings.tenant,
    )


def rehearsal(project: Project, folder: Path) -> Gate:
    """A gate with the project's parts and a store of its own, for calls that never run.

    Args:
        project: The project.
        folder: An empty folder for the store.
    """
    return Gate(
        catalog=project.catalog,
        policy=project.policy,
        store=open_store(folder / "lictor.db"),
        directory=LocalDirectory(project.settings),
        key=RecordKey(secrets.token_bytes(32), "rehearsal"),
        templates=project.templates,
        protected=project.protected(),
        tenant=project.settings.tenant,
        telemetry=unheard(),
    )


@dataclass(slots=True)
class Stage:
    """Where gates come up that must not touch their project: over a store that is thrown away.

    Attributes:
        folder: For the store.
        project: What the last gate was made from.
        gates: All gates, the last one last.
    """

    folder: Path
    project: Project | None = None
    gates: list[Gate] = field(default_factory=list)

    def rehearse(self, project: Project) -> Gate:
        """A gate of the project on this stage."""
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir()
        self.project = project
        self.gates.append(rehearsal(project, folder))
        return self.gates[-1]

    def close(self) -> None:
        """Closes them all: what they stand on goes."""
        for gate in self.gates:
            gate.close()


_stage: ContextVar[Stage | None] = ContextVar("lictor_stage", default=None)


def stage() -> Stage | None:
    """The stage that gates come up on, if there is one."""
    return _stage.get()


@contextmanager
def staged(where: Stage) -> Iterator[None]:
    """While it lasts, `Gate.from_file` and `Gate.dev` make gates on a stage."""
    token = _stage.set(where)
    try:
        yield
    finally:
        _stage.reset(token)


def assemble(
    path: Path,
    *,
    approvals: Approvals | None,
    telemetry: Callable[..., Telemetry],
    clock: Clock,
) -> Gate:
    """The gate of a project; see `Gate.from_file`."""
    project = read(path)
    if (where := stage()) is not None:
        return where.rehearse(project)
    process = project.settings.process

    def channel(store: Store) -> Approvals:
        return approvals or Watched(store, project.watch)

    gate = gate_of(project, channel=channel, telemetry=telemetry, clock=clock)
    try:
        if process is not None:
            opened = gate.task(process.task, agent=process.agent, on_behalf_of=process.user)
            gate.adopt(opened)
    except BaseException:
        gate.close()
        raise
    return gate


def gate_of(
    project: Project,
    *,
    channel: Callable[[Store], Approvals],
    telemetry: Callable[..., Telemetry],
    clock: Clock,
    reviewer: Reviewer | None = None,
    profile: str = "",
    placement: str = "p0",
    warned: bool = False,
) -> Gate:
    """Opens what a project needs and puts its gate together.

    Args:
        project: Read and checked.
        channel: Makes the channel to people.
        telemetry: Makes the telemetry.
        clock: Wall clock.
        reviewer: Looks at tools that nobody has reviewed.
        profile: What the gate calls itself, if not what the settings say.
        placement: Where the gate runs, as every record says.
        warned: Of files that change on disk the developer is only warned; effects go on, under
            what was loaded.

    Raises:
        ConfigError: The record key cannot be used.
        StoreError: The store cannot be opened.
    """
    settings, made = project.settings, list[Gate]()
    mode = Mode(settings.mode)
    key = record_key(project.state / "record.key")
    store = open_store(project.store, clock=clock, placement=placement)

    def known() -> frozenset[str]:
        return made[0].catalog.names if made else project.catalog.names

    def keep(policy: Policy) -> None:
        _keep(store, policy, clock)

    try:
        gate = Gate(
            catalog=project.catalog,
            policy=project.policy,
            store=store,
            directory=LocalDirectory(settings),
            key=key,
            telemetry=telemetry(mode=mode, placement=placement, known_tools=known),
            approvals=channel(store),
            reviewer=reviewer,
            templates=project.templates,
            protected=project.protected(),
            clock=clock,
            tenant=settings.tenant,
            mode=mode,
            placement=placement,
            require_verified=settings.verified_only,
            policy_seconds=settings.policy_timeout,
            seen=project.seen,
            profile=profile or settings.profile,
            keep=keep,
            say=_log.warning if settings.production else tell,
        )
        made.append(gate)
    except BaseException:
        store.close()
        raise
    reload = None if warned else Reload(gate, project)
    watchman = _watchman(gate, project, reload)
    gate.watch(watchman, None if reload is None else reload.reload)
    if warned:
        for each in project.exposed():
            tell(f"{each}: what leads there is denied")
    return gate


def _keep(store: SqlStore, policy: Policy, clock: Clock) -> None:
    """Keeps the text of policies: a report tells what a rule said on the day it decided."""
    if not isinstance(policy, CedarPolicy) or audit.has_policy(store.path, policy.digest):
        return
    rules = [audit.Rule(each.id, each.where, each.text) for each in policy.statements]
    entry = audit.policy_entry(policy.digest, rules, clock())
    store.commit(entries=(entry,), durable=False)


def _watchman(gate: Gate, project: Project, reload: Reload | None) -> Watchman:
    say = _log.warning if project.settings.production else tell

    def alarm(text: str) -> None:
        gate.telemetry.alarm()
        say(text)

    return Watchman(
        project.config(),
        project.seals,
        store=gate.store,
        tasks=lambda: gate.live,
        take=(lambda: RESTART) if reload is None else reload.take,
        alarm=alarm,
        hold=None if reload is None else gate.hold_back,
    )


def tell(text: str) -> None:
    """Tells the developer something, where no result and no protocol is in the way."""
    sys.stderr.write(f"lictor: {text}\n")


def record_key(path: Path) -> RecordKey:
    """Reads the key of record digests, creating it (0600) the first time.

    Raises:
        ConfigError: It is not 32 bytes, or cannot be read or written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_unsafe(path.parent)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        if not path.exists():
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(secrets.token_bytes(32))
            try:
                os.link(fresh, path)  # of several processes that start at once, the first wins
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        secret = refuse_unsafe(path).read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be used: {error}", "check its folder") from None
    if len(secret) != 32:
        raise ConfigError(str(path), "is not 32 bytes", "restore it from a backup")
    if path.stat().st_mode & 0o077:
        raise ConfigError(str(path), "can be read by others", f"chmod 600 {path}")
    return RecordKey(secret, hashlib.sha256(secret).hexdigest()[:8])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}", "save it as UTF-8") from None


def policy_files(folder: Path, *, wanted: bool = False) -> Sequence[Path]:
    """The `*.cedar` files of a folder, in order; an existing but empty folder is refused.

    Args:
        folder: The folder.
        wanted: The settings name it, so that it must be there.

    Raises:
        ConfigError: The folder holds no policy, or is not a folder.
    """
    if not os.path.lexists(folder) and not wanted:
        return ()
    found = sorted(folder.glob("*.cedar")) if folder.is_dir() else []
    if not found:
        raise ConfigError(str(folder), "holds no *.cedar file", "remove it, or add a policy")
    for entry in sorted(folder.iterdir()):
        if entry not in found and (entry.is_dir() or ".cedar" in entry.name.lower()):
            raise ConfigError(
                str(entry),
                "is not read: only *.cedar files of the folder itself are policies",
                "move it out, or name it *.cedar in the folder",
            )
    return [refuse_unsafe(path) for path in found]
