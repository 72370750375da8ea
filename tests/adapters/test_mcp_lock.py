"""`lictor catalog lock|diff --server`: what a server offers now, as it is about to be reviewed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lictor import ConfigError
from lictor.catalog import Catalog, Decided, classify, read_seen
from lictor.cli import app
from lictor.model import Impact, ToolKey

SERVER = """
import json, os, sys, time
said = json.load(open(sys.argv[1]))
with open(sys.argv[1] + ".pid", "a") as file:
    print(os.getpid(), file=file)
def send(value): print(json.dumps(value), flush=True)
for line in sys.stdin:
    got = json.loads(line)
    method, id = got.get("method"), got.get("id")
    with open(sys.argv[1] + ".log", "a") as file:
        print(line, end="", file=file)
    for each in said.get("before " + str(method), []):
        sys.stdout.write(each + "\\n"); sys.stdout.flush()
    if id is None: continue
    key = method + " " + (got.get("params") or {}).get("cursor", "")
    answer = said.get(key.strip())
    if isinstance(answer, str):
        exec(answer)
    elif answer is None:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})
    else:
        send({"jsonrpc": "2.0", "id": id, "result": answer})
"""
WELCOME: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "n", "version": "1"},
}


def tool(name: str, about: str = "Reads.", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": about, "inputSchema": {"type": "object"}, **more}


class World:
    """A project with a server, and what that says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, folder / "said.json"
        self.script, self.toml = folder / "server.py", folder / "lictor.toml"
        self.script.write_text(SERVER)
        self.command = [sys.executable, str(self.script), str(self.said)]
        self.project(f"command = {json.dumps(self.command)}")
        self.says(tool("look"), tool("put"))

    def project(self, server: str) -> None:
        self.toml.write_text(f"[mcp.servers.notes]\n{server}\n")

    def says(self, *tools: Any, **more: Any) -> None:
        answers = {"initialize": WELCOME, "tools/list": {"tools": tools}}
        self.said.write_text(json.dumps({**answers, **more}))

    def run(self, *words: str, ends: int = 0) -> str:
        command, cut = list(words), len(words)
        if "--" in words:
            cut = words.index("--")
        command[cut:cut] = ["-p", str(self.toml)]
        done: Result = CliRunner().invoke(app, ["catalog", *command])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == ends, done.output
        return done.output

    def lock(self, *words: str, ends: int = 0) -> str:
        return self.run("lock", "--server", "notes", *words, ends=ends)

    def diff(self, *words: str, ends: int = 0) -> str:
        return self.run("diff", "--server", "notes", *words, ends=ends)

    def refused(self, *words: str) -> ConfigError:
        """Both commands refuse it, and nothing is written."""
        before = self.files()
        for verb in ("diff", "lock"):
            with pytest.raises(ConfigError) as raised:
                self.run(verb, *(words or ("--server", "notes")))
            assert self.files() == before
            assert not self.alive()
        return raised.value

    def files(self) -> list[str]:
        written = ("catalog.toml", "catalog.lock", ".lictor/seen.json")
        return [each for each in written if (self.folder / each).exists()]

    def catalog(self) -> Catalog:
        return Catalog.load(self.folder / "catalog.toml", self.folder / "catalog.lock")

    def review(self, name: str) -> None:
        found = self.catalog().locked[ToolKey("notes", name)]
        decided = Decided(impact=frozenset({Impact.READ}), reviewer="ops")
        classify(self.folder / "catalog.toml", self.folder / "catalog.lock", found, decided)

    def alive(self) -> list[int]:
        pids = self.folder / "said.json.pid"
        return (
            [pid for pid in map(int, pids.read_text().split()) if _runs(pid)]
            if pids.exists()
            else []
        )

    def heard(self) -> list[dict[str, Any]]:
        return [
            json.loads(each) for each in (self.folder / "said.json.log").read_text().splitlines()
        ]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- what is read ---------------------------------------------------------------------------------


def test_new_tools_are_locked_and_denied_until_somebody_reviews_them(world: World) -> None:
    told = world.lock()
    assert "added: notes/look notes/mcp:server notes/put" in told
    made = world.catalog()
    assert not made.known_tools()
    assert sorted(str(key) for key in made.locked) == [
        "notes/look",
        "notes/mcp:server",
        "notes/put",
    ]
    assert not world.alive()
    assert set(read_seen(world.folder / ".lictor/seen.json")) == set(made.locked)
    assert "nothing to do" in world.lock()
    assert "nothing has changed" in world.diff()
