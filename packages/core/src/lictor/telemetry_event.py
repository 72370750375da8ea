"""What is told of a decision, as plain values: the attributes of spans and log events.

Rules enforced here:

1. A name that the catalog does not have is never told: a model can write anything into it.
2. Strings are cut and lose their control characters, arrays are cut.
3. A user is only ever told as the pseudonym that the caller made.
4. Closed lists stay closed: an unknown reason is `internal_error`, an unknown adapter `_other`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from lictor import telemetry_names as names
from lictor.errors import PERMIT, REFUSALS
from lictor.model import Decision, Impact, Kind, Mode, Outcome, Pep, Principal, ToolKey

MAX_TEXT: Final = 256
MAX_ITEMS: Final = 8
MAX_ARGUMENTS: Final = 4096
MAX_FIXED: Final = 1024
UNREGISTERED: Final = ToolKey("_unregistered", "_unregistered")

_REASONS: Final = frozenset(REFUSALS) | {PERMIT}
_FUNCTION: Final = Pep()

Attribute: TypeAlias = "str | bool | int | float | list[str]"
Attributes: TypeAlias = dict[str, Attribute]


class Ids(NamedTuple):
    """Where a decision stands in a trace: lower-case hex, or empty without one."""

    trace_id: str = ""
    span_id: str = ""
    flags: int = 0


NO_IDS: Final = Ids()


class Decided(NamedTuple):
    """A decision and what surrounds it. A tuple: a frozen dataclass takes three times as long.

    Attributes:
        decision: The decision.
        pep: Where the call was met.
        started_ns: `time.time_ns()` when the call arrived.
        ended_ns: `time.time_ns()` when it was decided.
        impact: Of the reviewed tool.
        registered: The catalog has the tool; if not, its name is not emitted.
        pin: Digest of the reviewed definition.
        input_digest: Keyed digest of tool and arguments.
        principal: Who acts.
        user: Keyed pseudonym of the user the task runs for.
        task: Task id.
        grant: Grant id.
        tenant: Tenant of the task.
        depth: Links in the grant's chain; told if it is a child grant.
        assurance: The weakest in the chain.
        host_call_id: The host's id of the call.
        conversation: The host's id of the conversation.
        engine: The policy engine.
        policy_digest: Digest of the snapshot that answered; empty if policy was not reached.
        hit: It answered from the memo.
        stream: Journal stream.
        seq: Newest sequence number of the stream.
        head: Chain hash at that number.
        failure: The gate could not decide, as against a refusal on the merits.
        channels: Where people gave the answers that it rests on.
        evidence: All of them were authenticated.
        arguments: What may stand in clear; emitted under the double opt-in only.
    """

    decision: Decision
    pep: Pep = _FUNCTION
    started_ns: int = 0
    ended_ns: int = 0
    impact: frozenset[Impact] | None = None
    registered: bool = False
    pin: str = ""
    input_digest: str = ""
    principal: Principal | None = None
    user: str = ""
    task: str = ""
    grant: str = ""
    tenant: str = ""
    depth: int = 0
    assurance: str = ""
    host_call_id: str = ""
    conversation: str = ""
    engine: str = ""
    policy_digest: str = ""
    hit: bool = False
    stream: str = ""
    seq: int = 0
    head: str = ""
    failure: bool = False
    channels: tuple[str, ...] = ()
    evidence: bool = False
    arguments: Mapping[str, object] | None = None


class Executed(NamedTuple):
    """How an allowed call ended.

    Attributes:
        decision_id: The decision it ran under.
        call_id: The call.
        tool: The tool.
        outcome: How it ended.
        duration_ns: How long the body ran.
        registered: As in `Decided`.
        ids: What `decided` returned for the decision; without them, the host's span is used.
        stream: Journal stream.
        seq: Newest sequence number of the stream.
        head: Chain hash at that number.
    """

    decision_id: str
    call_id: str
    tool: ToolKey
    outcome: Outcome
    duration_ns: int
    registered: bool = False
    ids: Ids = NO_IDS
    stream: str = ""
    seq: int = 0
    head: str = ""


class Describer:
    """Builds the attributes of one gate's events.

    Args:
        mode: Of the gate.
        placement: `p0`, `p1` or `p2`.
    """

    def __init__(self, mode: Mode, placement: str) -> None:
        self._mode = mode.value
        self._placement = placement
        self._static: dict[tuple[object, ...], Attributes] = {}

    def decision(self, event: Decided) -> Attributes:
        """What and why: told on span and log event alike, always a new dictionary."""
        decision, principal = event.decision, event.principal
        attributes: Attributes = {
            **self._fixed(event),
            names.DECISION_ID: decision.id,
            names.DECISION_VERDICT: decision.verdict.value,
            names.DECISION_ENFORCEMENT: decision.enforcement.value,
            names.DECISION_REASON: reason(decision.reason),
            names.CALL_ID: clean(decision.call_id),
        }
        for name, text in (
            (names.GEN_AI_TOOL_CALL_ID, event.host_call_id),
            (names.GEN_AI_CONVERSATION_ID, event.conversation),
            (names.USER_ID, event.user),
            (names.ASSURANCE, event.assurance),
            (names.TASK_ID, event.task),
            (names.TENANT_ID, event.tenant),
        ):
            if text:
                attributes[name] = clean(text)
        if principal is not None:
            attributes[names.PRINCIPAL_KIND] = principal.kind.value
            if principal.kind is not Kind.USER:
                attributes[names.PRINCIPAL_ID] = clean(principal.id)
        return _rarer(attributes, event)

    def _fixed(self, event: Decided) -> Attributes:
        """What all decisions about one tool met in one place share, built once."""
        tool = event.decision.tool if event.registered else UNREGISTERED
        key = (tool, event.impact, event.pep.kind, event.pep.side)
        found = self._static.get(key)
        if found is None:
            found = tool_names(tool)
            if event.impact:
                found[names.TOOL_IMPACT] = sorted(impact.value for impact in event.impact)
            found[names.PEP_KIND] = pep_kind(event.pep.kind)
            found[names.PEP_SIDE] = pep_side(event.pep.side)
            found[names.PLACEMENT] = self._placement
            found[names.MODE] = self._mode
            if len(self._static) >= MAX_FIXED:
                self._static.clear()
            self._static[key] = found
        return found

    def evidence(self, event: Decided) -> Attributes:
        """What ties a decision to the journal and its inputs: told on the log event only.

        Every attribute costs a span or event about half a microsecond, and nobody filters spans
        by digests.
        """
        attributes = place(event)
        if event.pin and event.registered:
            attributes[names.TOOL_PIN] = event.pin
        if event.policy_digest:
            attributes[names.POLICY_DIGEST] = clean(event.policy_digest)
        if event.input_digest:
            attributes[names.INPUT_DIGEST] = clean(event.input_digest)
        if event.grant:
            attributes[names.GRANT_ID] = clean(event.grant)
        if event.depth > 1:
            attributes[names.DELEGATION_DEPTH] = event.depth
        return attributes

    def execution(self, event: Executed) -> Attributes:
        """What `executed` tells."""
        return {
            **tool_names(event.tool if event.registered else UNREGISTERED),
            names.DECISION_ID: event.decision_id,
            names.CALL_ID: clean(event.call_id),
            names.EXECUTION_OUTCOME: event.outcome.value,
            names.EXECUTION_SECONDS: event.duration_ns / 1e9,
            **place(event),
        }

    def degraded(self) -> Attributes:
        """What `degraded` tells."""
        return {names.PLACEMENT: self._placement, names.MODE: self._mode}


def _rarer(attributes: Attributes, event: Decided) -> Attributes:
    decision = event.decision
    if event.policy_digest:
        attributes[names.POLICY_ENGINE] = clean(event.engine)
        attributes[names.POLICY_HIT] = event.hit
    if event.failure:
        attributes[names.ERROR_TYPE] = reason(decision.reason)
    if decision.policies:
        attributes[names.POLICY_IDS] = cleaned(decision.policies)
    if decision.asks:
        attributes[names.DECISION_ASKS] = cleaned(decision.asks)
    if decision.final:
        attributes[names.DECISION_FINAL] = True
    if event.channels:
        attributes[names.ANSWER_CHANNELS] = cleaned(event.channels)
        attributes[names.ANSWER_EVIDENCE] = event.evidence
    return attributes


def place(event: Decided | Executed) -> Attributes:
    """Where the journal stands; kept elsewhere, it shows a tail that was cut."""
    if not event.stream:
        return {}
    return {
        names.RECORD_STREAM: event.stream,
        names.RECORD_SEQ: event.seq,
        names.RECORD_HEAD: event.head,
    }


def tool_names(key: ToolKey) -> Attributes:
    """Name and server of a tool."""
    return {names.GEN_AI_TOOL_NAME: clean(key.name), names.TOOL_SERVER: key.server}


def reason(code: str) -> str:
    """A code of the closed list."""
    return code if code in _REASONS else "internal_error"


def pep_kind(kind: str) -> str:
    """A kind of the closed list."""
    return kind if kind in names.PEP_KIND_VALUES else "_other"


def pep_side(side: str) -> str:
    """A side of the closed list."""
    return side if side in names.PEP_SIDE_VALUES else "_other"


def clean(text: str) -> str:
    """Text without control, format and surrogate characters, cut."""
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    return "".join(filter(str.isprintable, text[: 2 * MAX_TEXT]))[:MAX_TEXT]


def cleaned(texts: tuple[str, ...]) -> list[str]:
    """The first few, each clean."""
    return [clean(text) for text in texts[:MAX_ITEMS]]


def content(arguments: Mapping[str, object]) -> str:
    """Arguments as JSON, cut."""
    return json.dumps(dict(arguments), sort_keys=True, default=str)[:MAX_ARGUMENTS]
