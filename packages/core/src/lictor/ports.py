"""What the gate asks of its parts, as values and one-method protocols.

Rules enforced here:

1. Ports are synchronous and small; one that may block says so with `blocking = True` and is then
   called off the event loop and under a deadline.
2. A port may raise: the gate turns any exception, timeout or unknown answer into a denial.
3. Everything that must be atomic with an effect goes through one `Store.commit`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Event
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias

from lictor.canonical import Json
from lictor.model import Assurance, Kind, Principal, Review, Tool, ToolKey


class Clock(Protocol):
    """Wall clock."""

    def __call__(self) -> float:
        """Seconds since the epoch (UTC)."""
        ...


class Directory(Protocol):
    """Who exists, with which roles, in which tenant."""

    def principal(self, kind: Kind, name: str) -> Principal | None:
        """The principal as it stands now, or `None`."""
        ...

    def near(self, kind: Kind, name: str) -> list[str]:
        """Known names like this one, for the error of a wrong one."""
        ...


# -- policy ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What policy may know of the grant.

    Attributes:
        task: Template name, or empty.
        tenant: Tenant of the task.
        user: The user it runs for, or the owner for an autonomous task.
        named: The grant names this tool.
        limited: The grant's limits pin every target and amount argument of this call.
        depth: Links in the chain; 1 for a root grant.
        expires: Epoch seconds.
    """

    task: str = ""
    tenant: str = ""
    user: Principal | None = None
    named: bool = False
    limited: bool = False
    depth: int = 1
    expires: int = 0


class SessionFacts(NamedTuple):
    """What has entered the conversation so far, this call's reservation included.

    Attributes:
        labels: Only grow.
        sources: Who could write what was read.
        calls: Calls let through, this one included.
        effects: Effectful ones among them.
        spent: Sum of amounts, this call's included, in currency units.
    """

    labels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    calls: int = 0
    effects: int = 0
    spent: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the policy engine.

    Attributes:
        chain: Every principal that must be allowed: the user first, then each agent.
        review: The reviewed tool; its pin has already been compared with what is about to run.
        input: JSON view of the arguments, valid against the pinned schema.
        grant: Facts of the grant.
        session: Session facts.
        assurance: The weakest assurance in the chain.
        autonomous: No user is present; the owner stands in the chain.
        claims: Verified claims that policy may read.
        met: Asks already answered, as `confirm:user`.
        now: Epoch seconds.
    """

    chain: tuple[Principal, ...]
    review: Review
    input: Mapping[str, Json]
    grant: GrantFacts
    session: SessionFacts
    assurance: Assurance = Assurance.ASSERTED
    autonomous: bool = False
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    met: frozenset[str] = frozenset()
    now: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine says. Only `allow is True` with no error and no ask can become an ALLOW.

    Attributes:
        allow: Every principal was allowed and nothing erred.
        reason: `permit`, or the code of a refusal: `no_permit`, `policy_denied`, `policy_error`,
            `input_invalid`, `not_canonical`; with `asks`, `ask_required`.
        policies: Ids of the determining policies.
        texts: Their `@reason` texts, for operator and developer; the first is fit for the model.
        asks: Asks that would turn the denial into an allow (verdict ask); empty otherwise.
        reads: Session facts the decision rests on: a subset of `labels`, `sources`, `calls`,
            `effects`, `spent`. They are validated again at intent.
        detail: Errors and what failed, for the operator.
        digest: Digest of the policy snapshot.
        hit: Answered from the memo.
    """

    allow: bool
    reason: str
    policies: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    detail: str = ""
    digest: str = ""
    hit: bool = False


class Policy(Protocol):
    """A policy engine."""

    blocking: bool
    engine: str

    def evaluate(self, query: Query) -> Answer:
        """Decides one query. May raise: the gate denies."""
        ...

    def reads(self, key: ToolKey) -> frozenset[str]:
        """Which session facts decisions on this tool can rest on (as `Answer.reads`)."""
        ...

    def could_allow(self, chain: tuple[Principal, ...], review: Review) -> bool:
        """Whether some call of the tool may be allowed; a hint for lists, no authority."""
        ...


