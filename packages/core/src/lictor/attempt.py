"""One attempt of one call: what the stages find out about it, and how one of them refuses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NoReturn

from lictor.canonical import Arguments, Json, canonical
from lictor.model import Decision, Principal, ToolCall
from lictor.offload import Whose
from lictor.ports import Answer, GrantFacts, Known, Reply, SessionFacts
from lictor.session import Reservation
from lictor.task import Task
from lictor.telemetry_event import NO_IDS, Ids

_NO_FACTS = GrantFacts()
_NO_SESSION = SessionFacts()


class Refuse(Exception):
    """A stage refuses the call.

    Attributes:
        code: A code of `errors.REFUSALS`.
        detail: For the operator.
        asks: Asks that would turn it into an allow.
        policies: Ids of the policies behind it.
        pending: Somebody has been asked and can still answer.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        asks: tuple[str, ...] = (),
        policies: tuple[str, ...] = (),
        pending: bool = False,
    ) -> None:
        self.code, self.detail = code, detail
        self.asks, self.policies, self.pending = asks, policies, pending
        super().__init__(code)


class RecordKey:
    """Key of the digests that stand in records for what may not be recorded in clear.

    HMAC-SHA-256 (RFC 2104) with the two keyed states made once: a digest is on every call's path.

    Attributes:
        kid: Names the key.
    """

    __slots__ = ("_inner", "_outer", "kid")

    def __init__(self, secret: bytes, kid: str) -> None:
        if not 16 <= len(secret) <= 64:
            raise ValueError("a record key has 16 to 64 bytes")
        padded = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.kid = kid

    def digest(self, data: bytes) -> str:
        """`hmac-sha256:<kid>:<hex>` of canonical bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return f"hmac-sha256:{self.kid}:{outer.hexdigest()}"


@dataclass(slots=True)
class Attempt:
    """What is known so far. A stage that needs what no earlier stage found fails, closed.

    Attributes:
        call: As the adapter met it.
        at: Epoch seconds.
        started_ns: `time.time_ns()` when it was met.
        id: ULID of the decision.
        found_task: The current task.
        found: What the catalog knows of the tool.
        taken: The copied arguments.
        inputs: Injected values that the catalog names, by path.
        digest: Keyed digest of tool, arguments and inputs.
        call_id: Shared by retries of one host call; the decision's own id where the host has none.
        chain: The principals, the user or owner first.
        facts: What policy may know of the grant.
        revision: The revocation head as it was before anything was looked up.
        spend: In 1/10,000.
        charged: The task's budget has been charged.
        held: The session reservation.
        answered: The policy's answer.
        met: Asks answered so far.
        answers: Stored asks whose answers this attempt rests on, and will use up.
        overtaken: Answers given to the same call before it was known to be a repeat; they are used
            up with it, so that no later call finds them.
        told: What the person knew of the session.
        repeat: An equal call ended `unknown`: a person must agree to repeat it.
        turn: The session's turn is ours.
        observed: The refusal that observe mode lets proceed.
        decision: The decision, once it is recorded.
        body_ns: When the body started.
        trace: Trace the call was met in.
        ids: Where the decision stands in it.
    """

    call: ToolCall
    at: float
    started_ns: int
    id: str
    found_task: Task | None = None
    found: Known | None = None
    taken: Arguments | None = None
    inputs: dict[str, Json] = field(default_factory=dict)
    digest: str = ""
    call_id: str = field(init=False)
    chain: tuple[Principal, ...] = ()
    facts: GrantFacts = _NO_FACTS
    revision: int = 0
    spend: int = 0
    charged: bool = False
    held: Reservation | None = None
    answered: Answer | None = None
    met: frozenset[str] = frozenset()
    answers: tuple[Reply, ...] = ()
    overtaken: tuple[Reply, ...] = ()
    told: SessionFacts = _NO_SESSION
    repeat: bool = False
    turn: bool = False
    observed: Refuse | None = None
    decision: Decision | None = None
    body_ns: int = 0
    trace: str = ""
    ids: Ids = NO_IDS

    def __post_init__(self) -> None:
        self.call_id = self.id

    @property
    def task(self) -> Task:
        """The task; found by identity."""
        return _missing("task") if self.found_task is None else self.found_task

    @property
    def known(self) -> Known:
        """The catalog's knowledge of the tool."""
        return _missing("catalog entry") if self.found is None else self.found

    @property
    def args(self) -> Arguments:
        """The copied arguments."""
        return _missing("arguments") if self.taken is None else self.taken

    @property
    def whose(self) -> Whose:
        """Whom it is made for."""
        grant = self.task.grant
        return Whose(grant.tenant, grant.user or self.chain[0].id)

    @property
    def reservation(self) -> Reservation:
        """The session reservation."""
        return _missing("reservation") if self.held is None else self.held

    @property
    def answer(self) -> Answer:
        """The policy's answer."""
        return _missing("policy answer") if self.answered is None else self.answered

    @property
    def recorded(self) -> Decision:
        """The decision, recorded."""
        return _missing("decision") if self.decision is None else self.decision

    @property
    def view(self) -> dict[str, Json]:
        """Everything that counts as an argument, as JSON."""
        return {**self.args.view, **self.inputs} if self.inputs else self.args.view

    @property
    def effectful(self) -> bool:
        """Unknown tools count as effectful."""
        return self.found is None or self.found.review.effectful


def recorded(a: Attempt, key: RecordKey) -> dict[str, Json]:
    """Recordable arguments in clear, the others of an effect as keyed digests."""
    recordable = a.known.review.recordable if a.found is not None else ()
    told: dict[str, Json] = {}
    effectful = a.effectful
    for name, value in a.view.items():
        if name in recordable:
            told[name] = value
        elif effectful:
            told[name] = {"digest": key.digest(canonical([name, value]))}
    return told


def encodable(text: str) -> str:
    """The text as it can be written: what is not Unicode stands as an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _missing(what: str) -> NoReturn:
    raise AssertionError(f"a stage ran before the {what} was found")
