"""Mutated frames at the gateway, from both sides: it never crashes, and forwards nothing undecided.

`python benchmarks/fuzz_gateway.py [--frames 100000] [--seed N]` drives the real gate, guard and
relay in front of a server that reads as carelessly as anybody could: it splits lines at every
character that some reader takes for a line end, and takes names in any case. It writes
`build/bench/fuzz_gateway.json`, and prints every frame that broke a rule:

* a call that reaches the server is the one call that policy allows, and was permitted;
* nothing reaches the server by a method that nobody has reviewed;
* no request of the server reaches the client, which none is reviewed for;
* what passes is one message on one line;
* nothing raises, and nothing is logged as an error.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

from lictor.errors import PERMIT
from lictor.ports import Answer, Query
from lictor.testing import UnsafeScripted
from lictor_mcp.testing import HostileServer, Line, definition, known, known_method
from lictor_mcp.wire import Malformed, parse

LOOK = definition("look", "name")
PUT = definition("put", "name", "text")
ALLOWED = {"name": "a"}
BATCH = 1000
IDS = 500
MAX_SHOWN = 20

CALL = {"name": "look", "arguments": ALLOWED}
WRITE = {"name": "put", "arguments": {"name": "a", "text": "b"}}
HIDDEN = {"jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": WRITE}
FROM_CLIENT = [
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**CALL, "_meta": {"a": 1}}},
    {"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": WRITE},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": {"progressToken": 1}}},
    {"jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": {"uri": "file:///a"}},
    {"jsonrpc": "2.0", "id": 4, "method": "prompts/get", "params": {"name": "p", "arguments": {}}},
    {"jsonrpc": "2.0", "id": 5, "method": "tasks/get", "params": {"taskId": "t"}},
    {"jsonrpc": "2.0", "id": 6, "method": "x/y", "params": WRITE},
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    {"jsonrpc": "2.0", "method": "tools/call", "params": WRITE},
    {"jsonrpc": "2.0", "id": 1, "result": {"roots": []}},
    {"jsonrpc": "2.0", "id": 7, "method": "ping"},
]
FROM_SERVER = [
    {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "x"}]}},
    {"jsonrpc": "2.0", "id": 1, "result": {"inputRequests": {"a": {"method": "roots/list"}}}},
    {"jsonrpc": "2.0", "id": 2, "result": {"tools": [LOOK, PUT], "nextCursor": "1"}},
    {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}},
    {"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {"messages": []}},
    {"jsonrpc": "2.0", "id": "e", "method": "elicitation/create", "params": {"message": "?"}},
    {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
    {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}},
    {"jsonrpc": "2.0", "method": "tools/call", "params": WRITE},
]
PIECES = [
    b"\r", b"\n", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\xed\xa0\x80",
    b'"name":"put",', b'"Name":"put",', b'"\\u006eame":"put",', b'"method":"tools/call",',
    b'"id":1,', b'"arguments":{"name":"b"},', b'"NAME":"b",', b"1e400", b"-0", b"1.0", b"NaN",
    b"9007199254740993", b"null", b"true", b"[]", b"{}", b"[" * 70, b"}", b"{", b'"', b",",
    b'"\\ud800"', b"look", b"put", b"tools/call", b'"_meta":{"a":1},', b'"taskId":"t",',
]  # fmt: skip
MEMBERS = [piece for piece in PIECES if piece.endswith(b",") and b":" in piece]
MAY_PASS = {
    "tools/call", "tools/list", "prompts/list", "ping", "initialize", "server/discover",
    "logging/setLevel", "subscriptions/listen", "resources/list",
    "resources/templates/list", "notifications/cancelled", "notifications/progress",
    "notifications/initialized", "notifications/roots/list_changed",
}  # fmt: skip


def decide(query: Query) -> Answer:
    """One call is allowed."""
    allowed = query.review.key.name == "look" and dict(query.input) == ALLOWED
    return Answer(True, PERMIT, ("p",)) if allowed else Answer(False, "no_permit", ("p",))


class Mutator:
    """Makes frames that are almost right."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def often(self, share: float) -> bool:
        """True in this share of cases."""
        return self._dice.random() < share

    def frame(self, seeds: list[dict[str, Any]]) -> bytes:
        """A mutated message."""
        message = copy.deepcopy(self._dice.choice(seeds))
        if message.get("id") == 1:
            message["id"] = self._dice.randrange(IDS)
        for _ in range(self._dice.choice((0, 0, 0, 1, 2))):
            self._reshape(message, seeds)
        raw = json.dumps(message, ensure_ascii=self._dice.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
        kind = self._dice.random()
        for _ in range(self._dice.choice((1, 1, 2, 4))):
            if kind < 0.2:
                raw = self._bytes(raw, seeds)
            elif kind < 0.6:
                raw = self._text(raw)
        return raw

    def _text(self, raw: bytes) -> bytes:
        """What most parsers still take for JSON."""
        spots = [n + 1 for n, byte in enumerate(raw) if byte in b"{,"]
        if not spots:
            return raw
        at = self._dice.choice(spots)
        match self._dice.randrange(4):
            case 0:
                return raw[:at] + self._dice.choice(MEMBERS) + raw[at:]
            case 1:
                hidden = json.dumps(HIDDEN).encode()
                end = self._dice.choice((b"\r", b"\n", b"\r\n"))
                return raw[:at] + b'"x":' + end + hidden + end + b"," + raw[at:]
            case 2:
                return raw.replace(b"name", b"\\u006eame", self._dice.randrange(1, 3))
            case _:
                number = self._dice.choice((b"1.0", b"1e2", b"-0", b"9007199254740993", b"1.5"))
                return raw[:at] + b'"n":' + number + b"," + raw[at:]

    def _reshape(self, message: dict[str, Any], seeds: list[dict[str, Any]]) -> None:
        at: Any = message
        while isinstance(at, dict) and at:
            name = self._dice.choice(sorted(at))
            if not isinstance(at[name], dict) or self._dice.random() < 0.4:
                break
            at = at[name]
        if not isinstance(at, dict) or not at:
            return
        name = self._dice.choice(sorted(at))
        change: Callable[[], Any] = self._dice.choice(
            [
                lambda: at.pop(name),
                lambda: at.update({name.upper(): at[name]}),
                lambda: at.update({name + "\u200b": at[name]}),
                lambda: at.update({name: self._value()}),
                lambda: at.update({name: [at[name]]}),
                lambda: at.update({name: {"x": at[name]}}),
                lambda: at.update({self._dice.choice(("name", "uri", "method", "x")): "put"}),
                lambda: at.update({name: copy.deepcopy(self._dice.choice(seeds))}),
            ]
        )
        change()

    def _value(self) -> Any:
        return self._dice.choice(
            [None, True, 0, -1, 1.5, 2**53, 10**30, "", "a", "put", "\ud800", "\u202e", [], {}]
        )

    def _bytes(self, raw: bytes, seeds: list[dict[str, Any]]) -> bytes:
        at = self._dice.randrange(len(raw) + 1)
        to = min(len(raw), at + self._dice.randrange(1, 12))
        if raw and self._dice.random() < 0.5:  # where parts meet, most of the damage is done
            spots = [n for n, byte in enumerate(raw) if byte in b'{}[]:,"']
            at = self._dice.choice(spots) + 1 if spots else at
        match self._dice.randrange(7):
            case 0:
                return raw[:at] + raw[to:]
            case 1:
                return raw[:at] + bytes([self._dice.randrange(256)]) + raw[at:]
            case 2:
                return raw[:at] + raw[at:to] * 2 + raw[to:]
            case 3:
                return raw[:at]
            case 4:
                other = json.dumps(self._dice.choice(seeds)).encode()
                return raw[:at] + self._dice.choice((b"", b"\r", b"\n")) + other + raw[at:]
            case _:
                return raw[:at] + self._dice.choice(PIECES) + raw[at:]


class Errors(logging.Handler):
    """Counts what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class Fuzz:
    """One run.

    Attributes:
        broken: What broke which rule, with the frame.
        crashes: What raised.
        forwarded: Calls that reached the server.
        permitted: Calls that were permitted.
    """

    def __init__(self, seed: int) -> None:
        self.mutator = Mutator(seed)
        self.broken: list[str] = []
        self.crashes: list[str] = []
        self.forwarded = self.permitted = 0
        self.errors = Errors()

    async def run(self, folder: Path, frames: int) -> None:
        """Sends so many frames, in rounds of one connection each."""
        logging.getLogger("lictor.mcp").addHandler(self.errors)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.crashes.append(str(context))
        )
        for start in range(0, frames, BATCH):
            home = folder / str(start)
            home.mkdir()
            await self._round(home, min(BATCH, frames - start))
        self.crashes += self.errors.found

    async def _round(self, folder: Path, frames: int) -> None:
        server = HostileServer(LOOK, PUT)
        tools = (known(LOOK), known(PUT, "write"), known_method("resources/read"))
        policy = UnsafeScripted(decide)
        line = Line(folder, server, tools, policy=policy, relaying={"seconds": 5.0})
        with line.task("files/look", "files/put", "files/mcp:resources/read"):
            for _ in range(frames):
                await self._one(line)
            await line.relay.end()
        self._judge(line)
        self.forwarded += len(server.called)
        self.permitted += line.codes().count(PERMIT)
        if len(server.called) > line.codes().count(PERMIT):
            self.broken.append(f"{len(server.called)} calls reached the server, fewer permitted")
        await line.close()

    async def _one(self, line: Line) -> None:
        from_client = self.mutator.often(0.9)
        raw = self.mutator.frame(FROM_CLIENT if from_client else FROM_SERVER)
        pieces = raw.split(b"\n") if self.mutator.often(0.5) else [raw]
        try:
            for piece in pieces:
                if from_client:
                    await line.relay.from_client(piece)
                else:
                    await line.relay.from_server(piece)
            if self.mutator.often(0.05):
                await line.relay.drain(0.05)
            await asyncio.sleep(0)
        except Exception as error:
            self.crashes.append(f"{error!r}: {raw!r}")

    def _judge(self, line: Line) -> None:
        for message in line.server.seen:
            if "method" in message:
                self._passed(message)
        for raw in (*line.server.raws, *line.raws):
            if b"\r" in raw or b"\n" in raw:
                self.broken.append(f"more than one line passed: {raw!r}")
            try:
                parse(raw)
            except Malformed as bad:
                self.broken.append(f"what {bad.problem} passed: {raw!r}")
        for told in line.got:
            if "method" in told and "id" in told:
                self.broken.append(f"a request of the server reached the client: {told}")

    def _passed(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message.get("params") or {}
        if str(message.get("id")).startswith("lictor-"):
            return
        if method not in MAY_PASS:
            self.broken.append(f"an undecided method passed: {message}")
        if method == "tools/call" and (params.get("name"), params.get("arguments")) != (
            "look",
            ALLOWED,
        ):
            self.broken.append(f"an undecided call passed: {message}")


def main() -> int:
    """Runs it."""
    asks = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asks.add_argument("--frames", type=int, default=100_000)
    asks.add_argument("--seed", type=int, default=5)
    given = asks.parse_args()
    fuzz, began = Fuzz(given.seed), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(fuzz.run(Path(folder), given.frames))
    for problem in (fuzz.broken + fuzz.crashes)[:MAX_SHOWN]:
        print(problem)
    figures = {
        "frames": given.frames,
        "seed": given.seed,
        "seconds": time.perf_counter() - began,
        "calls_forwarded": fuzz.forwarded,
        "calls_permitted": fuzz.permitted,
    }
    ratios = {
        "undecided_passed": float(len(fuzz.broken)),
        "crashes": float(len(fuzz.crashes)),
        "calls_forwarded": float(fuzz.forwarded),
    }
    goals = {"undecided_passed": "<= 0", "crashes": "<= 0", "calls_forwarded": ">= 1"}
    return 0 if common.write("fuzz_gateway", figures, ratios, goals) else 1


if __name__ == "__main__":
    sys.exit(main())
