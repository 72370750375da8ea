"""The words of Lictor as values: tools, calls, principals, decisions.

Rules enforced here:

1. A tool is known by the pair (server, name); the string `server/name` is for display.
2. A pin covers everything a model or a reviewer can see of a tool, and the code of a local one.
3. A verdict has no truth value: `if decision:` and `if verdict:` raise.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn

from lictor.canonical import Json, canonical, digest, frozen, thawed

UNITS: Final = 10_000
"""Spend is counted in 1/10,000 of the currency unit, as Cedar's `decimal` is."""

SERVER_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


class _NoTruth(StrEnum):
    def __bool__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has no truth value: compare it with a member")


class Impact(StrEnum):
    """What a tool can do to the world. Everything but `read` is effectful."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    SEND = "send"
    TRANSFER = "transfer"
    EXECUTE = "execute"


_READ: Final = frozenset({Impact.READ})


class Verdict(_NoTruth):
    """What was decided."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class Enforcement(_NoTruth):
    """What the gate did about it."""

    PROCEED = "proceed"
    BLOCK = "block"
    SUSPEND = "suspend"
    OBSERVE = "observe"


class Outcome(_NoTruth):
    """How the execution of an allowed call ended."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_STARTED = "not_started"
    SUSPENDED = "suspended"


class Assurance(StrEnum):
    """How sure we are that a principal is who it says: proved, named, or a developer's machine."""

    VERIFIED = "verified"
    ASSERTED = "asserted"
    DEV = "dev"


class Mode(StrEnum):
    """`observe` lets policy-stage denials proceed, and says so in every record and span."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class ToolKey(NamedTuple):
    """Names one tool of one server. The tuple is the key; `str()` is for people."""

    server: str
    name: str

    def __str__(self) -> str:
        return f"{self.server}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ToolKey:
        """Reads `server/name`; only the first slash separates, since server ids hold none.

        Raises:
            ValueError: The server id is not `[a-z][a-z0-9-]{0,31}` or the name is empty or `_`.
        """
        server, slash, name = text.partition("/")
        if not slash:
            raise ValueError(f"{text!r} is not server/name (a local tool is local/{text})")
        return cls.checked(server, name)

    @classmethod
    def checked(cls, server: str, name: str) -> ToolKey:
        """Builds a key.

        Raises:
            ValueError: The server id is not `[a-z][a-z0-9-]{0,31}` or the name is empty or `_`.
        """
        if not SERVER_ID.fullmatch(server):
            raise ValueError(f"server id {server!r} does not match [a-z][a-z0-9-]{{0,31}}")
        if not name or name == "_" or len(name) > 128 or not name.isprintable():
            raise ValueError(f"tool name {name!r} is empty, '_', too long or not printable")
        return cls(server, name)


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as its server defines it.

    Attributes:
        key: Server id and name.
        description: What the model is told.
        input_schema: JSON Schema of the arguments, without injected ones.
        title: For people.
        output_schema: JSON Schema of the result, if the server gives one.
        annotations: Hints of the server. They may raise an impact, never lower it.
        origin: For a local tool: module, qualified name and code hash as one string.
        injected: Names of inputs the host supplies and the model cannot see (state, store, …).
        pin: `sha256:` digest of all of the above; what a reviewer's decision is tied to.
    """

    key: ToolKey
    description: str = ""
    input_schema: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    title: str = ""
    output_schema: Mapping[str, object] | None = None
    annotations: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    origin: str = ""
    injected: tuple[str, ...] = ()
    pin: str = field(init=False, default="")

    def __post_init__(self) -> None:
        ToolKey.checked(*self.key)
        try:
            for name in ("input_schema", "output_schema", "annotations"):
                value = getattr(self, name)
                if value is not None:
                    object.__setattr__(self, name, frozen(thawed(value)))
            object.__setattr__(self, "injected", tuple(sorted(self.injected)))
            object.__setattr__(self, "pin", digest(self.definition()))
        except RecursionError:
            raise ValueError(f"the definition of {self.key} is nested too deep") from None

    def definition(self) -> dict[str, Json]:
        """The full definition as JSON; what `catalog.lock` stores and the pin covers."""
        return {
            "server": self.key.server,
            "name": self.key.name,
            "title": self.title,
            "description": self.description,
            "input_schema": thawed(self.input_schema),
            "output_schema": thawed(self.output_schema),
            "annotations": thawed(self.annotations),
            "origin": self.origin,
            "injected": list(self.injected),
        }

    @classmethod
    def unknown(cls, server: str, name: str) -> Tool:
        """Stands for a name that no tool has, as a model made it up: made printable and cut."""
        shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name[:128])[:128]
        return cls(ToolKey.checked(server, shown if shown not in ("", "_") else f"?{shown}"))

    @classmethod
    def from_definition(cls, definition: Mapping[str, object]) -> Tool:
        """Inverse of `definition`.

        Raises:
            ValueError: A part is missing or has the wrong type.
        """
        known = dict(definition)
        try:
            key = ToolKey.checked(str(known.pop("server")), str(known.pop("name")))
            injected: tuple[str, ...] = tuple(known.pop("injected", ()))  # type: ignore[arg-type]
            return cls(key=key, injected=injected, **known)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ValueError(f"tool definition: {error}") from None


