"""One call, four ways to the gate: the same verdict and the same record, whichever it takes."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

import mcp_types as types
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp.server import Server

from lictor.model import Pep
from lictor.testing import reviewed
from lictor_langchain import guard
from lictor_langchain.testing import Scene
from lictor_langchain.testing import known as reviewed_in_langchain
from lictor_mcp import GateMiddleware, guard_transport, methods
from lictor_mcp.guard import Guard
from lictor_mcp.relay import Relay

pytestmark = pytest.mark.asyncio
FAR = "far"
WAIT = 20.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "n": {"type": "integer", "minimum": 0},
        "path": {"type": "string"},
    },
    "required": ["name"],
    "additionalProperties": False,
}
TOOLS = {"look": ("read",), "put": ("write",), "fail": ("read",), "raw": None, "other": ("read",)}
LIMITS = {"far/put": {"name": "a", "n": {"min": 0, "max": 3}}}
GRANTED = ("far/look", "far/put", "far/fail", "far/raw")
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("look", {"name": "a"}),
    ("look", {"name": "a", "n": 3}),
    ("look", {"name": "ä\u0301"}),
    ("look", {"name": 1}),
    ("look", {}),
    ("look", {"name": "a", "more": 1}),
    ("look", {"name": "a", "n": -1}),
    ("look", {"name": "a", "path": "/x/../y"}),
    ("put", {"name": "a", "n": 1}),
    ("put", {"name": "b", "n": 1}),
    ("put", {"name": "a", "n": 9}),
    ("put", {"name": "a"}),
    ("put", {"name": "a", "n": 1, "path": "/x"}),
    ("fail", {"name": "a"}),
    ("raw", {"name": "a"}),
    ("other", {"name": "a"}),
    ("other", {"name": "a"}),
]
OURS = {  # what is of the way, of the moment, or names a record
    "at", "boot", "call", "decision", "duration_us", "grant", "host_id", "id", "pep", "pin",
    "policy", "seq", "side", "stream", "task", "took_us", "trace",
}  # fmt: skip


def about(name: str) -> str:
    return f"Does {name}."


def run(ran: list[Any], name: str, arguments: Mapping[str, Any]) -> str:
    ran.append((name, dict(arguments)))
    if name == "fail":
        raise ToolException("broken")
    return "done"


def reviews(review: Callable[..., Any]) -> list[Any]:
    return [
        review(name, *impact, formats={"path": "path"}, recordable=("name",))
        for name, impact in TOOLS.items()
        if impact is not None
    ]


Way = Callable[[Scene, list[Any]], Any]


def wire(name: str) -> dict[str, Any]:
    return {"name": name, "description": about(name), "inputSchema": SCHEMA}


def known_mcp(name: str, *impact: str, **review: Any) -> Any:
    return reviewed(methods.tool_of(FAR, "", wire(name)), *impact, **review)


def tool(name: str, ran: list[Any]) -> BaseTool:
    async def body(**arguments: Any) -> str:
        return run(ran, name, arguments)

    return StructuredTool(
        name=name, description=about(name), args_schema=SCHEMA, coroutine=body, func=None
    )


def known_langchain(name: str, *impact: str, **review: Any) -> Any:
    return reviewed_in_langchain(tool(name, []), *impact, server=FAR, **review)


@asynccontextmanager
async def by_langchain(scene: Scene, ran: list[Any]) -> Any:
    tools = guard([tool(name, ran) for name in TOOLS], scene.gate, server=FAR)
    ids = itertools.count()
    by_name = {each.name: each for each in tools}

    async def call(name: str, arguments: dict[str, Any]) -> bool:
        asked = {"name": name, "args": arguments, "id": f"c{next(ids)}", "type": "tool_call"}
        try:
            answer: ToolMessage = await by_name[name].ainvoke(asked)
            return answer.status == "error"
        except ToolException:
            return True

    yield call


def answered(ran: list[Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text, failed = run(ran, asked["name"], asked["arguments"]), False
    except ToolException as error:
        text, failed = str(error), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def server(ran: list[Any]) -> Server[Any]:
    async def listed(*_: Any) -> types.ListToolsResult:
        return types.ListToolsResult.model_validate({"tools": [wire(name) for name in TOOLS]})

    async def called(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        asked = {"name": params.name, "arguments": params.arguments or {}}
        return types.CallToolResult.model_validate(answered(ran, asked))

    return Server(FAR, on_list_tools=listed, on_call_tool=called)


def calling(client: Client) -> Callable[[str, dict[str, Any]], Awaitable[bool]]:
    async def call(name: str, arguments: dict[str, Any]) -> bool:
        return bool((await client.call_tool(name, arguments)).is_error)

    return call


@asynccontextmanager
async def by_middleware(scene: Scene, ran: list[Any]) -> Any:
    made = server(ran)
    made.middleware.append(GateMiddleware(scene.gate, server=FAR))
    async with Client(made) as client:
        yield calling(client)


@asynccontextmanager
async def by_client(scene: Scene, ran: list[Any]) -> Any:
    transport = guard_transport(InMemoryTransport(server(ran)), scene.gate, server=FAR)
    async with Client(transport) as client:
        yield calling(client)


@asynccontextmanager
async def by_gateway(scene: Scene, ran: list[Any]) -> Any:
    answers: list[asyncio.Future[Any]] = []

    async def to_client(raw: bytes) -> None:
        answers[-1].set_result(json.loads(raw)["result"])

    async def to_server(raw: bytes) -> None:
        asked = json.loads(raw)
        result: dict[str, Any] = {"tools": [wire(name) for name in TOOLS]}
        if asked["method"] == "tools/call":
            result = answered(ran, asked["params"])
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
        await relay.from_server(json.dumps(answer).encode())

    relay = Relay(to_client, to_server)
    relay.guard = Guard(scene.gate, FAR, pep=Pep("mcp_gateway", "gateway"), lister=relay.ask_server)

    async def call(name: str, arguments: dict[str, Any]) -> bool:
        params = {"name": name, "arguments": arguments}
        asked = {"jsonrpc": "2.0", "id": len(answers), "method": "tools/call", "params": params}
        answers.append(asyncio.get_running_loop().create_future())
        await relay.from_client(json.dumps(asked).encode())
        return bool((await asyncio.wait_for(answers[-1], WAIT)).get("isError"))

    yield call
    await relay.end()


WAYS: dict[str, Way] = {
    "middleware": by_middleware,
    "client guard": by_client,
    "gateway": by_gateway,
    "langchain": by_langchain,
}


def plain(value: Any, task: str) -> Any:
    return value.replace(task, "TASK") if isinstance(value, str) else value


async def trace(folder: Path, way: str) -> tuple[list[Any], list[Any], list[Any]]:
    folder.mkdir()
    review = known_langchain if way == "langchain" else known_mcp
    ran: list[Any] = []
    scene = Scene(folder, *reviews(review))
    try:
        async with WAYS[way](scene, ran) as call:
            with scene.task(*GRANTED, limits=LIMITS):
                failed = [await call(name, arguments) for name, arguments in CALLS]
        records = [
            {key: plain(value, body["task"]) for key, value in body.items() if key not in OURS}
            for kind in ("decision", "outcome")
            for body in scene.lines(kind)
        ]
    finally:
        scene.gate.close()
    return failed, ran, records


async def test_the_same_calls_leave_the_same_records_whichever_way_they_take(
    tmp_path: Path,
) -> None:
    failed, ran, records = await trace(tmp_path / "first", "middleware")

    codes = [each["code"] for each in records if each["kind"] == "decision"]
    assert {"permit", "input_invalid", "grant_limit", "grant_scope", "tool_unreviewed"} <= set(
        codes
    )
    assert len(codes) == len(CALLS)
    assert 0 < len(ran) < len(CALLS)
    for way in WAYS:
        again = await trace(tmp_path / way.replace(" ", "-"), way)
        assert again[0] == failed, way
        assert again[1] == ran, way
        for mine, theirs, call in zip(records, again[2], CALLS * 2, strict=False):
            assert theirs == mine, (way, call)
        assert len(again[2]) == len(records), way
