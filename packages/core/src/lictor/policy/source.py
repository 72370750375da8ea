"""Policy text as it was written: files, statements with their lines, ids and annotations.

Rules enforced here:

1. Every policy has one id of its own; two policies with one id do not load.
2. Cedar reports no positions, so our own index says in which file and line a policy stands.
3. An annotation nobody reads does not load: text that looks like a rule must be one.
4. `@require` marks a forbid that a person can lift, and only in the one shape where lifting it is
   what its `unless` says: no author can make a guardrail approvable by accident.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, TypeAlias

import cedarpy

from lictor.errors import ConfigError

Est: TypeAlias = Mapping[str, Any]
"""A policy or expression in Cedar's JSON form."""

ANNOTATIONS: Final = ("id", "reason", "require", "description", "evidence")
ASK: Final = re.compile(r"confirm:user|(?:approval|four-eyes):[^\s:]+")
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|\s+|[^\s;"/]+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Policy text and what it is called in messages: a file, `starter@1`, `lictor.toml [[rule]]`.

    Attributes:
        name: Shown before the line number.
        text: Cedar.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Declared:
    """Names that policies may mention; anything else is taken for a typo.

    Attributes:
        labels: Session labels, besides those that tools produce and the built-in ones.
        roles: Role names of `tenant`, or `tenant/role`.
        users: User names, alike; `*` if anybody may come.
        agents: Agent names, alike.
        tenants: Tenants.
        tenant: The tenant of names that are written without one.
    """

    labels: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    tenant: str = "local"

    def qualified(self, names: frozenset[str]) -> frozenset[str]:
        """The names as entity ids, `tenant/name`."""
        return frozenset(name if "/" in name else f"{self.tenant}/{name}" for name in names)


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy.

    Attributes:
        id: From `@id`; else the source and its position in it.
        named: Whether it has an `@id`.
        where: `file:line`.
        text: As written.
        est: Cedar's JSON form.
        reason: From `@reason`, or empty.
        require: The ask that lifts this forbid, or empty.
        nodes: Every expression in its conditions.
    """

    id: str
    named: bool
    where: str
    text: str
    est: Est
    reason: str = ""
    require: str = ""
    nodes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def permits(self) -> bool:
        """Whether it is a permit."""
        return bool(self.est["effect"] == "permit")


def guardrail(name: str) -> PolicySource:
    """The guardrails that ship with Lictor.

    Args:
        name: Name and version, as `starter@1`.

    Raises:
        ConfigError: There are none of that name.
    """
    folder = files("lictor.policy") / "guardrails"
    known = sorted(
        item.name.removesuffix(".cedar").replace("-", "@")
        for item in folder.iterdir()
        if item.name.endswith(".cedar")
    )
    if name not in known:
        raise ConfigError(
            "guardrails", f"there are no guardrails {name!r}", f"write one of: {', '.join(known)}"
        )
    return PolicySource(name, (folder / f"{name.replace('@', '-')}.cedar").read_text("utf-8"))


def split(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a policy text, each with the line it starts on.

    Cedar has `//` comments and double-quoted strings, and ends each policy with a semicolon.
    """
    line, start, parts = 1, 0, list[str]()
    for match in _TOKEN.finditer(text):
        token = match.group()
        if not (token.isspace() or token.startswith("//")):
            start = start or line
            parts.append(token)
        elif parts:
            parts.append(token)
        line += token.count("\n")
        if match.group() == ";":
            yield start, "".join(parts)
            start, parts = 0, []
    if parts:
        yield start, "".join(parts)


def parse(sources: Sequence[PolicySource]) -> tuple[Statement, ...]:
    """Reads policy texts.

    Raises:
        ConfigError: A text does not parse, an id is used twice, an annotation is unknown, a
            `@require` has the wrong shape.
    """
    statements: list[Statement] = []
    seen: dict[str, str] = {}
    for source in sources:
        for number, (line, text) in enumerate(split(source.text), 1):
            statement = _statement(source.name, number, line, text)
            if statement.id in seen:
                raise ConfigError(
                    statement.where,
                    f"policy id {statement.id!r} is already used at {seen[statement.id]}",
                    "give each policy an @id of its own",
                )
            seen[statement.id] = statement.where
            statements.append(statement)
    return tuple(statements)


def _statement(name: str, number: int, line: int, text: str) -> Statement:
    where = f"{name}:{line}"
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise ConfigError(where, f"not a Cedar policy: {error}", "correct the syntax") from None
    if parsed["templates"] or len(parsed["staticPolicies"]) != 1:
        raise ConfigError(
            where,
            "a template, or not exactly one policy before the semicolon",
            "write principal and resource out, without ?principal and ?resource",
        )
    est: Est = parsed["staticPolicies"]["policy0"]
    notes: Mapping[str, str] = {k: v or "" for k, v in est.get("annotations", {}).items()}
    for note in notes:
        if note not in ANNOTATIONS:
            near = difflib.get_close_matches(note, ANNOTATIONS, 1) or ["reason"]
            raise ConfigError(where, f"unknown annotation @{note}", f"did you mean @{near[0]}?")
    if "require" in notes:
        _check_require(where, est, notes["require"])
    return Statement(
        id=notes.get("id") or f"{name}#{number}",
        named=bool(notes.get("id")),
        where=where,
        text=text,
        est=est,
        reason=notes.get("reason", ""),
        require=notes.get("require", ""),
        nodes=tuple(expressions(est)),
    )


def _check_require(where: str, est: Est, ask: str) -> None:
    if not ASK.fullmatch(ask):
        raise ConfigError(
            where,
            f"@require({ask!r}) is no ask",
            "write confirm:user, approval:ROLE or four-eyes:ROLE",
        )
    met = {"contains": {"left": _CONTEXT_MET, "right": {"Value": ask}}}
    unless = [c["body"] for c in est["conditions"] if c["kind"] == "unless"]
    if est["effect"] != "forbid" or unless != [met]:
        raise ConfigError(
            where,
            "@require needs a forbid whose only unless names the same ask",
            f'end it with: unless {{ context.met.contains("{ask}") }};',
        )


_CONTEXT_MET: Final = {".": {"left": {"Var": "context"}, "attr": "met"}}


def children(word: str, body: Any) -> Iterable[Any]:
    """The expressions directly inside an operator of Cedar's JSON form."""
    if word in ("Value", "Var", "Slot"):
        return ()
    if isinstance(body, dict):
        return [value for value in body.values() if isinstance(value, dict | list)]
    return body if isinstance(body, list) else ()


def expressions(est: Est) -> Iterator[Mapping[str, Any]]:
    """Every expression node of a policy's conditions."""
    waiting: list[Any] = [condition["body"] for condition in est["conditions"]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            for word, body in node.items():
                waiting += children(word, body)
