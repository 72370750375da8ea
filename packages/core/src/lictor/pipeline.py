"""The one way through: from the call an adapter met to its result, with a record of both.

```
call ─► stages ► intent ═commit═► body ► labels ► outcome ─► result
```

Rules enforced here:

1. The first refusal wins; an exception of any part is a refusal too.
2. A body starts only after its decision is recorded: an effect's intent and decision in one durable
   transaction, a read's record handed to a healthy writer.
3. What the decision rested on is checked again in that transaction; if it moved, the call is
   decided again, three times at most.
4. What runs is the copy that was checked.
5. What a result adds to the session is on disk before the result is released; else it is withheld.
6. A call whose caller is gone before the body started never starts it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from lictor.attempt import Attempt, Refuse
from lictor.drive import Body, Ended, Io, Steps, wait
from lictor.errors import REFUSALS, Denied, Pending, StoreError, Withheld
from lictor.model import (
    Decision,
    Outcome,
    ToolCall,
    ulid,
)
from lictor.offload import offload
from lictor.ports import (
    AskIs,
    BudgetFits,
    CallIsNew,
    CallRow,
    Committed,
    Entry,
    GrowSession,
    Guard,
    Query,
    RevisionIs,
    SettleCall,
    StartCall,
    Store,
    TaskIs,
    UseAsk,
    Write,
)
from lictor.record import Teller
from lictor.stages import TRIES, Stage, Stages, told
from lictor.task import _call_id, current
from lictor.verdicts import allow, late, refusal

COMMIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Takes calls through the stages, the store and their bodies."""

    stages: Stages
    store: Store
    teller: Teller

    # -- entries ----------------------------------------------------------------------------------

    def steps(self, call: ToolCall) -> Steps:
        """One attempt, for a driver."""
        attempt = self._met(call)
        try:
            yield from self._authorize(attempt)
        except Refuse as refuse:
            raise self._denied(attempt, refuse) from None
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # parts in other languages panic past Exception
            raise self._denied(attempt, _failure(error)) from error
        finally:
            if attempt.decision is None:
                self.stages.unreserve(attempt)
        yield from self._execute(attempt)

    def _met(self, call: ToolCall) -> Attempt:
        at = self.stages.clock()
        return Attempt(call, at, time.time_ns(), ulid(at))

    def refuse(self, call: ToolCall, code: str, detail: str = "") -> Denied:
        """Records an attempt that never reaches a body."""
        attempt = self._met(call)
        attempt.found_task = current()
        try:
            attempt.found = self.stages.catalog.known(call.tool.key)
            self.stages.take(attempt)
        except Exception as error:  # what is refused may be anything at all
            detail = detail or told(error)
        if code not in REFUSALS:
            code, detail = "internal_error", f"{code!r} is no reason to refuse"
        return self._denied(attempt, Refuse(code, detail))

    def preview(self, call: ToolCall) -> tuple[Decision, Query | None]:
        """What would be decided now, and the question to policy if it came so far.

        Nothing is recorded, reserved or consumed.
        """
        attempt, query = self._met(call), None
        try:
            self.stages.examine(attempt)
            self.stages.locate(attempt)
            self.stages.reserve(attempt)
            query = self.stages.query(attempt)
            self._foresee(attempt)
            _drive_here(self.stages.judge(attempt, asking=False))
            return allow(attempt, count=False), query
        except Refuse as refuse:
            return refusal(attempt, refuse, count=False), query
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return refusal(attempt, _failure(error), count=False), query
        finally:
            self.stages.unreserve(attempt)

    def _foresee(self, a: Attempt) -> None:
        """What the intent of an effect would meet in the store."""
        if not a.effectful:
            return
        found = self.store.call(a.call_id)
        if found is not None and found.state not in (Outcome.NOT_STARTED, Outcome.SUSPENDED):
            raise Refuse("already_attempted", f"its first attempt: {found.state}")
        session = a.task.session
        if self.store.unknown(session.tenant, session.conversation, a.digest) and not a.repeat:
            a.repeat, a.overtaken = True, a.answers
            self._forget(a)  # who agreed to the call did not know that it is a repeat

    @staticmethod
    def _forget(a: Attempt) -> None:
        """What people have said does not count here; they are asked anew."""
        a.met, a.answers = frozenset(), ()

    def _authorize(self, a: Attempt) -> Stage:
        try:
            self.stages.examine(a)
        except Refuse as refuse:
            yield from self.stages.review(a, refuse)
            self.stages.examine(a)
        try:
            for _ in range(TRIES):
                a.revision = self.store.revision
                self.stages.locate(a)
                self.stages.reserve(a)
                yield from self.stages.judge(a)
                moved = yield from self._intend(a)
                if moved is None:
                    return
                self.stages.unreserve(a)
                yield from self._again(a, moved)
        finally:
            if a.turn and a.found_task is not None:
                a.turn = False
                a.task.session.turn.release()
        raise Refuse("contention")

    # -- intent -----------------------------------------------------------------------------------

    def _intend(self, a: Attempt) -> Generator[Io, Ended, Committed | None]:
        """Records the decision; for an effect together with its intent. `None`: go on."""
        decision = allow(a, count=True)
        entry = self.teller.decision(a, decision)
        if not a.task.begin(decision.call_id):
            raise Refuse("task_ended")
        started = False
        try:
            if not a.effectful and not a.answers:
                future = self.store.commit(entries=(entry,), durable=False)
                if self.store.behind:  # no faster than the disk, but no refusal either
                    written = yield Io(future, COMMIT_SECONDS)
                    if written.error is not None:
                        future.add_done_callback(
                            lambda landed: self._disown(a, decision, None, landed)
                        )
                        raise Refuse("record_unavailable", told(written.error))
            else:
                moved = yield from self._commit_intent(a, decision, entry)
                if moved is not None:
                    return moved
            started = True
        finally:
            if not started:
                a.task.finish(decision.call_id)
        self.teller.decided(a, decision, self.store.head)
        a.decision = decision
        return None

    def _commit_intent(
        self, a: Attempt, decision: Decision, entry: Entry
    ) -> Generator[Io, Ended, Committed | None]:
        session = a.task.session
        counts = session.started(a.reservation) if a.effectful else None
        writes = self._writes(a, decision, counts)

        def not_stored() -> None:
            if counts is not None:
                session.not_stored(counts)

        try:
            future = self.store.commit(self._guards(a, decision), writes, (entry,), durable=True)
        except BaseException:
            not_stored()
            raise
        ended = yield Io(future, COMMIT_SECONDS)
        if ended.error is not None:
            not_stored()
            # The commit may still land: then it started nothing, and says so.
            future.add_done_callback(lambda landed: self._disown(a, decision, counts, landed))
            raise Refuse("record_unavailable", told(ended.error))
        committed: Committed = ended.value
        if committed.moved is not None:
            not_stored()
            return committed
        return None

    @staticmethod
    def _writes(a: Attempt, decision: Decision, counts: GrowSession | None) -> tuple[Write, ...]:
        uses = tuple(UseAsk(reply.ref, decision.id) for reply in (*a.answers, *a.overtaken))
        if counts is None:
            return uses
        session = a.task.session
        row = CallRow(
            decision.call_id, "started", a.digest, str(decision.tool), a.task.id, decision.id
        )
        return (StartCall(row, session.tenant, session.conversation, a.spend), counts, *uses)

    def _guards(self, a: Attempt, decision: Decision) -> tuple[Guard, ...]:
        task, session, grant = a.task, a.task.session, a.task.grant
        agreed = a.repeat and "confirm:user" in a.met
        guards: list[Guard] = [RevisionIs(a.revision)]
        guards += [TaskIs(each.id) for each in task.line()]
        guards += session.guard(a.reservation, a.answer.reads)
        guards += [AskIs(reply.ref) for reply in (*a.answers, *a.overtaken)]
        if not a.effectful:
            return tuple(guards)
        guards.append(
            CallIsNew(
                decision.call_id, a.digest, session.tenant, session.conversation, repeat=agreed
            )
        )
        if grant.max_calls is not None or grant.max_spend_units is not None:
            guards.append(BudgetFits(task.id, 1, a.spend, grant.max_calls, grant.max_spend_units))
        return tuple(guards)

    def _again(self, a: Attempt, committed: Committed) -> Stage:
        """What a moved guard means: a refusal, or another try with fresh facts."""
        match committed.moved:
            case CallIsNew() if committed.detail == Outcome.UNKNOWN and not a.repeat:
                self._foresee(a)  # this very call, or another one like it
            case CallIsNew():
                raise Refuse("already_attempted", f"its first attempt: {committed.detail}")
            case AskIs() as used:  # another attempt has used the answer, or the task has ended
                left = tuple(each for each in a.overtaken if each.ref != used.ask)
                if left == a.overtaken:
                    self._forget(a)
                a.overtaken = left
            case TaskIs():
                raise Refuse("task_ended", committed.detail)
            case BudgetFits():
                raise Refuse("budget_exceeded", committed.detail)
            case _:
                a.task.session.moved()
                if not a.turn:  # take turns with the other calls of this session from here on
                    turn = a.task.session.turn
                    ended = yield Io(offload(lambda: turn.acquire(timeout=1.0), a.whose), 2.0)
                    a.turn = ended.value is True

    def _disown(
        self, a: Attempt, decision: Decision, counts: GrowSession | None, landed: Future[Committed]
    ) -> None:
        """A commit that landed after its caller was told no: nothing began, and all is undone."""
        if landed.cancelled() or landed.exception() or landed.result().moved is not None:
            return
        writes: tuple[Write, ...] = ()
        if counts is not None:
            a.task.session.moved()
            back = replace(
                counts, calls=-counts.calls, effects=-counts.effects, spent=-counts.spent
            )
            writes = (SettleCall(decision.call_id, Outcome.NOT_STARTED), back)
        entry = self.teller.outcome(a, decision, Outcome.NOT_STARTED, "record_unavailable")
        self._hand_over(writes, entry)

    def _settle_not_started(self, a: Attempt, decision: Decision, code: str) -> None:
        writes: tuple[Write, ...] = ()
        if a.effectful:
            refund = a.task.session.refund(a.reservation)
            writes = (SettleCall(decision.call_id, Outcome.NOT_STARTED), refund)
        entry = self.teller.outcome(a, decision, Outcome.NOT_STARTED, code)
        self._hand_over(writes, entry)

    # -- execution --------------------------------------------------------------------------------

    def _execute(self, a: Attempt) -> Steps:
        decision = a.recorded
        if not a.task.live:  # ended while the intent was under way
            self._abandon(a, "task_ended")
            raise Denied(late(decision, "task_ended", ""))
        token = _call_id.set(decision.call_id)
        a.body_ns = time.time_ns()
        try:
            ended = yield Body(a.args.values)
        finally:
            _call_id.reset(token)
        if ended.outcome is Outcome.NOT_STARTED:
            self._abandon(a, "interrupted")
            return
        review, session = a.known.review, a.task.session
        session.release(a.reservation, counted=not review.effectful)
        growth = session.grow(review.produces, review.sources)
        writes: tuple[Write, ...] = (growth,) if growth is not None else ()
        if review.effectful:
            writes = (SettleCall(decision.call_id, ended.outcome), *writes)
        withheld = ended.error if isinstance(ended.error, Withheld) else None
        code = "result_withheld" if withheld is not None else ""
        entry = self.teller.outcome(a, decision, ended.outcome, code)
        future = self._hand_over(writes, entry, durable=growth is not None)
        a.task.finish(decision.call_id)
        self.teller.executed(a, decision, ended.outcome, self.store.head)
        if withheld is not None:
            raise Denied(late(decision, "result_withheld", told(withheld)))
        reaches_model = ended.error is None or ended.outcome is Outcome.FAILED
        if growth is None or not reaches_model:
            return
        if future is None:
            raise Denied(late(decision, "result_withheld", "the store does not take it"))
        kept = yield Io(future, COMMIT_SECONDS)
        if kept.error is not None:
            raise Denied(late(decision, "result_withheld", told(kept.error)))

    def _abandon(self, a: Attempt, code: str) -> None:
        """Settles an allowed call whose body does not start."""
        self._settle_not_started(a, a.recorded, code)
        a.task.finish(a.recorded.call_id)
        self.stages.unreserve(a)
        self.teller.executed(a, a.recorded, Outcome.NOT_STARTED, self.store.head)

    def _hand_over(
        self, writes: tuple[Write, ...], entry: Entry, *, durable: bool = False
    ) -> Future[Committed] | None:
        """Gives the store what has happened; if it cannot take it, recovery finds the call."""
        try:
            return self.store.commit(writes=writes, entries=(entry,), durable=durable)
        except Exception as error:
            self.teller.degraded(told(error))
            return None

    # -- refusals ---------------------------------------------------------------------------------

    def _denied(self, a: Attempt, refuse: Refuse) -> Denied:
        decision = refusal(a, refuse, count=True)
        if refuse.pending and a.found_task is not None:
            a.task.waits(a.digest)
        try:
            self.store.commit(entries=(self.teller.decision(a, decision),), durable=False)
        except Exception as error:  # the refusal stands, recorded or not
            self.teller.degraded(told(error))
        self.teller.decided(a, decision, self.store.head)
        denied = (Pending if refuse.pending else Denied)(decision)
        self.teller.refused(a, denied)
        return denied


def _drive_here(steps: Stage) -> None:
    """Runs stages on this thread, waits and all."""
    command = next(steps, None)
    try:
        while isinstance(command, Io):
            command = steps.send(wait(command)[0])
    except StopIteration:
        return


def _failure(error: BaseException) -> Refuse:
    code = "record_unavailable" if isinstance(error, StoreError) else "internal_error"
    return Refuse(code, told(error))
