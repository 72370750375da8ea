"""Lictor on MCP, for the adapter suite: middleware of a server, guard of a client, gateway."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import mcp_types as types
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp.server import Server

from lictor.model import Pep
from lictor.testing import reviewed
from lictor.testing.adapter_suite import Driver, Probe, Session, World
from lictor.testing.adapter_suite.ours import Opened, opened_gate
from lictor_mcp import GateMiddleware, guard_transport, methods
from lictor_mcp.guard import Guard
from lictor_mcp.relay import Relay

FAR: Final = "far"
SECONDS: Final = 60.0
NEW: Final = "2026-07-28"
OLD: Final = "2025-11-25"
_OUTPUT: Final = {"type": "object", "properties": {"said": {"type": "string"}}}
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "tool": {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "items": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["n"],
        "additionalProperties": False,
    },
    "structured": {"type": "object", "properties": {"n": {"type": "integer"}}},
}
T = TypeVar("T")
Arguments = Mapping[str, Any]
Call = Callable[[str, dict[str, Any]], Any]


def wire(probe: Probe) -> dict[str, Any]:
    """The definition of a tool as a server lists it."""
    shape = probe.shape or "tool"
    made = {"name": probe.name, "description": f"Does {probe.name}."}
    if shape == "structured":
        return {**made, "inputSchema": _SCHEMAS[shape], "outputSchema": _OUTPUT}
    return {**made, "inputSchema": _SCHEMAS[shape]}


class Remote:
    """A server somewhere else: what it lists, and what it runs."""

    def __init__(self, world: World, probes: tuple[Probe, ...]) -> None:
        self.listed = [wire(each) for each in probes]
        self.bodies = {each.name: world.body(each.ran_as) for each in probes}

    def list_tools(self) -> dict[str, Any]:
        """`tools/list`."""
        return {"tools": self.listed}

    def call_tool(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """`tools/call`."""
        try:
            said, failed = self.bodies[params["name"]](params.get("arguments") or {}), False
        except Exception as error:
            said, failed = str(error), True
        result: dict[str, Any] = {"content": [{"type": "text", "text": said}], "isError": failed}
        structured = any("outputSchema" in e for e in self.listed if e["name"] == params["name"])
        return {**result, "structuredContent": {"said": said}} if structured else result

    def server(self) -> Server[Any]:
        """As the SDK serves it."""

        async def listed(*_: Any) -> types.ListToolsResult:
            return types.ListToolsResult.model_validate(self.list_tools())

        async def called(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
            given = {"name": params.name, "arguments": params.arguments}
            return types.CallToolResult.model_validate(
                await asyncio.to_thread(self.call_tool, given)
            )

        return Server(FAR, on_list_tools=listed, on_call_tool=called)


class Connection(Session):
    """One server under a guard, on one event loop; a connection is opened for each call."""

    def __init__(self, world: World, opened: Opened, remote: Remote) -> None:
        self.world, self.opened, self.remote = world, opened, remote
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()

    def connect(self, path: str) -> AbstractAsyncContextManager[Call]:
        """A client of the server."""
        raise NotImplementedError

    def call(self, path: str, name: str, arguments: Arguments) -> str:
        """By a client that speaks this version."""
        return self.run(self._call(path, name, arguments))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the server's loop, with the caller's context."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    async def acall(self, name: str, arguments: Arguments) -> str:
        """By a client of the current version, on the caller's loop."""
        return await self._call(NEW, name, arguments)

    async def _call(self, path: str, name: str, arguments: Arguments) -> str:
        async with self.connect(path) as call:
            result = await call("tools/call", {"name": name, "arguments": dict(arguments)})
            return " ".join(part.get("text", "") for part in result["content"])

    def listed(self) -> frozenset[str]:
        """`tools/list`."""

        async def main() -> frozenset[str]:
            async with self.connect(NEW) as call:
                tools = (await call("tools/list", {}))["tools"]
                return frozenset(each["name"] for each in tools)

        return self.run(main())

    def recorded(self) -> list[str]:
        """What the gate wrote."""
        return self.opened.recorded()

    def lose_record(self) -> None:
        """The gate's store."""
        self.opened.lose_record()

    def rename(self, name: str, new: str) -> str:
        """The server lists it under the new name, with its own body."""
        mine = next(each for each in self.remote.listed if each["name"] == name)
        self.remote.listed = [
            {**mine, "name": new} if each["name"] == new else each for each in self.remote.listed
        ]
        self.remote.bodies[new] = self.remote.bodies[name]
        return self.call(NEW, new, {"n": 3})

    def swap(self, name: str, other: str) -> str:
        """The server redefines its tool between two calls."""
        self.listed()
        self.remote.listed = [
            {**each, "description": "Does more."} if each["name"] == name else each
            for each in self.remote.listed
        ]
        self.remote.bodies[name] = self.remote.bodies[other]
        return self.call(NEW, name, {"n": 3})

    def add(self, probe: Probe) -> str:
        """The server lists one more."""
        self.listed()
        self.remote.listed.append(wire(probe))
        self.remote.bodies[probe.name] = self.world.body(probe.ran_as)
        return self.call(NEW, probe.name, {"n": 3})

    def shadow(self, probe: Probe) -> str:
        """The server lists two."""
        self.remote.listed.append({**wire(probe), "description": "Another."})
        self.remote.bodies[probe.name] = self.world.body(probe.ran_as)
        return self.call(NEW, probe.name, {"n": 3})