# -- people ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for a person about one exact call.

    Attributes:
        kinds: What is asked: `confirm:user`, `approval:<role>`, `four-eyes:<role>`.
        call_id: The call.
        digest: Keyed digest of tool and arguments; the answer counts for this one only.
        task: Task id.
        tenant: Tenant of the task.
        user: The user it runs for; the owner's name for an autonomous task.
        agent: Who acts.
        tool: What would run.
        arguments: JSON view, to be rendered by the channel.
        why: The `@reason` texts of what demands it.
        id: Of the stored ask; empty until it is stored.
        impact: What the tool can do, sorted.
        recorded: The arguments as they may stand in records.
        labels: Of the session, this call's reservation included.
        sources: Who could write what the session has read.
        assurance: Of the task: `dev` where nobody's identity was established at all.
        repeat: An equal call has an unknown outcome; the question says so and is another one.
        expires: Epoch seconds; nobody can answer later.
        gone: Set, from another thread, when the caller is gone: stop waiting.
    """

    kinds: tuple[str, ...]
    call_id: str
    digest: str
    task: str
    tenant: str
    user: str
    agent: str
    tool: ToolKey
    arguments: Mapping[str, Json]
    why: tuple[str, ...] = ()
    id: str = ""
    impact: tuple[str, ...] = ()
    recorded: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    labels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    assurance: str = Assurance.ASSERTED.value
    repeat: bool = False
    expires: int = 0
    gone: Event = field(default_factory=Event, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """How an ask stands.

    Attributes:
        state: `granted`, `rejected`, `pending` (somebody can still answer), `expired` (nobody
            did), `unavailable` (nobody can be asked), or `ended` (the task has ended, here or by
            somebody elsewhere; only the desk says so, no channel).
        ref: Id of the stored ask.
        by: Who answered, as far as the channel knows.
        channel: Where: `terminal`, `watch`, …
        assurance: How the person was established: `dev`, `asserted` or `verified`.
        shown: SHA-256 of the text that the person saw, in hex.
        detail: For developer and operator; of `unavailable`, what to do about it.
    """

    state: str
    ref: str = ""
    by: str = ""
    channel: str = ""
    assurance: str = Assurance.ASSERTED.value
    shown: str = ""
    detail: str = ""


class Approvals(Protocol):
    """A channel to people: it only asks; the gate stores asks, answers and their use."""

    @property
    def lasting(self) -> bool:
        """Whether somebody can still answer after the wait, so that the task is suspended."""
        ...

    def ready(self, ask: Ask) -> str:
        """Empty if somebody can be asked now; else why not, and what to do about it."""
        ...

    def answer(self, ask: Ask) -> Reply:
        """Asks, and waits. Called off the event loop."""
        ...


class Reviewer(Protocol):
    """Asks a person about a tool that nobody has reviewed, at its first call."""

    def review(self, tool: Tool, arguments: Mapping[str, Json], code: str, gone: Event) -> str:
        """Asks, writes down what was decided, and lets the gate know it. Called off the event loop.

        Args:
            tool: As it is about to run.
            arguments: JSON view.
            code: `tool_unreviewed` or `tool_changed`.
            gone: Set, from another thread, when the caller is gone: stop waiting.

        Returns:
            Nothing if the tool may be looked up again; else why not, and what to do about it.
        """
        ...


# -- store ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a stream: where the chain stands."""

    stream: str
    seq: int
    hash: str


