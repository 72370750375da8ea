"""What the commands share: the project option and how things are printed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lictor.assemble import SEEN, Project, project_of
from lictor.catalog import Catalog
from lictor.errors import ConfigError
from lictor.forms import visible
from lictor.protect import refuse_unsafe
from lictor.settings import Settings, load

ProjectFile = Annotated[
    Path,
    typer.Option(
        "--project", "-p", help="lictor.toml of the project, or its folder.", show_default=True
    ),
]
DEFAULT = Path("lictor.toml")

console = Console(highlight=False, soft_wrap=True)


def absolute(path: Path) -> Path:
    """A person at a terminal may name the project relative to where he stands."""
    return path if path.is_absolute() else Path.cwd() / path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project has its files; `Gate.dev()` needs no `lictor.toml`.

    Attributes:
        toml: Where `lictor.toml` is, or would be.
        settings: What `lictor.toml` says, or the defaults where there is none.
    """

    toml: Path
    settings: Settings

    @property
    def folder(self) -> Path:
        """Of the project."""
        return self.toml.parent

    @property
    def catalog(self) -> Path:
        """`catalog.toml`."""
        return self.folder / self.settings.catalog

    @property
    def lock(self) -> Path:
        """`catalog.lock`."""
        return self.catalog.with_suffix(".lock")

    @property
    def state(self) -> Path:
        """The folder of store, key and notes."""
        return self.folder / self.settings.state

    @property
    def store(self) -> Path:
        """The database."""
        return self.state / "lictor.db"

    @property
    def seen(self) -> Path:
        """The definitions that gates have met."""
        return self.state / SEEN

    def reviewed(self) -> Catalog:
        """The catalog as a person edits it: answers given in development count.

        Raises:
            ConfigError: A file is wrong, or not only ours to write.
        """
        for file in (self.catalog, self.lock):
            if os.path.lexists(file):
                refuse_unsafe(file)
        if not self.catalog.exists():
            return Catalog()
        return Catalog.load(self.catalog, self.lock if self.lock.exists() else None)


def place(path: Path) -> Place:
    """Finds a project: its `lictor.toml`, or a folder in which `Gate.dev()` has been.

    Raises:
        ConfigError: There is neither, or it is not only ours to write.
    """
    path = absolute(path)
    if path.is_dir():
        path = path / DEFAULT
    folder = path.parent
    if os.path.lexists(path):
        return Place(path, load(refuse_unsafe(path)))
    if (folder / "catalog.toml").exists() or (folder / ".lictor").is_dir():
        refuse_unsafe(folder)
        return Place(path, Settings())
    raise ConfigError(
        str(path),
        "does not exist, and no gate has been in its folder",
        "start your program with Gate.dev() once, then lictor init; or name a project with -p",
    )


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
