"""The stages of a decision: each looks at one thing and refuses, or lets the call go on.

```
catalog+schema ► identity ► grant+tenant ► protected ► budget ► policy ► ask
```

Rules enforced here:

1. The pin is looked up first; arguments are validated against the pinned schema only.
2. Principals, roles and tenants are the directory's, as they are at this moment.
3. An argument that the limits do not name is let through only at its schema default.
4. Budget and session facts are reserved before policy sees them.
5. While the files that the gate was made from are not what was loaded, nothing has an effect.
6. An engine that raises, hangs or answers anything but an `Answer` has denied.
7. An answered ask is followed by a whole new evaluation; an answer is never an ALLOW by itself,
   and counts only for a session of which the person knew all that has entered it.
8. Observe mode lets only policy-stage denials go on, and only here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from threading import Event
from typing import Any, Final, TypeAlias

from lictor import schema
from lictor.attempt import Attempt, RecordKey, Refuse, encodable, recorded
from lictor.canonical import InputInvalid, Json, canonical, take
from lictor.catalog import Catalog
from lictor.drive import Body, Ended, Io
from lictor.errors import POLICY_STAGE, REFUSALS, ConfigError, StoreError
from lictor.model import (
    UNITS,
    Assurance,
    Impact,
    Kind,
    Mode,
    Principal,
    Tool,
    ToolCall,
    ToolKey,
    derived_id,
)
from lictor.offload import PEOPLE, offload
from lictor.ports import (
    Answer,
    Approvals,
    Ask,
    Clock,
    Directory,
    GrantFacts,
    Known,
    Policy,
    Query,
    Reviewer,
    SessionFacts,
)
from lictor.protect import Protected
from lictor.schema import Validator
from lictor.task import Task, current
from lictor.verdicts import permits

TRIES: Final = 3
MAX_TOLD: Final = 300
REPEAT: Final = "An equal call has an unknown outcome: it may have been done already."
_OVER: Final = {"expired": "ask_unanswered", "ended": "task_ended"}
REVIEW_SECONDS: Final = 900.0
NO_CHANNEL: Final = "this gate has no channel to a person"
MAX_UNITS: Final = 2**62
"""What sums of amounts still fit, in 64 bits."""

Stage: TypeAlias = Generator[Io | Body, Ended, None]
_NOTHING: Final = Protected(())


def _unnoted(tool: Tool) -> None:
    """Where no definitions are kept."""


@dataclass(slots=True)
class Stages:
    """The stages, with the parts they ask."""

    catalog: Catalog
    policy: Policy
    directory: Directory
    key: RecordKey
    keeper: object
    clock: Clock = time.time
    approvals: Approvals | None = None
    reviewer: Reviewer | None = None
    note: Callable[[Tool], None] = _unnoted
    protected: Protected = _NOTHING
    mode: Mode = Mode.ENFORCE
    placement: str = "p0"
    require_verified: bool = False
    policy_seconds: float = 2.0
    ask_seconds: float = 130.0
    held_back: str = ""
    _validators: dict[str, Validator] = field(default_factory=dict)
    _names: dict[ToolKey, bytes] = field(default_factory=dict)

    def examine(self, a: Attempt) -> None:
        """Catalog, then schema: the pin is looked up before anything of the tool is used."""
        tool = a.call.tool
        a.found_task = current()
        a.found = self.catalog.known(tool.key)
        code = self.catalog.check(tool)
        if code is not None or a.found is None:
            self.take(a, quietly=True)
            raise Refuse(code or "tool_unreviewed")
        review = a.known.review
        if "execute" in review.impact and self.placement == "p0" and not review.isolation:
            raise Refuse("tool_isolation")
        self.take(a)
        try:
            self._validator(a).check(a.args.view, a.args.encoded)
        except InputInvalid as error:
            raise Refuse("input_invalid", str(error)) from None

    def swap(self, catalog: Catalog, policy: Policy) -> None:
        """Decides with these from now on; calls under way end with what they have looked up."""
        self.catalog, self.policy = catalog, policy

    def review(self, a: Attempt, refuse: Refuse) -> Generator[Io, Ended, None]:
        """Has a person look at a tool that nobody has reviewed; refuses unless that decides it."""
        if refuse.code not in ("tool_unreviewed", "tool_changed"):
            raise refuse
        self.note(a.call.tool)  # else `lictor review` would have nothing to show
        if self.reviewer is None:
            raise refuse
        self.identify(a)  # nobody is disturbed for a call that could not be made anyway
        if a.taken is None:
            self.take(a)  # they are refused here: the person would see other arguments
        reviewer, gone, code = self.reviewer, Event(), refuse.code
        tool, view = a.call.tool, a.args.view
        ended = yield Io(
            offload(lambda: reviewer.review(tool, view, code, gone), a.whose, PEOPLE),
            REVIEW_SECONDS,
            gone.set,
        )
        if ended.interrupted:
            raise Refuse("interrupted")
        if ended.error is not None or ended.value != "":
            raise Refuse(code, told(ended.error) or str(ended.value))

    def _validator(self, a: Attempt) -> Validator:
        """The validator of the pinned schema; compiled once for each pin."""
        tool = a.known.tool
        found = self._validators.get(tool.pin)
        if found is None:
            found = self._validators[tool.pin] = schema.compile(tool.input_schema)
        return found

    def take(self, a: Attempt, *, quietly: bool = False) -> None:
        """Copies the arguments; derives their digest and the call's id."""
        call = a.call
        try:
            a.taken = take(call.arguments)
            if a.found is not None and call.tool.injected and a.known.review.effectful:
                a.inputs = self._inputs(a.known, call)
        except InputInvalid as error:
            if quietly:
                return
            raise Refuse("input_invalid", str(error)) from None
        # Without the pin: a call stays the same call when its tool is locked anew.
        data = b'{"arguments":%b,"inputs":%b,"tool":%b}' % (
            a.taken.encoded,
            canonical(a.inputs) if a.inputs else b"{}",
            self._named(a),
        )
        a.digest = self.key.digest(data)
        if call.host_id and a.found_task is not None:
            session = a.task.session
            host_id = encodable(call.host_id)  # some hosts let the model choose it
            a.call_id = derived_id(session.tenant, session.conversation, host_id, a.digest)

    def _named(self, a: Attempt) -> bytes:
        """The tool's name as canonical JSON; kept where the catalog bounds how many there are."""
        key = a.call.tool.key
        name = self._names.get(key)
        if name is None:
            name = canonical(str(key))
            if a.found is not None:
                self._names[key] = name
        return name

    @staticmethod
    def _inputs(known: Known, call: ToolCall) -> dict[str, Json]:
        """The injected values the catalog names; an effect that takes others is not checkable."""
        if not known.review.inputs:
            raise Refuse("input_hidden", f"it takes {', '.join(call.tool.injected)}")
        named = {path: _follow(call.injected, path) for path in known.review.inputs}
        return take(named).view

    def locate(self, a: Attempt) -> None:
        """Who asks, under what, for what: as all of it stands at this moment."""
        a.at = self.clock()
        self.identify(a)
        self.scope(a)
        self.protect(a)

    def identify(self, a: Attempt) -> None:
        """Task and principals, as they stand now."""
        task = a.found_task
        if task is None:
            raise Refuse("task_missing")
        if task.keeper is not self.keeper:
            raise Refuse("task_missing", f"task {task.id} is open, but of another gate")
        if task.state == "suspended":
            raise Refuse("task_suspended", f"task {task.id}")
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
            known = ", ".join(self.directory.near(kind, name)) or "none"
            raise Refuse("principal_unknown", f"{kind.lower()} {name} is not known ({known})")
        return found

    def scope(self, a: Attempt) -> None:
        """Grant, then tenant."""
        task, review = a.task, a.known.review
        grant = task.grant
        if task.expired(a.at):
            raise Refuse("grant_expired")
        if not grant.covers(review.key, review.effectful):
            raise Refuse("grant_scope", f"the task {grant.template or task.id} does not name it")
        offending = grant.check(review.key, a.view, self._validator(a).defaults)
        if offending is not None:
            raise Refuse("grant_limit", f"argument {offending}")
        tenants = [grant.tenant, *[p.tenant for p in a.chain], review.tenant or grant.tenant]
        if tenants.count(grant.tenant) != len(tenants):
            raise Refuse("tenant", f"tenants {', '.join(sorted(set(tenants)))}")
        a.facts = self._facts(a)
        a.spend = self._spend(a)

    @staticmethod
    def _facts(a: Attempt) -> GrantFacts:
        """What policy may know of the grant; the same for every call of a tool in a task."""
        task, review, user = a.task, a.known.review, a.chain[0]
        grant, kept = task.grant, task.granted.get(review.key)
        if kept is None or kept.user != user:
            kept = task.granted[review.key] = GrantFacts(
                task=grant.template,
                tenant=grant.tenant,
                user=user,
                named=grant.tools is not None and review.key in grant.tools,
                limited=grant.pins(review.key, review),
                depth=grant.depth,
                expires=grant.expires,
            )
        return kept

    def _spend(self, a: Attempt) -> int:
        """The amount, in 1/10,000; where a budget of spend holds, it must be known."""
        review = a.known.review
        name, bound = review.amount, a.task.grant.max_spend is not None
        if bound and not name and Impact.TRANSFER in review.impact:
            raise Refuse("budget_exceeded", "the catalog names no amount to count")
        if not name:
            return 0
        value = a.view.get(name)
        if value is None:
            value = self._validator(a).defaults.get(name)
            if value is None and bound:
                raise Refuse("input_invalid", f"argument {name}: the budget needs the amount")
        return units(value, name)

    def protect(self, a: Attempt) -> None:
        """The gate's own home."""
        if self.held_back and a.effectful:
            raise Refuse("config_changed", self.held_back)
        review = a.known.review
        found = self.protected.reached(a.view, review.impact, review.roots)
        if found is not None:
            raise Refuse("protected", f"argument {found}")

    def reserve(self, a: Attempt) -> None:
        """Budget and session facts, this call included."""
        task, review = a.task, a.known.review
        if not task.reserve(a.spend):
            raise Refuse("budget_exceeded")
        a.charged = True
        a.held = task.session.reserve(
            effect=review.effectful,
            spend=a.spend,
            fresh=bool(self.policy.reads(review.key)),
            grows=bool(review.produces or review.sources),
        )

    def unreserve(self, a: Attempt) -> None:
        """Gives both back."""
        if a.found_task is None:
            return
        if a.held is not None:
            a.task.session.release(a.reservation, counted=False)
            a.held = None
        if a.charged:
            a.task.refund(a.spend)
            a.charged = False

    def judge(self, a: Attempt, *, asking: bool = True) -> Stage:
        """Policy, and the asks it demands; each answer is followed by a whole new evaluation.

        Args:
            a: The attempt.
            asking: Really ask; a preview disturbs nobody.
        """
        for _ in range(TRIES):
            a.observed = None
            self._still_told(a)
            answer = a.answered = yield from self._evaluate(a)
            asks = answer.asks
            if permits(answer):
                if not a.repeat or "confirm:user" in a.met:
                    return
                asks = ("confirm:user",)
            if not asks:
                refuse = Refuse(
                    answer.reason if answer.reason in REFUSALS else "policy_error",
                    _listed(*answer.texts, answer.detail),
                    policies=answer.policies,
                )
                if self.mode is Mode.OBSERVE and refuse.code in POLICY_STAGE:
                    a.observed = refuse
                    return
                raise refuse
            if not asking and self.approvals is not None:
                raise Refuse("ask_required", "", asks=asks, policies=answer.policies)
            yield from self._ask(a, asks, answer)
            a.met |= set(asks)
            # A person takes minutes: what was true before the question must be true after it.
            self.unreserve(a)
            blocked = self.catalog.check(a.call.tool)
            if blocked is not None:
                raise Refuse(blocked)
            self.locate(a)
            self.reserve(a)
        raise Refuse("policy_error", "the policy keeps asking for more")

    def query(self, a: Attempt) -> Query:
        """The question to the engine."""
        return Query(
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

    def _evaluate(self, a: Attempt) -> Generator[Io, Ended, Answer]:
        query = self.query(a)
        if not self.policy.blocking:
            try:
                answer = self.policy.evaluate(query)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # engines in other languages panic past Exception
                raise Refuse("policy_error", told(error)) from None
        else:
            ended = yield Io(
                offload(lambda: self.policy.evaluate(query), a.whose), self.policy_seconds
            )
            if isinstance(ended.error, TimeoutError):
                raise Refuse("policy_timeout", f"no answer in {self.policy_seconds} s")
            if ended.error is not None:
                raise Refuse("policy_error", told(ended.error))
            if ended.interrupted:
                raise Refuse("interrupted")
            answer = ended.value
        if type(answer) is not Answer:
            raise Refuse("policy_error", f"the engine answered {type(answer).__name__}")
        if not all(type(text) is str for text in (*answer.policies, *answer.texts, *answer.asks)):
            raise Refuse("policy_error", "the engine answered with something that is no text")
        return answer

    def _ask(self, a: Attempt, asks: tuple[str, ...], answer: Answer) -> Stage:
        why = ((REPEAT,) if a.repeat else ()) + answer.texts
        refusal: dict[str, Any] = {"asks": asks, "policies": answer.policies}
        if self.approvals is None:
            raise Refuse("ask_unavailable", _listed(*why, NO_CHANNEL), **refusal)
        ask, approvals = self._question(a, asks, why), self.approvals
        future = offload(lambda: approvals.answer(ask), a.whose, PEOPLE)
        ended = yield Io(future, self.ask_seconds, ask.gone.set)
        if ended.interrupted:
            if approvals.lasting:  # the question stays where somebody can still answer it
                a.task.waits(a.digest)
            raise Refuse("interrupted")
        if ended.error is not None:
            raise Refuse("ask_unavailable", told(ended.error), **refusal)
        reply = ended.value
        match reply.state:
            case "granted":
                a.task.heard(a.digest)
                a.told = SessionFacts(labels=ask.labels, sources=ask.sources)
                a.answers = (*(each for each in a.answers if each.ref != reply.ref), reply)
            case "rejected":
                a.task.heard(a.digest)
                raise Refuse("ask_rejected", f"{reply.by} at {reply.channel}", **refusal)
            case "pending":
                raise Refuse("ask_required", _listed(*why), pending=True, **refusal)
            case "expired" | "ended" as state:
                self.identify(a)  # a task that has ended takes its questions with it
                raise Refuse(_OVER[state], reply.detail, **refusal)
            case "unavailable":
                raise Refuse("ask_unavailable", _listed(*why, reply.detail), **refusal)
            case state:
                raise Refuse("ask_unavailable", f"the channel answered {state!r}", **refusal)

    @staticmethod
    def _still_told(a: Attempt) -> None:
        """What has entered the session since the question, the person has not been told of."""
        facts = a.reservation.facts
        if not (facts.labels <= a.told.labels and facts.sources <= a.told.sources):
            a.met, a.answers = frozenset(), ()

    def _question(self, a: Attempt, asks: tuple[str, ...], why: tuple[str, ...]) -> Ask:
        facts = a.reservation.facts
        return Ask(
            kinds=asks,
            call_id=a.call_id,
            digest=a.digest,
            task=a.task.id,
            tenant=a.task.grant.tenant,
            user=a.whose.user,
            agent=a.chain[-1].id,
            tool=a.call.tool.key,
            arguments=a.view,
            why=why,
            impact=tuple(sorted(each.value for each in a.known.review.impact)),
            recorded=recorded(a, self.key),
            labels=facts.labels,
            sources=facts.sources,
            assurance=str(a.task.assurance),
            repeat=a.repeat,
            expires=a.task.grant.expires,
        )


def _listed(*texts: str) -> str:
    """Sentences in one line."""
    *before, last = [text for text in texts if text] or [""]
    return "; ".join((*(text.removesuffix(".") for text in before), last))


def told(error: BaseException | None) -> str:
    """An error in one line for the operator."""
    if error is None:
        return ""
    try:
        text = str(error)
        if isinstance(error, ConfigError | StoreError):
            text = f"{error.problem}; {error.mend}"
    except Exception:  # its text is code of whoever raised it
        text = "(its text cannot be had)"
    return encodable(f"{type(error).__name__}: {text}".partition("\n")[0][:MAX_TOLD])


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


def units(value: Json, name: str) -> int:
    """An amount in 1/10,000 of the currency unit, rounded up."""
    if value is None:
        return 0
    try:
        if isinstance(value, bool | list | dict):
            raise InvalidOperation
        found = int((Decimal(str(value)) * UNITS).to_integral_value(ROUND_CEILING))
    except (InvalidOperation, OverflowError, ValueError):
        raise Refuse("input_invalid", f"argument {name}: is not an amount") from None
    if not 0 <= found <= MAX_UNITS:
        raise Refuse("input_invalid", f"argument {name}: is negative or too large")
    return found
