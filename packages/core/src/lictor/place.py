"""Where a project has its files: a `lictor.toml`, or just a folder `Gate.dev()` has been in.

Rules enforced here:

1. Only what nobody else could have written is taken for a project.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lictor.assemble import SEEN
from lictor.catalog import Catalog
from lictor.errors import ConfigError
from lictor.protect import refuse_unsafe
from lictor.settings import Settings, load

NAME: Final = "lictor.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """A project that was found.

    Attributes:
        toml: Where `lictor.toml` is, or would be.
        settings: What it says, or the defaults where there is none.
    """

    toml: Path
    settings: Settings

    def __str__(self) -> str:
        there = os.path.lexists(self.toml)
        return str(self.toml) if there else f"{self.folder} (no {self.toml.name})"

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

    def reviewed(self, *, production: bool = False) -> Catalog:
        """The catalog as a person edits it.

        Args:
            production: Leave out answers that were given in development.

        Raises:
            ConfigError: A file is wrong, or not only ours to write.
        """
        for file in (self.catalog, self.lock):
            if os.path.lexists(file):
                refuse_unsafe(file)
        if not self.catalog.exists():
            return Catalog()
        lock = self.lock if self.lock.exists() else None
        return Catalog.load(self.catalog, lock, production=production)


def place(path: Path) -> Place:
    """Finds a project.

    Args:
        path: Absolute: `lictor.toml`, or the folder it is or would be in.

    Raises:
        ConfigError: There is none, or it is not only ours to write.
    """
    if path.is_dir():
        path = path / NAME
    folder = path.parent
    if os.path.lexists(path):
        return Place(path, load(refuse_unsafe(path)))
    if (folder / "catalog.toml").exists() or (folder / ".lictor").is_dir():
        refuse_unsafe(folder)
        return Place(folder / NAME, Settings())
    raise ConfigError(
        str(path),
        "does not exist, and no gate has been in its folder",
        "start your program with Gate.dev() once, then lictor init; or name a project with -p",
    )
