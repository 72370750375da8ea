"""The gateway on stdio: what is decided passes as it came, and no process, byte or wait is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import ElicitResult

from lictor import audit
from lictor.gate import Gate
from lictor.testing import gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp.gateway import child, upstream
from lictor_mcp.gateway.child import environment
from lictor_mcp.gateway.stdio import StdioGateway
from lictor_mcp.gateway.upstream import Server
from lictor_mcp.wire import MAX_BYTES

WAIT = 20.0
IDENTITY = "it"

SERVER = """
import json, os, sys, subprocess, time
TOOLS = ["look", "put", "die", "silent", "other", "flood", "huge", "half", "env", "ask", "twice"]
started = sys.argv[1]
with open(started, "a") as log:
    print(os.getpid(), file=log)
def send(value): sys.stdout.write(json.dumps(value) + "\\n"); sys.stdout.flush()
def answer(id, result): send({"jsonrpc": "2.0", "id": id, "result": result})
def text(id, said): answer(id, {"content": [{"type": "text", "text": said}]})
greeted = 0
for line in sys.stdin:
    got = json.loads(line)
    method, id, params = got.get("method"), got.get("id"), got.get("params") or {}
    with open(started + ".log", "a") as log:
        print(line, end="", file=log)
    if method == "initialize":
        greeted += 1
        answer(id, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"}})
    elif method == "tools/list":
        answer(id, {"tools": [{"name": each, "description": each,
                               "inputSchema": {"type": "object",
                                               "properties": {"n": {"type": "integer"}}}}
                              for each in TOOLS]})
    elif method == "tools/call":
        name = params["name"]
        if name == "die": sys.exit(3)
        elif name == "silent": pass
        elif name == "other": text(str(id) + "0", "for another"); text(id, "for you")
        elif name == "twice": text(id, "first"); text(id, "second")
        elif name == "flood":
            for n in range(20_000):
                send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": n}})
            text(id, "flooded")
        elif name == "huge": text(id, "x" * (5 * 1024 * 1024))
        elif name == "half": sys.stdout.write('{"jsonrpc": "2.0",'); sys.stdout.flush(); sys.exit()
        elif name == "env": text(id, json.dumps(dict(os.environ)))
        elif name == "ask":
            send({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}})
            told = json.loads(sys.stdin.readline())
            text(id, json.dumps(told))
        else: text(id, "greeted %d %s" % (greeted, name))
    elif id is not None:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})
"""
TOOLS = ("look", "die", "silent", "other", "flood", "huge", "half", "env", "ask", "twice")


def reviewed_of(server: str, *names: str, identity: str = IDENTITY) -> list[Any]:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    wires = [{"name": each, "description": each, "inputSchema": schema} for each in names]
    return [reviewed(m.tool_of(server, identity, wire)) for wire in wires]


def gate_of(folder: Path, *servers: str, tools: Sequence[str] = TOOLS) -> Gate:
    folder.mkdir(parents=True, exist_ok=True)
    known = [each for server in servers for each in reviewed_of(server, *tools)]
    known += [reviewed(m.method_tool(server, m.TEXT)) for server in servers]
    gate = gate_for(folder, known)
    names = [str(each.review.key) for each in known]
    gate.adopt(gate.task(agent="bot", on_behalf_of="alice", tools=names))
    return gate


class Talk:
    """A client that writes what it wants to, and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, out: Any, started: Path) -> None:
        self._reader, self._out, self._started = reader, out, started
        self.seen: list[dict[str, Any]] = []

    def write(self, raw: bytes) -> None:
        self._out.write(raw)
        self._out.flush()

    def say(self, method: str, id: object = None, **params: Any) -> bytes:
        told = {"jsonrpc": "2.0", "method": method, "params": params}
        raw = json.dumps(told if id is None else {**told, "id": id}).encode() + b"\n"
        self.write(raw)
        return raw

    def close(self) -> None:
        self._out.close()

    async def line(self) -> bytes:
        async with asyncio.timeout(WAIT):
            return await self._reader.readline()

    async def answer(self, id: object) -> dict[str, Any]:
        for each in self.seen:
            if each.get("id") == id:
                self.seen.remove(each)
                return each
        while line := await self.line():
            found: dict[str, Any] = json.loads(line)
            if found.get("id") == id and "method" not in found:
                return found
            self.seen.append(found)
        raise AssertionError("the gateway has ended")

    async def ask(self, method: str, id: object = 1, **params: Any) -> dict[str, Any]:
        self.say(method, id, **params)
        return await self.answer(id)

    async def call(self, name: str, id: object = 1, **arguments: Any) -> Any:
        found = await self.ask("tools/call", id, name=name, arguments=arguments)
        return found.get("result", found.get("error"))

    async def greet(self) -> dict[str, Any]:
        info = {"name": "claude", "version": "9"}
        found = await self.ask(
            "initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo=info
        )
        self.say("notifications/initialized")
        return found

    @property
    def pids(self) -> list[int]:
        return [int(each) for each in self._started.read_text().split()]

    def heard(self) -> str:
        """What the server has been sent."""
        return self._started.with_name(self._started.name + ".log").read_text()


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


