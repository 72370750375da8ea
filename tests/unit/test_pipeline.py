"""One call through the pipeline: one decision record, one outcome record, at most one body."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lictor import audit, pipeline
from lictor.errors import Denied, Pending, StoreError, Withheld
from lictor.model import Enforcement, Impact, Mode, Principal, ToolCall, ToolKey, Verdict
from lictor.ports import Answer, Ask, Committed, Reply, SettleCall, StartCall
from lictor.task import _call_id, call_id, current
from lictor.testing import (
    DenyAll,
    UnsafeAllowAll,
    UnsafeApprovals,
    UnsafeScripted,
    UnsafeStore,
    gate_for,
    reviewed,
    tool_of,
)

World = Any
Make = Callable[..., Any]
WAIT = 20.0

YES = Answer(True, "permit", ("p",))
NO = Answer(False, "policy_denied", ("f",))
ASKS = Answer(False, "ask_required", ("f",), asks=("confirm:user",))


class Panic(BaseException):
    """What an engine in another language raises."""


def pay(world: World, host_id: str = "c1", **more: object) -> ToolCall:
    return world.call(world.pay, host_id, **{"to": "bob", "amount": 1, **more})


def arun(world: World, call: ToolCall) -> str:
    async def main() -> str:
        try:
            await world.gate.arun(call, world.abody)
        except Denied as denied:
            return denied.decision.reason
        return "permit"

    return asyncio.run(main())


# -- the way through ------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", ["sync", "async"])
@pytest.mark.parametrize("effect", [False, True])
def test_an_allowed_call_has_one_decision_one_outcome_and_one_run(
    world: Make, drive: str, effect: bool
) -> None:
    w = world()
    call = pay(w) if effect else w.call(w.look, "c1", n=1)
    with w.task():
        assert (w.try_(call) if drive == "sync" else arun(w, call)) == "permit"
    assert w.decisions() == ["allow:permit"]
    assert w.outcomes() == ["done"]
    assert w.runs == [dict(call.arguments)]
    assert w.ok()


@pytest.mark.parametrize("drive", ["sync", "async"])
def test_a_refused_call_has_one_decision_and_no_run(world: Make, drive: str) -> None:
    w = world(policy=DenyAll())
    with w.task():
        assert (w.try_(pay(w)) if drive == "sync" else arun(w, pay(w))) == "no_permit"
    assert (w.decisions(), w.outcomes(), w.runs) == (["deny:no_permit"], [], [])


def test_what_runs_is_the_copy_that_was_checked(world: Make) -> None:  # rule 4
    seen: list[object] = []
    items: list[object] = [1]

    def engine(query: Any) -> Answer:
        items.append(2)  # somebody else's reference, after the check
        return YES

    tool = tool_of("note", {"items": {"type": "array"}})
    w = world(reviewed(tool, "write"), policy=UnsafeScripted(engine))
    with w.task(tools=["note"]):
        w.gate.run(ToolCall(tool, {"items": items}), lambda a: seen.append(a["items"]))
    assert seen == [[1]]
    assert seen[0] is not items


def test_the_first_refusal_wins_and_policy_is_not_asked(world: Make) -> None:  # rule 1
    policy = UnsafeScripted(YES)
    w = world(policy=policy)
    with w.task(tools=["look"]):
        assert w.try_(pay(w)) == "grant_scope"
        assert w.try_(w.call(w.look, n="x")) == "input_invalid"
        assert w.try_(w.call(tool_of("new"), n="x")) == "tool_unreviewed"
    assert policy.queries == []


# -- engines that misbehave -----------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        "allow",
        {"allow": True},
        type("Fake", (), {"allow": True, "reason": "permit", "asks": ()})(),
        Answer("yes", "permit"),  # type: ignore[arg-type]
        Answer(1, "permit"),  # type: ignore[arg-type]
        Answer(True, "whatever"),
        Answer(True, "no_permit"),
        Answer(False, "permit"),
        Answer(False, "made-up"),
        ValueError("engine"),
        RecursionError("engine"),
        Panic("rust"),
        StopIteration("engine"),
        asyncio.CancelledError("engine"),
    ],
    ids=repr,
)
def test_whatever_is_not_a_plain_yes_denies(world: Make, answer: object, blocking: bool) -> None:
    w = world(policy=UnsafeScripted(answer, blocking=blocking))
    with w.task():
        decision = w.denied(pay(w))
        assert decision.verdict == Verdict.DENY
        arun(w, pay(w, "c2"))
    assert decision.reason in ("policy_error", "no_permit")
    assert w.runs == []
    assert len(w.decisions()) == 2
    assert w.outcomes() == []


def test_an_allow_that_also_asks_is_an_ask(world: Make) -> None:
    w = world(policy=UnsafeScripted(Answer(True, "permit", asks=("confirm:user",))))
    with w.task():
        assert w.denied(pay(w)).verdict == Verdict.ASK
    assert w.runs == []


@pytest.mark.parametrize("drive", ["sync", "async"])
def test_an_engine_that_hangs_denies_at_its_deadline(world: Make, drive: str) -> None:
    release = threading.Event()
    w = world(
        policy=UnsafeScripted(lambda q: release.wait(WAIT) and YES, blocking=True),
        policy_seconds=0.02,
    )
    with w.task():
        assert (w.try_(pay(w)) if drive == "sync" else arun(w, pay(w))) == "policy_timeout"
    release.set()
    assert w.runs == []
    assert w.decisions() == ["deny:policy_timeout"]


def test_a_blocking_engine_answers_too(world: Make) -> None:
    w = world(policy=UnsafeScripted(YES, blocking=True))
    with w.task():
        assert w.try_(pay(w)) == "permit"
        assert arun(w, pay(w, "c2")) == "permit"


def test_ctrl_c_in_an_engine_stops_the_program_not_the_gate(world: Make) -> None:
    w = world(policy=UnsafeScripted(KeyboardInterrupt()))
    with w.task(), pytest.raises(KeyboardInterrupt):
        w.gate.run(pay(w), w.body)
    assert w.runs == []


# -- other parts that misbehave -------------------------------------------------------------------


class Directory:
    """A directory that raises or changes its mind."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.error = inner, None

    def principal(self, kind: Any, name: str) -> Any:
        if self.error is not None:
            raise self.error
        return self.inner(kind, name)

    def near(self, kind: Any, name: str) -> list[str]:
        return []


