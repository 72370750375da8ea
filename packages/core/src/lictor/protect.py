"""The gate protects its own home.

Rules enforced here:

1. An argument whose text, taken as a path in any way a tool may take it (with `~`, variables,
   percent signs, as a `file:` URL, from our folder or the working directory), leads to the gate's
   own files or the virtual environment (lexically or through links) is denied `protected`, for
   every impact; no policy lifts it. So are names of objects, and for a tool that deletes any folder
   above them.
2. A URL to one of our own listeners is denied alike.
3. Configuration is refused at start where it is a link, or where another account could write it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from lictor.canonical import Json
from lictor.errors import ConfigError

MAX_PATH: Final = 4096
_PATHLIKE: Final = re.compile(r"[/\\.~$%]")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", ""})  # noqa: S104


@dataclass(frozen=True, slots=True)
class Protected:
    """What no tool may reach.

    Attributes:
        roots: Real paths of files and folders.
        ports: Loopback ports of our own listeners.
        folders: What the files lie in.
    """

    roots: tuple[str, ...]
    ports: frozenset[int] = frozenset()
    folders: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folders", frozenset(map(os.path.dirname, self.roots)))

    @classmethod
    def of(cls, paths: Iterable[Path], ports: Iterable[int] = ()) -> Protected:
        """Protects these files and folders, and the virtual environment we run in if it is one."""
        roots = {os.path.realpath(path) for path in paths}
        if sys.prefix != sys.base_prefix:
            roots.add(os.path.realpath(sys.prefix))
        return cls(tuple(sorted(roots)), frozenset(ports))

    def reached(self, arguments: Mapping[str, Json], *, deletes: bool = False) -> str | None:
        """The name of an argument that leads to something protected, if any.

        Args:
            arguments: JSON view.
            deletes: The tool deletes, so that what lies above counts too.
        """
        if not self.roots and not self.ports:
            return None
        for name, value in arguments.items():
            if self._value(value, deletes):
                return name
        return None

    def _value(self, value: Json, deletes: bool) -> bool:
        if isinstance(value, str):
            return self._text(value, deletes)
        if isinstance(value, list):
            return any(self._value(item, deletes) for item in value)
        if isinstance(value, dict):
            return any(
                self._text(key, deletes) or self._value(item, deletes)
                for key, item in value.items()
            )
        return False

    def _text(self, text: str, deletes: bool) -> bool:
        if "://" in text and self._url(text):
            return True
        if not _PATHLIKE.search(text) and not os.path.lexists(text.partition("\0")[0]):
            return False  # a word is taken for a name only where there is something of that name
        return any(self._path(reading, deletes) for reading in _readings(text))

    def _path(self, text: str, deletes: bool) -> bool:
        places = {os.path.abspath(text)}
        if len(text) <= MAX_PATH:
            places.add(os.path.realpath(text))
        if text[0] != "/" and _PATHLIKE.search(text):  # a tool may work in our folder
            places |= {os.path.abspath(os.path.join(folder, text)) for folder in self.folders}
        return any(
            place == root
            or place.startswith(root + os.sep)
            or (deletes and root.startswith(place.rstrip(os.sep) + os.sep))
            for root in self.roots
            for place in places
        )

    def _url(self, text: str) -> bool:
        if not self.ports:
            return False
        try:
            parts = urlsplit(text)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError:
            return True
        host = (parts.hostname or "").rstrip(".")
        return port in self.ports and (host in _LOOPBACK or host.startswith("127."))


def _readings(text: str) -> set[str]:
    """The paths that a tool may make of a text."""
    given = {text, text.strip(), text.partition("\0")[0]}
    given |= {unquote(each) for each in given if "%" in each}
    for each in tuple(given):
        if each.strip()[:5].lower() == "file:":
            path = each.strip()[5:]
            given |= {path, "/" + path[2:].partition("/")[2]}
    paths = set()
    for each in given:
        path = os.path.expandvars(os.path.expanduser(each.replace("\\", "/").replace("\0", "")))
        paths.add("/" + path.lstrip("/") if path[:2] == "//" else path)
    return paths - {""}


def refuse_unsafe(path: Path) -> Path:
    """Checks that a configuration file is only ours to write.

    Returns:
        The path, absolute.

    Raises:
        ConfigError: It is relative, missing, a link, or it or a parent can be written by others.
    """
    if not path.is_absolute():
        raise ConfigError(
            str(path),
            "is a relative path: whose file it is would depend on the working directory",
            f'Gate.from_file(Path(__file__).with_name("{path.name}").resolve())',
        )
    if not path.exists():
        raise ConfigError(str(path), "does not exist", "write it (the README shows one)")
    if path.is_symlink():
        raise ConfigError(str(path), "is a symbolic link", f"name {path.resolve()} itself")
    for place in (path, *path.parents):
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError(
                str(path), f"its parent {place} is a symbolic link", f"name {path.resolve()} itself"
            )
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = place != path and found.st_mode & stat.S_ISVTX and found.st_uid == 0
        if shared and not sticky and not _private_group(found, shared):
            raise ConfigError(str(path), f"{place} can be written by others", f"chmod go-w {place}")
        if found.st_uid not in (0, os.getuid()):
            raise ConfigError(
                str(path), f"{place} belongs to another account", f"chown it to uid {os.getuid()}"
            )
    return path


def _private_group(found: os.stat_result, shared: int) -> bool:
    """Whether only the group may write and it has no other member."""
    if shared & stat.S_IWOTH:
        return False
    import grp
    import pwd

    try:
        members = set(grp.getgrgid(found.st_gid).gr_mem)
        owner = pwd.getpwuid(found.st_uid)
        primary = {p.pw_name for p in pwd.getpwall() if p.pw_gid == found.st_gid}
    except KeyError:
        return False
    return (members | primary) <= {owner.pw_name}
