"""The gateway on stdio: our own stdin and stdout on one side, a child process on the other.

Rules enforced here:

1. The child gets an allow-listed environment, and nothing of ours.
2. A message is a line; one that is too long ends the connection it came on.
3. When the client ends, the child is asked to end, then told, then killed; no process is left.
4. A child that crashes is started again, is greeted as the client greeted it, and is listed anew
   before the next call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lictor.gate import Gate
from lictor.model import Pep
from lictor_mcp.guard import Failed, Guard
from lictor_mcp.relay import Relay
from lictor_mcp.wire import MAX_BYTES, Malformed, parse

ENVIRONMENT: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH",
    "SHELL", "TERM", "TMPDIR", "TZ", "USER",
)  # fmt: skip
"""What every server gets of our environment; everything else must be named."""

GRACE: Final = 2.0
RESTARTS: Final = 3
HELLO_SECONDS: Final = 30.0
_log: Final = logging.getLogger("lictor.mcp")


def environment(more: Sequence[str] = (), given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of an upstream server.

    Args:
        more: Names of ours that it gets as well.
        given: Values set for it.
    """
    names = (*ENVIRONMENT, *more)
    return {**{name: os.environ[name] for name in names if name in os.environ}, **(given or {})}


class Child:
    """The server behind the gateway."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._command, self._env = tuple(command), dict(env)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.StreamReader:
        """Starts it, and gives what it writes.

        Raises:
            OSError: It cannot be started.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            limit=MAX_BYTES,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout

    async def send(self, raw: bytes) -> None:
        """Writes one message.

        Raises:
            Failed: It is not there.
        """
        writer = self._process.stdin if self._process is not None else None
        if writer is None or writer.is_closing():
            raise Failed({"code": -32603, "message": "The server is not there."})
        try:
            writer.write(raw + b"\n")
            await writer.drain()
        except (ConnectionError, RuntimeError):
            raise Failed({"code": -32603, "message": "The server is not there."}) from None

    async def stop(self) -> None:
        """Ends it and everything that it started in its group."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for signal in (None, 15, 9):
            if signal is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)  # what it has left behind


class StdioGateway:
    """Relays between a client on our stdin and stdout and a server that we start.

    Args:
        gate: Who decides; its process task is whose authority calls run under.
        server: The server's id in the catalog.
        command: The server's command.
        env: Its environment (`environment`).
        identity: What is pinned of it besides its definitions.
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
        self._child = Child(command, env)
        self._out = asyncio.Lock()
        self._relay = Relay(self._to_client, self._child.send)
        self._relay.guard = Guard(
            gate,
            server,
            identity=identity or " ".join(command),
            pep=Pep("mcp_gateway", "gateway"),
            lister=self._relay.ask_server,
        )
        self._hello: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> int:
        """Serves until the client ends.

        Returns:
            An exit code: 0, or 1 if the server could not be kept running.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_BYTES)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, sys.stdout
        )
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        try:
            lines = await self._child.start()
        except OSError as error:
            _log.error("the server cannot be started: %s", error)
            return 1
        server = asyncio.create_task(self._serve(lines))
        client = asyncio.create_task(self._listen(reader))
        try:
            await asyncio.wait({server, client}, return_when=asyncio.FIRST_COMPLETED)
            return 1 if server.done() and not client.done() else 0
        finally:
            for task in (server, client):
                task.cancel()
            await self._relay.end()
            await self._child.stop()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            line = await _line(reader)
            if line is None:
                return
            if line.strip():
                self._remember(line)
                await self._relay.from_client(line)

    def _remember(self, line: bytes) -> None:
        """How the client greeted the server, in case that it must be greeted again."""
        if b"initialize" not in line or len(self._hello) > 1:
            return
        with contextlib.suppress(Malformed):
            message = parse(line)
            if message.method in ("initialize", "notifications/initialized"):
                self._hello.append(message.raw)

    async def _serve(self, lines: asyncio.StreamReader) -> None:
        for attempt in range(RESTARTS + 1):
            while (line := await _line(lines)) is not None:
                if line.strip():
                    await self._relay.from_server(line)
            self._relay.server_gone()
            await self._child.stop()
            if attempt == RESTARTS:
                break
            _log.warning("the server has ended; it is started again")
            lines = await self._child.start()
            await self._greet(lines)
        _log.error("the server ends again and again")

    async def _greet(self, lines: asyncio.StreamReader) -> None:
        """Greets a new server as the client greeted the first; its answer is for nobody."""
        for raw in self._hello:
            await self._child.send(raw)
            if parse(raw).kind == "request":
                await asyncio.wait_for(_line(lines), HELLO_SECONDS)

    async def _to_client(self, raw: bytes) -> None:
        if self._writer is None:
            raise ConnectionError("the client is not there")
        async with self._out:
            self._writer.write(raw + b"\n")
            await self._writer.drain()


async def _line(reader: asyncio.StreamReader) -> bytes | None:
    """One line; `None` at the end, which half a line and one that is too long are too."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        _log.error("a message is longer than %d bytes", MAX_BYTES)
        return None
    return line


def serve(gateway: Callable[[], Any]) -> int:
    """Runs a gateway to its end."""
    code: int = asyncio.run(gateway().run())
    return code
