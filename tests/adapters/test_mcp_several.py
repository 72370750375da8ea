"""Several servers behind one gateway: every name says whose it is."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor import audit
from lictor.gate import Gate
from lictor.testing import gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp.gateway.child import environment
from lictor_mcp.gateway.stdio import StdioGateway
from lictor_mcp.gateway.upstream import Server

WAIT = 20.0
SERVER = """
import json, sys
me = sys.argv[1]
def send(value): sys.stdout.write(json.dumps(value) + "\\n"); sys.stdout.flush()
for line in sys.stdin:
    got = json.loads(line)
    method, id, params = got.get("method"), got.get("id"), got.get("params") or {}
    if id is None or method is None: continue
    elif method == "initialize":
        result = {"protocolVersion": "2025-11-25" if me == "a" else "2025-06-18",
                  "capabilities": {"tools": {}, **({"resources": {}} if me == "b" else {})},
                  "serverInfo": {"name": me, "version": "1"}}
    elif method == "tools/list":
        first = "cursor" not in params
        names = ["same"] if first else ["b__same" if me == "a" else "more"]
        schema = {"type": "object", "properties": {"ask": {"type": "boolean"}}}
        result = {"tools": [{"name": n, "inputSchema": schema} for n in names],
                  **({"nextCursor": "2"} if first else {})}
    elif method == "resources/list":
        uris = ["x://shared", f"x://{me}"]
        result = {"resources": [{"uri": uri, "name": uri} for uri in uris]}
    elif method == "resources/templates/list":
        result = {"resourceTemplates": [{"uriTemplate": f"{me}://notes/{{id}}", "name": "t"}]}
    elif method == "resources/read":
        result = {"contents": [{"uri": params["uri"], "text": f"{me} read"}]}
    elif method == "tools/call":
        if params.get("arguments", {}).get("ask"):
            send({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})
            told = json.loads(sys.stdin.readline())
            text = json.dumps([told["id"], told["result"]["roots"]])
        else:
            text = me + " " + params["name"]
        result = {"content": [{"type": "text", "text": text}]}
        if params["arguments"].get("ask") is False:
            result["task"] = {"taskId": "t-1", "status": "working"}
    elif method == "tasks/get":
        result = {"taskId": params["taskId"], "status": f"working at {me}"}
    else:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})
        continue
    send({"jsonrpc": "2.0", "id": id, "result": result})
