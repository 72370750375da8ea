"""The gate inside an MCP server: middleware for the `mcp` SDK 2.x.

Rules enforced here:

1. Every message of a client passes the guard before anything else of the server sees it.
2. Over HTTP a call runs under the task of its authenticated caller. Where there is none it may
   read, under a part of the process's task, and nothing else.
3. What the server asks of its client through the session of a request passes the guard as well.
4. A `GatedServer` guards what its own process asks of it too, and what is called is what was
   decided: middleware that rewrites a request after the decision gets a decision on that.
5. A request that the SDK would not hand to any handler is recorded, and answered by the SDK.

The SDK calls its middleware provisional: everything that rests on it is in this file.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    CallToolResult,
    ErrorData,
    GetPromptResult,
)
from mcp_types.methods import validate_client_request
from pydantic import BaseModel, ValidationError

from lictor.gate import Gate
from lictor.model import Pep
from lictor_mcp.callers import Caller, Callers, of_token
from lictor_mcp.guard import Failed, Forward, Guard, Lister, Refused, Wire

Context: TypeAlias = ServerRequestContext[Any, Any]
LOCAL: Final = "local"

ENVELOPE: Final = (
    PROTOCOL_VERSION_META_KEY,
    CLIENT_INFO_META_KEY,
    CLIENT_CAPABILITIES_META_KEY,
)
"""Members of `_meta` that say who asks; whatever else stands there is about one request alone."""

_lister: ContextVar[Lister] = ContextVar("lictor_mcp_lister")
_decided: ContextVar[list[tuple[object, str]]] = ContextVar("lictor_mcp_decided")
"""What a guard has let through and its server has not met yet: at most one, and met once."""


class GateMiddleware:
    """Authorizes everything that clients ask of a server, and what it asks of them.

    `MCPServer("payments", middleware=[GateMiddleware(gate)])`, or
    `server.middleware.append(GateMiddleware(gate))`; put it before any middleware that caches
    results, after any that rewrites arguments. One object belongs to one server.

    Args:
        gate: Who decides.
        server: The server's id in the catalog.
        agent: Over HTTP: the agent that callers act through. Without one they may only read.
        task: Over HTTP: the `[tasks.x]` that each caller's task is opened under.
        caller: Over HTTP: who is calling, from the Starlette request; by default the subject of
            the token that the SDK has verified.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        server: str = LOCAL,
        agent: str = "",
        task: str | None = None,
        caller: Callable[[Any], Caller | None] = of_token,
    ) -> None:
        self._callers = Callers(gate, agent, task, caller)
        self.guard = Guard(
            gate,
            server,
            pep=Pep("mcp_server", "middleware"),
            lister=lambda method, params: _lister.get()(method, params),
        )

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Answers or forwards one message of a client."""
        params: Wire | None = _copied(ctx.params)
        try:
            home = await self._callers.home(ctx.request, self.guard)
        except Refused as no:
            raise _error(no) from None
        with home:
            if ctx.request_id is not None:
                session = _Session(ctx.session, self.guard)
                ctx = dataclasses.replace(ctx, params=params, session=session)
                return await self._answer(ctx, call_next)
            if not self.guard.passes(ctx.method):
                return None
            return await call_next(dataclasses.replace(ctx, params=params))

    async def _answer(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        came: list[HandlerResult] = []
        params = ctx.params or {}
        wrong = _misshapen(ctx)
        if wrong is not None:
            self.guard.malformed(ctx.method, _places(wrong))
            raise wrong

        async def forward() -> Wire:
            with _Set(_decided, [(self, _written(ctx.method, params))]):
                came.append(await call_next(ctx))
            return _wire(came[0])

        with listing(_lister_of(ctx, call_next)):
            result = await self.ask(ctx.method, params, forward)
        return came[0] if came and result is came[0] else dict(result)

    async def ask(self, method: str, params: Wire, forward: Forward) -> Wire:
        """Puts one request before the guard.

        Raises:
            MCPError: It is refused.
        """
        try:
            return await self.guard.request(method, params, forward)
        except Refused as no:
            raise _error(no) from None
        except Failed as failed:  # the server cannot say what it offers
            raise MCPError.from_error_data(ErrorData.model_validate(failed.error)) from None

    def close(self) -> None:
        """Ends the tasks of all callers."""
        self._callers.end()


class _Session(ServerSession):
    """The session of a request, with the guard in front of what goes to the client."""

    def __init__(self, session: ServerSession, guard: Guard) -> None:
        self.__dict__.update(session.__dict__)
        self._guard = guard

    async def send_request(self, request: Any, result_type: Any, *more: Any, **named: Any) -> Any:
        came: list[Any] = []

        async def forward() -> Wire:
            came.append(
                await super(_Session, self).send_request(request, result_type, *more, **named)
            )
            return _wire(came[0])

        try:
            await self._guard.back(request.method, _wire(request).get("params", {}), forward)
        except Refused as no:
            raise _error(no) from None
        return came[0]

    async def send_notification(self, notification: Any, *more: Any, **named: Any) -> None:
        if self._guard.told(notification.method):
            await super().send_notification(notification, *more, **named)


def _misshapen(ctx: Context) -> ValidationError | None:
    """What the SDK says of a request that it hands to no handler, whatever the server."""
    try:
        validate_client_request(ctx.method, ctx.protocol_version, ctx.params)
    except ValidationError as wrong:
        return wrong
    except (KeyError, ValueError):  # no method of this version: the guard knows what that is
        return None
    return None


def _places(wrong: ValidationError) -> str:
    """Where a request is wrong, without what stands there."""
    errors = wrong.errors(include_url=False, include_context=False, include_input=False)
    found = sorted({".".join(str(part) for part in each["loc"][:3]) for each in errors})
    return f"no request of this protocol: {', '.join(found[:3])}"[:200]


def _lister_of(ctx: Context, call_next: CallNext) -> Lister:
    """Asks the server in our own name, on the way of the request that is being decided."""
    meta = (ctx.params or {}).get("_meta")
    asks = {key: meta[key] for key in ENVELOPE if key in meta} if isinstance(meta, dict) else {}

    async def ask(method: str, params: Wire) -> Wire:
        given = {**params, "_meta": asks} if asks else dict(params)
        try:
            return _wire(await call_next(dataclasses.replace(ctx, method=method, params=given)))
        except MCPError as error:
            raise Failed(error.error.model_dump(exclude_none=True)) from None

    return ask


class _Set:
    """A context variable has this value in a block."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[Any], value: object) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *ended: object) -> None:
        self._variable.reset(self._token)


