"""What is valid Cedar and still surely, or probably, not what its author meant.

Rules enforced here:

1. A name, label or ask that nothing declares is a typo, and a forbid with a typo never fires.
2. A permit with a maximum and no minimum lets negative amounts through.
3. Facts of an entity are asked for only where the snapshot knows them: principal, resource, the
   grant's user. Elsewhere `in` is silently false.
4. Errors stop the load; warnings are for people.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lictor.model import Assurance, Impact
from lictor.policy.bounds import LOWER, UPPER, has_minimum, open_below
from lictor.policy.schema import GROUPS, Uid
from lictor.policy.shape import Path, Record, Shape, of_tool
from lictor.policy.slices import context_path, entities_of, sliced
from lictor.policy.source import (
    ASK,
    Declared,
    Est,
    PolicySource,
    Statement,
    children,
    parse,
)
from lictor.ports import Known

LABELS: Final = frozenset({"untrusted", "sensitive", "pii"})
"""Labels that need no declaration."""
_SETS: Final = ("contains", "containsAll", "containsAny")
_EQUALS: Final = ("==", "!=", *_SETS)
_DECLARED: Final = {
    "Role": "roles = [{}] in [users.NAME] or [agents.NAME]",
    "User": "[users.{}]",
    "Agent": "[agents.{}]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a policy that a person should look at.

    Attributes:
        level: `error` or `warning`.
        where: `file:line`.
        policy: Its id.
        problem: What is odd.
        mend: What to write instead.
    """

    level: str
    where: str
    policy: str
    problem: str
    mend: str


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the checks of one load need to know."""

    declared: Declared
    tools: tuple[Known, ...]
    names: Mapping[str, frozenset[str]]
    words: Mapping[Path, frozenset[str]]
    shapes: Mapping[str, Record] = field(default_factory=dict)


def lint(
    sources: Sequence[PolicySource], declared: Declared, tools: Sequence[Known]
) -> list[Finding]:
    """Looks for what validation cannot see.

    Args:
        sources: Policy texts.
        declared: The names policies may mention.
        tools: The catalog.

    Raises:
        ConfigError: A text does not parse.
    """
    return findings(parse(sources), declared, tools)


def findings(
    statements: Sequence[Statement], declared: Declared, tools: Sequence[Known]
) -> list[Finding]:
    """`lint` for policies that are parsed already."""
    scope = _scope(declared, tools)
    found: list[Finding] = []
    for statement in statements:
        for check in _CHECKS:
            for level, problem, mend in check(statement, scope):
                found.append(Finding(level, statement.where, statement.id, problem, mend))
    return found


def _scope(declared: Declared, tools: Sequence[Known]) -> _Scope:
    tenants = declared.tenants | {declared.tenant}
    names = {
        "Role": _anywhere(declared.roles, tenants),
        "User": _anywhere(declared.users, tenants),
        "Agent": _anywhere(declared.agents, tenants),
        "Tenant": tenants,
        "Server": frozenset(known.review.key.server for known in tools),
        "Tool": frozenset(str(known.review.key) for known in tools),
    }
    produced = frozenset().union(*(known.review.produces for known in tools))
    words: dict[Path, frozenset[str]] = {
        ("context", "session", "labels"): declared.labels | produced | LABELS,
        ("context", "session", "sources"): frozenset().union(*(k.review.sources for k in tools)),
        ("context", "assurance"): frozenset(Assurance),
        ("context", "grant", "tenant"): tenants,
        ("principal", "tenant"): tenants,
        ("resource", "tenant"): tenants,
    }
    shapes = {str(known.review.key): of_tool(known.tool, known.review) for known in tools}
    return _Scope(declared, tuple(tools), names, words, shapes)


def _anywhere(names: frozenset[str], tenants: frozenset[str]) -> frozenset[str]:
    """Entity ids of names that may belong to any tenant."""
    plain = {f"{tenant}/{name}" for tenant in tenants for name in names if "/" not in name}
    return frozenset(plain | {name for name in names if "/" in name})


_Found = Iterator[tuple[str, str, str]]


def _ids(statement: Statement, scope: _Scope) -> _Found:
    if not statement.named:
        yield "warning", "the policy has no id", 'put @id("…") before it'
    elif not statement.id.isascii():
        yield "warning", "the policy id is not ASCII", "write it in ASCII"
    if not statement.reason and not statement.permits:
        yield "warning", "the forbid gives no reason", 'put @reason("…") before it'


def _names(statement: Statement, scope: _Scope) -> _Found:
    for uid in _literals(statement):
        known = scope.names.get(uid.type)
        anybody = uid.type == "User" and "*" in scope.declared.users
        if known is not None and uid.id not in known and not anybody:
            mend = _near(uid.id, known, uid.type)
            yield "error", f"nothing declares {uid.type} {uid.id!r}", mend
        if uid.type == "Action" and uid.id.endswith("/_"):
            yield "error", f"{uid.id!r} is no action", "write the group alone"
        if not uid.id.isascii():
            yield "warning", f"{uid.type} {uid.id!r} is not ASCII", "look for look-alike letters"


def _near(word: str, known: frozenset[str], kind: str = "") -> str:
    line = _DECLARED.get(kind)
    if line is None:
        near = difflib.get_close_matches(word, sorted(known), 3, 0.5)
        return f"did you mean {' or '.join(near)}?" if near else "declare it, or correct the name"
    name = word.rpartition("/")[2]
    # a tenant in common is no likeness of names
    last = {each: each.rpartition("/")[2] for each in sorted(known)}
    near = difflib.get_close_matches(name, sorted(set(last.values())), 3, 0.5)
    if near:
        return f"did you mean {' or '.join(each for each in last if last[each] in near)}?"
    return f"declare it in lictor.toml: {line.format(json.dumps(name))}"


def _literals(statement: Statement) -> Iterator[Uid]:
    est = statement.est
    for part in ("principal", "action", "resource"):
        yield from entities_of(est[part])
        yield from entities_of(est[part].get("in") or {})
    for node in statement.nodes:
        value = node.get("Value")
        if isinstance(value, dict) and "__entity" in value:
            yield Uid.read(value["__entity"])


def _words(statement: Statement, scope: _Scope) -> _Found:
    for node in statement.nodes:
        for left, right in _operands(node, _EQUALS):
            path = _path(left)
            allowed = scope.words.get(path) if path else None
            for word in _strings(right):
                if allowed is not None and word not in allowed:
                    yield (
                        "error",
                        f"nothing declares {word!r} in {_dotted(path)}",
                        _near(word, allowed),
                    )
                if path == ("context", "met") and not ASK.fullmatch(word):
                    yield "error", f"{word!r} is no ask", "write confirm:user or approval:ROLE"


def _operands(node: Mapping[str, Any], operators: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Both sides of a comparison, each once as the left."""
    for operator in operators:
        body = node.get(operator)
        if isinstance(body, dict) and {"left", "right"} <= set(body):
            yield body["left"], body["right"]
            yield body["right"], body["left"]


