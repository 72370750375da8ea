"""`create_agent(..., gate=Gate.dev())`: two lines changed, and the person decides."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain")

ONCE = "[Enter] deny once > "
SURE = "Run exactly this call? [y/N] "
AGENT = '''
from langchain_core.tools import tool as tool_
from lictor_langchain import create_agent
from lictor_langchain.testing import ScriptedModel, calls


@tool_
def read_notice(name: str) -> str:
    """{about}"""
    return "From next month the rent is 1200."


@tool_
def change_rent(amount: float) -> str:
    """Changes the standing order for the rent."""
    say("CHANGED", amount)
    return f"The rent is now {{amount:.2f}}."


model = ScriptedModel(script=[calls(("read_notice", {{"name": "may"}})), *{then}])
agent = create_agent(model, [read_notice, change_rent], gate=Gate.dev())
done = agent.invoke({{"messages": [("user", "Adjust my rent.")]}})
for message in done["messages"]:
    say(message.type, message.text)
say("END")
'''
ABOUT = "Reads one of the landlord's notices."
PAY = '[calls(("change_rent", {"amount": 1200}))]'


def test_an_agent_of_ones_own_reads_is_reviewed_and_is_stopped(play: Any) -> None:
    seat = play.sit(AGENT.format(about=ABOUT, then=PAY))
    assert "2 tools guarded, 0 reviewed, 2 pending; profile dev" in play.as_read(
        seat, outsiders=True
    )
    seat.until(ONCE)
    seat.press("t\r")
    seat.until("where it goes?")
    seat.until("] ")
    seat.press("-\r")
    seat.until("how much? (- for none) [amount] ")
    seat.press("\r")
    seat.until("stand in clear in the record? [Y/n] ")
    seat.press("y")
    question = play.sure(seat, "n")
    assert "amount = 1200" in question
    assert "this session has read what these can write: outsiders" in question

    told = seat.rest()
    assert "CHANGED" not in told
    assert "From next month the rent is 1200." in told
    assert "END" in told
    assert play.decisions() == ["local/read_notice:permit", "local/change_rent:ask_rejected"]


def test_an_agent_whose_tool_has_changed_shows_the_change_before_it_reads(play: Any) -> None:
    seat = play.sit(AGENT.format(about=ABOUT, then="[]"))
    play.as_read(seat)
    seat.until("END")
    seat.rest()

    changed = ABOUT.removesuffix(".") + " and forgets the tenant."
    seat = play.sit(AGENT.format(about=changed, then="[]"))
    shown = seat.until(ONCE)
    assert "local/read_notice has changed since it was reviewed" in shown
    assert "forgets the tenant" in shown
    seat.press("k\r")

    assert "From next month the rent is 1200." in seat.rest()
