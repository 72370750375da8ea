"""Slices, projection, run-time schema and memo change no answer.

Random policy sets and random calls go through `CedarPolicy` and through plain cedarpy with every
policy, the whole context, the whole schema and every principal. `LICTOR_SEED` picks another walk.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import cedarpy
import pytest

from lictor.model import Assurance, Impact, Kind, Principal, Review, Tool, ToolKey
from lictor.policy import CedarPolicy, Declared, PolicySource, cedar
from lictor.policy.schema import (
    full_contexts,
    principal_entities,
    schema_json,
    tool_entities,
)
from lictor.policy.shape import of_tool
from lictor.ports import Answer, GrantFacts, Known, Query, SessionFacts

SEED = int(os.environ.get("LICTOR_SEED", "3"))
SETS = 105
CALLS = 100
BIG = 9223372036854775807


def known(name: str, impact: str, properties: dict[str, Any], required: str, **rest: Any) -> Known:
    schema = {"type": "object", "properties": properties, "required": required.split()}
    tool = Tool(ToolKey.parse(name), input_schema=schema)
    impacts = frozenset(Impact(word) for word in impact.split())
    return Known(Review(tool.key, impacts, tool.pin, **rest), tool)


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
STRINGS = {"type": "array", "items": STRING}
NESTED = {
    "type": "object",
    "properties": {"city": STRING, "zip": INTEGER},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    known(
        "pay/transfer",
        "transfer",
        {
            "amount": NUMBER,
            "to": STRING,
            "note": {"anyOf": [STRING, {"type": "null"}]},
            "n": INTEGER,
        },
        "amount to",
        tenant="acme",
    ),
    known("crm/find", "read", {"id": INTEGER, "fields": STRINGS, "home": NESTED}, "id"),
    known(
        "mail/send",
        "send write",
        {"to": STRINGS, "body": STRING, "urgent": {"type": "boolean"}},
        "to body",
        formats={"to": "email"},
    ),
    known("web/get", "send read", {"url": STRING}, "url", formats={"url": "uri"}),
    known(
        "files/write",
        "write",
        {"path": STRING, "mode": {"enum": ["w", "a"]}},
        "path mode",
        formats={"path": "path"},
        tenant="globex",
    ),
]

FACTS = [
    'context.session.labels.contains("untrusted")',
    'context.session.labels.containsAny(["sensitive", "pii"])',
    '["untrusted", "pii"].containsAll(context.session.labels)',
    'context.session.sources.contains("staff")',
    "context.session.calls > 3",
    "context.session.effects <= 1",
    'context.session.spent.greaterThan(decimal("10.5"))',
    "context.session == context.session",
    "context.grant.named",
    "context.grant.limited",
    "context.grant.depth == 1",
    'context.grant.task like "re*"',
    'context.grant.tenant == "acme"',
    "context.grant has user",
    "(context.grant has user && context.grant.user == principal)",
    '(context.grant has user && context.grant.user in Lictor::Role::"acme/finance")',
    "(context.grant has user && context.grant.user.tenant == principal.tenant)",
    "context.autonomous",
    'context.assurance == "verified"',
    'context.claims.contains("amr=mfa")',
    'context.met.contains("confirm:user")',
    "context.now > 1000",
    'principal in Lictor::Role::"acme/finance"',
    'principal in Lictor::Tenant::"globex"',
    "principal is Lictor::Agent",
    '(principal is Lictor::Agent && principal has owner && principal.tenant == "acme")',
    "(resource has tenant && resource.tenant == principal.tenant)",
    'action in Lictor::Action::"send"',
    'resource in Lictor::Server::"pay"',
    'resource.server == Lictor::Server::"crm"',
    f"context.now * {BIG} > 0",
    f"context.session.calls + {BIG} > 0",
    '(context.session.spent == decimal("0.5") || context.grant.depth > 2)',
]
INPUTS = {
    "pay/transfer": [
        'context.input.amount.lessThan(decimal("100.0"))',
        'context.input.amount.greaterThanOrEqual(decimal("0.01"))',
        'context.input.to == "bob"',
        '(context.input has note && context.input.note like "x*")',
        "context.input has note",
        f"(context.input has n && context.input.n * {BIG} > 5)",
        "(context.input has n && context.input.n + context.session.calls < 9)",
        "(context.input has n && context has input.n)",
    ],
    "crm/find": [
        "context.input.id < 5",
        '(context.input has fields && context.input.fields.contains("a"))',
        "(context.input has fields_count && context.input.fields_count > 1)",
        "context.input has home",
        '(context.input has home && context.input.home.city == "rome")',
        "(context.input has home && context.input.home has zip && context.input.home.zip > 5)",
        "(context.input has home && context.input.home == context.input.home)",
        "context.input == context.input",
    ],
    "mail/send": [
        'context.input.to.contains({"local": "a", "domain": "x.example"})',
        "context.input.to_count > 1",
        'context.input.body like "*pay*"',
        "(context.input has urgent && context.input.urgent)",
    ],
    "web/get": [
        'context.input.url.host == "a.example"',
        "(context.input.url has port && context.input.url.port == 8080)",
        'context.input.url.path like "/x*"',
        "context.input.url has query",
    ],
    "files/write": ['context.input.path like "/data/*"', 'context.input.mode == "w"'],
}
GROUPS = ["call", "read", "effect", "write", "send", "transfer", "execute"]
ASKS = ["confirm:user", "approval:boss", "four-eyes:boss"]
DECLARED = Declared(tenant="acme")


class Walk:
    """One seeded source of policies and calls."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def condition(self, atoms: list[str], depth: int = 2) -> str:
        pick = self.random.random()
        if depth == 0 or pick < 0.35:
            return self.random.choice(atoms)
        left, right = self.condition(atoms, depth - 1), self.condition(atoms, depth - 1)
        if pick < 0.6:
            return f"({left} && {right})"
        if pick < 0.8:
            return f"({left} || {right})"
        if pick < 0.9:
            return f"!({left})"
        return f"(if {self.random.choice(atoms)} then {left} else {right})"

    def policy(self, number: int) -> str:
        choose = self.random.choice
        atoms = list(FACTS)
        pick = self.random.random()
        if pick < 0.2:
            action = "action"
        elif pick < 0.45:
            action = f'action in Lictor::Action::"{choose(GROUPS)}"'
        elif pick < 0.6:
            action = 'action in [Lictor::Action::"send", Lictor::Action::"crm/find"]'
        else:
            tool = choose(list(INPUTS))
            action = f'action == Lictor::Action::"{tool}"'
            atoms = INPUTS[tool] * 3 + FACTS
        principal = choose(
            [
                "principal",
                "principal",
                "principal is Lictor::User",
                'principal in Lictor::Role::"acme/finance"',
                'principal is Lictor::Agent in Lictor::Tenant::"acme"',
                'principal == Lictor::User::"acme/alice"',
            ]
        )
        resource = choose(
            ["resource", "resource", "resource", 'resource in Lictor::Tenant::"acme"']
        )
        effect = "permit" if self.random.random() < 0.55 else "forbid"
        head, tail = f'@id("p{number}") @reason("r{number}")', ""
        if effect == "forbid" and self.random.random() < 0.6:
            ask = choose(ASKS)
            head += f' @require("{ask}")'
            tail = f' unless {{ context.met.contains("{ask}") }}'
        elif self.random.random() < 0.1:
            tail = f" unless {{ {self.condition(atoms, 1)} }}"
        body = f" when {{ {self.condition(atoms)} }}" if self.random.random() < 0.85 else ""
        return f"{head}\n{effect} ({principal}, {action}, {resource}){body}{tail};"

    def text(self) -> str:
        count = self.random.randint(4, 18)
        base = '@id("base") permit(principal, action, resource);' if count % 2 else ""
        return "\n".join([base, *(self.policy(number) for number in range(count))])

    def some(self, *items: str) -> frozenset[str]:
        return frozenset(item for item in items if self.random.random() < 0.4)

    def arguments(self, tool: str) -> dict[str, Any]:
        choose, chance = self.random.choice, self.random.random
        if tool == "pay/transfer":
            arguments: dict[str, Any] = {
                "amount": choose([0.01, 5, 99.9999, 100, -3, 1e3]),
                "to": choose(["bob", "eve"]),
            }
            if chance() < 0.5:
                arguments["note"] = choose([None, "x1", "y"])
            if chance() < 0.5:
                arguments["n"] = choose([0, 1, 2, 7])
            return arguments
        if tool == "crm/find":
            arguments = {"id": choose([1, 9])}
            if chance() < 0.5:
                arguments["fields"] = self.random.choices(["a", "b", "c"], k=choose([0, 1, 3]))
            if chance() < 0.5:
                arguments["home"] = choose([{"city": "rome"}, {"city": "oslo", "zip": 9}])
            return arguments
        if tool == "mail/send":
            to = self.random.choices(["a@x.example", "b@y.example"], k=choose([0, 1, 3]))
            arguments = {"to": to, "body": choose(["hi", "please pay"])}
            return arguments | ({"urgent": choose([True, False])} if chance() < 0.5 else {})
        if tool == "web/get":
            urls = ["https://a.example/x1?q=1", "https://b.example:8080/y", "http://a.example"]
            return {"url": choose(urls)}
        return {"path": choose(["/data/a", "/etc/passwd"]), "mode": choose(["w", "a"])}

    def query(self) -> Query:
        choose = self.random.choice
        review = choose(TOOLS).review
        tenant = choose(["acme", "acme", "globex"])
        user = Principal(Kind.USER, choose(["alice", "bob"]), tenant, self.some("finance", "boss"))
        chain = [user]
        for name in ("banker", "helper")[: choose([0, 1, 1, 2])]:
            owner = choose(["", "alice"])
            chain.append(Principal(Kind.AGENT, name, tenant, self.some("finance"), owner))
        if self.random.random() < 0.1:
            chain.append(Principal(Kind.WORKLOAD, "spiffe://x/y", tenant))
        return Query(
            chain=tuple(chain),
            review=review,
            input=self.arguments(str(review.key)),
            grant=GrantFacts(
                task=choose(["rent", "mail"]),
                tenant=choose(["acme", "globex"]),
                user=choose([user, None]),
                named=choose([True, False]),
                limited=choose([True, False]),
                depth=choose([1, 3]),
                expires=99,
            ),
            session=SessionFacts(
                labels=self.some("untrusted", "sensitive", "pii"),
                sources=self.some("staff", "outsiders"),
                calls=choose([0, 1, 5]),
                effects=choose([0, 2]),
                spent=choose([Decimal(0), Decimal("0.5"), Decimal("11.25")]),
            ),
            assurance=choose(list(Assurance)),
            autonomous=choose([True, False]),
            claims=choose([{}, {"amr": "mfa"}, {"amr": "pwd", "acr": "2"}]),
            met=self.some(*ASKS),
            now=choose([0, 1, 1001]),
        )


