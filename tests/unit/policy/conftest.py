"""A small world for policies: three tools, a person, her agent, and words for calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lictor.model import Kind, Principal
from lictor.policy import CedarPolicy, Declared, PolicySource, guardrail
from lictor.ports import GrantFacts, Known, Query, SessionFacts
from lictor.testing import reviewed, tool_of

ALICE = Principal(Kind.USER, "alice", "acme", frozenset({"finance"}))
BOT = Principal(Kind.AGENT, "banker", "acme", frozenset({"finance"}), owner="alice")
DECLARED = Declared(
    labels=frozenset({"secret"}),
    roles=frozenset({"finance", "boss"}),
    users=frozenset({"alice", "carol"}),
    agents=frozenset({"banker"}),
    tenants=frozenset({"acme", "globex"}),
    tenant="acme",
)
PAY = reviewed(
    tool_of(
        "transfer",
        {"amount": {"type": "number"}, "to": {"type": "string"}, "note": {"type": "string"}},
        required=["amount", "to"],
        server="pay",
    ),
    "transfer",
    target=("to",),
    amount="amount",
)
LOOK = reviewed(
    tool_of("find", {"id": {"type": "integer"}}, required=["id"], server="crm"),
    produces=frozenset({"pii"}),
)
MAIL = reviewed(
    tool_of(
        "send",
        {"to": {"type": "array", "items": {"type": "string"}}, "body": {"type": "string"}},
        required=["to", "body"],
        server="mail",
    ),
    "send",
    formats={"to": "email"},
)
TOOLS = (PAY, LOOK, MAIL)
GIVEN = {
    "pay/transfer": {"amount": 120.5, "to": "bob"},
    "crm/find": {"id": 7},
    "mail/send": {"to": ["a@x.example"], "body": "hi"},
}
_GRANT = {"task", "tenant", "user", "named", "limited", "depth", "expires"}
_SESSION = {"labels", "sources", "calls", "effects", "spent"}


class Desk:
    """Loads policies and puts calls before them."""

    alice, bot, declared = ALICE, BOT, DECLARED
    pay, look, mail, tools = PAY, LOOK, MAIL, TOOLS

    def load(
        self,
        text: str = "",
        tools: Sequence[Known] = TOOLS,
        *,
        starter: bool = False,
        declared: Declared = DECLARED,
    ) -> CedarPolicy:
        sources = [guardrail("starter@1")] if starter else []
        sources += [PolicySource("local.cedar", text)]
        return CedarPolicy.load(tools=tools, sources=sources, declared=declared)

    def query(
        self,
        known: Known,
        arguments: dict[str, Any] | None = None,
        *,
        chain: tuple[Principal, ...] = (ALICE, BOT),
        **facts: Any,
    ) -> Query:
        grant: dict[str, Any] = {"tenant": "acme", "user": chain[0] if chain else None}
        grant |= {name: facts.pop(name) for name in list(facts) if name in _GRANT}
        session = {name: facts.pop(name) for name in list(facts) if name in _SESSION}
        if "labels" in session:
            session["labels"] = frozenset(session["labels"])
        if "met" in facts:
            facts["met"] = frozenset(facts["met"])
        given = GIVEN.get(str(known.review.key), {}) if arguments is None else arguments
        return Query(
            chain=chain,
            review=known.review,
            input=given,
            grant=GrantFacts(**grant),
            session=SessionFacts(**session),
            **facts,
        )


@pytest.fixture(scope="session")
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="session")
def reason(desk: Desk) -> Callable[..., str]:
    """The reason code a policy gives for a call."""

    def ask(policy: CedarPolicy, known: Known, *arguments: Any, **facts: Any) -> str:
        return policy.evaluate(desk.query(known, *arguments, **facts)).reason

    return ask
