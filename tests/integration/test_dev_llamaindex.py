"""`guard_agent(agent, Gate.dev())`: one line changed, and the person decides."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_index")

ONCE = "[Enter] deny once > "
AGENT = '''
import asyncio
from llama_index.core.agent.workflow import FunctionAgent
from lictor_llamaindex import guard_agent
from lictor_llamaindex.testing import Script, calls


def read_notice(name: str) -> str:
    """Reads one of the landlord's notices."""
    return "From next month the rent is 1200."


def change_rent(amount: float) -> str:
    """Changes the standing order for the rent."""
    say("CHANGED", amount)
    return f"The rent is now {amount:.2f}."


script = Script(calls(("read_notice", {"name": "may"})), calls(("change_rent", {"amount": 1200})))


async def main():
    agent = FunctionAgent(tools=[read_notice, change_rent], llm=script.model(), streaming=False)
    done = await guard_agent(agent, Gate.dev()).run("Adjust my rent.")
    for each in done.tool_calls:
        say(each.tool_name, each.tool_output.content)


asyncio.run(main())
say("OFFERED", *script.offered[0])
say("END")
'''


def test_an_agent_of_ones_own_reads_is_reviewed_and_is_stopped(play: Any) -> None:
    seat = play.sit(AGENT)
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
    assert "OFFERED read_notice change_rent" in told
    assert "END" in told
    assert play.decisions() == ["local/read_notice:permit", "local/change_rent:ask_rejected"]
