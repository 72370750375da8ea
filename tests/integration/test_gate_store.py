"""Gates over one store: what they see of each other, and what a broken store does to them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lictor import ToolCall
from lictor.testing import reviewed, tool_of

Make = Callable[..., Any]
WAIT = 30.0


def pay(world: Any, host_id: str = "", **more: object) -> ToolCall:
    call: ToolCall = world.call(world.pay, host_id, **{"to": "bob", "amount": 1, **more})
    return call


def test_two_gates_and_one_host_call_run_it_once(world: Make) -> None:
    gates = [world() for _ in range(2)]
    ready = threading.Barrier(2)
    found: list[str] = []

    def work(w: Any) -> None:
        with w.task():
            ready.wait(WAIT)
            found.extend(w.try_(pay(w, f"c{n}")) for n in range(20))

    threads = [threading.Thread(target=work, args=(w,)) for w in gates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert (found.count("permit"), found.count("already_attempted")) == (20, 20)
    assert sum(len(w.runs) for w in gates) == 20
    assert gates[0].ok()
    row = gates[0].store.inner.session("local", "s")
    assert (row.calls, row.effects, row.spent) == (20, 20, 200_000)


def test_an_effect_ended_elsewhere_is_not_started_here(world: Make) -> None:
    """The row is the truth: another process has ended this task."""
    from lictor.ports import PutTask, TaskRow

    one, two = world(), world()
    with one.task() as task:
        assert one.try_(pay(one)) == "permit"
        row = TaskRow(task.id, "ended", "local", "s", task.grant.to_json())
        two.store.inner.commit(writes=(PutTask(row),), durable=True).result(WAIT)
        assert one.try_(pay(one)) == "task_ended"
    assert len(one.runs) == 1


def test_a_full_store_runs_nothing_and_recovers(world: Make) -> None:
    w = world()
    with w.task(tools=["look", "pay"]):
        assert w.try_(pay(w)) == "permit"
        w.flush()
        database = w.store.inner._database
        with database.busy:
            held = database._writing()
            pages = held.execute("PRAGMA page_count")[0]
            held.execute(f"PRAGMA max_page_count={pages}")
        found = [w.try_(pay(w, to="x" * 2000, amount=n)) for n in range(12)]
        assert "record_unavailable" in found
        assert len(w.runs) == 1 + found.count("permit")
        first = found.index("record_unavailable")
        assert set(found[first:]) == {"record_unavailable"}
        reads = (w.try_(w.call(w.look)) for _ in range(1_000))  # some records may still fit
        assert "record_unavailable" in reads


def test_what_was_denied_for_want_of_a_store_is_said_plainly(world: Make) -> None:
    w = world()
    with w.task():
        w.gate.close()
        decision = w.denied(pay(w))
    assert decision.reason == "record_unavailable"
    assert "closed" in decision.detail
    assert "store" not in decision.text


PROGRAM = """
import sys
from pathlib import Path
from lictor import ToolCall
from lictor.testing import UnsafeAllowAll, gate_for, reviewed, tool_of
look = tool_of("look")
gate = gate_for(Path(sys.argv[1]), [reviewed(look)], policy=UnsafeAllowAll())
with gate.task(agent="bot", on_behalf_of="alice", session="s"):
    for _ in range(50):
        gate.run(ToolCall(look, {}), lambda args: None)
# no close, no flush: the program just ends
"""


def test_a_program_that_just_ends_loses_no_record(world: Make, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, timeout=60)
    w = world(reviewed(tool_of("look")))
    assert len(w.lines("decision")) == 50
    assert len(w.lines("outcome")) == 50
    assert w.ok()


def test_a_crowd_of_effects_in_one_conversation_all_get_through_or_say_why(world: Make) -> None:
    """Each moves the facts that the others read."""
    from lictor.ports import Answer
    from lictor.testing import UnsafeScripted

    yes = Answer(True, "permit", reads=frozenset({"calls", "spent"}))
    w = world(policy=UnsafeScripted(yes, reads=("calls",)))
    found: list[str] = []
    with w.task() as task:
        threads = [
            threading.Thread(target=task.bind(lambda n=n: found.append(w.try_(pay(w, f"c{n}")))))
            for n in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert task.used == (found.count("permit"), found.count("permit") * 10_000)
    assert set(found) <= {"permit", "contention"}
    assert found.count("permit") == len(w.runs) >= 1
    assert len(w.decisions()) == 12
    row = w.store.inner.session("local", "s")
    assert row.effects == len(w.runs)
