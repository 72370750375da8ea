"""Asking the person at the client, through the protocol: a `confirm:user`, and no more than that.

Rules enforced here:

1. Only where the operator says that this client shows questions, and the client says that it can.
   Who answers is whoever sits there, or the client itself: it confirms, and proves nobody.
2. A question belongs to the request that needs it: in the older protocol it is asked meanwhile; in
   the stateless one it is the answer, and the request that is repeated brings the reply.
3. What is repeated must be the request that was asked about. Its state is a secret of this process
   that counts once; the call that runs is the one that was decided, not the one that was repeated.
4. Anything but a plain yes is a no; no reply in time is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from lictor.approval import confirm_lines, digest_of
from lictor.canonical import digest
from lictor.ports import Ask, Reply
from lictor_mcp import methods as m
from lictor_mcp.guard import Failed, Refused
from lictor_mcp.relay import PROTOCOL, Send, Unanswered, Waiting, answered
from lictor_mcp.wire import INVALID_PARAMS, Message, answer, parse, write

Asked: TypeAlias = Callable[[Message, list[Message]], Awaitable[Mapping[str, Any]]]
"""Has a request decided and answered; the list gets the answer as it came."""

SECONDS: Final = 120.0
GLANCE: Final = 0.05
STATE: Final = "lictor-"
KEY: Final = "lictor-confirm"
CAPABILITIES: Final = f"{PROTOCOL}clientCapabilities"
MAX_OPEN: Final = 256
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "allow": {
            "type": "boolean",
            "title": "Let exactly this call run?",
            "default": False,
        }
    },
    "required": ["allow"],
}
_BACK: Final = frozenset({"_meta", "inputResponses", "requestState"})


@dataclass(slots=True, eq=False)
class _Serving:
    """A request of the client while it is decided."""

    loop: asyncio.AbstractEventLoop
    stateless: bool
    able: bool
    asked: asyncio.Future[Mapping[str, Any]]
    reply: Mapping[str, Any] = field(default_factory=dict)
    replied: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Open:
    """A request whose question the client has."""

    serving: _Serving
    work: asyncio.Task[Mapping[str, Any]]
    digest: str


_serving: ContextVar[_Serving | None] = ContextVar("lictor_mcp_serving", default=None)


class Asking:
    """Asks through the client. A channel (`lictor.ports.Approvals`), and part of the relay."""

    lasting = False

    def __init__(self) -> None:
        self.to_client: Send | None = None
        self._able, self._count = False, 0
        self._by_client = Waiting()
        self._open: dict[str, _Open] = {}

    # -- the channel ------------------------------------------------------------------------------

    def ready(self, ask: Ask) -> str:
        """Why the person at the client cannot be asked, or nothing."""
        serving = _serving.get()
        return "" if serving is not None and serving.able else "the client shows no questions"

    def answer(self, ask: Ask) -> Reply:
        """Asks, and waits."""
        serving = _serving.get()
        if serving is None or not serving.able:
            return Reply("unavailable", detail="the client shows no questions")
        lines = confirm_lines(ask)
        params = {"message": "\n".join(lines).strip(), "requestedSchema": _SCHEMA}
        begin = self._suspend if serving.stateless else self._elicit
        asyncio.run_coroutine_threadsafe(begin(serving, params), serving.loop)
        waited = 0.0
        while not serving.replied.wait(GLANCE):
            waited += GLANCE
            if waited > SECONDS or ask.gone.is_set():
                return Reply("expired", detail="nobody answered at the client")
        serving.replied.clear()
        return _reply(serving.reply, ask.user, digest_of(lines))

    async def _suspend(self, serving: _Serving, params: Mapping[str, Any]) -> None:
        if not serving.asked.done():
            serving.asked.set_result({**params, "mode": "form"})

    async def _elicit(self, serving: _Serving, params: Mapping[str, Any]) -> None:
        self._count += 1
        request = {"jsonrpc": "2.0", "id": f"{STATE}confirm-{self._count}"}
        message = parse(write({**request, "method": "elicitation/create", "params": params}))
        waiting = self._by_client.expect(message.key)
        try:
            if self.to_client is not None:
                await self.to_client(message.raw)
            async with asyncio.timeout(SECONDS):
                found = (await waiting).result
            serving.reply = found if isinstance(found, dict) else {}
        except (TimeoutError, ConnectionError):
            serving.reply = {}
        finally:
            waiting.cancel()
            serving.replied.set()

    # -- the relay --------------------------------------------------------------------------------

    def came(self, message: Message) -> bool:
        """Takes an answer of the client, if it is to a question of ours."""
        return self._by_client.came(message)

    async def reply(self, message: Message, ask: Asked) -> bytes:
        """Has a request decided and answered, with what has to be asked meanwhile."""
        state = message.params.get("requestState")
        if isinstance(state, str) and state.startswith(STATE):
            return await answered(message, self._resumed(message, state), [])
        serving = self._serve(message)
        token = _serving.set(serving)
        came: list[Message] = []
        work = asyncio.ensure_future(_awaited(ask(message, came)))
        _serving.reset(token)
        try:
            await asyncio.wait({work, serving.asked}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})  # that nobody waits any more is recorded
            raise
        if work.done() or len(self._open) >= MAX_OPEN:
            serving.asked.cancel()
            return await answered(message, work, came)
        return self._question(message, serving, work)

    def _serve(self, message: Message) -> _Serving:
        meta = message.params.get("_meta")
        stateless = isinstance(meta, dict) and m.VERSION in meta
        if message.method == "initialize":
            self._able = _able(message.params.get("capabilities"))
        able = _able(meta.get(CAPABILITIES)) if stateless and isinstance(meta, dict) else self._able
        loop = asyncio.get_running_loop()
        return _Serving(loop, stateless, able, loop.create_future())

    def _question(
        self, message: Message, serving: _Serving, work: asyncio.Task[Mapping[str, Any]]
    ) -> bytes:
        state = f"{STATE}{secrets.token_urlsafe(32)}"
        self._open[state] = _Open(serving, work, _about(message))
        work.add_done_callback(lambda _: self._over(state, work))
        request = {"method": "elicitation/create", "params": serving.asked.result()}
        result = {
            "resultType": "input_required",
            "inputRequests": {KEY: request},
            "requestState": state,
        }
        return write(answer(message.id, result))

    def _over(self, state: str, work: asyncio.Task[Mapping[str, Any]]) -> None:
        """Nobody has come back in time; what became of it is recorded."""
        if self._open.pop(state, None) is not None and not work.cancelled():
            work.exception()

    async def _resumed(self, message: Message, state: str) -> Mapping[str, Any]:
        found = self._open.pop(state, None)
        if found is None:
            raise Refused(INVALID_PARAMS, "This question is no longer open.")
        if found.digest != _about(message):
            found.serving.replied.set()  # no reply: the question is answered with a no
            await asyncio.gather(found.work, return_exceptions=True)
            raise Refused(INVALID_PARAMS, "This is not the request that was asked about.")
        replies = message.params.get("inputResponses")
        reply = replies.get(KEY) if isinstance(replies, dict) else None
        found.serving.reply = reply if isinstance(reply, dict) else {}
        found.serving.replied.set()
        return await found.work

    async def end(self) -> None:
        """Nobody is asked any more."""
        self._by_client.end("The client is gone.")
        work = [each.work for each in self._open.values()]
        for each in work:
            each.cancel()
        with contextlib.suppress(Failed, Unanswered):
            await asyncio.gather(*work, return_exceptions=True)


async def _awaited(asked: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return await asked


def _able(capabilities: object) -> bool:
    """Whether a client says that it shows forms."""
    found = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(found, dict) and (not found or "form" in found)


def _about(message: Message) -> str:
    given = {name: value for name, value in message.params.items() if name not in _BACK}
    return digest([message.method, given])


def _reply(found: Mapping[str, Any], user: str, shown: str) -> Reply:
    content = found.get("content")
    yes = isinstance(content, dict) and content.get("allow") is True
    if found.get("action") == "accept" and yes:
        return Reply("granted", by=user, channel="mcp", shown=shown)
    if found.get("action") in ("accept", "decline"):
        return Reply("rejected", by=user, channel="mcp", shown=shown)
    return Reply("expired", detail="the question was put aside at the client")
