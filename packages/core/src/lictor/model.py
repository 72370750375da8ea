"""The words of Lictor as values: tools, calls, principals, decisions, and their canonical form.

Rules enforced here:

1. What is checked is a copy nobody else holds, and the copy is what runs (`take`).
2. Only types whose JSON view is certain are accepted; everything else is refused, never guessed.
3. Two values with the same canonical bytes (RFC 8785) have the same digest, and only those.
4. A tool is known by the pair (server, name); the string `server/name` is for display.
5. A pin covers everything a model or a reviewer can see of a tool, and the code of a local one.
6. A verdict has no truth value: `if decision:` and `if verdict:` raise.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import random
import re
import sys
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePath
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, TypeAlias
from uuid import UUID

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer two JSON decoders agree on (RFC 8259 §6, I-JSON RFC 7493 §2.2)."""
MAX_DEPTH: Final = 32
MAX_NODES: Final = 20_000
MAX_BYTES: Final = 1_048_576
"""Largest canonical size of one call's arguments, in bytes."""
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


class InputInvalid(ValueError):
    """Arguments that cannot be checked.

    Attributes:
        path: Where in the arguments, as `a.b[2]`; empty for the whole.
        problem: What is wrong, in words fit for the model (no value is quoted).
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"argument {path}: {problem}" if path else f"arguments: {problem}")


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


def canonical(value: Json) -> bytes:
    """The one byte form of a JSON value (RFC 8785).

    The standard encoder writes the same bytes as RFC 8785, except for floats, for integers beyond
    2^53-1 (which are refused) and for the order of names with characters beyond the basic plane.
    What might hold one of these goes to the reference library; a property test compares both.

    Raises:
        InputInvalid: NaN, infinity, an integer beyond 2^53-1, or a lone surrogate.
    """
    try:
        if _plain(value):
            text = _encode(value)
            if text.isascii() or max(text) <= "\uffff":
                return text.encode()
        import rfc8785

        return rfc8785.dumps(value)
    except (UnicodeEncodeError, ValueError) as error:
        raise InputInvalid("", f"cannot be written as canonical JSON: {error}") from None


_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


def _plain(value: Json) -> bool:
    """Whether it holds no float and no large integer; unrolled, since every call pays for it."""
    kind = type(value)
    if kind is dict:
        for item in value.values():  # type: ignore[union-attr]
            if type(item) is not str and not _plain(item):
                return False
        return True
    if kind is list:
        for item in value:  # type: ignore[union-attr]
            if type(item) is not str and not _plain(item):
                return False
        return True
    if kind is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER  # type: ignore[operator]
    return kind is str or kind is bool or value is None


def digest(value: Json) -> str:
    """`sha256:` and the hex SHA-256 of the canonical bytes."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Arguments:
    """One call's arguments: the copy that will run and its JSON view that is decided on.

    Attributes:
        values: Private deep copy, Python values as the host bound them. Runs if allowed.
        view: The same as plain JSON. Schema, limits, policy and digest see only this.
        encoded: Canonical bytes of `view`.
    """

    values: dict[str, object]
    view: dict[str, Json]
    encoded: bytes


def take(arguments: Mapping[str, object]) -> Arguments:
    """Copies arguments and derives their JSON view in one walk.

    Args:
        arguments: What the host is about to pass, after binding, defaults and coercion.

    Returns:
        The copy, its view and its canonical bytes.

    Raises:
        InputInvalid: A type whose view is not certain, a non-string key, NaN or infinity, an
            integer beyond 2^53-1, a lone surrogate, or too deep, too many or too large values.
    """
    walk = _Walk()
    values: dict[str, object] = {}
    view: dict[str, Json] = {}
    for name, value in arguments.items():
        if type(name) is not str:
            raise InputInvalid("", "a name is not a string")
        values[name], view[name] = walk.take(value, name, 1)
    encoded = canonical(view)
    if len(encoded) > MAX_BYTES:
        raise InputInvalid("", f"larger than {MAX_BYTES} bytes")
    return Arguments(values, view, encoded)


_TEXTUAL = (datetime, date, day_time, UUID, PurePath)


