"""The streams of a server behind the HTTP gateway: each message goes to whom it is for, or nowhere.

Rules enforced here:

1. An answer goes over the stream of its request, or over the one that the client resumed it with;
   one that nobody waits for is dropped.
2. What a server asks of its client is decided before the client hears of it.
3. Where a client goes on is a place in its own session: an id of another one replays nothing.
4. So many requests of a server are under way at once; what it floods us with waits at its side.
5. A stream that ends without the answer leaves its request open only if the client can resume it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from lictor_mcp.gateway.http_exchange import Exchange, Kept, Key, Marks, Stream
from lictor_mcp.gateway.http_own import Own
from lictor_mcp.gateway.http_upstream import Answered, Event
from lictor_mcp.guard import Failed, Guard, Refused, Wire
from lictor_mcp.waiting import (
    GONE,
    UNREADABLE,
    Unanswered,
    Waiting,
    answered_back,
    failure,
    result_of,
)
from lictor_mcp.wire import INTERNAL_ERROR, INVALID_REQUEST, Malformed, Message, error, parse, write

MAX_BACKS: Final = 64
_log: Final = logging.getLogger("lictor.mcp")


class Incoming:
    """What comes from the server in one session.

    Args:
        guard: Decides.
        own: Answers the server.
        home: The caller's task, to be made current.
        spawn: Runs something for as long as the session lives.
        seconds: How long the client has for an answer.

    Attributes:
        kept: Answers that the client has missed.
        marks: Where in its streams it may go on.
    """

    def __init__(
        self,
        guard: Guard,
        own: Own,
        *,
        home: Callable[[], Awaitable[AbstractContextManager[None]]],
        spawn: Callable[..., asyncio.Task[None]],
        seconds: float,
    ) -> None:
        self._guard, self._own, self._home = guard, own, home
        self._spawn, self._seconds = spawn, seconds
        self._by_client = Waiting()
        self.kept, self.marks = Kept(), Marks()
        self._backs: set[asyncio.Task[None]] = set()

    def client_answered(self, message: Message) -> bool:
        """Takes an answer of the client; `False` if the server has not asked for it."""
        return self._by_client.came(message)

    async def read(
        self,
        answered: Answered,
        out: Stream,
        table: Mapping[Key, Exchange],
        exchange: Exchange | None = None,
    ) -> None:
        """Reads a stream of the server to its end.

        Args:
            answered: Holds it.
            out: Where its events go.
            table: Requests that it may answer.
            exchange: The request that it is the answer to, if it is.
        """
        resumable = False
        try:
            async for event in answered.events():
                if event.id is not None:
                    resumable, event = True, replace(event, id=self.marks.put(event.id))
                await self._event(event, out, table)
        finally:
            await answered.close()
            if exchange is None:
                await out.put(None)
            elif not exchange.answer.done():
                if resumable and self._own.id is not None:
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
        event = replace(event, data=message.raw)
        if message.kind in ("result", "error"):
            await self._answered(event, message, out, table)
        elif message.kind == "notification":
            await self._noted(event, message, out)
        elif len(self._backs) >= MAX_BACKS:
            text = "too many requests are under way"
            await self._own.tell(write(error(message.id, INVALID_REQUEST, text)))
        else:
            back = self._spawn(self._back(event, message, out))
            self._backs.add(back)
            back.add_done_callback(self._backs.discard)

    async def _noted(self, event: Event, message: Message, out: Stream) -> None:
        """Takes a notification of the server."""
        params = message.params
        try:
            with await self._home():
                kept = await self._guard.heard(message.method, params)
        except Refused:
            return
        if kept is params:
            await out.put(event)
        elif kept is not None:
            raw = write({**message.value, "params": kept})
            await out.put(replace(event, data=raw))

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
        raw = self.kept.take(message.key)
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
                async with asyncio.timeout(self._seconds):
                    came.append(await waiting)
            except TimeoutError:
                raise Unanswered("The client did not answer in time.") from None
            finally:
                waiting.cancel()
            return result_of(came[0])

        try:
            with await self._home():
                raw = (await answered_back(self._guard, message, forward, came)).raw
        except Refused as no:
            raw = write(error(message.id, no.code, no.text, no.data))
        except Failed as failed:
            raw = write(failure(message.id, failed))
        except Unanswered as lost:
            raw = write(error(message.id, INTERNAL_ERROR, str(lost)))
        await self._own.tell(raw)