async def gone(pid: int) -> None:
    async with asyncio.timeout(WAIT):
        while alive(pid):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def talking(gateway: StdioGateway, started: Path) -> AsyncIterator[tuple[Talk, Any]]:
    inward, outward = os.pipe(), os.pipe()
    reader = asyncio.StreamReader(limit=2 * MAX_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(outward[0], "rb")
    )
    talk = Talk(reader, os.fdopen(inward[1], "wb"), started)
    stdin, stdout = os.fdopen(inward[0], "rb"), os.fdopen(outward[1], "wb")
    running = asyncio.create_task(gateway.run(stdin, stdout))
    try:
        yield talk, running
    finally:
        talk.close()
        async with asyncio.timeout(WAIT):
            await asyncio.gather(running, return_exceptions=True)
        transport.close()


@pytest.fixture
def started(tmp_path: Path) -> Path:
    return tmp_path / "started"


@pytest.fixture
def command(tmp_path: Path, started: Path) -> list[str]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    return [sys.executable, str(script), str(started)]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = gate_of(tmp_path / "home", "fake")
    yield made
    made.close()


@pytest.fixture
def gateway(gate: Gate, command: list[str]) -> StdioGateway:
    return StdioGateway(gate, "fake", command, env=environment(), identity=IDENTITY)


# -- both eras of the protocol, with the official client ------------------------------------------

SDK = '''
from mcp.server import MCPServer
server = MCPServer("files")
@server.tool()
def look(name: str) -> str:
    """Reads a note."""
    return f"note {name}"
@server.tool()
def put(name: str) -> str:
    """Writes a note."""
    open(name, "w").close()
    return name
server.run("stdio")
'''
FRONT = """
import sys
from lictor.cli import main
sys.argv = ["lictor", *sys.argv[1:]]
main()
"""


def project(folder: Path, *catalog: str) -> Path:
    """A project whose catalog holds what its gate has met, with these impacts."""
    from lictor.catalog import lock, read_seen

    file = folder / "lictor.toml"
    entries = folder / "catalog.toml"
    lock(entries, folder / "catalog.lock", read_seen(folder / ".lictor/seen.json"))
    text = entries.read_text()
    for each in catalog:
        name, impact = each.split("=")
        before, _, after = text.partition(f'name = "{name}"')
        text = f'{before}name = "{name}"{after.replace("impact = []", f"impact = [{impact!r}]", 1)}'
    entries.write_text(text)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.asyncio