_ATOMS: Final = frozenset({str, int, float, bool, type(None)})


def _copied(value: Any) -> Any:
    """A deep copy, quick where it is JSON."""
    kind = type(value)
    if kind is dict:
        return {name: _copied(each) for name, each in value.items()}
    if kind is list:
        return [_copied(each) for each in value]
    return value if kind in _ATOMS else copy.deepcopy(value)


def listing(lister: Lister) -> AbstractContextManager[None]:
    """While open, the guard asks the server in this way what it offers."""
    return _Set(_lister, lister)


def passed(guard: GateMiddleware, method: str, params: Wire) -> bool:
    """Whether this guard has let through exactly this, and it is met for the first time.

    What the guard of another server has let through, in whose tool we are, counts for nothing.
    """
    let_through = _decided.get([])
    if not let_through or let_through[0][0] is not guard:
        return False
    return let_through.pop()[1] == _written(method, params)


def _error(no: Refused) -> MCPError:
    return MCPError(code=no.code, message=no.text, data=no.data)


_spelled: Final = json.JSONEncoder(sort_keys=True, default=repr).encode


def _written(method: str, params: Wire) -> str:
    """What a request asks for, in one spelling."""
    meant = [method, params.get("name"), params.get("uri"), params.get("arguments") or {}]
    return _spelled(meant)


def _wire(result: Any) -> Wire:
    """A result as it goes over the wire."""
    if isinstance(result, ErrorData):
        raise MCPError.from_error_data(result)
    if isinstance(result, BaseModel):
        dumped: Wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return dumped
    found: Wire = result if result is not None else {}
    return found


class GatedServer(MCPServer[Any]):
    """An `MCPServer` with a gate: the SDK's own signature plus what `GateMiddleware` takes.

    It also guards what code in the same process asks of it: `call_tool`, `get_prompt` and
    `read_resource`, also from the body of one of its tools. Plain Python calls of the functions
    behind them it cannot see.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        gate: Gate,
        server: str = LOCAL,
        agent: str = "",
        task: str | None = None,
        caller: Callable[[Any], Caller | None] = of_token,
        middleware: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        self.gated = GateMiddleware(gate, server=server, agent=agent, task=task, caller=caller)
        super().__init__(name, *args, middleware=[self.gated, *middleware], **options)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Calls a tool, if the gate allows it; a refusal is a result that says so."""
        given = _copied(arguments)
        call = functools.partial(super().call_tool, name, given, context)
        params = {"name": name, "arguments": given}
        result, changed = await self._gated("tools/call", params, call)
        return result if changed is None else CallToolResult.model_validate(changed)

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Any = None
    ) -> Any:
        """Gets a prompt, if the gate allows it."""
        given = _copied(arguments or {})
        get = functools.partial(super().get_prompt, name, given, context)
        params = {"name": name, "arguments": given}
        result, changed = await self._gated("prompts/get", params, get)
        return result if changed is None else GetPromptResult.model_validate(changed)

    async def read_resource(self, uri: Any, context: Any = None) -> Any:
        """Reads a resource, if the gate allows it."""
        read = functools.partial(super().read_resource, str(uri), context)
        return (await self._gated("resources/read", {"uri": str(uri)}, read))[0]

    async def _gated(
        self, method: str, params: Wire, run: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, Wire | None]:
        """What was run gave this; and its result for whoever asked, where that is another one."""
        if passed(self.gated, method, params):
            return await run(), None
        came: list[Any] = []
        sent: list[Wire] = []

        async def forward() -> Wire:
            came.append(await run())
            plain = isinstance(came[0], BaseModel)
            sent.append(_wire(came[0]) if plain else {})  # contents of a resource are no message
            return sent[0]

        with listing(self._offered):
            result = await self.gated.ask(method, params, forward)
        return (came[0], None) if sent and result is sent[0] else (None, result)

    async def _offered(self, method: str, params: Wire) -> Wire:
        """What we offer, for our own guard."""
        if method == "tools/list":
            return {"tools": [_wire(each) for each in await self.list_tools()]}
        return {"prompts": [_wire(each) for each in await self.list_prompts()]}
