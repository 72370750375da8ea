"""The Cedar schema and the entities, generated from the catalog and the chain of a call.

Rules enforced here:

1. Schema, entities and policies belong to one snapshot: entities are only ever built with the very
   schema object that the policies are evaluated with, or group membership is silently lost.
2. Entity ids are qualified by their tenant and cannot be split in two ways.
3. Every group has a hidden stub action, so that guardrails validate in a project without tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lictor.errors import ConfigError
from lictor.model import Impact, Kind, Principal, Review
from lictor.policy.shape import NOTHING, Record, Shape, context, to_cedar
from lictor.ports import Known

NAMESPACE: Final = "Lictor"
GROUPS: Final[Mapping[str, str]] = {
    "call": "",
    "read": "call",
    "effect": "call",
    "write": "effect",
    "delete": "effect",
    "send": "effect",
    "transfer": "effect",
    "execute": "effect",
}
"""Action group → the group it lies in."""
_PRINCIPALS: Final = [kind.value for kind in Kind]


@dataclass(frozen=True, slots=True)
class Uid:
    """Names an entity; `type` without the namespace."""

    type: str
    id: str

    def json(self) -> dict[str, str]:
        """As Cedar reads it."""
        return {"type": f"{NAMESPACE}::{self.type}", "id": self.id}

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Uid:
        """From Cedar's JSON form; types outside our namespace keep their full name."""
        return cls(value["type"].removeprefix(f"{NAMESPACE}::"), value["id"])


def principal_uid(principal: Principal) -> Uid:
    """The entity of a principal.

    Raises:
        ValueError: Tenant or id is empty, or the tenant holds a slash (two tenants could then
            share an entity).
    """
    if not principal.tenant or not principal.id or "/" in principal.tenant:
        raise ValueError(f"{principal} has no id, no tenant, or a slash in its tenant")
    return Uid(principal.kind.value, f"{principal.tenant}/{principal.id}")


def groups_of(review: Review) -> frozenset[str]:
    """All groups the action of a tool lies in.

    Raises:
        ConfigError: The catalog gives the tool no impact.
    """
    if not review.impact:
        raise ConfigError(
            f"catalog.toml {review.key}",
            "the tool has no impact",
            f"write one or more of {', '.join(Impact)}",
        )
    found: set[str] = set()
    for impact in review.impact:
        group = impact.value
        while group:
            found.add(group)
            group = GROUPS[group]
    return frozenset(found)


def ancestors(known: Known) -> frozenset[Uid]:
    """What the resource of a tool lies in, itself included."""
    review = known.review
    uids = {Uid("Tool", str(review.key)), Uid("Server", review.key.server)}
    return frozenset(uids | ({Uid("Tenant", review.tenant)} if review.tenant else set()))


def schema_json(tools: Sequence[Known], contexts: Mapping[str, Shape]) -> dict[str, Any]:
    """The schema of a snapshot.

    Args:
        tools: The catalog.
        contexts: What policies see of a call, by `server/name`.
    """
    actions: dict[str, Any] = {
        group: {"memberOf": [{"id": parent}] if parent else []} for group, parent in GROUPS.items()
    }
    for group in GROUPS:
        actions[f"{group}/_"] = _action([group], context(NOTHING))
    for known in tools:
        name = str(known.review.key)
        actions[name] = _action(sorted(known.review.impact), contexts[name])
    return {NAMESPACE: {"entityTypes": _ENTITY_TYPES, "actions": actions}}


def _action(parents: Iterable[str], seen: Shape) -> dict[str, Any]:
    return {
        "memberOf": [{"id": str(parent)} for parent in parents],
        "appliesTo": {
            "principalTypes": _PRINCIPALS,
            "resourceTypes": ["Tool"],
            "context": to_cedar(seen),
        },
    }


def _entity(parents: list[str], **attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "memberOfTypes": parents,
        "shape": {"type": "Record", "attributes": attributes},
    }


_TENANT: Final = {"type": "String"}
_ENTITY_TYPES: Final[dict[str, Any]] = {
    "Tenant": {},
    "Role": {},
    "User": _entity(["Role", "Tenant"], tenant=_TENANT),
    "Agent": _entity(
        ["Role", "Tenant"],
        tenant=_TENANT,
        owner={"type": "Entity", "name": "User", "required": False},
    ),
    "Workload": _entity(["Role", "Tenant"], tenant=_TENANT),
    "Server": {},
    "Tool": _entity(
        ["Server", "Tenant"],
        server={"type": "Entity", "name": "Server"},
        tenant={**_TENANT, "required": False},
    ),
}


def full_contexts(tools: Sequence[Known], shapes: Mapping[str, Record]) -> dict[str, Shape]:
    """The whole context of each tool, as policies are validated against."""
    return {str(known.review.key): context(shapes[str(known.review.key)]) for known in tools}


def tool_entities(tools: Sequence[Known]) -> list[dict[str, Any]]:
    """The resources of a snapshot: its tools and their servers."""
    servers = sorted({known.review.key.server for known in tools})
    entities = [_instance(Uid("Server", server)) for server in servers]
    for known in tools:
        review = known.review
        attributes: dict[str, Any] = {
            "server": {"__entity": Uid("Server", review.key.server).json()}
        }
        if review.tenant:
            attributes["tenant"] = review.tenant
        me = Uid("Tool", str(review.key))
        entities.append(_instance(me, attributes, ancestors(known) - {me}))
    return entities


def principal_entities(principals: Iterable[Principal]) -> list[dict[str, Any]]:
    """The entities of principals, with roles and tenant as parents."""
    entities = []
    for principal in principals:
        tenant = principal.tenant
        attributes: dict[str, Any] = {"tenant": tenant}
        if principal.owner and principal.kind is Kind.AGENT:
            owner = Uid("User", f"{tenant}/{principal.owner}")
            attributes["owner"] = {"__entity": owner.json()}
        parents = {Uid("Role", f"{tenant}/{role}") for role in principal.roles}
        parents.add(Uid("Tenant", tenant))
        entities.append(_instance(principal_uid(principal), attributes, parents))
    return entities


def _instance(
    uid: Uid, attributes: Mapping[str, Any] | None = None, parents: Iterable[Uid] = ()
) -> dict[str, Any]:
    return {
        "uid": uid.json(),
        "attrs": attributes or {},
        "parents": [p.json() for p in sorted(parents, key=lambda p: (p.type, p.id))],
    }
