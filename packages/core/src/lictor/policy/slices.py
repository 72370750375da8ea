"""Which policies can matter for a tool, and what they read.

Rules enforced here:

1. A policy is left out of a slice only if its scope can never match the tool: such a policy is
   neither satisfied nor in error, so leaving it out changes no answer.
2. What a policy reads is found leaf by leaf; what cannot be followed counts as read whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lictor.model import Principal
from lictor.policy.schema import NAMESPACE, Uid, ancestors, groups_of, principal_uid
from lictor.policy.shape import Path, Reads
from lictor.policy.source import Est, Statement, children
from lictor.ports import Known


def entities_of(scope: Mapping[str, Any]) -> list[Uid]:
    """The entities a scope constraint names."""
    named = scope.get("entities") or ([scope["entity"]] if "entity" in scope else [])
    return [Uid.read(entity) for entity in named]


def sliced(statements: Iterable[Statement], known: Known) -> tuple[Statement, ...]:
    """The policies that can matter for a tool."""
    me = Uid("Action", str(known.review.key))
    actions = {me} | {Uid("Action", group) for group in groups_of(known.review)}
    resource = Uid("Tool", str(known.review.key))
    return tuple(
        statement
        for statement in statements
        if matches(statement.est["action"], me, actions, "Action")
        and matches(statement.est["resource"], resource, ancestors(known), "Tool")
    )


def matches(scope: Mapping[str, Any], me: Uid, mine: Iterable[Uid], kind: str) -> bool:
    """Whether a scope constraint can match an entity.

    Args:
        scope: The constraint.
        me: The entity.
        mine: The entity and all its ancestors.
        kind: Its type.
    """
    match scope["op"]:
        case "All":
            return True
        case "==":
            return entities_of(scope) == [me]
        case "in":
            return not set(mine).isdisjoint(entities_of(scope))
        case "is":
            inner = scope.get("in")
            return scope["entity_type"] == f"{NAMESPACE}::{kind}" and (
                inner is None or not set(mine).isdisjoint(entities_of(inner))
            )
    return True


def matches_principal(scope: Mapping[str, Any], principal: Principal) -> bool:
    """Whether a principal constraint can match; a hint, Cedar decides."""
    me = principal_uid(principal)
    tenant = principal.tenant
    mine = {me, Uid("Tenant", tenant)} | {Uid("Role", f"{tenant}/{r}") for r in principal.roles}
    return matches(scope, me, mine, principal.kind.value)


def reads(est: Est) -> Reads:
    """What a policy reads of the context."""
    whole: set[Path] = set()
    present: set[Path] = set()
    for condition in est["conditions"]:
        _collect(condition["body"], whole, present)
    return Reads(frozenset(whole), frozenset(present))


def _collect(node: Any, whole: set[Path], present: set[Path]) -> None:
    path = context_path(node)
    if path is not None:
        whole.add(path)
    elif isinstance(node, list):
        for child in node:
            _collect(child, whole, present)
    elif isinstance(node, dict):
        for word, body in node.items():
            if word == "has" and (left := context_path(body["left"])) is not None:
                present.add((*left, body["attr"]))
            else:
                for child in children(word, body):
                    _collect(child, whole, present)


def context_path(node: Any) -> Path | None:
    """`context.a.b` as a path; `None` for any other expression."""
    attributes: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        if node.get("Var") == "context":
            return tuple(reversed(attributes))
        step = node.get(".")
        if not isinstance(step, dict) or set(step) != {"left", "attr"}:
            return None
        attributes.append(step["attr"])
        node = step["left"]
    return None
