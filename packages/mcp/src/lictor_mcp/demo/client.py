"""A client without a model: it speaks MCP to one process, and calls what it is told to."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

WAIT: Final = 30.0
"""Seconds until an answer is missed."""
LEAVE: Final = 10.0
"""Seconds that a process has to end by itself."""
HELLO: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "lictor-demo", "version": "1"},
}


class Silent(Exception):
    """A server ended or did not answer; with the last that it said on stderr."""


class Client:
    """One conversation with one server, or with the gateway before it.

    Args:
        command: Starts it.
        env: Its environment.
        log: File for what it says on stderr.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.told: list[dict[str, Any]] = []
        self._command, self._env, self._log = list(command), dict(env), log
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._count = 0

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.ask("initialize", HELLO)
            self._send({"method": "notifications/initialized"})
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of a request, or its error under `error`.

        Raises:
            Silent: No answer came.
        """
        self._count += 1
        self._send({"id": self._count, "method": method, "params": dict(params or {})})
        while True:
            message = self._next(method)
            if message.get("id") == self._count and "method" not in message:
                found: dict[str, Any] = message.get("result", {"error": message.get("error")})
                return found
            self.told.append(message)

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool call."""
        return self.ask("tools/call", {"name": name, "arguments": arguments})

    def tools(self) -> dict[str, dict[str, Any]]:
        """What is listed, by name."""
        return {each["name"]: each for each in self.ask("tools/list")["tools"]}

    def heard(self, method: str) -> None:
        """Waits until it was told so.

        Raises:
            Silent: It was not.
        """
        while not any(each.get("method") == method for each in self.told):
            self.told.append(self._next(method))

    def _next(self, awaited: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=WAIT)
        except queue.Empty:
            raise self._silent(f"did not answer {awaited}") from None
        if not line:
            raise self._silent(f"ended before it answered {awaited}")
        message: dict[str, Any] = json.loads(line)
        return message

    def _silent(self, problem: str) -> Silent:
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return Silent(f"{self._command[0]} {problem}: {' / '.join(said[-3:]) or 'it said nothing'}")

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._silent(f"ended before it was told {message['method']}") from None

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(b"")

    def _close(self) -> None:
        """Ends the conversation as a client does, and waits for the process."""
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it was gone already
        try:
            self._process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._reader.join(LEAVE)


def code_of(result: Mapping[str, Any]) -> str:
    """Our reason in a refusal; `error` for one of somebody else, empty for none."""
    holders = (result.get("_meta"), (result.get("error") or {}).get("data"))
    for holder in holders:
        if isinstance(holder, dict) and isinstance(holder.get("lictor"), dict):
            return str(holder["lictor"]["code"])
    return "error" if result.get("isError") or "error" in result else ""


def text_of(result: Mapping[str, Any]) -> str:
    """What the model would read."""
    error = result.get("error")
    if error:
        return str(error.get("message", ""))
    return " ".join(str(each.get("text", "")) for each in result.get("content", ()))
