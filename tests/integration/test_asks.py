"""The desk: every ask is stored, answered once, its answer used once, and a row proves nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lictor import audit
from lictor.approval import Desk, ask_of, seal, settle
from lictor.attempt import RecordKey
from lictor.errors import Denied, Pending, StoreError
from lictor.gate import Gate
from lictor.model import Assurance, ToolCall, ToolKey
from lictor.ports import Answer, AnswerAsk, Ask, AskRow, PutAsk, Query, Reply, UseAsk
from lictor.store import open_store
from lictor.telemetry import Telemetry
from lictor.testing import UnsafeScripted, UnsafeStore, gate_for, reviewed, tool_of

WAIT = 20.0
PAY = tool_of(
    "pay", {"to": {"type": "string"}, "note": {"type": "string"}}, required=["to", "note"]
)
KNOWN = (reviewed(PAY, "transfer", target=("to",), recordable=("to",)),)
SECRET = "the-note-that-stays-out"
GIVEN = {"to": "US133", "note": SECRET}


def confirms(query: Query) -> Answer:
    """Allows what a person has confirmed."""
    if "confirm:user" in query.met:
        return Answer(True, "permit", ("p",))
    return Answer(False, "ask_required", ("c",), asks=("confirm:user",))


class Channel:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, *states: str, lasting: bool = False, **reply: Any) -> None:
        self.states, self.lasting, self.reply = list(states), lasting, reply
        self.asked: list[Ask] = []
        self.meanwhile: Callable[[Ask], None] | None = None
        self.unready = ""

    def ready(self, ask: Ask) -> str:
        return self.unready

    def answer(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        if self.meanwhile is not None:
            self.meanwhile(ask)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Reply(state, by="alice", channel="test", **self.reply)


class Room:
    """A gate with a channel, a task, and a body that counts."""

    def __init__(self, folder: Path, channel: Channel, **options: Any) -> None:
        self.folder, self.channel = folder, channel
        self.runs: list[dict[str, object]] = []
        options.setdefault("policy", UnsafeScripted(confirms))
        self.gate: Gate = gate_for(folder, KNOWN, approvals=channel, store=UnsafeStore, **options)
        self.store: UnsafeStore = self.gate.store  # type: ignore[assignment]
        self.task = self.gate.task(agent="bot", on_behalf_of="alice", tools=["pay"], session="s")

    def call(self, host_id: str = "", /, **arguments: str) -> ToolCall:
        return ToolCall(PAY, {**GIVEN, **arguments}, host_id)

    def run(self, host_id: str = "", /, **arguments: str) -> str:
        try:
            self.gate.run(self.call(host_id, **arguments), self.runs.append)
        except Denied as denied:
            return denied.decision.reason
        return "permit"

    def flush(self) -> None:
        self.store.inner.commit(durable=True).result(WAIT)

    def rows(self) -> list[Mapping[str, Any]]:
        self.flush()
        with closing(sqlite3.connect(self.folder / "lictor.db")) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("select * from approval order by id")]

    def edit(self, statement: str, *values: object) -> None:
        """As somebody with a shell would."""
        self.flush()
        with closing(sqlite3.connect(self.folder / "lictor.db", timeout=WAIT)) as db, db:
            assert db.execute(statement, values).rowcount > 0

    def lines(self, *kinds: str) -> list[Mapping[str, Any]]:
        self.flush()
        found = audit.show(self.folder / "lictor.db", limit=10_000)
        return [line.body for line in found if line.body["kind"] in kinds]


Rooms = Callable[..., Room]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Rooms]:
    with ExitStack() as stack:

        def make(*states: str, folder: Path = tmp_path, **options: Any) -> Room:
            channel = Channel(*states, lasting=options.pop("lasting", False))
            made = Room(folder, channel, **options)
            stack.callback(made.gate.close)
            return made

        yield make


# -- one ask, one answer, one use -----------------------------------------------------------------


def test_a_yes_lets_one_call_run_and_stands_in_its_records(room: Rooms) -> None:
    r = room("granted")
    with r.task:
        assert r.run() == "permit"

    (row,) = r.rows()
    assert (row["state"], row["task"], row["tenant"]) == ("used", r.task.id, "local")
    assert [each["kind"] for each in r.lines("ask", "answer", "decision")] == [
        "ask",
        "answer",
        "decision",
    ]
    (decision,) = r.lines("decision")
    assert row["decision"] == decision["id"]
    assert [each["ask"] for each in decision["answers"]] == [row["id"]]


def test_the_answer_is_used_once_and_the_next_call_asks_anew(room: Rooms) -> None:
    r = room("granted")
    with r.task:
        assert [r.run(), r.run()] == ["permit", "permit"]

    assert len(r.channel.asked) == 2
    assert [row["state"] for row in r.rows()] == ["used", "used"]


def test_the_answer_counts_for_these_arguments_only(room: Rooms) -> None:
    r = room("granted", "rejected")
    with r.task:
        assert r.run() == "permit"
        assert r.run(to="US134") == "ask_rejected"

    assert len(r.runs) == 1


def test_an_unused_yes_of_one_task_is_none_for_another(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        assert r.run() == "ask_required"
        (row,) = (r.store.ask(each["id"]) for each in r.rows())
        yes = Reply("granted", row.id, "alice", "watch")
        assert settle(r.store, row, yes, _key(r), 0.0)
    r.channel.states, r.channel.lasting = ["rejected"], False
    with r.gate.task(agent="bot", on_behalf_of="alice", tools=["pay"], session="s"):
        assert r.run() == "ask_rejected"
    assert r.runs == []


def test_a_no_stands_for_its_task_without_another_question(room: Rooms) -> None:
    r = room("rejected", "granted")
    with r.task:
        assert [r.run("c1"), r.run("c2"), r.run()] == ["ask_rejected"] * 3
    assert len(r.channel.asked) == 1
    with r.gate.task(agent="bot", on_behalf_of="alice", tools=["pay"]):
        assert r.run() == "permit"  # another task is another question


def test_nobody_answered_is_no_answer_and_may_be_asked_again(room: Rooms) -> None:
    r = room("expired", "granted")
    with r.task:
        assert [r.run(), r.run()] == ["ask_unanswered", "permit"]
    assert [row["state"] for row in r.rows()] == ["expired", "used"]


@pytest.mark.parametrize("reply", [None, Reply("maybe"), "granted", Reply("used"), Reply("")])
def test_an_answer_that_is_none_denies(room: Rooms, reply: Any) -> None:
    r = room("granted")
    r.channel.answer = lambda ask: reply  # type: ignore[method-assign]
    with r.task:
        assert r.run() == "ask_unavailable"
    assert [row["state"] for row in r.rows()] == ["withdrawn"]


def test_a_channel_that_raises_denies(room: Rooms) -> None:
    def broken(ask: Ask) -> None:
        raise RuntimeError("no line")

    r = room("granted")
    r.channel.meanwhile = broken
    with r.task:
        assert r.run() == "ask_unavailable"
    assert r.runs == []


@pytest.mark.parametrize("kind", ["approval:lead", "four-eyes:lead"])
@pytest.mark.parametrize("also", [(), ("confirm:user",)])
def test_an_approval_is_not_asked_where_nobody_is_authenticated(
    room: Rooms, kind: str, also: tuple[str, ...]
) -> None:
    asks = Answer(False, "ask_required", asks=(kind, *also))
    r = room("granted", policy=UnsafeScripted(asks))
    with r.task, pytest.raises(Denied) as caught:
        r.gate.run(r.call(), r.runs.append)

    assert caught.value.decision.reason == "ask_unavailable"
    assert f"{kind} needs a person whose identity is proved" in caught.value.decision.detail
    assert (r.channel.asked, r.rows()) == ([], [])


def test_more_kinds_than_were_asked_need_a_new_question(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        (ask,) = r.channel.asked
        row = r.store.ask(ask.id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        wider = replace(ask, id="", kinds=("confirm:user", "approval:lead"))
        assert _desk(r).answer(wider).state == "unavailable"
        assert _desk(r).answer(replace(ask, id="")).state == "granted"
        assert _desk(r).answer(replace(ask, id="", repeat=True)).state == "pending"


def test_whether_an_answer_may_be_evidence(room: Rooms) -> None:
    r = room("granted")
    r.channel.reply = {"assurance": "verified"}
    with r.task:
        r.run()
        r.task.assurance = Assurance.DEV
        r.run()

    assert [each["evidence"] for each in r.lines("answer")] == [True, False]
    rested = [each["answers"][0]["evidence"] for each in r.lines("decision")]
    assert rested == [True, False]


def test_a_span_tells_on_whose_answer_it_rests_and_that_it_is_no_evidence(room: Rooms) -> None:
    spans, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = Telemetry(tracers, known_tools=frozenset({"local/pay"}))
    r = room("granted", "rejected", telemetry=telemetry)
    with r.task:
        assert [r.run("c1"), r.run("c2")] == ["permit", "ask_rejected"]

    yes, no = (dict(span.attributes or {}) for span in spans.get_finished_spans())
    assert yes["lictor.answer.channels"] == ("test",)
    assert yes["lictor.answer.evidence"] is False
    assert "lictor.answer.channels" not in no


# -- races ----------------------------------------------------------------------------------------


def test_two_threads_for_one_answer_run_once_for_it(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        assert r.run("c1") == "ask_required"
        (row,) = (r.store.ask(each["id"]) for each in r.rows())
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        results: list[str] = []
        barrier = threading.Barrier(4)

        def go(n: int) -> None:
            bound = r.task.bind(r.run)
            barrier.wait(WAIT)
            results.append(bound(f"t{n}"))

        threads = [threading.Thread(target=go, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert sorted(results) == ["ask_required"] * 3 + ["permit"]
    assert len(r.runs) == 1


def test_equal_calls_under_way_are_asked_one_after_the_other(room: Rooms) -> None:
    r = room("rejected")
    asked, answer = threading.Event(), threading.Event()

    def wait(ask: Ask) -> None:
        asked.set()
        assert answer.wait(WAIT)

    r.channel.meanwhile = wait
    results: list[str] = []
    with r.task:
        threads = [
            threading.Thread(target=lambda n=n: results.append(r.task.bind(r.run)(f"c{n}")))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        assert asked.wait(WAIT)
        answer.set()
        for thread in threads:
            thread.join(WAIT)
    assert results == ["ask_rejected"] * 3
    assert len(r.channel.asked) == 1


def test_a_caller_who_waits_for_an_equal_call_may_go(room: Rooms) -> None:
    r = room("granted")
    asked, answer = threading.Event(), threading.Event()

    def wait(ask: Ask) -> None:
        asked.set()
        assert answer.wait(WAIT)

    r.channel.meanwhile = wait
    with r.task:
        first = threading.Thread(target=r.task.bind(r.run), args=("c1",))
        first.start()
        assert asked.wait(WAIT)
        (ask,) = r.channel.asked
        gone = threading.Event()
        gone.set()
        # The gate's own desk knows that an equal call is under way.
        desk = r.gate._stages.approvals
        assert desk is not None
        reply = desk.answer(replace(ask, id="", gone=gone))
        answer.set()
        first.join(WAIT)
    assert (reply.state, reply.detail) == (
        "unavailable",
        "nobody waits for the answer any more",
    )
    assert len(r.runs) == 1


def test_an_answer_that_another_watcher_gave_first_is_the_one_that_counts(room: Rooms) -> None:
    r = room("granted")

    def no(ask: Ask) -> None:
        row = r.store.ask(ask.id)
        assert settle(r.store, row, Reply("rejected", by="bob"), _key(r), 0.0)

    r.channel.meanwhile = no
    with r.task:
        assert r.run() == "ask_rejected"
    (answer,) = r.lines("answer")
    assert (answer["by"], answer["verdict"]) == ("bob", "rejected")


def test_of_two_that_settle_one_is_told_that_it_was_late(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        assert not settle(r.store, row, Reply("rejected", by="bob"), _key(r), 0.0)
    assert len(r.lines("answer")) == 1


def test_a_task_that_ends_takes_its_questions_and_unused_answers_with_it(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        r.run(to="US134")
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        r.task.end()

    assert [each["state"] for each in r.rows()] == ["withdrawn", "withdrawn"]
    assert all(SECRET not in each["request"] for each in r.rows())


def test_a_yes_that_comes_when_the_task_has_ended_starts_nothing(room: Rooms) -> None:
    r = room("granted")
    r.channel.meanwhile = lambda ask: r.task.end() and None
    with r.task:
        assert r.run() == "task_ended"
    assert r.runs == []


# -- what a row proves ----------------------------------------------------------------------------


@pytest.mark.attack("X66")
def test_an_inserted_row_is_no_answer(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        assert r.run() == "ask_required"
        r.edit("update approval set state = 'granted', by = 'alice', answered = 1")
        assert r.run() == "ask_unavailable"
    assert r.runs == []


@pytest.mark.attack("X66")
def test_a_granted_row_of_another_task_is_no_answer(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        with r.task.delegate("helper", tools=["pay"]) as other:
            r.edit("update approval set task = ?", other.id)
            assert r.run() == "ask_unavailable"
    assert r.runs == []


CHANGES = {
    "digest": ("US134", None),
    "expires": ("US133", 4_000_000_000),
    "by": ("US133", "mallory"),
    "channel": ("US133", "console"),
    "assurance": ("US133", "verified"),
    "tenant": ("US133", "acme"),
    "tool": ("US133", "local/look"),
    "request": ("US133", "{}"),
    "mac": ("US133", ""),
}


@pytest.mark.attack("X66")
@pytest.mark.parametrize("column", CHANGES)
def test_a_granted_row_that_was_edited_is_no_answer(room: Rooms, column: str) -> None:
    to, value = CHANGES[column]
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        if column == "digest":  # the answer to one call, moved to another one
            r.run(to=to)
            _, other = r.rows()
            value = other["digest"]
            r.edit("delete from approval where id = ?", other["id"])
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
        r.edit(f"update approval set {column} = ?", value)
        assert r.run(to=to) == "ask_unavailable"
    assert r.runs == []


@pytest.mark.attack("X66")
@pytest.mark.parametrize("column", ["request", "digest", "expires", "tool", "task", "kinds"])
def test_a_question_that_was_edited_is_neither_put_nor_answered(room: Rooms, column: str) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        asked = len(r.channel.asked)
        (row,) = r.rows()
        changed = {"expires": 4_000_000_000, "kinds": '["confirm:user","x"]'}
        request = row["request"].replace("US133", "my own account")
        value = changed.get(column, request if column == "request" else "x")
        r.edit(f"update approval set {column} = ?", value)
        stored = r.store.ask(row["id"])
        with pytest.raises(StoreError, match="seal is not ours"):
            settle(r.store, stored, Reply("granted", by="alice"), _key(r), 0.0)
        if column in ("request", "expires", "tool"):  # the others make it another question
            assert r.run() == "ask_unavailable"
            assert len(r.channel.asked) == asked
    assert r.runs == []


@pytest.mark.attack("X66")
def test_a_question_edited_between_show_and_answer_is_no_answer(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        r.run(to="US134")
        first, other = (r.store.ask(ask.id) for ask in r.channel.asked)
        assert "US133" in str(ask_of(first).arguments)  # shown
        r.edit("delete from approval where id = ?", other.id)
        r.edit("update approval set digest = ? where id = ?", other.digest, first.id)
        settle(r.store, first, Reply("granted", by="alice"), _key(r), 0.0)
        assert r.run(to="US134") == "ask_unavailable"
    assert r.runs == []


@pytest.mark.attack("X66", "X73")
def test_an_answer_of_another_deployment_is_none(room: Rooms) -> None:
    r = room("pending", lasting=True)
    theirs = RecordKey(b"t" * 32, "theirs").digest
    with r.task:
        r.run()
        row = r.store.ask(r.channel.asked[0].id)
        with pytest.raises(StoreError, match="seal is not ours"):
            settle(r.store, row, Reply("granted", by="alice"), theirs, 0.0)
        forged = replace(row, state="granted", by="alice")
        r.edit("update approval set state='granted', by='alice', mac=?", seal(theirs, forged))
        assert r.run() == "ask_unavailable"
    assert r.runs == []


@pytest.mark.attack("X73")
def test_an_answer_that_has_expired_is_none(room: Rooms) -> None:
    now = [1_000_000.0]
    r = room("pending", lasting=True, clock=lambda: now[0])
    desk = Desk(r.store, r.channel, _key(r), lambda: now[0])
    with r.task:
        r.run()
        ask = replace(r.channel.asked[0], id="")
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), now[0])
        assert desk.answer(ask).state == "granted"
        now[0] = row.expires
        r.channel.states = ["rejected"]
        assert desk.answer(replace(ask, expires=row.expires + 9)).state == "rejected"


@pytest.mark.attack("X73")
def test_the_task_of_another_tenant_has_no_use_for_it(room: Rooms) -> None:
    users = {"alice": {}, "eve": {"tenant": "acme"}}
    agents = {"bot": {"owner": "alice"}, "spy": {"owner": "eve", "tenant": "acme"}}
    r = room("pending", lasting=True, settings={"users": users, "agents": agents})
    with r.task:
        r.run()
        row = r.store.ask(r.channel.asked[0].id)
        assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
    r.channel.states, r.channel.lasting = ["rejected"], False
    with r.gate.task(agent="spy", on_behalf_of="eve", tools=["pay"], session="s") as other:
        r.edit("update approval set task = ?, tenant = 'acme'", other.id)
        assert r.run() == "ask_unavailable"
    assert r.runs == []


@pytest.mark.attack("X66")
def test_a_used_answer_cannot_be_made_an_unused_one(room: Rooms) -> None:
    r = room("granted", "rejected")
    with r.task:
        assert r.run("c1") == "permit"
        r.edit("update approval set state = 'granted', decision = ''")
        assert r.run("c2") == "ask_unavailable"
    assert len(r.runs) == 1


# -- what stays in the store ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["granted", "rejected", "expired", "unavailable"])
def test_what_may_not_be_recorded_goes_when_the_question_is_over(room: Rooms, state: str) -> None:
    r = room(state)
    during: list[bool] = []
    r.channel.meanwhile = lambda ask: during.append(SECRET in r.rows()[-1]["request"])
    with r.task:
        r.run()

    (row,) = r.rows()
    assert during == [True]
    assert SECRET not in row["request"]
    assert "US133" in row["request"]
    assert SECRET not in str(r.lines("ask", "answer", "decision", "outcome"))


# -- suspended and resumed ------------------------------------------------------------------------


def test_a_question_that_is_left_open_suspends_the_task_and_is_answered_after_it(
    room: Rooms,
) -> None:
    r = room("pending", lasting=True)
    with r.task, pytest.raises(Pending):
        r.gate.run(r.call("c1"), r.runs.append)
    assert r.task.state == "suspended"
    r.flush()
    row = r.store.ask(r.channel.asked[0].id)
    assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
    with r.gate.resume(r.task.id):
        assert r.run("c1") == "permit"
        assert r.run("c1") == "ask_required"  # asked: this is a call of its own now
    assert len(r.runs) == 1


def test_another_process_answers_and_a_third_one_resumes(tmp_path: Path) -> None:
    def away(work: Callable[[], None]) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    key = RecordKey(b"k" * 32, "test").digest
    noted = tmp_path / "noted"

    def asks() -> None:
        r = Room(tmp_path, Channel("pending", lasting=True))
        with r.task:
            assert r.run("c1") == "ask_required"
        r.gate.close()
        noted.write_text(r.task.id)

    def answers() -> None:
        store = open_store(tmp_path / "lictor.db")
        (row,) = store.asks()
        assert ask_of(row).arguments == GIVEN
        assert settle(store, row, Reply("granted", by="alice", channel="watch"), key, 0.0)
        store.close()

    def resumes(wanted: str) -> None:
        r = Room(tmp_path, Channel("rejected"))
        with r.gate.resume(noted.read_text()):
            assert r.run("c1") == wanted
        assert len(r.runs) == (wanted == "permit")
        assert not [ask for ask in r.channel.asked if wanted == "permit"]
        r.gate.close()

    away(asks)
    away(answers)
    away(lambda: resumes("permit"))
    store = open_store(tmp_path / "lictor.db")
    try:
        assert store.asks() == ()
        task = store.task(noted.read_text())
        assert task is not None
        assert task.state == "ended"
    finally:
        store.close()


def test_a_cancelled_caller_of_a_lasting_channel_leaves_the_task_suspended(room: Rooms) -> None:
    r = room("pending", lasting=True)
    asked = threading.Event()

    def until_gone(ask: Ask) -> None:
        asked.set()
        assert ask.gone.wait(WAIT)

    async def body(arguments: dict[str, object]) -> None:
        r.runs.append(arguments)

    async def main() -> None:
        async with r.task:
            running = asyncio.create_task(r.gate.arun(r.call("c1"), body))
            await asyncio.to_thread(asked.wait, WAIT)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    r.channel.meanwhile = until_gone
    asyncio.run(main())

    assert r.task.state == "suspended"
    assert [row["state"] for row in r.rows()] == ["pending"]
    assert [each["code"] for each in r.lines("decision")] == ["interrupted"]
    row = r.store.ask(r.channel.asked[0].id)
    assert settle(r.store, row, Reply("granted", by="alice"), _key(r), 0.0)
    with r.gate.resume(r.task.id):
        assert r.run("c1") == "permit"


# -- a store that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", [PutAsk, AnswerAsk, UseAsk])
def test_a_store_that_fails_at_any_step_denies(room: Rooms, step: type) -> None:
    r = room("granted")

    def failing(guards: object, writes: tuple[object, ...], entries: object) -> None:
        if any(isinstance(write, step) for write in writes):
            raise StoreError("the disk is full", "make room")

    with r.task:
        r.store.on_commit = failing
        assert r.run() in ("ask_unavailable", "record_unavailable")
        r.store.on_commit = None
    assert r.runs == []
    assert len(r.channel.asked) == (step is not PutAsk)


@pytest.mark.parametrize("read", ["standing", "ask"])
def test_a_store_that_cannot_be_read_denies(
    room: Rooms, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    r = room("granted")

    def failing(*_: object) -> None:
        raise StoreError("the disk is gone", "put it back")

    with r.task:
        monkeypatch.setattr(r.store, read, failing, raising=False)
        assert r.run() == "ask_unavailable"
    assert r.runs == []


def test_a_question_that_is_gone_from_the_store_denies(room: Rooms) -> None:
    r = room("granted")
    r.channel.meanwhile = lambda ask: r.edit("delete from approval")
    with r.task:
        assert r.run() == "ask_unavailable"
    assert r.runs == []


# -- any order of events --------------------------------------------------------------------------

EVENTS = st.lists(st.sampled_from(["run", "run other", "grant", "reject", "end"]), max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS)
def test_a_call_runs_only_for_an_answer_that_was_given_for_it_and_not_used(
    tmp_path_factory: pytest.TempPathFactory, events: list[str]
) -> None:
    r = Room(tmp_path_factory.mktemp("desk"), Channel("pending", lasting=True))
    said: dict[str, str] = {}
    ended = False
    try:
        with r.task:
            for event in events:
                if event.startswith("run"):
                    to = "US134" if event == "run other" else "US133"
                    answer = said.get(to, "")
                    wanted = {"granted": "permit", "rejected": "ask_rejected"}.get(
                        answer, "ask_required"
                    )
                    assert r.run(to=to) == ("task_ended" if ended else wanted)
                    if wanted == "permit" and not ended:
                        del said[to]
                elif event == "end":
                    r.task.end()
                    ended = True
                else:
                    state = "granted" if event == "grant" else "rejected"
                    for row in r.store.asks():
                        first = settle(r.store, row, Reply(state, by="alice"), _key(r), 0.0)
                        assert first or ended
                        said[str(row.request["recorded"]["to"])] = state
            assert len(r.runs) == sum(row["state"] == "used" for row in r.rows())
    finally:
        r.gate.close()


def _key(room: Room) -> Callable[[bytes], str]:
    return RecordKey(b"k" * 32, "test").digest


def _desk(room: Room) -> Desk:
    return Desk(room.store, room.channel, _key(room))


def test_a_row_is_shown_as_the_ask_that_it_was(room: Rooms) -> None:
    r = room("pending", lasting=True)
    with r.task:
        r.run()
        (ask,) = r.channel.asked
        row: AskRow | None = r.store.ask(ask.id)
        assert row is not None
        shown = ask_of(row)
    assert shown == replace(ask, arguments=dict(ask.arguments), recorded=dict(ask.recorded))
    assert shown.tool == ToolKey("local", "pay")
