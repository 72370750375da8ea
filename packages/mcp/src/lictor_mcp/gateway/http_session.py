"""What one caller has under way with one server over HTTP, guarded.

Rules enforced here:

1. An answer goes to the exchange that asked for it, once: over the stream of its request, or over
   the one that the client resumed it with. Any other is dropped.
2. A client that goes takes its request along in the stateless protocol; in a session the request
   goes on, and its answer is kept for a while in case the client resumes.
3. Who reads too slowly is waited for, for a while; meanwhile the server waits too, and nothing
   piles up here.
4. A request has so long to be answered; then whether it ran is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from lictor.errors import TaskError
from lictor.gate import Gate
from lictor.model import Pep, ToolCall
from lictor_mcp import methods as m
from lictor_mcp.callers import Caller, Callers
from lictor_mcp.gateway.http_checks import MISMATCH, STATELESS, repeated
from lictor_mcp.gateway.http_upstream import (
    METHOD,
    PARAM,
    SESSION,
    VERSION,
    Answered,
    Event,
    Upstream,
)
from lictor_mcp.gateway.pending import GatewayGuard
from lictor_mcp.guard import Failed, Refused, Wire
from lictor_mcp.relay import (
    GONE,
    SECONDS,
    SLOW,
    UNREADABLE,
    Unanswered,
    Waiting,
    answered_back,
    failure,
    is_id,
    result_of,
)
from lictor_mcp.wire import (
    DENIED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Id,
    Malformed,
    Message,
    answer,
    error,
    parse,
    write,
)

Key: TypeAlias = tuple[str, Id | None]

ENDLESS: Final = "subscriptions/listen"
STALL_SECONDS: Final = 30.0
WAITING_EVENTS: Final = 64
KEPT: Final = 16
KEPT_BYTES: Final = 256 * 1024
MAX_UNDER_WAY: Final = 256
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
    """

    name: str
    upstream: Upstream
    identity: str = ""
    seconds: float = SECONDS
    ours: bool = False