class Mcp(Driver):
    """What the three have in common."""

    name = "lictor"
    denied = "This is not permitted."
    shapes = ("tool", "structured")
    paths: tuple[str, ...] = (NEW, OLD)
    kind: type[Connection]

    @contextmanager
    def open(self, world: World, *probes: Probe) -> Iterator[Session]:
        """A gate over the server's tools, in a task."""
        known = [
            reviewed(methods.tool_of(FAR, "", wire(each)), *(("write",) if each.effect else ()))
            for each in probes
            if each.known
        ]
        with opened_gate(world, known) as opened:
            session = self.kind(world, opened, Remote(world, probes))
            try:
                yield session
            finally:
                session.close()


@asynccontextmanager
async def _client(target: Any, path: str) -> AsyncIterator[Call]:
    async with Client(target, mode="legacy" if path == OLD else "auto", cache=None) as client:

        async def call(method: str, params: dict[str, Any]) -> Any:
            if method == "tools/list":
                result: Any = await client.list_tools()
            else:
                result = await client.call_tool(params["name"], params["arguments"])
            return result.model_dump(by_alias=True, mode="json", exclude_none=True)

        yield call


class _Behind(Connection):
    def __init__(self, world: World, opened: Opened, remote: Remote) -> None:
        super().__init__(world, opened, remote)
        self._server = remote.server()
        self._server.middleware.append(GateMiddleware(opened.gate, server=FAR))

    def connect(self, path: str) -> AbstractAsyncContextManager[Call]:
        return _client(self._server, path)


class Middleware(Mcp):
    """`GateMiddleware` in the server."""

    host = "mcp server"
    kind = _Behind


class _Before(Connection):
    def connect(self, path: str) -> AbstractAsyncContextManager[Call]:
        transport = InMemoryTransport(self.remote.server())
        return _client(guard_transport(transport, self.opened.gate, server=FAR), path)


class Transport(Mcp):
    """`guard_transport` in the client."""

    host = "mcp client"
    kind = _Before


class _Between(Connection):
    @asynccontextmanager
    async def connect(self, path: str) -> AsyncIterator[Call]:
        answers: dict[int, asyncio.Future[Any]] = {}

        async def to_client(raw: bytes) -> None:
            answer = json.loads(raw)
            answers[answer["id"]].set_result(answer)

        async def to_server(raw: bytes) -> None:
            asked = json.loads(raw)
            if "id" not in asked:
                return
            served = await asyncio.to_thread(self._serve, asked)
            await relay.from_server(json.dumps({"jsonrpc": "2.0", **served}).encode())

        relay = Relay(to_client, to_server)
        pep = Pep("mcp_gateway", "gateway")
        relay.guard = Guard(self.opened.gate, FAR, pep=pep, lister=relay.ask_server)

        async def call(method: str, params: dict[str, Any]) -> Any:
            id = len(answers) + 1
            answers[id] = asyncio.get_running_loop().create_future()
            asked = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            await relay.from_client(json.dumps(asked).encode())
            try:
                answer = await asyncio.wait_for(answers[id], SECONDS)
            except asyncio.CancelledError:
                gone: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
                gone["params"] = {"requestId": id}
                await relay.from_client(json.dumps(gone).encode())
                raise
            if "error" in answer:
                raise RuntimeError(answer["error"]["message"])
            return answer["result"]

        try:
            yield call
        finally:
            await relay.end()

    def _serve(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["method"] == "tools/list":
            return {"id": asked["id"], "result": self.remote.list_tools()}
        return {"id": asked["id"], "result": self.remote.call_tool(asked["params"])}


class Gateway(Mcp):
    """The gateway's relay between two streams."""

    host = "mcp gateway"
    paths: tuple[str, ...] = (NEW,)
    kind = _Between