# -- the oracle: plain cedarpy on everything ------------------------------------------------------


class Plain:
    """Every policy, the whole context, nothing remembered."""

    def __init__(self, text: str) -> None:
        shapes = {str(k.review.key): of_tool(k.tool, k.review) for k in TOOLS}
        document = schema_json(TOOLS, full_contexts(TOOLS, shapes))
        self.schema = cedarpy.Schema.from_json_str(json.dumps(document))
        parsed = json.loads(cedarpy.policies_to_json_str(text))
        named = {p["annotations"]["id"]: p for p in parsed["staticPolicies"].values()}
        self.policies = cedarpy.PolicySet.from_json_str(
            json.dumps({**parsed, "staticPolicies": named})
        )
        self.requires = {
            name: policy["annotations"].get("require", "") for name, policy in named.items()
        }

    def decide(self, query: Query) -> tuple[str, frozenset[str], frozenset[str]]:
        first = self.ask(query, query.met)
        if isinstance(first, str):
            return first, frozenset(), frozenset()
        allowed, silent, forbids = first
        if allowed is not None:
            return "permit", allowed, frozenset()
        asks = frozenset(self.requires[name] for name in forbids)
        if not silent and "" not in asks:
            second = self.ask(query, query.met | asks)
            if isinstance(second, str):
                return second, frozenset(), frozenset()
            if second[0] is not None:
                return "ask_required", forbids, asks
            _, silent, forbids = second
        if silent and all(self.requires[name] for name in forbids):
            return "no_permit", frozenset(), frozenset()
        return "policy_denied", forbids, frozenset()

    def ask(
        self, query: Query, met: frozenset[str]
    ) -> str | tuple[frozenset[str] | None, bool, frozenset[str]]:
        entities = json.dumps(tool_entities(TOOLS) + principal_entities(dict.fromkeys(query.chain)))
        store = cedarpy.Entities.from_json_str(entities, self.schema)
        name = str(query.review.key)
        permits: set[str] = set()
        forbids: set[str] = set()
        silent, allowed = False, True
        for principal in query.chain:
            request = {
                "principal": {
                    "type": f"Lictor::{principal.kind}",
                    "id": f"{principal.tenant}/{principal.id}",
                },
                "action": {"type": "Lictor::Action", "id": name},
                "resource": {"type": "Lictor::Tool", "id": name},
                "context": json.dumps(whole_context(query, met)),
            }
            result = cedarpy.is_authorized(request, self.policies, store, self.schema)
            if result.diagnostics.errors:
                return "policy_error"
            if result.decision is cedarpy.Decision.Allow:
                permits.update(result.diagnostics.reasons)
            else:
                allowed = False
                silent = silent or not result.diagnostics.reasons
                forbids.update(result.diagnostics.reasons)
        return (frozenset(permits) if allowed else None), silent, frozenset(forbids)


