"""Tasks: whose authority a call runs under, and when that ends."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lictor import Denied, TaskError, call_id
from lictor import task as task_module
from lictor.ports import Answer
from lictor.task import current
from lictor.testing import UnsafeApprovals, UnsafeScripted, reviewed, tool_of

World = Any
Make = Callable[..., Any]
WAIT = 20.0
ASKS = Answer(False, "ask_required", ("f",), asks=("confirm:user",))
YES = Answer(True, "permit")


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def pay(world: World, host_id: str = "c1", **more: object) -> Any:
    return world.call(world.pay, host_id, **{"to": "bob", "amount": 1, **more})


# -- whose authority ------------------------------------------------------------------------------


def test_without_a_task_nothing_runs(world: Make) -> None:  # rule 1
    w = world()
    assert w.try_(w.call(w.look)) == "task_missing"
    assert w.runs == []
    assert w.decisions() == ["deny:task_missing"]


def test_a_bare_thread_has_no_task_unless_bound(world: Make) -> None:
    w = world()
    found: list[str] = []

    def work() -> None:
        found.append(w.try_(w.call(w.look)))

    with w.task() as task:
        for target in (work, task.bind(work)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(WAIT)
    thread = threading.Thread(target=task.bind(work))
    thread.start()
    thread.join(WAIT)
    assert found == ["task_missing", "permit", "task_ended"]


def test_a_task_of_another_gate_gives_nothing(world: Make, tmp_path: Any) -> None:
    w, other = world(), world(folder=tmp_path / "other")
    with w.task():
        assert other.try_(other.call(other.look)) == "task_missing"
        assert other.gate.visible([other.look]) == frozenset()


def test_two_tasks_at_once_are_refused(world: Make) -> None:  # rule 2
    w = world()
    with w.task() as outer:
        with pytest.raises(TaskError, match="still open here"):
            w.task(session="other").__enter__()
        assert current() is outer
        assert w.try_(w.call(w.look)) == "permit"


def test_a_task_is_entered_once(world: Make) -> None:
    w = world()
    task = w.task()
    with task:
        pass
    with pytest.raises(TaskError, match="already entered"):
        task.__enter__()


def test_one_task_after_the_other_is_fine(world: Make) -> None:
    w = world()
    for n in range(3):
        with w.task(session=str(n)):
            assert w.try_(w.call(w.look)) == "permit"
    assert current() is None


def test_interleaved_generators_of_two_tenants_never_mix(world: Make) -> None:
    w = world()

    def stream(user: str) -> Iterator[str]:
        with w.task(on_behalf_of=user, session=user):
            yield w.try_(w.call(w.look))
            yield w.try_(w.call(w.look))

    alice, bob = stream("alice"), stream("bob")
    assert next(alice) == "permit"
    with pytest.raises(TaskError, match="interleaved"):
        next(bob)
    assert next(alice) == "permit"
    alice.close()
    assert current() is None


def test_two_tasks_in_two_contexts_are_fine(world: Make) -> None:
    w = world()

    async def run(user: str) -> tuple[str, str]:
        async with w.task(on_behalf_of=user, session=user) as task:
            await asyncio.sleep(0)
            assert current() is task
            return user, await w.gate.arun(w.call(w.look), name)

    async def name(args: dict[str, object]) -> str:
        found = current()
        assert found is not None
        return found.grant.user

    async def main() -> list[tuple[str, str]]:
        return await asyncio.gather(run("alice"), run("bob"))

    assert asyncio.run(main()) == [("alice", "alice"), ("bob", "bob")]


# -- the end --------------------------------------------------------------------------------------


def test_after_the_block_nothing_runs(world: Make) -> None:  # rule 3
    w = world()
    with w.task() as task:
        inside = contextvars.copy_context()
    assert inside.run(w.try_, w.call(w.look)) == "task_ended"
    assert task.state == "ended"
    assert w.lines("task")[-1]["verdict"] == "ended"


def test_a_generator_closed_from_another_context_ends_its_task(world: Make) -> None:
    w = world()

    async def stream() -> AsyncIterator[str]:
        async with w.task():
            yield w.try_(w.call(w.look))
            yield "never"

    async def main() -> None:
        source = stream()
        inside = contextvars.copy_context()
        first = asyncio.get_running_loop().create_task(anext(source), context=inside)
        assert await first == "permit"
        await asyncio.create_task(source.aclose())  # another context
        assert inside.run(w.try_, w.call(w.look)) == "task_ended"

    asyncio.run(main())


def test_a_background_task_that_outlives_the_block_can_do_nothing(world: Make) -> None:
    w = world()

    async def main() -> str:
        left = asyncio.Event()

        async def later() -> str:
            await left.wait()
            try:
                await w.gate.arun(w.call(w.look), w.abody)
            except Denied as denied:
                return denied.decision.reason
            return "permit"

        async with w.task():
            running = asyncio.create_task(later())
        left.set()
        return await running

    assert asyncio.run(main()) == "task_ended"
    assert w.runs == []


def test_ended_while_the_intent_was_under_way_no_body_starts(world: Make) -> None:  # rule 5
    w = world()

    def end(guards: Any, writes: Any, entries: Any) -> Any:
        if not any(type(write).__name__ == "StartCall" for write in writes):
            return None
        w.store.on_commit = None
        future = w.store.inner.commit(guards, writes, entries, durable=True)
        future.result(WAIT)
        task.end()
        return future

    with w.task() as task:
        w.store.on_commit = end
        assert w.try_(pay(w)) == "task_ended"
    assert w.runs == []
    assert w.outcomes() == ["not_started"]
    assert task.used == (0, 0)


def test_running_bodies_are_listed(world: Make) -> None:
    w = world()
    listed: list[tuple[str, ...]] = []
    ids: list[str] = []

    def body(args: dict[str, object]) -> None:
        ids.append(call_id())
        listed.append(task.end())

    with w.task() as task:
        w.gate.run(pay(w), body)
    assert listed == [tuple(ids)]
    assert w.lines("task")[-1]["bodies"] == ids
    assert w.outcomes() == ["done"]


def test_running_bodies_are_waited_for(world: Make) -> None:
    w = world()
    started, release = threading.Event(), threading.Event()

    def body(args: dict[str, object]) -> None:
        started.set()
        release.wait(WAIT)

    task = w.task(grace=WAIT)
    with task:
        thread = threading.Thread(target=task.bind(lambda: w.gate.run(pay(w), body)))
        thread.start()
        started.wait(WAIT)
        stopping = threading.Thread(target=task.end)
        stopping.start()
        while task.live:
            started.wait(0.001)
        assert w.try_(w.call(w.look)) == "task_ended"  # ended at once; only the record waits
        release.set()
        stopping.join(WAIT)
        thread.join(WAIT)
    assert w.lines("task")[-1]["bodies"] == []


def test_waiting_for_bodies_leaves_them_the_event_loop(world: Make) -> None:
    w = world()

    async def main() -> None:
        started = asyncio.Event()

        async def body(args: dict[str, object]) -> None:
            started.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        async with w.task(grace=WAIT):
            running = asyncio.create_task(w.gate.arun(pay(w), body))
            await started.wait()
        assert running.done()
        await running

    asyncio.run(main())
    assert w.lines("task")[-1]["bodies"] == []


def test_ended_from_many_threads_it_ends_once(world: Make) -> None:
    w = world()
    with w.task() as task:
        threads = [threading.Thread(target=task.end) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert [each["verdict"] for each in w.lines("task")] == ["running", "ended"]


def test_leaving_restores_the_context_even_if_the_store_fails(world: Make) -> None:
    w = world()

    def fail(*_: object) -> None:
        raise ValueError("store")

    with w.task() as task:
        w.store.on_commit = fail
    w.store.on_commit = None
    assert current() is None
    assert task.state == "ended"


def test_a_task_that_cannot_be_recorded_does_not_start(world: Make) -> None:
    w = world()

    def fail(*_: object) -> None:
        raise ValueError("store")

    task = w.task()
    w.store.on_commit = fail
    with pytest.raises(TaskError, match="cannot be recorded"):
        task.__enter__()
    w.store.on_commit = None
    assert (task.state, current()) == ("new", None)


# -- time -----------------------------------------------------------------------------------------


def test_the_grant_ends_by_the_wall_clock(world: Make) -> None:
    clock = Clock()
    w = world(clock=clock)
    with w.task(expires_in=60):
        assert w.try_(w.call(w.look)) == "permit"
        clock.now += 60
        assert w.try_(w.call(w.look)) == "grant_expired"


def test_a_clock_set_back_does_not_lengthen_it(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, passed = Clock(), [0.0]
    monkeypatch.setattr(task_module.time, "monotonic", lambda: passed[0])
    w = world(clock=clock)
    with w.task(expires_in=60):
        clock.now -= 3600
        passed[0] = 59.0
        assert w.try_(w.call(w.look)) == "permit"
        passed[0] = 60.0
        assert w.try_(w.call(w.look)) == "grant_expired"


@pytest.mark.parametrize("seconds", [0, -1, 0.5, float("nan"), float("inf"), True, 2**60, "60"])
def test_a_time_that_is_none_is_refused(world: Make, seconds: Any) -> None:
    w = world()
    with pytest.raises(TaskError, match="expires_in"):
        w.task(expires_in=seconds)


def test_a_template_cannot_be_lengthened(world: Make) -> None:
    clock = Clock()
    w = world(clock=clock, settings={"tasks": {"t": {"tools": ["look"], "expires_in": 60}}})
    task = w.gate.task("t", agent="bot", on_behalf_of="alice", expires_in=9999)
    assert task.grant.expires == int(clock.now) + 60


# -- other agents ---------------------------------------------------------------------------------


def test_delegation_only_narrows(world: Make) -> None:
    w = world()
    with w.task(tools=["look"]) as task:
        with pytest.raises(TaskError, match="local/pay"):
            task.delegate("helper", tools=["pay"])
        with pytest.raises(TaskError, match="time"):
            task.delegate("helper", tools=["look"], expires_in=10_000)
        with pytest.raises(TaskError, match="already in the chain"):
            task.delegate("bot", tools=["look"])
        with task.delegate("helper", tools=["look"]) as child:
            assert w.try_(w.call(w.look)) == "permit"
            assert w.try_(pay(w)) == "grant_scope"
            assert child.grant.agents == ("bot", "helper")
        assert current() is task


def test_a_delegated_task_without_tools_reads_only(world: Make) -> None:
    w = world()
    with w.task() as task, task.delegate("helper"):
        assert w.try_(w.call(w.look)) == "permit"
        assert w.try_(pay(w)) == "grant_scope"


def test_a_delegated_task_ends_with_its_parent(world: Make) -> None:  # rule 4
    w = world()
    parent = w.task()
    with parent:
        child = parent.delegate("helper", tools=["look"])
        child.__enter__()
        parent.end()
        assert w.try_(w.call(w.look)) == "task_ended"
        assert child.state == "ended"
        with pytest.raises(TaskError, match="nothing to give"):
            parent.delegate("helper")
        child.leave()


def test_a_started_task_has_its_own_grant_but_not_more_time_than_its_parent(world: Make) -> None:
    clock = Clock()
    w = world(clock=clock, settings={"tasks": {"payer": {"tools": ["pay"], "expires_in": 3600}}})
    with w.task(tools=["look"], expires_in=60) as parent:
        with parent.start("payer", agent="helper") as child:
            assert (child.grant.agents, child.grant.user) == (("helper",), "alice")
            assert w.try_(pay(w)) == "permit"
            assert w.try_(w.call(w.look)) == "grant_scope"
            clock.now += 60
            assert w.try_(pay(w, "c2")) == "grant_expired"


def test_a_started_autonomous_task_needs_an_owner(world: Make) -> None:
    agents = {"bot": {"owner": "alice"}, "stray": {}}
    w = world(settings={"agents": agents, "tasks": {"t": {"tools": ["look"]}}})
    with w.task(autonomous=True) as task:
        with pytest.raises(TaskError, match="no owner"):
            task.start("t", agent="stray")


def test_an_agent_of_another_tenant_gets_nothing(world: Make) -> None:
    agents = {"bot": {"owner": "alice"}, "spy": {"tenant": "globex"}}
    w = world(settings={"agents": agents, "tasks": {"t": {"tools": ["look"]}}})
    with w.task() as task:
        with pytest.raises(TaskError, match="another tenant"):
            task.delegate("spy")
        with pytest.raises(TaskError, match="another tenant"):
            task.start("t", agent="spy")


def test_children_spend_their_parents_budget(world: Make) -> None:
    template = {"tools": ["look", "pay"], "calls": 4, "spend": "3"}
    w = world(settings={"tasks": {"t": template}})
    with w.gate.task("t", agent="bot", on_behalf_of="alice") as task:
        assert w.try_(pay(w, "p1")) == "permit"
        for name in ("c1", "c2"):
            with task.delegate("helper", tools=["pay"]):
                assert w.try_(pay(w, name)) == "permit"
        with task.delegate("helper", tools=["pay", "look"]):
            assert w.try_(pay(w, "c3")) == "budget_exceeded"
            assert w.try_(w.call(w.look)) == "permit"
            assert w.try_(w.call(w.look)) == "budget_exceeded"
        assert w.try_(w.call(w.look)) == "budget_exceeded"
        assert task.used == (4, 30_000)


def test_work_nobody_mapped_reads_and_spends_the_same_budget(world: Make) -> None:
    w = world(settings={"tasks": {"t": {"tools": ["look", "pay"], "calls": 2}}})
    with w.gate.task("t", agent="bot", on_behalf_of="alice") as task:
        reading = task.reading()
        assert task.reading() is reading
        with reading.here():
            assert w.try_(pay(w)) == "grant_scope"
            assert w.try_(w.call(w.look)) == "permit"
            assert w.try_(w.call(w.look)) == "permit"
            assert w.try_(w.call(w.look)) == "budget_exceeded"
    with reading.here():
        assert w.try_(w.call(w.look)) == "task_ended"


def test_labels_of_a_child_join_the_conversation(world: Make) -> None:
    w = world()
    with w.task() as task:
        with task.delegate("helper", tools=["look"]):
            w.try_(w.call(w.look))
        w.try_(pay(w))
    assert w.lines("decision")[-1]["labels"] == ["untrusted"]


# -- suspended ------------------------------------------------------------------------------------


def suspended(world: Make, **more: Any) -> tuple[World, str]:
    w = world(policy=UnsafeScripted(YES, ASKS), approvals=UnsafeApprovals("pending"), **more)
    with w.task() as task:
        w.try_(w.call(w.look))
        assert w.try_(pay(w)) == "ask_required"
    assert task.state == "suspended"
    assert w.try_(pay(w)) == "task_missing"
    with task.here():
        assert w.try_(pay(w)) == "task_suspended"
    w.gate.close()
    return w, task.id


def test_a_suspended_task_continues_in_another_process(world: Make) -> None:
    _, task_id = suspended(world)
    again = world(policy=UnsafeScripted(ASKS, YES), approvals=UnsafeApprovals())
    with again.gate.resume(task_id) as task:
        assert task.grant.user == "alice"
        assert again.try_(pay(again)) == "permit"
    assert task.state == "ended"
    assert again.lines("decision")[-1]["labels"] == ["untrusted"]  # facts came along
    with pytest.raises(TaskError, match="ended"):
        again.gate.resume(task_id)


def test_answered_in_the_same_block_it_ends(world: Make) -> None:
    channel = UnsafeApprovals("pending")
    w = world(policy=UnsafeScripted(ASKS, ASKS, YES), approvals=channel)
    with w.task() as task:
        assert w.try_(pay(w)) == "ask_required"
        channel.state = "granted"
        assert w.try_(pay(w)) == "permit"
    assert task.state == "ended"


@pytest.mark.parametrize("task_id", ["no-such-task", ""])
def test_what_is_not_suspended_is_not_resumed(world: Make, task_id: str) -> None:
    w = world()
    with pytest.raises(TaskError, match="not known"):
        w.gate.resume(task_id)
    with w.task() as task:
        w.flush()
        with pytest.raises(TaskError, match="running"):
            w.gate.resume(task.id)


def test_an_expired_task_is_not_resumed(world: Make) -> None:
    clock = Clock()
    _, task_id = suspended(world, clock=clock)
    clock.now += 10_000
    with pytest.raises(TaskError, match="expired"):
        world(clock=clock).gate.resume(task_id)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"users": {"bob": {}}}, "not in the directory"),
        ({"agents": {"helper": {}}}, "not in the directory"),
        ({"users": {"alice": {"tenant": "globex"}}}, "tenants differ"),
    ],
)
def test_principals_are_looked_up_anew(world: Make, settings: Any, message: str) -> None:
    _, task_id = suspended(world)
    with pytest.raises(TaskError, match=message):
        world(settings=settings).gate.resume(task_id)


WIDE = {"tools": ["look", "pay"], "calls": 9, "spend": "9"}
BOB = {"pay": {"to": {"equals": "bob"}, "amount": {"min": 0, "max": 9}}}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (WIDE, ""),
        ({**WIDE, "calls": 10}, ""),
        ({**WIDE, "tools": ["look", "pay", "mail"]}, ""),
        ({**WIDE, "tools": ["look"]}, "adds local/pay"),
        ({**WIDE, "tools": []}, "may only read"),
        ({**WIDE, "limits": BOB}, "drops them"),
        ({**WIDE, "calls": 1}, "max_calls"),
        ({**WIDE, "spend": "1"}, "max_spend"),
        (None, "no task template"),
    ],
    ids=str,
)
def test_what_the_operator_took_away_does_not_come_back(
    world: Make, template: Any, message: str
) -> None:
    w = world(
        policy=UnsafeScripted(ASKS),
        approvals=UnsafeApprovals("pending"),
        settings={"tasks": {"t": WIDE}},
    )
    with w.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as task:
        assert w.try_(pay(w)) == "ask_required"
    w.gate.close()
    again = world(settings={"tasks": {"t": template} if template else {}})
    if not message:
        with again.gate.resume(task.id):
            assert again.try_(pay(again)) == "permit"
        return
    with pytest.raises(TaskError, match=message):
        again.gate.resume(task.id)


def test_it_is_resumed_once(world: Make) -> None:
    """Two gates on one store; each would count the budget for itself."""
    _, task_id = suspended(world)
    first, second = world(), world()
    one, two = first.gate.resume(task_id), second.gate.resume(task_id)
    with one:
        inside = contextvars.copy_context()
        with pytest.raises(TaskError, match="somewhere else"):
            contextvars.Context().run(two.__enter__)
        assert inside.run(first.try_, pay(first)) == "permit"


def test_the_budget_used_before_stays_used(world: Make) -> None:
    template = {"tools": ["look", "pay"], "calls": 4}
    policy = UnsafeScripted(YES, YES, YES, ASKS)
    settings = {"tasks": {"t": template}}
    w = world(policy=policy, approvals=UnsafeApprovals("pending"), settings=settings)
    with w.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as task:
        for n in range(2):
            assert w.try_(w.call(w.look, str(n))) == "permit"
        with task.delegate("helper", tools=["look"]):
            assert w.try_(w.call(w.look)) == "permit"
        assert w.try_(pay(w)) == "ask_required"
    w.gate.close()
    again = world(settings=settings)
    with again.gate.resume(task.id) as resumed:
        assert resumed.used == (3, 0)
        assert again.try_(pay(again)) == "permit"
        assert again.try_(again.call(again.look)) == "budget_exceeded"


def test_a_delegated_tasks_ask_suspends_the_root(world: Make) -> None:
    w = world(policy=UnsafeScripted(ASKS), approvals=UnsafeApprovals("pending"))
    with w.task() as task, task.delegate("helper", tools=["pay"]) as child:
        assert w.try_(pay(w)) == "ask_required"
    assert (task.state, child.state) == ("suspended", "ended")
    w.flush()
    with pytest.raises(TaskError, match="ended"):
        w.gate.resume(child.id)
    with w.gate.resume(task.id):
        pass


def test_a_delegated_task_is_never_resumed_alone(world: Make) -> None:
    """Not even if its row says so."""
    from lictor.ports import PutTask, TaskRow

    w = world()
    with w.task() as task, task.delegate("helper", tools=["pay"]) as child:
        pass
    row = TaskRow(child.id, "suspended", "local", "s", child.grant.to_json())
    w.store.inner.commit(writes=(PutTask(row),), durable=True).result(WAIT)
    with pytest.raises(TaskError, match="delegated"):
        w.gate.resume(child.id)


def test_a_stored_grant_that_was_edited_is_not_resumed(world: Make) -> None:
    from lictor.ports import PutTask, TaskRow

    w = world()
    with w.task() as task:
        pass
    edited = {**task.grant.to_json(), "tools": ["local/pay", "local/pay"]}
    row = TaskRow("other", "suspended", "local", "s", edited)
    w.store.inner.commit(writes=(PutTask(row),), durable=True).result(WAIT)
    with pytest.raises(TaskError, match="damaged"):
        w.gate.resume("other")


def test_call_id_is_known_inside_a_body_only(world: Make) -> None:
    w = world()
    with w.task():
        with pytest.raises(LookupError):
            call_id()
        found: list[str] = []
        w.gate.run(pay(w), lambda a: found.append(call_id()))
    assert found == [w.lines("decision")[0]["call"]]


def test_an_effect_is_not_confused_by_the_shape_of_a_tool(world: Make) -> None:
    tool = tool_of("both")
    w = world(reviewed(tool, "read", "write"))
    with w.gate.task(agent="bot", on_behalf_of="alice"):
        assert w.try_(w.call(tool)) == "grant_scope"
