"""Two byte streams and a guard between them: what is not decided is not forwarded.

Rules enforced here:

1. One reading for the gate and for forwarding: the bytes that were read are the bytes that go on,
   unless the guard changed what they say.
2. An answer goes to whoever asked, once; one that nobody waits for, or with an id of another type,
   is dropped. Our own requests have ids that no client can have.
3. A request under way blocks its id; too many under way stop the reading.
4. When one side ends, everybody who waits is told, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from lictor_mcp.guard import Failed, Guard, Refused
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    Id,
    Malformed,
    Message,
    answer,
    error,
    parse,
    write,
)

Send: TypeAlias = Callable[[bytes], Awaitable[None]]
Key: TypeAlias = tuple[str, Id | None]
Wire: TypeAlias = Mapping[str, Any]

MAX_UNDER_WAY: Final = 256
GONE: Final = "The server is not there."
PROTOCOL: Final = "io.modelcontextprotocol/"
_OURS: Final = "lictor-"
_log: Final = logging.getLogger("lictor.mcp")


class Waiting:
    """Requests that one side has been sent and has not answered yet."""

    def __init__(self) -> None:
        self._open: dict[Key, asyncio.Future[Message]] = {}

    def expect(self, key: Key) -> asyncio.Future[Message]:
        """The answer to come.

        Raises:
            Refused: A request with this id is under way already.
        """
        if key in self._open:
            raise Refused(INVALID_REQUEST, "a request with this id is under way")
        found = self._open[key] = asyncio.get_running_loop().create_future()
        found.add_done_callback(lambda _: self._open.pop(key, None))
        return found

    def came(self, message: Message) -> bool:
        """Hands an answer to whoever waits for it; `False` if nobody does."""
        found = self._open.get(message.key)
        if found is None or found.done():
            return False
        found.set_result(message)
        return True

    def end(self, problem: str) -> None:
        """Tells everybody that nothing will come."""
        for found in tuple(self._open.values()):
            if not found.done():
                found.set_exception(Failed({"code": INTERNAL_ERROR, "message": problem}))


class Relay:
    """A client on one side, a server on the other.

    Args:
        to_client: Sends bytes of one message to the client.
        to_server: Sends bytes of one message to the server.
        label: Names the connection in ids that calls share over repeats.
    """

    def __init__(self, to_client: Send, to_server: Send, *, label: str = "") -> None:
        self._to_client, self._to_server = to_client, to_server
        self._label = label or secrets.token_hex(8)
        self._nonce, self._count = f"{_OURS}{secrets.token_hex(8)}-", 0
        self._meta: dict[str, Any] = {}
        self.guard: Guard | None = None
        self._by_server, self._by_client = Waiting(), Waiting()
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._backs: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)

    # -- from the client --------------------------------------------------------------------------

    async def from_client(self, raw: bytes) -> None:
        """Takes one message of the client; comes back when there is room for the next."""
        try:
            message = parse(raw)
        except Malformed as bad:
            await self._to_client(write(error(bad.id, bad.code, f"The message {bad.problem}.")))
            return
        if message.kind in ("result", "error"):
            if not self._by_client.came(message):
                _log.warning("dropped an answer of the client that nobody waits for")
        elif message.kind == "notification":
            await self._notified(message)
        else:
            await self._begin(message)

    async def _notified(self, message: Message) -> None:
        if not self._guarded.passes(message.method):
            return
        if message.method == "notifications/cancelled":
            self._cancel(message)
        await self._to_server(message.raw)

    def _cancel(self, message: Message) -> None:
        """A request that is still being decided goes no further."""
        wanted = message.params.get("requestId")
        found = self._tasks.get((type(wanted).__name__, wanted)) if _is_id(wanted) else None
        if found is not None:
            found.cancel()

    async def _begin(self, message: Message) -> None:
        taken = message.key in self._tasks
        if taken or str(message.id).startswith(_OURS):
            problem = "a request with this id is under way" if taken else "this id is taken"
            await self._to_client(write(error(message.id, INVALID_REQUEST, problem)))
            return
        await self._room.acquire()
        task = asyncio.create_task(self._serve(message))
        self._tasks[message.key] = task

        def done(_: object) -> None:
            self._tasks.pop(message.key, None)
            self._room.release()

        task.add_done_callback(done)

    async def _serve(self, message: Message) -> None:
        came: list[Message] = []
        self._note(message.params.get("_meta"))

        async def forward() -> Wire:
            waiting = self._by_server.expect(message.key)
            await self._to_server(message.raw)
            came.append(await waiting)
            return _result(came[0])

        try:
            result = await self._guarded.request(
                message.method,
                message.params,
                forward,
                host_id=f"{self._label}:{type(message.id).__name__}:{message.id}",
                loose=message.loose,
            )
            same = came and result is came[0].result
            await self._to_client(came[0].raw if same else write(answer(message.id, result)))
        except Refused as no:
            await self._to_client(write(error(message.id, no.code, no.text, no.data)))
        except Failed as failed:
            sent = came[0].raw if came else write(_failure(message.id, failed))
            await self._to_client(sent)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _log.exception("a request could not be served")
            await self._to_client(write(error(message.id, INTERNAL_ERROR, "Internal error")))

    # -- from the server --------------------------------------------------------------------------

    async def from_server(self, raw: bytes) -> None:
        """Takes one message of the server."""
        try:
            message = parse(raw)
        except Malformed as bad:
            _log.warning("dropped a message of the server: it %s", bad.problem)
            if bad.id is not None:
                self._by_server.came(_broken(bad))
            return
        if message.kind in ("result", "error"):
            if not self._by_server.came(message):
                _log.warning("dropped an answer of the server that nobody waits for")
        elif message.kind == "notification":
            if self._guarded.told(message.method):
                await self._to_client(message.raw)
        else:
            await self._room.acquire()
            task = asyncio.create_task(self._serve_back(message))
            self._backs.add(task)

            def done(ended: asyncio.Task[None]) -> None:
                self._backs.discard(ended)
                self._room.release()

            task.add_done_callback(done)

    async def _serve_back(self, message: Message) -> None:
        came: list[Message] = []

        async def forward() -> Wire:
            waiting = self._by_client.expect(message.key)
            await self._to_client(message.raw)
            came.append(await waiting)
            return _result(came[0])

        try:
            await self._guarded.back(message.method, message.params, forward)
            await self._to_server(came[0].raw)
        except Refused as no:
            await self._to_server(write(error(message.id, no.code, no.text, no.data)))
        except Failed as failed:
            await self._to_server(came[0].raw if came else write(_failure(message.id, failed)))

    # -- in our own name --------------------------------------------------------------------------

    async def ask_server(self, method: str, params: Wire) -> Wire:
        """Asks the server something in our own name.

        Raises:
            Failed: It answered with an error, or is gone.
        """
        self._count += 1
        request = {"jsonrpc": "2.0", "id": f"{self._nonce}{self._count}", "method": method}
        given = {**params, "_meta": self._meta} if self._meta else dict(params)
        message = parse(write({**request, "params": given}))
        waiting = self._by_server.expect(message.key)
        try:
            await self._to_server(message.raw)
            return _result(await waiting)
        finally:
            waiting.cancel()

    def _note(self, meta: object) -> None:
        """The stateless protocol says with every request which version it speaks; so must we."""
        if isinstance(meta, dict):
            found = {name: value for name, value in meta.items() if name.startswith(PROTOCOL)}
            self._meta = found or self._meta

    @property
    def _guarded(self) -> Guard:
        if self.guard is None:
            raise RuntimeError("the relay has no guard yet")
        return self.guard

    # -- end --------------------------------------------------------------------------------------

    def server_gone(self) -> None:
        """Tells everybody who waits that the server is gone; another one may come."""
        self._by_server.end(GONE)
        if self.guard is not None:
            self.guard.changed()

    async def end(self) -> None:
        """Ends everything under way."""
        self._by_server.end(GONE)
        self._by_client.end("The client is gone.")
        under_way = [*self._tasks.values(), *self._backs]
        for task in under_way:
            task.cancel()
        with contextlib.suppress(Exception):
            await asyncio.gather(*under_way, return_exceptions=True)


def _result(message: Message) -> Wire:
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


def _failure(to: Id | None, failed: Failed) -> dict[str, Any]:
    code, text = failed.error.get("code"), failed.error.get("message")
    return error(to, int(code) if type(code) is int else INTERNAL_ERROR, str(text))


def _broken(bad: Malformed) -> Message:
    """Stands for an answer that has no one reading."""
    told = error(bad.id, INTERNAL_ERROR, "The server's answer cannot be read.")
    return Message("error", told, write(told))


def _is_id(value: object) -> bool:
    return type(value) in (int, str)
