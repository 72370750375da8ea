"""Asking at the client: a yes lets exactly one call run, once; everything else lets none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lictor import audit
from lictor.model import Pep, ToolKey
from lictor.ports import Ask, Reply
from lictor.testing import gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp.gateway import asking as module
from lictor_mcp.gateway.asking import CAPABILITIES, KEY, Asked, Asking, Direct
from lictor_mcp.guard import Guard
from lictor_mcp.relay import Relay
from lictor_mcp.wire import Message, parse

WAIT = 20.0
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}}
TOOL = {"name": "put", "description": "Puts.", "inputSchema": SCHEMA}
META = {m.VERSION: "2026-07-28", CAPABILITIES: {"elicitation": {}}}


class Wired:
    """A relay with a client that reads here and a server that runs what it is sent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asking = folder, Asked(Direct(self.to_client))
        known = reviewed(m.tool_of("s", "it", TOOL), "write")
        self.gate = gate_for(folder, [known], approvals=Asking())
        self.gate.adopt(self.gate.task(agent="bot", on_behalf_of="alice", tools=["s/put"]))
        self.relay = Relay(self.to_client, self.to_server)
        self.relay.guard = Guard(
            self.gate, "s", identity="it", pep=Pep("x", "x"), lister=self.relay.ask_server
        )
        self.relay.asking = self.asking
        self.came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.ran: list[str] = []

    async def to_client(self, raw: bytes) -> None:
        await self.came.put(json.loads(raw))

    async def to_server(self, raw: bytes) -> None:
        got = json.loads(raw)
        if "id" not in got:
            return
        result: dict[str, Any] = {"capabilities": {}}
        if got["method"] == "tools/list":
            result = {"tools": [TOOL]}
        if got["method"] == "tools/call":
            self.ran.append(got["params"]["arguments"]["to"])
            result = {"content": [{"type": "text", "text": "done"}]}
        answer = json.dumps({"jsonrpc": "2.0", "id": got["id"], "result": result})
        await self.relay.from_server(answer.encode())

    async def say(self, **value: Any) -> None:
        await self.relay.from_client(json.dumps({"jsonrpc": "2.0", **value}).encode())

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            return await self.came.get()

    async def ask(self, id: int, method: str = "tools/call", **params: Any) -> dict[str, Any]:
        await self.say(id=id, method=method, params=params)
        return await self.next()

    async def greet(self, capabilities: dict[str, Any]) -> None:
        await self.ask(0, "initialize", capabilities=capabilities)

    async def question(self, id: int = 1) -> dict[str, Any]:
        """The stateless protocol's question about putting to alice."""
        found = await self.ask(id, name="put", arguments={"to": "alice"}, _meta=META)
        assert found["id"] == id
        result: dict[str, Any] = found["result"]
        assert result["resultType"] == "input_required"
        return result

    async def back(self, result: dict[str, Any], reply: Any, id: int = 2, **more: Any) -> Any:
        params = {"name": "put", "arguments": {"to": "alice"}, "_meta": META, **more}
        state = {"requestState": result["requestState"], "inputResponses": {KEY: reply}}
        found = await self.ask(id, **{**params, **state})
        assert found["id"] == id
        return found.get("result", found.get("error"))

    def answers(self) -> list[tuple[object, ...]]:
        self.gate.close()
        lines = audit.records(self.folder / "lictor.db", audit.Filters(kind="answer"))
        return [tuple(each.body[k] for k in ("verdict", "channel", "evidence")) for each in lines]


@pytest_asyncio.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Wired]:
    made = Wired(tmp_path)
    yield made
    await made.asking.end()
    await made.relay.end()
    made.gate.close()


YES = {"action": "accept", "content": {"allow": True}}
NOT_YES = [
    {"action": "accept", "content": {"allow": False}},
    {"action": "accept", "content": {"allow": "true"}},
    {"action": "accept", "content": {"allow": 1}},
    {"action": "accept"},
    {"action": "decline"},
    {"action": "cancel"},
    {"allow": True},
    {},
    None,
    [],
]


