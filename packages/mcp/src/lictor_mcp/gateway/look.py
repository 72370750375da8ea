"""Starts a server once, to have its definitions reviewed before a client uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lictor.errors import ConfigError
from lictor.gate import Gate
from lictor_mcp import methods as m
from lictor_mcp.gateway.child import Keeper, environment
from lictor_mcp.gateway.identity import identity as identity_of
from lictor_mcp.gateway.opening import open_gate
from lictor_mcp.gateway.upstream import Server, Upstream
from lictor_mcp.guard import Failed, Refused
from lictor_mcp.waiting import Unanswered
from lictor_mcp.wire import parse, write

SECONDS: Final = 60.0
HELLO: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "lictor", "version": "1"},
}


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
    opened = open_gate(project, server=name)
    try:
        server = Server(name, command, environment((), env))
        return opened.project.path.parent, asyncio.run(_looked(opened.gate, server))
    finally:
        opened.close()


async def _looked(gate: Gate, server: Server) -> int:
    async def to_client(raw: bytes) -> None:
        """There is none: what the server says by itself is for nobody."""

    keeper = Keeper()
    keeper.start()
    upstream = Upstream(
        gate,
        server,
        to_client,
        keeper=keeper,
        identify=lambda it: identity_of(it.command, env=it.env, cwd=it.cwd),
    )
    running = asyncio.create_task(upstream.run())
    try:
        async with asyncio.timeout(SECONDS):
            return await _asked(upstream)
    except (Failed, Refused, Unanswered, TimeoutError, ValueError) as error:
        raise ConfigError(
            " ".join(server.command), f"cannot be asked what it offers: {error}", "start it by hand"
        ) from None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await upstream.end()
        keeper.stop()


async def _asked(upstream: Upstream) -> int:
    hello = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": HELLO}
    said = await upstream.relay.ask(parse(write(hello)))
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await upstream.relay.notified(parse(write(note)))
    offers = said.get("capabilities")
    if isinstance(offers, dict) and "resources" in offers:
        upstream.guard.gate.met(m.method_tool(upstream.server.name, "resources/read"))
    await upstream.guard.offered()
    return await upstream.guard.waiting()