def decimal(number: Any) -> dict[str, Any]:
    text = f"{Decimal(str(number)):.4f}"
    return {"__extn": {"fn": "decimal", "arg": text}}


def whole_context(query: Query, met: frozenset[str]) -> dict[str, Any]:
    grant: dict[str, Any] = {
        "task": query.grant.task,
        "tenant": query.grant.tenant,
        "named": query.grant.named,
        "limited": query.grant.limited,
        "depth": query.grant.depth,
        "expires": query.grant.expires,
    }
    if query.grant.user is not None:
        user = f"{query.grant.user.tenant}/{query.grant.user.id}"
        grant["user"] = {"__entity": {"type": "Lictor::User", "id": user}}
    return {
        "input": whole_input(str(query.review.key), dict(query.input)),
        "grant": grant,
        "session": {
            "labels": list(query.session.labels),
            "sources": list(query.session.sources),
            "calls": query.session.calls,
            "effects": query.session.effects,
            "spent": decimal(query.session.spent),
        },
        "met": list(met),
        "now": query.now,
        "assurance": str(query.assurance),
        "autonomous": query.autonomous,
        "claims": [f"{name}={value}" for name, value in query.claims.items()],
    }


def whole_input(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    written = {name: value for name, value in arguments.items() if value is not None}
    if tool == "pay/transfer":
        written["amount"] = decimal(written["amount"])
    if tool == "crm/find" and "fields" in written:
        written["fields_count"] = len(written["fields"])
    if tool == "mail/send":
        written["to_count"] = len(written["to"])
        pairs = [address.split("@") for address in written["to"]]
        written["to"] = [{"local": local, "domain": domain} for local, domain in pairs]
    if tool == "web/get":
        written["url"] = {
            "https://a.example/x1?q=1": {
                "scheme": "https",
                "host": "a.example",
                "path": "/x1",
                "query": "q=1",
            },
            "https://b.example:8080/y": {
                "scheme": "https",
                "host": "b.example",
                "port": 8080,
                "path": "/y",
            },
            "http://a.example": {"scheme": "http", "host": "a.example", "path": "/"},
        }[written["url"]]
    return written


# -- the comparison -------------------------------------------------------------------------------


def seen(answer: Answer) -> tuple[str, frozenset[str], frozenset[str]]:
    assert answer.allow is (answer.reason == "permit")
    return answer.reason, frozenset(answer.policies), frozenset(answer.asks)


def variants(query: Query) -> Iterator[Query]:
    """Calls that mean the same: equal copies, and lists in another order."""
    chain = tuple(replace(principal) for principal in query.chain)
    fresh = json.loads(json.dumps(query.input))
    yield replace(query, chain=chain, input=fresh, met=frozenset(sorted(query.met)))
    turned = {k: v[::-1] if isinstance(v, list) else v for k, v in reversed(query.input.items())}
    yield replace(query, input=turned)


@pytest.mark.slow
def test_slices_projection_and_memo_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar, "findings", lambda *_: [])
    walk = Walk(SEED)
    tally: dict[str, int] = {}
    calls = hits = 0
    for _ in range(SETS):
        text = walk.text()
        policy = CedarPolicy.load(
            tools=TOOLS, sources=[PolicySource("random", text)], declared=DECLARED
        )
        plain = Plain(text)
        past: list[tuple[Query, tuple[str, frozenset[str], frozenset[str]]]] = []
        for _ in range(CALLS):
            query = walk.query()
            expected = plain.decide(query)
            answer = policy.evaluate(query)
            assert seen(answer) == expected, (answer, query, text)
            past.append((query, expected))
            tally[expected[0]] = tally.get(expected[0], 0) + 1
            calls += 1
        walk.random.shuffle(past)
        for query, expected in past:
            for same in variants(query):
                answer = policy.evaluate(same)
                assert seen(answer) == expected, (answer, same, text)
                assert not (answer.hit and expected[0] == "policy_error")
                hits += answer.hit
                calls += 1
    print(f"seed {SEED}: {calls} calls, {hits} memo hits, {tally}")
    assert sum(tally.values()) >= 10_000, "calls that plain cedarpy decided too"
    assert hits > calls // 3
    assert all(tally.get(code, 0) > 50 for code in ("permit", "no_permit", "policy_denied"))
    assert tally["ask_required"] > 50
    assert tally["policy_error"] > 50
