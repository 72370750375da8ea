"""What one commit checks and does (rules of lictor.store.effects)."""

from __future__ import annotations

import sqlite3

import pytest

from lictor.errors import StoreError
from lictor.ports import (
    BudgetFits,
    CallIsNew,
    Entry,
    Guard,
    RevisionIs,
    SessionIs,
    SettleCall,
    StartCall,
    TaskIs,
    TaskRow,
)


def test_a_task_is_inserted_once_and_then_only_changes_state(act, store):
    act.task()
    act.do(guards=())
    act.task(state="suspended")
    row = store.task("T")
    assert (row.state, row.tenant, row.grant) == ("suspended", "acme", {"tools": ["local/pay"]})
    assert row.stream == store.head.stream
    assert store.task("other") is None


def test_putting_a_known_task_keeps_what_it_has_used(act, store):
    act.task()
    act.start("C1", spend=7)
    act.task(state="ended")
    assert (store.task("T").calls, store.task("T").spent) == (1, 7)


@pytest.mark.parametrize(
    ("guard", "found"),
    [
        (RevisionIs(1), "0"),
        (TaskIs("T", "suspended"), "running"),
        (TaskIs("nobody"), "absent"),
        (SessionIs("acme", "c", version=9), "version 1"),
        (SessionIs("acme", "c", growth=9), "growth 1"),
        (SessionIs("acme", "new", version=1), "version 0"),
        (BudgetFits("T", 1, 0, 0, None), "calls"),
        (BudgetFits("T", 0, 5, None, 4), "spend"),
        (BudgetFits("nobody", 0, 0, None, None), "absent"),
    ],
    ids=str,
)
def test_a_guard_that_moved_writes_nothing_and_says_what_it_found(act, store, guard, found):
    act.task()
    act.grow("untrusted", calls=1)
    before = store.head
    entry = Entry("decision", 1, {})
    start = StartCall(_row("C1"), "acme", "c", 5)
    moved = store.commit((TaskIs("T"), guard), (start,), (entry,), durable=True).result(20)
    assert (moved.moved, moved.detail, moved.head) == (guard, found, before)
    assert store.call("C1") is None
    assert store.task("T").calls == 0
    assert store.head == before


@pytest.mark.parametrize(
    "guard",
    [
        RevisionIs(0),
        TaskIs("T"),
        SessionIs("acme", "c", version=1, growth=1),
        SessionIs("acme", "c"),
        SessionIs("acme", "new", version=0, growth=0),
        BudgetFits("T", 1, 5, 1, 5),
        BudgetFits("T", 99, 99, None, None),
        CallIsNew("C1", "d", "acme", "c"),
    ],
    ids=str,
)
def test_a_guard_that_holds_lets_everything_be_written(act, store, guard: Guard):
    act.task()
    act.grow("untrusted", calls=1)
    assert act.guard(guard).moved is None


def test_starting_a_call_reserves_count_and_spend(act, store):
    act.task()
    act.start("C1", spend=7)
    act.start("C2", spend=3)
    assert (store.task("T").calls, store.task("T").spent) == (2, 10)
    assert store.call("C1").state == "started"
    assert store.call("C1").decision == "D-C1"


@pytest.mark.parametrize("state", ["started", "done", "failed", "unknown"])
def test_a_call_id_starts_once(act, store, state):
    act.task()
    act.start("C1", "d")
    if state != "started":
        act.settle("C1", state)
    again = act.start("C1", "another digest")
    assert (again.detail, store.task("T").calls) == (state, 1)


@pytest.mark.parametrize("state", ["not_started", "suspended"])
def test_a_call_that_never_ran_to_its_end_may_start_again_under_its_id(act, store, state):
    act.task()
    act.start("C1", "d")
    act.settle("C1", state)
    assert act.start("C1", "d").moved is None
    assert store.call("C1").state == "started"


def test_only_not_started_gives_back_what_was_reserved(act, store):
    act.task()
    left = {}
    for outcome in ("done", "failed", "unknown", "suspended", "not_started"):
        before = store.task("T")
        act.start(f"C-{outcome}", spend=5)
        act.settle(f"C-{outcome}", outcome)
        left[outcome] = (store.task("T").calls - before.calls, store.task("T").spent - before.spent)
    assert left == {
        "done": (1, 5),
        "failed": (1, 5),
        "unknown": (1, 5),
        "suspended": (1, 5),
        "not_started": (0, 0),
    }