"""


def offered(server: str, name: str) -> Any:
    schema = {"type": "object", "properties": {"ask": {"type": "boolean"}}}
    return reviewed(m.tool_of(server, "it", {"name": name, "inputSchema": schema}))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    known = [
        *(offered(each, "same") for each in ("a", "b")),
        offered("a", "b__same"),
        *(reviewed(m.method_tool(each, "resources/read")) for each in ("a", "b")),
        *(reviewed(m.method_tool(each, "roots/list")) for each in ("a", "b")),
    ]
    made = gate_for(tmp_path, known)
    names = [str(each.review.key) for each in known]
    made.adopt(made.task(agent="bot", on_behalf_of="alice", tools=names))
    yield made
    made.close()


class Said:
    """What a gateway says to a client that asks these things one after another."""

    def __init__(self, gate: Gate, folder: Path, *names: str) -> None:
        script = folder / "server.py"
        script.write_text(SERVER)
        self.out: list[dict[str, Any]] = []
        servers = [
            Server(name, [sys.executable, str(script), name], environment(), identity="it")
            for name in names or ("a", "b")
        ]
        self._gateway = StdioGateway.of(gate, servers)

    async def __call__(self, *requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def to_client(raw: bytes) -> None:
            value = json.loads(raw)
            if value.get("method") == "roots/list":
                answer = {"jsonrpc": "2.0", "id": value["id"], "result": {"roots": [value["id"]]}}
                await front.from_client(json.dumps(answer).encode())
            elif "id" in value:
                await sent.put(value)

        front = self._gateway._front
        front._to_client = front._under_way._send = to_client
        for each in self._gateway._upstreams:
            each.relay._to_client = to_client
        running = [asyncio.create_task(each.run()) for each in self._gateway._upstreams]
        try:
            found = []
            async with asyncio.timeout(WAIT):
                for number, (method, params) in enumerate(requests):
                    value = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                    await front.from_client(json.dumps(value).encode())
                    found.append(await sent.get())
            return found
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await front.end()
            for each in self._gateway._upstreams:
                await each.end()


WHO = {"name": "test", "version": "1"}
HELLO = ("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": WHO})


def call(name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": name, "arguments": arguments}


@pytest.mark.attack("X02", "X38")
@pytest.mark.asyncio
async def test_a_name_says_whose_it_is_and_none_stands_for_anothers(
    gate: Gate, tmp_path: Path
) -> None:
    hello, listed, *told = await Said(gate, tmp_path)(
        HELLO,
        ("tools/list", {}),
        call("a__same"),
        call("b__same"),
        call("a__b__same"),
        call("same"),
        call("c__same"),
    )
    assert [each["name"] for each in listed["result"]["tools"]] == [
        "a__same",
        "a__b__same",
        "b__same",
        "b__lictor_pending",
    ]
    texts = [each["result"]["content"][0]["text"] for each in told[:3]]
    assert texts == ["a same", "b same", "a b__same"]
    assert [each["error"]["code"] for each in told[3:]] == [-32602, -32602]
    assert hello["result"]["protocolVersion"] == "2025-06-18"
    assert hello["result"]["capabilities"] == {"tools": {}, "resources": {}}
    gate.close()
    lines = audit.records(tmp_path / "lictor.db", audit.Filters(kind="decision"))
    refused = [each.body["detail"] for each in lines if each.body["code"] == "tool_unknown"]
    assert refused == ["There is no such tool or prompt."] * 2


@pytest.mark.asyncio
async def test_a_resource_is_read_from_the_server_that_offers_it_and_what_two_offer_is_nobodys(
    gate: Gate, tmp_path: Path
) -> None:
    _, listed, *told = await Said(gate, tmp_path)(
        HELLO,
        ("resources/list", {}),
        ("resources/read", {"uri": "x://a"}),
        ("resources/read", {"uri": "b://notes/7"}),
        ("resources/read", {"uri": "x://shared"}),
        ("resources/read", {"uri": "y://none"}),
    )
    assert [each["uri"] for each in listed["result"]["resources"]] == ["x://a", "x://b"]
    texts = [each["result"]["contents"][0]["text"] for each in told[:2]]
    assert texts == ["a read", "b read"]
    problems = [each["error"]["message"] for each in told[2:]]
    assert problems == ["two servers offer this resource", "no server offers it"]


@pytest.mark.asyncio
async def test_servers_that_ask_the_client_under_one_id_get_their_own_answers(
    gate: Gate, tmp_path: Path
) -> None:
    *_, first, second = await Said(gate, tmp_path)(
        HELLO, call("a__same", ask=True), call("b__same", ask=True)
    )
    heard = [json.loads(each["result"]["content"][0]["text"]) for each in (first, second)]
    assert [each[0] for each in heard] == [1, 1]
    assert [each[1][0].rpartition("-")[0] for each in heard] == ["lictor-a", "lictor-b"]


@pytest.mark.asyncio
async def test_a_server_that_cannot_be_started_leaves_the_others_as_they_are(
    gate: Gate, tmp_path: Path
) -> None:
    said = Said(gate, tmp_path)
    said._gateway._upstreams[0]._child._command = ("/no/such/program",)
    _, listed, told = await said(HELLO, ("tools/list", {}), call("b__same"))
    assert {each["name"][0] for each in listed["result"]["tools"]} == {"b"}
    assert told["result"]["content"][0]["text"] == "b same"


@pytest.mark.attack("X55")
@pytest.mark.asyncio
async def test_a_task_id_that_two_servers_give_is_the_first_ones(
    gate: Gate, tmp_path: Path
) -> None:
    """Else a server could have its answers taken for those of another's task."""
    _, first, second, got = await Said(gate, tmp_path)(
        HELLO,
        call("a__same", ask=False),
        call("b__same", ask=False),
        ("tasks/get", {"taskId": "t-1"}),
    )
    assert "result" in first
    assert second["error"]["message"].startswith("Two servers gave one task id")
    assert got["result"]["status"] == "working at a"


