"""Bypasses of agreement: a yes that is stretched to what nobody was asked about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lictor.cli.lookout import end_task
from lictor.errors import PERMIT
from lictor.ports import Answer, Ask, Query, Reply
from lictor.store import database
from lictor.testing import UnsafeApprovals, UnsafeScripted

CONFIRM = "confirm:user"


def confirmed(query: Query) -> Answer:
    """Reads run; what has an effect is confirmed."""
    if not query.review.effectful or CONFIRM in query.met:
        return Answer(True, PERMIT, ("p",))
    return Answer(False, "ask_required", ("p",), ("it pays",), (CONFIRM,))


@pytest.mark.attack("X86")
def test_a_yes_that_its_repeat_has_overtaken_serves_no_third_call(
    world: Callable[..., Any],
) -> None:
    channel = UnsafeApprovals()
    one = world(policy=UnsafeScripted(confirmed), approvals=channel)

    def lost(args: dict[str, object]) -> object:
        raise KeyboardInterrupt

    with one.task():
        with pytest.raises(KeyboardInterrupt):
            one.gate.run(one.call(one.pay, to="bob", amount=1), lost)
        assert one.try_(one.call(one.pay, to="bob", amount=1)) == "permit"  # asked twice: a repeat
        asked = len(channel.asked)
        assert one.try_(one.call(one.pay, to="bob", amount=1)) == "permit"

    assert [each.repeat for each in channel.asked[:asked]] == [False, False, True]
    assert len(channel.asked) == asked + 1


class Meanwhile(UnsafeApprovals):
    """A person who takes his time, while something happens."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = list(happens)

    def answer(self, ask: Ask) -> Reply:
        if self.happens:
            self.happens.pop(0)()
        return super().answer(ask)


@pytest.mark.attack("X87")
def test_a_yes_given_before_the_session_read_outsiders_is_asked_again(
    world: Callable[..., Any],
) -> None:
    """The question said nothing of them, so nobody has agreed to a call that they may be behind."""
    channel = Meanwhile()
    one = world(policy=UnsafeScripted(confirmed), approvals=channel)

    with one.task() as task:

        def read() -> None:
            task.bind(lambda: one.gate.run(one.call(one.look, n=1), one.body))()

        channel.happens.append(read)
        assert one.try_(one.call(one.pay, to="bob", amount=1)) == "permit"

    assert [sorted(each.sources) for each in channel.asked] == [[], ["outsiders"]]


@pytest.mark.attack("X88")
def test_what_was_delegated_ends_with_the_task_that_somebody_else_ended(
    world: Callable[..., Any],
) -> None:
    """`lictor watch` ends a task in the store; the gate's own memory learns of it later."""
    one = world()

    with one.task() as task, task.delegate("helper", tools=["pay"]):
        assert one.try_(one.call(one.pay, to="bob", amount=1)) == "permit"
        end_task(one.store, task.id, "alice")
        assert task.live
        assert one.try_(one.call(one.pay, to="bob", amount=2)) == "task_ended"

    assert len(one.runs) == 1


@pytest.mark.attack("X93")
def test_what_a_question_showed_is_not_left_in_the_file_of_the_store(
    world: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many builds of SQLite leave what was deleted where it was."""
    monkeypatch.setattr(database, "PRAGMAS", ("PRAGMA secure_delete=0", *database.PRAGMAS))
    one = world(policy=UnsafeScripted(confirmed), approvals=UnsafeApprovals("pending"))

    with one.task() as task:
        for n in range(30):
            assert one.try_(one.call(one.mail, to=f"bob{n:03}@acme.example")) == "ask_required"
    assert b"bob007@acme" in (tmp_path / "lictor.db-wal").read_bytes()
    with one.gate.resume(task.id):
        pass  # it ends, and its questions with it
    one.gate.close()

    assert [f.name for f in tmp_path.glob("lictor.db*") if b"@acme" in f.read_bytes()] == []
