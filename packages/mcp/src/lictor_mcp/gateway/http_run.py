"""`lictor gateway --listen`: from a project to a running HTTP gateway.

Rules enforced here:

1. What it stands before, who may call and under which task is the operator's to say; nothing is
   taken from a caller.
2. Nothing listens before everything that can be wrong was looked at.
3. Our own listener is kept from every tool that this gate guards.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from lictor.assemble import Project
from lictor.errors import ConfigError
from lictor.settings import McpPart, ServerPart
from lictor_mcp.gateway.asking import Asking
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_callers import Bearers, credential
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Upstream
from lictor_mcp.gateway.opening import chosen, gate_behind

if TYPE_CHECKING:
    import uvicorn

UPSTREAM: Final = "upstream"
"""What the catalog calls a server that has no other name."""


def run_http(
    listen: str,
    *,
    project: Path,
    upstream: str = "",
    name: str = "",
    servers: Sequence[str] = (),
    agent: str = "",
    task: str = "",
    bearer: Sequence[str] = (),
    ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serves callers over HTTP until the process is told to end.

    Args:
        listen: Host and port of the loopback.
        project: Absolute path of `lictor.toml`.
        upstream: Address of the one server; without it those of the project are served.
        name: The catalog's id of that server.
        servers: Which servers of the project; all that have an address if none is named.
        agent: Who acts, instead of what the project says.
        task: The task template, instead of what the project says.
        bearer: Token files, instead of what the project says.
        ready: Told our address, once it is listened at.

    Returns:
        An exit code.

    Raises:
        ConfigError: Something is wrong or missing; says what, where, and how to mend it.
    """
    made, mcp, agent, task = chosen(project, agent=agent, task=task)
    folder = made.path.parent
    who = Bearers([folder / each for each in bearer or mcp.bearer])
    if upstream:
        name = name or UPSTREAM
        parts = {name: (mcp.servers.get(name) or ServerPart()).model_copy(update={"url": upstream})}
    else:
        parts = _listed(made, mcp, servers)
    tokens = {key: token_of(folder, part) for key, part in parts.items()}
    urls = {key: address(made.path, key, part) for key, part in parts.items()}
    sock = listener(listen)
    try:
        asking = Asking() if mcp.confirm else None
        gate = gate_behind(made, asking, placement="p1" if mcp.separate else "p0")
    except BaseException:
        sock.close()
        raise
    with gate, sock:
        port = sock.getsockname()[1]
        gate.listens_at(port)
        hosts, origins = loopback(port)
        hosts, origins = hosts.union(mcp.hosts), origins.union(mcp.origins)
        ready(f"http://{listen.rpartition(':')[0]}:{port}/mcp")

        def application() -> HttpGateway:
            served = [
                Served(
                    key,
                    Upstream(urls[key], token=tokens[key]),
                    urls[key],
                    part.timeout,
                    part.lictor,
                    mcp.trace or "link",
                )
                for key, part in parts.items()
            ]
            return HttpGateway(
                gate,
                served,
                who=who,
                agent=agent,
                template=task,
                hosts=hosts,
                origins=origins,
                asks=mcp.confirm,
            )

        asyncio.run(_run(application, sock))
    return 0


async def _run(application: Callable[[], HttpGateway], sock: socket.socket) -> None:
    running: uvicorn.Server = server(application())

    def end() -> None:
        running.should_exit = True

    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, end)
    await running.serve(sockets=[sock])


def _listed(project: Project, mcp: McpPart, wanted: Sequence[str]) -> dict[str, ServerPart]:
    names = wanted or [name for name, part in mcp.servers.items() if part.url is not None]
    unknown = [name for name in names if name not in mcp.servers]
    if unknown or not names:
        raise ConfigError(
            f"{project.path}: mcp.servers",
            f"does not name {', '.join(unknown) or 'a server with an address'}",
            '--upstream URL, or [mcp.servers.NAME] with url = "https://…"',
        )
    return {name: mcp.servers[name] for name in names}


def token_of(folder: Path, part: ServerPart) -> str:
    """Our own credential for a server; empty if it has none.

    Raises:
        ConfigError: Its file is not there, or others can read it.
    """
    return "" if part.token is None else credential(folder / part.token)


def address(project: Path, name: str, part: ServerPart) -> str:
    """Where a server is.

    Args:
        project: The file that says so.
        name: Its id in the catalog.
        part: What the project says of it.

    Raises:
        ConfigError: It is no address that our credential may be sent to.
    """
    where = f"{project}: mcp.servers.{name}.url"
    found = urlsplit(part.url or "")
    if part.url is None:
        raise ConfigError(where, "is missing: over HTTP a server has an address", "write url =")
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ConfigError(where, "is no address of HTTP", 'for example "https://host/mcp"')
    if found.username or found.password:
        raise ConfigError(where, "holds a password", "put it into a file: token =")
    if found.scheme == "http" and found.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(where, "would send our credential in the clear", "use https")
    return part.url
