"""Child tasks: they end with their parent, spend from it, and unmapped work may only read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lictor.errors import TaskError
from lictor.task import current


def test_children_end_with_their_parent(world: Callable[..., Any]) -> None:
    made = world()
    with made.task() as parent:
        reading = parent.reading()
        child = parent.delegate("helper", tools=["look"])
        with child:
            assert child.live
        assert [each.state for each in (reading, child)] == ["running", "ended"]

    assert [each.state for each in (reading, child, parent)] == ["ended"] * 3
    states = [body["verdict"] for body in made.lines("task")]
    assert states.count("running") == states.count("ended")


def test_reading_is_one_task_that_may_only_read(world: Callable[..., Any]) -> None:
    made = world()
    with made.task() as parent:
        reading = parent.reading()
        assert parent.reading() is reading
        with reading.here():
            assert current() is reading
            assert made.try_(made.call(made.look, n=1)) == "permit"
            assert made.try_(made.call(made.mail, to="x")) == "grant_scope"
        assert current() is parent
    with pytest.raises(TaskError, match="nothing to give"):
        parent.reading()


def test_a_delegated_call_is_paid_by_the_parent_too(world: Callable[..., Any]) -> None:
    made = world(settings={"tasks": {"t": {"tools": ["look"], "calls": 2}}})
    look = made.call(made.look, n=1)

    with made.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as parent:
        with parent.delegate("helper", tools=["look"]):
            assert made.try_(look) == "permit"
        with parent.reading().here():
            assert made.try_(look) == "permit"
            assert made.try_(look) == "budget_exceeded"
        assert made.try_(look) == "budget_exceeded"


def test_what_a_child_did_not_use_goes_back_to_the_parent(world: Callable[..., Any]) -> None:
    from lictor.testing import DenyAll

    made = world(policy=DenyAll(), settings={"tasks": {"t": {"tools": ["look"], "calls": 1}}})

    with made.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as parent:
        with parent.reading().here():
            denied = [made.try_(made.call(made.look, n=1)) for _ in range(3)]

    assert denied == ["no_permit"] * 3
