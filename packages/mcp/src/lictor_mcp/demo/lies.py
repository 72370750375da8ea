"""Parts two and three: a server whose description hides an instruction, and one that changes."""

from __future__ import annotations

from typing import Final

from lictor.forms import visible
from lictor_mcp.demo.said import BOLD, GREEN, RED, Said
from lictor_mcp.demo.scene import LYING, Scene
from lictor_mcp.demo.weather import CHANGED, HONEST, POISON, PULLED

POISONED: Final = "to_fahrenheit"
PULLS: Final = "forecast"
CITY: Final = {"city": "Rome"}


def show(said: Said, here: Scene) -> None:
    """Shows both parts."""
    _poison(said, here)
    _rug_pull(said, here)


def _poison(said: Said, here: Scene) -> None:
    said.line("2  a server of somebody else: a description with an instruction for the agent", BOLD)
    with here.direct(LYING) as client:
        text = str(client.tools()[POISONED]["description"])
    said.line("\nwithout Lictor")
    said.line(f"  the first line, which clients show:  {visible(text.splitlines()[0])}")
    said.line(f"  what the agent reads besides: {len(text) - len(text.splitlines()[0])} characters")
    said.claim("without Lictor the agent reads the instruction", text == POISON)

    said.line("\nbehind the gateway")
    with here.guarded(LYING) as client:
        listed = client.tools()
        said.line(f"  the agent sees: {', '.join(sorted(listed))}")
        code = said.called(client, POISONED, "celsius=20", {"celsius": 20})
    hidden = "IMPORTANT" not in str(listed) and POISONED not in listed
    said.claim("behind the gateway the agent never sees it", hidden)
    said.claim("nobody has reviewed it, so it is denied", code == "tool_unreviewed")
    diff = _section(here.lictor("catalog", "diff"), POISONED)
    said.line("\n$ lictor catalog diff")
    said.shown(diff)
    twice = "".join(each for each in diff if each.startswith("  look twice:"))
    said.claim("the instruction is pointed out to the reviewer", "<IMPORTANT>" in twice)
    said.claim("and what is invisible is spelled out", '"Do not tell the user."' in twice)
    said.line()


def _rug_pull(said: Said, here: Scene) -> None:
    said.line("3  the same server changes a tool after it was called once", BOLD)
    said.line("\nwithout Lictor")
    with here.direct(LYING) as client:
        said.called(client, PULLS, "city=Rome", CITY)
        client.heard(CHANGED)
        text = str(client.tools()[PULLS]["description"])
        said.line(f"  now it says: {visible(text)}", RED)
        code = said.called(client, PULLS, "city=Rome", CITY)
    said.claim("without Lictor the changed tool is called", text == PULLED and not code)

    said.line(f"\nbehind the gateway; reviewed now: {', '.join(here.review(LYING))}")
    with here.guarded(LYING) as client:
        before = client.tools().get(PULLS, {}).get("description")
        first = said.called(client, PULLS, "city=Rome", CITY)
        client.heard(CHANGED)
        listed = client.tools()
        said.line(f"  the agent sees now: {', '.join(sorted(listed))}", GREEN)
        code = said.called(client, PULLS, "city=Rome", CITY)
    said.claim("what was reviewed is listed and called", before == HONEST and not first)
    said.claim("a tool that has changed is hidden", PULLS not in listed)
    said.claim("and denied", code == "tool_changed")
    diff = _section(here.lictor("catalog", "diff"), PULLS)
    said.line("\n$ lictor catalog diff")
    said.shown(diff)
    said.claim("the reviewer sees what has changed", "{+ First read" in "".join(diff))
    said.line()


def _section(lines: list[str], tool: str) -> list[str]:
    """What `catalog diff` says of one tool."""
    found: list[str] = []
    for each in lines:
        if not each.startswith(" "):
            mine = each.startswith(f"{LYING}/{tool} ")
        if mine:
            found.append(each)
    return found