def test_an_equal_call_after_an_unknown_outcome_needs_a_person(act, store):
    act.task()
    act.start("C1", "same")
    assert not store.unknown("acme", "c", "same")
    act.settle("C1", "unknown")
    assert store.unknown("acme", "c", "same")
    assert not store.unknown("acme", "other conversation", "same")
    assert act.start("C2", "same").detail == "unknown"
    assert act.start("C3", "different").moved is None


def test_a_repeat_that_a_person_agreed_to_clears_the_doubt_unless_it_never_started(act, store):
    act.task()
    act.start("C1", "same")
    act.settle("C1", "unknown")
    act.start("C2", "same", repeat=True)
    assert not store.unknown("acme", "c", "same")
    act.settle("C2", "not_started")
    assert store.unknown("acme", "c", "same")
    act.start("C2", "same", repeat=True)
    act.settle("C2", "done")
    assert act.start("C3", "same").moved is None


def test_an_unguarded_second_start_is_an_error_and_changes_nothing(act, store):
    act.task()
    act.start("C1")
    with pytest.raises(StoreError, match="C1 was started before"):
        act.do(StartCall(_row("C1"), "acme", "c", 5))
    assert store.task("T").calls == 1


def test_a_settle_that_comes_too_late_changes_nothing_and_is_recorded_as_late(act, store, path):
    act.task()
    act.start("C1", spend=5)
    act.settle("C1", "unknown")
    act.settle("C1", "not_started")
    assert store.call("C1").state == "unknown"
    assert store.task("T").spent == 5
    kind, body = _last(path)
    assert kind == "late"
    assert '"found":"unknown"' in body
    assert '"verdict":"not_started"' in body


def test_a_late_settle_without_an_outcome_record_still_leaves_one(act, path):
    act.do(SettleCall("nobody", "done"))
    kind, body = _last(path)
    assert kind == "late"
    assert '"found":"absent"' in body


def test_an_outcome_outside_the_closed_list_is_refused(act, store):
    act.task()
    act.start("C1")
    with pytest.raises(StoreError, match="unknown outcome 'probably'"):
        act.do(SettleCall("C1", "probably"))
    assert store.call("C1").state == "started"


def test_a_refusal_costs_no_write(act, store, path):
    act.task()
    before = path.with_name("lictor.db-wal").stat().st_size
    for _ in range(20):
        assert act.guard(TaskIs("T", "ended")).moved is not None
    assert path.with_name("lictor.db-wal").stat().st_size == before


def test_an_unknown_guard_or_write_is_refused_not_skipped(act, store):
    act.task()
    before = store.head
    with pytest.raises(StoreError, match="unknown guard"):
        act.guard("no guard")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="unknown write"):
        act.do(TaskRow("T", "ended", "acme", "c", {}))  # type: ignore[arg-type]
    assert store.head == before


def test_labels_and_sources_only_grow_and_only_growth_moves_growth(act, store):
    act.grow("untrusted", sources=("outsiders",))
    act.grow("untrusted")
    act.grow("sensitive")
    row = store.session("acme", "c")
    assert row.labels == {"untrusted", "sensitive"}
    assert row.sources == {"outsiders"}
    assert (row.growth, row.version) == (2, 0)


def test_counts_move_the_version_and_leave_growth_alone(act, store):
    act.grow("untrusted", calls=1)
    act.grow(calls=1, effects=1, spent=5)
    row = store.session("acme", "c")
    assert (row.calls, row.effects, row.spent) == (2, 1, 5)
    assert (row.version, row.growth) == (2, 1)


def test_a_session_is_made_by_its_first_mention_and_kept_apart_by_tenant(act, store):
    assert store.session("acme", "c") is None
    act.grow()
    assert store.session("acme", "c").version == 0
    assert store.session("globex", "c") is None


def test_the_revision_is_read_again_when_its_guard_moved(act, store, path):
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE meta SET rev = 4")
    other.close()
    assert act.guard(RevisionIs(store.revision)).detail == "4"
    assert store.revision == 4


def _row(call: str):
    from lictor.ports import CallRow

    return CallRow(call, "started", f"digest-{call}", "local/pay", "T", "D")


def _last(path) -> tuple[str, str]:
    db = sqlite3.connect(path)
    kind, body = db.execute("SELECT kind, body FROM record ORDER BY rowid DESC LIMIT 1").fetchone()
    db.close()
    return kind, body.decode()
