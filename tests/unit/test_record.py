"""Records: what happened, without what must not be told, and writable whatever a host says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lictor.model import ToolCall
from lictor.ports import Answer
from lictor.testing import UnsafeScripted, reviewed, tool_of

Make = Callable[..., Any]


def test_a_decision_says_who_for_whom_what_and_under_what(world: Make) -> None:  # rule 1
    w = world(policy=UnsafeScripted(Answer(True, "permit", ("p1",), digest="sha256:x")))
    with w.task() as task:
        w.try_(w.call(w.pay, "h1", to="bob", amount=1))
    (line,) = w.lines("decision")
    told = {name: line[name] for name in ("chain", "session", "assurance", "policies", "policy")}
    assert told == {
        "chain": ["user:local/alice", "agent:local/bot"],
        "session": "s",
        "assurance": "asserted",
        "policies": ["p1"],
        "policy": "sha256:x",
    }
    assert (line["grant"], line["task"], line["tenant"]) == (task.grant.id, task.id, "local")
    assert (line["host_id"], line["placement"], line["mode"]) == ("h1", "p0", "enforce")
    (outcome,) = w.lines("outcome")
    assert (outcome["decision"], outcome["call"]) == (line["id"], line["call"])
    assert outcome["duration_us"] >= 0


def test_arguments_are_clear_only_where_the_catalog_says_so(world: Make) -> None:  # rule 2
    w = world()
    with w.task():
        w.try_(w.call(w.pay, to="bob", amount=31337))
        w.try_(w.call(w.look, n=4242))
    text = json.dumps([dict(line) for line in w.lines()])
    assert "bob" in text
    assert "31337" not in text
    assert "4242" not in text


def test_equal_values_of_two_arguments_have_unlike_digests(world: Make) -> None:
    tool = tool_of("swap", {"a": {"type": "string"}, "b": {"type": "string"}})
    w = world(reviewed(tool, "write"))
    with w.task(tools=["swap"]):
        w.try_(w.call(tool, a="x", b="x"))
    told = w.lines("decision")[0]["arguments"]
    assert told["a"] != told["b"]


@pytest.mark.parametrize("host_id", ["\ud800", "x" * 100_000, "é" * 300])
def test_no_host_id_makes_a_record_unwritable(world: Make, host_id: str) -> None:  # rule 3
    w = world()
    with w.task():
        assert w.try_(w.call(w.pay, host_id, to="bob", amount=1)) == "permit"
        assert w.try_(w.call(w.pay, host_id, to="bob", amount=1)) == "already_attempted"
        w.gate.refuse(w.call(w.look, host_id), "tool_unknown")
    assert len(w.lines("decision")) == 3
    assert max(len(line["host_id"]) for line in w.lines("decision")) <= 512
    assert w.ok()


@pytest.mark.parametrize("text", ["\ud800", "a\nsecret", "x" * 100_000])
def test_no_exception_text_makes_a_record_unwritable(world: Make, text: str) -> None:
    w = world(policy=UnsafeScripted(ValueError(text)))
    with w.task():
        assert w.try_(w.call(w.look)) == "policy_error"
    (line,) = w.lines("decision")
    assert "secret" not in line["detail"]
    assert len(line["detail"]) <= 400


def test_an_exception_whose_text_raises_denies_all_the_same(world: Make) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise ValueError

    w = world(policy=UnsafeScripted(Nasty()))
    with w.task():
        assert w.try_(w.call(w.look)) == "policy_error"
    assert w.decisions() == ["deny:policy_error"]


def test_a_value_of_a_body_or_its_exception_is_in_no_record(world: Make) -> None:
    w = world()

    def body(args: dict[str, object]) -> None:
        raise ValueError("s3cret")

    with w.task():
        with pytest.raises(ValueError, match="s3cret"):
            w.gate.run(w.call(w.pay, to="bob", amount=1), body)
        w.gate.run(w.call(w.look), lambda a: "s3cret")
    assert "s3cret" not in json.dumps([dict(line) for line in w.lines()])


def test_odd_policy_texts_cost_no_record(world: Make) -> None:
    answers = (
        Answer(False, "policy_denied", texts=("\ud800",)),
        Answer(False, "policy_denied", texts=(7,)),  # type: ignore[arg-type]
        Answer(False, "policy_denied", policies=(7,)),  # type: ignore[arg-type]
        Answer(True, "permit", policies=(None,)),  # type: ignore[arg-type]
        Answer(True, "permit", policies=("\ud800",)),
    )
    w = world(policy=UnsafeScripted(*answers))
    with w.task():
        found = [w.try_(w.call(w.look)) for _ in answers]
    assert found == ["policy_denied", "policy_error", "policy_error", "policy_error", "permit"]
    assert len(w.decisions()) == 5


def test_an_attempt_without_task_or_review_is_recorded(world: Make) -> None:
    w = world()
    w.denied(ToolCall(tool_of("ghost"), {"a": 1}, "h1"))
    (line,) = w.lines("decision")
    assert (line["tool"], line["code"], line["task"]) == ("local/ghost", "tool_unreviewed", "")


def test_every_record_of_a_call_has_its_id(world: Make) -> None:
    w = world()
    with w.task():
        w.try_(w.call(w.pay, "c1", to="bob", amount=1))
        w.try_(w.call(w.pay, "c1", to="bob", amount=1))
        w.try_(w.call(w.pay, "c1", to="bob", amount=2))
    first, again, other = (line["call"] for line in w.lines("decision"))
    assert first == again != other
