"""What the gate leaves behind: the record of each decision and outcome, and their telemetry.

Rules enforced here:

1. A decision's record says who, for whom, what, why, under which policy, and what was done.
2. Arguments stand in clear only where the catalog says so; the others are keyed digests.
3. No record holds a secret, or more of an exception than its one line of text; and nothing that a
   host or a model says can make one unwritable.
4. Telemetry that fails changes neither a decision nor a result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from lictor.attempt import Attempt, RecordKey, encodable, recorded
from lictor.canonical import Json
from lictor.errors import PERMIT, REFUSALS, Denied
from lictor.forms import visible
from lictor.model import Assurance, Decision, Impact, Mode, Outcome, Principal
from lictor.ports import Clock, Entry, Head, Reply
from lictor.telemetry import Decided, Executed, Telemetry
from lictor.verdicts import STOP_TEXT

MAX_HOST_ID: Final = 256
STOPPED: Final = "the same call was refused before: the model was told to stop calling it"
MAX_KNOWN: Final = 10_000


@dataclass(slots=True)
class Teller:
    """Builds records and events."""

    telemetry: Telemetry
    key: RecordKey
    clock: Clock
    mode: Mode
    placement: str
    engine: str
    say: Callable[[str], None]
    _told: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)
    _users: dict[Principal, str] = field(default_factory=dict, init=False, repr=False)
    _impacts: dict[frozenset[Impact], Json] = field(default_factory=dict, init=False, repr=False)

    def decision(self, a: Attempt, decision: Decision) -> Entry:
        """The record of a decision."""
        a.trace = self._trace()
        body: dict[str, Json] = {
            "id": decision.id,
            "enforcement": str(decision.enforcement),
            "policies": _list(map(encodable, decision.policies)),
            "asks": _list(decision.asks),
            "met": _list(sorted(a.met)),
            "detail": encodable(decision.detail),
            "pep": a.call.pep.kind,
            "side": a.call.pep.side,
            "placement": self.placement,
            "mode": str(self.mode),
            "host_id": encodable(a.call.host_id[:MAX_HOST_ID]),
            "pin": a.call.tool.pin,
            "digest": a.digest,
            "trace": a.trace,
            "took_us": (time.time_ns() - a.started_ns) // 1000,
        }
        if a.found is not None:
            body["impact"] = self._impact(a.found.review.impact)
        if a.taken is not None:
            body["arguments"] = recorded(a, self.key)
        if a.answered is not None:
            body["policy"] = a.answer.digest
        if a.held is not None:
            body["labels"] = _list(sorted(a.reservation.facts.labels))
        if a.answers:
            body["answers"] = [_answer(a, reply) for reply in a.answers]
        task = a.found_task
        if task is not None:
            grant = task.grant
            body["chain"] = _list(map(str, a.chain))
            body["assurance"] = str(task.assurance)
            body["grant"] = grant.id
            body["session"] = task.session.conversation
            body["template"] = grant.template
            body["autonomous"] = grant.autonomous
            body["depth"] = grant.depth
        return self._entry(a, "decision", decision, str(decision.verdict), decision.reason, body)

    def outcome(self, a: Attempt, decision: Decision, outcome: Outcome, code: str) -> Entry:
        """The record of how an allowed call ended."""
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
        task = a.found_task
        return Entry(
            kind,
            int(self.clock() * 1_000_000),
            body,
            decision.call_id,
            task.grant.tenant if task is not None else "",
            task.id if task is not None else "",
            str(decision.tool),
            verdict,
            code,
        )

    def _impact(self, impact: frozenset[Impact]) -> Json:
        """Its names in order, sorted once for all tools that have the same."""
        found = self._impacts.get(impact)
        if found is None:
            found = self._impacts[impact] = _list(sorted(each.value for each in impact))
        return found

    def _pseudonym(self, user: Principal) -> str:
        found = self._users.get(user)
        if found is None:
            found = self.key.digest(str(user).encode())
            if len(self._users) < MAX_KNOWN:
                self._users[user] = found
        return found

    def decided(self, a: Attempt, decision: Decision, head: Head) -> None:
        """Span, log event and metrics of a decision."""
        try:
            failure = decision.reason != PERMIT and REFUSALS[decision.reason].failure
            if self.telemetry.listens(decision, failure=failure):
                a.ids = self.telemetry.decided(self._decided(a, decision, head, failure))
            else:  # what nobody hears is not put together
                self.telemetry.counted(
                    decision,
                    a.call.pep,
                    registered=a.found is not None,
                    failure=failure,
                    took_ns=time.time_ns() - a.started_ns,
                )
        except Exception:
            return

    def _decided(self, a: Attempt, decision: Decision, head: Head, failure: bool) -> Decided:
        task = a.found_task
        return Decided(
            decision=decision,
            pep=a.call.pep,
            started_ns=a.started_ns,
            ended_ns=time.time_ns(),
            impact=a.known.review.impact if a.found is not None else None,
            registered=a.found is not None,
            pin=a.call.tool.pin,
            input_digest=a.digest,
            principal=a.chain[-1] if a.chain else None,
            user=self._pseudonym(a.chain[0]) if a.chain else "",
            task=task.id if task is not None else "",
            grant=task.grant.id if task is not None else "",
            tenant=task.grant.tenant if task is not None else "",
            depth=task.grant.depth if task is not None else 0,
            assurance=str(task.assurance) if task is not None else "",
            host_call_id=a.call.host_id,
            conversation=task.session.conversation if task is not None else "",
            engine=self.engine,
            policy_digest=a.answer.digest if a.answered is not None else "",
            hit=a.answered is not None and a.answer.hit,
            stream=head.stream,
            seq=head.seq,
            head=head.hash,
            failure=failure,
            channels=tuple(sorted({reply.channel for reply in a.answers})),
            evidence=all(_evidence(a, reply) for reply in a.answers),
            arguments=self._clear(a),
        )

    def refused(self, a: Attempt, denied: Denied) -> None:
        """Tells the developer of a refusal once, and again when the model is told to stop."""
        decision = denied.decision
        stop = decision.text.endswith(STOP_TEXT)
        task = a.found_task.id if a.found_task is not None else ""
        what = (task, str(decision.tool), decision.reason, str(stop))
        if what in self._told:
            return
        if len(self._told) >= MAX_KNOWN:
            self._told.clear()
        self._told.add(what)
        text = "\n".join(map(visible, denied.diagnostics().split("\n")))
        with contextlib.suppress(Exception):
            self.say(f"{text}\n  {STOPPED}" if stop else text)

    def degraded(self, problem: str) -> None:
        """Says that a record could not be kept."""
        with contextlib.suppress(Exception):
            self.telemetry.degraded(problem)

    def _trace(self) -> str:
        try:
            return self.telemetry.current().trace_id
        except Exception:
            return ""

    @staticmethod
    def _clear(a: Attempt) -> dict[str, Json] | None:
        """Arguments that may stand in clear; telemetry tells them under its double opt-in only."""
        if a.found is None or a.taken is None:
            return None
        recordable = a.known.review.recordable
        return {name: a.view[name] for name in recordable if name in a.view} or None

    def executed(self, a: Attempt, decision: Decision, outcome: Outcome, head: Head) -> None:
        """Log event of an outcome."""
        with contextlib.suppress(Exception):
            if not self.telemetry.follows(outcome):
                return
            self.telemetry.executed(
                Executed(
                    decision_id=decision.id,
                    call_id=decision.call_id,
                    tool=decision.tool,
                    outcome=outcome,
                    duration_ns=time.time_ns() - a.body_ns if a.body_ns else 0,
                    registered=a.found is not None,
                    ids=a.ids,
                    stream=head.stream,
                    seq=head.seq,
                    head=head.hash,
                )
            )


def _list(texts: Iterable[str]) -> list[Json]:
    return list(texts)


def _answer(a: Attempt, reply: Reply) -> Json:
    """Whose answer a decision rests on."""
    return {
        "ask": reply.ref,
        "by": encodable(reply.by),
        "channel": reply.channel,
        "assurance": reply.assurance,
        "evidence": _evidence(a, reply),
    }


def _evidence(a: Attempt, reply: Reply) -> bool:
    """Whether the person was authenticated; under a development task, nobody is."""
    return reply.assurance == Assurance.VERIFIED and a.task.assurance is not Assurance.DEV
