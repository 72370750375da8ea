"""The gate protects its own home.

Rules enforced here:

1. An argument whose text, taken as a path, leads to the gate's own files or the virtual environment
   (lexically or through links) is denied `protected`, for every impact; no policy lifts it.
2. A URL to one of our own listeners is denied alike.
3. Configuration is refused at start where it is a link, or where another account could write it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lictor.errors import ConfigError
from lictor.model import Json

MAX_PATH: Final = 4096
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", ""})  # noqa: S104


@dataclass(frozen=True, slots=True)
class Protected:
    """What no tool may reach.

    Attributes:
        roots: Real paths of files and folders.
        ports: Loopback ports of our own listeners.
    """

    roots: tuple[str, ...]
    ports: frozenset[int] = frozenset()

    @classmethod
    def of(cls, paths: Iterable[Path], ports: Iterable[int] = ()) -> Protected:
        """Protects these files and folders, and the virtual environment we run in if it is one."""
        roots = {os.path.realpath(path) for path in paths}
        if sys.prefix != sys.base_prefix:
            roots.add(os.path.realpath(sys.prefix))
        return cls(tuple(sorted(roots)), frozenset(ports))

    def reached(self, arguments: Mapping[str, Json]) -> str | None:
        """The name of an argument that leads to something protected, if any."""
        if not self.roots and not self.ports:
            return None
        for name, value in arguments.items():
            if self._value(value):
                return name
        return None

    def _value(self, value: Json) -> bool:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return any(map(self._value, value))
        if isinstance(value, dict):
            return any(map(self._value, value.values()))
        return False

    def _text(self, text: str) -> bool:
        if not text or len(text) > MAX_PATH or "\0" in text:
            return False
        if "://" in text:
            if text[:7].lower() == "file://":
                return self._path(urlsplit(text).path)
            return self._url(text)
        if "/" not in text and "\\" not in text and "." not in text and not os.path.lexists(text):
            return False
        return self._path(text)

    def _path(self, text: str) -> bool:
        path = os.path.expanduser(text.replace("\\", "/"))
        real = os.path.realpath(path)
        return any(
            found == root or found.startswith(root + os.sep)
            for root in self.roots
            for found in (real, os.path.abspath(path))
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
        raise ConfigError(
            str(path), "does not exist", "write it (docs/quickstart in the README shows one)"
        )
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
