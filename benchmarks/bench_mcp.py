"""What a guarded MCP call costs beside a direct one, and 200 clients at the HTTP gateway.

Run: `python benchmarks/bench_mcp.py`; needs `mcp` 2.x. The real store and Cedar with `starter@1`.
Direct and guarded calls take turns in one run; each has a server process of its own, equally busy.
The figures are medians. "Fresh" is a call that the policy engine has not met: a rule reads an
argument that is another one each time, so that user and agent are both evaluated anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer

from lictor.gate import Gate
from lictor.testing import gate_for, reviewed
from lictor_mcp import GateMiddleware, methods
from lictor_mcp.callers import Caller

sys.path.insert(0, str(Path(__file__).parent))
from common import write

SERVER = "bench"
IDENTITY = "bench"
WARM, ROUNDS = 60, 500
CLIENTS, CALLS = 200, 20_000
LIMIT = """
@id("limit") @reason("too many")
forbid (principal, action == Lictor::Action::"bench/fresh", resource)
when { context.input has n && context.input.n > 1000000000 };
"""
SETTINGS = {
    "agents": {"bot": {"owner": "alice"}},
    "users": {"alice": {}},
    "tasks": {"reading": {"tools": ["bench/look", "bench/fresh"], "expires_in": 7200}},
}


def offered() -> MCPServer:
    """The server that is called."""
    server = MCPServer(SERVER)

    @server.tool()
    def look(name: str) -> str:
        """Reads a note."""
        return f"note {name}"

    @server.tool()
    def fresh(name: str, n: int) -> str:
        """Reads a note; the policy looks at `n`."""
        return f"note {name}"

    return server


async def gate_in(folder: Path, identity: str) -> Gate:
    """A gate over a store of its own, which knows the tools as the server lists them."""
    async with Client(offered()) as client:
        listed = (await client.list_tools()).tools
    wires = [each.model_dump(by_alias=True, exclude_none=True, mode="json") for each in listed]
    known = [reviewed(methods.tool_of(SERVER, identity, wire)) for wire in wires]
    return gate_for(folder, known, cedar=LIMIT, settings=SETTINGS)


# -- processes ------------------------------------------------------------------------------------


def run_http_server() -> None:
    """A server over HTTP; says its port."""
    from lictor_mcp.gateway.http_serve import listener, server

    sock = listener("127.0.0.1:0")
    print(sock.getsockname()[1], flush=True)
    asyncio.run(server(offered().streamable_http_app()).serve(sockets=[sock]))


async def run_http_gateway(url: str) -> None:
    """The gateway before it; says its port."""
    from lictor_mcp.gateway.http import HttpGateway, Served, loopback
    from lictor_mcp.gateway.http_serve import listener, server
    from lictor_mcp.gateway.http_upstream import Upstream

    with tempfile.TemporaryDirectory() as folder, await gate_in(Path(folder), IDENTITY) as gate:
        sock = listener("127.0.0.1:0")
        hosts, origins = loopback(sock.getsockname()[1])
        gateway = HttpGateway(
            gate,
            [Served(SERVER, Upstream(url), IDENTITY)],
            who=lambda _: Caller("alice", "bench"),
            agent="bot",
            template="reading",
            hosts=hosts,
            origins=origins,
        )
        running = server(gateway)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, setattr, running, "should_exit", True)
        print(sock.getsockname()[1], flush=True)
        await running.serve(sockets=[sock])


async def run_stdio_gateway() -> None:
    """The gateway on stdio, which starts the server."""
    from lictor_mcp.gateway.child import environment
    from lictor_mcp.gateway.stdio import StdioGateway

    with tempfile.TemporaryDirectory() as folder, await gate_in(Path(folder), IDENTITY) as gate:
        gate.adopt(gate.task("reading", agent="bot", on_behalf_of="alice", session="s"))
        command = [sys.executable, __file__, "stdio-server"]
        await StdioGateway(gate, SERVER, command, env=environment(), identity=IDENTITY).run()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[str, int]]:
    """A process that says its port: its address, and its id."""
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(running.stdout.readline())}/mcp", running.pid
        finally:
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
            running.kill()


# -- single calls ---------------------------------------------------------------------------------


async def spent(clients: dict[str, Client]) -> dict[str, float]:
    """Medians in microseconds, of each client and sort of call."""
    found: dict[str, list[int]] = {f"{name}_{sort}": [] for name in clients for sort in SORTS}
    for n in range(WARM + ROUNDS):
        for sort, arguments in (("memo", {"name": "a"}), ("fresh", {"name": "a", "n": n})):
            for name, client in clients.items():
                tool = "look" if sort == "memo" else "fresh"
                start = time.perf_counter_ns()
                result = await client.call_tool(tool, arguments)
                took = time.perf_counter_ns() - start
                if result.is_error or result.content[0].text != "note a":
                    raise SystemExit(f"measured something else: {result!r}")
                if n >= WARM:
                    found[f"{name}_{sort}"].append(took)
    return {f"{name}_us": statistics.median(took) / 1000 for name, took in found.items()}


SORTS = ("memo", "fresh")


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[Client]:
    """A client of the stateless protocol."""
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


async def in_memory(folder: Path) -> dict[str, float]:
    """Middleware."""
    bare, guarded = offered(), offered()
    with await gate_in(folder, "") as gate:
        guarded.middleware.append(GateMiddleware(gate, server=SERVER))
        gate.adopt(gate.task("reading", agent="bot", on_behalf_of="alice", session="s"))
        async with Client(bare) as one, Client(guarded) as other:
            return await spent({"memory_direct": one, "memory_guarded": other})


async def on_stdio() -> dict[str, float]:
    """The stdio gateway."""

    def started(kind: str) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=[__file__, kind])

    async with Client(started("stdio-server")) as one, Client(started("stdio-gateway")) as other:
        return await spent({"stdio_direct": one, "stdio_guarded": other})


async def on_http() -> dict[str, float]:
    """The HTTP gateway; each way has a server of its own."""
    async with AsyncExitStack() as stack:
        one, _ = stack.enter_context(process("http-server"))
        behind, _ = stack.enter_context(process("http-server"))
        other, _ = stack.enter_context(process("http-gateway", behind))
        clients = {
            "http_direct": await stack.enter_async_context(over_http(one)),
            "http_guarded": await stack.enter_async_context(over_http(other)),
        }
        return await spent(clients)


# -- many clients ---------------------------------------------------------------------------------


def resident(pid: int) -> float:
    """Megabytes of a process's own memory; 0 where that cannot be read."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


