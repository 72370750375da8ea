"""The gate inside an MCP server: middleware for the `mcp` SDK 2.x.

Rules enforced here:

1. Every message of a client passes the guard before anything else of the server sees it.
2. Over HTTP a call runs under the task of its authenticated caller. Where there is none it may
   read, under a part of the process's task, and nothing else.
3. What the server asks of its client through the session of a request passes the guard as well.

The SDK calls its middleware provisional: everything that rests on it is in this file.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp_types import ErrorData
from pydantic import BaseModel

from lictor.errors import TaskError
from lictor.gate import Gate
from lictor.model import Pep, ToolCall
from lictor_mcp import methods as m
from lictor_mcp.callers import Caller, Callers
from lictor_mcp.guard import Failed, Guard, Refused, Wire
from lictor_mcp.wire import DENIED

Context: TypeAlias = ServerRequestContext[Any, Any]
LOCAL: Final = "local"

_here: ContextVar[tuple[Context, CallNext]] = ContextVar("lictor_mcp_request")


def of_token(ctx: Context) -> Caller | None:
    """The caller that the SDK's own token verifier has verified, if there is one."""
    scope = getattr(ctx.request, "scope", None)
    user = scope.get("user") if isinstance(scope, Mapping) else None
    token: Any = getattr(user, "access_token", None)
    if token is None or not isinstance(token.subject, str) or not token.subject:
        return None
    return Caller(token.subject, str((token.claims or {}).get("iss", "")))


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
        caller: Over HTTP: who is calling; by default the subject of the verified token.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        server: str = LOCAL,
        agent: str = "",
        task: str | None = None,
        caller: Callable[[Context], Caller | None] = of_token,
    ) -> None:
        self.gate = gate
        self._caller = caller
        self._callers = Callers(gate, agent, task) if agent else None
        self.guard = Guard(gate, server, pep=Pep("mcp_server", "middleware"), lister=_list)

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Answers or forwards one message of a client."""
        ctx = dataclasses.replace(ctx, params=copy.deepcopy(ctx.params))
        with await self._home(ctx):
            if ctx.request_id is None:
                return await call_next(ctx) if self.guard.passes(ctx.method) else None
            return await self._answer(ctx, call_next)

    async def _answer(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        inner = dataclasses.replace(ctx, session=_Session(ctx.session, self.guard))
        came: list[HandlerResult] = []
        token = _here.set((inner, call_next))

        async def forward() -> Wire:
            came.append(await call_next(inner))
            return _wire(came[0])

        try:
            result = await self.guard.request(ctx.method, ctx.params or {}, forward)
        except Refused as no:
            raise MCPError(code=no.code, message=no.text, data=no.data) from None
        finally:
            _here.reset(token)
        return came[0] if came and result is came[0] else dict(result)

    async def _home(self, ctx: Context) -> AbstractContextManager[object]:
        """Whose authority the message is under."""
        if ctx.request is None:  # stdio, in memory: the process is the caller
            return nullcontext()
        caller = self._caller(ctx)
        if caller is None or self._callers is None:
            task = self.gate.current()
            return task.reading().here() if task is not None and task.live else nullcontext()
        try:
            return (await self._callers.task(caller)).here()
        except TaskError as error:
            call = ToolCall(m.method_tool(self.guard.server, "caller"), {}, pep=self.guard.pep)
            decision = self.gate.refuse(call, "principal_unknown", str(error))
            raise MCPError(code=DENIED, message=decision.text) from None

    def close(self) -> None:
        """Ends the tasks of all callers."""
        if self._callers is not None:
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
            raise MCPError(code=no.code, message=no.text, data=no.data) from None
        return came[0]

    async def send_notification(self, notification: Any, *more: Any, **named: Any) -> None:
        if self._guard.told(notification.method):
            await super().send_notification(notification, *more, **named)


async def _list(method: str, params: Mapping[str, Any]) -> Wire:
    """Asks the server in our own name, on the way of the request that is being decided."""
    ctx, call_next = _here.get()
    meta = (ctx.params or {}).get("_meta")
    given = {**params, "_meta": meta} if meta is not None else dict(params)
    try:
        return _wire(await call_next(dataclasses.replace(ctx, method=method, params=given)))
    except MCPError as error:
        raise Failed(error.error.model_dump(exclude_none=True)) from None


def _wire(result: Any) -> Wire:
    """A result as it goes over the wire."""
    if isinstance(result, ErrorData):
        raise MCPError.from_error_data(result)
    if isinstance(result, BaseModel):
        dumped: Wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return dumped
    found: Wire = result if result is not None else {}
    return found