class Stream:
    """Events on their way to a client."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(WAITING_EVENTS)
        self.gone = False
        self.reader: asyncio.Task[None] | None = None
        """Reads for nobody else: it ends when the client goes."""

    async def put(self, event: Event | None) -> None:
        """Takes an event, or the end; waits for a client that reads slowly."""
        if self.gone:
            return
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._waiting.put(event)
        except TimeoutError:
            self.gone = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.gone and (event := await self._waiting.get()) is not None:
            yield event.encode()
        self.gone = True

    def leave(self) -> None:
        """The client reads no more."""
        self.gone = True
        if self.reader is not None:
            self.reader.cancel()
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Exchange:
    """One request of the client, until it is answered.

    Attributes:
        message: The request.
        raw: It, as it goes to the server.
        reply: The answer for the client.
        streaming: Done when the server answers with a stream: events come in `out`.
        out: That stream; the reply comes in it too.
        status: HTTP status of the answer.
        task: Serves it.
    """

    def __init__(self, message: Message, headers: Mapping[str, str]) -> None:
        loop = asyncio.get_running_loop()
        self.message, self.headers, self.raw = message, headers, message.raw
        self.answer: asyncio.Future[Message] = loop.create_future()
        self.reply: asyncio.Future[bytes] = loop.create_future()
        self.streaming: asyncio.Future[None] = loop.create_future()
        self.emitted: asyncio.Future[None] = loop.create_future()
        self.out = self.target = Stream()
        self.event = Event()
        self.status = 200
        self.sent = False
        self.pump: asyncio.Task[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def lost(self, problem: str) -> None:
        """No answer will come."""
        if not self.answer.done():
            self.answer.set_exception(Unanswered(problem))
            self.answer.exception()  # who would have waited may be gone


class Session:
    """One caller's traffic with one server: a session of the protocol, or all without one.

    Args:
        gate: Who decides.
        served: The server.
        caller: Whose authority everything here is under.
        callers: Their tasks.
        stateless: It speaks the protocol without sessions.
    """

    def __init__(
        self, gate: Gate, served: Served, caller: Caller, callers: Callers, *, stateless: bool
    ) -> None:
        self.served, self.caller, self._callers, self._gate = served, caller, callers, gate
        self.stateless = stateless
        self.id: str | None = None
        self.version = STATELESS if stateless else ""
        self.guard = GatewayGuard(
            gate,
            served.name,
            identity=served.identity or served.upstream.url,
            pep=Pep("mcp_gateway", "gateway"),
            lister=self._list,
            ours=served.ours,
        )
        self._by_client = Waiting()
        self._pending: dict[Key, Exchange] = {}
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._label, self._count = secrets.token_hex(8), 0

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
            if exchange.target.gone and raw:
                self._keep(exchange.message.key, raw)
            exchange.reply.cancel()
            exchange.answer.cancel()
            if not exchange.emitted.done():
                exchange.emitted.set_result(None)

    def _keep(self, key: Key, raw: bytes) -> None:
        if self.id is None or len(raw) > KEPT_BYTES:
            return
        self._kept[key] = raw
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def _reply(self, exchange: Exchange) -> bytes:
        message, came = exchange.message, list[Message]()

        async def forward() -> Wire:
            came.append(await self._exchange(exchange))
            return result_of(came[0])

        try:
            await self._repeated(message, exchange.headers)
            exchange.raw = self.guard.outward(message).raw
            result = await self.guard.request(
                message.method,
                message.params,
                forward,
                host_id=self._host_id(message),
                loose=message.loose,
            )
        except Refused as no:
            exchange.status = _STATUS.get(no.code, 200) if self.stateless else 200
            return write(error(message.id, no.code, no.text, no.data))
        except Failed as failed:
            said = came and came[0].kind == "error"
            return came[0].raw if said else write(failure(message.id, failed))
        except Unanswered as lost:
            text = f"{lost} Whether the call ran is not known."
            return write(error(message.id, INTERNAL_ERROR, text))
        except Exception:
            _log.exception("a request could not be served")
            return write(error(message.id, INTERNAL_ERROR, "Internal error"))
        same = came and result is came[0].result
        return came[0].raw if same else write(answer(message.id, result))

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
        if self.id is None:
            return ""
        return f"{self._label}:{type(message.id).__name__}:{message.id}"

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
        message = exchange.message
        answered = await self.served.upstream.post(exchange.raw, exchange.headers)
        exchange.status = answered.status
        if message.method == "initialize":
            self.id = answered.session
        if not answered.streams:
            return _read(message, answered, await answered.body())
        table = {message.key: exchange} if self.stateless else self._pending
        exchange.pump = self._spawn(self._pump(answered, exchange.out, table, exchange))
        exchange.streaming.set_result(None)
        return await exchange.answer

    async def _give_up(self, exchange: Exchange) -> None:
        if exchange.pump is not None:
            exchange.pump.cancel()
        if not self.stateless:
            params = {"requestId": exchange.message.id, "reason": "timeout"}
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            await self._tell(write(told))

    # -- streams of the server --------------------------------------------------------------------

    async def _pump(
        self,
        answered: Answered,
        out: Stream,
        table: Mapping[Key, Exchange],
        exchange: Exchange | None = None,
    ) -> None:
        """Reads a stream of the server to its end."""
        resumable = False
        try:
            async for event in answered.events():
                resumable = resumable or event.id is not None
                await self._event(event, out, table)
        finally:
            await answered.close()
            if exchange is None:
                await out.put(None)
            elif not exchange.answer.done():
                if resumable and self.id is not None:
                    await out.put(None)  # the client goes on from its last event
                else:
                    exchange.lost(GONE)

    async def _event(self, event: Event, out: Stream, table: Mapping[Key, Exchange]) -> None:
        if not event.data:
            await out.put(event)
            return
        try:
            message = parse(event.data)
        except Malformed as bad:
            _log.warning("dropped a message of the server: it %s", bad.problem)
            lost = table.get((type(bad.id).__name__, bad.id))
            if lost is not None:
                lost.lost(UNREADABLE)
            return
        if message.kind in ("result", "error"):
            await self._answered(event, message, out, table)
        elif message.kind == "notification":
            if self.guard.told(message.method):
                await out.put(event)
        else:
            self._spawn(self._back(event, message, out))

    async def _answered(
        self, event: Event, message: Message, out: Stream, table: Mapping[Key, Exchange]
    ) -> None:
        exchange = table.get(message.key)
        if exchange is not None and not exchange.answer.done():
            exchange.event, exchange.target = event, out
            exchange.answer.set_result(message)
            await asyncio.shield(exchange.emitted)
            return
        if exchange is not None:
            await asyncio.shield(exchange.emitted)
        raw = self._kept.pop(message.key, None)
        if raw is not None:
            await out.put(replace(event, data=raw))
        else:
            _log.warning("dropped an answer of the server that nobody waits for")

    async def _back(self, event: Event, message: Message, out: Stream) -> None:
        """Has a request of the server decided, asked, and answered."""
        came: list[Message] = []

        async def forward() -> Wire:
            waiting = self._by_client.expect(message.key)
            try:
                await out.put(event)
                async with asyncio.timeout(self.served.seconds):
                    came.append(await waiting)
            except TimeoutError:
                raise Unanswered("The client did not answer in time.") from None
            finally:
                waiting.cancel()
            return result_of(came[0])

        try:
            with await self.home():
                raw = (await answered_back(self.guard, message, forward, came)).raw
        except Refused as no:
            raw = write(error(message.id, no.code, no.text, no.data))
        except Failed as failed:
            raw = write(failure(message.id, failed))
        except Unanswered as lost:
            raw = write(error(message.id, INTERNAL_ERROR, str(lost)))
        await self._tell(raw)

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
                raw = self.guard.outward(message).raw
            except Refused:
                return 400
        if message.method == "notifications/cancelled" and self._cancelled(message):
            return 202
        answered = await self.served.upstream.post(raw, headers)
        await answered.close()
        return answered.status

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
        return self._by_client.came(message)

    async def listen(self, headers: Mapping[str, str]) -> tuple[int, Stream | None]:
        """Opens the stream of what the server says by itself, or goes on with a broken one."""
        answered = await self.served.upstream.listen(headers)
        if not answered.streams:
            await answered.close()
            return answered.status, None
        out = Stream()
        out.reader = self._spawn(self._pump(answered, out, self._pending))
        return 200, out

    async def _tell(self, raw: bytes) -> None:
        """Sends the server something that has no answer."""
        with contextlib.suppress(Failed, Unanswered):
            answered = await self.served.upstream.post(raw, self._own())
            await answered.close()

    def _own(self, method: str = "") -> dict[str, str]:
        """Headers of what we send in our own name."""
        headers = {VERSION: self.version} if self.version else {}
        if self.stateless and method:
            headers[METHOD] = method
        if self.id is not None:
            headers[SESSION] = self.id
        return headers

    async def _list(self, method: str, params: Mapping[str, Any]) -> Wire:
        """Asks the server in our own name."""
        given = dict(params)
        if self.stateless:
            given["_meta"] = _META
        self._count += 1
        id = f"lictor-{self._label}-{self._count}"
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": given}
        message = parse(write(request))
        try:
            answered = await self.served.upstream.post(message.raw, self._own(method))
            if not answered.streams:
                return result_of(_read(message, answered, await answered.body()))
            return result_of(await self._first(answered, message))
        except Unanswered as lost:
            raise Failed({"code": INTERNAL_ERROR, "message": str(lost)}) from None

    async def _first(self, answered: Answered, asked: Message) -> Message:
        """Our answer out of a stream that nobody else reads."""
        try:
            async for event in answered.events():
                with contextlib.suppress(Malformed):
                    message = parse(event.data) if event.data else None
                    if message is None:
                        continue
                    if message.kind == "notification":
                        self.guard.told(message.method)
                    elif message.key == asked.key and not message.method:
                        return message
        finally:
            await answered.close()
        raise Unanswered(GONE)

    async def end(self) -> None:
        """Ends everything under way."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


_STATUS: Final = {METHOD_NOT_FOUND: 404, MISMATCH: 400}
_OURS: Final = version("lictor-mcp")
_META: Final[Wire] = {
    m.VERSION: STATELESS,
    "io.modelcontextprotocol/clientInfo": {
        "name": "lictor-gateway",
        "version": _OURS,
    },
    "io.modelcontextprotocol/clientCapabilities": {},
}


def _read(asked: Message, answered: Answered, raw: bytes) -> Message:
    """The answer in a body.

    Raises:
        Failed: There is none, and nothing ran.
        Unanswered: It cannot be used.
    """
    try:
        message = parse(raw)
    except Malformed:
        problem = f"The server answered with HTTP status {answered.status}."
        if 400 <= answered.status < 500:
            raise Failed({"code": INTERNAL_ERROR, "message": problem}) from None
        raise Unanswered(UNREADABLE if answered.status == 200 else problem) from None
    if message.kind == "error" and answered.status >= 400:
        return message
    if message.kind not in ("result", "error") or message.key != asked.key:
        raise Unanswered("The server answered something else.")
    return message