class Entry(NamedTuple):
    """A record before the store gives it its place in the chain.

    Attributes:
        kind: `decision`, `outcome`, `task`, `stream`, `recovery`, `late`, `ask`, `answer`,
            `policy`.
        at: Microseconds since the epoch.
        body: What happened; string keys, no floats. Written as canonical JSON (RFC 8785).
        call: Call id, or empty.
        tenant: Tenant, or empty.
        task: Task id, or empty.
        tool: `server/name`, or empty.
        verdict: Of a decision; the outcome of an outcome.
        code: Reason code.
    """

    kind: str
    at: int
    body: Mapping[str, Json]
    call: str = ""
    tenant: str = ""
    task: str = ""
    tool: str = ""
    verdict: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A conversation as stored.

    Attributes:
        tenant: Tenant.
        conversation: The host's id of it (a thread id).
        version: Moves with every change of counts or spend.
        growth: Moves when labels or sources grow.
        labels: Labels.
        sources: Sources.
        calls: Calls let through.
        effects: Effectful ones.
        spent: In 1/10,000.
    """

    tenant: str
    conversation: str
    version: int = 0
    growth: int = 0
    labels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    calls: int = 0
    effects: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as stored.

    Attributes:
        id: ULID.
        state: `running`, `suspended` or `ended`.
        tenant: Tenant.
        conversation: Its session.
        grant: The grant as JSON.
        calls: Calls counted by effect transactions and settles.
        spent: Spend reserved, in 1/10,000.
        stream: The stream (process) that runs it.
    """

    id: str
    state: str
    tenant: str
    conversation: str
    grant: Mapping[str, Json]
    calls: int = 0
    spent: int = 0
    stream: str = ""


@dataclass(frozen=True, slots=True)
class CallRow:
    """An effectful call as stored: `started`, then how it ended."""

    id: str
    state: str
    digest: str
    tool: str
    task: str
    decision: str


@dataclass(frozen=True, slots=True)
class AskRow:
    """An ask as stored.

    Attributes:
        id: ULID.
        state: `pending`, `granted`, `rejected`, `expired`, `withdrawn`, or `used`.
        task: Task id.
        call: Call id.
        digest: `Ask.digest`, with `#repeat` behind it where the question was about a repeat.
        tenant: Tenant.
        tool: `server/name`.
        kinds: What was asked.
        request: What a channel needs to show it, as JSON (`approval.request`); once it is
            answered, with the arguments only as they may be recorded.
        asked: Microseconds since the epoch.
        expires: Epoch seconds.
        answered: Microseconds since the epoch; 0 until then.
        by: Who answered.
        channel: Where.
        assurance: How the person was established.
        mac: Binds the answer to this deployment's record key; a row without it proves nothing.
        decision: Decision that used it.
    """

    id: str
    state: str
    task: str
    call: str
    digest: str
    tenant: str
    tool: str
    kinds: tuple[str, ...]
    request: Mapping[str, Json]
    asked: int
    expires: int
    answered: int = 0
    by: str = ""
    channel: str = ""
    assurance: str = ""
    mac: str = ""
    decision: str = ""


# Guards: each must hold inside the transaction, or nothing is written.


@dataclass(frozen=True, slots=True)
class RevisionIs:
    """The revocation head is still the one the decision saw."""

    revision: int


@dataclass(frozen=True, slots=True)
class TaskIs:
    """The task is still in this state."""

    task: str
    state: str = "running"


@dataclass(frozen=True, slots=True)
class SessionIs:
    """The session has not moved; `None` for what the decision did not read."""

    tenant: str
    conversation: str
    version: int | None = None
    growth: int | None = None


@dataclass(frozen=True, slots=True)
class CallIsNew:
    """Nobody has started this call, and no equal call of the session ended `unknown`.

    Attributes:
        call: Call id.
        digest: Keyed digest of tool and arguments.
        tenant: Tenant.
        conversation: Session.
        repeat: A person agreed to repeat a call whose outcome is unknown.
    """

    call: str
    digest: str
    tenant: str
    conversation: str
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class BudgetFits:
    """The task's budget covers this call on top of what is stored; `None` is no limit."""

    task: str
    calls: int
    spend: int
    max_calls: int | None
    max_spend: int | None


@dataclass(frozen=True, slots=True)
class AskIs:
    """The ask is in this state."""

    ask: str
    state: str = "granted"


Guard: TypeAlias = RevisionIs | TaskIs | SessionIs | CallIsNew | BudgetFits | AskIs


# Writes: done together, if every guard held.


@dataclass(frozen=True, slots=True)
class PutTask:
    """Inserts a task, or sets the state of a known one; what it has used only grows by this."""

    task: TaskRow


@dataclass(frozen=True, slots=True)
class StartCall:
    """Inserts the intent of an effectful call and reserves its budget."""

    call: CallRow
    tenant: str
    conversation: str
    spend: int = 0