@pytest.mark.parametrize("error", [ValueError("x"), Panic("x"), Denied], ids=repr)
def test_a_directory_that_raises_denies_and_is_recorded(
    world: Make, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    with w.task():
        if error is Denied:  # a directory behind a gate of its own
            error = Denied(w.gate.refuse(w.call(w.look), "tool_unknown"))
        stages = w.gate._stages
        monkeypatch.setattr(stages, "directory", Directory(None))
        stages.directory.error = error
        assert w.try_(pay(w)) == "internal_error"
        assert w.gate.visible([w.pay]) == frozenset()
    assert w.runs == []
    assert w.decisions()[-1] == "deny:internal_error"


def test_a_catalog_that_raises_denies_and_is_recorded(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    with w.task():
        monkeypatch.setattr(w.gate._stages, "catalog", object())
        assert w.try_(pay(w)) == "internal_error"
    assert w.decisions() == ["deny:internal_error"]


class Broken:
    """Telemetry of which nothing works."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("telemetry")


def test_broken_telemetry_changes_nothing(world: Make) -> None:
    w = world(telemetry=Broken())
    with w.task():
        assert w.try_(pay(w)) == "permit"
        assert w.try_(pay(w)) == "already_attempted"
    assert w.decisions() == ["allow:permit", "deny:already_attempted"]
    assert w.outcomes() == ["done"]


# -- the store ------------------------------------------------------------------------------------


def starts(writes: tuple[object, ...]) -> bool:
    return any(isinstance(write, StartCall) for write in writes)


def settles(writes: tuple[object, ...]) -> bool:
    return any(isinstance(write, SettleCall) for write in writes)


@pytest.mark.parametrize("error", [StoreError("full", "mend"), ValueError("bug")], ids=repr)
def test_a_store_that_refuses_the_intent_denies(world: Make, error: Exception) -> None:
    w = world()

    def refuse(guards: Any, writes: Any, entries: Any) -> None:
        if starts(writes):
            raise error

    with w.task():
        w.store.on_commit = refuse
        assert w.try_(pay(w)) in ("record_unavailable", "internal_error")
        w.store.on_commit = None
        assert w.try_(pay(w)) == "permit"
    assert len(w.runs) == 1


@pytest.mark.parametrize("drive", ["sync", "async"])
def test_a_commit_that_fails_starts_nothing(world: Make, drive: str) -> None:
    w = world()
    failed: Future[Committed] = Future()
    failed.set_exception(StoreError("disk", "mend"))
    with w.task():
        w.store.on_commit = lambda g, writes, e: failed if starts(writes) else None
        assert (w.try_(pay(w)) if drive == "sync" else arun(w, pay(w))) == "record_unavailable"
    assert w.runs == []
    assert w.decisions() == ["deny:record_unavailable"]


def test_a_read_whose_record_cannot_be_handed_over_is_denied(world: Make) -> None:  # rule 2
    w = world()
    with w.task():

        def full(*_: object) -> None:
            raise StoreError("full", "mend")

        w.store.on_commit = full
        assert w.try_(w.call(w.look)) == "record_unavailable"
        w.store.on_commit = None
    assert w.runs == []


def test_a_read_that_waits_for_a_slow_disk_in_vain_is_denied_and_its_record_disowned(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0.02)
    w = world()
    late: Future[Committed] = Future()
    real: list[Future[Committed]] = []

    def slow(guards: Any, writes: Any, entries: Any) -> Future[Committed] | None:
        if real:
            return None
        real.append(w.store.inner.commit(guards, writes, entries, durable=False))
        return late

    with w.task() as task:
        monkeypatch.setattr(UnsafeStore, "behind", True, raising=False)
        w.store.on_commit = slow
        assert w.try_(w.call(w.look)) == "record_unavailable"
        assert (task.used, task._running) == ((0, 0), set())
        late.set_result(real[0].result(WAIT))
        w.flush()
    assert w.runs == []
    assert w.decisions() == ["allow:permit", "deny:record_unavailable"]
    assert w.outcomes() == ["not_started"]


@pytest.mark.parametrize("drive", ["sync", "async"])
def test_a_commit_that_lands_too_late_is_settled_as_never_started(
    world: Make, drive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0.02)
    w = world(settings={"tasks": {"t": {"tools": ["look", "pay"], "calls": 9, "spend": "9"}}})
    late: Future[Committed] = Future()
    real: list[Future[Committed]] = []

    def slow(guards: Any, writes: Any, entries: Any) -> Future[Committed] | None:
        if not starts(writes) or real:
            return None
        real.append(w.store.inner.commit(guards, writes, entries, durable=True))
        return late

    with w.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as task:
        assert w.try_(w.call(w.look)) == "permit"
        w.store.on_commit = slow
        call = pay(w)
        assert (w.try_(call) if drive == "sync" else arun(w, call)) == "record_unavailable"
        monkeypatch.setattr(pipeline, "COMMIT_SECONDS", WAIT)
        late.set_result(real[0].result(WAIT))
        w.flush()
        assert task.used == (1, 0)
        row = w.store.inner.task(task.id)
        assert (row.calls, row.spent) == (0, 0)
        assert w.try_(call) == "permit"  # it never began, so it may begin
    assert len(w.runs) == 2
    assert w.outcomes() == ["done", "not_started", "done"]
    session = w.store.inner.session("local", "s")
    assert (session.calls, session.effects, session.spent) == (2, 1, 10_000)


def test_no_result_is_released_before_its_label_is_stored(world: Make) -> None:  # rule 5
    w = world()
    broken: Future[Committed] = Future()
    broken.set_exception(StoreError("disk", "mend"))
    with w.task():
        w.store.on_commit = lambda g, writes, e: broken if writes else None
        assert w.try_(w.call(w.look)) == "result_withheld"
        w.store.on_commit = None
    assert len(w.runs) == 1


def test_nor_is_the_text_of_its_exception(world: Make) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        raise ValueError("poison")

    with w.task():
        with pytest.raises(ValueError, match="poison"):
            w.gate.run(w.call(w.look), body)
        assert w.store.inner.session("local", "s").labels == {"untrusted"}
    with w.task(session="other"):

        def full(g: Any, writes: Any, e: Any) -> None:
            if writes:
                raise StoreError("disk", "mend")

        w.store.on_commit = full
        assert w.try_(w.call(w.look), body) == "result_withheld"
        w.store.on_commit = None


def test_a_session_that_cannot_be_read_after_the_body_still_gets_its_label(world: Make) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        def gone() -> None:
            raise StoreError("gone", "mend")

        task.session.moved()  # as when another call starts meanwhile
        w.store.on_read = gone

    with w.task() as task:
        w.gate.run(w.call(w.look), body)
        w.store.on_read = None
        assert w.store.inner.session("local", "s").labels == {"untrusted"}
        assert task._running == set()
    assert w.outcomes() == ["done"]


# -- cancellation ---------------------------------------------------------------------------------


def test_cancelled_during_the_commit_no_body_starts_and_the_call_may_start_again(
    world: Make,
) -> None:  # rule 6
    w = world()
    late: Future[Committed] = Future()
    real: list[Future[Committed]] = []

    async def main() -> None:
        handed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(guards: Any, writes: Any, entries: Any) -> Future[Committed] | None:
            if not starts(writes):
                return None
            real.append(w.store.inner.commit(guards, writes, entries, durable=True))
            loop.call_soon(handed.set)
            return late

        w.store.on_commit = slow
        running = asyncio.create_task(w.gate.arun(pay(w), w.abody))
        await handed.wait()
        running.cancel()
        await asyncio.sleep(0)
        late.set_result(real[0].result(WAIT))
        with pytest.raises(asyncio.CancelledError):
            await running

    with w.task() as task:
        asyncio.run(main())
        w.store.on_commit = None
        assert (w.runs, task.used, task._running) == ([], (0, 0), set())
        assert w.try_(pay(w)) == "permit"
    assert w.decisions() == ["allow:permit", "allow:permit"]
    assert w.outcomes() == ["not_started", "done"]
    session = w.store.inner.session("local", "s")
    assert (session.calls, session.effects) == (1, 1)


def test_ctrl_c_during_the_commit_starts_no_body(world: Make) -> None:
    w = world()

    class CtrlC(Future[Committed]):
        met = False

        def exception(self, timeout: float | None = None) -> BaseException | None:
            if not self.met:
                self.met = True
                raise KeyboardInterrupt
            return super().exception(timeout)

    def interrupt(guards: Any, writes: Any, entries: Any) -> Future[Committed] | None:
        if not starts(writes):
            return None
        future = CtrlC()
        future.set_result(w.store.inner.commit(guards, writes, entries, durable=True).result(WAIT))
        return future

    with w.task():
        w.store.on_commit = interrupt
        with pytest.raises(KeyboardInterrupt):
            w.gate.run(pay(w), w.body)
        w.store.on_commit = None
    assert w.runs == []
    assert w.outcomes() == ["not_started"]


def test_cancelled_in_the_body_the_outcome_is_unknown_and_a_repeat_asks(world: Make) -> None:
    w = world()

    async def main() -> None:
        entered = asyncio.Event()

        async def body(args: dict[str, object]) -> None:
            entered.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(w.gate.arun(pay(w), body))
        await entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with w.task():
        asyncio.run(main())
        assert w.outcomes() == ["unknown"]
        assert w.try_(pay(w)) == "already_attempted"
        assert w.denied(pay(w, "c2")).asks == ("confirm:user",)
    assert w.runs == []


class Pause(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError(), "failed"), (Pause(), "suspended"), (SystemExit(), "unknown")],
    ids=repr,
)
def test_what_a_body_raises_comes_out_and_is_recorded(
    world: Make, error: BaseException, outcome: str
) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        raise error

    with w.task() as task:
        with pytest.raises(type(error)) as caught:
            w.gate.run(pay(w), body, pauses=(Pause,))
        assert caught.value is error
        assert task._running == set()
    assert w.outcomes() == [outcome]


def test_a_paused_call_may_start_again(world: Make) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        raise Pause

    with w.task():
        with pytest.raises(Pause):
            w.gate.run(pay(w), body, pauses=(Pause,))
        assert w.try_(pay(w)) == "permit"


# -- nesting --------------------------------------------------------------------------------------


def test_a_call_inside_a_body_is_decided_for_itself(world: Make) -> None:
    policy = UnsafeScripted(YES, NO)
    w = world(policy=policy)
    inner: list[str] = []
    ids: list[str] = []

    def body(args: dict[str, object]) -> None:
        ids.append(call_id())
        inner.append(w.try_(w.call(w.mail, "c2", to="eve")))
        ids.append(call_id())

    with w.task():
        w.gate.run(pay(w), body)
        assert _call_id.get() is None
    assert inner == ["policy_denied"]
    assert ids[0] == ids[1]
    assert w.decisions() == ["allow:permit", "deny:policy_denied"]


def test_a_denial_that_leaves_a_body_is_the_bodys_failure(world: Make) -> None:
    w = world(policy=UnsafeScripted(YES, NO))
    with w.task():
        with pytest.raises(Denied) as caught:
            w.gate.run(pay(w), lambda a: w.gate.run(w.call(w.mail, to="eve"), w.body))
        assert caught.value.decision.tool == w.mail.key
    assert w.outcomes() == ["failed"]


def test_the_same_call_from_its_own_body_does_not_run_twice(world: Make) -> None:
    w = world()
    met: list[str] = []
    with w.task():
        w.gate.run(pay(w), lambda a: met.append(w.try_(pay(w))))
    assert met == ["already_attempted"]
    assert w.runs == []


def test_context_is_as_before(world: Make) -> None:
    w = world()
    with w.task():
        for body in (w.body, lambda a: 1 / 0):
            try:
                w.gate.run(w.call(w.look), body)
            except ZeroDivisionError:
                pass
            assert _call_id.get() is None
    assert current() is None


# -- what moved meanwhile -------------------------------------------------------------------------


def test_a_label_that_arrives_while_deciding_is_decided_again(world: Make) -> None:  # rule 3
    w = world()
    seen: list[frozenset[str]] = []

    def engine(query: Any) -> Answer:
        seen.append(query.session.labels)
        if len(seen) == 1:  # another process reads poison right now
            from lictor.ports import GrowSession

            growth = GrowSession("local", "s", labels=frozenset({"untrusted"}))
            w.store.inner.commit(writes=(growth,), durable=True).result(WAIT)
        ok = "untrusted" not in query.session.labels
        return replace(YES if ok else NO, reads=frozenset({"labels"}))

    w = world(policy=UnsafeScripted(engine, reads=("labels",)))
    with w.task():
        assert w.try_(w.call(w.mail, to="eve")) == "policy_denied"
    assert seen == [frozenset(), {"untrusted"}]
    assert w.runs == []
    assert w.decisions() == ["deny:policy_denied"]


def test_what_keeps_moving_is_denied(world: Make) -> None:
    from lictor.ports import GrowSession

    tries: list[int] = []

    def engine(query: Any) -> Answer:
        tries.append(1)
        growth = GrowSession("local", "s", calls=1)
        w.store.inner.commit(writes=(growth,), durable=True).result(WAIT)
        return replace(YES, reads=frozenset({"calls"}))

    w = world(policy=UnsafeScripted(engine, reads=("calls",)))
    with w.task() as task:
        assert w.try_(pay(w)) == "contention"
        assert task.used == (0, 0)
        assert task.session.turn.acquire(blocking=False)
    assert len(tries) == 3
    assert w.decisions() == ["deny:contention"]


def test_a_revocation_between_decision_and_intent_is_met(world: Make) -> None:
    """The guard names the head as it was before the decision, not as it is when committing."""
    w = world()
    seen: list[int] = []

    def note(guards: Any, writes: Any, entries: Any) -> None:
        seen.extend(g.revision for g in guards if type(g).__name__ == "RevisionIs")

    def engine(query: Any) -> Answer:
        w.store.inner._writer.revision += 1
        return YES

    w = world(policy=UnsafeScripted(engine))
    with w.task():
        w.store.on_commit = note
        w.try_(pay(w))
        w.store.on_commit = None
    assert seen[0] == 0


def test_a_task_that_ends_while_its_call_is_decided_starts_nothing(world: Make) -> None:
    def engine(query: Any) -> Answer:
        task.end()
        return YES

    w = world(policy=UnsafeScripted(engine))
    with w.task() as task:
        assert w.try_(w.call(w.look)) == "task_ended"
    assert (w.decisions(), w.outcomes(), w.runs) == (["deny:task_ended"], [], [])


# -- asks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason"),
    [("rejected", "ask_rejected"), ("pending", "ask_required"), ("odd", "ask_unavailable")],
)
def test_only_granted_goes_on(world: Make, state: str, reason: str) -> None:
    w = world(policy=UnsafeScripted(ASKS), approvals=UnsafeApprovals(state))
    with w.task():
        decision = w.denied(pay(w))
    assert decision.reason == reason
    assert w.runs == []


def test_only_a_pending_ask_is_pending(world: Make) -> None:
    w = world(policy=UnsafeScripted(ASKS), approvals=UnsafeApprovals("pending"))
    with w.task() as task:
        with pytest.raises(Pending) as caught:
            w.gate.run(pay(w), w.body)
    assert caught.value.decision.enforcement == Enforcement.SUSPEND
    assert task.state == "suspended"
    w.gate.close()
    w2 = world(policy=UnsafeScripted(ASKS), folder=w.folder)
    with w2.task() as task:
        decision = w2.denied(pay(w2))
    assert (decision.verdict, decision.enforcement) == (Verdict.ASK, Enforcement.BLOCK)
    assert task.state == "ended"


@pytest.mark.parametrize("error", [ValueError("x"), Panic("x"), SystemExit(1)], ids=repr)
def test_a_channel_that_raises_denies(world: Make, error: BaseException) -> None:
    class Channel(UnsafeApprovals):
        def answer(self, ask: Ask) -> Reply:
            raise error

    w = world(policy=UnsafeScripted(ASKS), approvals=Channel())
    with w.task():
        assert w.try_(pay(w)) == "ask_unavailable"
    assert w.decisions() == ["ask:ask_unavailable"]


@pytest.mark.parametrize("garbage", [None, True, "granted", object()], ids=repr)
def test_a_channel_that_answers_garbage_denies(world: Make, garbage: object) -> None:
    class Channel(UnsafeApprovals):
        def answer(self, ask: Ask) -> Reply:
            return garbage  # type: ignore[return-value]

    w = world(policy=UnsafeScripted(ASKS), approvals=Channel())
    with w.task():
        w.denied(pay(w))
    assert w.runs == []


def test_a_channel_that_hangs_denies(world: Make) -> None:
    release = threading.Event()

    class Channel(UnsafeApprovals):
        def answer(self, ask: Ask) -> Reply:
            release.wait(WAIT)
            return Reply("granted")

    w = world(policy=UnsafeScripted(ASKS), approvals=Channel(), ask_seconds=0.02)
    with w.task():
        assert w.try_(pay(w)) == "ask_unavailable"
    release.set()
    assert w.runs == []


def test_an_answer_is_no_allow_by_itself(world: Make) -> None:
    w = world(policy=UnsafeScripted(ASKS, NO), approvals=UnsafeApprovals())
    with w.task():
        assert w.try_(pay(w)) == "policy_denied"
    w2 = world(policy=UnsafeScripted(ASKS), approvals=UnsafeApprovals(), folder=w.folder)
    with w2.task():
        assert w2.try_(pay(w2, "c2")) == "policy_error"  # keeps asking
    assert w.runs + w2.runs == []


def test_a_granted_ask_is_decided_anew_and_goes_on(world: Make) -> None:
    policy = UnsafeScripted(ASKS, YES)
    w = world(policy=policy, approvals=UnsafeApprovals())
    with w.task():
        assert w.try_(pay(w)) == "permit"
    assert [query.met for query in policy.queries] == [frozenset(), {"confirm:user"}]
    assert w.lines("decision")[0]["met"] == ["confirm:user"]


# -- observe --------------------------------------------------------------------------------------


def test_observe_lets_policy_denials_proceed_and_says_so(world: Make) -> None:
    w = world(policy=UnsafeScripted(NO), mode=Mode.OBSERVE)
    with w.task():
        assert w.try_(pay(w)) == "permit"
    (line,) = w.lines("decision")
    assert (line["verdict"], line["code"], line["enforcement"], line["mode"]) == (
        "deny",
        "policy_denied",
        "observe",
        "observe",
    )


@pytest.mark.parametrize(
    "answer", [ValueError("x"), None, Answer(False, "policy_error"), ASKS], ids=repr
)
def test_observe_lets_nothing_else_proceed(world: Make, answer: object) -> None:
    w = world(policy=UnsafeScripted(answer), mode=Mode.OBSERVE)
    with w.task(tools=["pay"]):
        assert w.try_(pay(w)) in ("policy_error", "ask_unavailable")
        assert w.try_(w.call(w.look)) == "grant_scope"
        assert w.try_(w.call(w.pay, to="bob")) == "input_invalid"
    assert w.try_(pay(w)) == "task_missing"
    assert w.runs == []


def test_observe_never_repeats_an_unknown_outcome(world: Make) -> None:
    w = world(policy=UnsafeScripted(NO), mode=Mode.OBSERVE)

    def body(args: dict[str, object]) -> None:
        raise SystemExit

    with w.task():
        with pytest.raises(SystemExit):
            w.gate.run(pay(w), body)
        assert w.try_(pay(w, "c2")) == "already_attempted"
    assert w.runs == []


def test_a_denial_that_was_observed_once_is_not_told_of_a_later_permit(world: Make) -> None:
    from lictor.ports import GrowSession

    answers = [replace(NO, reads=frozenset({"calls"})), replace(YES, reads=frozenset({"calls"}))]

    def engine(query: Any) -> Answer:
        answer = answers.pop(0)
        if answers:
            growth = GrowSession("local", "s", calls=1)
            w.store.inner.commit(writes=(growth,), durable=True).result(WAIT)
        return answer

    w = world(policy=UnsafeScripted(engine, reads=("calls",)), mode=Mode.OBSERVE)
    with w.task():
        assert w.try_(pay(w)) == "permit"
    assert w.decisions() == ["allow:permit"]


# -- previews and refusals ------------------------------------------------------------------------


def test_a_preview_leaves_nothing_behind(world: Make) -> None:
    w = world()
    with w.task() as task:
        before = len(w.lines())
        assert w.gate.decide(pay(w)).verdict == Verdict.ALLOW
        assert len(w.lines()) == before
        assert (task.used, task.session._flying) == ((0, 0), {})
        assert w.try_(pay(w)) == "permit"
        assert w.gate.decide(pay(w)).reason == "already_attempted"
    assert w.store.inner.session("local", "s").calls == 1


def test_a_preview_asks_nobody(world: Make) -> None:
    channel = UnsafeApprovals()
    w = world(policy=UnsafeScripted(ASKS), approvals=channel)
    with w.task():
        decision = w.gate.decide(pay(w))
    assert (decision.verdict, decision.reason) == (Verdict.ASK, "ask_required")
    assert channel.asked == []


def test_a_preview_of_a_blocking_engine_waits_for_it(world: Make) -> None:
    w = world(policy=UnsafeScripted(YES, blocking=True))
    with w.task():
        assert w.gate.decide(pay(w)).verdict == Verdict.ALLOW


def test_a_preview_tells_of_an_unknown_outcome(world: Make) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        raise SystemExit

    with w.task():
        with pytest.raises(SystemExit):
            w.gate.run(pay(w), body)
        w.flush()
        assert w.gate.decide(pay(w, "c2")).asks == ("confirm:user",)


@pytest.mark.parametrize("arguments", [None, "text", {1: 2}, {"n": float("nan")}, {"n": object()}])
def test_whatever_the_host_refused_is_recorded(world: Make, arguments: Any) -> None:
    w = world()
    with w.task():
        decision = w.gate.refuse(ToolCall(w.look, arguments, "c1"), "input_invalid")
    assert decision.reason == "input_invalid"
    assert w.decisions() == ["deny:input_invalid"]


def test_a_refusal_without_task_or_reason_is_recorded_too(world: Make) -> None:
    w = world()
    assert w.gate.refuse(w.call(w.look), "tool_unknown").reason == "tool_unknown"
    assert w.gate.refuse(w.call(w.look), "no-such-code").reason == "internal_error"
    assert w.gate.refuse(w.call(w.look), "permit").verdict == Verdict.DENY
    assert len(w.decisions()) == 3


# -- identical denials ----------------------------------------------------------------------------


def test_the_text_changes_at_the_second_and_the_fifth_is_final(world: Make) -> None:
    w = world(policy=DenyAll())
    with w.task():
        found = [w.denied(pay(w, f"c{n}")) for n in range(6)]
        other = w.denied(pay(w, "c9", to="eve"))
    assert "stop calling it" not in found[0].text
    assert all("stop calling it" in each.text for each in found[1:])
    assert [each.final for each in found] == [False] * 4 + [True] * 2
    assert "stop calling it" not in other.text


# -- budgets --------------------------------------------------------------------------------------


def test_the_budget_of_spend_needs_an_amount(world: Make) -> None:
    tool = tool_of("buy", {"amount": {"type": ["number", "string", "null"]}, "n": {"default": 3}})
    w = world(
        reviewed(tool, "transfer", amount="amount"),
        settings={"tasks": {"t": {"tools": ["buy"], "spend": "5"}}},
    )
    with w.gate.task("t", agent="bot", on_behalf_of="alice"):
        for bad in ({}, {"amount": None}, {"amount": "NaN"}, {"amount": "Infinity"},
                    {"amount": "x"}, {"amount": -1}, {"amount": "1e300"}):  # fmt: skip
            assert w.try_(ToolCall(tool, bad)) == "input_invalid", bad
        assert w.try_(ToolCall(tool, {"amount": "5.00005"})) == "budget_exceeded"
        assert w.try_(ToolCall(tool, {"amount": "4.99995"})) == "permit"  # rounded up: 5.0000
        assert w.try_(ToolCall(tool, {"amount": 0.0001})) == "budget_exceeded"
    assert len(w.runs) == 1


def test_a_denied_call_costs_nothing(world: Make) -> None:
    w = world(
        policy=UnsafeScripted(NO, NO, YES),
        settings={"tasks": {"t": {"tools": ["pay"], "calls": 1}}},
    )
    with w.gate.task("t", agent="bot", on_behalf_of="alice"):
        assert [w.try_(pay(w, str(n))) for n in range(4)] == [
            "policy_denied",
            "policy_denied",
            "permit",
            "budget_exceeded",
        ]


@pytest.mark.parametrize("impact", ["read", "write"])
def test_a_hundred_threads_get_exactly_the_budget(world: Make, impact: str) -> None:
    tool = tool_of("act", {"amount": {"type": "number"}})
    w = world(
        reviewed(tool, impact, amount="amount"),
        settings={"tasks": {"t": {"tools": ["act"], "calls": 50, "spend": "37"}}},
    )
    with w.gate.task("t", agent="bot", on_behalf_of="alice") as task:
        ready = threading.Barrier(100)
        found: list[str] = []

        def work(n: int) -> None:
            ready.wait(WAIT)
            found.append(w.try_(ToolCall(tool, {"amount": 1}, str(n))))

        threads = [threading.Thread(target=task.bind(work), args=(n,)) for n in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert found.count("permit") == 37
        assert found.count("budget_exceeded") == 63
        assert task.used == (37, 370_000)
    assert len(w.runs) == 37
    assert len(w.decisions()) == 100
    assert w.ok()


def test_impact_and_key_are_in_the_record(world: Make) -> None:
    w = world()
    with w.task():
        w.try_(pay(w))
    (line,) = w.lines("decision")
    assert line["impact"] == [Impact.TRANSFER.value]
    assert line["tool"] == str(ToolKey("local", "pay"))
    assert line["arguments"]["to"] == "bob"
    assert set(line["arguments"]["amount"]) == {"digest"}


def test_principals_are_looked_up_at_every_call(world: Make) -> None:
    found: dict[str, Principal | None] = {}

    def lookup(kind: Any, name: str) -> Principal | None:
        return found.get(name)

    from lictor.model import Kind

    alice, bot = (
        Principal(Kind.USER, "alice", "local"),
        Principal(Kind.AGENT, "bot", "local", owner="alice"),
    )
    found |= {"alice": alice, "bot": bot}
    w = world(directory=Directory(lookup))
    with w.task():
        assert w.try_(pay(w)) == "permit"
        found["alice"] = None
        assert w.try_(pay(w, "c2")) == "principal_unknown"
        found["alice"] = replace(alice, tenant="globex")
        assert w.try_(pay(w, "c3")) == "tenant"


def test_the_record_of_a_store_is_where_the_folder_is(world: Make, tmp_path: Path) -> None:
    w = world()
    assert w.store.inner.path == tmp_path / "lictor.db"


def test_a_result_that_an_adapter_withholds_has_one_decision_and_says_so_in_the_outcome(
    tmp_path: Path,
) -> None:
    tool = tool_of("act")

    def body(args: dict[str, object]) -> object:
        raise Withheld("it adds a message of somebody else")

    with gate_for(tmp_path, [reviewed(tool, "write")], policy=UnsafeAllowAll()) as gate:
        with gate.task(agent="bot", on_behalf_of="alice", session="s", tools=["act"]):
            with pytest.raises(Denied) as denied:
                gate.run(ToolCall(tool, {}), body)

    assert denied.value.decision.reason == "result_withheld"
    told = [
        (line.body["kind"], line.body["verdict"], line.body["code"])
        for line in audit.show(tmp_path / "lictor.db")
        if line.body["kind"] in ("decision", "outcome")
    ]
    assert told == [("decision", "allow", "permit"), ("outcome", "done", "result_withheld")]