def _path(node: Any) -> Path | None:
    """`context.a`, `principal.a` or `resource.a` as a path that starts with the variable."""
    inner = context_path(node)
    if inner is not None:
        return ("context", *inner)
    step = node.get(".") if isinstance(node, dict) else None
    if isinstance(step, dict) and isinstance(step.get("left"), dict):
        variable = step["left"].get("Var")
        return (variable, step["attr"]) if variable else None
    return None


def _dotted(path: Path | None) -> str:
    return ".".join(path or ())


def _strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        if isinstance(node.get("Value"), str):
            return [node["Value"]]
        if isinstance(node.get("Set"), list):
            return [word for item in node["Set"] for word in _strings(item)]
    return []


def _asks(statement: Statement, scope: _Scope) -> _Found:
    kind, _, role = statement.require.partition(":")
    roles = scope.names["Role"]
    if kind in ("approval", "four-eyes"):
        (qualified,) = scope.declared.qualified(frozenset({role}))
        if qualified not in roles:
            yield (
                "error",
                f"nothing declares Role {role!r} of its @require",
                _near(qualified, roles, "Role"),
            )
    reads_met = any(context_path(node) == ("met",) for node in statement.nodes)
    if reads_met and not statement.require:
        yield (
            "warning" if statement.permits else "error",
            "it waits for an ask that nobody will put: it has no @require",
            'write @require("…") forbid … unless { context.met.contains("…") };',
        )


def _ranges(statement: Statement, scope: _Scope) -> _Found:
    for path in open_below(statement):
        tools = [known for known in scope.tools if sliced([statement], known)]
        if not tools or not all(has_minimum(known, path) for known in tools):
            yield (
                "error" if statement.permits else "warning",
                f"context.{_dotted(path)} has a maximum and no minimum: negative values pass",
                f"add a lower bound on context.{_dotted(path)}",
            )


