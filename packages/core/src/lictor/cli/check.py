"""`lictor check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from lictor.assemble import Project
from lictor.catalog import read_seen
from lictor.cli.shared import DEFAULT, ProjectFile, console, open_project, plain
from lictor.errors import StoreError

_AMBIENT: Final = ("AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS")
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
            console.print(f"\n// {plain(source.name)}\n{plain(source.text)}")
    for finding in found.policy.findings:
        console.print(
            f"warning: {plain(finding.where)}: {plain(finding.policy)}: "
            f"{plain(finding.problem)}\n  mend: {plain(finding.mend)}",
            style="yellow",
        )
    for problem in _problems(found):
        console.print(f"warning: {plain(problem)}", style="yellow")
    console.print("ok")


def _problems(project: Project) -> Iterator[str]:
    if project.settings.mode == "observe":
        yield "observe mode lets calls proceed that policy denies"
    seen = read_seen(project.seen)
    waiting = [key for key in sorted(seen) if _waits(project.catalog.check(seen[key]))]
    if waiting:
        yield (
            f"{len(waiting)} tools wait for review: {', '.join(map(str, waiting))}\n"
            "  mend: lictor catalog diff, lictor catalog lock"
        )
    for name, template in project.templates.items():
        for key in sorted(template.tools or ()):
            if project.catalog.known(key) is None:
                yield f"tasks.{name} names {key}, which is not reviewed"
    yield from _store(project)
    yield from _ambient()


def _waits(code: str | None) -> bool:
    return code in ("tool_unreviewed", "tool_changed")


def _store(project: Project) -> Iterator[str]:
    if not project.store.exists():
        return
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
