"""Two byte streams and a guard between them: what is not decided is not forwarded.

Rules enforced here:

1. One reading for the gate and for forwarding: the bytes that were read are the bytes that go on,
   unless the guard changed what they say.
2. An answer goes to whoever asked, once; one that nobody waits for, or with an id of another type,
   is dropped. Our own requests have ids that no client can have.
3. A request under way blocks its id. So many are under way at once and the others wait; what waits
   has a bound. Answers and notifications never stand in that line: nothing waits for itself.
4. Nobody waits for ever: a server that does not answer in time, that ends, or whose answer cannot
   be read has not answered, and whether such a call ran is recorded as unknown.
5. When one side ends, everybody who waits is told, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from lictor_mcp import tracing
from lictor_mcp.guard import Failed, Guard, Refused
from lictor_mcp.methods import PROTOCOL
from lictor_mcp.notes import Told
from lictor_mcp.waiting import (
    GONE,
    MAX_UNDER_WAY,
    UNREADABLE,
    Send,
    Unanswered,
    UnderWay,
    Waiting,
    Wire,
    answered,
    answered_back,
    failure,
    log_failed,
    result_of,
)
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    Malformed,
    Message,
    error,
    parse,
    write,
)

_OURS: Final = "lictor-"
_log: Final = logging.getLogger("lictor.mcp")
BACK_SECONDS: Final = 30.0
"""How long a request waits for a server that is being started again."""
SECONDS: Final = 600.0
SLOW: Final = "The server did not answer in time."
CLIENT: Final = f"{PROTOCOL}clientInfo"


class Asking(Protocol):
    """Asks the person at the client what a request needs."""

    def came(self, message: Message) -> bool:
        """Takes an answer of the client, if it is to a question of ours."""
        ...

    async def reply(
        self, message: Message, ask: Callable[[Message, list[Message]], Awaitable[Wire]]
    ) -> bytes:
        """Has a request decided and answered, with what has to be asked meanwhile."""
        ...


class Relay:
    """A client on one side, a server on the other.

    Args:
        to_client: Sends bytes of one message to the client.
        to_server: Sends bytes of one message to the server; raises `Failed` if it is not there.
        label: Names the connection in ids that calls share over repeats.
        seconds: How long the server has for an answer.
        alias: What stands before the ids of its requests at the client, where several servers
            could choose the same; empty: they keep their ids.
        trace: What becomes of a trace that the client names.
    """

    def __init__(
        self,
        to_client: Send,
        to_server: Send,
        *,
        label: str = "",
        seconds: float = SECONDS,
        alias: str = "",
        trace: tracing.Trace = "continue",
    ) -> None:
        self._to_client, self._to_server, self._trace = to_client, to_server, trace
        self._label = label or secrets.token_hex(8)
        self._seconds, self._alias = seconds, alias
        self._nonce, self._count = f"{_OURS}{secrets.token_hex(8)}-", 0
        self._meta: dict[str, Any] = {}
        self._hello: Wire | None = None
        self._greeted = False
        self.guard: Guard | None = None
        self.up = asyncio.Event()
        self.up.set()
        self.anew: Callable[[], Awaitable[None]] | None = None
        """Starts the server again, as nobody has spoken to it; where that can be done."""
        self._by_server, self._by_client = Waiting(), Waiting()
        self.met: Callable[[Wire], Awaitable[None]] | None = None
        self.asking: Asking | None = None
        self._under_way = UnderWay(self.reply, to_client)
        self._backs: set[asyncio.Task[None]] = set()
        self._changes = Told()

    # -- from the client --------------------------------------------------------------------------

    async def from_client(self, raw: bytes) -> None:
        """Takes one message of the client; comes back when it may send the next."""
        try:
            message = parse(raw)
        except Malformed as bad:
            await self._to_client(write(error(bad.id, bad.code, f"The message {bad.problem}.")))
            return
        if message.kind in ("result", "error"):
            if not self.client_answered(message):
                _log.warning("dropped an answer of the client that nobody waits for")
        elif message.kind == "notification":
            await self.notified(message)
        else:
            await self._under_way.begin(message)

    def client_answered(self, message: Message) -> bool:
        """Takes an answer of the client; `False` if nobody here has asked for it."""
        ours = self.asking is not None and self.asking.came(message)
        return ours or self._by_client.came(message)

    async def notified(self, message: Message) -> None:
        """Takes a notification of the client; a server that is not there does not miss it."""
        if not self._guarded.passes(message.method):
            return
        if message.method == "notifications/cancelled":
            self._under_way.cancel(message)
        self._greeted = self._greeted or message.method == "notifications/initialized"
        if self.up.is_set():
            with contextlib.suppress(Failed, Refused):
                await self._tell_server(message)

    async def _tell_server(self, message: Message) -> None:
        with tracing.received(self._guarded, message, self._trace):
            with tracing.sent(self._guarded, self._guarded.outward(message)) as going:
                await self._to_server(going.raw)

    async def reply(self, message: Message) -> bytes:
        """Has one request decided and answered.

        Returns:
            The answer: as the server wrote it, where nothing was changed.
        """
        if self.asking is not None:
            return await self.asking.reply(message, self.ask)
        came: list[Message] = []
        return await answered(message, self.ask(message, came), came)

    async def ask(self, message: Message, came: list[Message] | None = None) -> Wire:
        """Has one request decided, and answered by the server.

        Args:
            message: The request, as it goes to the server.
            came: Gets the answer as it came.

        Raises:
            Refused: It is answered with an error of ours.
            Failed: The server answered with an error.
            Unanswered: It did not answer.
        """
        sent = self._guarded.outward(message)
        await self._note(sent)
        self._changes.asked(message.method)

        async def forward() -> Wire:
            await self._wait_up()
            found = await self._exchange(sent)
            if came is not None:
                came.append(found)
            return result_of(found)

        with tracing.received(self._guarded, message, self._trace):
            return await self._guarded.request(
                message.method,
                message.params,
                forward,
                host_id=f"{self._label}:{type(message.id).__name__}:{message.id}",
                loose=message.loose,
            )

    async def _exchange(self, message: Message) -> Message:
        """Sends a request to the server, and waits for its answer."""
        waiting = self._by_server.expect(message.key)
        try:
            with tracing.sent(self._guarded, message) as going:
                await self._to_server(going.raw)
                async with asyncio.timeout(self._seconds):
                    return await waiting
        except TimeoutError:
            await self._give_up(message)
            raise Unanswered(SLOW) from None
        finally:
            waiting.cancel()

    async def _give_up(self, message: Message) -> None:
        params = {"requestId": message.id, "reason": "timeout"}
        told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        with contextlib.suppress(Failed):
            await self._to_server(write(told))

    async def _wait_up(self) -> None:
        if self.up.is_set():
            return
        try:
            async with asyncio.timeout(BACK_SECONDS):
                await self.up.wait()
        except TimeoutError:
            problem = {"code": INTERNAL_ERROR, "message": "The server is not there."}
            raise Failed(problem, ours=True) from None

    # -- from the server --------------------------------------------------------------------------

    async def from_server(self, raw: bytes) -> None:
        """Takes one message of the server."""
        try:
            message = parse(raw)
        except Malformed as bad:
            _log.warning("dropped a message of the server: it %s", bad.problem)
            if bad.id is not None:
                self._by_server.lost((type(bad.id).__name__, bad.id), UNREADABLE)
            return
        if message.kind in ("result", "error"):
            if not self._by_server.came(message):
                _log.warning("dropped an answer of the server that nobody waits for")
        elif message.kind == "notification":
            await self._noted(message)
        elif len(self._backs) >= MAX_UNDER_WAY:
            with contextlib.suppress(Failed):
                text = "too many requests are under way"
                await self._to_server(write(error(message.id, INVALID_REQUEST, text)))
        else:
            task = asyncio.create_task(self._serve_back(message))
            self._backs.add(task)

            def done(ended: asyncio.Task[None]) -> None:
                self._backs.discard(ended)
                log_failed(ended)

            task.add_done_callback(done)

    async def _noted(self, message: Message) -> None:
        """Takes a notification of the server."""
        params = message.params
        kept = await self._guarded.heard(message.method, params)
        if kept is None or self._changes.again(message.method, kept):
            return
        same = kept is params
        await self._to_client(message.raw if same else write({**message.value, "params": kept}))

    async def _serve_back(self, message: Message) -> None:
        came: list[Message] = []
        asked = message
        if self._alias:
            self._count += 1
            alias = f"{_OURS}{self._alias}-{self._count}"
            asked = parse(write({**message.value, "id": alias}))

        async def forward() -> Wire:
            waiting = self._by_client.expect(asked.key)
            try:
                await self._to_client(asked.raw)
                came.append(await waiting)
            finally:
                waiting.cancel()
            return result_of(came[0])

        raw = await self._answer_back(message, forward, came)
        with contextlib.suppress(Failed):
            await self._to_server(raw)

    async def _answer_back(
        self, message: Message, forward: Callable[[], Awaitable[Wire]], came: list[Message]
    ) -> bytes:
        try:
            sent = await answered_back(self._guarded, message, forward, came)
        except Refused as no:
            return write(error(message.id, no.code, no.text, no.data))
        except Failed as failed:
            return write(failure(message.id, failed))
        except Unanswered as lost:
            return write(error(message.id, INTERNAL_ERROR, str(lost)))
        return write({**sent.value, "id": message.id}) if self._alias else sent.raw

    # -- in our own name --------------------------------------------------------------------------

    async def ask_server(self, method: str, params: Wire) -> Wire:
        """Asks the server something in our own name.

        Raises:
            Failed: It answered with an error, or not at all.
        """
        await self._wait_up()
        return await self._ask(method, {**params, "_meta": self._meta} if self._meta else params)

    async def _ask(self, method: str, params: Wire) -> Wire:
        self._count += 1
        id = f"{self._nonce}{self._count}"
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params)}
        try:
            return result_of(await self._exchange(parse(write(request))))
        except Unanswered as lost:
            raise Failed({"code": INTERNAL_ERROR, "message": str(lost)}, ours=True) from None

    async def greet(self) -> None:
        """Greets a server that was started again as the client greeted the first.

        Its answer is for nobody: the client goes on with the connection that it has.

        Raises:
            Failed: It does not take it.
        """
        if self._hello is None:
            return
        await self._ask("initialize", self._hello)
        if self._greeted:
            note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            await self._to_server(write(note))

    async def _note(self, message: Message) -> None:
        """What we must say as well: the greeting of the one protocol, the version of the other.

        Args:
            message: As it goes to the server: it is said again when that is started again.
        """
        client: object = None
        meta = message.params.get("_meta")
        if message.method == "initialize":
            self._hello, self._meta = message.params, {}
            client = message.params.get("clientInfo")
        elif isinstance(meta, dict):
            found = {name: value for name, value in meta.items() if name.startswith(PROTOCOL)}
            self._meta = found or self._meta
            client = found.get(CLIENT)
        if self.met is not None and isinstance(client, dict):
            await self.met(client)

    @property
    def _guarded(self) -> Guard:
        if self.guard is None:
            raise RuntimeError("the relay has no guard yet")
        return self.guard

    # -- end --------------------------------------------------------------------------------------

    def unreadable(self) -> None:
        """The server wrote what cannot be read: nobody can say whose answer it was."""
        self._by_server.end(UNREADABLE)

    def server_gone(self) -> None:
        """Tells everybody who waits that the server is gone; another one may come."""
        self._by_server.end(GONE)
        for back in self._backs:
            back.cancel()
        if self.guard is not None:
            self.guard.changed()

    async def drain(self, seconds: float) -> None:
        """Gives what is under way so long to be answered."""
        await self._under_way.drain(seconds)

    async def end(self) -> None:
        """Ends everything under way."""
        self._by_server.end(GONE)
        self._by_client.end("The client is gone.")
        backs = [*self._backs]
        for task in backs:
            task.cancel()
        await asyncio.gather(self._under_way.end(), *backs, return_exceptions=True)
