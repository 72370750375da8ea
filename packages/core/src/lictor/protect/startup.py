"""What is refused at start: a home that others can write, or that a tool reaches into.

Rules enforced here:

1. Configuration is an absolute path. It is refused where it or anything above it is a link, belongs
   to another account, or can be written by one (sticky folders of root and private groups pass).
2. No tool with an effect has a folder of its own (`roots`, or limits of a task) with our files in
   it, or inside ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lictor.errors import ConfigError
from lictor.limits import Any, Limit, PathUnder, admits, describe
from lictor.model import Review, ToolKey


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
            _beside(path, resolved=len(path.parts) > 1),  # of a `__file__` that is itself relative
        )
    if not path.exists():
        raise ConfigError(str(path), "does not exist", _absent(path))
    if path.is_symlink():
        raise ConfigError(str(path), "is a symbolic link", f"name {path.resolve()} itself")
    for place in (path, *path.parents):
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError(
                str(path),
                f"its parent {place} is a symbolic link",
                f"name {path.resolve()} itself: {_beside(path, resolved=True)}",
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


def _beside(path: Path, *, resolved: bool) -> str:
    program = "Path(__file__).resolve()" if resolved else "Path(__file__)"
    return f'Gate.from_file({program}.with_name("{path.name}"))'


def _absent(path: Path) -> str:
    if path.suffix == ".toml":
        return "begin with Gate.dev(), which needs no file; then lictor init writes it"
    return f"mkdir {path}, or name another folder"


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


# -- tools that reach into it ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exposed:
    """A tool with an effect that may reach one of our files.

    Attributes:
        tool: The tool.
        where: What lets it: `roots`, or the template and argument whose limit does.
        reach: What that is, in words.
        file: The file of ours.
    """

    tool: ToolKey
    where: str
    reach: str
    file: str

    def __str__(self) -> str:
        return f"{self.tool} has an effect and may reach {self.file} ({self.where}: {self.reach})"


def exposed(
    reviews: Iterable[Review],
    limits: Mapping[str, Mapping[ToolKey, Mapping[str, Limit]]],
    files: Iterable[Path],
) -> list[Exposed]:
    """The tools with an effect whose own folders hold our files.

    Args:
        reviews: The catalog.
        limits: Template → tool → argument → limit.
        files: What is ours.
    """
    reach = {review.key: review for review in reviews if review.effectful and not review.blocked}
    ours = sorted({*map(str, files), *(os.path.realpath(file) for file in files)})
    found = [
        Exposed(key, "roots", f"what lies under {root}", file)
        for key, review in sorted(reach.items())
        for root in review.roots
        for file in [each for each in ours if _meet(root, each)][:1]  # one is enough to say
    ]
    found += [
        Exposed(key, where, describe(limit), file)
        for key, where, limit in _limited(limits)
        if key in reach
        for file in [each for each in ours if _lets(limit, each)][:1]
    ]
    return found


def _limited(
    limits: Mapping[str, Mapping[ToolKey, Mapping[str, Limit]]],
) -> Iterator[tuple[ToolKey, str, Limit]]:
    for template, tools in sorted(limits.items()):
        for key, named in sorted(tools.items()):
            for name, limit in sorted(named.items()):
                yield key, f"tasks.{template}.limits.{key}.{name}", limit


def _meet(root: str, file: str) -> bool:
    """Whether one lies in the other."""
    real = os.path.realpath(root)
    return Path(file).is_relative_to(real) or Path(real).is_relative_to(file)


def _lets(limit: Limit, file: str) -> bool:
    """Whether a limit, which is to confine an argument, lets it be this file."""
    if isinstance(limit, Any):  # confines nothing: each call is looked at instead
        return False
    if isinstance(limit, PathUnder):
        return _meet(limit.root, file)
    return admits(limit, file)


def refuse_exposed(where: str, found: Iterable[Exposed]) -> None:
    """Refuses a project some tool of which may write it.

    Raises:
        ConfigError: Names tool, folder, file and mend.
    """
    for each in found:
        raise ConfigError(
            f"{where}: {each.where}",
            f"{each.tool} has an effect and may reach {each.file}: it takes {each.reach}",
            "move Lictor's files out of that folder, or give the tool a folder without them",
        )
