"""`lictor catalog lock|diff`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated

import typer

from lictor import catalog
from lictor.cli.hint import refuse_under_gate
from lictor.cli.shared import DEFAULT, ProjectFile, console, place, plain
from lictor.model import ToolKey
from lictor.template import key_of

app = typer.Typer(help="The reviewed tools.", no_args_is_help=True)


@app.command()
def diff(project: ProjectFile = DEFAULT) -> None:
    """Shows what is new or has changed among the tools that gates have met; exit code 1 if any."""
    found = place(project)
    changes = catalog.diff(found.reviewed(), catalog.read_seen(found.seen))
    for change in changes:
        console.print(str(change), markup=False)  # shows what is invisible by itself
    if changes:
        raise typer.Exit(1)
    console.print("nothing has changed")


@app.command()
def lock(
    accept: Annotated[
        list[str] | None,
        typer.Argument(help="Changed tools whose new definition you accept (see diff)."),
    ] = None,
    project: ProjectFile = DEFAULT,
) -> None:
    """Adds the tools that gates have met to the catalog, and moves the pins that you accept.

    A new tool gets `impact = []`, which denies it, until you write down what it can do.
    """
    found = place(project)  # the catalog itself may be what has to be mended
    refuse_under_gate(found.store)
    accepted = {key_of(text) for text in accept or ()}
    seen = catalog.read_seen(found.seen)
    unknown = accepted - set(seen)
    if unknown:
        raise typer.BadParameter(f"no gate has met {_names(unknown)}; start your program once")
    done = catalog.lock(found.catalog, found.lock, seen, accepted)
    for word, keys in (("added", done.added), ("pinned", done.moved), ("waiting", done.waiting)):
        if keys:
            console.print(f"{word}: {_names(keys)}")
    if done.added:
        console.print(
            f"next: lictor review, or write each tool's impact into {plain(found.catalog)}"
        )
    if done.waiting:
        words = " ".join(shlex.quote(str(key)) for key in sorted(done.waiting))
        console.print(f"next: lictor catalog diff, then lictor catalog lock {plain(words)}")
    if not (done.added or done.moved or done.waiting):
        console.print("nothing to do")


def _names(keys: Iterable[ToolKey]) -> str:
    return plain(" ".join(map(str, sorted(keys))))
