"""The gate inside a FastMCP 4 server: everything that comes in, and calls of its own process.

Rules enforced here:

1. Every message of a client passes the guard before FastMCP sees it.
2. `server.call_tool`, `get_prompt` and `read_resource`, also from the body of a tool or through a
   mounted server, are decided. With `run_middleware=False` FastMCP asks nobody, us included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import Middleware, MiddlewareContext

from lictor.gate import Gate
from lictor_mcp.callers import Caller, of_token
from lictor_mcp.guard import Wire
from lictor_mcp.server import LOCAL, GateMiddleware, listing, passed

Next = Callable[[Any], Awaitable[Any]]


def guard_fastmcp(
    server: Any,
    gate: Gate,
    *,
    name: str = LOCAL,
    agent: str = "",
    task: str | None = None,
    caller: Callable[[Any], Caller | None] = of_token,
) -> GateMiddleware:
    """Puts the gate into a FastMCP server, in place; before anything else is added to it.

    Args:
        server: A `FastMCP` of version 4.
        gate: Who decides.
        name: The server's id in the catalog.
        agent: As of `GateMiddleware`.
        task: As of `GateMiddleware`.
        caller: As of `GateMiddleware`.

    Returns:
        The middleware; `close` it when the server ends.
    """
    made = GateMiddleware(gate, server=name, agent=agent, task=task, caller=caller)
    server._mcp_server.middleware.insert(0, made)
    server.add_middleware(_Inside(server, made))
    return made


class _Inside(Middleware):
    """Decides about what did not come in as a message."""

    def __init__(self, server: Any, gated: GateMiddleware) -> None:
        self._server, self._gated = server, gated

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Next) -> Any:
        """Calls a tool, if the gate allows it."""
        context = _own(context)
        asked = context.message
        params = {"name": asked.name, "arguments": asked.arguments or {}}
        return await self._decide("tools/call", params, context, call_next)

    async def on_get_prompt(self, context: MiddlewareContext[Any], call_next: Next) -> Any:
        """Gets a prompt, if the gate allows it."""
        context = _own(context)
        asked = context.message
        params = {"name": asked.name, "arguments": asked.arguments or {}}
        return await self._decide("prompts/get", params, context, call_next)

    async def on_read_resource(self, context: MiddlewareContext[Any], call_next: Next) -> Any:
        """Reads a resource, if the gate allows it."""
        context = _own(context)
        params = {"uri": str(context.message.uri)}
        return await self._decide("resources/read", params, context, call_next)

    async def _decide(self, method: str, params: Wire, context: Any, call_next: Next) -> Any:
        if passed(self._gated, method, params):
            return await call_next(context)
        came: list[Any] = []

        async def forward() -> Wire:
            came.append(await call_next(context))
            return {}

        with listing(self._offered):
            refused = await self._gated.ask(method, params, forward)
        if not came:
            raise ToolError(refused["content"][0]["text"])
        return came[0]

    async def _offered(self, method: str, params: Wire) -> Wire:
        """What the server offers, for our own guard."""
        if method == "tools/list":
            tools = await self._server.list_tools(run_middleware=False)
            return {"tools": [_wire(tool.to_mcp_tool()) for tool in tools]}
        prompts = await self._server.list_prompts(run_middleware=False)
        return {"prompts": [_wire(prompt.to_mcp_prompt()) for prompt in prompts]}


def _own(context: Any) -> Any:
    """The same with a message that nobody else can change between the decision and the call."""
    return context.copy(message=context.message.model_copy(deep=True))


def _wire(offered: Any) -> Wire:
    found: Wire = offered.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found
