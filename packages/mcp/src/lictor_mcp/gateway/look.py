"""Asks a server once what it offers, to have it reviewed before anybody uses it.

Rules enforced here:

1. It is started or reached as the gateway does it: same command, environment, credential, and what
   it is counts in every pin as it does there.
2. It has so long to answer everything; then it ends, with all that it has started.
3. What it writes to its stderr does not reach this terminal, where it could say that all is well.
4. It learns nothing of us, and gets an error for what it asks.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lictor.errors import ConfigError
from lictor.forms import visible
from lictor.model import SERVER_ID
from lictor.settings import McpPart, ServerPart
from lictor_mcp import methods as m
from lictor_mcp.gateway import server_of
from lictor_mcp.gateway.child import environment
from lictor_mcp.gateway.http_run import address, token_of
from lictor_mcp.gateway.listing import Found, Nonsense, found
from lictor_mcp.gateway.opening import open_gate
from lictor_mcp.gateway.pending import PENDING
from lictor_mcp.gateway.talking import HttpTalk, started
from lictor_mcp.gateway.upstream import Server
from lictor_mcp.guard import Failed

SECONDS: Final = 60.0
_WAITING: Final = frozenset({"tool_unreviewed", "tool_changed"})


def look(
    name: str, command: Sequence[str], env: Mapping[str, str], *, project: Path | None = None
) -> tuple[Path, int]:
    """Notes what a server offers, for `lictor review`.

    Args:
        name: Its id in the catalog.
        command: Starts it.
        env: What the client sets for it.
        project: Absolute path of `lictor.toml`; a folder of the server's own if left out.

    Returns:
        The folder to review in, and how many tools wait there.

    Raises:
        ConfigError: The server cannot be asked.
    """
    server = Server(name, command, environment((), env))
    opened = open_gate(project, server=name)
    try:
        made = _asked(" ".join(command), _started(server, SECONDS))
        for tool in made.tools:
            opened.gate.met(tool)
        check = opened.gate.catalog.check
        waiting = [tool.key.name for tool in made.tools if check(tool) in _WAITING]
        own = [name for name in waiting if name != PENDING and not name.startswith(m.OURS)]
        return opened.project.path.parent, len(own)
    finally:
        opened.close()


def offered(
    name: str,
    mcp: McpPart | None,
    *,
    project: Path,
    command: Sequence[str] = (),
    env: Sequence[str] = (),
) -> Found:
    """Everything that a server offers now; nothing is written.

    Args:
        name: Its id in the catalog.
        mcp: What the project says of its servers.
        project: Absolute path of `lictor.toml`.
        command: Starts it, instead of what the project says.
        env: Names of environment variables that the server of `command` gets as well.

    Raises:
        ConfigError: There is no such server, it cannot be asked, or lists what nobody can review.
    """
    if not SERVER_ID.fullmatch(name) or name == "local":
        problem = "is no id of a server: small letters, digits and dashes, and not local"
        raise ConfigError("--server", f"{visible(name)} {problem}", "call it what it is: notes")
    servers = {} if mcp is None else mcp.servers
    where = f"{project}: mcp.servers.{name}"
    if name not in servers and not command:
        known = f"name one of: {', '.join(sorted(servers))}; or " if servers else ""
        raise ConfigError(
            f"{project}: mcp.servers",
            f"does not name {name}",
            f"{known}put its command behind --",
        )
    part = servers.get(name, ServerPart())
    seconds = min(SECONDS, part.timeout)
    begins = command or part.command
    if begins:
        server = server_of(name, part, begins, env)
        where = shlex.join(command) if command else where
        made = _asked(where, _started(server, seconds))
    else:
        url, token = address(project, name, part), token_of(project.parent, part)
        made = _asked(where, _reached(name, url, token, seconds))
    if made.odd:
        raise ConfigError(
            where,
            f"lists what nobody can review: {'; '.join(made.odd)}",
            "have it mended. The gateway hides these and offers the others; lictor review takes "
            "those once a client has used it",
        )
    return made


def _asked(where: str, asking: Coroutine[Any, Any, Found]) -> Found:
    try:
        return asyncio.run(asking)
    except OSError as error:
        problem = f"{error.filename or 'its program'} cannot be used: {error.strerror}"
        mend = "install it, or mend its path"
    except Nonsense as error:
        problem, mend = f"cannot be asked what it offers: {error}", "start it by hand, and see why"
    raise ConfigError(visible(where), visible(problem), mend) from None


async def _started(server: Server, seconds: float) -> Found:
    async with started(server) as talk:
        return await _in_time(seconds, found(server.name, talk))


async def _reached(name: str, url: str, token: str, seconds: float) -> Found:
    talk = HttpTalk(url, token)
    try:
        return await _in_time(seconds, found(name, talk))
    finally:
        await talk.close()


async def _in_time(seconds: float, asking: Coroutine[Any, Any, Found]) -> Found:
    """Whatever keeps it from answering, in words."""
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except TimeoutError:
        problem = f"it has not answered within {seconds:g} seconds"
    except Failed as failed:
        problem = str(failed.error.get("message"))[:300]
    raise Nonsense(problem) from None