@dataclass(frozen=True, slots=True)
class SettleCall:
    """`started` → outcome, by compare-and-set; refunds spend and count of `not_started`."""

    call: str
    outcome: str


@dataclass(frozen=True, slots=True)
class GrowSession:
    """Adds labels, sources and counts to a session, creating it if need be. Unions commute."""

    tenant: str
    conversation: str
    labels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    calls: int = 0
    effects: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class PutAsk:
    """Inserts a pending ask."""

    ask: AskRow


@dataclass(frozen=True, slots=True)
class AnswerAsk:
    """Settles a pending ask; guard it with `AskIs(ask, "pending")`.

    Attributes:
        ask: Id.
        state: `granted`, `rejected`, `expired` or `withdrawn`.
        request: What stays of the request: without arguments that may not be recorded.
        at: Microseconds since the epoch.
        by: Who.
        channel: Where.
        assurance: How the person was established.
        mac: See `AskRow.mac`.
    """

    ask: str
    state: str
    request: Mapping[str, Json]
    at: int
    by: str = ""
    channel: str = ""
    assurance: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class UseAsk:
    """Consumes a granted answer for one decision; guard it with `AskIs(ask)`."""

    ask: str
    decision: str


Write: TypeAlias = PutTask | StartCall | SettleCall | GrowSession | PutAsk | AnswerAsk | UseAsk


@dataclass(frozen=True, slots=True)
class Committed:
    """Result of a commit.

    Attributes:
        moved: The guard that did not hold; then nothing was written. `None`: all was written.
        head: The chain's head after it.
        detail: What the guard found instead (`started`, `done`, `unknown`, …).
    """

    moved: Guard | None
    head: Head
    detail: str = ""


MAX_PENDING: Final = 10_000
"""Records waiting to be written before further calls are denied."""


class Store(Protocol):
    """The one truth: records, tasks, sessions and calls."""

    @property
    def head(self) -> Head:
        """The newest record written by this process."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether a buffered record may be handed over: queue not full, last flush succeeded."""
        ...

    @property
    def behind(self) -> bool:
        """Whether so much waits to be written that a caller should wait for his own record."""
        ...

    @property
    def revision(self) -> int:
        """The revocation head as last seen."""
        ...

    def commit(
        self,
        guards: tuple[Guard, ...] = (),
        writes: tuple[Write, ...] = (),
        entries: tuple[Entry, ...] = (),
        *,
        durable: bool,
    ) -> Future[Committed]:
        """Hands one atomic change to the writer; never blocks.

        Args:
            guards: Must all hold, checked inside the transaction.
            writes: Done if they do.
            entries: Records appended if they do, in order.
            durable: The future resolves only after the change is on disk, past power loss.
                Otherwise it resolves after the (relaxed) commit and usually nobody waits.

        Raises:
            StoreError: The queue is full, the last flush failed, or the store is closed.
        """
        ...

    def session(self, tenant: str, conversation: str) -> SessionRow | None:
        """A conversation as committed."""
        ...

    def task(self, task: str) -> TaskRow | None:
        """A task as committed."""
        ...

    def call(self, call: str) -> CallRow | None:
        """An effectful call as committed."""
        ...

    def unknown(self, tenant: str, conversation: str, digest: str) -> bool:
        """Whether an equal call of the session has ended `unknown` (and was not repeated since)."""
        ...

    def ask(self, ask: str) -> AskRow | None:
        """An ask as committed."""
        ...

    def standing(self, task: str, digest: str) -> AskRow | None:
        """The newest ask of a task for this digest (`AskRow.digest`), whatever its state."""
        ...

    def asks(self) -> tuple[AskRow, ...]:
        """All pending asks, the oldest first."""
        ...

    def ended(self, tasks: Collection[str]) -> frozenset[str]:
        """Which of these tasks have ended, here or in another process."""
        ...

    def close(self) -> None:
        """Writes what waits, marks the stream closed, releases everything. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog knows of a tool: the operator's review and the pinned definition."""

    review: Review
    tool: Tool
