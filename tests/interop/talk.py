"""A client that speaks bytes: what is compared is what was on the wire."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

OLD, NEW = "2025-11-25", "2026-07-28"
WAIT = 30.0
INFO = {"name": "interop", "version": "1"}
PREFIX = "io.modelcontextprotocol/"


class Talk:
    """One server on stdio, in one of the two eras.

    Args:
        command: Starts it.
        era: `OLD` opens with a handshake, `NEW` says in every request what it needs.
        env: Its environment.
        log: File for what it says on stderr.
    """

    def __init__(
        self, command: Sequence[str], era: str = OLD, *, env: Mapping[str, str], log: str
    ) -> None:
        self.era, self.told = era, list[dict[str, Any]]()
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._count = 0
        self._log = open(log, "ab")
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(env),
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def __enter__(self) -> Talk:
        try:
            self.opening = self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> dict[str, Any]:
        if self.era == NEW:
            return self.ask("server/discover")
        hello = {"protocolVersion": OLD, "capabilities": {}, "clientInfo": INFO}
        found = self.ask("initialize", hello)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the conversation as a client does, and waits for the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._log.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes one message."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def raw(self, method: str, params: Mapping[str, Any] | None = None) -> bytes:
        """The line that answers a request; what is said meanwhile is kept in `told`."""
        self._count += 1
        given = dict(params or {})
        if self.era == NEW:
            given["_meta"] = {
                f"{PREFIX}protocolVersion": NEW,
                f"{PREFIX}clientInfo": INFO,
                f"{PREFIX}clientCapabilities": {},
            }
        self.send({"jsonrpc": "2.0", "id": self._count, "method": method, "params": given})
        while True:
            line = self._lines.get(timeout=WAIT)
            if not line:
                raise ConnectionError(f"the server ended before it answered {method}")
            message = json.loads(line)
            if message.get("id") == self._count and "method" not in message:
                return line.rstrip(b"\r\n")
            self.told.append(message)

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of a request, or its error under `error`."""
        message = json.loads(self.raw(method, params))
        found: dict[str, Any] = message.get("result", {"error": message.get("error")})
        return found

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool call."""
        return self.ask("tools/call", {"name": name, "arguments": arguments})

    def tools(self) -> dict[str, dict[str, Any]]:
        """Tools by name, of all pages."""
        found: dict[str, dict[str, Any]] = {}
        params: dict[str, Any] = {}
        while True:
            page = self.ask("tools/list", params)
            found |= {each["name"]: each for each in page["tools"]}
            if not page.get("nextCursor"):
                return found
            params = {"cursor": page["nextCursor"]}


def code_of(result: Mapping[str, Any]) -> str:
    """Our reason code in a refusal; empty if it is none."""
    holders = (result.get("structuredContent"), result.get("_meta"))
    holders += ((result.get("error") or {}).get("data"),)
    for holder in holders:
        if isinstance(holder, dict) and isinstance(holder.get("lictor"), dict):
            return str(holder["lictor"]["code"])
    return ""