class _Walk:
    """Copies and views one argument tree, counting as it goes."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_NODES

    def take(self, value: object, path: str, depth: int) -> tuple[object, Json]:
        self.left -= 1
        if self.left < 0:
            raise InputInvalid("", f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise InputInvalid(path, f"nested deeper than {MAX_DEPTH}")
        kind = type(value)
        if kind is str:
            return value, _text(value, path)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value, value  # type: ignore[return-value]
        if kind is int:
            return value, _integer(value, path)  # type: ignore[arg-type]
        if kind is float:
            if not math.isfinite(value):  # type: ignore[arg-type]
                raise InputInvalid(path, "is not a finite number")
            return value, value  # type: ignore[return-value]
        if kind is dict:
            return self._dict(value, path, depth)  # type: ignore[arg-type]
        if kind is list or kind is tuple:
            return self._list(value, path, depth)  # type: ignore[arg-type]
        return self._rich(value, path, depth)

    def _dict(self, value: dict[object, object], path: str, depth: int) -> tuple[object, Json]:
        copied: dict[str, object] = {}
        viewed: dict[str, Json] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise InputInvalid(path, "has a name that is not a string")
            _text(key, path)
            copied[key], viewed[key] = self.take(item, f"{path}.{key}", depth + 1)
        return copied, viewed

    def _list(self, value: Sequence[object], path: str, depth: int) -> tuple[object, Json]:
        pairs = [self.take(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]
        copied = [pair[0] for pair in pairs]
        return (copied if type(value) is list else tuple(copied)), [pair[1] for pair in pairs]

    def _rich(self, value: object, path: str, depth: int) -> tuple[object, Json]:
        """Values that pydantic, dataclasses and the standard library make from JSON."""
        kind = type(value)
        if isinstance(value, Enum):
            return value, self.take(value.value, path, depth + 1)[1]
        if kind in _TEXTUAL or (isinstance(value, PurePath) and kind.__module__ == "pathlib"):
            return value, _text(_written(value), path)
        if kind is Decimal:
            return value, _decimal(value, path)  # type: ignore[arg-type]
        if kind is timedelta:
            return value, value.total_seconds()  # type: ignore[attr-defined]
        if kind is bytes:
            return value, b64encode(value).decode()  # type: ignore[arg-type]
        if kind is set or kind is frozenset:
            viewed = [self.take(item, path, depth + 1)[1] for item in value]  # type: ignore[attr-defined]
            return copy.deepcopy(value), sorted(viewed, key=canonical)
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            copied = value.model_copy(deep=True)
            return copied, self.take(copied.model_dump(mode="json"), path, depth + 1)[1]
        if kind.__module__.startswith("pydantic") and kind.__name__.endswith(("Url", "Dsn")):
            return value, _text(str(value), path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            copied = copy.deepcopy(value)
            fields = {f.name: getattr(copied, f.name) for f in dataclasses.fields(copied)}
            return copied, self.take(fields, path, depth + 1)[1]
        raise InputInvalid(path, f"has a type that cannot be checked ({kind.__qualname__})")


def _decimal(value: Decimal, path: str) -> Json:
    """A number where JSON has the same one, so that limits and policy can compare it; else text."""
    if not value.is_finite():
        raise InputInvalid(path, "is not a finite number")
    number = float(value)
    if math.isfinite(number) and Decimal(repr(number)) == value:
        return number
    return str(value)


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, date | day_time) else str(value)


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputInvalid(path, "holds a lone surrogate (not valid Unicode)") from None
    return value


def _integer(value: int, path: str) -> int:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InputInvalid(path, "is an integer beyond 2^53-1")
    return value


def frozen(value: Json) -> object:
    """A read-only view of a JSON value, for definitions that must not change after pinning."""
    if isinstance(value, dict):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    return value


def thawed(value: object) -> Json:
    """The JSON value behind `frozen`."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [thawed(item) for item in value]
    return value  # type: ignore[return-value]


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
    tenant: str = ""
    blocked: bool = False
    reviewer: str = ""
    reviewed_at: str = ""
    reviewed_in: str = ""

    @property
    def effectful(self) -> bool:
        """Whether the tool does anything but read."""
        return self.impact != {Impact.READ}


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
    milliseconds = int((time.time() if at is None else at) * 1000)
    return _base32(milliseconds << 80 | dice.getrandbits(80), 26)


def derived_id(*parts: str) -> str:
    """An id that every retry of the same host call derives alike, in any process."""
    data = canonical(list(parts))
    return "C" + _base32(int.from_bytes(hashlib.sha256(data).digest()[:16]), 25)
