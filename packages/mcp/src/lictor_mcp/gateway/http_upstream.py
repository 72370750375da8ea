"""The server behind the HTTP gateway: what goes to it, and how its streams are read.

Rules enforced here:

1. It gets our own credential and never the caller's; of the caller's headers only those that the
   protocol has.
2. A redirect is refused, no proxy or `.netrc` of our environment is asked, no cookie is kept.
3. An answer, an event and a header have a bound; what is longer has not been read. Nothing comes
   packed: what a few bytes unpack to has no bound.
4. A request that was sent and brought nothing back may have run.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from lictor_mcp.guard import Failed
from lictor_mcp.waiting import GONE, Unanswered
from lictor_mcp.wire import INTERNAL_ERROR, MAX_BYTES

SESSION: Final = "mcp-session-id"
VERSION: Final = "mcp-protocol-version"
LAST: Final = "last-event-id"
METHOD: Final = "mcp-method"
NAME: Final = "mcp-name"
PARAM: Final = "mcp-param-"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
PLAIN: Final = "identity"
CONNECT_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 128
POOLS: Final = 16
"""A pool looks at all of its connections for every request: many small ones cost less."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream.

    Attributes:
        data: One message as bytes; empty for an event that only gives an id.
        id: Where a client may go on from.
        retry: Milliseconds that it should wait before it does.
    """

    data: bytes = b""
    id: str | None = None
    retry: str | None = None

    def encode(self) -> bytes:
        """As it goes over the wire."""
        lines = [] if self.id is None else [b"id: " + self.id.encode()]
        if self.retry is not None:
            lines.append(b"retry: " + self.retry.encode())
        lines += [b"data: " + line for line in self.data.split(b"\n")]
        return b"\n".join(lines) + b"\n\n"


class Answered:
    """What the server answered to one HTTP request; `body` or `events` reads it, once."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.streams = kind == EVENTS and self.status == 200
        self.json = kind == JSON
        self.session: str | None = response.headers.get(SESSION)

    async def body(self) -> bytes:
        """All of it.

        Raises:
            Unanswered: It broke off, or is too long.
        """
        found = bytearray()
        try:
            async for part in self._response.aiter_raw():
                found += part
                if len(found) > MAX_BYTES:
                    raise Unanswered("The server's answer is too long.")
        except httpx.HTTPError:
            raise Unanswered(GONE) from None
        finally:
            await self.close()
        return bytes(found)

    async def events(self) -> AsyncIterator[Event]:
        """Its events, until the stream ends or breaks."""
        rest, fields, ended = b"", _Fields(), False
        with contextlib.suppress(httpx.HTTPError):
            async for part in self._response.aiter_raw():
                rest += part
                if len(rest) > MAX_BYTES:
                    return
                lines, rest, ended = _lines(rest, ended)
                for line in lines:
                    event = fields.take(line)
                    if fields.size > MAX_BYTES:
                        return
                    if event is not None:
                        yield event

    async def close(self) -> None:
        """Lets go of it; a server that was still writing is cut off."""
        with contextlib.suppress(httpx.HTTPError):
            await self._response.aclose()


def _lines(text: bytes, after_return: bool) -> tuple[list[bytes], bytes, bool]:
    """Whole lines, the rest, and whether the last one ended with a bare return."""
    if after_return and text.startswith(b"\n"):
        text = text[1:]
    bare = text.endswith(b"\r")
    parts = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return parts[:-1], parts[-1], bare


class _Fields:
    """Collects the lines of an event."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._id: str | None = None
        self._retry: str | None = None
        self._type = b""
        self.size = 0

    def take(self, line: bytes) -> Event | None:
        """Takes a line; gives the event that it ends."""
        if not line:
            return self._end()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        self.size += len(line)
        if name == b"data":
            self._data.append(value)
        elif name == b"id" and _plain(value):
            self._id = value.decode()
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = value.decode()
        elif name == b"event":
            self._type = value
        return None

    def _end(self) -> Event | None:
        found = Event(b"\n".join(self._data), self._id, self._retry)
        message = self._type in (b"", b"message")
        self.__init__()  # type: ignore[misc]
        return found if message and found != Event() else None


def _plain(value: bytes) -> bool:
    return value.isascii() and value.decode().isprintable() and len(value) <= 1024


class Upstream:
    """The server's address.

    Args:
        url: Where it is.
        token: Our own credential for it, if it wants one.
    """

    def __init__(self, url: str, *, token: str = "") -> None:
        self.url = url
        self._own = {"authorization": f"Bearer {token}"} if token else {}
        tls = httpx.create_ssl_context(trust_env=False)
        self._clients = tuple(_client(tls) for _ in range(POOLS))
        self._turn = itertools.cycle(self._clients)

    async def post(self, raw: bytes, headers: Mapping[str, str]) -> Answered:
        """Sends one message.

        Raises:
            Failed: It is not there, or sends us elsewhere: nothing ran.
            Unanswered: It was sent and nothing came back.
        """
        wanted = {"accept": f"{JSON}, {EVENTS}", "content-type": JSON, **headers}
        return await self._send("POST", wanted, raw)

    async def listen(self, headers: Mapping[str, str]) -> Answered:
        """Opens the stream of what it says by itself.

        Raises:
            Failed: It is not there.
        """
        return await self._send("GET", {"accept": EVENTS, **headers}, None)

    async def leave(self, headers: Mapping[str, str]) -> Answered:
        """Ends a session.

        Raises:
            Failed: It is not there.
        """
        return await self._send("DELETE", headers, None)

    async def _send(self, verb: str, headers: Mapping[str, str], raw: bytes | None) -> Answered:
        client = next(self._turn)
        request = client.build_request(
            verb, self.url, content=raw, headers={**headers, **self._own, "accept-encoding": PLAIN}
        )
        request.headers.pop("cookie", None)
        try:
            response = await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise _failed("The server is not there.") from None
        except httpx.HTTPError:
            raise Unanswered(GONE) from None
        client.cookies.clear()
        if 300 <= response.status_code < 400:
            await response.aclose()
            raise _failed("The server sends its callers elsewhere, where nothing was reviewed.")
        if response.headers.get("content-encoding", PLAIN).strip().lower() != PLAIN:
            await response.aclose()
            raise Unanswered("The server's answer is packed, which it was not asked for.")
        return Answered(response)

    async def close(self) -> None:
        """Ends all connections to it."""
        for client in self._clients:
            await client.aclose()


def _failed(problem: str) -> Failed:
    return Failed({"code": INTERNAL_ERROR, "message": problem}, ours=True)


def _client(tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
        ),
        verify=tls,
        trust_env=False,
        follow_redirects=False,
    )
