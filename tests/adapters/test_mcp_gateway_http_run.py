"""`lictor gateway --listen`: from a project to a process that serves callers."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from lictor.assemble import read
from lictor.catalog import lock
from lictor.cli import gateway
from lictor.errors import ConfigError, Denied
from lictor.model import ToolCall
from lictor.testing import UnsafeAllowAll, gate_for, reviewed, tool_of
from lictor_mcp import methods
from lictor_mcp.gateway import http_run
from lictor_mcp.gateway.http_run import run_http
from lictor_mcp.gateway.http_serve import listener

TOKEN = "a" * 32
PROJECT = """
[agents.bot]
owner = "alice"
[users.alice]
[tasks.reading]
tools = ["notes/look"]
[mcp]
agent = "bot"
task = "reading"
bearer = ["alice.token"]
hosts = ["gateway.example"]
origins = ["https://app.example"]
[mcp.servers.notes]
url = "{url}"
token = "notes.token"
"""
PROGRAM = """
import sys
from pathlib import Path
from lictor_mcp.gateway.http_run import run_http
say = lambda url: print(url, flush=True)
sys.exit(run_http("127.0.0.1:0", project=Path(sys.argv[1]), ready=say))
"""
NAMED = [
    {"host": "gateway.example"},
    {"host": "gateway.example:443"},
    {"host": "x.gateway.example"},
    {"origin": "https://app.example"},
    {"origin": "http://app.example"},
    {"origin": "https://app.example.evil"},
]
LOOK = {"name": "look", "description": "Reads.", "inputSchema": {"type": "object"}}


def private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return written(tmp_path / "app", "http://127.0.0.1:9/mcp")


def written(home: Path, url: str) -> Path:
    home.mkdir(exist_ok=True)
    path = home / "lictor.toml"
    path.write_text(PROJECT.format(url=url))
    private(home / "alice.token", f'subject = "alice"\ntoken = "{TOKEN}"\n')
    private(home / "notes.token", "ours\n")
    tool = methods.tool_of("notes", url, LOOK)
    lock(home / "catalog.toml", home / "catalog.lock", {tool.key: tool})
    catalog = home / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("impact = []", 'impact = ["read"]'))
    return path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of one tool, in as few lines as HTTP can be spoken."""
    import json

    while head := await reader.readuntil(b"\r\n\r\n"):
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        message = json.loads(await reader.readexactly(int(fields[b"content-length"])))
        allowed = fields[b"authorization"] == b"bearer ours"
        result = {"tools/list": {"tools": [LOOK]}, "prompts/list": {"prompts": []}}.get(
            message["method"], {"content": [{"type": "text", "text": f"ours: {allowed}"}]}
        )
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()


async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await answer(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def call(name: str) -> dict[str, object]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": name, "arguments": {}, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.asyncio
async def test_a_project_is_served_until_it_is_told_to_end(tmp_path: Path) -> None:
    upstream = await asyncio.start_server(served, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    path = written(tmp_path / "app", f"http://127.0.0.1:{port}/mcp")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with upstream, asyncio.timeout(60):
        url = (await process.stdout.readline()).decode().strip()
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
        }
        async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
            read = await http.post(url, json=call("look"), headers={"mcp-name": "look"})
            other = await http.post(url, json=call("other"), headers={"mcp-name": "other"})
            named = [
                (await http.post(url, json=call("look"), headers={"mcp-name": "look", **each}))
                for each in NAMED
            ]
        process.send_signal(signal.SIGTERM)
        code = await process.wait()

    assert read.json()["result"]["content"][0]["text"] == "ours: True"
    assert other.json()["result"]["isError"]
    assert [each.status_code for each in named] == [200, 421, 421, 200, 403, 403]
    assert code == 0


@pytest.mark.parametrize(
    ("mend", "problem"),
    [
        (lambda home: (home / "alice.token").chmod(0o644), "can be read by others"),
        (lambda home: (home / "notes.token").chmod(0o640), "can be read by others"),
        (lambda home: replaced(home, 'bearer = ["alice.token"]', ""), "has no callers"),
        (lambda home: replaced(home, 'agent = "bot"', ""), "which agent acts"),
        (lambda home: replaced(home, 'task = "reading"', ""), "which task"),
        (lambda home: replaced(home, "127.0.0.1:9", "notes.example"), "in the clear"),
        (lambda home: replaced(home, "127.0.0.1:9", "a:b@127.0.0.1:9"), "holds a password"),
        (lambda home: replaced(home, "http:", "ftp:"), "no address of HTTP"),
    ],
)
def test_what_is_wrong_is_said_before_anything_listens(
    project: Path, mend: object, problem: str
) -> None:
    mend(project.parent)  # type: ignore[operator]

    with pytest.raises(ConfigError, match=problem):
        run_http("127.0.0.1:0", project=project, ready=lambda url: pytest.fail(url))


def replaced(home: Path, old: str, new: str) -> None:
    path = home / "lictor.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8700", "[::]:1", "host.example:80", "8700", "127.0.0.1:"]
)
def test_it_listens_at_the_loopback_only(address: str) -> None:
    with pytest.raises(ConfigError):
        listener(address)


