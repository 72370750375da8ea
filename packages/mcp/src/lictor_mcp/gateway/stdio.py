"""The gateway on stdio: our own stdin and stdout on one side, servers that we start on the other.

Rules enforced here:

1. Nothing but messages goes to our stdout: whatever else is written there goes to stderr.
2. When the client ends, or we are told to end, the servers end, and no process is left.
3. A message of the client that is too long is answered with an error and read past.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, Self

from lictor.errors import ConfigError
from lictor.gate import Gate
from lictor_mcp.gateway.asking import Asked, Direct
from lictor_mcp.gateway.child import GRACE, Keeper, TooLong, environment, line_of
from lictor_mcp.gateway.identity import identity as identity_of
from lictor_mcp.gateway.opening import Opened
from lictor_mcp.gateway.several import Several
from lictor_mcp.gateway.upstream import Server, Upstream
from lictor_mcp.offers import Wire
from lictor_mcp.wire import INVALID_REQUEST, MAX_BYTES, error, write

ENDINGS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_log: Final = logging.getLogger("lictor.mcp")


class StdioGateway:
    """Relays between a client on our stdin and stdout and a server that we start.

    Args:
        gate: Who decides; its process task is whose authority calls run under.
        server: The server's id in the catalog.
        command: The server's command.
        env: Its environment (`environment`).
        identity: What is pinned of it besides its definitions; looked at if left out.
    """

    def __init__(
        self,
        gate: Gate,
        server: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        identity: str = "",
    ) -> None:
        self._begin(gate, [Server(server, command, env, identity=identity)], None)

    @classmethod
    def of(cls, gate: Gate, servers: Sequence[Server], *, opened: Opened | None = None) -> Self:
        """A gateway for several servers: then tools are called `server__tool`.

        Args:
            gate: Who decides.
            servers: What is started.
            opened: What the gate was opened with: its task is kept, the client's name recorded.
        """
        made = cls.__new__(cls)
        made._begin(gate, servers, opened)
        return made

    def _begin(self, gate: Gate, servers: Sequence[Server], opened: Opened | None) -> None:
        self._keeper, self._opened = Keeper(), opened
        self._out = asyncio.Lock()
        self._reading: asyncio.ReadTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._client: Wire = {}
        self._asked: Asked | None = None
        several = len(servers) > 1
        trace = (opened.mcp.trace if opened is not None else None) or "continue"
        self._upstreams = [
            Upstream(
                gate,
                each,
                self._to_client,
                keeper=self._keeper,
                identify=_identified,
                alias=each.name if several else "",
                trace=trace,
            )
            for each in servers
        ]
        relays = {each.server.name: each.relay for each in self._upstreams}
        self._front = Several(relays, self._to_client) if several else self._upstreams[0].relay
        if opened is not None:
            if opened.asking is not None:
                self._front.asking = self._asked = Asked(Direct(self._to_client))
            for each in self._upstreams:
                each.guard.review, each.relay.met = opened.review, self._met

    async def _met(self, client: Wire) -> None:
        """Has recorded, once, what the client calls itself."""
        if self._opened is None or client == self._client:
            return
        self._client = client
        await asyncio.to_thread(self._opened.keeper.met, client)

    async def run(self, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None) -> int:
        """Serves until the client ends, or we are told to end.

        Returns:
            An exit code: 0, or 1 if no server could be kept running.

        Raises:
            ConfigError: Our stdin or stdout is no pipe.
        """
        reader = await self._connect(stdin or sys.stdin.buffer, stdout or sys.stdout.buffer)
        told = asyncio.Event()
        self._keeper.start()
        running = [asyncio.create_task(each.run()) for each in self._upstreams]
        served = asyncio.create_task(_all(tuple(running)))
        client = asyncio.create_task(self._listen(reader))
        stop = asyncio.create_task(_heard(told))
        if self._opened is not None:
            running.append(asyncio.create_task(self._opened.keeper.keep()))
        try:
            with _told_to_end(told):
                await asyncio.wait({served, client, stop}, return_when=asyncio.FIRST_COMPLETED)
                return 1 if served.done() and not (client.done() or stop.done()) else 0
        finally:
            await self._end([client, stop, served, *running])

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._asked is not None:
            await self._asked.end()
        ends = [self._front.end(), *(each.end() for each in self._upstreams)]
        await asyncio.gather(*ends, return_exceptions=True)
        self._keeper.stop()
        for each in (self._reading, self._writer):
            if each is not None:
                each.close()

    async def _connect(self, stdin: BinaryIO, stdout: BinaryIO) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_BYTES)
        try:
            if not _can_wait(stdin):
                raise ValueError("stdin is no pipe")
            self._reading, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), stdin
            )
            transport, protocol = await loop.connect_write_pipe(
                asyncio.streams.FlowControlMixin, stdout
            )
        except (ValueError, OSError) as problem:
            raise ConfigError(
                "lictor gateway",
                f"its stdin and stdout are what a client speaks through, and here: {problem}",
                "let an MCP client start it; lictor gateway install NAME",
            ) from None
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        return reader

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await line_of(reader)
            except TooLong:
                text = f"The message is larger than {MAX_BYTES} bytes."
                await self._to_client(write(error(None, INVALID_REQUEST, text)))
                continue
            if line is None:
                await self._front.drain(GRACE)
                return
            if line.strip():
                await self._front.from_client(line)

    async def _to_client(self, raw: bytes) -> None:
        if self._writer is None:
            raise ConnectionError("the client is not there")
        async with self._out:
            self._writer.write(raw + b"\n")
            await self._writer.drain()


def _can_wait(stdin: BinaryIO) -> bool:
    mode = os.fstat(stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stdin.isatty()


def _identified(server: Server) -> str:
    return identity_of(server.command, env=server.env, cwd=server.cwd)


async def _all(running: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*running, return_exceptions=True)


async def _heard(told: asyncio.Event) -> None:
    await told.wait()


@contextlib.contextmanager
def _told_to_end(told: asyncio.Event) -> Iterator[None]:
    """While open, a signal that ends programs is heard instead of obeyed."""
    loop = asyncio.get_running_loop()
    for number in ENDINGS:
        loop.add_signal_handler(number, told.set)
    try:
        yield
    finally:
        for number in ENDINGS:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def own_stdout() -> Iterator[BinaryIO]:
    """Our stdout for messages alone: what anybody prints meanwhile goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "wb", buffering=0) as out:
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def serve(gateway: Callable[[], Any]) -> int:
    """Runs a gateway to its end."""
    with own_stdout() as out:
        code: int = asyncio.run(gateway().run(stdout=out))
    return code


__all__ = ["Server", "StdioGateway", "environment", "own_stdout", "serve"]
