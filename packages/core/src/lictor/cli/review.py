"""`lictor review`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Final

import typer

from lictor.approval.terminal import Terminal, Unanswered
from lictor.approval.tty import NoTerminal
from lictor.catalog import Catalog, Change, Proposal, classify, diff, propose, read_seen
from lictor.cli.hint import refuse_under_gate
from lictor.cli.shared import DEFAULT, Place, ProjectFile, console, place, plain
from lictor.dev import account
from lictor.errors import ConfigError
from lictor.model import Review, Tool, ToolKey
from lictor.review import Quit, Screen, ask_review, summary

SECONDS: Final = 3_600.0
"""How long one question stands: a person reads, and may ask somebody else."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One tool that waits."""

    tool: Tool
    why: str
    proposal: Proposal
    change: Change | None = None
    before: Review | None = None


@dataclass(slots=True)
class _Done:
    """What came of it."""

    reviewed: list[ToolKey] = field(default_factory=list)
    blocked: list[ToolKey] = field(default_factory=list)
    failed: list[ToolKey] = field(default_factory=list)
    left: int = 0


def review(
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Go through what was reviewed under Gate.dev().")
    ] = False,
    server: Annotated[
        list[str] | None, typer.Option(help="Only the tools of this server; may be repeated.")
    ] = None,
    project: ProjectFile = DEFAULT,
) -> None:
    """Shows every tool that waits for a decision, and takes the decision with a key.

    New, changed and unclassified tools wait; with --confirm, those whose review counts in
    development only. What was decided stands, whenever you leave.
    """
    found = place(project)
    refuse_under_gate(found.store)
    catalog = found.reviewed()
    items = list(_confirmable(catalog) if confirm else _waiting(catalog, read_seen(found.seen)))
    items = [each for each in items if not server or each.tool.key.server in server]
    if not items:
        console.print("nothing waits for review")
        _say_dev(catalog, confirm)
        return
    terminal = Terminal()
    unready = terminal.ready()
    if unready:
        raise ConfigError("lictor review", unready, "run it in a terminal of your own")
    _table(items)
    done = _go_through(found, terminal, items)
    _sum_up(done)
    if not confirm:
        _say_dev(found.reviewed(), confirm)


def _waiting(catalog: Catalog, seen: Mapping[ToolKey, Tool]) -> Iterator[_Item]:
    """New, changed and unclassified tools: as gates have met them, or as they were locked."""
    tools = {**catalog.locked, **seen}
    changes = {change.key: change for change in diff(catalog, tools)}
    for key in sorted(tools):
        code = catalog.check(tools[key])
        if code not in ("tool_unreviewed", "tool_changed"):
            continue
        known = catalog.known(key)
        changed = changes.get(key) if code == "tool_changed" else None
        fresh = key in changes and changes[key].new
        why = "changed" if known is not None else "new" if fresh else "no impact yet"
        before = known.review if known is not None else None
        yield _Item(tools[key], why, propose(tools[key]), changed, before)


def _confirmable(catalog: Catalog) -> Iterator[_Item]:
    for known in catalog.known_tools():
        if known.review.reviewed_in and not known.review.blocked:
            why = f"{known.review.reviewed_in} review by {known.review.reviewer or 'nobody'}"
            yield _Item(known.tool, why, propose(known.tool), None, known.review)


def _table(items: list[_Item]) -> None:
    console.print(f"waiting for review: {len(items)}")
    wide = max(len(str(each.tool.key)) for each in items)
    for number, each in enumerate(items, 1):
        looks = ", ".join(sorted(impact.value for impact in each.proposal.impact))
        told = summary(each.before) if each.before is not None else f"looks like {looks}"
        name = plain(str(each.tool.key)) + " " * (wide - len(str(each.tool.key)))
        console.print(f"{number:>4}  {name}  {plain(each.why)}  {plain(told)}")


def _go_through(found: Place, terminal: Terminal, items: list[_Item]) -> _Done:
    done, reviewer = _Done(left=len(items)), account()
    for number, each in enumerate(items, 1):
        try:
            with terminal.question(Event(), SECONDS) as screen:
                screen.say(f"\n--- {number} of {len(items)}")
                _one(found, screen, each, reviewer, done)
        except (Quit, KeyboardInterrupt):
            break
        except (Unanswered, NoTerminal) as error:
            console.print(plain(error), style="yellow")
            break
    return done


def _one(found: Place, screen: Screen, item: _Item, reviewer: str, done: _Done) -> None:
    decided = ask_review(
        screen, item.tool, None, item.proposal, item.change, reviewer, False, before=item.before
    )
    if decided is None:
        return
    key = item.tool.key
    try:
        classify(found.catalog, found.lock, item.tool, decided)
    except ConfigError as error:
        screen.say(f"  not written: {error}")
        done.failed.append(key)
        return
    done.left -= 1
    (done.blocked if decided.blocked else done.reviewed).append(key)
    screen.say(f"  written: {'blocked' if decided.blocked else 'reviewed'}")


def _sum_up(done: _Done) -> None:
    console.print(
        f"\n{len(done.reviewed)} reviewed, {len(done.blocked)} blocked, {done.left} left open"
    )
    if done.reviewed or done.blocked:
        console.print("running programs take this at their next start")
    if done.failed:
        names = " ".join(map(str, done.failed))
        console.print(f"not written: {plain(names)}", style="red")
        raise typer.Exit(1)


def _say_dev(catalog: Catalog, confirm: bool) -> None:
    waiting = sum(1 for _ in _confirmable(catalog))
    if waiting and not confirm:
        console.print(
            f"reviewed under Gate.dev() only, which counts for nothing in production: {waiting}\n"
            "  next: lictor review --confirm"
        )
