"""`Gate.dev()` among threads, forks and other programs in its folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lictor.model import ulid
from lictor.ports import Entry, PutTask
from lictor.store import open_store

ONCE = "[Enter] deny once > "
SURE = "Run exactly this call? [y/N] "


# -- threads --------------------------------------------------------------------------------------


def test_threads_that_meet_one_tool_at_once_ask_about_it_once(play: Any) -> None:
    seat = play.sit("""
import threading
gate = Gate.dev()
threads = [threading.Thread(target=call, args=(gate, LOOK), kwargs={"n": n}) for n in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    play.as_read(seat)
    told = seat.rest()

    assert told.count("ran: look") == 5
    assert seat.seen.count("is not reviewed") == 1


def test_threads_with_equal_calls_need_an_answer_each(play: Any) -> None:
    seat = play.sit('call(Gate.dev(), PAY, to="US133", amount=1)')
    play.as_transfer(seat)
    play.sure(seat)
    seat.rest()

    seat = play.sit("""
import threading
gate = Gate.dev()
given = {"to": "US133", "amount": 1}
threads = [threading.Thread(target=call, args=(gate, PAY, f"c{n}"), kwargs=given) for n in (1, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    play.sure(seat)
    play.sure(seat)
    told = seat.seen + seat.rest()

    assert told.count("ran: pay") == 2, told
    used = [each["ask"] for entry in play.records("decision") for each in entry.get("answers", [])]
    assert len(used) == len(set(used)) == 3


def test_a_no_to_one_of_two_equal_calls_stands_for_both(play: Any) -> None:
    seat = play.sit('call(Gate.dev(), PAY, to="US133", amount=1)')
    play.as_transfer(seat)
    play.sure(seat)
    seat.rest()

    seat = play.sit("""
import threading
gate = Gate.dev()
given = {"to": "US133", "amount": 1}
threads = [threading.Thread(target=call, args=(gate, PAY, f"c{n}"), kwargs=given) for n in (1, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    play.sure(seat, "n")
    told = seat.rest()

    assert told.count("denied: pay ask_rejected") == 2
    assert seat.seen.count(SURE) == 1


def test_a_thread_with_another_tool_waits_for_its_turn(play: Any) -> None:
    seat = play.sit("""
import threading
gate = Gate.dev()
threads = [
    threading.Thread(target=call, args=(gate, LOOK), kwargs={"n": 1}),
    threading.Thread(target=call, args=(gate, NOTE), kwargs={"text": "hi"}),
]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    seat.until(ONCE)
    assert seat.seen.count("is not reviewed") == 1
    seat.press("\r")
    seat.until(ONCE)
    assert seat.seen.count("is not reviewed") == 2
    seat.press("\r")

    assert seat.rest().count("tool_unreviewed") >= 1


# -- other programs -------------------------------------------------------------------------------


def test_two_programs_in_one_folder_at_two_terminals(play: Any) -> None:
    one = play.sit("call(Gate.dev(), LOOK, n=1)", "one.py")
    two = play.sit("call(Gate.dev(), NOTE, text='hi')", "two.py")
    one.until(ONCE)
    play.as_read(two)  # nobody waits for the other terminal
    assert "ran: note" in two.rest()
    one.press("r\r")
    one.until("returns? [Y/n] ")
    one.press("n")
    one.until("sensitive? [y/N] ")
    one.press("\r")

    assert "ran: look" in one.rest()
    assert sorted(str(known.review.key) for known in play.catalog().known_tools()) == [
        "local/look",
        "local/note",
    ]


def test_two_programs_at_one_terminal_ask_one_after_the_other(play: Any) -> None:
    play.write("call(Gate.dev(), LOOK, n=1)", "one.py")
    play.write("call(Gate.dev(), NOTE, text='hi')", "two.py")
    seat = play.sit("""
import subprocess
children = [subprocess.Popen([sys.executable, name]) for name in ("one.py", "two.py")]
for child in children: child.wait()
""")
    for asked in (1, 2):
        play.as_read(seat)
        assert seat.seen.count("is not reviewed") == asked
    told = seat.seen + seat.rest()

    assert "ran: look" in told
    assert "ran: note" in told
    assert len(play.catalog().known_tools()) == 2


def test_what_another_program_was_told_counts_from_the_next_start(play: Any) -> None:
    first = play.sit("""
gate = Gate.dev()
say("ready")
sys.stdin.readline()
call(gate, LOOK, n=1)
""")
    first.until("ready")
    second = play.sit("call(Gate.dev(), LOOK, n=2)", "two.py")
    play.as_read(second)
    second.rest()
    first.press("\r")
    first.until("local/look is not reviewed")  # by this running gate
    first.until(ONCE)
    first.press("\r")

    assert "denied: look tool_unreviewed" in first.rest()
    assert "ran: look" in play.sit("call(Gate.dev(), LOOK, n=3)").rest()


def test_a_block_by_another_program_is_not_lifted_by_a_key_that_did_not_know_of_it(
    play: Any,
) -> None:
    first = play.sit("call(Gate.dev(), LOOK, n=1)")
    first.until(ONCE)
    second = play.sit("call(Gate.dev(), LOOK, n=2)", "two.py")
    second.until(ONCE)
    second.press("b\r")
    second.rest()
    first.press("r\r")
    first.until("returns? [Y/n] ")
    first.press("n")
    first.until("sensitive? [y/N] ")
    first.press("\r")
    told = first.rest()

    assert "ran:" not in told
    assert "blocked" in told
    assert (play.folder / "catalog.toml").read_text().count("blocked = true") == 1


def test_a_catalog_that_turns_into_nonsense_while_it_runs_is_left_alone(play: Any) -> None:
    seat = play.sit("gate = Gate.dev()\ncall(gate, LOOK, n=1)\ncall(gate, NOTE, text='hi')")
    play.as_read(seat)
    seat.until("ran: look")
    seat.until(ONCE)
    (play.folder / "catalog.toml").write_text("[[tool]\n")
    seat.press("r\r")
    seat.until("returns? [Y/n] ")
    seat.press("n")
    seat.until("sensitive? [y/N] ")
    seat.press("\r")

    told = seat.rest()
    assert "not written: " in told
    assert "denied: note tool_unreviewed | " in told
    assert "not TOML" in told
    assert (play.folder / "catalog.toml").read_text() == "[[tool]\n"
    assert "ConfigError" in play.run(str(play.folder / "app.py"))


def test_an_entry_that_only_the_file_has_makes_no_tool_known_to_the_running_gate(
    play: Any,
) -> None:
    code = "gate = Gate.dev()\nsay('ready')\nsys.stdin.readline()\ncall(gate, LOOK, n=1)"
    seat = play.sit("call(Gate.dev(), LOOK, n=1)", "other/app.py")
    play.as_read(seat)
    seat.rest()
    seat = play.sit(code)
    seat.until("ready")
    for name in ("catalog.toml", "catalog.lock"):  # as an agent with a file tool would
        (play.folder / name).write_bytes((play.folder / "other" / name).read_bytes())
    seat.press("\r")
    seat.until(ONCE)
    seat.press("\r")

    assert "denied: look tool_unreviewed" in seat.rest()


# -- forks ----------------------------------------------------------------------------------------


def test_a_forked_child_asks_and_runs_under_the_same_task(play: Any) -> None:
    seat = play.sit("""
gate = Gate.dev()
call(gate, LOOK, n=1)
child = os.fork()
if child == 0:
    call(gate, LOOK, n=2)
    call(gate, NOTE, text="hi")
    os._exit(0)
os.waitpid(child, 0)
call(gate, LOOK, n=3)
gate.close()
""")
    play.as_read(seat)
    seat.until("ran: look {'n': 2}")
    play.as_read(seat)
    told = seat.rest()

    assert "ran: note" in told
    assert "ran: look {'n': 3}" in told
    assert len({each["task"] for each in play.records("decision")}) == 1


def test_a_child_forked_while_a_question_stands_asks_its_own_after_it(play: Any) -> None:
    seat = play.sit("""
import threading
gate = Gate.dev()
asking = threading.Thread(target=call, args=(gate, LOOK), kwargs={"n": 1})
asking.start()
while not os.path.exists(".lictor/flag"):
    os.stat(".")
child = os.fork()
if child == 0:
    call(gate, NOTE, text="hi")
    os._exit(0)
say("forked")
asking.join()
os.waitpid(child, 0)
""")
    seat.until(ONCE)
    (play.folder / ".lictor/flag").touch()
    seat.until("forked")
    seat.press("r\r")
    seat.until("returns? [Y/n] ")
    seat.press("n")
    seat.until("sensitive? [y/N] ")
    seat.press("\r")
    assert "Does note." in seat.until(ONCE)
    seat.press("\r")

    seat.rest()
    assert "ran: look" in seat.seen
    assert "denied: note tool_unreviewed" in seat.seen


# -- ended from elsewhere -------------------------------------------------------------------------

LOOPING = """
gate = Gate.dev()
call(gate, LOOK, n=0)
call(gate, PAY, to="US133", amount=1)
say("task", gate.process.id)
while gate.process.state == "running":
    os.stat(".")
call(gate, LOOK, n=1)
call(gate, PAY, to="US133", amount=1)
"""


def end(folder: Path, task: str) -> None:
    """As `!` of `lictor watch` does."""
    store = open_store(folder / ".lictor/lictor.db")
    try:
        row = store.task(task)
        assert row is not None
        ended = PutTask(replace(row, state="ended"))
        entry = Entry("task", 0, {"id": ulid(), "state": "ended"}, task=task, verdict="ended")
        store.commit((), (ended,), (entry,), durable=True).result(20)
    finally:
        store.close()


def test_a_task_that_was_ended_elsewhere_stops_reads_as_well(play: Any) -> None:
    seat = play.sit(LOOPING)
    play.as_read(seat)
    play.as_transfer(seat)
    play.sure(seat)
    seat.until("task ")
    task = seat.until("\n").strip()
    end(play.folder, task)

    told = seat.rest()
    assert "denied: look task_ended" in told
    assert "denied: pay task_ended" in told
    assert SURE not in told


def test_an_effect_is_stopped_by_the_store_before_the_watchman_looks(play: Any) -> None:
    seat = play.sit("""
gate = Gate.dev()
gate._watchman.stop()
call(gate, PAY, to="US133", amount=1)
""")
    play.as_transfer(seat)
    seat.until(SURE)
    with closing(sqlite3.connect(f"file:{play.folder}/.lictor/lictor.db?mode=ro", uri=True)) as db:
        ((task,),) = db.execute("select id from task").fetchall()
    end(play.folder, task)
    seat.press("y")

    told = seat.rest()
    assert "ran:" not in told
    assert "denied: pay task_ended | the task was ended while a person was asked" in told


def test_a_question_leaves_the_screen_when_its_task_has_ended(play: Any) -> None:
    seat = play.sit('call(Gate.dev(), PAY, to="US133", amount=1)')
    play.as_transfer(seat)
    seat.until(SURE)
    with closing(sqlite3.connect(f"file:{play.folder}/.lictor/lictor.db?mode=ro", uri=True)) as db:
        ((task,),) = db.execute("select id from task").fetchall()
    end(play.folder, task)

    told = seat.rest()  # nobody presses a key
    assert "(the question is withdrawn: " in told
    assert "denied: pay task_ended" in told or "| the question was withdrawn: its task" in told


def test_a_program_that_is_killed_leaves_a_record_that_verifies(play: Any) -> None:
    from lictor import audit

    seat = play.sit('call(Gate.dev(), PAY, to="US133", amount=1)')
    play.as_transfer(seat)
    seat.until(SURE)
    seat.program.kill()
    seat.program.wait()

    assert audit.verify(play.folder / ".lictor/lictor.db").ok
    seat = play.sit('call(Gate.dev(), PAY, to="US133", amount=1)')
    assert "is not reviewed" not in play.sure(seat)  # the review stands, the question is new
    assert "ran: pay" in seat.rest()