async def many() -> dict[str, float]:
    """200 clients at once: every reply comes, to whom it belongs, and memory does not grow."""
    body = (
        '{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"look","arguments":'
        '{{"name":"{name}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
        '"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}'
    )
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "look",
    }
    sizes: list[float] = []

    async def one(url: str, pid: int, number: int, wrong: list[str]) -> None:
        async with httpx2.AsyncClient(trust_env=False, headers=headers, timeout=120) as http:
            for n in range(CALLS // CLIENTS):
                name = f"{number}-{n}"
                answer = await http.post(url, content=body.format(id=n, name=name))
                if f'"note {name}"' not in answer.text or f'"id":{n}' not in answer.text:
                    wrong.append(answer.text)
                if number == 0 and n % 10 == 9:
                    sizes.append(resident(pid))

    with process("http-server") as (behind, _), process("http-gateway", behind) as (url, pid):
        wrong: list[str] = []
        start = time.perf_counter()
        await asyncio.gather(*(one(url, pid, number, wrong) for number in range(CLIENTS)))
        took = time.perf_counter() - start
    if wrong:
        raise SystemExit(f"{len(wrong)} replies were lost or crossed, the first: {wrong[0][:300]}")
    middle = statistics.median(sizes[len(sizes) // 2 :])
    return {
        "load_calls_s": CALLS / took,
        "load_mb_first": sizes[0],
        "load_mb_middle": sizes[len(sizes) // 2],
        "load_mb_last": sizes[-1],
        "load_growth": sizes[-1] / middle if middle else 1.0,
    }


def main() -> int:
    """Measures everything."""
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(in_memory(Path(folder)))
    figures |= asyncio.run(on_stdio())
    figures |= asyncio.run(on_http())
    figures |= asyncio.run(many())
    goals = {
        "memory_memo": "<= 1.2",
        "memory_fresh": "<= 1.5",
        "stdio_memo": "<= 1.3",
        "stdio_fresh": "<= 1.4",
        "http_memo": "<= 2.0",
        "http_fresh": "<= 2.0",
        "load_growth": "<= 1.05",
    }
    ratios = {"load_growth": figures["load_growth"]}
    for name in goals.keys() - ratios.keys():
        way, _, sort = name.partition("_")
        ratios[name] = figures[f"{way}_guarded_{sort}_us"] / figures[f"{way}_direct_{sort}_us"]
    return 0 if write("mcp", figures, ratios, goals) else 1


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    match sys.argv[1:]:
        case ["stdio-server"]:
            offered().run("stdio")
        case ["stdio-gateway"]:
            asyncio.run(run_stdio_gateway())
        case ["http-server"]:
            run_http_server()
        case ["http-gateway", address]:
            asyncio.run(run_http_gateway(address))
        case _:
            sys.exit(main())
    os._exit(0)
