"""`lictor.toml`: settings, agents, users, task templates, rules.

Rules enforced here:

1. An unknown key does not load; the error offers the nearest names.
2. Nothing is taken from the environment except what only tightens (`LICTOR_PRODUCTION`).
3. `profile = "production"` demands verified identity unless the file says otherwise.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lictor.errors import ConfigError
from lictor.model import SERVER_ID, Kind, Principal

MAX_KNOWN: Final = 10_000
"""Principals kept as values, so that a file naming everybody (`*`) costs no memory per guest."""

Name = Annotated[str, StringConstraints(pattern=r"^[^\s/\x00-\x1f\x7f]{1,128}$")]
ServerId = Annotated[str, StringConstraints(pattern=rf"^{SERVER_ID.pattern}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
_HOST: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?"
_LOCAL: Final = r"(127\.0\.0\.1|localhost|\[::1\]):[1-9][0-9]{0,4}"
Listen = Annotated[str, StringConstraints(pattern=rf"^{_LOCAL}$")]
Host = Annotated[str, StringConstraints(pattern=rf"^{_HOST}$")]
Origin = Annotated[str, StringConstraints(pattern=rf"^https?://{_HOST}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class UserPart(_Part):
    """`[users.x]`; `[users."*"]` stands for every user that is not listed."""

    tenant: Name | None = None
    roles: list[Name] = []


class AgentPart(UserPart):
    """`[agents.x]`."""

    owner: Name | None = None


class TaskPart(_Part):
    """`[tasks.x]`: what one kind of task may do, and for how long."""

    tools: list[str] = []
    limits: dict[str, dict[str, Any]] = {}
    expires_in: Annotated[int, Field(gt=0, le=86_400)] = 900
    autonomous: bool = False
    purpose: Annotated[str, Field(max_length=500)] = ""
    calls: Annotated[int, Field(gt=0)] | None = None
    spend: str | None = None


class ProcessPart(_Part):
    """`process`: what calls made while no task is open run under."""

    task: Name
    agent: Name
    user: Name


class ServerPart(_Part):
    """`[mcp.servers.x]`: a server behind `lictor gateway`; it has a command or an address.

    Attributes:
        command: Starts it: program and arguments.
        url: Where it is, instead.
        env: Names of environment variables of ours that it gets besides the usual few.
        values: Environment variables set for it.
        cwd: The folder that it starts in.
        token: File (mode 0600) with the credential for its address.
        timeout: Seconds that it has to answer.
        lictor: It is one of ours: a grant may reach it.
    """

    command: Annotated[list[str], Field(min_length=1)] | None = None
    url: str | None = None
    env: list[Variable] = []
    values: dict[Variable, str] = {}
    cwd: str | None = None
    token: str | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    lictor: bool = False


class McpPart(_Part):
    """`[mcp]`: under whose authority calls through `lictor gateway` run.

    Attributes:
        agent: Who acts, where `--agent` does not say.
        task: The template of the task that a connection gets.
        user: Who it is for on stdio; the operating-system account if left out.
        confirm: The client shows questions to its user, who may answer `confirm:user` there.
        separate: The gateway runs under an account that the agent's programs cannot act as.
        trace: What becomes of a trace that a client names; on stdio it is continued if left out,
            over HTTP linked.
        bearer: Files (mode 0600) that name a caller over HTTP and hold his token.
        listen: Where it listens over HTTP, at the loopback; no tool of the project reaches it.
        hosts: What else may stand in `Host`: names of a proxy on this machine that speaks TLS.
        origins: What else may stand in `Origin`: web pages that may call.
        servers: What the gateway stands before.
    """

    agent: Name | None = None
    task: Name | None = None
    user: Name | None = None
    confirm: bool = False
    separate: bool = False
    trace: Literal["continue", "link"] | None = None
    bearer: list[str] = []
    listen: Listen | None = None
    hosts: list[Host] = []
    origins: list[Origin] = []
    servers: dict[ServerId, ServerPart] = {}


class Settings(_Part):
    """The whole file."""

    profile: Literal["local", "production"] = "local"
    tenant: Name = "local"
    mode: Literal["enforce", "observe"] = "enforce"
    guardrails: str = "starter@1"
    catalog: str = "catalog.toml"
    policies: str = "policies"
    state: str = ".lictor"
    require_verified: bool | None = None
    labels: list[Name] = []
    policy_timeout: Annotated[float, Field(gt=0, le=60)] = 2.0
    agents: dict[Name, AgentPart] = {}
    users: dict[Name, UserPart] = {}
    tasks: dict[Name, TaskPart] = {}
    process: ProcessPart | None = None
    mcp: McpPart | None = None
    rule: list[dict[str, Any]] = []

    @property
    def production(self) -> bool:
        """Whether the strict profile holds; the environment may turn it on, never off."""
        return self.profile == "production" or bool(os.environ.get("LICTOR_PRODUCTION"))

    @property
    def verified_only(self) -> bool:
        """Whether asserted identities are refused."""
        return self.production if self.require_verified is None else self.require_verified


def load(path: Path) -> Settings:
    """Reads `lictor.toml`.

    Raises:
        ConfigError: It is not TOML, or a key or value is wrong; names file, place and mend.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}", "mend the line it names") from None
    except IsADirectoryError:
        mend = f"name the file in it: {path / 'lictor.toml'}"
        raise ConfigError(str(path), "is a folder", mend) from None
    except RecursionError:
        raise ConfigError(str(path), "is nested too deeply", "write it flatter") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "check the file") from None
    try:
        settings = Settings.model_validate(_integers_as_floats(raw))
    except ValidationError as error:
        raise _config_error(path, error) from None
    _check_servers(path, settings.mcp)
    return settings


