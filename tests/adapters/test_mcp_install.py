"""`lictor gateway install`: what it changes in a client's configuration, and what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lictor import ConfigError
from lictor.catalog import Catalog, read_seen
from lictor.cli import app
from lictor.model import ToolKey
from lictor.testing.seat import Seat
from lictor_mcp.gateway import install, opening
from lictor_mcp.gateway.install import CLIENTS, config_of, plan, undo

SERVER = """
import json, sys
for line in sys.stdin:
    got = json.loads(line)
    if got.get("id") is None: continue
    if got["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"resources": {}},
                  "serverInfo": {"name": "n", "version": "1"}}
    elif got["method"] == "tools/list":
        result = {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}
    else: result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": got["id"], "result": result}), flush=True)
"""


def config(folder: Path, text: str = "", **servers: Any) -> Path:
    path = folder / ".mcp.json"
    made = json.dumps({"theme": "dark", "mcpServers": servers}, indent=4)
    path.write_text(text or made.replace("dark", "d\u00e4rk"), encoding="utf-8")
    return path


def one(**more: Any) -> dict[str, Any]:
    return {"command": "sh", "args": ["-c", "x y"], "env": {"API_KEY": "s3cret"}, **more}


def test_a_server_is_wrapped_with_absolute_paths_and_its_environment_by_name(
    tmp_path: Path,
) -> None:
    path = config(tmp_path, Notes=one(disabled=False), other=one())
    made = plan(path, ["Notes"])
    found = json.loads(made.after)
    args = ["gateway", "--name", "notes", "--env", "API_KEY", "--", made.entries[0].command[0]]
    assert found["mcpServers"]["Notes"] == {
        "command": install.program(),
        "args": [*args, "-c", "x y"],
        "env": {"API_KEY": "s3cret"},
        "disabled": False,
    }
    assert all(Path(each).is_absolute() for each in (install.program(), args[-1]))
    assert found["mcpServers"]["other"] == one()
    assert found["theme"] == "därk"
    assert "s3cret" not in made.difference
    assert "därk" in made.after
    assert path.read_text() == made.before


def test_undo_takes_it_out_again(tmp_path: Path) -> None:
    path = config(tmp_path, a=one(), b=one())
    before = json.loads(path.read_text())
    plan(path, [], every=True).write()
    assert plan(path, ["a"]).left == ("a: the gateway is before it already",)
    undo(path, ["a"]).write()
    after = json.loads(path.read_text())["mcpServers"]
    assert after["a"] == {**before["mcpServers"]["a"], "command": after["a"]["command"]}
    assert Path(after["a"]["command"]).name == "sh"
    assert after["b"]["args"][0] == "gateway"
    assert undo(path, ["a"]).left == ("a: the gateway is not before it",)


@pytest.mark.parametrize(
    "text",
    [
        '{"mcpServers": {"a": {"command": "sh"}} // mine\n}',
        '{"mcpServers": {"a": {"command": "sh"},}}',
        '{"mcpServers": {"a": {"command": "sh"}, "a": {"command": "sh"}}}',
        '{"mcpServers": {}}',
        "[]",
        "",
        "[" * 100_000,
    ],
)
def test_what_could_not_be_written_back_is_refused_and_left_as_it_is(
    tmp_path: Path, text: str
) -> None:
    path = config(tmp_path, text or " ")
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        plan(path, [], every=True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [".mcp.json"]


def test_what_has_no_command_that_can_run_is_left_and_said(tmp_path: Path) -> None:
    path = config(
        tmp_path, web={"url": "http://x"}, gone={"command": "/no/such"}, odd=one(args=[1])
    )
    made = plan(path, [], every=True)
    assert made.entries == ()
    assert made.after == made.before
    assert [each.partition(":")[0] for each in made.left] == ["web", "gone", "odd"]


def test_a_file_that_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    path = config(tmp_path, a=one())
    made = plan(path, ["a"])
    path.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match="was changed meanwhile"):
        made.write()
    assert path.read_text() == '{"mine": 1}'


def test_a_copy_is_kept_and_the_mode_too(tmp_path: Path) -> None:
    path = config(tmp_path, a=one())
    path.chmod(0o600)
    before = path.read_text()
    copy = plan(path, ["a"]).write()
    assert copy.read_text() == before
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_servers_are_never_one_in_the_catalog(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one id"):
        plan(config(tmp_path, **{"My Server": one(), "my": one()}), [], every=True)


def test_unknown_names_say_what_is_known(tmp_path: Path) -> None:
    path = config(tmp_path, a=one())
    with pytest.raises(ConfigError, match="it has: a"):
        plan(path, ["b"])
    with pytest.raises(ConfigError, match="name some, or --all"):
        plan(path, [])
    with pytest.raises(ConfigError, match="cursor"):
        config_of("emacs")


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_each_client_is_found_where_it_keeps_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = tmp_path / CLIENTS[client]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"servers": {"a": one()}}))
    assert [each.name for each in plan(config_of(client), ["a"]).entries] == ["a"]


def test_the_command_shows_writes_lists_the_server_and_names_the_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    monkeypatch.setattr(opening, "home_of", lambda server: tmp_path / "own" / server)
    path = config(tmp_path, notes={"command": sys.executable, "args": [str(script)]})
    before = path.read_text()

    shown = CliRunner().invoke(app, ["gateway", "install", str(path), "notes", "--dry-run"])
    assert (shown.exit_code, path.read_text()) == (0, before)
    assert '+            "gateway",' in shown.output.replace(" " * 16, " " * 12)

    done = CliRunner().invoke(app, ["gateway", "install", str(path), "--all"])
    assert done.exit_code == 0, done.output
    assert f"notes: 1 tools wait for review: lictor review -p {tmp_path / 'own/notes'}" in (
        done.output.replace("\n", "")
    )
    seen = (tmp_path / "own/notes/.lictor/seen.json").read_text()
    assert all(each in seen for each in ('"look"', '"mcp:resources/read"', '"mcp:server"'))


def test_at_a_terminal_it_opens_the_review_and_what_is_pressed_counts(tmp_path: Path) -> None:
    script, own = tmp_path / "server.py", tmp_path / "own/notes"
    script.write_text(SERVER)
    path = config(tmp_path, notes={"command": sys.executable, "args": [str(script)]})
    home = "from pathlib import Path; import lictor_mcp.gateway.opening as o; o.home_of = "
    lictor = f"{home}lambda _: Path({str(own)!r})\nfrom lictor.cli import main; main()"
    words = [sys.executable, "-c", lictor, "gateway", "install", str(path), "notes"]

    with Seat(words, columns=200) as seat:
        seat.until("notes: 1 tools wait for review")
        seat.until("notes/look")
        seat.until("[q]uit > ")
        seat.press("b\n")
        seat.until("[q]uit > ")
        seat.press("q\n")
        told = seat.rest()

    assert told.endswith("[exit 0]")
    assert "restart the client to use it" in told
    look = read_seen(own / ".lictor/seen.json")[ToolKey("notes", "look")]
    catalog = Catalog.load(own / "catalog.toml", own / "catalog.lock")
    assert catalog.check(look) == "tool_blocked"
