"""The gate inside an MCP server of the `mcp` SDK 1.x (1.24 and later), which has no middleware.

Rules enforced here:

1. Every handler of a request, also one that is registered later, is reached through the guard.
2. Over HTTP a call runs under the task of its authenticated caller. Where there is none it may
   read, under a part of the process's task, and nothing else.
3. What the server asks of its client through the session of a request passes the guard as well.
4. Instructions that nobody has reviewed are taken off the server: it greets without a handler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp import types
from mcp.server.lowlevel import server as lowlevel
from mcp.server.session import ServerSession
from mcp.shared.exceptions import McpError

from lictor.gate import Gate
from lictor.model import Pep
from lictor_mcp import methods as m
from lictor_mcp.callers import Caller, Callers, of_token
from lictor_mcp.guard import Failed, Guard, Refused, Wire

LOCAL: Final = "local"
Handler = Callable[..., Awaitable[types.ServerResult]]


def guard_server(
    server: Any,
    gate: Gate,
    *,
    name: str = LOCAL,
    agent: str = "",
    task: str | None = None,
    caller: Callable[[Any], Caller | None] = of_token,
) -> Callers:
    """Puts the gate into a server, in place.

    Code of the same process that calls `server.call_tool()` itself is not guarded: `mcp` 1.x has
    no place for that.

    Args:
        server: A low-level `Server` or a `FastMCP`.
        gate: Who decides.
        name: The server's id in the catalog.
        agent: Over HTTP: the agent that callers act through. Without one they may only read.
        task: Over HTTP: the `[tasks.x]` that each caller's task is opened under.
        caller: Over HTTP: who is calling, from the Starlette request; by default the subject of
            the token that the SDK has verified.

    Returns:
        The tasks of callers; `end` them when the server ends.
    """
    low = getattr(server, "_mcp_server", server)
    handlers = low.request_handlers
    guard = Guard(
        gate,
        name,
        pep=Pep("mcp_server", "middleware"),
        lister=lambda method, params: _ask(handlers, method, params),
    )
    callers = Callers(gate, agent, task, caller)
    low.request_handlers = _Handlers(handlers, guard, callers)
    low.notification_handlers = _Notified(low.notification_handlers, guard)
    said = low.create_initialization_options()
    info = {"name": said.server_name, "version": said.server_version}
    tool = m.server_tool(name, "", {"serverInfo": info, "instructions": said.instructions})
    gate.met(tool)
    if gate.catalog.check(tool) is not None:
        low.instructions = None
    return callers


class _Handlers(dict[type, Handler]):
    """Handlers of requests; whoever looks one up gets the guarded one."""

    def __init__(self, found: dict[type, Handler], guard: Guard, callers: Callers) -> None:
        super().__init__(found)
        self._guard, self._callers = guard, callers

    def __getitem__(self, kind: type) -> Handler:
        return self._guarded(super().__getitem__(kind))

    def get(self, kind: type, default: Any = None) -> Any:
        """The guarded handler."""
        return self[kind] if kind in self else default

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Any) -> Any:
            if request is None:  # the SDK reads its own list of tools, for nobody
                return await handler(request)
            try:
                context = lowlevel.request_ctx.get()
                with await self._callers.home(context.request, self._guard):
                    return await self._answer(handler, request, context)
            except Refused as no:
                raise _error(no.code, no.text, no.data) from None
            except Failed as failed:
                raise McpError(types.ErrorData.model_validate(failed.error)) from None

        return guarded

    async def _answer(self, handler: Handler, request: Any, context: Any) -> Any:
        came: list[tuple[Any, Wire]] = []
        session = _Session(context.session, self._guard)
        token = lowlevel.request_ctx.set(dataclasses.replace(context, session=session))

        async def forward() -> Wire:
            result = await handler(request)
            came.append((result, _wire(result)))
            return came[0][1]

        try:
            asked = _wire(request)
            result = await self._guard.request(request.method, asked.get("params", {}), forward)
        finally:
            lowlevel.request_ctx.reset(token)
        if came and result is came[0][1]:
            return came[0][0]
        return types.ServerResult(_RESULTS[request.method].model_validate(result))


class _Notified(dict[type, Any]):
    """Handlers of notifications; one that may not come in has none."""

    def __init__(self, found: dict[type, Any], guard: Guard) -> None:
        super().__init__(found)
        self._guard = guard

    def get(self, kind: type, default: Any = None) -> Any:
        """The handler, if such a notification passes."""
        method = kind.model_fields["method"].default if hasattr(kind, "model_fields") else ""
        return super().get(kind, default) if self._guard.passes(str(method)) else default


class _Session(ServerSession):
    """The session of a request, with the guard in front of what goes to the client."""

    def __init__(self, session: ServerSession, guard: Guard) -> None:
        self.__dict__.update(session.__dict__)
        self._session, self._guard = session, guard

    async def send_request(self, request: Any, *more: Any, **named: Any) -> Any:
        came: list[Any] = []

        async def forward() -> Wire:
            came.append(await self._session.send_request(request, *more, **named))
            return _wire(came[0])

        try:
            asked = _wire(request)
            await self._guard.back(asked["method"], asked.get("params", {}), forward)
        except Refused as no:
            raise _error(no.code, no.text, no.data) from None
        return came[0]

    async def send_notification(self, notification: Any, *more: Any, **named: Any) -> None:
        if self._guard.told(notification.root.method):
            await self._session.send_notification(notification, *more, **named)


_RESULTS: Final[dict[str, Any]] = {
    "tools/call": types.CallToolResult,
    "tools/list": types.ListToolsResult,
    "prompts/get": types.GetPromptResult,
    "prompts/list": types.ListPromptsResult,
    "resources/read": types.ReadResourceResult,
    "resources/list": types.ListResourcesResult,
    "resources/templates/list": types.ListResourceTemplatesResult,
}
"""What the guard may change, or answer itself."""

_LISTS: Final[dict[str, Any]] = {
    "tools/list": types.ListToolsRequest,
    "prompts/list": types.ListPromptsRequest,
}


async def _ask(handlers: dict[type, Handler], method: str, params: Wire) -> Wire:
    """Asks the server in our own name."""
    kind = _LISTS[method]
    if kind not in handlers:
        raise Failed({"code": types.METHOD_NOT_FOUND, "message": "Method not found"})
    try:
        given = types.PaginatedRequestParams.model_validate(params) if params else None
        return _wire(await handlers[kind](kind(method=method, params=given)))
    except McpError as error:
        raise Failed(error.error.model_dump(exclude_none=True)) from None


def _wire(result: Any) -> Wire:
    """A request or result as it goes over the wire."""
    found: Wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found


def _error(code: int, text: str, data: Any) -> McpError:
    return McpError(types.ErrorData(code=code, message=text, data=data))
