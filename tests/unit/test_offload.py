"""Blocking ports: places for so many, and nobody takes the places of all."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random

import pytest

from lictor.offload import PEOPLE, PORTS, Busy, Share, Whose, offload

WAIT = 20.0
ALICE, BOB, CARL = (Whose("local", name) for name in ("alice", "bob", "carl"))


@contextmanager
def held(share: Share, whose: Whose, calls: int) -> Iterator[list[Future[bool]]]:
    """So many calls of ports that hang, as many as find a place."""
    release = threading.Event()
    try:
        made = [offload(lambda: release.wait(WAIT), whose, share) for _ in range(calls)]
        yield [each for each in made if not each.done()]
    finally:
        release.set()
    for each in made:
        if not isinstance(each.exception(WAIT), Busy):
            assert each.result(WAIT)


def filled(share: Share, whose: Whose) -> int:
    """How many places a user gets."""
    taken = 0
    try:
        while True:
            share.take(whose)
            taken += 1
    except Busy:
        return taken


def test_a_port_runs_with_the_callers_context_and_leaves_no_process_hanging() -> None:  # rule 1
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")
    seen.set("mine")
    assert offload(seen.get, ALICE).result(WAIT) == "mine"
    assert offload(lambda: threading.current_thread().daemon, ALICE).result(WAIT)


def test_too_many_are_refused_instead_of_queued() -> None:  # rule 2
    share, runs = Share(8, "odd jobs"), list[int]()
    with held(share, ALICE, 200) as under_way:
        assert len(under_way) == 4
        refused = offload(lambda: runs.append(1), ALICE, share)
        assert refused.done()
        with pytest.raises(Busy) as caught:
            refused.result()
    assert str(caught.value) == (
        "4 of 8 odd jobs are under way, 4 of them for alice; nobody may have more than are left"
    )
    assert runs == []


def test_questions_to_people_take_no_place_from_policy() -> None:  # rule 2
    with held(PEOPLE, ALICE, 200), held(PEOPLE, BOB, 200), held(PEOPLE, CARL, 200):
        assert offload(lambda: "answered", ALICE, PORTS).result(WAIT) == "answered"


@pytest.mark.parametrize("places", [1, 2, 3, 48, 128])
def test_one_user_leaves_places_to_another(places: int) -> None:  # rule 3
    share = Share(places, "")
    assert filled(share, ALICE) == (places + 1) // 2
    assert filled(share, BOB) > 0 or places == 1


def test_the_same_name_in_another_tenant_is_somebody_else() -> None:
    share = Share(8, "")
    filled(share, ALICE)
    share.take(Whose("other", "alice"))


def test_to_take_all_questions_six_users_must_work_together() -> None:  # docs/limits.md
    share, taken = Share(PEOPLE.places, ""), list[int]()
    for n in range(10):
        taken.append(filled(share, Whose("local", f"u{n}")))
    assert taken == [24, 12, 6, 3, 2, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_has_none_gets_one_while_one_is_free_and_what_is_freed_is_free(seed: int) -> None:
    random, share, mine = Random(seed), Share(12, ""), dict.fromkeys("abcd", 0)
    for _ in range(500):
        name = random.choice("abcd")
        if mine[name] and random.random() < 0.4:
            share.free(Whose("local", name))
            mine[name] -= 1
            continue
        fits = mine[name] < 12 - sum(mine.values())
        try:
            share.take(Whose("local", name))
        except Busy:
            assert not fits
            assert mine[name] or sum(mine.values()) == 12
        else:
            assert fits
            mine[name] += 1
        assert sum(mine.values()) <= 12


def test_a_place_is_taken_until_the_thread_is_over() -> None:  # rule 4
    share = Share(1, "")
    with held(share, ALICE, 1) as (under_way,):
        with pytest.raises(TimeoutError):
            under_way.result(0)
        assert not under_way.cancel()
        assert isinstance(offload(lambda: None, BOB, share).exception(WAIT), Busy)
    assert offload(lambda: "mine", BOB, share).result(WAIT) == "mine"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), StopIteration()])
def test_a_port_that_raises_gives_its_place_back(error: BaseException) -> None:
    share = Share(1, "")

    def port() -> None:
        raise error

    for _ in range(3):
        raised = offload(port, ALICE, share).exception(WAIT)
        assert isinstance(raised, RuntimeError if isinstance(error, StopIteration) else type(error))


def test_a_thread_that_cannot_start_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    share = Share(1, "")

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                offload(lambda: None, ALICE, share).result(WAIT)
    assert offload(lambda: "ran", ALICE, share).result(WAIT) == "ran"


def test_in_a_forked_child_no_place_is_taken() -> None:
    share = Share(2, "")
    filled(share, ALICE)
    share.forked()
    share.free(ALICE)  # the port itself has forked
    assert filled(share, BOB) == 1
