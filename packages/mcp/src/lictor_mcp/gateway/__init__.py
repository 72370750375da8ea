"""`lictor gateway`: a relay in front of servers that nobody can change.

`lictor.cli.gateway` loads this by name.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lictor.errors import ConfigError
from lictor.settings import ServerPart
from lictor_mcp.gateway.child import environment
from lictor_mcp.gateway.opening import Opened, named, open_gate
from lictor_mcp.gateway.stdio import StdioGateway, serve
from lictor_mcp.gateway.upstream import Server


def run_stdio(
    command: Sequence[str] = (),
    *,
    project: Path | None = None,
    servers: Sequence[str] = (),
    name: str = "",
    agent: str = "",
    task: str = "",
    env: Sequence[str] = (),
) -> int:
    """Serves a client on our stdin and stdout until it ends.

    Args:
        command: Starts the one server; without it the servers of the project are started.
        project: Absolute path of `lictor.toml`; without it, a folder of the server's own.
        servers: Which servers of the project; all if none is named.
        name: The server's id in the catalog, instead of one made from its command.
        agent: Who acts, instead of what the project says.
        task: The task template, instead of what the project says.
        env: Names of environment variables that the server of `command` gets as well.

    Returns:
        An exit code.

    Raises:
        ConfigError: Something is wrong or missing; says what, where, and how to mend it.
    """
    _say_to_stderr()
    if not command and project is None:
        raise ConfigError(
            "lictor gateway", "was told no server", "lictor gateway -- COMMAND, or -p lictor.toml"
        )
    name = name or (named_by(command) if command else "")
    if command:
        _refuse_missing("lictor gateway", command)
    opened = open_gate(project, server=name, agent=agent, task=task)
    try:
        if command:
            known = opened.mcp.servers.get(name)
            made = [server_of(name, known or ServerPart(), command, env)]
        else:
            made = list(_listed(opened, servers))
        return serve(lambda: StdioGateway.of(opened.gate, made, opened=opened))
    finally:
        opened.close()


def _listed(opened: Opened, wanted: Sequence[str]) -> Iterable[Server]:
    parts = opened.mcp.servers
    unknown = ", ".join(each for each in wanted if each not in parts)
    names = wanted or [name for name, part in parts.items() if part.command is not None]
    if unknown or not names:
        raise ConfigError(
            f"{opened.project.path}: mcp.servers",
            f"does not name {unknown or 'a server with a command'}",
            f"add [mcp.servers.{wanted[0] if wanted else 'NAME'}] with command =",
        )
    for name in names:
        command = parts[name].command
        if command is None:
            raise ConfigError(
                f"{opened.project.path}: mcp.servers.{name}",
                "has an address and no command, so it is none for stdio",
                "lictor gateway --listen 127.0.0.1:8700 serves it",
            )
        _refuse_missing(f"{opened.project.path}: mcp.servers.{name}", command)
        yield server_of(name, parts[name], command)


def _refuse_missing(where: str, command: Sequence[str]) -> None:
    if shutil.which(command[0]) is None:
        raise ConfigError(
            where, f"{command[0]} is no program that can be run", "install it, or mend its path"
        )


def server_of(
    name: str, part: ServerPart, command: Sequence[str], more: Sequence[str] = ()
) -> Server:
    """A server that is started, as the project says.

    Args:
        name: Its id in the catalog.
        part: What the project says of it.
        command: Starts it.
        more: Names of environment variables that it gets as well.
    """
    return Server(
        name,
        command,
        environment([*part.env, *more], part.values),
        cwd=part.cwd,
        seconds=part.timeout,
        ours=part.lictor,
    )


def named_by(command: Sequence[str]) -> str:
    """The id of a server whose command is all that is known: what a person would call it."""
    words = [each for each in command if not each.startswith("-")]
    runner = Path(command[0]).name in {"npx", "uvx", "bunx", "node", "python", "python3", "uv"}
    word = words[1] if runner and len(words) > 1 else command[0]
    if "-m" in command[:-1]:
        word = command[list(command).index("-m") + 1]
    return named(Path(word).name.partition("@")[0].removesuffix(".py").removesuffix(".js"))


def _say_to_stderr() -> None:
    log = logging.getLogger("lictor.mcp")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("lictor: %(message)s"))
        log.addHandler(handler)
        log.propagate = False
