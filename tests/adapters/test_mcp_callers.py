"""Over HTTP a call runs under the task of its authenticated caller."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.shared.exceptions import MCPError
from pydantic import AnyHttpUrl

from lictor.errors import TaskError
from lictor.testing import UnsafeAllowAll, reviewed
from lictor_langchain.testing import Scene
from lictor_mcp import GateMiddleware, callers, methods
from lictor_mcp.callers import Caller, Callers, of_token

pytestmark = pytest.mark.asyncio
ERAS = ["legacy", "auto"]
WAIT = 20.0
SETTINGS = {"tasks": {"notes": {"tools": ["notes/look", "notes/put"], "calls": 3}}}
NAME = {
    "type": "object",
    "properties": {"name": {"title": "Name", "type": "string"}},
    "required": ["name"],
}


class Verifier:
    """Knows its tokens by heart."""

    async def verify_token(self, token: str) -> AccessToken | None:
        if token not in ("alice", "bob", "carol", ""):
            return None
        claims = {"iss": "https://issuer.example"}
        return AccessToken(
            token=token, client_id="app", scopes=[], subject=token, claims=claims, resource=URL
        )


URL = "http://127.0.0.1:1/mcp"


def offer(server: MCPServer[Any], ran: list[str]) -> None:
    @server.tool(structured_output=False)
    def look(name: str) -> str:
        """Reads a note."""
        ran.append(f"look {name}")
        return "note"

    @server.tool(structured_output=False)
    def put(name: str) -> str:
        """Writes a note."""
        ran.append(f"put {name}")
        return "wrote"


def known(server: MCPServer[Any]) -> list[Any]:
    found = []
    for info in server._tool_manager.list_tools():
        wire = {
            "name": info.name,
            "description": info.description,
            "inputSchema": info.parameters,
        }
        impact = "write" if info.name == "put" else "read"
        found.append(reviewed(methods.tool_of("notes", "", wire), impact))
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    server = MCPServer("notes")
    offer(server, [])
    made = Scene(tmp_path, *known(server), policy=UnsafeAllowAll(), settings=SETTINGS)
    yield made
    made.gate.close()


@asynccontextmanager
async def serving(scene: Scene, *, auth: bool = True, **options: Any) -> AsyncIterator[Any]:
    """A server over HTTP, and how to reach it as somebody."""
    ran: list[str] = []
    middleware = GateMiddleware(scene.gate, server="notes", **options)
    security: dict[str, Any] = {}
    if auth:
        security["token_verifier"] = Verifier()
        security["auth"] = AuthSettings(
            issuer_url=AnyHttpUrl("https://issuer.example"),
            resource_server_url=AnyHttpUrl(URL),
            validate_token_resource=True,
        )
    server = MCPServer("notes", middleware=[middleware], **security)
    offer(server, ran)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on")
    listener = socket.create_server(("127.0.0.1", 0))
    http = uvicorn.Server(config)
    task = asyncio.create_task(http.serve([listener]))
    where = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"

    @asynccontextmanager
    async def reach(era: str, token: str = "") -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            httpx2.AsyncClient(headers=headers) as sender,
            Client(streamable_http_client(where, http_client=sender), mode=era) as client,
        ):
            yield client

    while not http.started:
        await asyncio.sleep(0.01)
    try:
        yield reach, ran
    finally:
        http.should_exit = True
        await asyncio.wait_for(task, WAIT)
        middleware.close()


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_is_under_the_task_of_its_caller(scene: Scene, era: str) -> None:
    async with serving(scene, agent="bot", task="notes") as (reach, ran):
        for token in ("alice", "bob"):
            async with reach(era, token) as client:
                assert not (await client.call_tool("put", {"name": token})).is_error

    assert ran == ["put alice", "put bob"]
    people = [str(line["chain"][0]).rpartition(":")[2] for line in scene.lines("decision")]
    assert people == ["local/alice", "local/bob"]


@pytest.mark.attack("X33")
@pytest.mark.parametrize("era", ERAS)
async def test_a_new_connection_is_no_new_budget(scene: Scene, era: str) -> None:
    codes = []
    async with serving(scene, agent="bot", task="notes") as (reach, ran):
        for n in range(4):
            async with reach(era, "alice") as client:
                codes.append((await client.call_tool("look", {"name": str(n)})).is_error)
        async with reach(era, "bob") as client:
            codes.append((await client.call_tool("look", {"name": "bob"})).is_error)

    assert codes == [False, False, False, True, False]
    assert ran == ["look 0", "look 1", "look 2", "look bob"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_caller_that_the_directory_does_not_know_gets_nothing(
    scene: Scene, era: str
) -> None:
    async with serving(scene, agent="bot", task="notes") as (reach, ran):
        with pytest.raises((MCPError, ExceptionGroup)):
            async with reach(era, "carol") as client:
                await client.call_tool("look", {"name": "a"})

    assert ran == []
    assert set(scene.codes()) == {"principal_unknown"}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("adopted", [True, False])
async def test_without_an_authenticated_caller_at_most_reads_pass(
    scene: Scene, era: str, adopted: bool
) -> None:
    if adopted:
        task = scene.gate.task("notes", agent="bot", on_behalf_of="alice")
        scene.gate.adopt(task)
    async with serving(scene, auth=False, agent="bot", task="notes") as (reach, ran):
        async with reach(era) as client:
            read = await client.call_tool("look", {"name": "a"})
            written = await client.call_tool("put", {"name": "a"})

    assert (read.is_error, written.is_error) == (not adopted, True)
    assert ran == (["look a"] if adopted else [])


class Request:
    def __init__(self, scope: Any) -> None:
        self.scope = scope


class User:
    def __init__(self, token: Any) -> None:
        self.access_token = token


@pytest.mark.parametrize(
    "scope",
    [None, {}, {"user": None}, {"user": User(None)}, {"user": User(object())}]
    + [{"user": User(AccessToken(token="t", client_id="c", scopes=[], subject=each))}
       for each in (None, "")],
)  # fmt: skip
async def test_what_names_no_subject_is_nobody(scope: Any) -> None:
    assert of_token(Request(scope)) is None
    assert of_token(None) is None


async def test_tasks_of_callers_are_bounded_and_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_CALLERS", 2)
    made = Callers(scene.gate, "bot", "notes")
    alice = await made.task(Caller("alice", "a"))
    assert await made.task(Caller("alice", "a")) is alice
    other = await made.task(Caller("alice", "b"))  # of another issuer
    assert other is not alice
    await made.task(Caller("bob"))
    assert alice.state == "ended"
    other.end()
    again = await made.task(Caller("alice", "b"))
    assert again is not other
    with pytest.raises(TaskError):
        await made.task(Caller("carol"))
    made.end()
    assert again.state == "ended"
