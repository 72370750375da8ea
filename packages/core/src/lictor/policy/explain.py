"""Why a call was decided as it was, and what would have to differ for it to pass.

For operators and developers, off the hot path: a model must never be shown conditions or
thresholds, or it learns to stay just below them.

Rules enforced here:

1. An explanation asks the engine itself: each condition of each permit is put to it as a probe.
2. What a probe cannot tell, because an earlier condition guards it, is said to be so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from lictor.model import Principal
from lictor.policy.cedar import CedarPolicy
from lictor.policy.refuse import Refused
from lictor.policy.slices import entities_of
from lictor.policy.snapshot import Slice, policy_set
from lictor.policy.source import Est, Statement
from lictor.ports import Answer, Query

_ALL: Final = {"op": "All"}
_WRAPPED: Final = re.compile(r"(?<!\w)\(((?:context|principal|resource|action)(?:\.\w+)*)\)")
_WHEN: Final = re.compile(r"when\s*\{(.*)\}\s*;?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cause:
    """A policy that fired.

    Attributes:
        policy: Its id.
        where: `file:line`.
        reason: Its `@reason`.
        require: The ask that lifts it, or empty.
        conditions: What held and made it fire.
        missing: What did not hold; with all of it the policy would not have fired.
    """

    policy: str
    where: str
    reason: str
    require: str
    conditions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Near:
    """A permit that did not match a principal.

    Attributes:
        principal: Whom it did not match.
        policy: Its id.
        where: `file:line`.
        failed: The conditions that do not hold; with all of them it would have matched.
        unknown: Conditions that only make sense once an earlier one holds.
    """

    principal: str
    policy: str
    where: str
    failed: tuple[str, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why.

    Attributes:
        tool: `server/name`.
        answer: What the engine says.
        causes: The policies that decided.
        near: Permits that did not match, those with the fewest failures first.
        answers: For each ask, who may answer it.
    """

    tool: str
    answer: Answer
    causes: tuple[Cause, ...] = ()
    near: tuple[Near, ...] = ()
    answers: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The explanation as text."""
        found = [f"{self.tool}: {self.answer.reason}"]
        if self.answer.detail:
            found.append(f"  {self.answer.detail}")
        for cause in self.causes:
            lifted = f" (lifted by {cause.require})" if cause.require else ""
            found.append(f"  {cause.policy} at {cause.where}{lifted}: {cause.reason}")
            found += [f"    because {condition}" for condition in cause.conditions]
            found += [f"    and not {condition}" for condition in cause.missing]
        for near in self.near:
            found.append(f"  {near.policy} at {near.where} would permit {near.principal} if")
            found += [f"    {condition}" for condition in near.failed]
            found += [f"    {condition} (not known yet)" for condition in near.unknown]
        return found + [f"  {answer}" for answer in self.answers]


def explain(policy: CedarPolicy, query: Query) -> Explanation:
    """Explains one decision by taking it again.

    Args:
        policy: The snapshot.
        query: The call, with the facts it was or would be decided on.
    """
    answer = policy.evaluate(query)
    found = policy.slices.get(query.review.key)
    tool = str(query.review.key)
    if found is None or answer.reason in ("input_invalid", "not_canonical"):
        return Explanation(tool, answer)
    engine = _Engine(policy, found, query)
    fired = [policy.by_id[name] for name in answer.policies]
    near = _near(engine) if answer.reason in ("no_permit", "policy_denied") else ()
    return Explanation(
        tool=tool,
        answer=answer,
        causes=tuple(_cause(statement, engine) for statement in fired),
        near=near,
        answers=tuple(_who_answers(ask, query) for ask in answer.asks),
    )


class _Engine:
    """Puts probes to the engine on the facts of one query."""

    def __init__(self, policy: CedarPolicy, found: Slice, query: Query) -> None:
        self.policy, self.found = policy, found
        self.query = query

    def ask(self, probes: Mapping[str, Est]) -> list[tuple[Principal, set[str], str]]:
        """For each principal: the probes that hold, and the text of all errors."""
        try:
            context = self.found.encoder.write(self.found.encoder.read(self.query))
            party = self.policy.party(self.query)
        except (Refused, ValueError):
            return []
        requests = party.requests(self.found, context)
        results = cedarpy.is_authorized_batch(
            requests, policy_set(dict(probes)), party.entities, self.policy.schema
        )
        return [
            (principal, set(result.diagnostics.reasons), "\n".join(result.diagnostics.errors))
            for principal, result in zip(party.chain, results, strict=True)
        ]


def _cause(statement: Statement, engine: _Engine) -> Cause:
    held: list[str] = []
    probes: dict[str, Est] = {}
    for part in () if statement.permits else conditions(statement.est):
        if "!" not in part:
            held.append(written(part))
            continue
        for inner in _split(part["!"]["arg"], True):
            probes[str(len(probes))] = _condition(inner)
    asked = engine.ask(probes) if probes else []
    missing = [
        name
        for name in probes
        if any(name not in holds and f"`{name}`" not in erred for _, holds, erred in asked)
    ]
    return Cause(
        policy=statement.id,
        where=statement.where,
        reason=statement.reason,
        require=statement.require,
        conditions=tuple(held),
        missing=tuple(written(probes[name]["conditions"][0]["body"]) for name in missing),
    )


def _who_answers(ask: str, query: Query) -> str:
    kind, _, role = ask.partition(":")
    if kind == "confirm":
        who = str(query.grant.user) if query.grant.user else "the person the task runs for"
        return f"{ask}: {who} agrees to this exact call"
    people = "one person" if kind == "approval" else "two people"
    return f"{ask}: {people} with the role {role}, neither who asks nor the agent's owner"


# -- permits that did not match -------------------------------------------------------------------


def _near(engine: _Engine) -> tuple[Near, ...]:
    permits = [statement for statement in engine.found.statements if statement.permits]
    probes: dict[str, Est] = {}
    texts: dict[str, str] = {}
    for number, statement in enumerate(permits):
        for name, probe, text in _probes(statement.est, number):
            probes[name], texts[name] = probe, text
    misses: list[Near] = []
    for principal, held, erred in engine.ask(probes):
        mine = [_miss(principal, s, n, texts, held, erred) for n, s in enumerate(permits)]
        if all(mine):
            misses += [miss for miss in mine if miss]
    return tuple(sorted(misses, key=lambda miss: len(miss.failed) + len(miss.unknown)))


def _miss(
    principal: Principal,
    statement: Statement,
    number: int,
    texts: Mapping[str, str],
    held: set[str],
    erred: str,
) -> Near | None:
    """What keeps a permit from matching; `None` if it matches."""
    mine = [name for name in texts if name.startswith(f"{number}/") and name not in held]
    unknown = tuple(texts[name] for name in mine if f"`{name}`" in erred)
    failed = tuple(texts[name] for name in mine if f"`{name}`" not in erred)
    if not mine:
        return None
    return Near(str(principal), statement.id, statement.where, failed, unknown)


def _probes(est: Est, number: int) -> Iterator[tuple[str, Est, str]]:
    """A permit taken apart: its principal, and each condition, as a policy of its own."""
    if est["principal"]["op"] != "All":
        yield f"{number}/who", _policy(est["principal"], []), _scope(est["principal"])
    for n, part in enumerate(conditions(est)):
        yield f"{number}/{n}", _condition(part), written(part)


def _condition(node: Mapping[str, Any]) -> Est:
    return _policy(_ALL, [{"kind": "when", "body": node}])


def _policy(principal: Mapping[str, Any], body: list[Any]) -> Est:
    return {
        "effect": "permit",
        "principal": principal,
        "action": _ALL,
        "resource": _ALL,
        "conditions": body,
    }


def _scope(scope: Mapping[str, Any]) -> str:
    named = entities_of(scope) or entities_of(scope.get("in") or {})
    shown = " or ".join(f'{uid.type}::"{uid.id}"' for uid in named)
    if scope["op"] == "is":
        inner = f" in {shown}" if shown else ""
        return f"principal is {scope['entity_type'].rpartition('::')[2]}{inner}"
    return f"principal {scope['op']} {shown}"


def conditions(est: Est) -> Iterator[Mapping[str, Any]]:
    """The conditions of a policy, each `&&` taken apart, each `unless` turned round."""
    for condition in est["conditions"]:
        yield from _split(condition["body"], condition["kind"] == "when")


def _split(node: Mapping[str, Any], positive: bool) -> Iterator[Mapping[str, Any]]:
    both = node.get("&&" if positive else "||")
    if both is not None:
        yield from _split(both["left"], positive)
        yield from _split(both["right"], positive)
    else:
        yield node if positive else {"!": {"arg": node}}


def written(node: Mapping[str, Any]) -> str:
    """An expression as Cedar text on one line."""
    policies = {"probe": _condition(node)}
    document = {"staticPolicies": policies, "templates": {}, "templateLinks": []}
    match = _WHEN.search(cedarpy.policies_from_json_str(json.dumps(document)))
    text, changed = " ".join((match[1] if match else json.dumps(node)).split()), 1
    while changed:
        text, changed = _WRAPPED.subn(r"\1", text)
    return text
