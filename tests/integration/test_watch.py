"""`lictor watch` on a real terminal, beside a real gate in another process."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lictor import audit
from lictor.catalog import lock, note, read_seen
from lictor.testing import tool_of
from lictor.testing.seat import Seat

LICTOR = """\
[agents.bot]
owner = "alice"

[users.alice]

[tasks.open]
tools = ["look", "pay"]
"""
CATALOG = """\
[[tool]]
server = "local"
name = "look"
impact = "read"
recordable = ["n"]

[[tool]]
server = "local"
name = "pay"
impact = "transfer"
target = ["to"]
amount = "amount"
recordable = ["to"]
"""
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
PROGRAM = """
import sys, threading, time
from lictor import Denied, Gate, ToolCall
from lictor.testing import tool_of

LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
gate = Gate.from_file(sys.argv[1])
task = gate.task("open", agent="bot", on_behalf_of="alice", session="s")

def say(*words):
    print(*words, flush=True)
"""
CALL = """
def call(tool, **arguments):
    try:
        gate.run(ToolCall(tool, arguments), lambda args: args)
        say("ran")
    except Denied as denied:
        say("denied", denied.decision.reason, denied.decision.detail)
"""
MAIN = "from lictor.cli import main; main()"
LOOK_ON = "[(call(LOOK, n=1), time.sleep(0.05)) for _ in range(400)]"
QUESTION = "run exactly this call? [y/n] "


class Running:
    """A program without a terminal, in another process."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, text: str) -> str:
        """The next line that holds the text."""
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} did not come; said:\n{''.join(seen)}")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self) -> str:
        return self.process.communicate(timeout=60)[0]


