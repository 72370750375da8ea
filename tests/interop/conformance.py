"""The official conformance suite against a server: plain, with the middleware, behind the gateway.

What is compared is every check of the suite's report, not its totals.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import checks
from checks import Leg
from fixture_name import SERVER
from home import POLICIES, changed, entered, home
from parts import HERE, Parts, environment
from talk import INFO, NEW, OLD, PREFIX

LEGS: dict[str, tuple[str, ...]] = {
    "A": ("--suite", "all", "--spec-version", OLD),
    "B": ("--suite", "all", "--spec-version", NEW),
    "C": ("--suite", "all"),
    "D1": ("--requirements", OLD),
    "D2": ("--requirements", NEW),
}
BASELINE = {"A": (84, 0), "B": (152, 0), "C": (207, 25), "D1": (84, 0), "D2": (169, 25)}
"""Passed and failed of the plain server, as they were measured when this was written."""
MUST_BREAK = ("tools-call-image", "tools-call-audio", "resources-read-text", "prompts-get-simple")
"""Scenarios that cannot hold where nothing may be called."""
CHANGED, TOOL = "tools-call-image", "test_image_content"
STILL = "tools-call-audio"
"""Scenarios of a tool whose review is of another definition, and of one that is as reviewed."""
FOLDER = Path(__file__).parent
START = 60.0
SECONDS = 1800.0


@dataclass
class Column:
    """One way to run the server, and what the suite says of it.

    Attributes:
        name: Shown in the table.
        legs: What was run.
        left: Tools that could not be reviewed.
        controls: What had to break, and did not.
    """

    name: str
    legs: dict[str, Leg] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)

    def total(self, leg: str) -> tuple[int, int]:
        """Passed and failed."""
        found = self.legs[leg].values()
        return sum(each.passed for each in found), sum(each.failed for each in found)

    def differences(self, plain: Column) -> list[str]:
        """Checks that do not come out as they do without us."""
        return [
            f"{leg} {each}"
            for leg, theirs in plain.legs.items()
            for each in checks.differences(theirs, self.legs[leg])
        ]

    def unlike(self, measured: Mapping[str, tuple[int, int]]) -> list[str]:
        """Totals that are not those that were measured."""
        return [
            f"{leg}: {self.total(leg)}, measured {total}"
            for leg, total in measured.items()
            if leg in self.legs and self.total(leg) != total
        ]


def suite(parts: Parts, arguments: Sequence[str], out: Path, **env: str) -> Leg:
    """Runs the suite once."""
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
    return checks.read(done.stdout, out)


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


Start: TypeAlias = Callable[[str, Path], contextlib.AbstractContextManager[str]]


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
            learnt = self.folder / f"{adapter}-unreviewed"
            with start(learnt.name, home(learnt)) as url:
                for method in ("server/discover", "tools/list", "prompts/list"):
                    post(url, method)
                unreviewed = self._broken("nothing reviewed", learnt, url)
            denied = self.folder / f"{adapter}-deny-all"
            entered(learnt, denied, SERVER, "deny-all")
            with start(denied.name, denied / "lictor.toml") as url:
                unreviewed += self._broken("deny-all", denied, url)
            for policy in POLICIES:
                column = Column(f"{adapter} {policy}", controls=list(unreviewed))
                home_ = self.folder / f"{adapter}-{policy}"
                column.left = entered(learnt, home_, SERVER, policy)
                with start(home_.name, home_ / "lictor.toml") as url:
                    self._run(column, url)
                column.controls += self._fault(learnt, adapter, policy, start)
                yield column

    def _broken(self, control: str, folder: Path, url: str) -> list[str]:
        found = []
        for leg in ("A", "B"):
            ran = suite(self.parts, ("server", "--url", url, *LEGS[leg]), folder / leg)
            found += [
                f"{leg} {each}: holds with {control}" for each in checks.unbroken(MUST_BREAK, ran)
            ]
        return found

    def _fault(self, learnt: Path, adapter: str, policy: str, start: Start) -> list[str]:
        """The review of one tool is of another definition: this must be seen, and nothing else."""
        folder = self.folder / f"{adapter}-{policy}-changed"
        entered(learnt, folder, SERVER, policy, changed(TOOL))
        ran: Leg = {}
        with start(folder.name, folder / "lictor.toml") as url:
            for name in (CHANGED, STILL):
                arguments = ("server", "--url", url, "--scenario", name)
                ran |= suite(self.parts, arguments, folder / name)
        found = [f"{each}: holds with a changed tool" for each in checks.unbroken([CHANGED], ran)]
        if not checks.unbroken([STILL], ran):
            found.append(f"{STILL}: breaks with another tool changed")
        return found

    def _run(self, column: Column, url: str) -> Column:
        for leg in self.legs:
            out = self.folder / column.name.replace(" ", "-") / leg
            arguments = ("server", "--url", url, *LEGS[leg])
            column.legs[leg] = suite(self.parts, arguments, out)
        return column
