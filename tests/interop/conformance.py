"""The official conformance suite against a server: plain, with the middleware, behind the gateway.

What is compared is every line of the suite's report, not its totals.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fixture_name import SERVER
from home import READ, home, met, methods, review
from parts import HERE, Missing, Parts, environment
from talk import INFO, NEW, OLD, PREFIX

LEGS: dict[str, tuple[str, ...]] = {
    "A": ("--suite", "all", "--spec-version", OLD),
    "B": ("--suite", "all", "--spec-version", NEW),
    "C": ("--suite", "all"),
}
CONTROL = "tools-call-image"
BASELINE = {"A": (84, 0), "B": (152, 0), "C": (207, 25)}
"""Passed and failed of the plain server, as they were measured when this was written."""
FOLDER = Path(__file__).parent
START = 60.0
SECONDS = 600.0
LINE = re.compile(r"^[✓✗] ([^:]+): (\d+) passed, (\d+) failed")

Lines = dict[str, tuple[int, int]]


@dataclass
class Column:
    """One way to run the server, and what the suite says of it.

    Attributes:
        name: Shown in the table.
        lines: Leg → scenario → passed and failed.
        left: Tools that could not be reviewed.
        control: Whether a scenario fails while nothing is reviewed: the gate is in the way.
    """

    name: str
    lines: dict[str, Lines] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    control: bool | None = None

    def total(self, leg: str) -> tuple[int, int]:
        """Passed and failed."""
        found = self.lines[leg].values()
        return sum(each[0] for each in found), sum(each[1] for each in found)

    def differences(self, plain: Column) -> list[str]:
        """Lines that are not those of the plain server."""
        found = []
        for leg, lines in plain.lines.items():
            for name in sorted(lines.keys() | self.lines[leg].keys()):
                theirs, ours = lines.get(name), self.lines[leg].get(name)
                if theirs != ours:
                    found.append(f"{leg} {name}: {theirs} -> {ours}")
        return found


def suite(parts: Parts, arguments: Sequence[str], out: Path, **env: str) -> tuple[Lines, int]:
    """Runs the suite once: its lines, and its exit code."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*parts.conformance, *arguments, "-o", str(out)],
        env=environment(PATH=f"{parts.node.parent}:{os.environ['PATH']}", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    out.with_suffix(".txt").write_text(done.stdout, encoding="utf-8")
    found = [match for line in done.stdout.splitlines() if (match := LINE.match(line))]
    return {each[1]: (int(each[2]), int(each[3])) for each in found}, done.returncode


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path, **env: str) -> Iterator[str]:
    """A server, from when it listens to when it has ended; gives its address."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command), env=environment(**env), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _await(process, port, log)
        yield f"http://localhost:{port}/mcp"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    tail = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise AssertionError(f"{process.args!r} does not listen: {tail}")


def post(url: str, method: str) -> None:
    """One request of the stateless protocol; what it makes the gate meet is all that counts."""
    meta = {
        f"{PREFIX}protocolVersion": NEW,
        f"{PREFIX}clientInfo": INFO,
        f"{PREFIX}clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": NEW,
        "mcp-method": method,
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=30):
        pass


class Servers:
    """Runs the columns.

    Args:
        parts: What is foreign.
        folder: Where everything is written.
        legs: Which of them.
    """

    def __init__(self, parts: Parts, folder: Path, legs: Sequence[str] = tuple(LEGS)) -> None:
        self.parts, self.folder, self.legs = parts, folder, legs
        self._path = str(parts.sdist / "examples/servers/everything-server")

    @contextlib.contextmanager
    def plain(self, name: str = "plain", *toml: Path) -> Iterator[str]:
        """The server; with the middleware if a `lictor.toml` is given."""
        port = free_port()
        command = [self.parts.modern, FOLDER / "fixture.py", port, *toml]
        log = self.folder / name / "server.log"
        with running(list(map(str, command)), port, log, PYTHONPATH=self._path) as url:
            yield url

    @contextlib.contextmanager
    def behind(self, name: str, toml: Path) -> Iterator[str]:
        """The server, unchanged, behind the gateway."""
        port = free_port()
        with self.plain(name) as upstream:
            command = [HERE, FOLDER / "gateway_http.py", toml, port, upstream]
            log = self.folder / name / "gateway.log"
            with running(list(map(str, command)), port, log) as url:
                yield url

    def columns(self) -> Iterator[Column]:
        """The plain server first, then each adapter with each policy."""
        with self.plain() as url:
            yield self._run(Column("plain"), url)
        for adapter, start in (("middleware", self.plain), ("gateway", self.behind)):
            learnt = self.folder / adapter
            with start(adapter, home(learnt)) as url:
                for method in ("server/discover", "tools/list", "prompts/list"):
                    post(url, method)
                arguments = ("server", "--url", url, "--scenario", CONTROL)
                control = suite(self.parts, arguments, learnt / "control")[1] != 0
            for policy in ("allow-all", "strict"):
                column = Column(f"{adapter} {policy}", control=control)
                toml = self._home(column, learnt, allow_all=policy == "allow-all")
                with start(toml.parent.name, toml) as url:
                    yield self._run(column, url)

    def _home(self, column: Column, learnt: Path, *, allow_all: bool) -> Path:
        folder = self.folder / column.name.replace(" ", "-")
        found = {**met(learnt), **methods(SERVER)}
        if not any(name.startswith(f"{SERVER}/test_") for name in found):
            raise Missing("the suite's server has shown no tools")
        home(folder)
        column.left = review(folder, found.values(), None if allow_all else lambda _: READ)
        return home(folder, found.keys() - set(column.left), allow_all=allow_all)

    def _run(self, column: Column, url: str) -> Column:
        for leg in self.legs:
            out = self.folder / column.name.replace(" ", "-") / leg
            arguments = ("server", "--url", url, *LEGS[leg])
            column.lines[leg] = suite(self.parts, arguments, out)[0]
        return column
