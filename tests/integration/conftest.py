"""Programs with a `Gate.dev()`, at a real terminal or without one, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lictor import audit
from lictor.catalog import Catalog
from lictor.testing.seat import Seat

WAIT = 60.0
ONCE = "[Enter] deny once > "
SURE = "Run exactly this call? [y/N] "
PRELUDE = """
import os, sys
from lictor import Gate
from lictor.errors import Denied
from lictor.model import Tool, ToolCall, ToolKey

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def tool(name, description="", **properties):
    schema = {"type": "object", "properties": properties}
    return Tool(ToolKey("local", name), description or f"Does {name}.", schema)


LOOK = tool("look", n=NUMBER)
PAY = tool("pay", to=TEXT, amount=NUMBER)
NOTE = tool("note", text=TEXT)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


def call(gate, tool, host_id="", /, **arguments):
    ran = []
    try:
        gate.run(ToolCall(tool, arguments, host_id), ran.append)
    except Denied as denied:
        decision = denied.decision
        assert not ran
        say("denied:", tool.key.name, decision.reason, "|", decision.detail)
        return decision
    say("ran:", tool.key.name, *ran)
    return None

"""


class Play:
    """A folder, the programs in it, and the terminals that they are run at."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack

    def write(self, code: str, name: str = "app.py") -> Path:
        """Writes a program."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PRELUDE + code)
        return path

    def sit(self, code: str, name: str = "app.py", **options: Any) -> Seat:
        """Runs a program at a terminal of its own."""
        return self.seat(str(self.write(code, name)), **options)

    def seat(self, *argv: str, **options: Any) -> Seat:
        """Runs Python with these arguments at a terminal of its own."""
        options = {"cwd": str(self.folder), "columns": 200, **options}
        return self._stack.enter_context(Seat([sys.executable, *argv], **options))

    def alone(self, code: str, name: str = "app.py", **options: Any) -> str:
        """Runs a program without any terminal; what it said and how it ended."""
        return self.run(str(self.write(code, name)), **options)

    def run(self, *argv: str, env: Mapping[str, str] | None = None, **options: Any) -> str:
        """Runs Python with these arguments and without any terminal."""
        done = subprocess.run(
            [sys.executable, *argv],
            **{"cwd": self.folder, **options},
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT,
            start_new_session=True,
            check=False,
        )
        return f"{done.stdout}[exit {done.returncode}]"

    def records(self, *kinds: str) -> list[Mapping[str, Any]]:
        """What was recorded."""
        lines = audit.show(self.folder / ".lictor/lictor.db", limit=10_000)
        return [line.body for line in lines if line.body["kind"] in kinds]

    def decisions(self) -> list[str]:
        """Tool and reason of each decision."""
        return [f"{each['tool']}:{each['code']}" for each in self.records("decision")]

    def catalog(self, *, production: bool = False) -> Catalog:
        """The catalog as a gate would load it now."""
        toml = self.folder / "catalog.toml"
        return Catalog.load(toml, toml.with_suffix(".lock"), production=production)

    @staticmethod
    def as_read(seat: Seat, *, outsiders: bool = False) -> str:
        """Reviews the tool in question as a read."""
        shown = seat.until(ONCE)
        seat.press("r\r")
        seat.until("returns? [Y/n] ")
        seat.press("y" if outsiders else "n")
        if outsiders:
            seat.until("who? [outsiders] ")
            seat.press("\r")
        seat.until("sensitive? [y/N] ")
        seat.press("\r")
        return shown

    @staticmethod
    def as_transfer(seat: Seat) -> str:
        """Reviews the tool in question as a transfer, with the target and amount proposed."""
        shown = seat.until(ONCE)
        seat.press("t\r")
        seat.until("where it goes? (- for none) [to] ")
        seat.press("\r")
        seat.until("how much? (- for none) [amount] ")
        seat.press("\r")
        seat.until("stand in clear in the record? [Y/n] ")
        seat.press("y")
        return shown

    @staticmethod
    def sure(seat: Seat, key: str = "y") -> str:
        """Answers the question whether exactly this call may run."""
        shown = seat.until(SURE)
        seat.press(key)
        return shown


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """A folder of its own."""
    with ExitStack() as stack:
        yield Play(tmp_path, stack)
