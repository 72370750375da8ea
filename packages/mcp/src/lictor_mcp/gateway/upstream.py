"""One server behind the gateway: kept running, and guarded.

Rules enforced here:

1. A server that ends is started again, is greeted as the client greeted it, and is listed anew
   before the next call; one that ends again and again is given up.
2. What it is, is looked at each time it has started, and is part of every pin.
3. A server that floods us waits for whoever reads what it writes, and holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lictor.gate import Gate
from lictor.model import Pep
from lictor_mcp.gateway.child import Child, Keeper, TooLong, line_of
from lictor_mcp.gateway.pending import GatewayGuard
from lictor_mcp.guard import Failed
from lictor_mcp.relay import SECONDS, Relay
from lictor_mcp.tracing import Trace

RESTARTS: Final = 3
WINDOW: Final = 60.0
"""More restarts than that in so many seconds, and a server is given up."""
HELLO_SECONDS: Final = 30.0
TURN: Final = 64
"""Messages of one server before the others get their turn."""
_log: Final = logging.getLogger("lictor.mcp")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that the gateway starts.

    Attributes:
        name: Its id in the catalog.
        command: Program and arguments.
        env: Its whole environment.
        cwd: The folder that it starts in.
        seconds: How long it has for an answer.
        identity: What it is, if not what `identity` of the gateway says.
        ours: It is one of ours: grants may reach it.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    seconds: float = SECONDS
    identity: str = ""
    ours: bool = False


class Upstream:
    """Runs one server and relays its messages.

    Args:
        gate: Who decides.
        server: What is started.
        to_client: Sends bytes of one message to the client.
        keeper: Ends its process if we are killed.
        identify: Says what a server is; may block.
        alias: See `Relay`.
        trace: See `Relay`.
    """

    def __init__(
        self,
        gate: Gate,
        server: Server,
        to_client: Callable[[bytes], Awaitable[None]],
        *,
        keeper: Keeper,
        identify: Callable[[Server], str],
        alias: str = "",
        trace: Trace = "continue",
    ) -> None:
        self.server, self._identify = server, identify
        self._child = Child(server.command, server.env, cwd=server.cwd, keeper=keeper)
        self.relay = Relay(
            to_client, self._child.send, seconds=server.seconds, alias=alias, trace=trace
        )
        self.relay.up.clear()
        self.relay.anew = self._anew
        self.guard = GatewayGuard(
            gate,
            server.name,
            identity=server.identity,
            pep=Pep("mcp_gateway", "gateway"),
            lister=self.relay.ask_server,
            ours=server.ours,
        )
        self.relay.guard = self.guard

    async def run(self) -> None:
        """Keeps the server running; comes back when it is given up."""
        ends: deque[float] = deque(maxlen=RESTARTS + 1)
        loop = asyncio.get_running_loop()
        try:
            while (lines := await self._start()) is not None:
                await self._once(lines, greet=bool(ends))
                ends.append(loop.time())
                if len(ends) > RESTARTS and ends[-1] - ends[0] < WINDOW:
                    _log.error("the server %s ends again and again", self.server.name)
                    return
                _log.warning("the server %s has ended; it is started again", self.server.name)
        finally:
            self.relay.up.set()  # who waits for it is told that it is not there

    async def _anew(self) -> None:
        self.relay.up.clear()
        await self._child.stop()

    async def _start(self) -> asyncio.StreamReader | None:
        try:
            return await self._child.start()
        except OSError as error:
            program = self.server.command[0]
            _log.error("the server %s cannot be started: %s: %s", self.server.name, program, error)
            return None

    async def _once(self, lines: asyncio.StreamReader, *, greet: bool) -> None:
        try:
            pump = asyncio.create_task(self._pump(lines))
            pump.add_done_callback(lambda _: self.relay.server_gone())
            try:
                if greet:
                    async with asyncio.timeout(HELLO_SECONDS):
                        await self.relay.greet()
                self.relay.up.set()
                await pump
            except (Failed, TimeoutError):
                _log.warning("the server %s does not take its greeting", self.server.name)
            finally:
                pump.cancel()
        finally:
            self.relay.up.clear()
            await self._child.stop()

    async def _pump(self, lines: asyncio.StreamReader) -> None:
        count = 0
        while True:
            try:
                line = await line_of(lines)
            except TooLong:
                _log.warning("dropped a message of the server %s: too long", self.server.name)
                self.relay.unreadable()
                continue
            if line is None:
                return
            if not count and not self.server.identity:
                self.guard.identity = await asyncio.to_thread(self._identify, self.server)
            if line.strip():
                await self.relay.from_server(line)
            count += 1
            if count % TURN == 0:
                await asyncio.sleep(0)

    async def end(self) -> None:
        """Ends what is under way, and the process."""
        await self.relay.end()
        await self._child.stop()
