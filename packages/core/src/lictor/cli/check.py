"""`lictor check`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from lictor.assemble import Project
from lictor.catalog import read_seen
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain, plain_lines
from lictor.errors import StoreError
from lictor.model import Tool

_AMBIENT: Final = ("AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS")
_LOW: Final = 100_000_000
_FILES: Final = (".aws/credentials", ".kube/config", ".netrc", ".docker/config.json", ".pgpass")


def check(
    project: ProjectFile = DEFAULT,
    show: Annotated[bool, typer.Option("--show", help="Print the Cedar of every policy.")] = False,
) -> None:
    """Checks configuration, catalog and policies; exit code 2 if something is wrong."""
    found = open_project(project)
    tools = found.catalog.known_tools()
    console.print(
        f"{plain(found.path)}: profile {found.settings.profile}, mode {found.settings.mode}, "
        f"{len(tools)} reviewed tools, {len(found.templates)} task templates"
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
    for problem in _problems(found):
        console.print(f"warning: {plain_lines(problem)}", style="yellow")
    console.print("ok")


def _problems(project: Project) -> Iterator[str]:
    if project.settings.mode == "observe":
        yield "observe mode lets calls proceed that policy denies"
    seen = read_seen(project.seen)
    waiting = [key for key in sorted(seen) if _waits(project.catalog.check(seen[key]))]
    unclassified = [key for key in waiting if _unclassified(project, seen[key])]
    others = [key for key in waiting if key not in unclassified]
    if others:
        yield (
            f"{len(others)} tools wait for review: {', '.join(map(str, others))}\n"
            "  mend: lictor catalog diff, lictor catalog lock"
        )
    if unclassified:
        yield (
            f"{len(unclassified)} tools have no impact yet: {', '.join(map(str, unclassified))}\n"
            f'  mend: write it into {project.settings.catalog}: impact = ["read"]'
        )
    for name, template in project.templates.items():
        for key in sorted(template.tools or ()):
            if project.catalog.known(key) is None:
                yield f"tasks.{name} names {key}, which is not reviewed"
    yield from _store(project)
    yield from _ambient()


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


def _ambient() -> Iterator[str]:
    """Secrets that an agent of this account could reach without asking anybody."""
    names = [name for name in _AMBIENT if name in os.environ]
    names += sorted(name for name in os.environ if name.endswith("_API_KEY"))
    files = [f"~/{name}" for name in _FILES if (Path.home() / name).exists()]
    if names or files:
        yield f"secrets within reach of the agent: {', '.join((*names, *files))}"