class World:
    def __init__(self, project: Path, stack: ExitStack) -> None:
        self.project, self._stack = project, stack

    def watch(self, *options: str, **more: object) -> Seat:
        argv = [sys.executable, "-c", MAIN, "watch", "-p", str(self.project), *options]
        return self._stack.enter_context(Seat(argv, **more))  # type: ignore[arg-type]

    def shell(self) -> Seat:
        argv = ["/bin/bash", "--noprofile", "--norc", "-i"]
        return self._stack.enter_context(Seat(argv, env={"PS1": "$ "}))

    def run(self, code: str) -> Running:
        return self._started(PROGRAM + CALL + code, str(self.project))

    def run_dev(self, code: str) -> Running:
        return self._started(code, str(self.project.parent))

    def follow(self, *options: str) -> Running:
        return self._started(MAIN, "watch", "-p", str(self.project), *options)

    def _started(self, *argv: str) -> Running:
        running = Running(*argv)
        self._stack.enter_context(running.process)
        self._stack.callback(running.process.kill)
        return running

    def records(self, kind: str) -> list[dict[str, object]]:
        store = self.project.parent / ".lictor/lictor.db"
        return [dict(line.body) for line in audit.show(store, kind=kind, limit=10_000)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "lictor.toml"
    path.write_text(LICTOR)
    (tmp_path / "catalog.toml").write_text(CATALOG)
    note(tmp_path / ".lictor/seen.json", [LOOK, PAY])
    seen = read_seen(tmp_path / ".lictor/seen.json")
    lock(tmp_path / "catalog.toml", tmp_path / "catalog.lock", seen, accept=seen)
    with ExitStack() as stack:
        yield World(path, stack)


# -- asks


def test_an_ask_is_answered_with_a_key(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")

    shown = watch.until(QUESTION)
    watch.press("y")

    program.until("ran")
    assert 'to = "bob"' in shown
    assert "amount = 5" in shown
    watch.until("local/pay: the question was granted by ")
    answer = world.records("answer")[0]
    assert answer["channel"] == "watch"
    assert answer["assurance"] == "asserted"
    assert answer["evidence"] is False
    assert len(str(answer["shown"])) == 64


def test_a_no_denies(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")

    watch.until(QUESTION)
    watch.press("n")

    program.until("denied ask_rejected")
    watch.until("local/pay: the question was rejected by ")


def test_a_key_pressed_before_the_question_stood_and_several_at_once_are_no_answer(
    world: World,
) -> None:
    watch = world.watch()
    watch.until("running: none")
    watch.press("y")
    program = world.run("with task: call(PAY, to='bob', amount=5)")

    watch.until(QUESTION)
    watch.press("\x1b[Ayes")
    watch.until("(one key at a time)")
    watch.until(QUESTION)
    watch.press("n")

    program.until("denied ask_rejected")


def test_two_asks_are_put_one_after_the_other(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    world.run("with task: call(PAY, to='bob', amount=5)")
    watch.until(QUESTION)
    other = world.run("with task: call(PAY, to='eve', amount=6)")

    watch.until("(1 more wait")
    watch.press("y")
    shown = watch.until(QUESTION)
    watch.press("n")

    assert 'to = "eve"' in shown
    other.until("denied ask_rejected")


def test_of_two_watchers_one_answers_and_the_other_is_told(world: World) -> None:
    first, second = world.watch(), world.watch()
    first.until("running: none")
    second.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")
    first.until(QUESTION)
    second.until(QUESTION)

    first.press("y")

    program.until("ran")
    second.until("(local/pay: the question is over: answered elsewhere: granted)")
    assert len(world.records("answer")) == 1


def test_a_watcher_that_is_killed_watches_no_more(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")

    os.kill(watch.program.pid, signal.SIGKILL)
    watch.program.wait()
    program = world.run("with task: call(PAY, to='bob', amount=5)")

    program.until("does not fix in advance; nobody is watching; run: lictor watch")


def test_an_ask_of_a_task_that_ends_goes_away(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")
    watch.until(QUESTION)

    watch.press("!")

    watch.until("(task open (bot for alice) ended)")
    watch.until("(local/pay: the question is over: withdrawn)")
    program.until("denied ")


def test_a_question_that_somebody_has_edited_in_the_store_is_not_put(world: World) -> None:
    watch = world.watch("--last", "0")
    watch.until("running: none")
    watch.press("e")  # no question is put while a line is asked for
    watch.until("explain which line?")
    world.run("with task: call(PAY, to='eve', amount=5)")
    watch.until("a person is asked")

    with closing(sqlite3.connect(world.project.parent / ".lictor/lictor.db")) as db:
        db.execute("UPDATE approval SET request = replace(request, 'eve', 'bob')")
        db.commit()
    watch.press("\n")

    watch.until("(a question about local/pay is not shown: its seal is not ours")
    watch.press("!!")
    watch.until("ended)")
    assert "bob" not in watch.seen
    assert [each["verdict"] for each in world.records("answer")] == ["withdrawn"]


def test_a_long_argument_is_shown_whole_on_a_key(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    program = world.run("with task: call(PAY, to='b' * 900_000, amount=5)")

    shown = watch.until("run exactly this call? [y/n, [v]iew all] ")
    watch.press("v")
    watch.until("more lines: [Enter] next, [q] back -- ")
    watch.press("\n")
    watch.until("more lines: ")
    watch.press("q")
    watch.until("[y/n, [v]iew all] ")
    watch.press("y")

    program.until("ran")
    assert "898,000 more characters, sha256:" in shown.replace("\n      | ", "")


def test_hostile_text_in_an_argument_stays_text(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    world.run(r"with task: call(PAY, to='b\x1b[2J\u202eob\n\x07', amount=5)")

    shown = watch.until(QUESTION)
    watch.press("n")
    watch.until("rejected by")

    assert r"b\u{1b}[2J\u{202e}ob\n\u{7}" in shown
    assert not {"\u202e", "\x07"} & set(watch.seen)


def test_a_project_of_gate_dev_needs_no_settings_and_its_answers_are_marked(world: World) -> None:
    world.project.unlink()
    watch = world.watch()
    watch.until("running: none")
    program = world.run_dev(
        PROGRAM.partition("gate = ")[0]
        + "gate = Gate.dev(sys.argv[1])\n"
        + "def say(*words): print(*words, flush=True)\n"
        + CALL
        + "call(PAY, to='bob', amount=5)"
    )

    watch.until(QUESTION)
    watch.press("y")

    program.until("ran")
    watch.until("the question was granted by ")
    assert world.records("answer")[0]["assurance"] == "dev"


# -- decisions


def test_decisions_and_what_goes_wrong_are_lines(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")

    world.run(
        "with task:\n"
        "    call(LOOK, n=7)\n"
        "    call(LOOK, n='seven')\n"
        "    try: gate.run(ToolCall(LOOK, {'n': 1}), lambda args: 1 / 0)\n"
        "    except ZeroDivisionError: pass"
    )

    watch.until("task started: open")
    allowed = watch.until("n=7")
    denied = watch.until("input_invalid")
    watch.until("local/look failed")
    watch.until("task ended: open")
    assert "allow" in allowed
    assert "local/look" in allowed
    assert "bot for alice" in allowed
    assert "task open" in allowed
    assert "deny" in denied


def test_not_one_of_many_decisions_is_left_out(world: World) -> None:
    watch = world.watch("--last", "0")
    watch.until("running: none")

    world.run("with task:\n    for n in range(1500): gate.run(ToolCall(LOOK, {'n': n}), bool)")
    seen = watch.until("n=1499")

    found = re.findall(r" n=(\d+)", seen)
    assert list(map(int, found)) == list(range(1500))


def test_a_line_is_explained(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    world.run("with task:\n    call(LOOK, n='seven')\n    call(LOOK, n=1)")
    watch.until("task ended")

    watch.press("e")
    watch.until("explain which line? (Enter for 1)")
    watch.press("\n")
    first = watch.until("mend: ")
    watch.press("e")
    watch.until("explain which line?")
    watch.press("2\n")
    second = watch.until("task open")
    watch.press("e")
    watch.until("explain which line?")
    watch.press("99\n")

    assert "local/look: deny (input_invalid)" in first
    assert "local/look: allow (permit)" in second
    watch.until("(there is no line 99)")


def test_a_question_that_ended_with_its_task_counts_as_the_last_denial(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    world.run("with task:\n    call(LOOK, n='seven')\n    call(PAY, to='bob', amount=5)")
    watch.until(QUESTION)
    watch.press("!")
    watch.until("task ended: open")
    watch.until("running: none")

    watch.press("e")
    watch.until("explain which line? (Enter for 2)")
    watch.press("\n")

    assert "local/pay: ask (task_ended), block" in watch.until("mend: ")


def test_what_was_before_is_shown_as_far_as_wanted(world: World) -> None:
    world.run("with task:\n    for n in range(5): call(LOOK, n=n)").rest()

    seen = world.watch("--last", "4").until("running: none")

    assert "n=4" in seen
    assert "n=0" not in seen


# -- ending


def test_one_key_ends_the_only_running_task_and_the_record_says_who(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    program = world.run(f"with task:\n    say('in'); sys.stdin.readline(); {LOOK_ON}")
    program.until("in")
    watch.until("task started: open")

    watch.press("!")

    watch.until("(task open (bot for alice) ended)")
    program.go_on()
    program.until("denied task_ended")
    ended = [each for each in world.records("task") if each["verdict"] == "ended"]
    assert ended[0]["channel"] == "watch"
    assert ended[0]["by"]


def test_of_several_tasks_one_is_chosen(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")
    code = f"with task:\n    say('in'); sys.stdin.readline(); {LOOK_ON}"
    first = world.run(code)
    first.until("in")
    second = world.run(code)
    second.until("in")
    watch.until("running: 2 x open")

    watch.press("!")
    watch.until("end which task? [1-2, any other key: none] ")
    watch.press("x")
    watch.until("(no task was ended)")
    watch.press("!")
    watch.until("end which task?")
    watch.press("2")

    watch.until("(task open (bot for alice) ended)")
    second.go_on()
    second.until("denied task_ended")
    first.go_on()
    first.until("ran")


def test_nothing_runs_nothing_ends(world: World) -> None:
    watch = world.watch()
    watch.until("running: none")

    watch.press("!")

    watch.until("(no task is running)")


def test_a_task_of_a_dead_program_does_not_run(world: World) -> None:
    program = world.run("with task:\n    say('in'); sys.stdin.readline()")
    program.until("in")
    program.process.kill()
    program.process.wait()

    watch = world.watch()
    watch.until("running: none")
    watch.press("!")

    watch.until("(no task is running)")


# -- the terminal


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_it_leaves_the_terminal_as_it_was(world: World, key: str) -> None:
    watch = world.watch()
    before = watch.modes()
    watch.until("running: none")
    assert watch.modes() != before

    watch.press(key)

    assert watch.rest().endswith("[exit 0]")
    assert watch.modes() == before
    assert audit.verify(world.project.parent / ".lictor/lictor.db").ok


def test_ended_by_a_signal_it_leaves_the_terminal_as_it_was(world: World) -> None:
    watch = world.watch()
    before = watch.modes()
    watch.until("running: none")

    watch.program.terminate()

    assert watch.rest().endswith("[exit 0]")
    assert watch.modes() == before


def test_stopped_and_brought_back_the_question_stands_again(world: World) -> None:
    shell = world.shell()
    shell.press(f'{sys.executable} -c "{MAIN}" watch -p {world.project}\n')
    shell.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")
    shell.until(QUESTION)

    shell.press("\x1a")
    shell.until("Stopped")
    shell.press("fg\n")
    shell.until(QUESTION)
    shell.press("y")

    program.until("ran")


def test_ctrl_c_while_a_question_stands_leaves_it_to_others(world: World) -> None:
    watch = world.watch()
    before = watch.modes()
    watch.until("running: none")
    program = world.run("with task: call(PAY, to='bob', amount=5)")
    watch.until(QUESTION)

    watch.press("\x03")
    watch.rest()
    other = world.watch()
    other.until(QUESTION)
    other.press("y")

    assert watch.modes() == before
    program.until("ran")


def test_without_a_terminal_it_says_what_to_do(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "watch", "-p", str(world.project)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )

    assert done.returncode == 2
    assert "this program has no terminal; lictor watch --no-input" in done.stderr


def test_for_logs_it_prints_lines_and_answers_nothing(world: World) -> None:
    world.run("with task: call(LOOK, n=1)").rest()
    logs = world.follow("--no-input")

    logs.until("n=1")
    world.run("with task:\n    call(LOOK, n=2)\n    call(PAY, to='bob', amount=5)")

    logs.until("n=2")
    line = logs.until("ask_unavailable")
    assert "\x1b" not in line
    logs.process.send_signal(signal.SIGINT)
    assert "Traceback" not in logs.rest()
    assert logs.process.returncode == 0


def test_logs_of_a_store_that_is_not_there_yet(world: World) -> None:
    logs = world.follow("--no-input")

    logs.until("there is no store yet")
    logs.rest()
    assert logs.process.returncode == 2


def test_it_refuses_where_a_gate_has_started_it(world: World) -> None:
    code = (
        "import os, pty, subprocess\n"
        "done = subprocess.run([sys.executable, '-c', MAIN, 'watch', '-p', sys.argv[1]],"
        " stdout=pty.openpty()[1], stderr=subprocess.PIPE, text=True)\n"
        "say(done.stderr, done.returncode)"
    )

    said = world.run(f"MAIN = {MAIN!r}\n{code}").rest()

    assert "whose calls the gate decides" in said
    assert said.rstrip().endswith("2")


def test_beside_another_watcher_it_does_not_refuse(world: World) -> None:
    world.watch().until("running: none")

    world.watch().until("running: none")
