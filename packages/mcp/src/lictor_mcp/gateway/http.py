"""The gateway over HTTP: callers that prove who they are in front, servers behind.

Rules enforced here:

1. Nobody calls without a token that names him; each has a task of his own.
2. A session belongs to who opened it: to anybody else it is not there.
3. Header and body say the same, or the request goes no further.
4. A body has a bound, in size and in time; so has what one caller has under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lictor.gate import Gate
from lictor_mcp.callers import Caller, Callers
from lictor_mcp.gateway import http_checks as checks
from lictor_mcp.gateway.http_checks import MISMATCH, Bad, Headers
from lictor_mcp.gateway.http_exchange import Exchange, Stream
from lictor_mcp.gateway.http_session import Served, Session
from lictor_mcp.gateway.http_sessions import Sessions
from lictor_mcp.gateway.http_upstream import EVENTS, JSON, LAST, SESSION
from lictor_mcp.guard import Failed, Refused
from lictor_mcp.waiting import Unanswered
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_BYTES,
    METHOD_NOT_FOUND,
    Id,
    Malformed,
    Message,
    error,
    parse,
    write,
)

Who: TypeAlias = Callable[[bytes | None], Caller | None]
"""Whose the header `Authorization` is."""

PATH: Final = "/mcp"
BODY_SECONDS: Final = 30.0
MAX_UPLOADS: Final = 32 * 1024 * 1024
"""Bytes of one caller's requests under way."""
_STATUS: Final = {
    MISMATCH: 400,
    INVALID_PARAMS: 400,
    INVALID_REQUEST: 400,
    METHOD_NOT_FOUND: 404,
}
_GONE: Final = Response(status_code=499)
_log: Final = logging.getLogger("lictor.mcp")


