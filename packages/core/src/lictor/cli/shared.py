"""What the commands share: the project option and how things are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lictor.assemble import Project, project_of
from lictor.forms import visible
from lictor.place import NAME
from lictor.place import Place as Place
from lictor.place import place as find

ProjectFile = Annotated[
    Path,
    typer.Option(
        "--project", "-p", help="lictor.toml of the project, or its folder.", show_default=True
    ),
]
DEFAULT = Path(NAME)

console = Console(highlight=False, soft_wrap=True)


def absolute(path: Path) -> Path:
    """A person at a terminal may name the project relative to where he stands."""
    return path if path.is_absolute() else Path.cwd() / path


def place(path: Path) -> Place:
    """Finds the project: a `lictor.toml`, or a folder in which `Gate.dev()` has been."""
    return find(absolute(path))


def open_project(path: Path) -> Project:
    """Reads the project."""
    found = place(path)
    return project_of(found.toml, found.settings)


def plain_lines(text: object) -> str:
    """The same for text whose line ends are ours or its author's own."""
    return "\n".join(map(plain, str(text).split("\n")))


def plain(text: object) -> str:
    """Text of unknown origin, fit for a terminal: nothing in it moves the cursor or hides."""
    return visible(str(text)).replace("[", "\\[")
