"""`lictor gateway`: what it needs, what it says when that is missing, and whose task it runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lictor import ConfigError, audit
from lictor.cli import app
from lictor.dev import account
from lictor.errors import TaskError
from lictor.model import Assurance
from lictor_mcp import gateway
from lictor_mcp.gateway import named_by, opening
from lictor_mcp.gateway.opening import Opened, open_gate

WAIT = 20.0
TOML = """\
[mcp]
agent = "desktop"
task = "files"
{mcp}
[agents.desktop]
owner = "alice"
[users.alice]
[users."*"]
[tasks.files]
tools = ["files/look"]
{task}
"""


def project(folder: Path, mcp: str = "", task: str = "", toml: str = TOML) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lictor.toml"
    file.write_text(toml.format(mcp=mcp, task=task))
    return file


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    made: list[Opened] = []

    def opens(*args: Any, **more: Any) -> Opened:
        made.append(open_gate(*args, **more))
        return made[-1]

    yield opens
    for each in made:
        each.close()


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["gateway", *args])


# -- what it needs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((), "was told no server"),
        (("--", "/no/such/program"), "is no program that can be run"),
        (("--upstream", "http://x"), "is for HTTP"),
        (("--listen", "127.0.0.1:1"), "need a project"),
        (("--listen", "127.0.0.1:1", "-p", "/x", "--", "sh"), "serves addresses"),
        (("-p", "/no/such/lictor.toml", "--", "sh"), "does not exist"),
    ],
)
def test_what_is_missing_is_said(args: tuple[str, ...], problem: str) -> None:
    found = run(*args)
    assert isinstance(found.exception, ConfigError)
    assert problem in str(found.exception)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lictor_mcp.gateway", None)
    monkeypatch.setitem(sys.modules, "lictor_mcp", None)
    found = run("--", "sh")
    assert 'pip install "lictor[mcp]"' in str(found.exception)


@pytest.mark.parametrize(
    ("mcp", "wanted", "problem"),
    [
        ("", (), "does not name a server with a command"),
        ("", ("git",), "does not name git"),
        ('[mcp.servers.web]\nurl = "http://x"', ("web",), "has an address and no command"),
        ('[mcp.servers.a]\ncommand = ["/no/such"]', ("a",), "/no/such is no program"),
    ],
)
def test_a_server_of_the_project_must_be_one(
    tmp_path: Path, mcp: str, wanted: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        gateway.run_stdio(project=project(tmp_path, mcp), servers=wanted)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["npx", "-y", "@modelcontextprotocol/server-filesystem@1.2", "/data"], "filesystem"),
        (["uvx", "mcp-server-git"], "git"),
        (["python", "-m", "my_server"], "my"),
        (["/opt/bin/Weather MCP", "--fast"], "weather"),
        (["node", "dist/index.js"], "index"),
        (["7zip"], "s-7zip"),
        (["mcp-server"], "mcp"),
    ],
)
def test_a_server_is_named_as_a_person_would(command: list[str], name: str) -> None:
    assert named_by(command) == name


# -- the task of a connection ---------------------------------------------------------------------


def test_a_connection_gets_a_task_of_the_operators_template_for_the_account(
    tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    task = opened(project(tmp_path)).keeper.task
    assert (task.grant.agents, task.grant.user) == (("desktop",), account())
    assert (task.grant.template, task.assurance) == ("files", Assurance.ASSERTED)


def test_who_acts_and_for_whom_is_the_operators_to_say(
    tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    made = opened(project(tmp_path, 'user = "alice"'))
    assert made.keeper.task.grant.user == "alice"
    with pytest.raises(TaskError, match="agent 'other' is not in the directory"):
        open_gate(project(tmp_path / "b"), agent="other")
    with pytest.raises(ConfigError, match="which agent acts"):
        open_gate(project(tmp_path / "c", toml="[users.alice]"))


def test_what_the_client_calls_itself_is_recorded_and_is_nobody(
    tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    made = opened(project(tmp_path))
    made.keeper.met({"name": "alice\x1b[2J", "version": "9"})
    task = made.keeper.task
    made.close()
    lines = [each.body for each in audit.records(tmp_path / ".lictor/lictor.db", audit.Filters())]
    purposes = [each["purpose"] for each in lines if "purpose" in each]
    assert purposes[1] == "MCP client alice\\u{1b}[2J 9"
    assert task.grant.user == account()


@pytest.mark.asyncio
async def test_a_task_whose_time_is_over_is_followed_in_the_same_conversation(
    tmp_path: Path, opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(project(tmp_path, task="expires_in = 3600"))
    first = made.keeper.task
    later = time.time() + 3600 - opening.SOON / 2
    monkeypatch.setattr(opening.time, "time", lambda: later)
    keeping = asyncio.create_task(made.keeper.keep())
    async with asyncio.timeout(WAIT):
        while made.keeper.task is first:
            await asyncio.sleep(0.01)
    keeping.cancel()
    second = made.keeper.task
    assert made.gate.process is second
    assert second.session.conversation == first.session.conversation
    assert "untrusted" in made.gate.store.session("local", second.session.conversation).labels  # type: ignore[union-attr]
    assert first.state == "running"  # what is under way in it may end


@pytest.mark.asyncio
async def test_a_task_that_somebody_has_ended_is_followed_by_none(
    tmp_path: Path, opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(project(tmp_path))
    made.keeper.task.end()
    monkeypatch.setattr(opening.time, "time", lambda: made.keeper.task.grant.expires)
    async with asyncio.timeout(WAIT):
        await made.keeper.keep()
    assert made.keeper.task.state == "ended"


@pytest.mark.parametrize(("said", "placement"), [("", "p0"), ("separate = true", "p1")])
def test_where_it_runs_is_said_only_by_the_operator(
    tmp_path: Path, opened: Callable[..., Opened], said: str, placement: str
) -> None:
    made = opened(project(tmp_path, said))
    assert made.gate._placement == placement
    assert made.gate.telemetry._placement == placement


# -- without a project ----------------------------------------------------------------------------


def test_without_a_project_it_has_a_folder_of_its_own_and_may_only_use_what_was_reviewed(
    tmp_path: Path, opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "home_of", lambda server: tmp_path / "own" / server)
    monkeypatch.chdir(tmp_path)
    project(tmp_path)  # one that lies about is not found
    made = opened(None, server="files")
    assert made.project.path.parent == tmp_path / "own/files"
    assert made.review == f"lictor review -p {tmp_path / 'own/files'}"
    task = made.keeper.task
    assert (task.assurance, task.grant.tools, task.grant.user) == (
        Assurance.DEV,
        frozenset(),
        account(),
    )


def test_without_a_project_it_is_no_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "home_of", lambda server: tmp_path / server)
    monkeypatch.setenv("LICTOR_PRODUCTION", "1")
    with pytest.raises(ConfigError, match="needs a project"):
        open_gate(None, server="files")


def test_its_own_folder_does_not_move_with_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = opening.home_of("files")
    monkeypatch.setenv("HOME", "/tmp/elsewhere")
    assert opening.home_of("files") == before