MODERN = """
import sys
from mcp.server import MCPServer
server = MCPServer(sys.argv[1])

@server.tool(structured_output=False)
def same(ask: bool = False) -> str:
    return f"{sys.argv[1]} runs"

@server.resource(f"{sys.argv[1]}://note")
def note() -> str:
    return f"{sys.argv[1]} reads"

server.run("stdio")
"""
STATELESS = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def modern(*requests: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(method, {**params, "_meta": STATELESS}) for method, params in requests]


class Open:
    """A gate whose reviewer accepts what real servers list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def said(self, how: Callable[[Said], None], *requests: Any) -> list[dict[str, Any]]:
        """Meets what is offered, reviews it, and asks again."""
        for number in range(2):
            folder = self.folder / str(number)
            folder.mkdir()
            known = [reviewed(each) for each in self.met] if number else []
            gate = gate_for(folder, known)
            names = [str(each.review.key) for each in known]
            gate.adopt(gate.task(agent="bot", on_behalf_of="alice", tools=names or None))
            said = Said(gate, folder)
            how(said)
            answers = await said(*requests)
            self.met = [each for each in gate._met.values() if "mcp:server" not in str(each.key)]
            gate.close()
        return answers


def runs(which: dict[str, str]) -> Callable[[Said], None]:
    """Servers of these kinds."""

    def how(said: Said) -> None:
        for each in said._gateway._upstreams:
            kind = which[each.server.name]
            command = {
                "modern": (sys.executable, "-c", MODERN, each.server.name),
                "old": each.server.command,
                "dead": ("/no/such/program",),
            }[kind]
            each._child._command = tuple(command)

    return how


@pytest.mark.asyncio
async def test_two_servers_of_the_stateless_protocol_are_one(tmp_path: Path) -> None:
    pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")
    found, listed, first, second, read = await Open(tmp_path).said(
        runs({"a": "modern", "b": "modern"}),
        *modern(
            ("server/discover", {}),
            ("tools/list", {}),
            call("a__same"),
            call("b__same"),
            ("resources/read", {"uri": "b://note"}),
        ),
    )
    assert "2026-07-28" in found["result"]["supportedVersions"]
    assert found["result"]["resultType"] == listed["result"]["resultType"] == "complete"
    assert [each["name"] for each in listed["result"]["tools"]] == ["a__same", "b__same"]
    texts = [each["result"]["content"][0]["text"] for each in (first, second)]
    assert texts == ["a runs", "b runs"]
    assert read["result"]["contents"][0]["text"] == "b reads"


@pytest.mark.asyncio
async def test_beside_a_server_of_the_older_protocol_all_are_spoken_to_in_that(
    tmp_path: Path,
) -> None:
    """A client that is told so greets in the older one."""
    pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")
    refused, hello, listed, first, second = await Open(tmp_path).said(
        runs({"a": "modern", "b": "old"}),
        *modern(("server/discover", {})),
        HELLO,
        ("tools/list", {}),
        call("a__same"),
        call("b__same"),
    )
    assert refused["error"]["code"] == -32601
    assert hello["result"]["protocolVersion"] == "2025-06-18"
    assert [each["name"] for each in listed["result"]["tools"]] == ["a__same", "b__same", "b__more"]
    texts = [each["result"]["content"][0]["text"] for each in (first, second)]
    assert texts == ["a runs", "b same"]


@pytest.mark.asyncio
async def test_a_server_of_the_stateless_protocol_goes_on_beside_a_dead_one(tmp_path: Path) -> None:
    pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")
    found, listed, told, dead = await Open(tmp_path).said(
        runs({"a": "dead", "b": "modern"}),
        *modern(("server/discover", {}), ("tools/list", {}), call("b__same"), call("a__same")),
    )
    assert [each["name"] for each in listed["result"]["tools"]] == ["b__same"]
    assert told["result"]["content"][0]["text"] == "b runs"
    assert found["error"]["code"] == -32601  # who is gone could come back speaking the older one
    assert dead["error"]["message"] == "The server is not there."
