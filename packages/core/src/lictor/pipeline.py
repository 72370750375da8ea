"""The one way through: every stage of a call, from what the adapter met to the record.

```
call ─► catalog+schema ► identity ► grant+tenant ► protected ► budget ► policy ► ask ► intent
     ═commit═► body ► labels ► outcome ─► result
```

Rules enforced here:

1. The first refusal wins; any exception of a part is a refusal too. Only `_allow` builds an ALLOW.
2. A body starts only after its decision is recorded: an effect's intent and its decision record in
   one durable transaction, a read's record handed to a healthy writer.
3. What the decision rested on is checked again in that transaction; if it moved, the call is decided
   again, three times at most.
4. What runs is the copy that was checked.
5. What a result adds to the session is on disk before the result is released; else it is withheld.
6. A call whose caller is gone before the body started never starts it.
7. Observe mode lets only policy-stage denials proceed.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from lictor.catalog import Catalog
from lictor.drive import Body, Ended, Io, Steps, offload
from lictor.errors import (
    PERMIT,
    POLICY_STAGE,
    REFUSALS,
    Denied,
    LictorError,
    Pending,
    StoreError,
)
from lictor.model import (
    UNITS,
    Arguments,
    Assurance,
    Decision,
    Enforcement,
    InputInvalid,
    Json,
    Kind,
    Mode,
    Outcome,
    Principal,
    ToolCall,
    Verdict,
    canonical,
    derived_id,
    take,
    ulid,
)
from lictor.ports import (
    Answer,
    Approvals,
    Ask,
    BudgetFits,
    CallIsNew,
    CallRow,
    Clock,
    Committed,
    Directory,
    Entry,
    GrantFacts,
    Guard,
    Known,
    Policy,
    Query,
    RevisionIs,
    SettleCall,
    StartCall,
    Store,
    TaskIs,
    Write,
)
from lictor.protect import Protected
from lictor.schema import Validator
from lictor.session import Reservation
from lictor.task import Task, _call_id, current
from lictor.telemetry import Decided, Executed, Telemetry

TRIES: Final = 3
COMMIT_SECONDS: Final = 10.0
STOP_AFTER: Final = 2
END_AFTER: Final = 5
_STOP_TEXT: Final = " This was refused before: stop calling it."

Stage: TypeAlias = Generator[Io | Body, Ended, None]


class Refuse(Exception):
    """A stage refuses the call."""

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


@dataclass(slots=True)
class Attempt:
    """What the stages find out about one call."""

    call: ToolCall
    at: float
    started_ns: int
    task: Task | None = None
    known: Known | None = None
    args: Arguments | None = None
    inputs: dict[str, Json] = field(default_factory=dict)
    digest: str = ""
    call_id: str = ""
    chain: tuple[Principal, ...] = ()
    facts: GrantFacts = GrantFacts()
    spend: int = 0
    reserved: bool = False
    reservation: Reservation | None = None
    answer: Answer | None = None
    met: frozenset[str] = frozenset()
    repeat: bool = False
    turn: bool = False
    observed: Refuse | None = None
    decision: Decision | None = None
    body_ns: int = 0
    trace: tuple[str, str] = ("", "")

    @property
    def effectful(self) -> bool:
        """Unknown tools count as effectful."""
        return self.known is None or self.known.review.effectful


@dataclass(frozen=True, slots=True)
class RecordKey:
    """Key of the digests that stand in records for what may not be recorded in clear."""

    secret: bytes
    kid: str

    def digest(self, data: bytes) -> str:
        """`hmac-sha256:<kid>:<hex>` of canonical bytes."""
        return f"hmac-sha256:{self.kid}:{hmac.digest(self.secret, data, 'sha256').hex()}"


@dataclass(slots=True)
class Pipeline:
    """The stages, with the parts they ask."""

    catalog: Catalog
    policy: Policy
    store: Store
    directory: Directory
    key: RecordKey
    telemetry: Telemetry
    keeper: object = None
    clock: Clock = time.time
    approvals: Approvals | None = None
    protected: Protected = Protected(())
    mode: Mode = Mode.ENFORCE
    placement: str = "p0"
    require_verified: bool = False
    policy_seconds: float = 2.0
    ask_seconds: float = 130.0
    _validators: dict[str, Validator] = field(default_factory=dict)

    # -- entries ----------------------------------------------------------------------------------

    def steps(self, call: ToolCall) -> Steps:
        """One attempt, for a driver."""
        attempt = Attempt(call, self.clock(), time.time_ns())
        try:
            yield from self._authorize(attempt)
        except Refuse as refuse:
            raise self._denied(attempt, refuse) from None
        except LictorError as error:
            raise self._denied(attempt, _failure(error)) from None
        except Exception as error:
            raise self._denied(attempt, _failure(error)) from error
        finally:
            if attempt.decision is None or attempt.decision.enforcement is Enforcement.BLOCK:
                self._unreserve(attempt)
        if attempt.decision is not None:
            yield from self._execute(attempt, attempt.decision)

    def refuse(self, call: ToolCall, code: str, detail: str = "") -> Denied:
        """Records an attempt that never reaches a body."""
        attempt = Attempt(call, self.clock(), time.time_ns(), task=current())
        try:
            attempt.known = self.catalog.known(call.tool.key)
            self._take(attempt)
        except (InputInvalid, Refuse) as error:
            detail = detail or str(error)
        return self._denied(attempt, Refuse(code, detail))

    def preview(self, call: ToolCall) -> Decision:
        """What would be decided now: nothing is recorded, reserved or consumed."""
        attempt = Attempt(call, self.clock(), time.time_ns())
        try:
            self._examine(attempt)
            self._identify(attempt)
            self._scope(attempt)
            self._protect(attempt)
            self._reserve(attempt)
            for command in self._judge(attempt):  # only a blocking engine yields
                command.future.exception(command.seconds)  # type: ignore[union-attr]
                raise Refuse("policy_error", "a blocking policy engine has no preview")
            if attempt.effectful and self.store.call(attempt.call_id) is not None:
                raise Refuse("already_attempted")
        except Refuse as refuse:
            return self._refusal(attempt, refuse, count=False)
        except Exception as error:
            return self._refusal(attempt, _failure(error), count=False)
        finally:
            self._unreserve(attempt)
        return self._allow(attempt)

    # -- stages -----------------------------------------------------------------------------------

    def _authorize(self, a: Attempt) -> Stage:
        self._examine(a)
        self._identify(a)
        self._scope(a)
        self._protect(a)
        try:
            for _ in range(TRIES):
                self._reserve(a)
                yield from self._judge(a)
                moved = yield from self._intend(a)
                if moved is None:
                    return
                self._unreserve(a)
                yield from self._again(a, moved)
        finally:
            if a.turn and a.task is not None:
                a.turn = False
                a.task.session.turn.release()
        raise Refuse("contention")

    def _examine(self, a: Attempt) -> None:
        """Catalog, then schema: the pin is looked up before anything of the tool is used."""
        tool = a.call.tool
        a.task = current()
        a.known = self.catalog.known(tool.key)
        code = self.catalog.check(tool)
        if code is not None or a.known is None:
            self._take(a, quietly=True)
            raise Refuse(code or "tool_unreviewed")
        review = a.known.review
        if "execute" in review.impact and self.placement == "p0" and not review.isolation:
            raise Refuse("tool_isolation")
        self._take(a)
        assert a.args is not None
        validator = self._validators.get(tool.pin)
        if validator is None:
            validator = self._validators[tool.pin] = Validator.compile(a.known.tool.input_schema)
        try:
            validator.check(a.args.view, a.args.encoded)
        except InputInvalid as error:
            raise Refuse("input_invalid", str(error)) from None

    def _take(self, a: Attempt, *, quietly: bool = False) -> None:
        call = a.call
        try:
            a.args = take(call.arguments)
            if a.known is not None and call.tool.injected and a.known.review.effectful:
                a.inputs = self._inputs(a.known, call)
        except InputInvalid as error:
            if quietly:
                return
            raise Refuse("input_invalid", str(error)) from None
        data = b'{"arguments":%b,"inputs":%b,"pin":%b,"tool":%b}' % (
            a.args.encoded,
            canonical(a.inputs) if a.inputs else b"{}",
            canonical(call.tool.pin),
            canonical(list(call.tool.key)),
        )
        a.digest = self.key.digest(data)
        if call.host_id and a.task is not None:
            session = a.task.session
            a.call_id = derived_id(session.tenant, session.conversation, call.host_id, a.digest)

    @staticmethod
    def _inputs(known: Known, call: ToolCall) -> dict[str, Json]:
        """The injected values the catalog names; an effect that takes others is not checkable."""
        if not known.review.inputs:
            raise Refuse("input_hidden", f"it takes {', '.join(call.tool.injected)}")
        named = {path: _follow(call.injected, path) for path in known.review.inputs}
        return take(named).view

    def _identify(self, a: Attempt) -> None:
        task = a.task
        if task is None or task.keeper is not self.keeper:
            raise Refuse("task_missing")
        if task.state == "suspended":
            raise Refuse("task_suspended")
        if not task.live:
            raise Refuse("task_ended")
        if self.require_verified and task.assurance is not Assurance.VERIFIED:
            raise Refuse("identity_unverified")
        a.chain = self.chain(task)

    def chain(self, task: Task) -> tuple[Principal, ...]:
        """The task's principals as the directory has them now: the user (or owner), then agents.

        Raises:
            Refuse: One of them is unknown.
        """
        grant = task.grant
        chain = [self._principal(Kind.AGENT, name) for name in grant.agents]
        person = grant.user or chain[0].owner
        if not person:
            raise Refuse("principal_unknown", f"agent {chain[0].id} has no owner")
        return (self._principal(Kind.USER, person), *chain)

    def _principal(self, kind: Kind, name: str) -> Principal:
        found = self.directory.principal(kind, name)
        if found is None:
            raise Refuse("principal_unknown", f"{kind} {name} is not in the directory")
        return found

    def _scope(self, a: Attempt) -> None:
        assert a.task is not None and a.known is not None and a.args is not None
        grant, review = a.task.grant, a.known.review
        if a.at >= grant.expires:
            raise Refuse("grant_expired")
        if not grant.covers(review.key, review.effectful):
            raise Refuse("grant_scope", f"the task {grant.template or a.task.id} does not name it")
        validator = self._validators[a.call.tool.pin]
        view = {**a.args.view, **a.inputs}
        offending = grant.check(review.key, view, validator.defaults)
        if offending is not None:
            raise Refuse("grant_limit", f"argument {offending}")
        tenants = {p.tenant for p in a.chain} | {grant.tenant}
        if review.tenant:
            tenants.add(review.tenant)
        if len(tenants) != 1:
            raise Refuse("tenant", f"tenants {', '.join(sorted(tenants))}")
        a.facts = GrantFacts(
            task=grant.template,
            tenant=grant.tenant,
            user=a.chain[0],
            named=grant.tools is not None and review.key in grant.tools,
            limited=grant.pins(review.key, review),
            depth=grant.depth,
            expires=grant.expires,
        )
        a.spend = _spend(view, review.amount)

    def _protect(self, a: Attempt) -> None:
        assert a.args is not None
        found = self.protected.reached({**a.args.view, **a.inputs})
        if found is not None:
            raise Refuse("protected", f"argument {found}")

    def _reserve(self, a: Attempt) -> None:
        assert a.task is not None and a.known is not None
        if not a.task.reserve(a.spend):
            raise Refuse("budget_exceeded")
        a.reserved = True
        a.reservation = a.task.session.reserve(
            effect=a.effectful,
            spend=a.spend,
            fresh=bool(self.policy.reads(a.known.review.key)),
        )

    def _unreserve(self, a: Attempt) -> None:
        if a.task is None:
            return
        if a.reservation is not None:
            a.task.session.release(a.reservation, counted=False)
            a.reservation = None
        if a.reserved:
            a.task.refund(a.spend)
            a.reserved = False

    def _judge(self, a: Attempt) -> Stage:
        """Policy, and the asks it demands; each answer is followed by a whole new evaluation."""
        for _ in range(TRIES):
            answer = a.answer = yield from self._evaluate(a)
            asks = answer.asks
            if _permits(answer):
                if not a.repeat or "confirm:user" in a.met:
                    return
                asks = ("confirm:user",)
            if not asks:
                refuse = Refuse(
                    answer.reason if answer.reason in REFUSALS else "policy_error",
                    "; ".join((*answer.texts, answer.detail)).strip("; "),
                    policies=answer.policies,
                )
                if self.mode is Mode.OBSERVE and refuse.code in POLICY_STAGE:
                    a.observed = refuse
                    return
                raise refuse
            yield from self._ask(a, asks, answer)
            a.met |= set(asks)
        raise Refuse("policy_error", "the policy keeps asking for more")

    def _evaluate(self, a: Attempt) -> Generator[Io, Ended, Answer]:
        assert a.known is not None and a.args is not None
        assert a.task is not None and a.reservation is not None
        query = Query(
            chain=a.chain,
            review=a.known.review,
            input=a.args.view,
            grant=a.facts,
            session=a.reservation.facts,
            assurance=a.task.assurance,
            autonomous=a.task.grant.autonomous,
            met=a.met,
            now=int(a.at),
        )
        if not self.policy.blocking:
            try:
                answer = self.policy.evaluate(query)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # engines in other languages panic past Exception
                raise Refuse("policy_error", _told(error)) from None
        else:
            ended = yield Io(offload(lambda: self.policy.evaluate(query)), self.policy_seconds)
            if isinstance(ended.error, TimeoutError):
                raise Refuse("policy_timeout", f"no answer in {self.policy_seconds} s")
            if ended.error is not None:
                raise Refuse("policy_error", _told(ended.error))
            if ended.interrupted:
                raise Refuse("policy_error", "the caller was cancelled")
            answer = ended.value
        if type(answer) is not Answer:
            raise Refuse("policy_error", f"the engine answered {type(answer).__name__}")
        return answer

    def _ask(self, a: Attempt, asks: tuple[str, ...], answer: Answer) -> Stage:
        assert a.task is not None and a.args is not None
        why = answer.texts or (("an equal call has an unknown outcome",) if a.repeat else ())
        refusal: dict[str, Any] = {"asks": asks, "policies": answer.policies}
        if self.approvals is None:
            raise Refuse("ask_unavailable", "; ".join(why), **refusal)
        ask = Ask(
            kinds=asks,
            call_id=a.call_id,
            digest=a.digest,
            task=a.task.id,
            tenant=a.task.grant.tenant,
            user=a.task.grant.user,
            agent=a.chain[-1].id,
            tool=a.call.tool.key,
            arguments={**a.args.view, **a.inputs},
            why=why,
        )
        approvals = self.approvals
        ended = yield Io(offload(lambda: approvals.answer(ask)), self.ask_seconds)
        if ended.error is not None or ended.interrupted:
            raise Refuse("ask_unavailable", _told(ended.error), **refusal)
        match ended.value.state:
            case "granted":
                return
            case "rejected":
                raise Refuse("ask_rejected", ended.value.ref, **refusal)
            case "pending":
                raise Refuse("ask_required", "; ".join(why), pending=True, **refusal)
            case state:
                raise Refuse("ask_unavailable", f"the channel answered {state!r}", **refusal)

    # -- intent -----------------------------------------------------------------------------------

    def _intend(self, a: Attempt) -> Generator[Io, Ended, Committed | None]:
        """Records the decision; for an effect together with its intent. `None`: go on."""
        assert a.task is not None and a.reservation is not None and a.answer is not None
        decision = self._allow(a)
        entry = self._decision_entry(a, decision)
        if not a.task.begin(decision.call_id):
            raise Refuse("task_ended")
        started = False
        try:
            if not a.effectful:
                self.store.commit(entries=(entry,), durable=False)
            else:
                moved = yield from self._commit_intent(a, decision, entry)
                if moved is not None:
                    return moved
            started = True
        finally:
            if not started:
                a.task.finish(decision.call_id)
        self._decided(a, decision)
        a.decision = decision
        if not a.task.live:  # ended while the commit was under way
            self._not_started(a, "task_ended")
            raise Refuse("task_ended")
        return None

    def _commit_intent(
        self, a: Attempt, decision: Decision, entry: Entry
    ) -> Generator[Io, Ended, Committed | None]:
        assert a.task is not None and a.reservation is not None and a.answer is not None
        task, session = a.task, a.task.session
        counts = session.started(a.reservation)
        row = CallRow(
            decision.call_id, "started", a.digest, str(decision.tool), task.id, decision.id
        )
        writes: tuple[Write, ...] = (
            StartCall(row, session.tenant, session.conversation, a.spend),
            counts,
        )
        try:
            future = self.store.commit(self._guards(a, decision), writes, (entry,), durable=True)
        except StoreError:
            session.not_stored(counts)
            raise
        ended = yield Io(future, COMMIT_SECONDS)
        if ended.error is not None:
            session.not_stored(counts)
            # The commit may still land: then it started nothing, and says so.
            future.add_done_callback(lambda late: self._disown(a, decision, late))
            raise Refuse("record_unavailable", _told(ended.error))
        committed: Committed = ended.value
        if committed.moved is not None:
            session.not_stored(counts)
            return committed
        if ended.interrupted:
            self._decided(a, decision)
            a.decision = decision
            self._not_started(a, "interrupted")
            raise Refuse("record_unavailable", "the caller was cancelled before the body started")
        return None

    def _guards(self, a: Attempt, decision: Decision) -> tuple[Guard, ...]:
        assert a.task is not None and a.reservation is not None and a.answer is not None
        task, session, grant = a.task, a.task.session, a.task.grant
        guards: list[Guard] = [RevisionIs(self.store.revision), TaskIs(task.id)]
        guards += session.guard(a.reservation, a.answer.reads)
        guards.append(
            CallIsNew(
                decision.call_id, a.digest, session.tenant, session.conversation, repeat=a.repeat
            )
        )
        if grant.max_calls is not None or grant.max_spend_units is not None:
            guards.append(
                BudgetFits(task.id, 1, a.spend, grant.max_calls, grant.max_spend_units)
            )
        return tuple(guards)

    def _again(self, a: Attempt, committed: Committed) -> Stage:
        """What a moved guard means: a refusal, or another try with fresh facts."""
        assert a.task is not None
        match committed.moved:
            case CallIsNew() if committed.detail == "unknown" and not a.repeat:
                a.repeat = True
            case CallIsNew():
                raise Refuse("already_attempted", f"its first attempt: {committed.detail}")
            case TaskIs():
                raise Refuse("task_ended", committed.detail)
            case BudgetFits():
                raise Refuse("budget_exceeded", committed.detail)
            case _:
                a.task.session.moved()
                if not a.turn:  # take turns with the other calls of this session from here on
                    turn = a.task.session.turn
                    ended = yield Io(offload(lambda: turn.acquire(timeout=1.0)), 2.0)
                    a.turn = ended.value is True

    def _disown(self, a: Attempt, decision: Decision, late: Future[Committed]) -> None:
        if late.cancelled() or late.exception() is not None or late.result().moved is not None:
            return
        self._settle_not_started(a, decision, "record_unavailable")

    def _not_started(self, a: Attempt, code: str) -> None:
        """Settles an intent whose body will not start."""
        assert a.task is not None and a.decision is not None
        a.task.finish(a.decision.call_id)
        self._settle_not_started(a, a.decision, code)
        self._executed(a, a.decision, Outcome.NOT_STARTED)
        a.decision = None

    def _settle_not_started(self, a: Attempt, decision: Decision, code: str) -> None:
        assert a.task is not None
        writes: tuple[Write, ...] = ()
        if a.effectful and a.reservation is not None:
            refund = a.task.session.refund(a.reservation)
            writes = (SettleCall(decision.call_id, Outcome.NOT_STARTED), refund)
        entry = self._outcome_entry(a, decision, Outcome.NOT_STARTED, code)
        self._hand_over(writes, entry)

    # -- execution --------------------------------------------------------------------------------

    def _execute(self, a: Attempt, decision: Decision) -> Steps:
        assert a.task is not None and a.known is not None and a.args is not None
        assert a.reservation is not None
        token = _call_id.set(decision.call_id)
        a.body_ns = time.time_ns()
        try:
            ended = yield Body(a.args.values)
        finally:
            _call_id.reset(token)
        a.task.session.release(a.reservation, counted=not a.effectful)
        review = a.known.review
        growth = a.task.session.grow(review.produces, review.sources)
        writes: tuple[Write, ...] = (growth,) if growth is not None else ()
        if a.effectful:
            writes = (SettleCall(decision.call_id, ended.outcome), *writes)
        entry = self._outcome_entry(a, decision, ended.outcome, "")
        future = self._hand_over(writes, entry, durable=growth is not None)
        a.task.finish(decision.call_id)
        self._executed(a, decision, ended.outcome)
        reaches_model = ended.error is None or ended.outcome is Outcome.FAILED
        if growth is None or not reaches_model:
            return
        if future is None:
            raise self._withheld(a, decision, "the store does not take it")
        kept = yield Io(future, COMMIT_SECONDS)
        if kept.error is not None:
            raise self._withheld(a, decision, _told(kept.error))

    def _withheld(self, a: Attempt, decision: Decision, detail: str) -> Denied:
        refusal = REFUSALS["result_withheld"]
        return Denied(
            Decision(
                decision.id,
                decision.call_id,
                decision.tool,
                Verdict.DENY,
                Enforcement.BLOCK,
                "result_withheld",
                refusal.model,
                detail=detail,
            )
        )

    def _hand_over(
        self, writes: tuple[Write, ...], entry: Entry, *, durable: bool = False
    ) -> Future[Committed] | None:
        """Gives the store what has happened; if it cannot take it, recovery finds the call."""
        try:
            return self.store.commit(writes=writes, entries=(entry,), durable=durable)
        except StoreError as error:
            self.telemetry.degraded(_told(error))
            return None

    # -- decisions --------------------------------------------------------------------------------

    def _allow(self, a: Attempt) -> Decision:
        """The only place that builds an ALLOW."""
        if a.observed is not None:
            return self._refusal(a, a.observed, count=True, enforcement=Enforcement.OBSERVE)
        if a.answer is None or not _permits(a.answer):
            raise Refuse("internal_error", "no permit to build an ALLOW from")
        return Decision(
            ulid(a.at),
            a.call_id or ulid(a.at),
            a.call.tool.key,
            Verdict.ALLOW,
            Enforcement.PROCEED,
            PERMIT,
            "",
            a.answer.policies,
        )

    def _refusal(
        self,
        a: Attempt,
        refuse: Refuse,
        *,
        count: bool,
        enforcement: Enforcement = Enforcement.BLOCK,
    ) -> Decision:
        times = 0
        if count and a.task is not None:
            times = a.task.denied((*a.call.tool.key, a.digest, refuse.code))
        text = REFUSALS[refuse.code].model + (_STOP_TEXT if times >= STOP_AFTER else "")
        asked = refuse.asks and refuse.code != "ask_rejected"
        return Decision(
            ulid(a.at),
            a.call_id or ulid(a.at),
            a.call.tool.key,
            Verdict.ASK if asked else Verdict.DENY,
            Enforcement.SUSPEND if refuse.pending else enforcement,
            refuse.code,
            text,
            refuse.policies,
            refuse.asks,
            refuse.detail,
            final=times >= END_AFTER,
        )

    def _denied(self, a: Attempt, refuse: Refuse) -> Denied:
        decision = self._refusal(a, refuse, count=True)
        if refuse.pending and a.task is not None:
            a.task.pending.add(decision.id)
        try:
            self.store.commit(entries=(self._decision_entry(a, decision),), durable=False)
        except StoreError as error:
            self.telemetry.degraded(_told(error))
        self._decided(a, decision)
        return (Pending if refuse.pending else Denied)(decision)

    # -- what is told -----------------------------------------------------------------------------

    def _decision_entry(self, a: Attempt, decision: Decision) -> Entry:
        a.trace = self.telemetry.current()
        body: dict[str, Json] = {
            "id": decision.id,
            "enforcement": str(decision.enforcement),
            "policies": list(decision.policies),
            "asks": list(decision.asks),
            "met": sorted(a.met),
            "detail": decision.detail,
            "pep": a.call.pep.kind,
            "side": a.call.pep.side,
            "placement": self.placement,
            "mode": str(self.mode),
            "host_id": a.call.host_id,
            "pin": a.call.tool.pin,
            "digest": a.digest,
            "trace": a.trace[0],
        }
        if a.known is not None:
            body["impact"] = sorted(a.known.review.impact)
        if a.args is not None:
            body["arguments"] = self._recorded(a)
        if a.answer is not None:
            body["policy"] = a.answer.digest
        if a.reservation is not None:
            body["labels"] = sorted(a.reservation.facts.labels)
        if a.task is not None:
            body["chain"] = [str(principal) for principal in a.chain]
            body["assurance"] = str(a.task.assurance)
            body["grant"] = a.task.grant.id
            body["session"] = a.task.session.conversation
            body["template"] = a.task.grant.template
        return self._entry(a, "decision", decision, str(decision.verdict), decision.reason, body)

    def _recorded(self, a: Attempt) -> dict[str, Json]:
        """Recordable arguments in clear, the others of an effect as keyed digests."""
        assert a.args is not None
        recordable = a.known.review.recordable if a.known is not None else ()
        told: dict[str, Json] = {}
        for name, value in {**a.args.view, **a.inputs}.items():
            if name in recordable:
                told[name] = value if not isinstance(value, float) else repr(value)
            elif a.effectful:
                told[name] = {"digest": self.key.digest(canonical([name, value]))}
        return told

    def _outcome_entry(self, a: Attempt, decision: Decision, outcome: Outcome, code: str) -> Entry:
        body: dict[str, Json] = {"decision": decision.id, "digest": a.digest}
        if a.body_ns:
            body["duration_us"] = (time.time_ns() - a.body_ns) // 1000
        return self._entry(a, "outcome", decision, str(outcome), code, body)

    def _entry(
        self,
        a: Attempt,
        kind: str,
        decision: Decision,
        verdict: str,
        code: str,
        body: dict[str, Json],
    ) -> Entry:
        return Entry(
            kind,
            int(self.clock() * 1_000_000),
            body,
            decision.call_id,
            a.task.grant.tenant if a.task is not None else "",
            a.task.id if a.task is not None else "",
            str(decision.tool),
            verdict,
            code,
        )

    def _decided(self, a: Attempt, decision: Decision) -> None:
        head, task = self.store.head, a.task
        self.telemetry.decided(
            Decided(
                decision=decision,
                pep=a.call.pep,
                started_ns=a.started_ns,
                ended_ns=time.time_ns(),
                impact=a.known.review.impact if a.known is not None else None,
                registered=a.known is not None,
                pin=a.call.tool.pin,
                input_digest=a.digest,
                principal=a.chain[-1] if a.chain else None,
                user=self.key.digest(str(a.chain[0]).encode()) if a.chain else "",
                task=task.id if task is not None else "",
                grant=task.grant.id if task is not None else "",
                tenant=task.grant.tenant if task is not None else "",
                depth=task.grant.depth if task is not None else 0,
                assurance=str(task.assurance) if task is not None else "",
                host_call_id=a.call.host_id,
                conversation=task.session.conversation if task is not None else "",
                engine=self.policy.engine,
                policy_digest=a.answer.digest if a.answer is not None else "",
                hit=a.answer is not None and a.answer.hit,
                stream=head.stream,
                seq=head.seq,
                head=head.hash,
                failure=decision.reason != PERMIT and REFUSALS[decision.reason].failure,
                arguments=None,
            )
        )

    def _executed(self, a: Attempt, decision: Decision, outcome: Outcome) -> None:
        head = self.store.head
        self.telemetry.executed(
            Executed(
                decision_id=decision.id,
                call_id=decision.call_id,
                tool=decision.tool,
                outcome=outcome,
                duration_ns=time.time_ns() - a.body_ns if a.body_ns else 0,
                registered=a.known is not None,
                stream=head.stream,
                seq=head.seq,
                head=head.hash,
            )
        )


def _permits(answer: Answer) -> bool:
    return answer.allow is True and answer.reason == PERMIT and not answer.asks


def _failure(error: Exception) -> Refuse:
    code = "record_unavailable" if isinstance(error, StoreError) else "internal_error"
    return Refuse(code, _told(error))


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else ""


def _follow(root: Mapping[str, object], path: str) -> object:
    """The value at `state.draft.to`; a path that leads nowhere refuses the call."""
    found: object = root
    for step in path.split("."):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif not isinstance(found, Mapping) and hasattr(found, step):
            found = getattr(found, step)
        else:
            raise Refuse("input_hidden", f"{path} leads nowhere")
    return found


def _spend(view: Mapping[str, Json], name: str) -> int:
    value = view.get(name) if name else None
    if value is None:
        return 0
    try:
        if isinstance(value, bool | list | dict):
            raise InvalidOperation
        amount = Decimal(str(value))
        units = int((amount * UNITS).to_integral_value(ROUND_CEILING))
    except (InvalidOperation, OverflowError):
        raise Refuse("input_invalid", f"argument {name}: is not an amount") from None
    if units < 0:
        raise Refuse("input_invalid", f"argument {name}: is negative")
    return units
