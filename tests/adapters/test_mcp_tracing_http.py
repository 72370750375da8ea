"""Traces at the HTTP gateway: callers are not trusted with ours, and headers carry none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lictor.gate import Gate
from lictor.telemetry import Telemetry
from lictor.testing import UnsafeAllowAll, gate_for
from lictor_mcp.callers import Caller
from lictor_mcp.gateway.http import HttpGateway, Served
from lictor_mcp.gateway.http_upstream import Upstream
from lictor_mcp.testing import FILES, IDENTITY, definition, known

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HOST = "gateway.test"
LOOK = definition("look", "name")
VERSION = "io.modelcontextprotocol/protocolVersion"
META = {
    VERSION: "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "tracestate": "vendor=1",
    "baggage": "user=root",
}
CALL = {"name": "look", "arguments": {"name": "a"}, "_meta": META}
pytestmark = pytest.mark.asyncio


class Far:
    """A server on the loopback that notes what it gets."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.raws: list[bytes] = []
        self.headers = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length:")[2].split("\r\n")[0])
        raw = await reader.readexactly(size)
        self.headers += head
        self.raws.append(raw)
        asked = json.loads(raw)
        self.got.append(asked)
        result = {"tools": [LOOK]} if asked["method"] == "tools/list" else {"content": []}
        body = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": result}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    def carried(self, method: str) -> dict[str, Any]:
        """`_meta` of the newest message of this method."""
        found = [each for each in self.got if each["method"] == method][-1]
        meta: dict[str, Any] = found["params"]["_meta"]
        return meta


class Seen:
    """What an exporter gets."""

    def __init__(self) -> None:
        self.out, self.tracers = InMemorySpanExporter(), TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.out))

    def span(self, name: str) -> ReadableSpan:
        (found,) = [each for each in self.out.get_finished_spans() if each.name == name]
        return found


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.tracers.shutdown()


async def post(gate: Gate, how: dict[str, Any], *messages: dict[str, Any]) -> Far:
    """Has messages of a caller go through an HTTP gateway."""
    far = Far()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    served = Served(FILES, Upstream(url), IDENTITY, 20.0, **how)
    gateway = HttpGateway(
        gate, [served], who=lambda header: Caller("alice"), agent="bot", hosts=[HOST]
    )
    async with server, httpx.AsyncClient(transport=httpx.ASGITransport(gateway)) as http:
        for each in messages:
            headers = {
                "content-type": "application/json",
                "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
                "baggage": "header=1",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": each["method"],
                **({"mcp-name": "look"} if each["method"] == "tools/call" else {}),
            }
            answer = await http.post(f"http://{HOST}/mcp", json=each, headers=headers)
            assert answer.status_code in (200, 202), answer.text
        await gateway.close()
    return far


def gate_of(folder: Path, seen: Seen | None) -> Gate:
    telemetry = None if seen is None else Telemetry(seen.tracers)
    return gate_for(folder, [known(LOOK)], policy=UnsafeAllowAll(), telemetry=telemetry)


ASKED = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
NOTED = {
    "jsonrpc": "2.0",
    "method": "notifications/progress",
    "params": {"progressToken": 1, "progress": 1, "_meta": META},
}


def place(span: ReadableSpan) -> list[str]:
    at = span.get_span_context()
    assert at is not None
    return [f"{at.trace_id:032x}", f"{at.span_id:016x}"]


@pytest.mark.attack("X33")
async def test_a_caller_is_linked_and_the_server_is_in_our_trace(
    tmp_path: Path, seen: Seen
) -> None:
    with gate_of(tmp_path, seen) as gate:
        far = await post(gate, {}, ASKED, NOTED)

    came, sent = seen.span("receive tools/call"), seen.span("send tools/call")
    assert came.parent is None
    assert [f"{each.context.trace_id:032x}" for each in came.links] == [TRACE]
    assert far.carried("tools/call")["traceparent"].split("-")[1:3] == place(sent)
    assert place(came)[0] == place(sent)[0] == place(seen.span("authorize look"))[0]
    listed = seen.span("send tools/list")
    assert far.carried("tools/list")["traceparent"].split("-")[1:3] == place(listed)
    noted = seen.span("send notifications/progress")
    assert far.carried("notifications/progress")["traceparent"].split("-")[1:3] == place(noted)
    for each in (TRACE, "vendor=1", "user=root"):
        assert each not in repr(far.got)
    assert "traceparent" not in far.headers
    assert "baggage" not in far.headers


async def test_where_the_operator_says_so_a_caller_is_continued(tmp_path: Path, seen: Seen) -> None:
    with gate_of(tmp_path, seen) as gate:
        far = await post(gate, {"trace": "continue"}, ASKED)

    came = seen.span("receive tools/call")
    assert came.parent is not None
    assert f"{came.parent.span_id:016x}" == SPAN
    assert far.carried("tools/call")["traceparent"].startswith(f"00-{TRACE}-")
    assert "baggage" not in far.carried("tools/call")


async def test_without_tracing_the_body_is_the_callers(tmp_path: Path) -> None:
    with gate_of(tmp_path, None) as gate:
        far = await post(gate, {}, ASKED)

    assert far.carried("tools/call") == META
    assert "traceparent" not in far.headers
