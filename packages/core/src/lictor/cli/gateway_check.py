"""What `lictor check` says about `[mcp]`: what would keep `lictor gateway` from serving.

Rules enforced here:

1. A name that nothing else in the file explains is an error: the gateway could only refuse it.
2. What this machine lacks is a warning: the file may be meant for another one.
3. Token files are looked at, not read.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lictor.assemble import Project
from lictor.errors import ConfigError, table
from lictor.settings import McpPart, ServerPart

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def refuse_unknown(project: Project) -> None:
    """Names in `[mcp]` are names of this file.

    Raises:
        ConfigError: One is not; says which, and which are near.
    """
    mcp = project.settings.mcp
    if mcp is None:
        return
    settings, where = project.settings, f"{project.path}: mcp"
    _known(f"{where}.agent", mcp.agent, settings.agents, "agents")
    _known(f"{where}.task", mcp.task, settings.tasks, "tasks")
    if "*" not in settings.users:
        _known(f"{where}.user", mcp.user, settings.users, "users")


def _known(where: str, name: str | None, known: Iterable[str], kind: str) -> None:
    names = list(known)
    if name is None or name in names:
        return
    near = ", ".join(get_close_matches(name, names, n=3) or sorted(names)[:5])
    mend = f"add {table(kind, name)}{f', or name one of: {near}' if near else ''}"
    raise ConfigError(where, f"names {name}, which is none of [{kind}]", mend)


def problems(project: Project) -> Iterator[str]:
    """What else would be missing here when the gateway starts."""
    mcp, folder = project.settings.mcp, project.path.parent
    if mcp is None:
        return
    if mcp.servers:
        yield from _unsaid(project, mcp)
    for each in mcp.bearer:
        yield from _private("mcp.bearer", folder / each)
    for name, server in mcp.servers.items():
        where = f"mcp.servers.{name}"
        yield from _started(where, server)
        if server.token is not None:
            yield from _private(f"{where}.token", folder / server.token)


def _unsaid(project: Project, mcp: McpPart) -> Iterator[str]:
    process = project.settings.process
    for word, said in (("agent", mcp.agent), ("task", mcp.task)):
        if said is None and process is None:
            yield f"mcp.{word} is missing\n  mend: {word} = in [mcp], or lictor gateway --{word}"
    addresses = [name for name, server in mcp.servers.items() if server.url is not None]
    if addresses and not mcp.bearer:
        yield (
            f"mcp.bearer is missing, and mcp.servers.{addresses[0]} has an address: without a "
            'token file nobody can call it\n  mend: bearer = ["alice.token"], or --bearer FILE'
        )


def _started(where: str, server: ServerPart) -> Iterator[str]:
    if server.command is not None and _program(server) is None:
        program = server.command[0]
        yield f"{where}.command: {program} is not found here\n  mend: install it, or mend its path"
    if server.cwd is not None and not Path(server.cwd).is_dir():
        yield f"{where}.cwd: {server.cwd} is no folder here\n  mend: make it, or name another"
    for name in server.env:
        if name not in os.environ:
            yield f"{where}.env: {name} is not set here\n  mend: set it where the gateway starts"
    if server.url is not None:
        yield from _address(where, server.url)


def _program(server: ServerPart) -> str | None:
    path = server.values.get("PATH", os.environ.get("PATH"))
    return shutil.which((server.command or [""])[0], path=path)


def _address(where: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"{where}.url: {url} is no address\n  mend: https://host/mcp"
    elif parts.scheme == "http" and parts.hostname not in _LOCAL:
        yield f"{where}.url: {url} is not encrypted, and leaves this machine\n  mend: https://"


def _private(where: str, path: Path) -> Iterator[str]:
    try:
        found = path.lstat()
    except OSError:
        yield f"{where}: {path} is not there\n  mend: write it, mode 0600"
        return
    if not stat.S_ISREG(found.st_mode):
        yield f"{where}: {path} is no plain file\n  mend: name the file itself"
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield f"{where}: {path} can be read by others\n  mend: chmod 600 {path}"
    elif found.st_uid != os.geteuid():
        yield f"{where}: {path} belongs to another account\n  mend: check as the gateway's account"
