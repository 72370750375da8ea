"""Whether the arguments of a call lead into the gate's own home.

Rules enforced here:

1. An argument whose text, taken as a path in any way a tool may take it (`paths`), from our folder,
   the working directory or the tool's own folders, leads to the gate's files or the virtual
   environment (lexically, through links, or by a second name of the same file) is denied
   `protected`, for every impact; no policy lifts it. So are names of objects, and for a tool that
   deletes any folder above them.
2. For every impact but `read` the same holds for what starts programs (`places`), and for patterns
   that could match any of it; patterns that could match our keys and store count for reads too.
3. The words of a command count one by one, for tools that execute (but programs of the virtual
   environment may be named). That is a hint, not a wall.
4. A URL to one of our own listeners is denied alike (`hosts`).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lictor.canonical import Json
from lictor.model import Impact
from lictor.protect import hosts, paths
from lictor.protect.places import HOME, STARTERS, starters

SECRETS: Final = (
    "record.key",
    "lictor.db",
    "lictor.db-wal",
    "lictor.db-shm",
    "lictor.db.lock",
    "watch.lock",
)
_MEMORY: Final = re.compile(r"/proc/[^/]+/(task/[^/]+/)?(mem|environ|map_files)(/|$)")
_READ: Final = frozenset({Impact.READ})
_RUN: Final = frozenset({Impact.EXECUTE})
_ENVIRONMENT: Final = os.path.realpath(sys.prefix)


@dataclass(frozen=True, slots=True)
class Protected:
    """What no tool may reach.

    Attributes:
        roots: Real paths of files and folders.
        ports: Loopback ports of our own listeners.
        starts: Real paths that nothing with an effect may reach.
        state: Real path of the folder of key and store, or empty.
        folders: What the files lie in.
    """

    roots: tuple[str, ...]
    ports: frozenset[int] = frozenset()
    starts: tuple[str, ...] = ()
    state: str = ""
    folders: frozenset[str] = field(init=False)
    _inside: frozenset[str] = field(init=False, repr=False)
    _effects: frozenset[str] = field(init=False, repr=False)
    _run: frozenset[str] = field(init=False, repr=False)
    _above: frozenset[str] = field(init=False, repr=False)
    _ends: frozenset[str] = field(init=False, repr=False)
    _effect_ends: frozenset[str] = field(init=False, repr=False)
    _targets: tuple[tuple[str, ...], ...] = field(init=False, repr=False)
    _secrets: tuple[tuple[str, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        ours = [root for root in self.roots if root != _ENVIRONMENT]
        put(self, "folders", frozenset(map(os.path.dirname, ours)))
        ends = frozenset(end for root in ours for end in _ends(paths.same(root)))
        put(self, "_ends", ends)
        put(self, "_effect_ends", ends | set(map(paths.same, HOME)))
        inside = frozenset(map(paths.same, self.roots))
        effects = inside | set(map(paths.same, self.starts))
        put(self, "_inside", inside)
        put(self, "_effects", effects)
        put(self, "_run", effects - {paths.same(_ENVIRONMENT)})
        put(self, "_above", frozenset(above for root in effects for above in _above(root)))
        put(self, "_targets", tuple(map(paths.split, effects)))
        secrets = (f"{paths.same(self.state)}/{name}" for name in SECRETS if self.state)
        put(self, "_secrets", tuple(map(paths.split, secrets)))

    @classmethod
    def of(
        cls, files: Iterable[Path], ports: Iterable[int] = (), *, state: Path | None = None
    ) -> Protected:
        """Protects these files and folders, and the virtual environment we run in if it is one.

        Args:
            files: What is ours.
            ports: Of our own listeners.
            state: The folder of key and store.
        """
        given = [Path(os.path.realpath(path)) for path in files]
        roots = set(map(str, given))
        if sys.prefix != sys.base_prefix:
            roots.add(_ENVIRONMENT)
        starts = {os.path.realpath(each) for each in starters({path.parent for path in given})}
        return cls(
            tuple(sorted(roots)),
            frozenset(ports),
            tuple(sorted(starts - roots)),
            "" if state is None else os.path.realpath(state),
        )

    def reached(
        self,
        arguments: Mapping[str, Json],
        impact: Collection[Impact] = _READ,
        bases: tuple[str, ...] = (),
    ) -> str | None:
        """The name of an argument that leads to something protected, if any.

        Args:
            arguments: JSON view.
            impact: Of the tool.
            bases: Folders that its relative paths may start from.
        """
        if not self.roots and not self.ports:
            return None
        look = _Look(self, frozenset(impact), bases)
        for name, value in arguments.items():
            if look.value(value):
                return name
        if self.ports and hosts.together(arguments, self.ports):
            return next(iter(arguments))
        return None


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the arguments of one call."""

    home: Protected
    impact: frozenset[Impact]
    bases: tuple[str, ...]

    @property
    def effect(self) -> bool:
        return self.impact != _READ

    @property
    def runs(self) -> bool:
        """Whether it only executes: naming a program of the virtual environment is no harm."""
        return _RUN <= self.impact <= {*_RUN, *_READ}

    def value(self, value: Json) -> bool:
        """Whether anything in a value leads there."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return any(self.value(item) for item in value)
        if isinstance(value, dict):
            if self.home.ports and hosts.together(value, self.home.ports):
                return True
            return any(self.text(key) or self.value(item) for key, item in value.items())
        return False

    def text(self, text: str) -> bool:
        """Whether a text leads there."""
        if self.home.ports and hosts.ours(text, self.home.ports):
            return True
        if self._one(text):
            return True
        if Impact.EXECUTE in self.impact:
            return any(self._one(word) for word in paths.words(text))
        return False

    def _one(self, text: str) -> bool:
        like = paths.LIKE.search(text) is not None
        try:
            if self._pattern(text, like):
                return True
            if not like and not os.path.lexists(text.partition("\0")[0]):
                # a word is taken for a name only where there is something of that name
                return self.effect and self._piece(text.strip())
            return any(self._path(reading) for reading in paths.readings(text))
        except paths.TooLong:
            return True

    def _path(self, text: str) -> bool:
        places = {os.path.abspath(text)}
        short = len(text) <= paths.MAX_PATH
        if short:
            places.add(os.path.realpath(text))
        if text[0] != "/" and paths.LIKE.search(text):  # a tool may work in our folder, or its own
            for base in (*self.home.folders, *self.bases):
                there = os.path.join(base, text)
                places.add(os.path.abspath(there))
                if short:
                    places.add(os.path.realpath(there))
        if text[0] != "/" and self._piece(text):
            return True
        return any(map(self._place, places)) or (short and self._second_name(text))

    def _piece(self, text: str) -> bool:
        """Whether it leads there from a folder that another argument, or the tool, may name."""
        ends = self.home._effect_ends if self.effect else self.home._ends
        if "/" not in text:
            return paths.same(text) in ends
        name = paths.same(os.path.normpath(text))
        while name.startswith("../"):
            name = name[3:]
        return name in ends or not ends.isdisjoint(_above(name))

    def _place(self, place: str) -> bool:
        """Whether a place is, or lies in, what is protected."""
        home, name = self.home, paths.same(place)
        roots = home._effects if self.effect else home._inside
        if self.runs:
            roots = home._run
        if name in roots or not roots.isdisjoint(_above(name)):
            return True
        if self.effect and name.rpartition("/")[2] in STARTERS:
            return True
        if Impact.DELETE in self.impact and name in home._above:
            return True
        return name.startswith("/proc/") and _MEMORY.match(name) is not None

    def _second_name(self, text: str) -> bool:
        """Whether it is a hard link to one of our files."""
        try:
            found = os.stat(text)
        except (OSError, ValueError):
            return False
        if found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
            return False
        return any((found.st_dev, found.st_ino) == known for known in _files(self.home.roots))

    def _pattern(self, text: str, like: bool) -> bool:
        deletes = Impact.DELETE in self.impact
        if not (like or deletes):
            return False
        found = paths.patterns(text)
        if found is None:
            return self.effect
        targets = self.home._targets if self.effect else self.home._secrets
        return any(
            paths.could_match(each, targets, hidden=self.effect)
            for pattern in found
            if paths.MAGIC.search(pattern) or pattern != text
            for each in self._absolute(pattern)
        )

    def _absolute(self, pattern: str) -> Iterable[str]:
        pattern = paths.expanded(pattern)
        if pattern.startswith("/"):
            return (pattern,)
        bases = {os.getcwd(), *self.home.folders, *self.bases}
        return (os.path.join(base, pattern) for base in bases)


def _ends(path: str) -> Iterable[str]:
    """A path as it is written from each of the folders that it lies in."""
    parts = paths.split(path)
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _above(path: str) -> Iterable[str]:
    """The folders that a path lies in."""
    while path not in ("/", ""):
        path = os.path.dirname(path)
        yield path


def _files(roots: Iterable[str]) -> Iterable[tuple[int, int]]:
    """Our own files, by what names them for the system; not those of the virtual environment."""
    for root in roots:
        if root == _ENVIRONMENT:
            continue
        for file in (root, *_listed(root)):
            try:
                found = os.stat(file)
            except OSError:
                continue
            yield found.st_dev, found.st_ino


def _listed(folder: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(folder)]
    except OSError:
        return []
