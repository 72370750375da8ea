"""The gate as adapters and programs use it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lictor import ConfigError, Denied, TaskError
from lictor.catalog import read_seen
from lictor.gate import Probed
from lictor.model import ToolKey
from lictor.ports import Answer
from lictor.testing import DenyAll, UnsafeScripted, gate_for, reviewed, tool_of

Make = Callable[..., Any]
World = Any
WAIT = 20.0


# -- what runs a body (rule 1) --------------------------------------------------------------------


def test_run_and_arun_give_what_the_body_gives(world: Make) -> None:
    w = world()
    with w.task():
        assert w.gate.run(w.call(w.look, n=1), lambda args: args) == {"n": 1}
        assert asyncio.run(w.gate.arun(w.call(w.look, n=1), w.abody)) == {"n": 1}


def test_deciding_refusing_and_listing_run_nothing(world: Make) -> None:
    w = world()
    with w.task():
        w.gate.decide(w.call(w.look))
        w.gate.refuse(w.call(w.look), "tool_unknown")
        w.gate.visible([w.look])
    assert w.runs == []


def test_the_event_loop_goes_on_while_a_commit_is_awaited(world: Make) -> None:
    w = world()
    release, ticked = threading.Event(), []

    async def main() -> None:
        def slow(guards: Any, writes: Any, entries: Any) -> Any:
            if not writes:
                return None
            real = w.store.inner.commit(guards, writes, entries, durable=True)
            from lictor.offload import Whose, offload

            waited = lambda: (release.wait(WAIT), real.result(WAIT))[1]  # noqa: E731
            return offload(waited, Whose("local", "alice"))

        w.store.on_commit = slow
        running = asyncio.create_task(w.gate.arun(w.call(w.pay, to="b", amount=1), w.abody))
        while not running.done() and len(ticked) < 3:
            ticked.append(1)
            await asyncio.sleep(0)
        release.set()
        await running
        w.store.on_commit = None

    with w.task():
        asyncio.run(main())
    assert len(ticked) == 3


# -- hints ----------------------------------------------------------------------------------------


def test_visible_is_what_may_be_called_at_all(world: Make) -> None:
    w = world(policy=None)
    ghost = tool_of("ghost")
    every = [w.look, w.pay, w.mail, ghost]
    assert w.gate.visible(every) == frozenset()
    with w.task(tools=["look", "pay"]):
        assert w.gate.visible(every) == {w.look.key, w.pay.key}
    with w.task(tools=None):
        assert w.gate.visible(every) == {w.look.key}
    with w.task(autonomous=True, tools=["look"]) as task:
        assert w.gate.visible(every) == {w.look.key}
        task.end()
        assert w.gate.visible(every) == frozenset()


def test_what_is_listed_decides_nothing(world: Make) -> None:
    w = world(policy=UnsafeScripted(Answer(False, "policy_denied")))
    with w.task():
        assert w.look.key in w.gate.visible([w.look])
        assert w.try_(w.call(w.look)) == "policy_denied"


# -- tasks (rule 3) -------------------------------------------------------------------------------

TASKS = {
    "t": {
        "tools": ["look", "pay"],
        "limits": {"pay": {"to": {"one_of": ["bob", "carol"]}, "amount": {"min": 0, "max": 9}}},
        "calls": 5,
        "spend": "20.5",
        "expires_in": 60,
        "purpose": "rent",
    },
    "nightly": {"tools": ["look"], "autonomous": True},
}


def test_a_template_gives_the_grant(world: Make) -> None:
    w = world(settings={"tasks": TASKS})
    grant = w.gate.task("t", agent="bot", on_behalf_of="alice").grant
    assert grant.tools == {ToolKey("local", "look"), ToolKey("local", "pay")}
    assert (grant.max_calls, grant.max_spend, grant.purpose) == (5, Decimal("20.5"), "rent")
    assert grant.expires - grant.issued == 60
    assert not grant.read_only


@pytest.mark.parametrize(
    "more",
    [
        {"tools": ["look", "mail"]},
        {"limits": {"pay": {"to": {"equals": "eve"}, "amount": {"min": 0, "max": 9}}}},
        {"limits": {"pay": {"to": {"one_of": ["bob"]}, "amount": {"min": 0, "max": 10}}}},
        {"limits": {"pay": {"to": {"one_of": ["bob"]}}}},
        {"limits": {"pay": {"to": "any"}}},
    ],
    ids=str,
)
def test_beside_a_template_nothing_may_be_wider(world: Make, more: Any) -> None:
    w = world(settings={"tasks": TASKS})
    with pytest.raises((TaskError, ConfigError)):
        w.gate.task("t", agent="bot", on_behalf_of="alice", **more)


def test_beside_a_template_it_may_be_narrower(world: Make) -> None:
    w = world(settings={"tasks": TASKS})
    limits = {"pay": {"to": {"equals": "bob"}, "amount": {"min": 0, "max": 2}}}
    with w.gate.task("t", agent="bot", on_behalf_of="alice", tools=["pay"], limits=limits):
        assert w.try_(w.call(w.pay, to="bob", amount=2)) == "permit"
        assert w.try_(w.call(w.pay, to="carol", amount=2)) == "grant_limit"
        assert w.try_(w.call(w.look)) == "grant_scope"


def test_a_task_that_names_no_tools_only_reads(world: Make) -> None:
    w = world()
    with w.gate.task(agent="bot", on_behalf_of="alice"):
        assert w.try_(w.call(w.look)) == "permit"
        assert w.try_(w.call(w.pay, to="bob", amount=1)) == "grant_scope"


def test_limits_without_tools_do_not_add_effects(world: Make) -> None:
    w = world()
    limits = {"pay": {"to": {"equals": "bob"}, "amount": {"min": 0, "max": 9}}}
    with w.gate.task(agent="bot", on_behalf_of="alice", limits=limits):
        assert w.try_(w.call(w.pay, to="bob", amount=1)) == "grant_scope"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"template": "typo"}, r"there is no task template 'typo' \(known: nightly, t\)"),
        ({"agent": "bto"}, "known: bot"),
        ({"on_behalf_of": "alicia"}, "known: alice"),
        ({"tenant": "globex"}, "tenants differ"),
        ({"on_behalf_of": None}, "without a user"),
        ({"autonomous": True}, "not autonomous"),
        ({"agent": "stray", "on_behalf_of": None, "autonomous": True}, "no owner"),
        ({"agent": "theirs"}, "tenants differ"),
        ({"tools": "pay"}, "must be a list"),
        ({"tools": ["Bad/x"]}, "server id"),
    ],
    ids=str,
)
def test_what_opens_no_task(world: Make, given: Any, message: str) -> None:
    agents = {"bot": {"owner": "alice"}, "stray": {}, "theirs": {"tenant": "globex"}}
    w = world(settings={"agents": agents, "tasks": TASKS})
    before = len(w.lines())
    parts = {"agent": "bot", "on_behalf_of": "alice", **given}
    with pytest.raises(TaskError, match=message):
        w.gate.task(parts.pop("template", None), **parts)
    assert len(w.lines()) == before


def test_the_same_tenant_may_be_said(world: Make) -> None:
    w = world(settings={"tenant": "acme"})
    assert w.task(tenant="acme").grant.tenant == "acme"


def test_an_autonomous_task_has_its_owner_in_the_chain(world: Make) -> None:
    policy = UnsafeScripted(Answer(True, "permit"))
    w = world(policy=policy, settings={"tasks": TASKS})
    with w.gate.task("nightly", agent="bot", session="s"):
        w.try_(w.call(w.look))
    (query,) = policy.queries
    assert [str(each) for each in query.chain] == ["user:local/alice", "agent:local/bot"]
    assert query.autonomous


def test_every_principal_of_the_chain_is_asked_about(world: Make) -> None:
    policy = UnsafeScripted(Answer(True, "permit"))
    w = world(policy=policy)
    with w.task() as task, task.delegate("helper", tools=["look"]):
        w.try_(w.call(w.look))
    assert [each.id for each in policy.queries[-1].chain] == ["alice", "bot", "helper"]


# -- what adapters use (rule 2) -------------------------------------------------------------------


class Guarded:
    pass


def test_what_is_guarded_is_known_by_the_object_itself(world: Make) -> None:
    w = world()
    one, other, seam = Guarded(), Guarded(), object()
    w.gate.hold(one, seam)
    other.__dict__.update(one.__dict__, __lictor__=True)  # a mark says nothing
    assert w.gate.held(one) is seam
    assert w.gate.held(other) is None
    assert w.gate.held("one") is None


def test_an_object_that_is_gone_leaves_no_name_behind(world: Make) -> None:
    w = world()
    guarded = Guarded()
    w.gate.hold(guarded, object())
    key = id(guarded)
    del guarded
    gc.collect()
    assert key not in w.gate._held


def test_a_probe_is_seen_and_runs_nothing(world: Make) -> None:
    w = world()
    with w.task(), w.gate.probing() as probe:
        with pytest.raises(Probed, match=probe.nonce):
            w.gate.run(w.call(w.look), w.body)
        with pytest.raises(Probed):
            asyncio.run(w.gate.arun(w.call(w.pay, to="b", amount=1), w.abody))
        assert probe.hits == [w.look.key, w.pay.key]
    assert (w.runs, w.decisions()) == ([], [])


def test_a_probe_of_this_context_is_none_of_another(world: Make) -> None:
    w = world()
    found: list[str] = []
    with w.task() as task:
        elsewhere = task.bind(lambda: found.append(w.try_(w.call(w.look))))
        with w.gate.probing():
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join(WAIT)
    assert found == ["permit"]


def test_definitions_that_were_met_are_noted(world: Make, tmp_path: Any) -> None:
    w = world()
    ghost = tool_of("ghost")
    for _ in range(2):
        w.gate.met(ghost)
    assert read_seen(tmp_path / "seen.json") == {ghost.key: ghost}


def test_what_nothing_was_wrapped_for_is_not_counted(world: Make) -> None:
    w, said = world(), list[str]()
    w.gate._say = said.append

    with w.task():
        for _ in range(2):
            w.gate.run(w.call(w.look, n=1), w.body)

    assert [line.partition(";")[0] for line in said] == ["profile local, placement p0"]


def test_a_denial_tells_the_model_little_and_the_developer_all(world: Make) -> None:
    w = world(policy=DenyAll())
    with w.task(), pytest.raises(Denied) as caught:
        w.gate.run(w.call(w.look), w.body)
    assert str(caught.value) == caught.value.decision.text
    assert "lictor explain" in caught.value.diagnostics()
    assert "policy" not in str(caught.value).lower()


def test_closing_twice_is_fine(world: Make) -> None:
    w = world()
    with w.gate:
        pass
    w.gate.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [5]},
        {"tools": ["look"], "limits": 5},
        {"tools": ["look"], "limits": {"look": 5}},
        {"agent": None},
        {"agent": ""},
        {"session": 5},
        {"session": ""},
        {"grace": "x"},
        {"grace": float("nan")},
        {"grace": -1},
        {"tenant": ""},
    ],
    ids=str,
)
def test_a_task_is_not_opened_from_values_of_another_kind(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"agent": "bot", "on_behalf_of": "alice", **wrong}

    with gate_for(tmp_path, [reviewed(tool_of("look"))]) as gate, pytest.raises(TaskError):
        gate.task(**given)
