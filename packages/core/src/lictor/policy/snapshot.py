"""What a policy snapshot is made of, and the checks it passes before it may decide.

Rules enforced here:

1. A slice holds the policies of one tool, and an encoder for exactly what they read.
2. A chain that leaves the user out is refused.
3. The action groups of every tool are proved in the engine, with the entities it will use: a forbid
   on a group that the engine does not know would silently never fire.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import cedarpy

from lictor.canonical import digest
from lictor.errors import ConfigError
from lictor.model import Kind, Principal
from lictor.policy.encode import Encoder
from lictor.policy.lint import Finding
from lictor.policy.memo import Memo
from lictor.policy.refuse import Refused
from lictor.policy.schema import GROUPS, Uid, groups_of, principal_uid
from lictor.policy.shape import Reads, Record, context, of_tool, project
from lictor.policy.slices import reads, sliced
from lictor.policy.source import PolicySource, Statement
from lictor.ports import Answer, Known

PROBE: Final = Principal(Kind.USER, "probe", "lictor")
_ANSWERS: Final = 512


@dataclass(frozen=True, slots=True)
class Slice:
    """The policies that can matter for one tool, ready to be asked.

    Attributes:
        known: The tool.
        statements: Its policies.
        policies: The same, parsed by Cedar.
        encoder: Reads what they read.
        action: Uid of the action, as Cedar takes it.
        resource: Uid of the resource.
        number: Tells slices apart.
        answers: The answers given so far, each with its twin that says it was remembered.
    """

    known: Known
    statements: tuple[Statement, ...]
    policies: cedarpy.PolicySet
    encoder: Encoder
    action: dict[str, str]
    resource: dict[str, str]
    number: int
    answers: Memo[tuple[Answer, Answer]]


class Party:
    """The principals of a chain, ready to be asked about. Compared by identity."""

    __slots__ = ("_uids", "chain", "entities")

    def __init__(self, chain: tuple[Principal, ...], entities: cedarpy.Entities) -> None:
        self.chain, self.entities = chain, entities
        self._uids = [principal_uid(principal).json() for principal in chain]

    def requests(self, found: Slice, context: str) -> list[dict[str, Any]]:
        """One question for each principal, as Cedar takes it."""
        return [
            {
                "principal": uid,
                "action": found.action,
                "resource": found.resource,
                "context": context,
            }
            for uid in self._uids
        ]


def policy_set(ests: dict[str, Any]) -> cedarpy.PolicySet:
    """Parses policies in JSON form under ids of our own, which Cedar then reports."""
    document = {"staticPolicies": ests, "templates": {}, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(document), release_gil=True)


def refuse_errors(found: Sequence[Finding]) -> None:
    """Raises the errors of the lint as one, if there are any."""
    errors = [finding for finding in found if finding.level == "error"]
    if errors:
        first = errors[0]
        more = [f"\n  also {e.where}: policy {e.policy!r}: {e.problem}" for e in errors[1:]]
        problem = f"policy {first.policy!r}: {first.problem}{''.join(more)}"
        raise ConfigError(first.where, problem, first.mend)


def shapes_of(tools: Sequence[Known]) -> dict[str, Record]:
    """The arguments of every tool as policy sees them, by `server/name`."""
    shapes: dict[str, Record] = {}
    for known in tools:
        name = str(known.review.key)
        if name in shapes or known.tool.key != known.review.key:
            raise ConfigError(
                f"catalog {name}",
                "the tool stands there twice, or its definition is another tool's",
                "keep one entry per server/name",
            )
        shapes[name] = of_tool(known.tool, known.review)
    return shapes


def make_slice(
    number: int, known: Known, statements: tuple[Statement, ...], shape: Record
) -> Slice:
    """A slice, ready to be asked."""
    name = str(known.review.key)
    return Slice(
        known=known,
        statements=statements,
        policies=policy_set({statement.id: statement.est for statement in statements}),
        encoder=Encoder(shape),
        action=Uid("Action", name).json(),
        resource=Uid("Tool", name).json(),
        number=number,
        answers=Memo(_ANSWERS),
    )


def cut(
    statements: Sequence[Statement], known: Known, shapes: Mapping[str, Record]
) -> tuple[tuple[Statement, ...], Record]:
    """The policies of a tool, and the context cut down to what they read."""
    chosen = sliced(statements, known)
    read = Reads()
    for statement in chosen:
        read |= reads(statement.est)
    shape = project(context(shapes[str(known.review.key)]), read)
    if not isinstance(shape, Record):
        raise TypeError("a context is a record")
    return chosen, shape


def snapshot_digest(tools: Sequence[Known], sources: Sequence[PolicySource], schema: str) -> str:
    """A digest of everything that decides; the schema as JSON text."""
    catalog: list[Any] = [
        [known.tool.pin, sorted(known.review.impact), known.review.tenant] for known in tools
    ]
    texts: list[Any] = [[source.name, source.text] for source in sources]
    return digest([version("cedarpy"), texts, catalog, schema])


def prove_groups(slices: Iterable[Slice], entities: cedarpy.Entities) -> None:
    """Proves that the action of every tool lies in its groups, and in no other.

    Args:
        slices: The tools.
        entities: Built as for a call, with `PROBE` as principal.

    Raises:
        ConfigError: A probe fired where it must not, or did not where it must.
    """
    probes = {
        group: {
            "effect": "permit",
            "principal": {"op": "All"},
            "action": {"op": "in", "entity": Uid("Action", group).json()},
            "resource": {"op": "All"},
            "conditions": [],
        }
        for group in GROUPS
    }
    found = list(slices)
    uid = principal_uid(PROBE).json()
    requests = [{"principal": uid, "action": one.action, "resource": one.resource} for one in found]
    results = cedarpy.is_authorized_batch(requests, policy_set(probes), entities)
    for one, result in zip(found, results, strict=True):
        if frozenset(result.diagnostics.reasons) != groups_of(one.known.review):
            raise ConfigError(
                f"policy snapshot, {one.known.review.key}",
                "the action groups of the tool do not work in the engine",
                "install the cedarpy version that lictor names, and report this",
            )


def check_chain(chain: tuple[Principal, ...]) -> None:
    """Refuses a chain without a user; two principals of one id do not make entities anyway."""
    if all(principal.kind is not Kind.USER for principal in chain):
        raise Refused("policy_error", "the chain holds no user; an autonomous task has its owner")
