"""`Gate.dev()` and the person at the terminal: what is asked, what it means, and what remains."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

ONCE = "[Enter] deny once > "
SURE = "Run exactly this call? [y/N] "
BOTH = """
gate = Gate.dev()
call(gate, LOOK, n=1)
call(gate, PAY, to="US133", amount=1)
"""


# -- the first run --------------------------------------------------------------------------------


def test_the_first_run_asks_what_only_a_person_can_answer(play: Any) -> None:
    seat = play.sit(BOTH)
    shown = play.as_read(seat)
    assert "local/look is not reviewed, so it may not run." in shown
    assert "n = 1" in shown
    seat.until("ran: look")
    play.as_transfer(seat)
    question = play.sure(seat)
    assert 'to = "US133"' in question
    assert "amount = 1" in question

    assert seat.rest().endswith("[exit 0]")
    assert "ran: pay" in seat.seen
    assert play.decisions() == ["local/look:permit", "local/pay:permit"]


def test_it_writes_its_catalog_and_its_state_and_nothing_else(play: Any) -> None:
    seat = play.sit(BOTH)
    play.as_read(seat)
    play.as_transfer(seat)
    play.sure(seat)
    seat.rest()

    found = {each.name for each in play.folder.iterdir()}
    assert found == {"app.py", "catalog.toml", "catalog.lock", ".lictor"}
    state = {each.name for each in (play.folder / ".lictor").iterdir()}
    assert {each.partition("-")[0] for each in state} == {"lictor.db", "lictor.db.lock", "record.key"}


def test_the_second_run_asks_only_for_the_effect(play: Any) -> None:
    seat = play.sit(BOTH)
    play.as_read(seat)
    play.as_transfer(seat)
    play.sure(seat)
    seat.rest()

    seat = play.sit(BOTH)
    before = seat.until(SURE)
    seat.press("n")
    assert "ran: look" in before
    assert "is not reviewed" not in before
    assert "denied: pay ask_rejected" in seat.rest()


def test_what_was_decided_is_marked_as_development(play: Any) -> None:
    seat = play.sit(BOTH)
    play.as_read(seat)
    play.as_transfer(seat)
    play.sure(seat)
    seat.rest()

    (answer,) = play.records("answer")
    assert (answer["assurance"], answer["evidence"]) == ("dev", False)
    look, pay = play.records("decision")
    assert "answers" not in look
    (rested,) = pay["answers"]
    assert (rested["channel"], rested["assurance"], rested["evidence"]) == ("terminal", "dev", False)
    assert {each["assurance"] for each in play.records("decision")} == {"dev"}
    assert {each["assurance"] for each in play.records("task")} == {"dev"}
    review = play.catalog().known_tools()[0].review
    assert review.reviewed_in == "dev"


def test_a_production_gate_does_not_take_a_development_review(play: Any) -> None:
    seat = play.sit("call(Gate.dev(), LOOK, n=1)")
    play.as_read(seat)
    seat.rest()

    (known,) = play.catalog().known_tools()
    assert play.catalog().check(known.tool) is None
    assert play.catalog(production=True).check(known.tool) == "tool_unreviewed"
