"""What one caller has under way with one server over HTTP, guarded.

Rules enforced here:

1. A client that goes takes its request along in the stateless protocol; in a session the request
   goes on, and its answer is kept for a while in case the client resumes.
2. A request has so long to be answered; then whether it ran is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lictor.errors import TaskError
from lictor.gate import Gate
from lictor.model import Pep, ToolCall
from lictor_mcp import methods as m
from lictor_mcp import tracing
from lictor_mcp.callers import Caller, Callers
from lictor_mcp.gateway.asking import Asked
from lictor_mcp.gateway.http_checks import MISMATCH, Bad, repeated
from lictor_mcp.gateway.http_exchange import Exchange, Key, Stream, Way
from lictor_mcp.gateway.http_incoming import Incoming
from lictor_mcp.gateway.http_own import Own, read
from lictor_mcp.gateway.http_upstream import LAST, PARAM, Upstream
from lictor_mcp.gateway.pending import GatewayGuard
from lictor_mcp.guard import Failed, Refused, Wire
from lictor_mcp.relay import SECONDS, SLOW
from lictor_mcp.tracing import Trace
from lictor_mcp.waiting import Unanswered, answered, is_id, result_of
from lictor_mcp.wire import (
    DENIED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Message,
    write,
)

ENDLESS: Final = "subscriptions/listen"
MAX_UNDER_WAY: Final = 256
_STATUS: Final = {METHOD_NOT_FOUND: 404, MISMATCH: 400}
_log: Final = logging.getLogger("lictor.mcp")


@dataclass(frozen=True, slots=True)
class Served:
    """A server that the gateway stands before.

    Attributes:
        name: Its id in the catalog.
        upstream: Where it is.
        identity: What it is, as part of every pin; its address if left out.
        seconds: How long it has for an answer.
        ours: It is one of ours: grants may reach it.
        trace: What becomes of a trace that a caller names.
    """

    name: str
    upstream: Upstream
    identity: str = ""
    seconds: float = SECONDS
    ours: bool = False
    trace: Trace = "link"


class Session:
    """One caller's traffic with one server: a session of the protocol, or all without one.

    Args:
        gate: Who decides.
        served: The server.
        caller: Whose authority everything here is under.
        callers: Their tasks.
        stateless: It speaks the protocol without sessions.
        asks: The gate asks at clients (`Asking`), and here is one.
    """

    def __init__(
        self,
        gate: Gate,
        served: Served,
        caller: Caller,
        callers: Callers,
        *,
        stateless: bool,
        asks: bool = False,
    ) -> None:
        self.served, self.caller, self._callers, self._gate = served, caller, callers, gate
        self.stateless = stateless
        self.own = Own(served.upstream, stateless=stateless)
        self.guard = GatewayGuard(
            gate,
            served.name,
            identity=served.identity or served.upstream.url,
            pep=Pep("mcp_gateway", "gateway"),
            lister=self.own.ask,
            ours=served.ours,
        )
        self.own.told = self.guard.told
        self.own.going = functools.partial(tracing.sent, self.guard)
        self._incoming = Incoming(
            self.guard, self.own, home=self.home, spawn=self._spawn, seconds=served.seconds
        )
        self._asked = Asked() if asks else None
        self._pending: dict[Key, Exchange] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def home(self) -> contextlib.AbstractContextManager[None]:
        """The caller's task, to be made current.

        Raises:
            Refused: There is none for him.
        """
        try:
            return (await self._callers.task(self.caller)).here()
        except TaskError as problem:
            call = ToolCall(m.method_tool(self.served.name, "caller"), {}, pep=self.guard.pep)
            decision = self._gate.refuse(call, "principal_unknown", str(problem))
            raise Refused(DENIED, decision.text) from None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("an exchange broke off: %r", problem)

    # -- requests ---------------------------------------------------------------------------------

    async def begin(self, message: Message, headers: Mapping[str, str]) -> Exchange:
        """Starts to serve a request.

        Raises:
            Refused: It cannot be told from another one, or there are too many.
        """
        if len(self._running) >= MAX_UNDER_WAY:
            raise Refused(INVALID_REQUEST, "too many requests are under way")
        if not self.stateless and message.key in self._pending:
            raise Refused(INVALID_REQUEST, "a request with this id is under way")
        exchange = Exchange(message, headers)
        if not self.stateless:
            self._pending[message.key] = exchange
        try:
            with await self.home():
                exchange.task = self._spawn(self._serve(exchange))
        except Refused:
            self._pending.pop(message.key, None)
            raise
        return exchange

    async def _serve(self, exchange: Exchange) -> None:
        raw = b""
        try:
            raw = await self._reply(exchange)
            exchange.reply.set_result(raw)
            if exchange.streaming.done():
                await exchange.target.put(replace(exchange.event, data=raw))
                await exchange.out.put(None)
        finally:
            self._pending.pop(exchange.message.key, None)
            if exchange.target.gone and raw and self.own.id is not None:
                self._incoming.kept.keep(exchange.message.key, raw)
            exchange.over()

    async def _reply(self, exchange: Exchange) -> bytes:
        way, headers = Way(exchange), exchange.headers

        async def decided(message: Message, came: list[Message]) -> Wire:
            return await self._decided(way, message, headers, came)

        if self._asked is not None:
            return await self._asked.reply(exchange.message, decided, way)
        came: list[Message] = []
        return await answered(exchange.message, decided(exchange.message, came), came)

    async def _decided(
        self, way: Way, message: Message, headers: Mapping[str, str], came: list[Message]
    ) -> Wire:
        """Has a request decided, and answered by the server; see `Relay.ask`."""

        async def forward() -> Wire:
            exchange = way.exchange
            exchange.decided, exchange.headers = message, headers
            with tracing.sent(self.guard, sent) as going:
                exchange.raw = going.raw
                came.append(await self._exchange(exchange))
            return result_of(came[0])

        try:
            with tracing.received(self.guard, message, self.served.trace):
                await self._repeated(message, headers)
                sent = self.guard.outward(message)
                return await self.guard.request(
                    message.method,
                    message.params,
                    forward,
                    host_id=self._host_id(message),
                    loose=message.loose,
                )
        except Refused as no:
            way.exchange.status = _STATUS.get(no.code, 200) if self.stateless else 200
            raise

    async def _repeated(self, message: Message, headers: Mapping[str, str]) -> None:
        """Headers that repeat arguments repeat them as the tool's schema says.

        Raises:
            Refused: They do not.
        """
        if not any(name.startswith(PARAM) for name in headers):
            return
        try:
            offered = await self.guard.offered()
        except (Failed, TimeoutError, ValueError):
            return  # the guard refuses what it cannot verify
        wanted = message.params.get("name") if message.method == "tools/call" else None
        schemas = [tool.input_schema for tool in offered if tool.key.name == wanted]
        try:
            repeated(message.params.get("arguments", {}), [*schemas, {}][0], headers)
        except Refused as no:
            self.refused(message, no)
            raise

    def refused(self, message: Message, no: Refused) -> None:
        """Records a request that says one thing in its header and another in its body."""
        call = ToolCall(m.method_tool(self.served.name, "header"), {}, pep=self.guard.pep)
        self._gate.refuse(call, "not_canonical", f"{message.method}: {no.text}")

    def _host_id(self, message: Message) -> str:
        """Without a session nothing says that two requests with one id are one call."""
        if self.own.id is None:
            return ""
        return f"{self.own.label}:{type(message.id).__name__}:{message.id}"

    async def _exchange(self, exchange: Exchange) -> Message:
        """Sends a request to the server, and waits for its answer."""
        endless = exchange.message.method == ENDLESS
        try:
            async with asyncio.timeout(None if endless else self.served.seconds):
                return await self._ask(exchange)
        except TimeoutError:
            await self._give_up(exchange)
            raise Unanswered(SLOW) from None
        except asyncio.CancelledError:
            if exchange.pump is not None:
                exchange.pump.cancel()
            raise

    async def _ask(self, exchange: Exchange) -> Message:
        exchange.sent = True
        message = exchange.decided
        said = await self.served.upstream.post(exchange.raw, exchange.headers)
        exchange.status = said.status
        if message.method == "initialize":
            self.own.id = said.session
        if not said.streams:
            return read(message, said, await said.body())
        table = {message.key: exchange} if self.stateless else self._pending
        exchange.pump = self._spawn(self._incoming.read(said, exchange.out, table, exchange))
        exchange.begin()
        return await exchange.answer

    async def _give_up(self, exchange: Exchange) -> None:
        if exchange.pump is not None:
            exchange.pump.cancel()
        if not self.stateless:
            params = {"requestId": exchange.message.id, "reason": "timeout"}
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            await self.own.tell(write(told))

    # -- the rest ---------------------------------------------------------------------------------

    async def notified(self, message: Message, headers: Mapping[str, str]) -> int:
        """Takes a notification of the client.

        Returns:
            HTTP status.
        """
        with await self.home():
            if not self.guard.passes(message.method):
                return 202
            try:
                sent = self.guard.outward(message)
            except Refused:
                return 400
        if message.method == "notifications/cancelled" and self._cancelled(message):
            return 202
        with tracing.received(self.guard, message, self.served.trace):
            with tracing.sent(self.guard, sent) as going:
                said = await self.served.upstream.post(going.raw, headers)
        await said.close()
        return said.status

    def _cancelled(self, message: Message) -> bool:
        """Whether the request is still being decided, and goes no further."""
        wanted = message.params.get("requestId")
        found = self._pending.get((type(wanted).__name__, wanted)) if is_id(wanted) else None
        if found is None or found.sent or found.task is None:
            return False
        found.task.cancel()
        return True

    def client_answered(self, message: Message) -> bool:
        """Takes an answer of the client; `False` if nobody asked for it."""
        ours = self._asked is not None and self._asked.came(message)
        return ours or self._incoming.client_answered(message)

    async def listen(self, headers: Mapping[str, str]) -> tuple[int, Stream | None]:
        """Opens the stream of what the server says by itself, or goes on with a broken one.

        Raises:
            Bad: It would go on from an event that this session never had.
        """
        if LAST in headers:
            known = self._incoming.marks.take(headers[LAST])
            if known is None:
                raise Bad(400, "there is no such event in this session")
            headers = {**headers, LAST: known}
        said = await self.served.upstream.listen(headers)
        if not said.streams:
            await said.close()
            return said.status, None
        out = Stream()
        out.reader = self._spawn(self._incoming.read(said, out, self._pending))
        return 200, out

    @property
    def busy(self) -> bool:
        """Whether anything is under way: a request, a stream, a question."""
        return bool(self._running) or (self._asked is not None and self._asked.open > 0)

    async def end(self) -> None:
        """Ends everything under way."""
        if self._asked is not None:
            await self._asked.end()
        await self.own.leave()
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