@pytest.mark.asyncio
async def test_the_older_protocol_asks_meanwhile(wired: Wired) -> None:
    await wired.greet({"elicitation": {}})
    question = await wired.ask(1, name="put", arguments={"to": "alice"})
    assert question["method"] == "elicitation/create"
    text = question["params"]["message"]
    assert "s/put wants to run  (write)" in text
    assert 'to = "alice"' in text
    assert wired.ran == []
    await wired.say(id=question["id"], result=YES)
    assert (await wired.next())["result"]["content"][0]["text"] == "done"
    assert wired.ran == ["alice"]
    assert wired.answers() == [("granted", "mcp", False)]


@pytest.mark.parametrize("reply", NOT_YES)
@pytest.mark.asyncio
async def test_anything_but_a_plain_yes_is_a_no(wired: Wired, reply: Any) -> None:
    await wired.greet({"elicitation": {"form": {}}})
    question = await wired.ask(1, name="put", arguments={"to": "alice"})
    await wired.say(id=question["id"], result=reply)
    assert (await wired.next())["result"]["isError"] is True
    stateless = await wired.ask(2, name="put", arguments={"to": "bob"}, _meta=META)
    told = await wired.back(stateless["result"], reply, 3, arguments={"to": "bob"})
    assert told["isError"] is True
    assert wired.ran == []


@pytest.mark.asyncio
async def test_the_stateless_protocol_answers_with_the_question_and_runs_what_was_asked(
    wired: Wired,
) -> None:
    asked = await wired.question()
    assert asked["inputRequests"][KEY]["method"] == "elicitation/create"
    assert wired.ran == []
    assert (await wired.back(asked, YES))["content"][0]["text"] == "done"
    assert wired.ran == ["alice"]


@pytest.mark.asyncio
async def test_a_state_counts_once(wired: Wired) -> None:
    asked = await wired.question()
    await wired.back(asked, YES)
    assert "no longer open" in (await wired.back(asked, YES, 3))["message"]
    assert wired.ran == ["alice"]


@pytest.mark.parametrize(
    "more",
    [{"arguments": {"to": "mallory"}}, {"arguments": {}}, {"name": "other"}, {"task": {}}],
)
@pytest.mark.asyncio
async def test_a_yes_to_one_call_is_none_to_another(wired: Wired, more: dict[str, Any]) -> None:
    asked = await wired.question()
    assert "not the request" in (await wired.back(asked, YES, **more))["message"]
    assert "no longer open" in (await wired.back(asked, YES, 3))["message"]
    assert wired.ran == []


@pytest.mark.parametrize("state", ["lictor-guess", "lictor-", "theirs", "", None])
@pytest.mark.asyncio
async def test_a_yes_without_the_state_of_a_question_counts_for_nothing(
    wired: Wired, state: str | None
) -> None:
    more = {} if state is None else {"requestState": state}
    told = await wired.ask(
        1,
        name="put",
        arguments={"to": "alice"},
        _meta=META,
        inputResponses={KEY: YES},
        **more,
    )
    assert wired.ran == []
    refused = "error" in told
    assert refused == bool(state and state.startswith("lictor-"))
    assert refused or told["result"]["resultType"] == "input_required"


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}, {"elicitation": True}])
@pytest.mark.asyncio
async def test_a_client_that_shows_no_forms_is_not_asked(
    wired: Wired, capabilities: dict[str, Any]
) -> None:
    await wired.greet(capabilities)
    told = await wired.ask(1, name="put", arguments={"to": "alice"})
    assert told["result"]["isError"] is True
    meta = {m.VERSION: "2026-07-28", CAPABILITIES: capabilities}
    told = await wired.ask(2, name="put", arguments={"to": "alice"}, _meta=meta)
    assert told["result"]["isError"] is True
    assert wired.ran == []


