"""The future of a relaxed commit: a real one for whoever looks, nothing for the others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lictor.ports import Committed, Head
from lictor.store.later import Later, settle

DONE = Committed(None, Head("s", 1, "h"))


def test_who_looks_after_the_end_sees_the_result() -> None:
    future = Later()
    settle(future, DONE)

    assert future.result(0) is DONE
    assert future.done()


def test_who_looks_before_the_end_waits_for_it() -> None:
    future = Later()
    seen: list[object] = []
    future.add_done_callback(lambda f: seen.append(f.result()))
    threading.Timer(0, settle, (future, DONE)).start()

    assert future.result(10) is DONE
    assert seen == [DONE]


def test_an_error_is_raised_to_who_looks_and_lost_for_nobody() -> None:
    future = Later()
    settle(future, None, OSError("full"))

    with pytest.raises(OSError, match="full"):
        future.result(0)


def test_a_future_that_nobody_looks_at_has_no_lock_of_its_own() -> None:
    future = Later()
    settle(future, DONE)

    assert "_condition" not in vars(future)


def test_a_loop_can_wait_for_it() -> None:
    async def main() -> object:
        future = Later()
        waiter = asyncio.wrap_future(future)
        threading.Timer(0, settle, (future, DONE)).start()
        return await waiter

    assert asyncio.run(main()) is DONE


def test_many_may_look_at_once() -> None:
    for _ in range(50):
        future = Later()
        start = threading.Barrier(5)
        seen: list[object] = []

        def look(future: Later, start: threading.Barrier, seen: list[object]) -> None:
            start.wait(10)
            seen.append(future.result(10))

        threads = [threading.Thread(target=look, args=(future, start, seen)) for _ in range(4)]
        for thread in threads:
            thread.start()
        start.wait(10)
        settle(future, DONE)
        for thread in threads:
            thread.join(10)
        assert seen == [DONE] * 4
