"""What an operator has written down for the demo, and how its processes are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lictor.catalog import Decided, classify, read_seen
from lictor.model import Impact
from lictor.place import place
from lictor_mcp.demo.client import Client
from lictor_mcp.demo.weather import __file__ as WEATHER
from lictor_mcp.gateway.child import environment

FILES: Final = "files"
LYING: Final = "weather"
PROGRAM: Final = (sys.executable, "-c", "from lictor.cli import main; main()")
"""What the command `lictor` runs, wherever it lies."""
SECONDS: Final = 60.0

_TOML: Final = """\
tenant = "demo"
guardrails = "starter@1"

[mcp]
agent = "assistant"
task = "sum-up"
user = "alice"

[agents.assistant]
owner = "alice"

[users.alice]

[tasks.sum-up]
purpose = "sum up the notes in one file beside them"
tools = {tools}
"""
_LIMITS: Final = """
[tasks.sum-up.limits."files/read_text_file"]
path = {{ path_under = {notes} }}

[tasks.sum-up.limits."files/write_file"]
path = {{ path_under = {notes} }}
content = {{ any = true }}
"""
_SERVER: Final = """
[mcp.servers.{name}]
command = {command}
"""
REVIEW: Final[Mapping[str, Decided]] = {
    "files/read_text_file": Decided(
        frozenset({Impact.READ}),
        "alice",
        "2026-11-24T00:00:00Z",
        recordable=("path",),
        produces=frozenset({"untrusted"}),
        sources=frozenset({"outsiders"}),
    ),
    "files/write_file": Decided(
        frozenset({Impact.WRITE}),
        "alice",
        "2026-11-24T00:00:00Z",
        target=("path",),
        recordable=("path",),
    ),
    "weather/forecast": Decided(
        frozenset({Impact.READ}), "alice", "2026-11-24T00:00:00Z", recordable=("city",)
    ),
}
"""What the demo's reviewer has said; of all other tools he has said nothing."""


class Scene:
    """A folder with the files, the project of the gateway, and what its processes said.

    Args:
        folder: It.
        files: Command of the real server of files; none if it cannot be had.
    """

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self.project, self._log = folder / "project", folder / "stderr.txt"
        self.toml = self.project / "lictor.toml"
        self.work = folder / "work"
        self.commands: dict[str, list[str]] = {LYING: [sys.executable, WEATHER]}
        if files:
            self.commands[FILES] = [*files, str(self.work)]
        self.project.mkdir(mode=0o700)
        self._write()

    def _write(self) -> None:
        tools = [each for each in REVIEW if each.partition("/")[0] in self.commands]
        text = _TOML.format(tools=json.dumps(tools))
        if FILES in self.commands:
            text += _LIMITS.format(notes=json.dumps(str(self.work / "notes")))
        for name, command in self.commands.items():
            text += _SERVER.format(name=name, command=json.dumps(command))
        self.toml.write_text(text, encoding="utf-8")
        (self.project / "catalog.toml").write_text("", encoding="utf-8")

    def direct(self, server: str) -> Client:
        """A client of the server itself."""
        return Client(self.commands[server], environment(), self._log)

    def guarded(self, server: str) -> Client:
        """The same client, behind a gateway process of its own."""
        command = [*PROGRAM, "gateway", "-p", str(self.toml), "--server", server]
        return Client(command, _ours(), self._log)

    def lictor(self, *words: str) -> list[str]:
        """What a command of ours prints."""
        done = subprocess.run(  # noqa: S603
            [*PROGRAM, *words, "-p", str(self.toml)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_ours(),
            timeout=SECONDS,
            check=False,
        )
        return (done.stdout + done.stderr).decode(errors="replace").splitlines()

    def review(self, server: str) -> list[str]:
        """Enters what the reviewer says of the tools that the gateway has met.

        Returns:
            Names of the tools.
        """
        seen = {str(key): tool for key, tool in read_seen(place(self.toml).seen).items()}
        found = [each for each in REVIEW if each.startswith(f"{server}/") and each in seen]
        for name in found:
            paths = self.project / "catalog.toml", self.project / "catalog.lock"
            classify(*paths, seen[name], REVIEW[name])
        return found


def _ours() -> dict[str, str]:
    """Our environment, without what the reader has set for gates of his own."""
    return {name: each for name, each in os.environ.items() if not name.startswith("LICTOR_")}
