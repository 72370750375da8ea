"""`lictor check` and the gateway's part of `lictor.toml`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lictor.cli import app
from lictor.errors import ConfigError

BASE = """
[agents.desktop]
owner = "alice"
[users.alice]
[tasks.notes]
tools = []
"""
WHOLE = f"""
[mcp]
agent = "desktop"
task = "notes"
user = "alice"
[mcp.servers.notes]
command = ["{sys.executable}", "-m", "notes"]
"""


def check(folder: Path, text: str) -> str:
    path = folder / "lictor.toml"
    path.write_text(BASE + text)
    (folder / "catalog.toml").write_text("")
    done = CliRunner().invoke(app, ["check", "-p", str(path)], env={"COLUMNS": "300"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_what_is_whole_is_not_spoken_of(tmp_path: Path) -> None:
    assert "mcp" not in check(tmp_path, WHOLE)


@pytest.mark.parametrize(
    ("key", "name", "near"),
    [
        ("agent", "desktpo", "[agents.desktpo], or name one of: desktop"),
        ("task", "note", "[tasks.note], or name one of: notes"),
        ("user", "bob", "[users.bob], or name one of: alice"),
    ],
)
def test_a_name_that_the_file_does_not_explain_is_an_error(
    tmp_path: Path, key: str, name: str, near: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, f'[mcp]\n{key} = "{name}"\n')
    assert caught.value.where.endswith(f"lictor.toml: mcp.{key}")
    assert near in caught.value.mend


def test_any_user_will_do_where_the_file_takes_everybody(tmp_path: Path) -> None:
    assert "mcp.user" not in check(tmp_path, '[users."*"]\n[mcp]\nuser = "bob"\n')


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ('command = ["/no/such"]', "notes.command: /no/such is not found here"),
        ('command = ["sh"]\ncwd = "/no/such"', "notes.cwd: /no/such is no folder here"),
        ('command = ["sh"]\nenv = ["NO_SUCH_ONE"]', "notes.env: NO_SUCH_ONE is not set here"),
        ('url = "ftp://x"', "notes.url: ftp://x is no address"),
        ('url = "http://far.test/mcp"', "is not encrypted, and leaves this machine"),
        ('url = "https://far.test/mcp"', "mcp.bearer is missing"),
        ('url = "https://far.test/mcp"\ntoken = "t"', "notes.token: "),
    ],
)
def test_what_this_machine_lacks_is_a_warning_with_its_mend(
    tmp_path: Path, server: str, said: str
) -> None:
    given = '[mcp]\nagent = "desktop"\ntask = "notes"\n[mcp.servers.notes]\n'
    output = check(tmp_path, given + server)
    assert said in output
    assert "mend: " in output


@pytest.mark.parametrize("word", ["agent", "task"])
def test_who_acts_and_under_what_is_asked_for(tmp_path: Path, word: str) -> None:
    lines = [each for each in WHOLE.splitlines() if not each.startswith(f"{word} ")]
    assert f"mcp.{word} is missing" in check(tmp_path, "\n".join(lines))


def test_a_token_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    given = '[mcp]\nbearer = ["a.token"]\n'
    assert "a.token is not there" in check(tmp_path, given)
    token = tmp_path / "a.token"
    token.write_text("x")
    token.chmod(0o644)
    assert f"can be read by others\n  mend: chmod 600 {token}" in check(tmp_path, given)
    token.chmod(0o600)
    assert "a.token" not in check(tmp_path, given)
    token.rename(tmp_path / "b")
    token.symlink_to(tmp_path / "b")
    assert "is no plain file" in check(tmp_path, given)
