"""Ctrl-C and cancellation while `Gate.dev()` asks: nothing half written, nothing left behind."""

from __future__ import annotations

import signal
from typing import Any

import pytest

ONCE = "[Enter] deny once > "
SURE = "Run exactly this call? [y/N] "
SAID = ["t\r", "\r", "\r", "y"]
"""What is pressed at each question of a transfer's review, in order."""
STOOD = [
    ONCE,
    "where it goes? (- for none) [to] ",
    "how much? (- for none) [amount] ",
    "stand in clear in the record? [Y/n] ",
    SURE,
]
CODE = 'call(Gate.dev(), PAY, to="US133", amount=1)\n'


@pytest.mark.parametrize("point", range(5))
def test_an_interrupt_at_any_question_stops_the_program_as_it_would_without_us(
    play: Any, point: int
) -> None:
    seat = play.sit(CODE)
    before = seat.modes()
    for stood, said in zip(STOOD[:point], SAID[:point], strict=True):
        seat.until(stood)
        seat.press(said)
    seat.until(STOOD[point])
    seat.press("\x03")

    told = seat.rest()
    assert "(the question is withdrawn: " in told
    assert "KeyboardInterrupt" in told
    assert "ran:" not in told
    assert seat.program.returncode == -signal.SIGINT
    assert seat.modes() == before
    found = {each.name for each in play.folder.iterdir()}
    written = {"catalog.toml", "catalog.lock"} if point == 4 else set()
    assert found == {"app.py", ".lictor"} | written
    codes = [each["code"] for each in play.records("decision")]
    assert codes == ["interrupted"]
    assert [each["verdict"] for each in play.records("answer")] == ["withdrawn"] * (point == 4)


def test_a_program_that_catches_the_interrupt_can_go_on_and_is_asked_again(play: Any) -> None:
    seat = play.sit("""
gate = Gate.dev()
try:
    call(gate, LOOK, n=1)
except KeyboardInterrupt:
    say("caught")
call(gate, LOOK, n=1)
""")
    seat.until(ONCE)
    seat.press("\x03")
    seat.until("caught")
    play.as_read(seat)

    assert "ran: look" in seat.rest()


def test_two_interrupts_in_a_row_leave_the_terminal_as_it_was(play: Any) -> None:
    seat = play.sit(CODE)
    before = seat.modes()
    seat.until(ONCE)
    seat.press("\x03\x03\x03")

    seat.rest()
    assert seat.program.returncode == -signal.SIGINT
    assert seat.modes() == before


def test_a_program_that_handles_the_signal_itself_keeps_its_exit_code(play: Any) -> None:
    seat = play.sit("""
import signal
signal.signal(signal.SIGINT, lambda *_: sys.exit(7))
call(Gate.dev(), LOOK, n=1)
""")
    before = seat.modes()
    seat.until(ONCE)
    seat.press("\x03")

    assert seat.rest().endswith("[exit 7]")
    assert seat.modes() == before


def test_an_exit_while_a_question_stands_puts_the_terminal_back(play: Any) -> None:
    seat = play.sit("""
import threading
gate = Gate.dev()
threading.Thread(target=call, args=(gate, LOOK), kwargs={"n": 1}, daemon=True).start()
while not os.path.exists(".lictor/flag"):
    os.stat(".")
sys.exit(3)
""")
    before = seat.modes()
    seat.until(ONCE)
    assert seat.modes() != before
    (play.folder / ".lictor/flag").touch()

    assert seat.rest().endswith("[exit 3]")
    assert seat.modes() == before


ASYNC = """
import asyncio
gate = Gate.dev()

async def agent():
    await gate.arun(ToolCall({tool}, {arguments}), body)

async def body(arguments):
    say("ran:", arguments)

async def ticks():
    n = 0
    while True:
        await asyncio.sleep(0.01)
        n += 1
        if n == 20:
            say("the loop goes on")

async def main():
    ticking = asyncio.create_task(ticks())
    running = asyncio.create_task(agent())
    await asyncio.get_running_loop().run_in_executor(None, wait)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        say("cancelled")
    ticking.cancel()

def wait():
    while not os.path.exists({flag!r}):
        os.stat(".")

asyncio.run(main())
"""


def test_a_cancelled_caller_takes_the_review_with_him(play: Any) -> None:
    flag = play.folder / ".lictor/flag"
    code = ASYNC.format(tool="LOOK", arguments='{"n": 1}', flag=str(flag))
    seat = play.sit(code)
    before = seat.modes()
    seat.until(ONCE)
    seat.until("the loop goes on")
    flag.touch()

    seat.until("(the question is withdrawn: nobody waits for the answer any more)")
    told = seat.rest()
    assert "cancelled" in told
    assert "ran:" not in seat.seen
    assert told.endswith("[exit 0]")
    assert seat.modes() == before
    assert play.decisions() == ["local/look:interrupted"]
    assert not (play.folder / "catalog.toml").exists()


def test_a_cancelled_caller_takes_the_question_with_him(play: Any) -> None:
    flag = play.folder / ".lictor/flag"
    code = ASYNC.format(tool="PAY", arguments='{"to": "US133", "amount": 1}', flag=str(flag))
    seat = play.sit(code)
    play.as_transfer(seat)
    seat.until(SURE)
    flag.touch()

    told = seat.rest()
    assert "cancelled" in told
    assert "ran:" not in seat.seen
    assert play.decisions() == ["local/pay:interrupted"]
    assert [each["verdict"] for each in play.records("answer")] == ["withdrawn"]