async def test_an_allowed_call_runs_and_a_denied_one_does_not_in_both_eras(
    tmp_path: Path, mode: str
) -> None:
    script, target = tmp_path / "server.py", tmp_path / "written"
    script.write_text(SDK)
    file = tmp_path / "lictor.toml"
    file.write_text(
        '[mcp]\nagent = "desktop"\ntask = "files"\nuser = "alice"\n'
        f'[mcp.servers.files]\ncommand = ["{sys.executable}", "{script}"]\n'
        '[agents.desktop]\nowner = "alice"\n[users.alice]\n'
        '[tasks.files]\ntools = ["files/look"]\n'
    )
    file.chmod(0o600)
    params = StdioServerParameters(
        command=sys.executable, args=["-c", FRONT, "gateway", "-p", str(file)]
    )
    async with Client(params, mode=mode) as client:  # nothing is reviewed yet
        assert [each.name for each in (await client.list_tools()).tools] == ["lictor_pending"]
        told = await client.call_tool("lictor_pending", {})
        assert (
            f"2 wait for a review. The user runs this in a terminal: lictor review -p {tmp_path}"
            in (
                told.content[0].text  # type: ignore[union-attr]
            )
        )
    project(tmp_path, "look=read", "put=write")

    async with Client(params, mode=mode) as client:
        listed = [each.name for each in (await client.list_tools()).tools]
        read = await client.call_tool("look", {"name": "a"})
        wrote = await client.call_tool("put", {"name": str(target)})

    assert listed == ["look"]
    assert (read.is_error, read.content[0].text) == (False, "note a")  # type: ignore[union-attr]
    assert wrote.is_error
    assert not target.exists()
    lines = [
        each.body
        for each in audit.records(tmp_path / ".lictor/lictor.db", audit.Filters(kind="decision"))
    ]
    assert {(str(each["tool"]), str(each["code"])) for each in lines} >= {
        ("files/look", "permit"),
        ("files/put", "grant_scope"),
    }
    assert all(each["chain"] == ["user:local/alice", "agent:local/desktop"] for each in lines)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.asyncio
async def test_a_client_that_shows_questions_is_asked_in_both_eras(
    tmp_path: Path, mode: str, yes: bool
) -> None:
    script, target = tmp_path / "server.py", tmp_path / "written"
    script.write_text(SDK)
    file = tmp_path / "lictor.toml"
    file.write_text(
        '[mcp]\nagent = "desktop"\ntask = "files"\nuser = "alice"\nconfirm = true\n'
        f'[mcp.servers.files]\ncommand = ["{sys.executable}", "{script}"]\n'
        '[agents.desktop]\nowner = "alice"\n[users.alice]\n'
        '[tasks.files]\ntools = ["files/look", "files/put"]\n'
    )
    asked: list[str] = []

    async def answer(context: object, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"allow": yes})

    params = StdioServerParameters(
        command=sys.executable, args=["-c", FRONT, "gateway", "-p", str(file)]
    )
    async with Client(params, mode=mode) as client:
        await client.list_tools()
    project(tmp_path, "look=read", "put=write")
    async with Client(params, mode=mode, elicitation_callback=answer) as client:
        wrote = await client.call_tool("put", {"name": str(target)})

    assert len(asked) == 1
    assert str(target) in asked[0].replace("\n      | ", "")
    assert (wrote.is_error, target.exists()) == (not yes, yes)


# -- what goes through ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_allowed_call_and_its_answer_pass_byte_for_byte(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        raw = b'{ "jsonrpc":"2.0" ,"id":7,"method":"tools/call","params":{"name":"look"}}\n'
        talk.write(raw)
        line = await talk.line()
        assert raw.decode() in talk.heard()
    assert line == (
        b'{"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": '
        b'"greeted 1 look"}]}}\n'
    )


