"""The channel to `lictor watch`: who is there, and how long anybody waits for him."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.approval import Watched, settle, watching
from lictor.approval.desk import Desk
from lictor.model import ToolKey
from lictor.ports import Ask, Reply
from lictor.store import SqlStore, open_store


def key(data: bytes) -> str:
    return f"k{hash(data)}"


def ask(**more: object) -> Ask:
    given = {"task": "t", "tenant": "local", "user": "alice", "agent": "bot", **more}
    return Ask(  # type: ignore[arg-type]
        ("confirm:user",), "c", "d", tool=ToolKey("local", "pay"), arguments={"to": "bob"}, **given
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = open_store(tmp_path / "lictor.db")
    yield made
    made.close()


def test_nobody_is_asked_where_nobody_watches(store: SqlStore, tmp_path: Path) -> None:
    channel = Watched(store, tmp_path / "watch.lock")

    assert channel.ready(ask()) == "nobody is watching; run: lictor watch"
    with watching(tmp_path / "watch.lock"), watching(tmp_path / "watch.lock"):
        assert channel.ready(ask()) == ""
    assert channel.ready(ask()) == "nobody is watching; run: lictor watch"


def test_a_lock_behind_a_link_is_none(store: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "watch.lock").symlink_to(tmp_path / "elsewhere")

    with watching(tmp_path / "elsewhere"):
        assert Watched(store, tmp_path / "watch.lock").ready(ask()) != ""
    with pytest.raises(OSError), watching(tmp_path / "watch.lock"):
        pass


def test_the_lock_can_be_read_by_nobody_else(tmp_path: Path) -> None:
    with watching(tmp_path / "watch.lock"):
        assert os.stat(tmp_path / "watch.lock").st_mode & 0o077 == 0


def test_a_wait_that_ends_leaves_the_question(store: SqlStore, tmp_path: Path) -> None:
    channel = Watched(store, tmp_path / "watch.lock", wait=0.05)
    desk = Desk(store, channel, key)
    with watching(tmp_path / "watch.lock"):
        reply = desk.answer(ask())

    assert reply.state == "pending"
    assert [row.id for row in store.asks()] == [reply.ref]


def test_a_caller_that_is_gone_waits_no_more(store: SqlStore, tmp_path: Path) -> None:
    desk = Desk(store, Watched(store, tmp_path / "watch.lock", wait=600.0), key)
    gone = threading.Event()
    found: list[Reply] = []
    asking = threading.Thread(target=lambda: found.append(desk.answer(ask(gone=gone))), daemon=True)
    with watching(tmp_path / "watch.lock"):
        asking.start()
        while not store.asks():
            threading.Event().wait(0.005)
        gone.set()
        asking.join(20)

    assert [reply.state for reply in found] == ["pending"]


def test_an_answer_ends_the_wait(store: SqlStore, tmp_path: Path) -> None:
    desk = Desk(store, Watched(store, tmp_path / "watch.lock", wait=600.0), key)
    found: list[Reply] = []
    asking = threading.Thread(target=lambda: found.append(desk.answer(ask())))
    with watching(tmp_path / "watch.lock"):
        asking.start()
        while not store.asks():
            threading.Event().wait(0.005)
        (row,) = store.asks()
        assert settle(store, row, Reply("granted", by="me", channel="watch"), key, 1.0)
        asking.join(20)

    assert [(reply.state, reply.by, reply.channel) for reply in found] == [
        ("granted", "me", "watch")
    ]


def test_only_the_first_answer_counts(store: SqlStore, tmp_path: Path) -> None:
    desk = Desk(store, Watched(store, tmp_path / "watch.lock", wait=0.0), key)
    with watching(tmp_path / "watch.lock"):
        desk.answer(ask())
        (row,) = store.asks()

        assert settle(store, row, Reply("rejected", by="one"), key, 1.0)
        assert not settle(store, row, Reply("granted", by="two"), key, 1.0)
        assert desk.answer(ask()).state == "rejected"
