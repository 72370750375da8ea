"""What the HTTP gateway says to a server in its own name, within one session.

Rules enforced here:

1. What we ask has an id that no client has, and headers of our own.
2. An answer is the one to what was asked, or there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, Final

from lictor_mcp import methods as m
from lictor_mcp.gateway.http_checks import STATELESS
from lictor_mcp.gateway.http_upstream import METHOD, SESSION, VERSION, Answered, Upstream
from lictor_mcp.guard import Failed, Wire
from lictor_mcp.waiting import GONE, UNREADABLE, Unanswered, result_of
from lictor_mcp.wire import INTERNAL_ERROR, Malformed, Message, parse, write

LEAVE_SECONDS: Final = 2.0
META: Final[Wire] = {
    m.VERSION: STATELESS,
    "io.modelcontextprotocol/clientInfo": {
        "name": "lictor-gateway",
        "version": version("lictor-mcp"),
    },
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What every request of ours says in the protocol without sessions."""


class Own:
    """Our own requests and answers in one session.

    Args:
        upstream: The server.
        stateless: The protocol is the one without sessions.

    Attributes:
        id: The session's id, once the server has given one.
        version: The protocol version that the session speaks.
        label: Names the session in ids.
        told: Hears the method of each notification that comes before one of our answers.
        going: Around each request of ours: what of it goes to the server.
    """

    def __init__(self, upstream: Upstream, *, stateless: bool) -> None:
        self._upstream, self._stateless = upstream, stateless
        self.id: str | None = None
        self.version = STATELESS if stateless else ""
        self.label, self._count = secrets.token_hex(8), 0
        self.told: Callable[[str], object] = lambda method: None
        self.going: Callable[[Message], AbstractContextManager[Message]] = contextlib.nullcontext

    async def tell(self, raw: bytes) -> None:
        """Sends the server something that has no answer."""
        with contextlib.suppress(Failed, Unanswered):
            answered = await self._upstream.post(raw, self._headers())
            await answered.close()

    async def ask(self, method: str, params: Mapping[str, Any]) -> Wire:
        """Asks the server.

        Raises:
            Failed: It answered with an error, or not at all.
        """
        given = dict(params)
        if self._stateless:
            given["_meta"] = META
        self._count += 1
        id = f"lictor-{self.label}-{self._count}"
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": given}
        message = parse(write(request))
        try:
            with self.going(message) as going:
                answered = await self._upstream.post(going.raw, self._headers(method))
                if not answered.streams:
                    return result_of(read(message, answered, await answered.body()))
                return result_of(await self._first(answered, message))
        except Unanswered as lost:
            raise Failed({"code": INTERNAL_ERROR, "message": str(lost)}, ours=True) from None

    async def leave(self) -> None:
        """Ends the session at the server, if there is one."""
        if self.id is not None:
            with contextlib.suppress(Failed, Unanswered, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await (await self._upstream.leave(self._headers())).close()

    async def _first(self, answered: Answered, asked: Message) -> Message:
        """Our answer out of a stream that nobody else reads."""
        try:
            async for event in answered.events():
                with contextlib.suppress(Malformed):
                    message = parse(event.data) if event.data else None
                    if message is None:
                        continue
                    if message.kind == "notification":
                        self.told(message.method)
                    elif message.key == asked.key and not message.method:
                        return message
        finally:
            await answered.close()
        raise Unanswered(GONE)

    def _headers(self, method: str = "") -> dict[str, str]:
        headers = {VERSION: self.version} if self.version else {}
        if self._stateless and method:
            headers[METHOD] = method
        if self.id is not None:
            headers[SESSION] = self.id
        return headers


def read(asked: Message, answered: Answered, raw: bytes) -> Message:
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
            raise Failed({"code": INTERNAL_ERROR, "message": problem}, ours=True) from None
        raise Unanswered(UNREADABLE if answered.status == 200 else problem) from None
    if message.kind == "error" and answered.status >= 400:
        return message
    if message.kind not in ("result", "error") or message.key != asked.key:
        raise Unanswered("The server answered something else.")
    return message