@pytest.mark.asyncio
async def test_what_nobody_has_reviewed_is_neither_shown_nor_forwarded(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        listed = (await talk.ask("tools/list"))["result"]["tools"]
        result = await talk.call("put", 2)
        assert '"name": "put"' not in talk.heard()
    assert [each["name"] for each in listed] == [*TOOLS, "lictor_pending"]
    assert result["isError"] is True
    assert result["structuredContent"]["lictor"]["code"] == "tool_unreviewed"


@pytest.mark.asyncio
async def test_our_own_tool_is_ours_whatever_the_server_calls_its_own(
    tmp_path: Path, started: Path
) -> None:
    script = tmp_path / "s.py"
    script.write_text(SERVER.replace('"twice"]', '"twice", "lictor_pending"]'))
    gate = gate_of(tmp_path / "home", "fake", tools=(*TOOLS, "put", "lictor_pending"))
    front = StdioGateway(
        gate, "fake", [sys.executable, str(script), str(started)], env={}, identity=IDENTITY
    )
    async with talking(front, started) as (talk, _):
        await talk.greet()
        names = [each["name"] for each in (await talk.ask("tools/list"))["result"]["tools"]]
        told = await talk.call("lictor_pending", 3)
        assert '"lictor_pending"' not in talk.heard()
    gate.close()
    assert names == ["look", "put", *TOOLS[1:]]
    assert text_of(told).startswith("Nothing waits for a review.")


@pytest.mark.asyncio
async def test_the_server_gets_the_allowed_environment_only(
    gate: Gate, command: list[str], started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("WANTED", "yes")
    env = environment(["WANTED"], {"SET": "it"})
    front = StdioGateway(gate, "fake", command, env=env, identity=IDENTITY)
    async with talking(front, started) as (talk, _):
        await talk.greet()
        found = json.loads(text_of(await talk.call("env")))
    assert (found["WANTED"], found["SET"]) == ("yes", "it")
    assert found.keys() <= {*child.ENVIRONMENT, "WANTED", "SET", "LC_CTYPE"}


@pytest.mark.asyncio
async def test_what_the_server_asks_of_its_client_is_refused_to_it(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        told = json.loads(text_of(await talk.call("ask")))
        assert not [each for each in talk.seen if "sampling" in str(each.get("method"))]
    assert told["error"]["data"]["lictor"]["code"] == "tool_unreviewed"


# -- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_server_that_dies_is_started_again_and_greeted_as_before(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        failed = await talk.call("die")
        result = await talk.call("look", 2)
        pids = talk.pids
    assert failed["message"].startswith("The server ended before it answered.")
    assert text_of(result) == "greeted 1 look"
    assert len(pids) == 2


@pytest.mark.asyncio
async def test_whether_a_call_ran_that_the_server_died_in_is_recorded_as_unknown(
    tmp_path: Path, gateway: StdioGateway, gate: Gate, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        await talk.call("die")
    gate.close()
    outcomes = audit.records(tmp_path / "home/lictor.db", audit.Filters(kind="outcome"))
    assert [each.body["verdict"] for each in outcomes] == ["unknown"]


@pytest.mark.asyncio
async def test_a_server_that_dies_again_and_again_is_given_up(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, running):
        await talk.greet()
        for each in range(upstream.RESTARTS + 1):
            assert "code" in await talk.call("die", 10 + each)
        async with asyncio.timeout(WAIT):
            assert await running == 1
    assert len(talk.pids) == upstream.RESTARTS + 1


@pytest.mark.asyncio
async def test_half_a_message_before_the_end_is_no_message(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, running):
        await talk.greet()
        assert "code" in await talk.call("half")
        assert text_of(await talk.call("look", 2)) == "greeted 1 look"
        talk.write(b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"look"}')
        talk.close()
        async with asyncio.timeout(WAIT):
            assert await running == 0
    assert talk.heard().count('"look"') == 1


@pytest.mark.asyncio
async def test_an_answer_with_another_id_is_dropped_and_a_second_one_too(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        assert text_of(await talk.call("other", 5)) == "for you"
        assert text_of(await talk.call("twice", 6)) == "first"
        assert text_of(await talk.call("look", 7)) == "greeted 1 look"
    assert not [each for each in talk.seen if "result" in each]


@pytest.mark.asyncio
async def test_a_server_that_never_answers_has_its_time_and_is_told(
    gate: Gate, command: list[str], started: Path
) -> None:
    front = StdioGateway.of(
        gate, [Server("fake", command, environment(), seconds=0.2, identity=IDENTITY)]
    )
    async with talking(front, started) as (talk, _):
        await talk.greet()
        failed = await talk.call("silent", 8)
        await talk.call("look", 9)
        heard = talk.heard()
    assert failed["message"].startswith("The server did not answer in time.")
    assert '"method":"notifications/cancelled","params":{"requestId":8' in heard


@pytest.mark.asyncio
async def test_others_go_on_while_one_call_waits_and_the_client_may_cancel_it(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        talk.say("tools/call", "a", name="silent", arguments={})
        assert text_of(await talk.call("look", 2)) == "greeted 1 look"
        talk.say("notifications/cancelled", requestId="a")
        assert text_of(await talk.call("look", 3)) == "greeted 1 look"
        assert '"requestId": "a"' in talk.heard()


@pytest.mark.asyncio
async def test_a_flood_of_notifications_waits_for_its_reader(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        assert text_of(await talk.call("flood")) == "flooded"
        count = sum(each.get("method") == "notifications/message" for each in talk.seen)
    assert count == 20_000


@pytest.mark.asyncio
async def test_a_message_that_is_too_long_is_refused_on_either_side_and_the_rest_goes_on(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, _):
        await talk.greet()
        failed = await talk.call("huge")
        await asyncio.to_thread(talk.write, b"x" * (MAX_BYTES * 2) + b"\n")
        refused = await talk.answer(None)
        result = await talk.call("look", 4)
    assert failed["message"].startswith("The server's answer cannot be read.")
    assert refused["error"]["message"] == f"The message is larger than {MAX_BYTES} bytes."
    assert text_of(result) == "greeted 1 look"


# -- what is left ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_when_the_client_ends_its_calls_may_finish_and_the_server_ends(
    gateway: StdioGateway, started: Path
) -> None:
    async with talking(gateway, started) as (talk, running):
        await talk.greet()
        talk.say("tools/call", 3, name="look", arguments={})
        talk.close()
        assert text_of((await talk.answer(3))["result"]) == "greeted 1 look"
        async with asyncio.timeout(WAIT):
            assert await running == 0
        assert not alive(talk.pids[0])


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\ntime.sleep(600)"])
with open(sys.argv[1], "w") as log:
    print(os.getpid(), child.pid, file=log)
time.sleep(600)
"""


async def running_stubborn(tmp_path: Path) -> tuple[asyncio.subprocess.Process, list[int]]:
    script, started = tmp_path / "stubborn.py", tmp_path / "pids"
    script.write_text(STUBBORN)
    home = (
        "import lictor_mcp.gateway.opening as o; o.home_of = lambda s: __import__('pathlib').Path"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{home}({str(tmp_path / 'own')!r})\n{FRONT}",
        "gateway",
        "--",
        sys.executable,
        str(script),
        str(started),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT):
        while not started.exists() or len(started.read_text().split()) < 2:
            await asyncio.sleep(0.02)
    return process, [int(each) for each in started.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["eof", signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.asyncio
async def test_no_process_is_left_however_the_gateway_ends(
    tmp_path: Path, ending: str | signal.Signals
) -> None:
    process, pids = await running_stubborn(tmp_path)
    assert all(map(alive, pids))
    if isinstance(ending, str):
        assert process.stdin is not None
        process.stdin.close()
    else:
        process.send_signal(ending)
    async with asyncio.timeout(WAIT):
        await process.communicate()
    for pid in pids:
        await gone(pid)
    assert process.returncode == (-signal.SIGKILL if ending == signal.SIGKILL else 0)


@pytest.mark.asyncio
async def test_a_process_whose_end_was_broken_off_is_ended_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = child.Child([sys.executable, "-c", "import time; time.sleep(600)"], environment())
    await made.start()
    pid = made.pid
    ending = asyncio.create_task(made.stop())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert alive(pid)
    monkeypatch.setattr(child, "GRACE", 0.05)
    await made.stop()
    await gone(pid)
    assert made.pid == 0
