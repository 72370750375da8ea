"""Conversations with one server in our own name, one question at a time.

Rules enforced here:

1. What a server says between is read past; what it asks is answered with an error.
2. A line that is no message is read past, as the gateway does it, but not without end.
3. What a server writes to its stderr is kept to its last characters, for an error to quote.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Final

from lictor_mcp import methods as m
from lictor_mcp.gateway.child import GRACE, Child, Keeper, TooLong, line_of
from lictor_mcp.gateway.http_checks import CAPABILITIES as CLIENT
from lictor_mcp.gateway.http_own import META, Own
from lictor_mcp.gateway.http_upstream import Answered, Upstream
from lictor_mcp.gateway.identity import identity as identity_of
from lictor_mcp.gateway.listing import CAPABILITIES, Nonsense
from lictor_mcp.gateway.upstream import Server
from lictor_mcp.guard import Failed, Wire
from lictor_mcp.waiting import result_of
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    MAX_BYTES,
    METHOD_NOT_FOUND,
    Malformed,
    Message,
    error,
    parse,
    write,
)

MAX_ODD: Final = 100
"""Lines that are no message, before a server is taken for none."""
MAX_TAIL: Final = 500
INITIALIZED: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@contextlib.asynccontextmanager
async def started(server: Server) -> AsyncIterator[StdioTalk]:
    """A conversation with a server that we start for it, and end after it.

    Yields:
        The conversation; an error in it is told with what the server says of that itself.

    Raises:
        OSError: It cannot be started.
    """
    keeper, tail = Keeper(), Tail()
    writer = await tail.open()
    child = Child(server.command, server.env, cwd=server.cwd, keeper=keeper, errors=writer)
    keeper.start()
    try:
        try:
            lines = await child.start()
        finally:
            os.close(writer)
        try:
            yield StdioTalk(server, child, lines)
        except Nonsense as problem:
            await child.stop()
            raise Nonsense(f"{problem}{await tail.told()}") from None
        finally:
            await child.stop()
            await _read_past(lines)
    finally:
        keeper.stop()
        tail.close()


async def _read_past(lines: asyncio.StreamReader) -> None:
    """The rest of what it wrote: until then its pipe is open."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            while await lines.read(MAX_BYTES):
                pass


class StdioTalk:
    """With a server that we have started.

    Args:
        server: What was started.
        child: Its process.
        lines: What it writes.
    """

    def __init__(self, server: Server, child: Child, lines: asyncio.StreamReader) -> None:
        self._server, self._child, self._lines = server, child, lines
        self._meta: Wire = {}
        self._count, self._odd = 0, 0
        self.changes = 0

    async def ask(self, method: str, params: Wire) -> Wire:
        """Asks it; see `Talk`."""
        self._count += 1
        id = f"lictor-{self._count}"
        given = {**params, "_meta": self._meta} if self._meta else dict(params)
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": given}
        with contextlib.suppress(Failed):  # what it has said before it ended tells more
            await self._child.send(write(request))
        while True:
            message = await self._next(id)
            if message.method:
                await self._said(message)
            elif message.id == id:
                return result_of(message)

    async def _next(self, id: str) -> Message:
        while True:
            try:
                line = await line_of(self._lines)
            except TooLong:
                raise Nonsense("it writes a message that is longer than one may be") from None
            if line is None:
                raise Failed({"code": INTERNAL_ERROR, "message": self._ended()})
            try:
                return parse(line)
            except Malformed as bad:
                self._odd += bool(line.strip())
                if bad.id == id or self._odd > MAX_ODD:
                    raise Nonsense(f"it writes what is no message: it {bad.problem}") from None

    def _ended(self) -> str:
        odd = f", after {self._odd} lines that are no messages" if self._odd else ""
        return f"it has ended{odd}"

    async def _said(self, message: Message) -> None:
        if message.method in m.CHANGED:
            self.changes += 1
        if message.kind == "request":
            told = error(message.id, METHOD_NOT_FOUND, "Nobody is here to be asked.")
            await self._child.send(write(told))

    async def greeted(self, said: Wire) -> None:
        """Says that we have heard it."""
        await self._child.send(write(INITIALIZED))

    def stateless(self) -> None:
        """From now on the protocol without sessions is spoken."""
        self._meta = {**META, CLIENT: CAPABILITIES}

    async def identity(self) -> str:
        """What it is, once it runs: only then a runner has fetched it."""
        it = self._server
        return await asyncio.to_thread(identity_of, it.command, env=it.env, cwd=it.cwd)


class HttpTalk:
    """With a server at an address.

    Args:
        url: Where it is.
        token: Our own credential for it, if it wants one.
    """

    def __init__(self, url: str, token: str) -> None:
        self._upstream = _Upstream(url, token=token)
        self.changes = 0
        self._own = self._begin(stateless=False)

    def _begin(self, *, stateless: bool) -> Own:
        own = Own(self._upstream, stateless=stateless)
        own.told = self._told
        return own

    def _told(self, method: str) -> None:
        self.changes += method in m.CHANGED

    async def ask(self, method: str, params: Wire) -> Wire:
        """Asks it; see `Talk`."""
        return await self._own.ask(method, params)

    async def greeted(self, said: Wire) -> None:
        """Joins the session that it has opened."""
        self._own.id, self._own.version = self._upstream.session, str(said["protocolVersion"])
        await self._own.tell(write(INITIALIZED))

    def stateless(self) -> None:
        """From now on the protocol without sessions is spoken."""
        self._own = self._begin(stateless=True)

    async def identity(self) -> str:
        """Its address."""
        return self._upstream.url

    async def close(self) -> None:
        """Ends the session and all connections."""
        await self._own.leave()
        await self._upstream.close()


class _Upstream(Upstream):
    """Remembers which session the server has opened."""

    session: str | None = None

    async def post(self, raw: bytes, headers: Mapping[str, str]) -> Answered:
        answered = await super().post(raw, headers)
        self.session = self.session or answered.session
        return answered


class Tail(asyncio.Protocol):
    """The last of what a process writes to its stderr."""

    def __init__(self) -> None:
        self._said, self._over = b"", asyncio.Event()
        self._transport: asyncio.ReadTransport | None = None

    async def open(self) -> int:
        """Where the process is to write."""
        reader, writer = os.pipe()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: self, os.fdopen(reader, "rb", buffering=0)
        )
        return writer

    def data_received(self, data: bytes) -> None:
        """Keeps the last of it."""
        self._said = (self._said + data)[-MAX_TAIL:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody can write there any more."""
        self._over.set()

    async def told(self) -> str:
        """What an error quotes of it, once the process has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._over.wait()
        said = self._said.decode(errors="replace").strip()
        return f"; it says: {said}" if said else ""

    def close(self) -> None:
        """Reads no more."""
        if self._transport is not None:
            self._transport.close()