def _texts(statement: Statement, scope: _Scope) -> _Found:
    level = "error" if statement.permits else "warning"
    for node in statement.nodes:
        body = node.get("like") or {}
        path = context_path(body.get("left"))
        if path and path[0] == "input":
            pattern = body["pattern"]
            if pattern and pattern[0] == "Wildcard":
                yield (
                    level,
                    f"like on context.{_dotted(path)} starts with a wildcard: anything may precede",
                    "compare the part you mean, such as an email's domain, with ==",
                )
            elif not _has_format(statement, path, scope):
                yield (
                    "warning",
                    f"like on context.{_dotted(path)}, which has no format: /data/../etc passes",
                    'give the argument a format in catalog.toml: formats = { … = "path" }',
                )
        yield from _contains_all(node, statement, level)


def _contains_all(node: Mapping[str, Any], statement: Statement, level: str) -> _Found:
    body = node.get("containsAll")
    path = context_path(body["right"]) if isinstance(body, dict) else None
    if not path or path[0] != "input":
        return
    counted = (*path[:-1], f"{path[-1]}_count")
    if not any(context_path(other) == counted for other in statement.nodes):
        yield (
            level,
            f"containsAll is true when context.{_dotted(path)} is empty",
            f"add context.{_dotted(counted)} > 0",
        )


def _has_format(statement: Statement, path: Path, scope: _Scope) -> bool:
    tools = [known for known in scope.tools if sliced([statement], known)]
    return bool(tools) and all(_formed(scope.shapes[str(k.review.key)], path[1:]) for k in tools)


def _formed(shape: Shape, path: Path) -> bool:
    if isinstance(shape, Record) and path and not shape.form:
        inner = next((f.shape for f in shape.fields if f.name == path[0]), None)
        return inner is not None and _formed(inner, path[1:])
    return bool(getattr(shape, "form", ""))


def _breadth(statement: Statement, scope: _Scope) -> _Found:
    est = statement.est
    for uid in entities_of(est["action"]):
        if est["action"]["op"] == "==" and uid.id in GROUPS:
            yield "error", f"action == {uid.id!r} matches no tool", "write in instead of =="
    anybody = est["principal"]["op"] == "All" and est["resource"]["op"] == "All"
    if statement.permits and anybody and not est["conditions"] and _effectful(est):
        yield (
            "warning",
            "a permit without conditions for effects of every tool and principal",
            "name principals or tools, or add a condition",
        )


def _effectful(est: Est) -> bool:
    reached = {uid.id for uid in entities_of(est["action"])} & set(GROUPS)
    return est["action"]["op"] == "All" or bool(reached - {Impact.READ.value})


def _constants(statement: Statement, scope: _Scope) -> _Found:
    constant: list[bool] = []
    for condition in statement.est["conditions"]:
        constant.append(not _varies(condition["body"], constant))
    if any(constant):
        yield "warning", "a condition that is always the same", "remove or correct it"


def _varies(node: Any, constant: list[bool]) -> bool:
    """Whether an expression mentions a variable; notes comparisons that do not."""
    if isinstance(node, list):
        return True in [_varies(item, constant) for item in node]
    if not isinstance(node, dict):
        return False
    found = "Var" in node
    for word, body in node.items():
        inner = True in [_varies(child, constant) for child in children(word, body)]
        if word in _COMPARES and not inner:
            constant.append(True)
        found = found or inner
    return found


def _closure(statement: Statement, scope: _Scope) -> _Found:
    for node in statement.nodes:
        for word in ("in", "is"):
            body = node.get(word)
            if isinstance(body, dict) and (word == "in" or "in" in body):
                left = body["left"]
                if "Var" not in left and _path(left) not in _KNOWN:
                    yield (
                        "error",
                        "asks what an entity lies in that the engine knows nothing of",
                        "ask it of principal, action, resource or context.grant.user",
                    )


_KNOWN: Final = (("context", "grant", "user"), ("resource", "server"))
_COMPARES: Final = frozenset((*UPPER, *LOWER, "==", "!=", "&&", "||", "!"))
_CHECKS: Final = (_ids, _names, _words, _asks, _ranges, _texts, _breadth, _constants, _closure)
