"""The guard in an agent's own process: in front of any client transport of the `mcp` SDK.

Rules enforced here:

1. A request leaves when it was decided, under the task of whoever sent it; the message that was
   decided is the one that leaves.
2. An answer goes to whoever asked, once. One that nobody waits for is dropped.
3. What a server asks of the client is decided under the task that is calling it; where several
   tasks are, it cannot be known which one is meant, and it is refused. Text that the server sends
   unasked counts for all of them.
4. A connection that ends leaves it open whether what was under way has run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import anyio
from mcp.shared.message import SessionMessage

from lictor.canonical import thawed
from lictor.gate import Gate
from lictor.model import Pep
from lictor_mcp.guard import Failed, Guard, Refused, Wire
from lictor_mcp.methods import PROTOCOL
from lictor_mcp.waiting import Unanswered
from lictor_mcp.wire import INTERNAL_ERROR, answer, error

Key: TypeAlias = tuple[str, Any]

CONNECTION_CLOSED: Final = -32000
SEVERAL: Final = "several tasks are calling this server: which one it asks for cannot be known"
_GONE: Final = (anyio.ClosedResourceError, anyio.BrokenResourceError)
_ABOUT: Final = ("mcp-name", "mcp-param-")
"""Headers that say what a request is about: those of the one that is decided are not ours."""
_log: Final = logging.getLogger("lictor.mcp")


@asynccontextmanager
async def guard_transport(
    transport: AbstractAsyncContextManager[Any],
    gate: Gate,
    *,
    server: str,
    identity: str = "",
    ours: bool = False,
) -> AsyncIterator[Any]:
    """A transport whose every call is authorized before it leaves.

    `Client(guard_transport(stdio_client(parameters), gate, server="files"))` with `mcp` 2.x;
    `async with guard_transport(stdio_client(parameters), gate, server="files") as (read, write):`
    with a `ClientSession` of either version. Calls run under the task that is open where they are
    made.

    Args:
        transport: What would be used without a gate.
        gate: Who decides.
        server: The server's id in the catalog.
        identity: What server this is (command or address), as part of every pin.
        ours: The server is one of ours: a grant in `_meta` may reach it.

    Yields:
        What the transport yields, with guarded streams.
    """
    async with transport as (read, write, *more):
        line = _Line(gate, server, identity, write, ours=ours)
        pump = asyncio.create_task(line.pump(read))
        try:
            yield (line.read, line, *more)
        finally:
            pump.cancel()
            await line.end(pump)


class _Line:
    """The client's write stream, and what stands between it and the server."""

    def __init__(self, gate: Gate, server: str, identity: str, write: Any, *, ours: bool) -> None:
        self._gate, self._write = gate, write
        self._guard = Guard(
            gate,
            server,
            identity=identity,
            pep=Pep("mcp_client", "client"),
            lister=self._list,
            ours=ours,
        )
        self._to_client, self.read = anyio.create_memory_object_stream[Any](0)
        self._nonce, self._count = f"guard-{secrets.token_hex(8)}-", 0
        self._by_server: dict[Key, asyncio.Future[SessionMessage]] = {}
        self._by_client: dict[Key, asyncio.Future[SessionMessage]] = {}
        self._calls: dict[Key, tuple[asyncio.Task[None], contextvars.Context]] = {}
        self._backs: set[asyncio.Task[None]] = set()
        self._asking: ContextVar[SessionMessage] = ContextVar("lictor_mcp_asking")
        self._several: ContextVar[bool] = ContextVar("lictor_mcp_several")

    # -- from the client: its write stream --------------------------------------------------------

    async def send(self, item: SessionMessage) -> None:
        """Takes one message of the client."""
        root = _root(item)
        if not hasattr(root, "method"):
            _came(self._by_client, item)
        elif hasattr(root, "id"):
            self._begin(item)
        elif self._guard.passes(root.method) and not self._called_off(root):
            with contextlib.suppress(Refused):
                await self._write.send(self._outward(item))
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Closes it."""
        await self._write.aclose()

    async def __aenter__(self) -> _Line:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _begin(self, item: SessionMessage) -> None:
        key, context = _key(_root(item).id), contextvars.copy_context()
        if key in self._calls:
            raise ValueError("a request with this id is under way")
        if _root(item).params is not None:  # whoever sends it still holds what it is made of
            item = _with(item, params=thawed(_root(item).params))
        task = asyncio.get_running_loop().create_task(self._serve(item), context=context)
        self._calls[key] = (task, context)
        task.add_done_callback(lambda _: self._calls.pop(key, None))

    def _called_off(self, root: Any) -> bool:
        """Whether a notification calls off a request that has not left yet."""
        wanted = (root.params or {}).get("requestId")
        if root.method != "notifications/cancelled" or not isinstance(wanted, str | int):
            return False
        found = self._calls.get(_key(wanted))
        if found is None:
            return False
        left = _key(wanted) in self._by_server
        found[0].cancel()
        return not left

    async def _serve(self, item: SessionMessage) -> None:
        root = _root(item)
        self._asking.set(item)
        came: list[tuple[SessionMessage, Wire]] = []

        async def forward() -> Wire:
            got = await self._exchange(self._by_server, sent, self._write.send)
            came.append((got, _result(got)))
            return came[0][1]

        try:
            sent = self._outward(item)
            result = await self._guard.request(root.method, root.params or {}, forward)
            same = came and result is came[0][1]
            told = came[0][0] if same else _made(answer(root.id, result), item)
        except Refused as no:
            told = _made(error(root.id, no.code, no.text, no.data), item)
        except Failed as failed:
            told = _made({"jsonrpc": "2.0", "id": root.id, "error": dict(failed.error)}, item)
        except Unanswered:
            told = _made(error(root.id, CONNECTION_CLOSED, "Connection closed"), item)
        except Exception:
            _log.exception("a request could not be served")
            told = _made(error(root.id, INTERNAL_ERROR, "Internal error"), item)
        await self._tell(told)

    def _outward(self, item: SessionMessage) -> SessionMessage:
        """A message as it leaves, without a grant unless the server is one of ours."""
        root = _root(item)
        part = next((each for each in ("params", "result") if hasattr(root, each)), "")
        body = getattr(root, part, None) if part else root.error.model_dump()
        kept = self._guard.outward_body(getattr(root, "method", ""), body)
        return item if kept is body else _with(item, **{part: kept})

    async def _tell(self, item: object) -> None:
        with contextlib.suppress(*_GONE):
            await self._to_client.send(item)

    async def _exchange(
        self,
        waiting: dict[Key, asyncio.Future[SessionMessage]],
        item: SessionMessage,
        send: Callable[[SessionMessage], Awaitable[None]],
    ) -> SessionMessage:
        key = _key(_root(item).id)
        coming: asyncio.Future[SessionMessage] = asyncio.get_running_loop().create_future()
        waiting[key] = coming
        try:
            await send(item)
            return await coming
        except _GONE:
            problem = {"code": CONNECTION_CLOSED, "message": "Connection closed"}
            raise Failed(problem, ours=True) from None
        finally:
            waiting.pop(key, None)

    async def _list(self, method: str, params: Wire) -> Wire:
        """Asks the server in our own name, in the manner of the request that is being decided."""
        like = self._asking.get()
        root = _root(like)
        self._count += 1
        meta = (root.params or {}).get("_meta") or {}
        told = {name: meta[name] for name in meta if name.startswith(PROTOCOL)}
        given = {**params, "_meta": told} if told else dict(params)
        update = {"id": f"{self._nonce}{self._count}", "method": method, "params": given}
        item = _with(like, **update)
        item.metadata = _metadata(like.metadata, method)
        try:
            return _result(await self._exchange(self._by_server, item, self._write.send))
        except Unanswered as lost:
            raise Failed({"code": CONNECTION_CLOSED, "message": str(lost)}, ours=True) from None

    # -- from the server --------------------------------------------------------------------------

    async def pump(self, read: Any) -> None:
        """Takes what the server sends, to its end."""
        try:
            async for item in read:
                await self._take(item)
        except _GONE:
            pass
        finally:
            self._lose()
            self._to_client.close()

    async def _take(self, item: Any) -> None:
        if not isinstance(item, SessionMessage):  # the transport tells of a failure of its own
            await self._tell(item)
            return
        root = _root(item)
        if not hasattr(root, "method"):
            if not _came(self._by_server, item):
                _log.warning("dropped an answer of the server that nobody waits for")
        elif hasattr(root, "id"):
            task = asyncio.get_running_loop().create_task(
                self._serve_back(item), context=self._calling()
            )
            self._backs.add(task)
            task.add_done_callback(self._backs.discard)
        else:
            await self._noted(item)

    async def _noted(self, item: SessionMessage) -> None:
        """Takes a notification: who reads what the client is told of it, cannot be known."""
        root = _root(item)
        given = kept = root.params or {}
        for context in self._contexts() or [contextvars.copy_context()]:
            heard = self._guard.heard(root.method, kept)
            found = await asyncio.get_running_loop().create_task(heard, context=context.copy())
            if found is None:
                return
            kept = found
        await self._tell(item if kept is given else _with(item, params=dict(kept)))

    def _contexts(self) -> list[contextvars.Context]:
        """One for each task that is calling the server."""
        calls = [context for _, context in self._calls.values()]
        return [*{id(each.run(self._gate.current)): each for each in calls}.values()]

    def _calling(self) -> contextvars.Context:
        """The context of whoever is calling the server, if that is one task only."""
        found = self._contexts()
        if len(found) == 1:
            return found[0].copy()
        context = contextvars.copy_context()
        if found:
            context.run(self._several.set, True)
        return context

    async def _serve_back(self, item: SessionMessage) -> None:
        root = _root(item)
        params = root.params or {}

        async def forward() -> Wire:
            came = await self._exchange(self._by_client, item, self._to_client.send)
            await self._write.send(self._outward(came))
            return _result(came)

        try:
            if self._several.get(False):
                self._guard.refuse_back(root.method, params, SEVERAL)
            await self._guard.back(root.method, params, forward)
            return
        except Refused as no:
            told = error(root.id, no.code, no.text, no.data)
        except (Failed, Unanswered):  # the client's own answer has gone on, or nobody is there
            return
        with contextlib.suppress(*_GONE):
            await self._write.send(_made(told, item))

    # -- end --------------------------------------------------------------------------------------

    def _lose(self) -> None:
        for waiting in (self._by_server, self._by_client):
            for coming in tuple(waiting.values()):
                if not coming.done():
                    coming.set_exception(Unanswered("the connection ended before the answer came"))

    async def end(self, pump: asyncio.Task[None]) -> None:
        """Ends everything under way."""
        self._lose()
        under_way = [pump, *(task for task, _ in self._calls.values()), *self._backs]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self._to_client.close()
        self.read.close()


def _root(item: SessionMessage) -> Any:
    """The message itself; `mcp` 1.x has a case around it."""
    return getattr(item.message, "root", item.message)


def _with(item: SessionMessage, **changed: Any) -> SessionMessage:
    """The same message with other members."""
    root = _root(item).model_copy(update=changed)
    case: Any = type(item.message)  # of `mcp` 1.x
    message = case(root) if hasattr(item.message, "root") else root
    return SessionMessage(message, item.metadata)


def _key(id: Any) -> Key:
    return type(id).__name__, id


def _came(waiting: Mapping[Key, asyncio.Future[SessionMessage]], item: SessionMessage) -> bool:
    """Hands an answer to whoever waits for it."""
    coming = waiting.get(_key(_root(item).id))
    if coming is None or coming.done():
        return False
    coming.set_result(item)
    return True


def _result(item: SessionMessage) -> Wire:
    root = _root(item)
    if hasattr(root, "error"):
        raise Failed(root.error.model_dump(exclude_none=True))
    found: Wire = root.result
    return found


def _made(value: Mapping[str, Any], like: SessionMessage) -> SessionMessage:
    """A message of ours, of the kind that this version of the SDK has."""
    if hasattr(like.message, "root"):
        return SessionMessage(type(like.message).model_validate(value))
    from mcp_types import JSONRPCError, JSONRPCResponse

    kind = JSONRPCError if "error" in value else JSONRPCResponse
    return SessionMessage(kind.model_validate(value))


def _metadata(metadata: Any, method: str) -> Any:
    """How a message of ours travels: like the one it is for, with headers that say what it is."""
    headers = getattr(metadata, "headers", None)
    if headers is None:
        return None
    kept = {name: each for name, each in headers.items() if not name.lower().startswith(_ABOUT)}
    names = [name for name in headers if name.lower() == "mcp-method"]
    return type(metadata)(headers={**kept, **dict.fromkeys(names, method)})
