"""Requests of a client over HTTP while they are served, and the streams that their events take.

Rules enforced here:

1. An answer goes to the exchange that asked for it, once.
2. Who reads too slowly is waited for, for a while; meanwhile the server waits too, and nothing
   piles up here.
3. Of answers that a client missed a few are kept, in case it comes back.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from lictor_mcp.gateway.http_upstream import Event
from lictor_mcp.waiting import Unanswered
from lictor_mcp.wire import Id, Message

Key: TypeAlias = tuple[str, Id | None]

STALL_SECONDS: Final = 30.0
WAITING_EVENTS: Final = 64
WAITING_BYTES: Final = 256 * 1024
"""One message may be larger; then nothing waits beside it."""
KEPT: Final = 16
KEPT_BYTES: Final = 256 * 1024


class Stream:
    """Events on their way to a client."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(WAITING_EVENTS)
        self._size, self._room = 0, asyncio.Event()
        self.gone = False
        self.reader: asyncio.Task[None] | None = None
        """Reads for nobody else: it ends when the client goes."""

    async def put(self, event: Event | None) -> None:
        """Takes an event, or the end; waits for a client that reads slowly."""
        if self.gone:
            return
        size = 0 if event is None else len(event.data)
        try:
            async with asyncio.timeout(STALL_SECONDS):
                while self._size and self._size + size > WAITING_BYTES and not self.gone:
                    self._room.clear()
                    await self._room.wait()
                self._size += size
                await self._waiting.put(event)
        except TimeoutError:
            self.gone = True

    def end(self) -> None:
        """Nothing more comes; nobody is waited for."""
        if self._waiting.full():
            self.gone = True
        else:
            self._waiting.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.gone and (event := await self._waiting.get()) is not None:
            self._size -= len(event.data)
            self._room.set()
            yield event.encode()
        self.gone = True

    def leave(self) -> None:
        """The client reads no more."""
        self.gone = True
        self._room.set()
        if self.reader is not None:
            self.reader.cancel()
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Exchange:
    """One request of the client, until it is answered.

    Attributes:
        message: The request.
        decided: It, or the one that was decided and that it repeats.
        raw: It, as it goes to the server.
        reply: The answer for the client.
        streaming: Done when the server answers with a stream: events come in `out`.
        out: That stream; the reply comes in it too.
        status: HTTP status of the answer.
        task: Serves it.
    """

    def __init__(self, message: Message, headers: Mapping[str, str]) -> None:
        loop = asyncio.get_running_loop()
        self.message = self.decided = message
        self.headers, self.raw = headers, message.raw
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

    def begin(self) -> None:
        """From now on what the client hears of the request comes as a stream."""
        if not self.streaming.done():
            self.streaming.set_result(None)

    def lost(self, problem: str) -> None:
        """No answer will come."""
        if not self.answer.done():
            self.answer.set_exception(Unanswered(problem))
            self.answer.exception()  # who would have waited may be gone

    def over(self) -> None:
        """Nobody waits for anything of it any more."""
        if not self.reply.done() and self.streaming.done():
            self.out.end()
        self.reply.cancel()
        self.answer.cancel()
        if not self.emitted.done():
            self.emitted.set_result(None)


@dataclass(slots=True, eq=False)
class Way:
    """How a client hears of a request that is decided: what it repeats goes on under the repeat.

    Attributes:
        exchange: The client's request now.
    """

    exchange: Exchange

    async def say(self, raw: bytes) -> None:
        """Sends the client a request of ours, on the stream of its own.

        Raises:
            ConnectionError: It reads no more.
        """
        out = self.exchange.out
        self.exchange.begin()
        await out.put(Event(raw))
        if out.gone:
            raise ConnectionError("the client reads no more")

    def turn(self, way: Way) -> None:
        """Goes on under another request."""
        self.exchange = way.exchange


class Marks:
    """Ids of events as the client gets them: sealed, so that no other session's are taken."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def put(self, id: str) -> str:
        """The id that the client gets."""
        return f"{self._seal(id)}.{id}"

    def take(self, mark: str) -> str | None:
        """The server's id; `None` if this session never had it."""
        seal, _, id = mark.partition(".")
        return id if hmac.compare_digest(seal, self._seal(id)) else None

    def _seal(self, id: str) -> str:
        return hmac.digest(self._key, id.encode(), "sha256").hex()[:32]


class Kept:
    """Answers that a client has missed: the last few, none of them large."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Key, bytes] = OrderedDict()

    def keep(self, key: Key, raw: bytes) -> None:
        """Keeps an answer."""
        if len(raw) > KEPT_BYTES:
            return
        self._answers[key] = raw
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)

    def take(self, key: Key) -> bytes | None:
        """Gives it back, once."""
        return self._answers.pop(key, None)
