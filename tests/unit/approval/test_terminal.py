"""The terminal question, on real pseudo-terminals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lictor.approval.terminal import Screen
from lictor.approval.tty import Tty
from lictor.testing.seat import Seat

PRELUDE = """
import os, signal, subprocess, sys, threading, time
from dataclasses import replace
from lictor.approval.terminal import AtTerminal, Gone, NoTerminal, Terminal, Unanswered
from lictor.model import ToolKey
from lictor.ports import Ask

gone = threading.Event()
terminal = Terminal()
ASK = Ask(("confirm:user",), "c1", "d1", "t1", "local", "alice", "banker",
          ToolKey("local", "send_money"), {"recipient": "US133", "amount": 1},
          why=("payments need your word",), impact=("transfer",), id="a1", gone=gone)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def ask(ask=ASK, seconds=20.0, settled=None):
    reply = AtTerminal(terminal, "me", seconds, settled).answer(ask)
    say("reply:", reply.state, "by", reply.by or "-", reply.detail, "shown", reply.shown[:4])
    return reply

def about(tool, gone=gone, **arguments):
    return replace(ASK, tool=ToolKey("local", tool), arguments=arguments, gone=gone)
"""
PROMPT = "Run exactly this call? [y/N] "

Sit = Callable[..., Seat]


@pytest.fixture
def sit() -> Iterator[Sit]:
    with ExitStack() as stack:

        def start(code: str, **options: object) -> Seat:
            argv = [sys.executable, "-c", PRELUDE + code]
            return stack.enter_context(Seat(argv, **options))  # type: ignore[arg-type]

        yield start


# -- answers


def test_a_key_answers_and_the_call_is_shown(sit: Sit) -> None:
    seat = sit("ask()")

    shown = seat.until(PROMPT)
    seat.press("y")

    assert 'recipient = "US133"' in shown
    assert "amount = 1" in shown
    assert "because: payments need your word" in shown
    assert "for alice, by agent banker" in shown
    assert "reply: granted by me" in seat.rest()


@pytest.mark.parametrize("key", ["n", "\n", "N", "\r"])
def test_no_and_enter_reject(sit: Sit, key: str) -> None:
    seat = sit("ask()")

    seat.until(PROMPT)
    seat.press(key)

    assert "reply: rejected by me" in seat.rest()


def test_a_capital_letter_is_its_small_one(sit: Sit) -> None:
    seat = sit("ask()")

    seat.until(PROMPT)
    seat.press("Y")

    assert "reply: granted" in seat.rest()


def test_the_digest_is_of_the_text_that_was_shown(sit: Sit) -> None:
    seat = sit("ask()")

    shown = seat.until(PROMPT).removesuffix(PROMPT).removesuffix("\n")
    seat.press("y")

    assert f"shown {hashlib.sha256(shown.encode()).hexdigest()[:4]}" in seat.rest()


def test_nobody_answers(sit: Sit) -> None:
    seat = sit("ask(seconds=0.3)")

    seat.until(PROMPT)
    said = seat.rest()

    assert "the question is withdrawn: nobody answered in 0.3 s" in said
    assert "reply: expired by - nobody answered in 0.3 s" in said


def test_an_ask_that_is_over_is_not_asked(sit: Sit) -> None:
    said = sit("ask(replace(ASK, expires=int(time.time()) - 1))").rest()

    assert "[y/N]" not in said
    assert "reply: expired" in said


def test_an_answer_given_elsewhere_takes_the_question_away(sit: Sit) -> None:
    seat = sit("looks = []\nask(settled=lambda id: looks.append(id) or len(looks) > 2)\nsay(looks)")

    seat.until(PROMPT)

    said = seat.rest()
    assert "reply: unavailable" in said
    assert "['a1', 'a1', 'a1']" in said


# -- what is no answer


def test_answers_typed_ahead_do_not_count(sit: Sit) -> None:
    seat = sit(
        "import fcntl, struct, termios\n"
        "say('hold on')\n"
        "while fcntl.ioctl(0, termios.FIONREAD, b'1234')[:1] != b'\\4': time.sleep(0.01)\n"
        "ask()"
    )
    seat.until("hold on")
    seat.press("y\ny\n")

    seat.until(PROMPT)
    seat.press("n")

    assert "reply: rejected" in seat.rest()


@pytest.mark.parametrize(
    "keys",
    ["\x1b[A", "\x1bOP", "\x1b[1;5C", "\x1by", "\x1b[200~y\x1b[201~", "\x1b[200~yes\ny", "\x1b[Z"],
    ids=["arrow", "function", "ctrl-arrow", "alt-y", "paste", "endless-paste", "shift-tab"],
)
def test_a_key_of_several_bytes_or_a_paste_is_no_answer(sit: Sit, keys: str) -> None:
    seat = sit("ask()")
    end = "\x1b[201~" if "endless" in keys or keys.endswith("\ny") else ""

    seat.until(PROMPT)
    seat.press(f"{keys}{end}n")

    assert "reply: rejected" in seat.rest()


@pytest.mark.parametrize("keys", ["yes", "yy", "x", "ä", "\x04", "\x1b"])
def test_other_keys_are_ignored_and_said_to_be(sit: Sit, keys: str) -> None:
    seat = sit("ask()")

    seat.until(PROMPT)
    seat.press(keys)
    seat.until("(one key: y, n or Enter)")
    seat.until(PROMPT)
    seat.press("n")

    assert "reply: rejected" in seat.rest()


class Scripted(Tty):
    """A device whose keys come from a list."""

    def __init__(self, *presses: list[str]) -> None:
        self.presses, self.written = list(presses), ""
        self.interrupted = False

    def again(self) -> bool:
        return False

    def forget(self) -> None:
        return

    def keys(self, seconds: float) -> list[str]:
        return self.presses.pop(0)

    def write(self, data: bytes, seconds: float = 0.0) -> bytes:
        self.written += data.decode()
        return b""


def test_an_unknown_key_is_told_once_and_several_at_once_each_time() -> None:
    device = Scripted(["x"], ["x"], ["y", "y"], ["q"], ["y", "e", "s"], ["y"])

    key = Screen(device, threading.Event(), 9.0).key("? ", "yn")

    assert key == "y"
    assert device.written.count("one key") == 3


# -- turns


def test_two_programs_ask_one_after_the_other(sit: Sit) -> None:
    seat = sit(
        "if not os.environ.get('SECOND'):\n"
        "    argv = [sys.executable, *sys.orig_argv[1:]]\n"
        "    other = subprocess.Popen(argv, env={**os.environ, 'SECOND': '1'})\n"
        "ask()\n"
        "if not os.environ.get('SECOND'): other.wait()\n"
    )

    first = seat.until(PROMPT)
    seat.press("y")
    second = seat.until(PROMPT)
    seat.press("n")
    seen = first + second + seat.rest()

    assert first.count("wants to run") == 1
    assert second.count("wants to run") == 1
    assert sorted(seen.split("reply: ")[n].split()[0] for n in (1, 2)) == ["granted", "rejected"]


def test_who_waits_for_the_turn_still_notices_that_his_caller_is_gone(sit: Sit) -> None:
    seat = sit(
        "import lictor.approval.tty as tty\n"
        "first = threading.Thread(target=ask, args=(about('one'),)); first.start()\n"
        "while not tty._held: time.sleep(0.01)\n"
        "leave = threading.Event()\n"
        "second = threading.Thread(target=ask, args=(about('two', gone=leave),)); second.start()\n"
        "leave.set(); second.join(); say('left'); first.join()"
    )

    seen = seat.until("left")
    if PROMPT not in seen:
        seat.until(PROMPT)
    seat.press("y")

    assert "reply: unavailable by - nobody waits for the answer any more" in seen
    assert "two" not in seen
    assert "reply: granted" in seat.rest()


def test_a_turn_that_never_comes_is_no_answer(sit: Sit) -> None:
    seat = sit(
        "import lictor.approval.tty as tty\n"
        "first = threading.Thread(target=ask, args=(about('one'),)); first.start()\n"
        "while not tty._held: time.sleep(0.01)\n"
        "ask(about('two'), seconds=0.2); first.join()"
    )

    seen = seat.until("reply: expired by - another question stood at this terminal for 0.2 s")
    if PROMPT not in seen:
        seat.until(PROMPT)
    seat.press("n")

    assert "reply: rejected" in seat.rest()


def test_a_turn_file_of_somebody_else_is_not_used(sit: Sit, tmp_path: Path) -> None:
    seat = sit(
        "import lictor.approval.terminal as t, lictor.approval.tty as tty\n"
        "handle = tty.device('/dev/tty')\n"
        "name = f'lictor-{os.geteuid()}-tty-{tty.number(handle, tty.DEVICE)}.lock'\n"
        "t.TURNS = t.Path(os.environ['PLACE'])\n"
        "os.symlink('/etc/hostname', t.TURNS / name)\n"
        "ask()",
        env={"PLACE": str(tmp_path)},
    )

    assert "reply: unavailable by - " in seat.rest()


# -- the terminal as a device


def test_without_a_terminal_nobody_can_be_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + "say(terminal.ready()); ask()"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )

    assert done.stdout.startswith("this program has no terminal; run: lictor watch")
    assert "reply: unavailable by - this program has no terminal" in done.stdout


def test_a_file_is_no_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + "say(Terminal('/dev/null').ready())"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("/dev/null is no terminal")


def test_the_terminal_goes_away_in_the_middle(sit: Sit) -> None:
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN); ask()"
    seat = sit(code, stdout=subprocess.PIPE)

    seat.until(PROMPT)
    seat.hang_up()
    said, _ = seat.program.communicate(timeout=20)

    assert b"reply: unavailable by - the terminal is gone; run: lictor watch" in said


def test_a_program_in_the_background_is_not_stopped_and_cannot_ask(sit: Sit) -> None:
    seat = sit(
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.setpgid(0, 0); say('ready:', terminal.ready()); ask(); os._exit(0)\n"
        "_, status = os.waitpid(child, os.WUNTRACED); say('stopped', os.WIFSTOPPED(status))\n"
    )

    said = seat.rest()

    assert "ready: this program runs in the background of its terminal" in said
    assert "reply: unavailable by - this program runs in the background" in said
    assert "stopped False" in said


def test_the_modes_are_put_back(sit: Sit) -> None:
    seat = sit("ask(); sys.stdin.readline()")
    before = seat.modes()

    seat.until(PROMPT)
    during = seat.modes()
    seat.press("y")
    seat.until("reply: granted")

    assert during[3] & termios.ISIG
    assert not during[3] & (termios.ICANON | termios.ECHO)
    assert seat.modes() == before


def test_ctrl_c_reaches_the_program_and_the_question_goes_with_it(sit: Sit) -> None:
    seat = sit(
        "done = threading.Event()\n"
        "threading.Thread(target=lambda: (ask(), done.set())).start()\n"
        "try:\n    done.wait()\n"
        "except KeyboardInterrupt:\n    gone.set(); done.wait(); say('interrupted')\n"
        "sys.stdin.readline()"
    )
    before = seat.modes()

    seat.until(PROMPT)
    seat.press("\x03")

    assert "reply: unavailable" in seat.until("\ninterrupted")
    assert seat.modes() == before


def test_ctrl_c_ends_the_question_of_a_thread_that_the_main_thread_only_waits_for(
    sit: Sit,
) -> None:
    """As frameworks do that run tools in a pool: leaving the pool waits for its threads."""
    seat = sit(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor() as pool:\n    pool.submit(ask).result()"
    )
    before = seat.modes()

    seat.until(PROMPT)
    seat.press("\x03")

    told = seat.rest()
    assert "reply: unavailable" in told
    assert "KeyboardInterrupt" in told
    assert seat.modes() == before


def test_ctrl_c_that_was_pressed_before_the_prompt_counts(sit: Sit) -> None:
    seat = sit(
        "import lictor.approval.tty as tty\n"
        "forget = tty.Tty.forget\n"
        "def later(self):\n"
        "    say('typed?'); tty._ready(self.handle, 20, write=False); forget(self)\n"
        "tty.Tty.forget = later\n"
        "ask()\n"
    )
    seat.until("typed?")
    seat.press("y\x03y")

    told = seat.rest()
    assert "KeyboardInterrupt" in told
    assert "reply: granted" not in told


def test_ctrl_c_while_the_main_thread_asks(sit: Sit) -> None:
    seat = sit(
        "try:\n    ask()\nexcept KeyboardInterrupt:\n    say('interrupted')\nsys.stdin.readline()"
    )
    before = seat.modes()

    seat.until(PROMPT)
    seat.press("\x03")

    assert "the question is withdrawn: interrupted" in seat.until("\ninterrupted")
    assert seat.modes() == before


def test_a_program_that_exits_under_the_question_puts_the_modes_back(sit: Sit) -> None:
    seat = sit(
        "import lictor.approval.tty as tty\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "while not tty._held: time.sleep(0.01)"
    )
    before = seat.modes()

    seat.rest()

    assert seat.modes() == before


def test_back_from_a_stop_the_question_stands_again(sit: Sit) -> None:
    seat = sit("ask()")
    before = seat.modes()

    seat.until(PROMPT)
    termios.tcsetattr(seat.slave, termios.TCSANOW, before)  # as a shell does
    seat.until(PROMPT)
    seat.press("y")

    assert "reply: granted" in seat.rest()


def test_stopped_by_a_shell_and_brought_back_it_can_be_answered(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"{PRELUDE}\nask(seconds=60)\nterminal.ready()\n")
    with Seat(["/bin/bash", "--noprofile", "--norc", "-i"], env={"PS1": "$ "}) as shell:
        shell.press(f"{sys.executable} {program}\n")
        shell.until(PROMPT)

        shell.press("\x1a")
        shell.until("Stopped")
        shell.press("bg\n")
        shell.press("echo still $((40 + 2))\n")
        shell.until("still 42")
        shell.press("fg\n")
        shell.until(PROMPT)
        shell.press("y")

        shell.until("reply: granted")


def test_another_thread_prints_while_the_question_stands(sit: Sit) -> None:
    seat = sit(
        "def noise():\n"
        "    while not gone.is_set(): say('noise [y/N] granted'); time.sleep(0.01)\n"
        "other = threading.Thread(target=noise); other.start()\n"
        "ask(); gone.set(); other.join()"
    )

    seat.until(PROMPT)
    seat.until("noise")
    seat.press("n")

    assert "reply: rejected" in seat.rest()


# -- what is shown


def test_a_value_of_a_megabyte_is_shown_in_part_and_whole_on_a_key(sit: Sit) -> None:
    seat = sit("ask(about('write', text='begin' + 'x' * 1_048_000 + 'end'))")

    shown = seat.until("[y/N, [v]iew all] ")
    seat.press("v")
    page = seat.until("more lines: [Enter] next, [q] back -- ")
    seat.press("\n")
    seat.until("[q] back -- ")
    seat.press("q")
    seat.until("[y/N, [v]iew all] ")
    seat.press("y")

    assert "1,046,008 more characters, sha256:" in shown
    assert '"begin' in shown
    assert 'end"' in shown
    assert len(shown) < 4_000
    assert "text = " in page
    assert "reply: granted" in seat.rest()


def test_nothing_in_an_argument_reaches_the_terminal_raw(sit: Sit) -> None:
    evil = "\\x1b[2J\\x1b]0;t\\x07\\u202egnp\\u200b\\x9b2J\\r\\nRun exactly this call? [y/N] y"
    seat = sit(f"ask(about('mail', to='{evil}'))")
    raw = seat.until(f"\n{PROMPT}")
    seat.press("n")
    seat.rest()

    for hidden in ("\u202e", "\u200b", "\x07", "\x9b"):
        assert hidden not in seat.seen
    assert "\\u{1b}[2J" in raw
    assert "\\u{202e}" in raw
    assert raw.count("\nRun exactly") == 1


# -- the other ways of asking


def test_several_keys_are_collected_until_enter(sit: Sit) -> None:
    seat = sit(
        "with terminal.question(gone) as screen:\n"
        "    screen.say('classify'); say('got', repr(screen.key('keys: ', 'rwdst', many=True)))\n"
    )

    seat.until("keys: ")
    seat.press("swz")
    seat.until("one key")
    seat.press("s\x7fd\n")

    assert "got 'sd'" in seat.rest()


def test_a_line_is_typed_and_corrected(sit: Sit) -> None:
    seat = sit(
        "with terminal.question(gone) as screen:\n"
        "    say('got', repr(screen.line('names: ')), repr(screen.line('more: ')))\n"
    )

    seat.until("names: ")
    seat.press("recipz\x7fient\x1b[D, bcc\x01\n")
    seat.until("more: ")
    seat.press("\n")

    assert "got 'recipient, bcc' ''" in seat.rest()
