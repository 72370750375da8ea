"""Asking the person at the client, through the protocol: a `confirm:user`, and no more than that.

Rules enforced here:

1. Only where the operator says that this client shows questions, and the client says that it can.
   Who answers is whoever sits there, or the client itself: it confirms, and proves nobody.
2. A question belongs to the request that needs it: in the older protocol it is asked meanwhile, on
   the way that its answer will take; in the stateless one it is the answer, and the request that is
   repeated brings the reply.
3. What is repeated must be the request that was asked about. Its state is a secret of this process
   that counts once, and at this client only; the call that runs is the one that was decided, not
   the one that was repeated.
4. Anything but a plain yes is a no; no reply in time is none; a request asks a few times at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

from lictor.approval import confirm_lines, digest_of
from lictor.ports import Ask, Reply
from lictor_mcp import methods as m
from lictor_mcp.guard import Failed, Refused
from lictor_mcp.methods import PROTOCOL
from lictor_mcp.waiting import Send, Unanswered, Waiting, answered
from lictor_mcp.wire import INVALID_PARAMS, Message, answer, error, parse, write

Work: TypeAlias = Callable[[Message, list[Message]], Awaitable[Mapping[str, Any]]]
"""Has a request decided and answered; the list gets the answer as it came."""

SECONDS: Final = 120.0
GLANCE: Final = 0.05
STATE: Final = "lictor-"
KEY: Final = "lictor-confirm"
CAPABILITIES: Final = f"{PROTOCOL}clientCapabilities"
MAX_OPEN: Final = 32
ROUNDS: Final = 3
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
_spelled: Final = json.JSONEncoder(sort_keys=True).encode


class Way(Protocol):
    """How a client hears of a request while it is under way."""

    def say(self, raw: bytes, /) -> Awaitable[None]:
        """Sends bytes of one message.

        Raises:
            ConnectionError: The client is not there.
        """
        ...

    def turn(self, way: Self) -> None:
        """From now on the request goes on under another one of the client."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """A client that hears of all its requests the same way.

    Attributes:
        say: Sends it bytes of one message.
    """

    say: Send

    def turn(self, way: Direct) -> None:
        """Goes on as before."""


class _Question:
    """One question, and its reply."""

    def __init__(self, lines: list[str]) -> None:
        self.params = {"message": "\n".join(lines).strip(), "requestedSchema": _SCHEMA}
        self.reply: Mapping[str, Any] = {}
        self.replied = threading.Event()

    def answered(self, reply: object) -> None:
        """What the client replied; anything that is no reply is none."""
        self.reply = reply if isinstance(reply, dict) else {}
        self.replied.set()


@dataclass(slots=True, eq=False)
class _Serving:
    """A request of the client while it is decided."""

    loop: asyncio.AbstractEventLoop
    client: Asked
    way: Way
    stateless: bool
    able: bool
    asked: asyncio.Future[_Question]
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    """A request whose question the client has."""

    serving: _Serving
    question: _Question
    work: asyncio.Task[Mapping[str, Any]]
    digest: str


_serving: ContextVar[_Serving | None] = ContextVar("lictor_mcp_serving", default=None)


class Asking:
    """Asks at the client that a request came from. A channel (`lictor.ports.Approvals`)."""

    lasting = False

    def ready(self, ask: Ask) -> str:
        """Why the person at the client cannot be asked, or nothing."""
        serving = _serving.get()
        if serving is None or not serving.able:
            return "the client shows no questions"
        return "" if serving.rounds < ROUNDS else "the client was asked often enough"

    def answer(self, ask: Ask) -> Reply:
        """Asks, and waits."""
        unready = self.ready(ask)
        serving = _serving.get()
        if unready or serving is None:
            return Reply("unavailable", detail=unready)
        serving.rounds += 1
        lines = confirm_lines(ask)
        question = _Question(lines)
        begin = serving.client.suspend if serving.stateless else serving.client.elicit
        asyncio.run_coroutine_threadsafe(begin(serving, question), serving.loop)
        waited = 0.0
        while not question.replied.wait(GLANCE):
            waited += GLANCE
            if waited > SECONDS or ask.gone.is_set():
                return Reply("expired", detail="nobody answered at the client")
        return _reply(question.reply, ask.user, digest_of(lines))


class Asked:
    """A client that may be asked: a connection, or a caller without one. Part of the relay.

    Args:
        way: How it hears of requests, where they have no way of their own.
    """

    def __init__(self, way: Way | None = None) -> None:
        self._way, self._able = way, False
        self._by_client = Waiting()
        self._open: dict[str, _Open] = {}

    @property
    def open(self) -> int:
        """How many questions it has that were not answered yet."""
        return len(self._open)

    # -- questions --------------------------------------------------------------------------------

    async def suspend(self, serving: _Serving, question: _Question) -> None:
        """Has the request answered with a question."""
        if not serving.asked.done():
            serving.asked.set_result(question)

    async def elicit(self, serving: _Serving, question: _Question) -> None:
        """Asks while the request is under way."""
        id = f"{STATE}confirm-{secrets.token_urlsafe(16)}"
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": id}
        request |= {"method": "elicitation/create", "params": question.params}
        message = parse(write(request))
        waiting = self._by_client.expect(message.key)
        found: object = {}
        try:
            async with asyncio.timeout(SECONDS):
                await serving.way.say(message.raw)
                found = (await waiting).result
        except (TimeoutError, ConnectionError, Unanswered):
            pass  # nobody has replied
        finally:
            waiting.cancel()
            question.answered(found)

    # -- the relay --------------------------------------------------------------------------------

    def came(self, message: Message) -> bool:
        """Takes an answer of the client, if it is to a question of ours."""
        return self._by_client.came(message)

    async def reply(self, message: Message, ask: Work, way: Way | None = None) -> bytes:
        """Has a request decided and answered, with what has to be asked meanwhile.

        Args:
            message: The request.
            ask: Has it decided and answered.
            way: How the client hears of it meanwhile.
        """
        way = way or self._way
        if way is None:
            raise RuntimeError("there is no way to this client")
        state = message.params.get("requestState")
        came: list[Message] = []
        if isinstance(state, str) and state.startswith(STATE):
            try:
                serving, work = await self._resumed(message, state, way)
            except Refused as no:
                return write(error(message.id, no.code, no.text, no.data))
        else:
            serving = self._serve(message, way)
            token = _serving.set(serving)
            work = asyncio.ensure_future(_awaited(ask(message, came)))
            _serving.reset(token)
        either: set[asyncio.Future[Any]] = {work, serving.asked}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})  # that nobody waits any more is recorded
            raise
        if not work.done() and self.open < MAX_OPEN:
            return self._question(message, serving, work)
        if not work.done():
            serving.able = False
            serving.asked.result().answered(None)  # no room for one more: that is no yes
        serving.asked.cancel()
        return await answered(message, work, came)

    def _serve(self, message: Message, way: Way) -> _Serving:
        meta = message.params.get("_meta")
        stateless = isinstance(meta, dict) and m.VERSION in meta
        if message.method == "initialize":
            self._able = _able(message.params.get("capabilities"))
        able = _able(meta.get(CAPABILITIES)) if stateless and isinstance(meta, dict) else self._able
        loop = asyncio.get_running_loop()
        return _Serving(loop, self, way, stateless, able, loop.create_future())

    def _question(
        self, message: Message, serving: _Serving, work: asyncio.Task[Mapping[str, Any]]
    ) -> bytes:
        state = f"{STATE}{secrets.token_urlsafe(32)}"
        question = serving.asked.result()
        self._open[state] = _Open(serving, question, work, _about(message))
        work.add_done_callback(lambda _: self._over(state, work))
        params = {**question.params, "mode": "form"}
        result = {
            "resultType": "input_required",
            "inputRequests": {KEY: {"method": "elicitation/create", "params": params}},
            "requestState": state,
        }
        return write(answer(message.id, result))

    def _over(self, state: str, work: asyncio.Task[Mapping[str, Any]]) -> None:
        """Nobody has come back in time; what became of it is recorded."""
        if self._open.pop(state, None) is not None and not work.cancelled():
            work.exception()

    async def _resumed(
        self, message: Message, state: str, way: Way
    ) -> tuple[_Serving, asyncio.Task[Mapping[str, Any]]]:
        """What a request goes on with that brings a reply.

        Raises:
            Refused: The question is not open, or was about something else.
        """
        found = self._open.pop(state, None)
        if found is None:
            raise Refused(INVALID_PARAMS, "This question is no longer open.")
        serving = found.serving
        if found.digest != _about(message):
            serving.able = False
            found.question.answered(None)  # no reply: that is no yes
            await asyncio.gather(found.work, return_exceptions=True)
            raise Refused(INVALID_PARAMS, "This is not the request that was asked about.")
        replies = message.params.get("inputResponses")
        serving.way.turn(way)
        serving.asked = serving.loop.create_future()
        found.question.answered(replies.get(KEY) if isinstance(replies, dict) else None)
        return serving, found.work

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
    # Parameters need not be what the gate takes for arguments: a task can hold a lone surrogate.
    return hashlib.sha256(_spelled([message.method, given]).encode()).hexdigest()


def _reply(found: Mapping[str, Any], user: str, shown: str) -> Reply:
    content = found.get("content")
    yes = isinstance(content, dict) and content.get("allow") is True
    if found.get("action") == "accept" and yes:
        return Reply("granted", by=user, channel="mcp", shown=shown)
    if found.get("action") in ("accept", "decline"):
        return Reply("rejected", by=user, channel="mcp", shown=shown)
    return Reply("expired", detail="the question was put aside at the client")