@pytest.mark.asyncio
async def test_a_question_that_nobody_comes_back_to_ends_and_is_open_no_more(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    asked = await wired.question()
    async with asyncio.timeout(WAIT):
        while wired.asking.open:
            await asyncio.sleep(0.01)
    assert "no longer open" in (await wired.back(asked, YES))["message"]
    assert wired.ran == []


@pytest.mark.asyncio
async def test_a_client_that_takes_its_request_back_ends_the_question(wired: Wired) -> None:
    await wired.greet({"elicitation": {}})
    question = await wired.ask(1, name="put", arguments={"to": "alice"})
    await wired.say(method="notifications/cancelled", params={"requestId": 1})
    await wired.relay.drain(WAIT)
    await wired.say(id=question["id"], result=YES)
    assert wired.ran == []


class Scripted:
    """A request that asks as often as it is told to."""

    def __init__(self, times: int) -> None:
        self.times, self.replies = times, list[Reply]()
        self.client = Asked(Direct(self.say))

    async def say(self, raw: bytes) -> None:
        raise ConnectionError("the client is not there")

    async def ask(self, message: Message, came: list[Message]) -> dict[str, Any]:
        for _ in range(self.times):
            self.replies.append(await asyncio.to_thread(Asking().answer, question()))
        return {"states": [each.state for each in self.replies]}

    async def reply(self, **more: Any) -> dict[str, Any]:
        params = {"name": "put", "arguments": {}, "_meta": META, **more}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with asyncio.timeout(WAIT):
            raw = await self.client.reply(parse(json.dumps(request).encode()), self.ask)
        found: dict[str, Any] = json.loads(raw)["result"]
        return found


def question() -> Ask:
    return Ask(
        ("confirm:user",), "c", "d", "t", "local", "alice", "bot", ToolKey("s", "put"), {"a": 1}
    )


@pytest.mark.asyncio
async def test_each_round_has_a_question_and_a_state_of_its_own_and_there_are_three() -> None:
    request, states = Scripted(times=4), []
    found = await request.reply()
    while "requestState" in found:
        states.append(found["requestState"])
        found = await request.reply(requestState=states[-1], inputResponses={KEY: YES})

    assert len({*states}) == len(states) == 3
    assert found["states"] == ["granted"] * 3 + ["unavailable"]


@pytest.mark.asyncio
async def test_a_client_that_left_its_request_has_not_answered() -> None:
    request = Scripted(times=1)
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
    params = {"capabilities": {"elicitation": {}}}

    async def nothing(message: Message, came: list[Message]) -> dict[str, Any]:
        return {}

    await request.client.reply(parse(json.dumps({**hello, "params": params}).encode()), nothing)
    found = await request.reply(_meta={})

    assert found["states"] == ["expired"]


@pytest.mark.attack("X33")
@pytest.mark.asyncio
async def test_a_state_of_one_client_is_none_of_another(wired: Wired) -> None:
    asked = await wired.question()
    mine, hers = wired.relay.asking, Asked(Direct(wired.to_client))
    wired.relay.asking = hers
    stolen = await wired.back(asked, YES)
    wired.relay.asking = mine

    assert "no longer open" in stolen["message"]
    assert wired.ran == []
    assert (await wired.back(asked, YES, 3))["content"][0]["text"] == "done"


@pytest.mark.asyncio
async def test_a_client_has_so_many_open_questions_and_no_more(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 1)
    first = await wired.question()
    second = await wired.ask(2, name="put", arguments={"to": "bob"}, _meta=META)

    assert second["result"]["isError"] is True
    assert (await wired.back(first, YES, 3))["content"][0]["text"] == "done"
    assert wired.ran == ["alice"]


@pytest.mark.attack("X112")
@pytest.mark.asyncio
async def test_a_call_is_asked_about_whatever_its_task_holds(wired: Wired) -> None:
    task = {"x": "\ud800"}
    asked = await wired.ask(1, name="put", arguments={"to": "alice"}, _meta=META, task=task)
    assert asked["result"]["resultType"] == "input_required"
    told = await wired.back(asked["result"], YES, task=task)
    assert told["content"][0]["text"] == "done"
    assert wired.ran == ["alice"]


@pytest.mark.attack("X33")
@pytest.mark.parametrize("other", [1.0, True, "1", None, [1]])
@pytest.mark.asyncio
async def test_a_yes_to_one_task_is_none_to_another_that_looks_alike(
    wired: Wired, other: object
) -> None:
    task = {"ttl": 1}
    asked = await wired.ask(1, name="put", arguments={"to": "alice"}, _meta=META, task=task)
    told = await wired.back(asked["result"], YES, task={"ttl": other})
    assert "not the request" in told["message"]
    assert wired.ran == []