def test_a_port_that_is_taken_is_said_to_be_so() -> None:
    with listener("127.0.0.1:0") as sock, pytest.raises(ConfigError, match="cannot be listened at"):
        listener(f"127.0.0.1:{sock.getsockname()[1]}")


@pytest.mark.attack("X37")
def test_a_tool_that_fetches_does_not_reach_the_gateway(tmp_path: Path) -> None:
    fetch = tool_of("fetch", {"url": {"type": "string"}}, required=["url"])
    with (
        gate_for(tmp_path, [reviewed(fetch)], policy=UnsafeAllowAll()) as gate,
        gate.task(agent="bot", on_behalf_of="alice", session="s"),
    ):
        gate.listens_at(8700)
        with pytest.raises(Denied) as denied:
            gate.run(ToolCall(fetch, {"url": "http://localhost:8700/mcp"}), lambda _: "fetched")
        other = gate.run(ToolCall(fetch, {"url": "http://localhost:8701/"}), lambda _: "fetched")

    assert denied.value.decision.reason == "protected"
    assert other == "fetched"


@pytest.mark.attack("X37")
@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("http://127.0.0.1:8700/mcp", True),
        ("http://localhost:8700/mcp", True),
        ("http://0x7f.1:8700/", True),
        ("http://127.0.0.1:8701/", False),
    ],
)
def test_tools_of_the_projects_other_programs_do_not_reach_it_either(
    project: Path, url: str, reached: bool
) -> None:
    replaced(project.parent, "[mcp]\n", '[mcp]\nlisten = "127.0.0.1:8700"\n')
    found = read(project).protected().reached({"url": url})

    assert (found == "url") is reached


@pytest.mark.parametrize(
    "line",
    [
        'listen = "0.0.0.0:8700"',
        'listen = "gateway.example:8700"',
        'listen = "127.0.0.1:0"',
        'hosts = ["*"]',
        'hosts = ["*.example"]',
        'hosts = ["Gateway.example"]',
        'hosts = ["https://gateway.example"]',
        'origins = ["null"]',
        'origins = ["*"]',
        'origins = ["https://app.example/"]',
        'origins = ["app.example"]',
    ],
)
def test_names_are_exact_and_it_listens_at_the_loopback_only(project: Path, line: str) -> None:
    key = line.partition(" ")[0]
    text = "\n".join(each for each in project.read_text().splitlines() if key not in each)
    project.write_text(text.replace("[mcp]\n", f"[mcp]\n{line}\n"))

    with pytest.raises(ConfigError, match=key):
        read(project)


def test_a_project_that_says_where_it_listens_is_served_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(project.parent, "[mcp]\n", '[mcp]\nlisten = "127.0.0.1:8700"\n')
    served: list[str] = []

    def run(listen: str, **more: object) -> int:
        served.append(listen)
        return 0

    monkeypatch.setattr(http_run, "run_http", run)
    result = CliRunner().invoke(gateway.app, ["-p", str(project)])

    assert (result.exit_code, served) == (0, ["127.0.0.1:8700"])
