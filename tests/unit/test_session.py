"""Session facts: they belong to the conversation, only grow, and are never lost by accident."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lictor import Denied, StoreError, TaskError
from lictor.ports import Answer, SessionFacts
from lictor.session import Sessions
from lictor.testing import UnsafeScripted

Make = Callable[..., Any]
World = Any
WAIT = 20.0
YES = Answer(True, "permit")


def facts(world: World, tool: Any = None) -> SessionFacts:
    """What policy sees of the session at the next call."""
    found: SessionFacts = world.policy.queries[-1].session
    return found


@pytest.fixture
def seen(world: Make) -> Make:
    def make(*known: Any, **options: Any) -> World:
        policy = UnsafeScripted(YES, reads=options.pop("reads", ("labels", "calls")))
        made = world(*known, policy=policy, **options)
        made.policy = policy
        return made

    return make


def test_facts_belong_to_the_conversation_not_to_the_task(seen: Make) -> None:  # rule 1
    w = seen()
    with w.task(session="a"):
        w.try_(w.call(w.look))
    gc.collect()
    with w.task(session="b"):
        w.try_(w.call(w.mail, to="x"))
        assert facts(w).labels == frozenset()
    with w.task(session="a"):
        w.try_(w.call(w.mail, to="x"))
        assert facts(w).labels == {"untrusted"}
        assert facts(w).sources == {"outsiders"}


def test_the_same_name_in_another_tenant_is_another_conversation(seen: Make) -> None:
    settings = {
        "agents": {"bot": {}, "their-bot": {"tenant": "globex"}},
        "users": {"alice": {}, "eve": {"tenant": "globex"}},
    }
    w = seen(settings=settings)
    with w.task(session="a"):
        w.try_(w.call(w.look))
    with w.task(session="a", agent="their-bot", on_behalf_of="eve"):
        w.try_(w.call(w.mail, to="x"))
    assert facts(w).labels == frozenset()


def test_a_conversation_nobody_named_starts_untrusted(seen: Make) -> None:  # rule 4
    w = seen()
    with w.task(session=None):
        w.try_(w.call(w.mail, to="x"))
    assert facts(w).labels == {"untrusted"}


def test_two_processes_see_each_other(seen: Make) -> None:
    one, two = seen(), seen()
    with one.task() as task:
        one.try_(one.call(one.mail, to="x"))

        def other() -> None:
            with two.task():
                two.try_(two.call(two.look))
                two.try_(two.call(two.mail, to="x"))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(WAIT)
        two.flush()
        one.try_(one.call(one.mail, to="y"))
        assert facts(one).labels == {"untrusted"}
        assert facts(one).effects == 3
        assert task.live


def test_calls_in_flight_see_each_other(seen: Make) -> None:  # rule 3
    w = seen()

    async def main() -> None:
        entered, release = asyncio.Event(), asyncio.Event()

        async def body(args: dict[str, object]) -> None:
            entered.set()
            await release.wait()

        first = asyncio.create_task(w.gate.arun(w.call(w.look), body))
        await entered.wait()
        w.try_(w.call(w.look))
        assert facts(w).calls == 2
        release.set()
        await first

    with w.task():
        asyncio.run(main())
        w.try_(w.call(w.look))
        assert facts(w).calls == 3


def test_a_read_under_way_labels_the_send_that_was_decided_before_it_ended(seen: Make) -> None:
    """The label moved between the decision and its intent: the send is decided again."""
    w = seen(reads=("labels",))
    labels: list[frozenset[str]] = []

    async def main() -> str:
        entered, release, read = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def body(args: dict[str, object]) -> None:
            entered.set()
            await release.wait()

        reading = asyncio.create_task(w.gate.arun(w.call(w.look), body))
        await entered.wait()
        loop = asyncio.get_running_loop()
        real = w.policy.evaluate

        def evaluate(query: Any) -> Answer:
            labels.append(query.session.labels)
            if len(labels) == 1:
                loop.call_soon_threadsafe(release.set)
                finished.wait(WAIT)
            ok = not query.session.labels
            return Answer(ok, "permit" if ok else "policy_denied", reads=frozenset({"labels"}))

        finished = threading.Event()
        reading.add_done_callback(lambda _: finished.set())
        w.policy.evaluate, w.policy.blocking = evaluate, True
        try:
            await w.gate.arun(w.call(w.mail, to="eve"), w.abody)
        except Denied as denied:
            return denied.decision.reason
        finally:
            w.policy.evaluate = real
            read.set()
        return "permit"

    with w.task():
        assert asyncio.run(main()) == "policy_denied"
    assert labels == [frozenset(), {"untrusted"}]
    assert w.runs == []


def test_counts_and_spend_are_those_that_were_let_through(seen: Make) -> None:  # rule 5
    w = seen(reads=("calls", "spent", "effects"))
    with w.task():
        w.try_(w.call(w.look))
        w.try_(w.call(w.look))
        w.try_(w.call(w.pay, "p1", to="bob", amount=2.5))
        assert w.try_(w.call(w.pay, "p1", to="bob", amount=2.5)) == "already_attempted"
        w.try_(w.call(w.look))
    assert (facts(w).calls, facts(w).effects, str(facts(w).spent)) == (4, 1, "2.5")
    w.flush()
    row = w.store.inner.session("local", "s")
    assert (row.calls, row.effects, row.spent) == (4, 1, 25_000)


def test_labels_only_grow(seen: Make) -> None:  # rule 2
    w = seen()
    sessions = Sessions(w.store)
    session = sessions.open("local", "g")
    for labels in ({"a"}, {"b"}, set(), {"a"}):
        write = session.grow(frozenset(labels), frozenset())
        if write is not None:
            w.store.commit(writes=(write,), durable=True).result(WAIT)
    held = session.reserve(effect=False, spend=0, fresh=True)
    assert held.facts.labels == {"a", "b"}


def test_a_label_is_known_at_once_and_until_it_is_stored(seen: Make) -> None:
    w = seen()
    session = Sessions(w.store).open("local", "g")
    assert session.grow(frozenset({"a"}), frozenset()) is not None
    assert session.reserve(effect=False, spend=0, fresh=True).facts.labels == {"a"}
    assert session.grow(frozenset({"a"}), frozenset()) is not None  # still not stored


def test_a_stored_label_is_not_stored_again(seen: Make) -> None:
    w = seen()
    with w.task() as task:
        w.try_(w.call(w.look))
        commits: list[Any] = []
        w.store.on_commit = lambda g, writes, e: commits.append(writes)
        w.try_(w.call(w.look))
        w.store.on_commit = None
        assert commits == [(), ()]
        assert task.session.reserve(effect=False, spend=0, fresh=False).facts.labels


def test_a_session_that_cannot_be_opened_opens_no_task(seen: Make) -> None:
    w = seen()

    def fail(*_: object) -> None:
        raise StoreError("full", "mend")

    w.store.on_commit = fail
    with pytest.raises(TaskError, match="session cannot be opened"):
        w.task(session=None)
    w.store.on_commit = None


def test_a_session_that_cannot_be_read_denies(seen: Make) -> None:
    w = seen()
    with w.task() as task:

        def fail() -> None:
            raise StoreError("gone", "mend")

        w.store.on_read = fail
        assert w.try_(w.call(w.look)) == "record_unavailable"
        w.store.on_read = None
        assert (task.used, task.session._flying) == ((0, 0), {})
    assert w.runs == []


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_a_name_that_cannot_be_stored_is_refused(seen: Make, name: str) -> None:
    w = seen()
    with pytest.raises(TaskError, match="cannot be recorded"):
        w.task(session=name)
    with pytest.raises(TaskError, match="cannot be recorded"):
        w.task(purpose=name)
