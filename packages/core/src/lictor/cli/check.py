"""`lictor check`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from lictor.ambient import within_reach
from lictor.assemble import Project, project_of
from lictor.catalog import read_seen
from lictor.cli import gateway_check
from lictor.cli.production import findings
from lictor.cli.shared import DEFAULT, Place, ProjectFile, console, place, plain, plain_lines
from lictor.errors import StoreError
from lictor.gather import drifted, gathered
from lictor.model import Tool

_LOW: Final = 100_000_000


def check(
    project: ProjectFile = DEFAULT,
    show: Annotated[bool, typer.Option("--show", help="Print the Cedar of every policy.")] = False,
    tools: Annotated[
        str | None,
        typer.Option(
            "--tools",
            metavar="MODULE:NAME",
            help="Import these tools and compare them with the catalog; 1 if they differ.",
        ),
    ] = None,
    production: Annotated[
        bool,
        typer.Option(
            "--production", help="Name what does not belong into production; 1 if anything."
        ),
    ] = False,
) -> None:
    """Checks configuration, catalog and policies; exit code 2 if something is wrong.

    Nothing of your program is imported, unless --tools names it.
    """
    here = place(project)
    found = project_of(here.toml, here.settings)
    gateway_check.refuse_unknown(found)
    known = found.catalog.known_tools()
    console.print(
        f"{plain(here)}: profile {found.settings.profile}, mode {found.settings.mode}, "
        f"{len(known)} reviewed tools, {len(found.templates)} task templates"
    )
    if show:
        for source in found.sources:
            console.print(f"\n// {plain(source.name)}\n{plain_lines(source.text)}")
    for finding in found.policy.findings:
        console.print(
            f"warning: {plain(finding.where)}: {plain(finding.policy)}: "
            f"{plain(finding.problem)}\n  mend: {plain(finding.mend)}",
            style="yellow",
        )
    for problem in _problems(found, production):
        console.print(f"warning: {plain_lines(problem)}", style="yellow")
    good = _drift(found, here, tools) if tools is not None else True
    if production:
        good = _production(found, here) and good
    if not good:
        raise typer.Exit(1)
    console.print("ok")


def _drift(project: Project, here: Place, where: str) -> bool:
    console.print(f"importing {plain(where)}")
    found = drifted(project.catalog, gathered(where, here.folder))
    told = str(found)  # shows what is invisible by itself
    console.print(told, style="red" if found else None, markup=False)
    return not found


def _production(project: Project, here: Place) -> bool:
    found = list(findings(project, here.reviewed()))
    for each in found:
        console.print(f"production: {plain(each.what)}", style="red")
        console.print(f"  mend: {each.mend}", style="red", markup=False)
    if found:
        console.print(f"{len(found)} findings for production")
    return not found


def _problems(project: Project, production: bool) -> Iterator[str]:
    if project.settings.mode == "observe" and not production:
        yield "observe mode lets calls proceed that policy denies"
    seen = read_seen(project.seen)
    waiting = [key for key in sorted(seen) if _waits(project.catalog.check(seen[key]))]
    unclassified = [key for key in waiting if _unclassified(project, seen[key])]
    others = [key for key in waiting if key not in unclassified]
    if others:
        yield (
            f"{len(others)} tools wait for review: {', '.join(map(str, others))}\n"
            "  mend: lictor review"
        )
    if unclassified:
        yield (
            f"{len(unclassified)} tools have no impact yet: {', '.join(map(str, unclassified))}\n"
            f"  mend: write it into {project.settings.catalog}, or: lictor review"
        )
    for name, template in project.templates.items():
        for key in sorted(template.tools or ()):
            if project.catalog.known(key) is None:
                yield f"tasks.{name} names {key}, which is not reviewed"
    yield from gateway_check.problems(project)
    yield from _store(project)
    secrets = () if production else within_reach()
    if secrets:
        yield f"secrets within reach of the agent: {', '.join(secrets)}"


def _waits(code: str | None) -> bool:
    return code in ("tool_unreviewed", "tool_changed")


def _unclassified(project: Project, tool: Tool) -> bool:
    """Locked as it is, so all that is missing is a person's word."""
    locked = project.catalog.locked.get(tool.key)
    return locked is not None and locked.pin == tool.pin


def _store(project: Project) -> Iterator[str]:
    place = next(each for each in (project.state, *project.state.parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield f"{place} cannot be written, so no call could be recorded and none would run"
    if not project.store.exists():
        return
    if not os.access(project.store, os.W_OK):
        yield f"{project.store} is read-only, so no call could be recorded and none would run"
    free = shutil.disk_usage(place).free
    if free < _LOW:
        yield f"{place} has {free // 1_000_000} MB left; when it is full, every call is denied"
    from lictor.store import open_store

    try:
        open_store(project.store, readonly=True).close()
    except StoreError as error:
        yield f"the store: {error}"
