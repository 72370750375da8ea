"""For tests of this adapter: a real gate, guard and relay before a server that does as it is told.

Nothing here belongs into a program that does real work.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from lictor import audit
from lictor.gate import Gate
from lictor.model import Pep
from lictor.ports import Known
from lictor.task import Task
from lictor.testing import UnsafeAllowAll, gate_for, reviewed
from lictor_mcp import methods as m
from lictor_mcp.guard import Guard
from lictor_mcp.relay import Relay

FILES: Final = "files"
IDENTITY: Final = "test server"
WAIT: Final = 20.0

Wire: TypeAlias = Mapping[str, Any]


def definition(name: str, *arguments: str, **more: Any) -> dict[str, Any]:
    """A tool as a server lists it; its arguments are texts, and all required."""
    schema = {
        "type": "object",
        "properties": {each: {"type": "string"} for each in arguments},
        "required": list(arguments),
    }
    return {"name": name, "description": f"Does {name}.", "inputSchema": schema, **more}


def known(wire: Wire, *impact: str, server: str = FILES, **review: Any) -> Known:
    """A tool as a person has reviewed it."""
    return reviewed(m.tool_of(server, IDENTITY, wire), *impact, **review)


def known_method(method: str, *impact: str, **review: Any) -> Known:
    """A method as a person has reviewed it."""
    return reviewed(m.method_tool(FILES, method), *impact, **review)


class HostileServer:
    """Does what it is told, and reads messages as carelessly as anybody could.

    It splits lines at every character that some reader takes for a line end, lets the last of two
    members with one name win, and takes names in any case.

    Attributes:
        tools: What it lists, and calls.
        answers: Method → result, error (`{"error": …}`), or a function of the message that makes
            one; `None` is no answer.
        seen: Every message that has reached it, oldest first.
        called: Names of tools that it has run.
        pages: How many items a page of a list has.
    """

    def __init__(self, *tools: Wire) -> None:
        self.tools: list[Wire] = list(tools)
        self.answers: dict[str, Any] = {}
        self.seen: list[dict[str, Any]] = []
        self.raws: list[bytes] = []
        self.called: list[str] = []
        self.pages = 1000
        self.send: Callable[[bytes], Awaitable[None]] | None = None
        self._came = asyncio.Event()

    async def take(self, raw: bytes) -> None:
        """Takes bytes, and answers every message that could be in them."""
        self.raws.append(raw)
        for piece in re.split(r"[\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029]", raw.decode()):
            try:
                message = json.loads(piece)
            except ValueError:
                continue
            if isinstance(message, dict):
                await self._take({str(name).casefold(): part for name, part in message.items()})

    async def _take(self, message: dict[str, Any]) -> None:
        self.seen.append(message)
        method = message.get("method")
        if method == "tools/call":
            self.called.append(str((message.get("params") or {}).get("name")))
        self._came.set()
        if "id" not in message or method is None:
            return
        found = self.answers.get(method, self._usual(method, message.get("params") or {}))
        found = found(message) if callable(found) else found
        if found is None:
            return
        body = found if "error" in found else {"result": found}
        await self.say({"jsonrpc": "2.0", "id": message["id"], **body})

    def _usual(self, method: str, params: Wire) -> dict[str, Any]:
        if method == "tools/list":
            start = int(params.get("cursor") or 0)
            page = {"tools": self.tools[start : start + self.pages]}
            more = start + self.pages < len(self.tools)
            return {**page, "nextCursor": str(start + self.pages)} if more else page
        if method == "prompts/list":
            return {"error": {"code": -32601, "message": "Method not found"}}
        if method == "tools/call":
            return {"content": [{"type": "text", "text": f"ran {params.get('name')}"}]}
        return {}

    async def say(self, message: Wire | bytes) -> None:
        """Sends the client something."""
        if self.send is None:
            raise RuntimeError("nobody listens")
        await self.send(message if isinstance(message, bytes) else json.dumps(message).encode())

    async def heard(self, method: str, times: int = 1) -> dict[str, Any]:
        """Waits until so many messages of this method have come, and gives the newest."""
        async with asyncio.timeout(WAIT):
            while True:
                self._came.clear()
                found = [each for each in self.seen if each.get("method") == method]
                if len(found) >= times:
                    return found[-1]
                await self._came.wait()

    def methods(self) -> list[str]:
        """Methods of everything that has reached it from the client, ours left out."""
        return [
            str(each.get("method"))
            for each in self.seen
            if "method" in each and not str(each.get("id")).startswith("lictor-")
        ]


class Line:
    """A client, the gate, and a server that cannot be trusted.

    Args:
        folder: Where the store lies.
        server: The server.
        tools: What a person has reviewed.
        relaying: For the relay.
        options: For the gate (`lictor.testing.gate_for`); a policy that allows everything if left
            out.
    """

    def __init__(
        self,
        folder: Path,
        server: HostileServer,
        tools: Iterable[Known],
        *,
        relaying: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        options.setdefault("policy", UnsafeAllowAll())
        if options["policy"] is None:
            del options["policy"]
        self.folder, self.server = folder, server
        self.gate: Gate = gate_for(folder, tools, **options)
        self.got: list[dict[str, Any]] = []
        self.raws: list[bytes] = []
        self.replies: dict[str, Any] = {}
        self._count = 0
        self._answers: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._soon: set[asyncio.Task[None]] = set()
        self.relay = Relay(self._to_client, server.take, **(relaying or {}))
        self.guard = Guard(
            self.gate,
            FILES,
            identity=IDENTITY,
            pep=Pep("mcp_gateway", "gateway"),
            lister=self.relay.ask_server,
        )
        self.relay.guard = self.guard
        server.send = self.relay.from_server

    def task(self, *tools: str, **more: Any) -> Task:
        """A task of `bot` for `alice`; it may only read unless it names tools."""
        given: dict[str, Any] = {"agent": "bot", "on_behalf_of": "alice", "session": "s", **more}
        return self.gate.task(tools=tools or None, **given)

    async def _to_client(self, raw: bytes) -> None:
        self.raws.append(raw)
        message = json.loads(raw)
        self.got.append(message)
        if "method" in message and "id" in message and message["method"] in self.replies:
            answer = {"jsonrpc": "2.0", "id": message["id"], **self.replies[message["method"]]}
            task = asyncio.create_task(self.relay.from_client(json.dumps(answer).encode()))
            self._soon.add(task)
            task.add_done_callback(self._soon.discard)
        waiting = self._answers.pop(message.get("id"), None) if "method" not in message else None
        if waiting is not None:
            waiting.set_result(message)

    async def raw(self, raw: bytes) -> list[dict[str, Any]]:
        """Sends bytes of the client, and waits until nothing is under way.

        Returns:
            What the client has got meanwhile.
        """
        before = len(self.got)
        await self.relay.from_client(raw)
        await self.quiet()
        return self.got[before:]

    async def quiet(self) -> None:
        """Waits until nothing is under way."""
        await self.relay.drain(WAIT)
        async with asyncio.timeout(WAIT):
            while waits := [*self.relay._backs, *self._soon]:
                await asyncio.wait(waits)

    async def ask(self, method: str, params: Wire | None = None, **more: Any) -> dict[str, Any]:
        """Sends a request, and gives its answer."""
        self._count += 1
        request = {"jsonrpc": "2.0", "id": self._count, "method": method, **more}
        if params is not None:
            request["params"] = params
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._count] = waiting
        await self.relay.from_client(json.dumps(request).encode())
        async with asyncio.timeout(WAIT):
            return await waiting

    async def call(self, name: str, /, **arguments: Any) -> str:
        """Calls a tool: `permit`, or the reason of the denial."""
        return code_of(await self.ask("tools/call", {"name": name, "arguments": arguments}))

    async def listed(self, method: str = "tools/list") -> list[str]:
        """Names (addresses, for resources) that a list shows the client."""
        params: dict[str, Any] = {}
        names: list[str] = []
        while True:
            result = (await self.ask(method, params))["result"]
            names += [str(each.get("name") or each.get("uri")) for each in result[m.LISTS[method]]]
            if "nextCursor" not in result:
                return names
            params = {"cursor": result["nextCursor"]}

    def lines(self, kind: str = "decision") -> list[dict[str, Any]]:
        """Bodies of the records of a kind."""
        self.gate.store.commit(durable=True).result(WAIT)
        found = [dict(line.body) for line in audit.show(self.folder / "lictor.db", limit=10_000)]
        return [body for body in found if body["kind"] == kind]

    def codes(self) -> list[str]:
        """Reasons of all decisions, in order."""
        return [str(body["code"]) for body in self.lines()]

    async def close(self) -> None:
        """Ends everything."""
        await self.relay.end()
        self.gate.close()


def code_of(answer: Wire) -> str:
    """What an answer says was decided: `permit`, a reason, or the text of an error of the wire."""
    if "error" in answer:
        error = answer["error"]
        return str(((error.get("data") or {}).get("lictor") or {}).get("code", error["message"]))
    meta = answer["result"].get("_meta") or {}
    return str((meta.get("lictor") or {}).get("code", "permit"))
