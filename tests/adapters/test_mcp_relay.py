"""The relay: who waits for what, and that nothing waits for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lictor.model import Pep
from lictor.testing import gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp import waiting as module
from lictor_mcp.guard import Guard
from lictor_mcp.relay import Relay
from lictor_mcp.waiting import MAX_UNDER_WAY

WAIT = 20.0
TOOL = {"name": "look", "inputSchema": {"type": "object"}}


class Wired:
    """A relay whose server answers only when it is told to."""

    def __init__(self, folder: Path) -> None:
        known = [
            reviewed(m.tool_of("s", "", TOOL)),
            reviewed(m.method_tool("s", "roots/list")),
        ]
        self.gate = gate_for(folder, known)
        names = ["s/look", "s/mcp:roots/list"]
        self.gate.adopt(self.gate.task(agent="bot", on_behalf_of="alice", tools=names))
        self.relay = Relay(self._to_client, self._to_server)
        self.relay.guard = Guard(self.gate, "s", pep=Pep("x", "x"), lister=self.relay.ask_server)
        self.client: asyncio.Queue[bytes] = asyncio.Queue()
        self.server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def _to_client(self, raw: bytes) -> None:
        await self.client.put(raw)

    async def _to_server(self, raw: bytes) -> None:
        got = json.loads(raw)
        if got.get("method") == "tools/list":
            await self.answer(got["id"], {"tools": [TOOL]})
        else:
            await self.server.put(got)

    async def answer(self, id: object, result: Any, **more: Any) -> bytes:
        raw = json.dumps({"jsonrpc": "2.0", "id": id, "result": result, **more}).encode()
        await self.relay.from_server(raw)
        return raw

    async def call(self, id: object, **params: Any) -> None:
        value = {"jsonrpc": "2.0", "id": id, "method": "tools/call"}
        await self.say(**value, params={"name": "look", **params})

    async def say(self, **value: Any) -> None:
        await self.relay.from_client(json.dumps({"jsonrpc": "2.0", **value}).encode())

    async def heard(self) -> Any:
        async with asyncio.timeout(WAIT):
            return json.loads(await self.client.get())

    async def sent(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            return await self.server.get()


@pytest_asyncio.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Wired]:
    made = Wired(tmp_path)
    yield made
    await made.relay.end()
    made.gate.close()


@pytest.mark.asyncio
async def test_a_full_house_still_hears_what_the_server_asks_and_the_client_answers(
    wired: Wired,
) -> None:
    for number in range(MAX_UNDER_WAY + 10):
        await wired.call(number)
    under_way = [(await wired.sent())["id"] for _ in range(MAX_UNDER_WAY)]
    await wired.relay.from_server(b'{"jsonrpc":"2.0","id":1,"method":"roots/list"}')
    assert (await wired.heard())["method"] == "roots/list"
    await wired.say(id=1, result={"roots": []})
    assert (await wired.sent())["result"] == {"roots": []}
    for number in under_way:
        await wired.answer(number, {"content": []})
    rest = {(await wired.sent())["id"] for _ in range(10)}
    assert rest == set(range(MAX_UNDER_WAY + 10)) - set(under_way)


@pytest.mark.asyncio
async def test_what_waits_has_a_bound(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 300)
    await wired.call(1)
    await wired.sent()
    await wired.call(2, _meta={"x": "y" * 300})
    refused = await wired.heard()
    assert (refused["id"], refused["error"]["message"]) == (2, "too many requests are under way")
    await wired.answer(1, {"content": []})
    assert (await wired.heard())["id"] == 1
    await wired.call(3)
    assert (await wired.sent())["id"] == 3


@pytest.mark.parametrize("id", ["lictor-", "lictor-0123456789abcdef-1"])
@pytest.mark.asyncio
async def test_an_id_that_could_be_ours_is_no_clients(wired: Wired, id: str) -> None:
    await wired.call(id)
    assert (await wired.heard())["error"]["message"] == "this id is taken"


@pytest.mark.asyncio
async def test_an_id_under_way_is_blocked_and_its_type_counts(wired: Wired) -> None:
    await wired.call(1)
    await wired.call("1")
    await wired.call(1)
    assert (await wired.heard())["error"]["message"] == "a request with this id is under way"
    assert [(await wired.sent())["id"] for _ in range(2)] == [1, "1"]
    await wired.answer(True, {"content": []})
    await wired.answer("1", {"content": [{"type": "text", "text": "text"}]})
    await wired.answer(1, {"content": [{"type": "text", "text": "number"}]})
    found = [await wired.heard() for _ in range(2)]
    assert {each["id"]: each["result"]["content"][0]["text"] for each in found} == {
        "1": "text",
        1: "number",
    }


@pytest.mark.parametrize("result", [None, "text", ["content"], 5])
@pytest.mark.asyncio
async def test_a_result_that_is_none_of_the_protocols_does_not_pass(
    wired: Wired, result: Any
) -> None:
    await wired.call(1)
    await wired.sent()
    await wired.answer(1, result)
    assert (await wired.heard())["error"]["message"] == "The server's result is no object."


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_read_is_an_error_and_not_a_wait(wired: Wired) -> None:
    await wired.call(1)
    await wired.sent()
    await wired.answer(1, {"content": []}, extra=1)
    told = await wired.heard()
    assert told["error"]["message"].startswith("The server's answer cannot be read.")
