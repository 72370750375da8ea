"""The HTTP gateway under pressure: who does not read, who does not send, and who floods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lictor.testing import gate_for
from lictor_mcp.callers import Caller
from lictor_mcp.gateway import http, http_serve
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_exchange import WAITING_BYTES, Stream
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Event, Upstream

pytestmark = pytest.mark.asyncio
WAIT = 20.0


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    sock = listener("127.0.0.1:0")
    running = server(app)
    task = asyncio.create_task(running.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        running.should_exit = True
        await task


async def floods(scope: Any, receive: Any, send: Any) -> None:
    """Writes without end to whoever is there."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    left = asyncio.ensure_future(gone(receive))
    while not left.done():
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    left_by.set()


left_by = asyncio.Event()


async def gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_a_client_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_serve, "STALL_SECONDS", 0.1)
    left_by.clear()
    async with listening(floods) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(WAIT):
            await left_by.wait()
        writer.transport.abort()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_connection_that_never_becomes_a_request_is_let_go(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_serve, "HEAD_SECONDS", 0.1)
    async with listening(floods) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(WAIT):
            with pytest.raises(ConnectionError):
                if await reader.read() == b"":
                    raise ConnectionResetError
        writer.close()


async def test_what_waits_for_a_client_is_bounded_in_bytes_and_its_server_waits() -> None:
    stream = Stream()
    large = Event(b"x" * WAITING_BYTES)
    await stream.put(large)
    second = asyncio.create_task(stream.put(large))
    await asyncio.sleep(0)
    waited = not second.done() and stream._waiting.qsize() == 1
    parts = aiter(stream)
    await anext(parts)
    async with asyncio.timeout(WAIT):
        await second

    assert waited
    assert stream._waiting.qsize() == 1


async def test_a_client_that_goes_frees_whoever_writes_to_it() -> None:
    stream = Stream()
    await stream.put(Event(b"x" * WAITING_BYTES))
    waiting = asyncio.create_task(stream.put(Event(b"x")))
    await asyncio.sleep(0)
    stream.leave()
    async with asyncio.timeout(WAIT):
        await waiting

    assert stream.gone


async def test_an_upload_that_does_not_end_is_cut_off_and_one_callers_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(http, "MAX_UPLOADS", 100)
    with gate_for(tmp_path, []) as gate:
        hosts, _ = loopback(1)
        gateway = HttpGateway(
            gate,
            [Served("notes", Upstream("http://127.0.0.1:1/mcp"))],
            who=lambda header: Caller((header or b"").decode(), "test"),
            agent="bot",
            hosts=hosts,
        )
        async with listening(gateway) as port:
            first = asyncio.create_task(upload(port, b"alice", 80))
            async with asyncio.timeout(WAIT):
                while not gateway._taken:
                    await asyncio.sleep(0.01)
            second = await upload(port, b"alice", 80)
            other = await upload(port, b"bob", 80)
            assert (second, await first, other) == (b"429", b"408", b"408")
        assert not gateway._taken


async def upload(port: int, who: bytes, size: int) -> bytes:
    """The status of a request whose body never ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:1\r\ncontent-type: application/json\r\n"
    writer.write(head + b"authorization: " + who + b"\r\ncontent-length: 1000\r\n\r\n")
    writer.write(b"x" * size)
    async with asyncio.timeout(WAIT):
        line = await reader.readline()
    writer.close()
    return line.split()[1]
