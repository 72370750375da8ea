"""Runs every bypass on every tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lictor.attack.bypasses import BYPASSES, Bypass
from lictor.attack.lab import Finding, Inapplicable, Lab
from lictor.model import Tool


def run(lab: Lab) -> Iterator[Finding]:
    """Tries everything; each finding as it comes."""
    for name in lab.target.unguarded:
        yield Finding("X14", "guarded at all", name, "went through", "no gate guards this tool")
    for tool in lab.target.untried:
        why = "an earlier tool has its name: attack the part of the agent that has this one"
        yield Finding("X02", "anything", str(tool.key), "not applicable", why)
    with lab.target.staged(lab.recorder):
        for tool in lab.target.tools:
            for bypass in BYPASSES:
                yield _try(lab, bypass, tool)


def _try(lab: Lab, bypass: Bypass, tool: Tool) -> Finding:
    lab.recorder.ran.clear()
    lab.recorder.says.clear()
    where = str(tool.key)
    try:
        went = bypass.go(lab, tool)
    except Inapplicable as why:
        return Finding(bypass.attacks, bypass.title, where, "not applicable", str(why))
    state = "went through" if went else "stopped"
    return Finding(bypass.attacks, bypass.title, where, state, went)


def told(findings: list[Finding], say: Callable[[str], None]) -> None:
    """Prints what happened: what went through, what was not tried and why, and the counts."""
    by_state = {
        state: [f for f in findings if f.state == state]
        for state in ("went through", "stopped", "not applicable")
    }
    for each in by_state["went through"]:
        say(f"WENT THROUGH  {each.where}: {each.title} [{each.attacks}]: {each.text}")
    for each in by_state["stopped"]:
        say(f"stopped       {each.where}: {each.title} [{each.attacks}]")
    for each in by_state["not applicable"]:
        say(f"not applicable  {each.where}: {each.title} [{each.attacks}]: {each.text}")
    tried = len(by_state["went through"]) + len(by_state["stopped"])
    say(
        f"{tried} tried, {len(by_state['stopped'])} stopped, "
        f"{len(by_state['not applicable'])} not applicable"
    )
