"""What a policy decision costs, beside plain cedarpy and beside the same rules written by hand.

Run: `python benchmarks/bench_policy.py`. Rounds of all cases are interleaved and each case keeps
its fastest round, so that other work on the machine disturbs the ratios little.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import cedarpy

from lictor.model import Impact, Kind, Principal, Review, Tool, ToolKey
from lictor.policy import CedarPolicy, Declared, PolicySource, guardrail
from lictor.policy.memo import Memo
from lictor.policy.schema import (
    full_contexts,
    principal_entities,
    schema_json,
    tool_entities,
)
from lictor.policy.shape import of_tool
from lictor.ports import GrantFacts, Known, Query, SessionFacts

sys.path.insert(0, str(Path(__file__).parent))
from common import write

ROUNDS, LOOPS = 40, 100
ALICE = Principal(Kind.USER, "alice", "acme", frozenset({"finance"}))
BOT = Principal(Kind.AGENT, "banker", "acme", frozenset({"finance"}), owner="alice")
READS, LEAKY = frozenset({Impact.READ}), frozenset({"untrusted", "sensitive"})
FINAL = frozenset({Impact.TRANSFER, Impact.DELETE})
PAY = ToolKey("pay", "transfer")
DECLARED = Declared(roles=frozenset({"finance", "support"}), tenant="acme")


def tools(count: int) -> list[Known]:
    schema = {
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "to": {"type": "string"},
            "note": {"type": "string"},
        },
        "required": ["amount", "to"],
    }
    names = ["pay/transfer", *(f"srv{n % 5}/tool{n}" for n in range(1, count))]
    impacts = [Impact.TRANSFER, Impact.READ, Impact.SEND, Impact.WRITE]
    found = []
    for n, name in enumerate(names):
        tool = Tool(ToolKey.parse(name), input_schema=schema)
        found.append(Known(Review(tool.key, frozenset({impacts[n % 4]}), tool.pin), tool))
    return found


STARTER = guardrail("starter@1")
FIXED = """
@id("pay") @reason("Finance may pay, up to a point.")
permit (
  principal in Lictor::Role::"acme/finance", action == Lictor::Action::"pay/transfer", resource
)
when {
  context.input.amount.greaterThan(decimal("0.0")) &&
  context.input.amount.lessThan(decimal("2000.0")) &&
  context.session.spent.lessThan(decimal("5000.0"))
};
@id("large") @reason("Large transfers need a person.") @require("confirm:user")
forbid (principal, action in Lictor::Action::"transfer", resource)
when { context.input has amount && context.input.amount.greaterThan(decimal("500.0")) }
unless { context.met.contains("confirm:user") };
"""


def source(count: int, catalog: list[Known]) -> str:
    others = [known.review.key for known in catalog[1:]]
    extra = [
        f'@id("x{n}") permit (principal in Lictor::Role::"acme/support", '
        f'action == Lictor::Action::"{others[n % len(others)]}", resource) '
        f'when {{ context.input.to == "p{n}" && context.session.calls < {n + 5} }};'
        for n in range(count - 9)
    ]
    return FIXED + "\n".join(extra)


def query(known: Known, *chain: Principal) -> Query:
    return Query(
        chain=chain,
        review=known.review,
        input={"amount": 120.5, "to": "bob", "note": "rent"},
        grant=GrantFacts("rent", "acme", ALICE, named=True, limited=True, expires=2_000),
        session=SessionFacts(frozenset({"untrusted"}), calls=3, spent=Decimal(4)),
        now=1_000,
    )


def by_hand(q: Query) -> bool:
    """All nine rules in Python, for each principal of the chain."""
    impact, met, grant = q.review.impact, q.met, q.grant
    amount: float = q.input.get("amount", 0)  # type: ignore[assignment]
    for principal in q.chain:
        if principal.tenant != grant.tenant or q.review.tenant not in ("", grant.tenant):
            return False
        if impact != READS:
            if not grant.named or (not grant.limited and "confirm:user" not in met):
                return False
            if q.autonomous and not impact.isdisjoint(FINAL):
                return False
            if Impact.TRANSFER in impact and amount > 500 and "confirm:user" not in met:
                return False
            leaks = Impact.SEND in impact and not q.session.labels.isdisjoint(LEAKY)
            if leaks and "confirm:user" not in met:
                return False
        finance = q.review.key == PAY and "finance" in principal.roles
        pays = finance and 0 < amount < 2000 and q.session.spent < 5000
        if not (impact == READS or grant.named or pays):
            return False
    return True


def documented(text: str, catalog: list[Known]) -> Callable[[], object]:
    """cedarpy as its documentation shows it, with handles: all policies, the whole context."""
    shapes = {str(k.review.key): of_tool(k.tool, k.review) for k in catalog}
    schema = cedarpy.Schema.from_json_str(
        json.dumps(schema_json(catalog, full_contexts(catalog, shapes)))
    )
    policies = cedarpy.PolicySet.from_str(text)
    entities = cedarpy.Entities.from_json_str(
        json.dumps(tool_entities(catalog) + principal_entities([ALICE, BOT])), schema
    )
    asked = {
        "principal": 'Lictor::User::"acme/alice"',
        "action": 'Lictor::Action::"pay/transfer"',
        "resource": 'Lictor::Tool::"pay/transfer"',
        "context": {
            "input": {"amount": "120.5", "to": "bob", "note": "rent"},
            "grant": {
                "user": {"__entity": {"type": "Lictor::User", "id": "acme/alice"}},
                "task": "rent",
                "tenant": "acme",
                "named": True,
                "limited": True,
                "depth": 1,
                "expires": 2_000,
            },
            "session": {
                "labels": ["untrusted"],
                "sources": [],
                "calls": 3,
                "effects": 0,
                "spent": "4.0",
            },
            "met": [],
            "now": 1_000,
            "assurance": "asserted",
            "autonomous": False,
            "claims": [],
        },
    }
    assert cedarpy.is_authorized(asked, policies, entities, schema).allowed
    return lambda: cedarpy.is_authorized(asked, policies, entities, schema)


def raw(policy: CedarPolicy, q: Query) -> Callable[[], object]:
    """The bare cedarpy call on the slice, with everything prepared."""
    found = policy.slices[q.review.key]
    party = policy.party(q)
    entities = party.entities
    (asked,) = party.requests(found, found.encoder.write(found.encoder.read(q)))
    assert cedarpy.is_authorized(asked, found.policies, entities, policy.schema).allowed
    return lambda: cedarpy.is_authorized(asked, found.policies, entities, policy.schema)


def fresh(policy: CedarPolicy, q: Query) -> Callable[[], object]:
    """A decision that the memo never answers."""
    forgetful = CedarPolicy.load(tools=policy.tools, sources=policy.sources, declared=DECLARED)
    forgetful._answers = Memo(0)
    assert forgetful.evaluate(q).allow
    assert not forgetful.evaluate(q).hit
    return lambda: forgetful.evaluate(q)


def cases() -> dict[str, Callable[[], object]]:
    catalog = tools(20)
    one, two = query(catalog[0], ALICE), query(catalog[0], ALICE, BOT)
    found: dict[str, Callable[[], object]] = {}
    for count in (10, 100, 1000):
        text = source(count, catalog)
        policy = CedarPolicy.load(
            tools=catalog, sources=[STARTER, PolicySource("bench", text)], declared=DECLARED
        )
        found[f"raw_slice_{count}"] = raw(policy, one)
        found[f"documented_{count}"] = documented(STARTER.text + text, catalog)
        found[f"one_{count}"] = fresh(policy, one)
        found[f"two_{count}"] = fresh(policy, two)
        if count == 10:
            assert not policy.evaluate(two).hit
            assert policy.evaluate(two).hit
            found["memo_hit"] = lambda policy=policy: policy.evaluate(two)  # type: ignore[misc]
    found["by_hand"] = lambda: by_hand(two)
    return found


def fastest(found: dict[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(found, float("inf"))
    for _ in range(ROUNDS):
        for name, run in found.items():
            loops = LOOPS * 20 if name in ("by_hand", "memo_hit") else LOOPS
            start = time.perf_counter()
            for _ in range(loops):
                run()
            best[name] = min(best[name], (time.perf_counter() - start) / loops * 1e6)
    return best


def load_ms() -> float:
    catalog = tools(20)
    sources = [STARTER, PolicySource("bench", source(100, catalog))]
    best = float("inf")
    for _ in range(15):
        start = time.perf_counter()
        CedarPolicy.load(tools=catalog, sources=sources, declared=DECLARED)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def growth(reloads: int = 1_000) -> tuple[float, float]:
    """RSS after a tenth of the reloads, and after all."""
    catalog = tools(20)
    sources = [STARTER, PolicySource("bench", source(20, catalog))]
    early = 0.0
    for n in range(reloads):
        policy = CedarPolicy.load(tools=catalog, sources=sources, declared=DECLARED)
        policy.evaluate(query(catalog[0], ALICE, BOT))
        if n == reloads // 10:
            gc.collect()
            early = rss_mib()
    gc.collect()
    return early, rss_mib()


def main() -> bool:
    figures = {f"{name}_us": value for name, value in fastest(cases()).items()}
    figures["load_100_policies_20_tools_ms"] = load_ms()
    early, late = growth()
    figures |= {"rss_after_100_reloads_mib": early, "rss_after_1000_reloads_mib": late}
    ratios = {
        "one principal / raw cedarpy on the slice": figures["one_10_us"]
        / figures["raw_slice_10_us"],
        "one principal / cedarpy as documented, 10 policies": figures["one_10_us"]
        / figures["documented_10_us"],
        "1000 policies / 10 policies": figures["one_1000_us"] / figures["one_10_us"],
        "agent and user / one principal": figures["two_10_us"] / figures["one_10_us"],
        "memo hit / rules by hand": figures["memo_hit_us"] / figures["by_hand_us"],
        "load of 100 policies and 20 tools, ms": figures["load_100_policies_20_tools_ms"],
        "RSS after 1000 reloads / after 100": late / early,
    }
    goals = dict(
        zip(
            ratios,
            ("<= 1.15", "<= 0.7", "<= 1.15", "<= 2.1", "<= 5", "<= 60", "<= 1.1"),
            strict=True,
        )
    )
    for name, value in figures.items():
        print(f"  {name} = {value:.2f}")
    return write("policy", figures, ratios, goals)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
