"""What waits: requests that are served, and requests that were sent and are not answered yet.

Rules enforced here:

1. An answer goes to whoever waits for it, once; its id is matched with its type.
2. A request under way blocks its id. So many are under way at once and the others wait; what waits
   has a bound.
3. What comes of a request is one answer, in the words of the server where nothing was changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from lictor_mcp.guard import Failed, Guard, Refused
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    Id,
    Message,
    answer,
    error,
    write,
)

Send: TypeAlias = Callable[[bytes], Awaitable[None]]
Key: TypeAlias = tuple[str, Id | None]
Wire: TypeAlias = Mapping[str, Any]
MAX_UNDER_WAY: Final = 256
MAX_WAITING: Final = 32 * 1024 * 1024
"""Bytes of requests that are under way or wait for their turn."""
MAX_LATE: Final = 10_000
GONE: Final = "The server ended before it answered."
UNREADABLE: Final = "The server's answer cannot be read."
_OURS: Final = "lictor-"
_log: Final = logging.getLogger("lictor.mcp")


class Unanswered(BaseException):
    """A request went out and nothing that can be used came back: whether it ran is not known.

    No `Exception`: the gate records the outcome of a body that raises one as `failed`.
    """


class Waiting:
    """Requests that one side has been sent and has not answered yet.

    An id stays taken also after nobody waits any more: the late answer to a request that was taken
    back would come back as that to the next.
    """

    def __init__(self) -> None:
        self._open: dict[Key, asyncio.Future[Message]] = {}
        self._late: dict[Key, None] = {}

    def expect(self, key: Key) -> asyncio.Future[Message]:
        """The answer to come.

        Raises:
            Refused: A request with this id is under way already.
        """
        if key in self._open or key in self._late:
            raise Refused(INVALID_REQUEST, "a request with this id is under way")
        found = self._open[key] = asyncio.get_running_loop().create_future()
        found.add_done_callback(lambda ended: self._done(key, ended))
        return found

    def _done(self, key: Key, ended: asyncio.Future[Message]) -> None:
        self._open.pop(key, None)
        if ended.cancelled():
            self._late[key] = None
            if len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]

    def came(self, message: Message) -> bool:
        """Hands an answer to whoever waits for it; `False` if nobody does."""
        self._late.pop(message.key, None)
        found = self._open.get(message.key)
        if found is None or found.done():
            return False
        found.set_result(message)
        return True

    def lost(self, key: Key, problem: str) -> None:
        """Tells who waits for this answer that it cannot be used."""
        found = self._open.get(key)
        if found is not None and not found.done():
            found.set_exception(Unanswered(problem))

    def end(self, problem: str) -> None:
        """Tells everybody that nothing will come."""
        self._late.clear()
        for key in tuple(self._open):
            self.lost(key, problem)


class UnderWay:
    """Requests of one client that are being served.

    Args:
        reply: Gives the answer to a request, as bytes.
        send: Sends them.
    """

    def __init__(self, reply: Callable[[Message], Awaitable[bytes]], send: Send) -> None:
        self._reply, self._send = reply, send
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._waiting = 0

    async def begin(self, message: Message) -> None:
        """Has a request served, if there is room and its id is free."""
        problem = ""
        if message.key in self._tasks:
            problem = "a request with this id is under way"
        elif str(message.id).startswith(_OURS):
            problem = "this id is taken"
        elif self._waiting + len(message.raw) > MAX_WAITING:
            problem = "too many requests are under way"
        if problem:
            await self._send(write(error(message.id, INVALID_REQUEST, problem)))
            return
        size = len(message.raw)
        task = asyncio.create_task(self._serve(message))
        self._tasks[message.key] = task
        self._waiting += size

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.pop(message.key, None)
            self._waiting -= size
            log_failed(ended)

        task.add_done_callback(done)

    async def _serve(self, message: Message) -> None:
        async with self._room:
            raw = await self._reply(message)
        await self._send(raw)

    def cancel(self, message: Message) -> None:
        """A request that the client takes back goes no further."""
        wanted = message.params.get("requestId")
        found = self._tasks.get((type(wanted).__name__, wanted)) if is_id(wanted) else None
        if found is not None:
            found.cancel()

    async def drain(self, seconds: float) -> None:
        """Gives what is under way so long to be answered."""
        if self._tasks:
            await asyncio.wait([*self._tasks.values()], timeout=seconds)

    async def end(self) -> None:
        """Ends it all."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answered(message: Message, asked: Awaitable[Wire], came: list[Message]) -> bytes:
    """The answer to a request as bytes, whatever comes of it.

    Args:
        message: The request.
        asked: Its result.
        came: The answer of the server, if it passes as it came.
    """
    try:
        result = await asked
    except Refused as no:
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


async def answered_back(
    guard: Guard, message: Message, forward: Callable[[], Awaitable[Wire]], came: list[Message]
) -> Message:
    """The client's answer to a request of the server, as it goes there; an error passes too.

    Args:
        guard: Decides it.
        message: The request.
        forward: Asks the client.
        came: Gets the answer as it came.

    Raises:
        Refused: It may not ask, or not be told that.
        Failed: The client could not be asked.
        Unanswered: It did not answer.
    """
    try:
        await guard.back(message.method, message.params, forward)
    except Failed:
        if not came or came[0].kind != "error":
            raise
    return guard.outward(came[0])


def log_failed(ended: asyncio.Task[None]) -> None:
    """What went wrong while nobody waited is at least said."""
    if ended.cancelled():
        return
    problem = ended.exception()
    if problem is not None and not isinstance(problem, ConnectionError | Failed):
        _log.error("a request could not be served: %r", problem)


def result_of(message: Message) -> Wire:
    """The result of an answer.

    Raises:
        Failed: It is an error, or no result of MCP.
    """
    if message.kind == "error":
        raise Failed(message.value["error"])
    if not isinstance(message.result, dict):
        raise Failed({"code": INTERNAL_ERROR, "message": "The server's result is no object."})
    found: Wire = message.result
    return found


def failure(to: Id | None, failed: Failed) -> dict[str, Any]:
    """The error answer that tells of it."""
    code, text = failed.error.get("code"), failed.error.get("message")
    return error(to, int(code) if type(code) is int else INTERNAL_ERROR, str(text))


def is_id(value: object) -> bool:
    """Whether it can be the id of a request."""
    return type(value) in (int, str)
