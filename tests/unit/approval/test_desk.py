"""The desk: an ask is stored, answered once, and its answer means this call of this task only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lictor import audit
from lictor.approval.desk import Desk, settle
from lictor.errors import StoreError
from lictor.model import ToolKey
from lictor.ports import Ask, Entry, PutTask, Reply, TaskRow
from lictor.store import SqlStore, open_store

NOW = 1_000_000.0


def key(data: bytes) -> str:
    return f"k{hash(data)}"


class Channel:
    """Answers as it was told; may do something first."""

    lasting = True

    def __init__(self, *replies: Reply, before: Callable[[Ask], object] = lambda ask: None) -> None:
        self.replies, self.before, self.asked = list(replies), before, list[Ask]()

    def ready(self, ask: Ask) -> str:
        return ""

    def answer(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        self.before(ask)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def ask(**more: Any) -> Ask:
    given: dict[str, Any] = {"task": "t", "digest": "d", "arguments": {"to": "bob", "pin": 7}}
    given |= {"kinds": ("confirm:user",), "call_id": "c", "tenant": "local", "user": "alice"}
    given |= {"agent": "bot", "tool": ToolKey("local", "pay"), "recorded": {"to": "bob"}}
    return Ask(**{**given, **more})


YES = Reply("granted", by="me", channel="terminal", assurance="dev", shown="s" * 64)
NO = Reply("rejected", by="me", channel="terminal", assurance="dev")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = open_store(tmp_path / "lictor.db", clock=lambda: NOW)
    yield made
    made.close()


def desk(store: SqlStore, channel: Channel, now: float = NOW) -> Desk:
    return Desk(store, channel, key, lambda: now)


def records(store: SqlStore, kind: str) -> list[Any]:
    store.commit(durable=True).result(10)
    return [line.body for line in audit.show(store.path, kind=kind)]


def test_the_ask_is_stored_before_anybody_sees_it(store: SqlStore) -> None:
    seen: list[Any] = []
    channel = Channel(YES, before=lambda ask: seen.append((store.ask(ask.id), ask.id)))

    desk(store, channel).answer(ask())

    ((row, identifier),) = seen
    assert (row.id, row.state, row.digest) == (identifier, "pending", "d")
    assert records(store, "ask")[0]["id"] == identifier


def test_the_answer_is_recorded_with_what_was_shown_and_keeps_no_secret(store: SqlStore) -> None:
    reply = desk(store, Channel(YES)).answer(ask())

    (body,) = records(store, "answer")
    row = store.ask(reply.ref)
    assert (reply.state, reply.by) == ("granted", "me")
    assert (body["ask"], body["shown"], body["evidence"]) == (reply.ref, "s" * 64, False)
    assert row is not None
    assert row.request["arguments"] == {"to": "bob"}


def test_an_answer_counts_for_its_task_and_digest_only(store: SqlStore) -> None:
    channel = Channel(YES, NO)

    assert desk(store, channel).answer(ask()).state == "granted"
    assert desk(store, channel).answer(ask()).state == "granted"
    assert desk(store, channel).answer(ask(task="other")).state == "rejected"
    assert desk(store, channel).answer(ask(digest="other")).state == "rejected"
    assert desk(store, channel).answer(ask(repeat=True)).state == "rejected"
    assert len(channel.asked) == 4


def test_a_no_stands_for_the_task(store: SqlStore) -> None:
    channel = Channel(NO, YES)

    assert desk(store, channel).answer(ask()).state == "rejected"
    assert desk(store, channel).answer(ask(call_id="another")).state == "rejected"
    assert len(channel.asked) == 1


@pytest.mark.parametrize("kind", ["approval:manager", "four-eyes:manager", "odd"])
def test_what_needs_a_proved_identity_is_not_asked_here(store: SqlStore, kind: str) -> None:
    channel = Channel(YES)

    reply = desk(store, channel).answer(ask(kinds=("confirm:user", kind)))

    assert reply.state == "unavailable"
    assert f"{kind} needs a person whose identity is proved" in reply.detail
    assert channel.asked == []


@pytest.mark.parametrize("odd", [Reply("used"), Reply("ok"), "granted", None])
def test_a_channel_that_answers_nonsense_grants_nothing(store: SqlStore, odd: Any) -> None:
    reply = desk(store, Channel(odd)).answer(ask())

    assert reply.state == "unavailable"
    assert store.asks() == ()


def test_a_granted_answer_that_is_over_is_asked_anew(store: SqlStore) -> None:
    channel = Channel(YES)
    desk(store, channel).answer(ask(expires=int(NOW) + 10))

    desk(store, channel, NOW + 11).answer(ask(expires=int(NOW) + 100))

    assert len(channel.asked) == 2


@pytest.mark.attack("X66")
@pytest.mark.parametrize(
    "edit",
    [
        "state = 'granted'",
        "state = 'granted', by = 'me', mac = 'k0'",
        "digest = 'd', state = 'granted', mac = (SELECT mac FROM approval LIMIT 1)",
    ],
)
def test_an_edited_row_grants_nothing(store: SqlStore, edit: str) -> None:
    def tamper(ask: Ask) -> None:
        with closing(sqlite3.connect(store.path)) as db:
            db.execute(f"UPDATE approval SET {edit} WHERE id = ?", (ask.id,))
            db.commit()

    reply = desk(store, Channel(Reply("pending"), before=tamper)).answer(ask())

    assert reply.state == "unavailable"
    assert "edited the store" in reply.detail


@pytest.mark.attack("X60", "X66")
def test_a_question_whose_text_was_edited_cannot_be_answered(store: SqlStore) -> None:
    desk(store, Channel(Reply("pending"))).answer(ask())
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("UPDATE approval SET request = replace(request, 'bob', 'ann')")
        db.commit()
    (row,) = store.asks()

    with pytest.raises(StoreError, match="edited the store"):
        settle(store, row, YES, key, NOW)
    assert store.asks() == (row,)


def test_a_question_counts_for_a_day_at_most(store: SqlStore) -> None:
    reply = desk(store, Channel(Reply("pending"))).answer(ask(expires=int(NOW) + 30 * 86_400))
    row = store.ask(reply.ref)
    assert row is not None
    assert row.expires == int(NOW) + 86_400


def test_an_edited_question_keeps_no_other_from_being_seen(store: SqlStore) -> None:
    for n in range(2):
        desk(store, Channel(Reply("pending"))).answer(ask(digest=f"d{n}"))
    first, second = store.asks()
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE approval SET request = '{' WHERE id = ?", (first.id,))
    assert [row.id for row in store.asks()] == [second.id]


def test_a_question_that_goes_with_its_task_is_recorded_as_withdrawn(store: SqlStore) -> None:
    task = TaskRow("t", "running", "local", "s", {})
    store.commit((), (PutTask(task),), (), durable=True).result(10)
    reply = desk(store, Channel(Reply("pending"))).answer(ask())

    ended = Entry("task", int(NOW * 1e6), {}, task="t", verdict="ended")
    store.commit((), (PutTask(replace(task, state="ended")),), (ended,), durable=True).result(10)

    (record,) = records(store, "answer")
    assert (record["ask"], record["verdict"]) == (reply.ref, "withdrawn")
    assert audit.verify(store.path).ok