def _check_servers(path: Path, mcp: McpPart | None) -> None:
    for name, server in ({} if mcp is None else mcp.servers).items():
        where = f"{path}: mcp.servers.{name}"
        if (server.command is None) == (server.url is None):
            both = "both" if server.url is not None else "neither"
            raise ConfigError(
                where, f"has {both} a command and a url", 'command = ["program"], or url = "https…"'
            )
        if server.cwd is not None and not Path(server.cwd).is_absolute():
            raise ConfigError(f"{where}.cwd", "is a relative path", "write it from / on")


def _integers_as_floats(raw: dict[str, Any]) -> dict[str, Any]:
    """TOML writers put `2` where a number of seconds is meant."""
    mcp = raw.get("mcp")
    servers = mcp.get("servers") if isinstance(mcp, dict) else None
    parts = servers.values() if isinstance(servers, dict) else ()
    for table, key in ((raw, "policy_timeout"), *((part, "timeout") for part in parts)):
        if isinstance(table, dict) and type(table.get(key)) is int:
            table[key] = float(table[key])
    return raw


_PARTS: Mapping[str, type[BaseModel]] = {
    "agents": AgentPart,
    "users": UserPart,
    "tasks": TaskPart,
    "process": ProcessPart,
    "mcp": McpPart,
}


def _config_error(path: Path, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    place = [str(step) for step in first["loc"]]
    where = f"{path}: {'.'.join(place)}"
    if first["type"] != "extra_forbidden":
        return ConfigError(where, first["msg"], "give it a value of that kind")
    model = _PARTS.get(place[0], Settings) if len(place) > 1 else Settings
    if place[:2] == ["mcp", "servers"] and len(place) > 3:
        model = ServerPart
    known = list(model.model_fields)
    near = difflib.get_close_matches(place[-1], known, n=3, cutoff=0.5) or sorted(known)
    return ConfigError(where, "is not a known key", f"did you mean {' or '.join(near)}?")


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """The agents and users that `lictor.toml` names."""

    settings: Settings
    _known: dict[tuple[Kind, str], Principal] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def principal(self, kind: Kind, name: str) -> Principal | None:
        """The principal, or `None` if the file does not know it."""
        found = self._known.get((kind, name))
        if found is None:
            found = self._read(kind, name)
            if found is not None and len(self._known) < MAX_KNOWN:
                self._known[kind, name] = found
        return found

    def _read(self, kind: Kind, name: str) -> Principal | None:
        tenant = self.settings.tenant
        if kind is Kind.USER:
            users = self.settings.users
            listed = users.get(name) if name != "*" else None
            user = listed or (users.get("*") if _nameable(name) else None)
            if user is None:
                return None
            return Principal(kind, name, user.tenant or tenant, frozenset(user.roles))
        if kind is Kind.AGENT:
            agent = self.settings.agents.get(name)
            if agent is None:
                return None
            roles = frozenset(agent.roles)
            return Principal(kind, name, agent.tenant or tenant, roles, agent.owner or "")
        return None

    def near(self, kind: Kind, name: str) -> list[str]:
        """Known names like this one."""
        known = self.settings.users if kind is Kind.USER else self.settings.agents
        return difflib.get_close_matches(name, list(known), n=3) or sorted(known)[:5]


def _nameable(name: str) -> bool:
    return 0 < len(name) <= 128 and name.isprintable() and not set(name) & set("/ *\"'")
