"""The terminal question, on real pseudo-terminals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lictor.testing.seat import Seat

PRELUDE = """
import os, sys, threading, time
from dataclasses import replace
from lictor.approval.terminal import AtTerminal, Gone, NoTerminal, Terminal, Unanswered
from lictor.model import ToolKey
from lictor.ports import Ask

gone = threading.Event()
terminal = Terminal()
ASK = Ask(("confirm:user",), "c1", "d1", "t1", "local", "alice", "banker",
          ToolKey("local", "send_money"), {"recipient": "US133", "amount": 1},
          why=("payments need your word",), impact=("transfer",), gone=gone)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def ask(ask=ASK, seconds=20.0):
    reply = AtTerminal(terminal, "me", seconds).answer(ask)
    say("reply:", reply.state, "by", reply.by or "-", reply.detail)
    return reply
"""


@pytest.fixture
def sit() -> Iterator[Callable[..., Seat]]:
    with ExitStack() as stack:

        def start(code: str, **options: object) -> Seat:
            argv = [sys.executable, "-c", PRELUDE + code]
            return stack.enter_context(Seat(argv, **options))  # type: ignore[arg-type]

        yield start


def test_a_key_answers_and_the_call_is_shown(sit: Callable[..., Seat]) -> None:
    seat = sit("ask()")

    shown = seat.until("Run exactly this call? [y/N] ")
    seat.press("y")

    assert 'recipient = "US133"' in shown
    assert "amount = 1" in shown
    assert "payments need your word" in shown
    assert "for alice, by agent banker" in shown
    assert "reply: granted by me" in seat.rest()


@pytest.mark.parametrize("key", ["n", "\n", "N"])
def test_no_and_enter_reject(sit: Callable[..., Seat], key: str) -> None:
    seat = sit("ask()")

    seat.until("[y/N] ")
    seat.press(key)

    assert "reply: rejected by me" in seat.rest()
