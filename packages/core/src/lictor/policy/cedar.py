"""The policy engine: Cedar in process, on slices, with an exact memo.

Rules enforced here:

1. ALLOW needs every principal of the chain allowed and no error anywhere: Cedar skips a forbid that
   errs, so any error denies.
2. A decision is a function of (snapshot, tool, chain, what the policies read). The memo key holds
   all of it by value; answers that rest on an error are never kept.
3. A snapshot is built whole or not at all, and proves at load that its groups work.
4. A person is asked only if every forbid that fires can be lifted and lifting them all would allow.
5. A query about a tool, or a review of it, that the snapshot does not know is denied.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import cedarpy

from lictor.errors import PERMIT
from lictor.model import Principal, Review, ToolKey
from lictor.policy.lint import findings
from lictor.policy.memo import Memo
from lictor.policy.refuse import Refused, refuse_escapes, unquoted
from lictor.policy.schema import full_contexts, principal_entities, schema_json, tool_entities
from lictor.policy.slices import matches_principal
from lictor.policy.snapshot import (
    PROBE,
    Party,
    Slice,
    check_chain,
    cut,
    make_slice,
    prove_groups,
    refuse_errors,
    shapes_of,
    snapshot_digest,
)
from lictor.policy.source import Declared, PolicySource, parse
from lictor.policy.validate import validate
from lictor.ports import Answer, Known, Query

MEMO: Final = 4_096
_MEMO_TEXT: Final = 4_096
"""Longer contexts are not kept: the memo stays below 20 MiB whatever the arguments are."""
_CHAINS: Final = 512
_ALLOW: Final = cedarpy.Decision.Allow
_UNDECIDED: Final = cedarpy.Decision.NoDecision


class _Round(NamedTuple):
    """What Cedar said of the chain in one pass."""

    allowed: bool
    permits: frozenset[str]
    forbids: frozenset[str]
    silent: tuple[Principal, ...]


class CedarPolicy:
    """A snapshot of policies, schema and catalog. Immutable; build another one to change it.

    Attributes:
        digest: Of everything that decides: policies, catalog, schema, engine version.
        sources: What it was built from.
        statements: All policies.
        slices: By tool.
        findings: Warnings of the lint.
    """

    blocking = False
    engine = "cedar"

    def __init__(
        self,
        tools: Sequence[Known],
        sources: Sequence[PolicySource],
        declared: Declared,
    ) -> None:
        """Use `load`."""
        self.tools, self.sources, self.declared = tuple(tools), tuple(sources), declared
        self.statements = parse(sources)
        self.by_id = {statement.id: statement for statement in self.statements}
        shapes = shapes_of(self.tools)
        validate(self.statements, self.tools, full_contexts(self.tools, shapes))
        self.findings = findings(self.statements, declared, self.tools)
        refuse_errors(self.findings)
        cuts = {known.review.key: cut(self.statements, known, shapes) for known in self.tools}
        seen = {str(key): shape for key, (_, shape) in cuts.items()}
        runtime = json.dumps(schema_json(self.tools, seen), sort_keys=True)
        self.schema = cedarpy.Schema.from_json_str(runtime, release_gil=True)
        self.slices: dict[ToolKey, Slice] = {
            known.review.key: make_slice(number, known, *cuts[known.review.key])
            for number, known in enumerate(self.tools)
        }
        self._resources = tool_entities(self.tools)
        self.digest = snapshot_digest(self.tools, sources, runtime)
        self._parties: Memo[Party] = Memo(_CHAINS)
        self._answers: Memo[Answer] = Memo(MEMO)
        self._hints: Memo[bool] = Memo(MEMO)
        prove_groups(self.slices.values(), self._build([PROBE]))

    @classmethod
    def load(
        cls, *, tools: Sequence[Known], sources: Sequence[PolicySource], declared: Declared
    ) -> CedarPolicy:
        """Builds a snapshot.

        Args:
            tools: The catalog: every reviewed tool with its pinned definition.
            sources: Policy texts; guardrails and compiled rules among them.
            declared: The names that policies may mention.

        Raises:
            ConfigError: A policy does not parse, validate or pass the lint's errors; it names
                file, line and mend.
        """
        return cls(tools, sources, declared)

    def with_tools(self, tools: Sequence[Known]) -> CedarPolicy:
        """The same policies over another catalog (`Gate.dev()` pins tools while it runs).

        Raises:
            ConfigError: As `load`.
        """
        return type(self).load(tools=tools, sources=self.sources, declared=self.declared)

    def evaluate(self, query: Query) -> Answer:
        """Decides one query; whatever goes wrong is a denial."""
        try:
            return self._evaluate(query)
        except Refused as refused:
            return self._denied(query, refused.code, refused.told(query.review.recordable))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the engine is no Exception
            return self._denied(query, "policy_error", f"{type(error).__name__}: {error}")

    def reads(self, key: ToolKey) -> frozenset[str]:
        """Which session facts the decisions on a tool rest on; none for an unknown tool."""
        found = self.slices.get(key)
        return found.encoder.session if found else frozenset()

    def could_allow(self, chain: Sequence[Principal], review: Review) -> bool:
        """Whether any permit could match; a hint for what to offer, the call decides."""
        key = (tuple(chain), review.key)
        hint = self._hints.get(key)
        if hint is None:
            hint = self._may(chain, review.key)
            self._hints.put(key, hint)
        return hint

    def _may(self, chain: Sequence[Principal], key: ToolKey) -> bool:
        found = self.slices.get(key)
        if found is None or not chain:
            return False
        scopes = [s.est["principal"] for s in found.statements if s.permits]
        try:
            return all(
                any(matches_principal(scope, principal) for scope in scopes) for principal in chain
            )
        except ValueError:
            return False

    # -- deciding ---------------------------------------------------------------------------------

    def _evaluate(self, query: Query) -> Answer:
        found = self.slices.get(query.review.key)
        if found is None or not _same(found.known.review, query.review):
            raise Refused("policy_error", f"{query.review.key} is not in this policy snapshot")
        refuse_escapes(query.input)
        party = self.party(query)
        leaves = found.encoder.read(query)
        key = (found.number, party, leaves)
        answer = self._answers.get(key)
        if answer is not None:
            return answer
        context = found.encoder.write(leaves)
        answer, remembered = self._decide(found, query, party, leaves, context)
        if len(context) <= _MEMO_TEXT:
            self._answers.put(key, remembered)
        return answer

    def _decide(
        self,
        found: Slice,
        query: Query,
        party: Party,
        leaves: tuple[Hashable, ...],
        context: str,
    ) -> tuple[Answer, Answer]:
        first = self._round(found, party, context)
        if first.allowed:
            return self._answers_of(found, PERMIT, first.permits)
        asks = frozenset(self.by_id[name].require for name in first.forbids)
        if first.silent or "" in asks:
            return self._refusal(found, first)
        second = self._round(found, party, found.encoder.write(leaves, met=query.met | asks))
        if not second.allowed:
            return self._refusal(found, second)
        return self._answers_of(found, "ask_required", first.forbids, asks)

    def _round(self, found: Slice, party: Party, context: str) -> _Round:
        requests = party.requests(found, context)
        results = cedarpy.is_authorized_batch(requests, found.policies, party.entities, self.schema)
        permits: set[str] = set()
        forbids: set[str] = set()
        silent: list[Principal] = []
        for principal, result in zip(party.chain, results, strict=True):
            decision, reasons = result.decision, result.diagnostics.reasons
            errors = result.diagnostics.errors
            if errors or decision is _UNDECIDED:
                why = "; ".join(map(unquoted, errors)) or "no decision"
                raise Refused("policy_error", f"{principal}: {why}")
            if decision is _ALLOW:
                permits.update(reasons)
            elif reasons:
                forbids.update(reasons)
            else:
                silent.append(principal)
        allowed = not forbids and not silent and bool(permits)
        return _Round(allowed, frozenset(permits), frozenset(forbids), tuple(silent))

    def _refusal(self, found: Slice, last: _Round) -> tuple[Answer, Answer]:
        absolute = any(not self.by_id[name].require for name in last.forbids)
        if last.silent and not absolute:
            who = ", ".join(map(str, last.silent))
            fresh, kept = self._answers_of(found, "no_permit", frozenset())
            detail = f"no policy permits {who}"
            return replace(fresh, detail=detail), replace(kept, detail=detail)
        return self._answers_of(found, "policy_denied", last.forbids)

    def _answers_of(
        self,
        found: Slice,
        reason: str,
        ids: frozenset[str],
        asks: frozenset[str] = frozenset(),
    ) -> tuple[Answer, Answer]:
        """The answer as decided now, and as the memo gives it later."""
        pair = found.answers.get((reason, ids))
        if pair is None:
            named = [statement for statement in found.statements if statement.id in ids]
            named.sort(key=lambda statement: bool(statement.require))
            answer = Answer(
                allow=reason == PERMIT,
                reason=reason,
                policies=tuple(statement.id for statement in named),
                texts=tuple(statement.reason for statement in named if statement.reason),
                asks=tuple(sorted(asks)),
                reads=found.encoder.session,
                digest=self.digest,
            )
            pair = answer, replace(answer, hit=True)
            found.answers.put((reason, ids), pair)
        return pair

    def _denied(self, query: Query, code: str, detail: str) -> Answer:
        return Answer(
            allow=False,
            reason=code,
            reads=self.reads(query.review.key),
            detail=detail,
            digest=self.digest,
        )

    def party(self, query: Query) -> Party:
        """The chain of a query with its entities; the same object for equal chains.

        Raises:
            Refused: The chain has no user, or the grant's user is not in it.
            ValueError: Two principals share an id, or one has no tenant.
        """
        chain, user = query.chain, query.grant.user
        if user is not None and user not in chain:
            raise Refused("policy_error", "the grant's user is not in the chain")
        party = self._parties.get(chain)
        if party is None:
            check_chain(chain)
            party = Party(chain, self._build(chain))
            self._parties.put(chain, party)
        return party

    def _build(self, chain: Iterable[Principal]) -> cedarpy.Entities:
        everything = self._resources + principal_entities(dict.fromkeys(chain))
        return cedarpy.Entities.from_json_str(json.dumps(everything), self.schema)


def _same(mine: Review, theirs: Review) -> bool:
    return mine is theirs or mine == theirs