class HttpGateway:
    """An ASGI application: `/mcp` for one server, `/mcp/NAME` for each of several.

    Args:
        gate: Who decides.
        servers: What it stands before.
        who: Says who a caller is.
        agent: The agent that callers act through.
        template: `[tasks.x]` of their tasks; without one they may only read.
        hosts: Values of the header `Host` that mean us, in lower case, with the port.
        origins: Origins of web pages that may call.
        asks: The gate's channel is `Asking`: who calls may be asked.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        gate: Gate,
        servers: Iterable[Served],
        *,
        who: Who,
        agent: str,
        template: str | None = None,
        hosts: Iterable[str],
        origins: Iterable[str] = (),
        asks: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate, self._who, self._asks = gate, who, asks
        self._servers = {f"{PATH}/{each.name}": each for each in servers}
        if len(self._servers) == 1:
            self._servers[PATH] = next(iter(self._servers.values()))
        self._hosts, self._origins = frozenset(hosts), frozenset(origins)
        self._callers = Callers(gate, agent, template)
        self._taken: Counter[Caller] = Counter()
        self._sessions = Sessions(self._over, clock)
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("the gateway speaks HTTP only")
        try:
            response = await self._answer(scope, receive)
        except Bad as bad:
            challenge = {"www-authenticate": "Bearer"} if bad.status == 401 else None
            response = _refusal(bad.status, None, INVALID_REQUEST, bad.problem, challenge)
        except Exception:
            _log.exception("a request could not be served")
            response = _refusal(500, None, INTERNAL_ERROR, "Internal error")
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = checks.read(scope["headers"])
        checks.allow(headers, self._hosts, self._origins)
        served = self._servers.get(scope["path"].rstrip("/"))
        if served is None:
            raise Bad(404, "there is no server at this path")
        caller = self._who(headers.pop("authorization", "").encode() or None)
        if caller is None:
            raise Bad(401, "a token is missing, or is none of ours")
        if scope["method"] == "POST":
            return await self._post(served, caller, headers, receive)
        if scope["method"] not in ("GET", "DELETE"):
            raise Bad(405, "there is no such method here")
        session = self._session(served, caller, headers, stateless=False)
        try:
            if scope["method"] == "GET":
                return await self._listen(session, headers)
            return await self._leave(session, headers)
        except (Failed, Unanswered):
            raise Bad(502, "the server is not there") from None

    # -- POST -------------------------------------------------------------------------------------

    async def _post(
        self, served: Served, caller: Caller, headers: Headers, receive: Receive
    ) -> Response:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Bad(415, f"the body must be {JSON}")
        headers.pop(LAST, None)  # only a GET goes on from somewhere
        with self._room(caller) as more:
            raw = await _body(receive, more)
            return await self._read(served, caller, headers, receive, raw)

    @contextlib.contextmanager
    def _room(self, caller: Caller) -> Iterator[Callable[[int], None]]:
        """While open, what a caller sends counts.

        Yields:
            Takes so many bytes more; raises `Bad` if he has too many under way.
        """
        taken = 0

        def more(size: int) -> None:
            nonlocal taken
            if self._taken[caller] + size > MAX_UPLOADS:
                raise Bad(429, "too much of this caller is under way")
            taken += size
            self._taken[caller] += size

        try:
            yield more
        finally:
            self._taken[caller] -= taken
            if not self._taken[caller]:
                del self._taken[caller]

    async def _read(
        self, served: Served, caller: Caller, headers: Headers, receive: Receive, raw: bytes
    ) -> Response:
        try:
            message = parse(raw)
        except Malformed as bad:
            return _refusal(400, bad.id, bad.code, f"The message {bad.problem}.")
        try:
            stateless = await self._era(served, caller, headers, message)
            session = self._session(served, caller, headers, stateless, message)
            if message.kind == "request":
                return await self._request(session, message, headers, receive)
            return await self._told(session, message, headers)
        except Refused as no:
            return _refusal(_STATUS.get(no.code, 200), message.id, no.code, no.text)

    async def _era(
        self, served: Served, caller: Caller, headers: Headers, message: Message
    ) -> bool:
        try:
            return checks.stateless(message, headers)
        except Refused as no:
            if no.code == MISMATCH:
                session = self._session(served, caller, {}, stateless=True)
                with await session.home():
                    session.refused(message, no)
            raise

    async def _request(
        self, session: Session, message: Message, headers: Headers, receive: Receive
    ) -> Response:
        if not session.stateless and "mcp-protocol-version" in headers:
            session.own.version = headers["mcp-protocol-version"]
        exchange = await session.begin(message, checks.forwarded(headers))
        gone = asyncio.ensure_future(_left(receive))
        try:
            either: set[asyncio.Future[Any]] = {exchange.reply, exchange.streaming, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if message.method == "initialize":
            self._open(session)
        given = (
            {SESSION: session.own.id} if message.method == "initialize" and session.own.id else {}
        )
        if exchange.streaming.done():
            return _Events(_drain(exchange.out, session, exchange), given)
        if exchange.reply.done() and not exchange.reply.cancelled():
            raw = exchange.reply.result()
            return Response(raw, exchange.status, given, media_type=JSON)
        _abandon(session, exchange)
        if message.method == "initialize" and session.own.id is None:
            self._over(session)  # nobody was told of it, and nobody counts it
        return _GONE

    async def _told(self, session: Session, message: Message, headers: Headers) -> Response:
        if message.kind == "notification":
            try:
                return Response(
                    status_code=await session.notified(message, checks.forwarded(headers))
                )
            except (Failed, Unanswered):
                raise Bad(502, "the server is not there") from None
        if not session.client_answered(message):
            _log.warning("dropped an answer of a client that nobody waits for")
        return Response(status_code=202)

    # -- sessions ---------------------------------------------------------------------------------

    def _session(
        self,
        served: Served,
        caller: Caller,
        headers: Headers,
        stateless: bool,
        message: Message | None = None,
    ) -> Session:
        """The session that a request belongs to.

        Raises:
            Bad: It is not there, or somebody else's.
        """
        id = headers.get(SESSION)
        if id is not None and not stateless:
            return self._sessions.of(served.name, caller, id)
        headers.pop(SESSION, None)  # it would name a session to the server, and not to us
        if message is not None and message.method == "initialize":
            return self._new(served, caller, stateless=False)
        return self._sessions.without(
            served.name, caller, stateless, lambda: self._new(served, caller, stateless=stateless)
        )

    def _new(self, served: Served, caller: Caller, *, stateless: bool) -> Session:
        return Session(
            self._gate, served, caller, self._callers, stateless=stateless, asks=self._asks
        )

    def _open(self, session: Session) -> None:
        if session.own.id is not None:
            self._sessions.opened(session)

    def _over(self, session: Session) -> None:
        task = asyncio.create_task(session.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _listen(self, session: Session, headers: Headers) -> Response:
        status, stream = await session.listen(checks.forwarded(headers))
        if stream is None:
            return Response(status_code=status)
        return _Events(_drain(stream, session), {})

    async def _leave(self, session: Session, headers: Headers) -> Response:
        answered = await session.served.upstream.leave(checks.forwarded(headers))
        await answered.close()
        session.own.id = None  # the server has ended it
        self._sessions.drop(session)
        return Response(status_code=answered.status)

    async def close(self) -> None:
        """Ends all sessions, tasks and connections."""
        for session in self._sessions:
            self._sessions.drop(session)
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._callers.end()
        for served in {id(each): each for each in self._servers.values()}.values():
            await served.upstream.close()


class _Events(StreamingResponse):
    def __init__(self, events: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        kept = {"cache-control": "no-cache, no-transform", **headers}
        super().__init__(events, headers=kept, media_type=EVENTS)


async def _drain(
    stream: Stream, session: Session, exchange: Exchange | None = None
) -> AsyncIterator[bytes]:
    try:
        async for part in stream:
            yield part
    finally:
        stream.leave()
        if exchange is not None:
            _abandon(session, exchange)


def _abandon(session: Session, exchange: Exchange) -> None:
    """The client is gone. In a session its request goes on."""
    exchange.out.leave()
    if session.stateless and exchange.task is not None:
        exchange.task.cancel()


async def _left(receive: Receive) -> None:
    """Comes back when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive, more: Callable[[int], None]) -> bytes:
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                part = await receive()
                if part["type"] == "http.disconnect":
                    raise Bad(400, "the body broke off")
                found += part.get("body", b"")
                more(len(part.get("body", b"")))
                if len(found) > MAX_BYTES:
                    raise Bad(413, f"the body is larger than {MAX_BYTES} bytes")
                if not part.get("more_body", False):
                    return bytes(found)
    except TimeoutError:
        raise Bad(408, "the body did not come in time") from None


def _refusal(
    status: int, id: Id | None, code: int, text: str, headers: dict[str, str] | None = None
) -> Response:
    return Response(write(error(id, code, text)), status, headers, media_type=JSON)


def loopback(port: int) -> tuple[frozenset[str], frozenset[str]]:
    """Hosts and origins of a listener that only this machine reaches."""
    hosts = frozenset(f"{host}:{port}" for host in checks.LOOPBACK)
    return hosts, frozenset(f"http://{host}" for host in hosts)


__all__ = ["HttpGateway", "Served", "loopback"]