@dataclass(frozen=True, slots=True)
class Review:
    """What the operator decided about one tool: an entry of `catalog.toml`.

    Attributes:
        key: The tool.
        impact: One or more.
        pin: Digest of the definition the reviewer saw.
        target: Arguments that say where an effect goes (recipient, path, host, id).
        amount: Argument that says how much, if any.
        recordable: Arguments that may stand in clear in records; others are keyed digests.
        produces: Labels that every result adds to the session.
        sources: Who can write what the tool returns, as free names (`outsiders`, `staff`).
        formats: Argument → `path`, `uri` or `email`; policy and limits see it parsed.
        inputs: Paths into injected inputs (`state.draft.to`) that count as arguments.
        credentials: Names a body may ask for.
        isolation: `""`, or `container` for `execute` tools that run elsewhere.
        roots: Absolute folders that its relative paths start from and that it may reach into.
        tenant: Tenant that owns the server; empty when it serves all.
        blocked: Reviewed and refused.
        reviewer: Who decided.
        reviewed_at: When, RFC 3339.
        reviewed_in: `""`, or `dev` for answers given under `Gate.dev()`.
    """

    key: ToolKey
    impact: frozenset[Impact]
    pin: str
    target: tuple[str, ...] = ()
    amount: str = ""
    recordable: tuple[str, ...] = ()
    produces: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    formats: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    inputs: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    isolation: str = ""
    roots: tuple[str, ...] = ()
    tenant: str = ""
    blocked: bool = False
    reviewer: str = ""
    reviewed_at: str = ""
    reviewed_in: str = ""

    @property
    def effectful(self) -> bool:
        """Whether the tool does anything but read."""
        return self.impact != _READ


class Kind(StrEnum):
    """What a principal is."""

    USER = "User"
    AGENT = "Agent"
    WORKLOAD = "Workload"


@dataclass(frozen=True, slots=True)
class Principal:
    """A party in the chain of a call.

    Attributes:
        kind: User, agent or workload.
        id: Unique in its tenant.
        tenant: From the directory or the verified token, never from an argument.
        roles: Role names of the tenant.
        owner: For an agent: the user who answers for it; empty for others.
    """

    kind: Kind
    id: str
    tenant: str
    roles: frozenset[str] = frozenset()
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.kind.lower()}:{self.tenant}/{self.id}"


@dataclass(frozen=True, slots=True)
class Pep:
    """Where a call was met: the adapter (`langchain`, `mcp_server`, …) and its side."""

    kind: str = "function"
    side: str = "client"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as an adapter met it, before anything is checked.

    Attributes:
        tool: The definition that is about to run; its pin is compared with the catalog's.
        arguments: What would be passed to the body, bound and defaulted.
        host_id: The host's id of the call (a tool-call id). Retries and resumes share it.
        injected: Inputs the host adds behind the model's back, by parameter name.
        pep: Where it was met.
    """

    tool: Tool
    arguments: Mapping[str, object]
    host_id: str = ""
    injected: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    pep: Pep = Pep()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one call, why, and what the gate did about it.

    Attributes:
        id: ULID of this decision; `lictor explain` takes it.
        call_id: Shared by all attempts of one host call; the idempotency key of its body.
        tool: The tool asked for (`None` server for names nobody knows).
        verdict: Allow, deny or ask.
        enforcement: What the gate did.
        reason: Closed code, a key of `errors.REFUSALS` (or `permit`).
        text: The sentence for the model: stable, without policy text or thresholds.
        policies: Ids of the policies that determined it.
        asks: What would have to be answered by a person, for verdict ask.
        detail: For the operator only: what exactly, in words.
        final: The fifth identical denial: the adapter ends the run.
    """

    id: str
    call_id: str
    tool: ToolKey
    verdict: Verdict
    enforcement: Enforcement
    reason: str
    text: str
    policies: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    detail: str = ""
    final: bool = False

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision has no truth value: compare decision.verdict")


_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


_PAIRS: Final = [high + low for high in _CROCKFORD for low in _CROCKFORD]


def _base32(number: int, length: int) -> str:
    pairs = _PAIRS
    text = "".join([pairs[(number >> 10 * n) & 1023] for n in range((length + 1) // 2 - 1, -1, -1)])
    return text[-length:]


_dice: dict[int, random.Random] = {}


def ulid(at: float | None = None) -> str:
    """A new ULID (26 characters, sorted by time): 48 bits of milliseconds, 80 of randomness.

    An id is a name, not a secret; each process has dice of its own, also after a fork.
    """
    process = os.getpid()
    dice = _dice.get(process)
    if dice is None:
        dice = _dice.setdefault(process, random.Random(os.urandom(32)))  # noqa: S311
    ms = int((time.time() if at is None else at) * 1000)
    high, low, two = dice.getrandbits(40), dice.getrandbits(40), _PAIRS
    # Every call pays for it: written out, it takes half the time of a loop over one large number.
    return (
        f"{two[ms >> 40 & 1023]}{two[ms >> 30 & 1023]}{two[ms >> 20 & 1023]}{two[ms >> 10 & 1023]}"
        f"{two[ms & 1023]}{two[high >> 30]}{two[high >> 20 & 1023]}{two[high >> 10 & 1023]}"
        f"{two[high & 1023]}{two[low >> 30]}{two[low >> 20 & 1023]}{two[low >> 10 & 1023]}"
        f"{two[low & 1023]}"
    )


def derived_id(*parts: str) -> str:
    """An id that every retry of the same host call derives alike, in any process."""
    data = canonical(list(parts))
    return "C" + _base32(int.from_bytes(hashlib.sha256(data).digest()[:16]), 25)
