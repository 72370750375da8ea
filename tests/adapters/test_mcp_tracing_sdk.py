"""One trace through the parts that people use: the SDK's client and server, and ours around them.

The SDK makes spans of its own, with the provider of the process: this file sets one for all of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

PROGRAM = '''
import asyncio, json, sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp import Client
from mcp.server import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lictor import audit
from lictor.model import Pep
from lictor.testing import UnsafeAllowAll, gate_for, reviewed
from lictor_mcp import methods
from lictor_mcp.client import guard_transport
from lictor_mcp.gateway.pending import GatewayGuard
from lictor_mcp.relay import Relay
from lictor_mcp.server import GateMiddleware

HOW, ERA, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
out = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(out))
trace.set_tracer_provider(provider)


def offer(server):
    @server.tool()
    def look(name: str) -> str:
        """Reads a note."""
        return f"note {name}"


def gate_of(place):
    shown = MCPServer("notes")
    offer(shown)
    known = []
    for info in shown._tool_manager.list_tools():
        wire = {"name": info.name, "description": info.description,
                "inputSchema": info.parameters, "outputSchema": info.output_schema}
        known.append(reviewed(methods.tool_of("notes", "", wire)))
    folder = FOLDER / place
    folder.mkdir()
    gate = gate_for(folder, known, policy=UnsafeAllowAll())
    gate.adopt(gate.task(agent="bot", on_behalf_of="alice"))
    return gate


def raw(item):
    return item.message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def item(line):
    return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))


@asynccontextmanager
async def behind(gate, server):
    """A transport to a server behind the relay of the stdio gateway."""
    to_agent, agent_reads = anyio.create_memory_object_stream(100)
    agent_writes, from_agent = anyio.create_memory_object_stream(100)
    to_server, server_reads = anyio.create_memory_object_stream(100)
    server_writes, from_server = anyio.create_memory_object_stream(100)

    async def up(line):
        await to_agent.send(item(line))

    async def down(line):
        await to_server.send(item(line))

    relay = Relay(up, down, trace=HOW)
    relay.guard = GatewayGuard(
        gate, "notes", pep=Pep("mcp_gateway", "gateway"), lister=relay.ask_server
    )

    async def pump(stream, take):
        async for each in stream:
            await take(raw(each))

    low = server._lowlevel_server
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(pump(from_agent, relay.from_client)),
            group.create_task(pump(from_server, relay.from_server)),
            group.create_task(low.run(
                server_reads, server_writes, low.create_initialization_options()
            )),
        ]
        yield agent_reads, agent_writes
        await relay.end()
        for each in tasks:
            each.cancel()
    for each in (to_agent, agent_reads, agent_writes, from_agent,
                 to_server, server_reads, server_writes, from_server):
        each.close()


async def main():
    agent, gateway = gate_of("agent"), gate_of("gateway")
    server_side = gate_of("server")
    server = MCPServer("notes", middleware=[GateMiddleware(server_side, server="notes")])
    offer(server)
    tracer = trace.get_tracer("agent")
    async with Client(
        guard_transport(behind(gateway, server), agent, server="notes"), mode=ERA
    ) as client:
        with tracer.start_as_current_span("execute_tool look"):
            result = await client.call_tool("look", {"name": "a"})
    text = result.content[0].text
    ids = {}
    for name, gate in (("agent", agent), ("gateway", gateway), ("server", server_side)):
        gate.store.commit(durable=True).result(20)
        lines = [dict(line.body) for line in audit.show(FOLDER / name / "lictor.db", limit=1000)]
        ids[name] = [line["trace"] for line in lines if line["kind"] == "decision"]
        gate.close()
    spans = [
        {"name": each.name, "kind": each.kind.name, "scope": each.instrumentation_scope.name,
         "id": each.context.span_id, "trace": f"{each.context.trace_id:032x}",
         "parent": each.parent.span_id if each.parent else None,
         "side": dict(each.attributes).get("lictor.pep.kind"),
         "links": [link.context.span_id for link in each.links]}
        for each in out.get_finished_spans()
    ]
    print(json.dumps({"text": text, "records": ids, "spans": spans}))


asyncio.run(main())
'''


@pytest.fixture(params=["legacy", "auto"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Runs the program, and gives what it has seen."""

    def made(how: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how, request.param, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return made


def way(found: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """Names of the spans from the first of a trace to this one."""
    by_id = {each["id"]: each for each in found["spans"]}
    names, here = [], last
    while here is not None:
        names.append(here["name"])
        here = by_id.get(here["parent"])
    return names[::-1]


def decided(found: dict[str, Any], side: str) -> dict[str, Any]:
    (span,) = [each for each in found["spans"] if each["side"] == side]
    return dict(span)


AGENT = ["execute_tool look", "MCP send tools/call look"]
GATEWAY = ["receive tools/call", "send tools/call"]


def test_from_the_agent_through_the_gateway_to_the_server_it_is_one_trace(run: Any) -> None:
    found = run("continue")

    assert found["text"] == "note a"
    first, middle, last = (
        decided(found, side) for side in ("mcp_client", "mcp_gateway", "mcp_server")
    )
    assert way(found, first) == [*AGENT, "authorize look"]
    assert way(found, middle) == [*AGENT, GATEWAY[0], "authorize look"]
    assert way(found, last) == [*AGENT, *GATEWAY, "tools/call look", "authorize look"]
    assert len({each["trace"] for each in (first, middle, last)}) == 1
    assert {trace for each in found["records"].values() for trace in each} == {first["trace"]}


def test_a_gateway_that_only_links_parts_the_two_and_keeps_gateway_and_server_together(
    run: Any,
) -> None:
    found = run("link")

    first, middle, last = (
        decided(found, side) for side in ("mcp_client", "mcp_gateway", "mcp_server")
    )
    assert way(found, middle) == [GATEWAY[0], "authorize look"]
    assert way(found, last) == [*GATEWAY, "tools/call look", "authorize look"]
    assert first["trace"] != middle["trace"] == last["trace"]
    by_id = {each["id"]: each for each in found["spans"]}
    came = by_id[middle["parent"]]
    assert [by_id[each]["name"] for each in came["links"]] == [AGENT[1]]
    assert found["records"]["gateway"] == found["records"]["server"] == [middle["trace"]]
