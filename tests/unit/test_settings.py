"""`lictor.toml`: what is not understood does not load, and the error says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from lictor import ConfigError
from lictor.model import Kind
from lictor.settings import LocalDirectory, Settings, load


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "lictor.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


@pytest.mark.parametrize(
    ("text", "where", "mend"),
    [
        ('gaurdrails = "starter@1"', "gaurdrails", "guardrails"),
        ('[agents.bot]\nrolse = ["x"]', "agents.bot.rolse", "roles"),
        ('[users.alice]\ntenat = "x"', "users.alice.tenat", "tenant"),
        ("[tasks.t]\ntool = []", "tasks.t.tool", "tools"),
        ('[agnets.bot]\nowner = "a"', "agnets", "agents"),
        ("[tasks.t]\nzzz = 1", "tasks.t.zzz", "autonomous"),
        ('[mcp]\nagnet = "a"', "mcp.agnet", "agent"),
        ('[mcp.servers.a]\ncomand = ["x"]', "mcp.servers.a.comand", "command"),
    ],
)
def test_an_unknown_key_does_not_load_and_near_names_are_offered(
    tmp_path: Path, text: str, where: str, mend: str
) -> None:  # rule 1
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert caught.value.where.endswith(f"lictor.toml: {where}")
    assert caught.value.problem == "is not a known key"
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    "text",
    [
        "[mcp.servers.a]",
        "[mcp.servers.a]\ncommand = []",
        '[mcp.servers.a]\ncommand = ["x"]\nurl = "http://x"',
        '[mcp.servers.a]\ncommand = ["x"]\ncwd = "here"',
        '[mcp.servers.a]\ncommand = ["x"]\nenv = ["A=B"]',
        '[mcp.servers.a]\ncommand = ["x"]\ntimeout = 0',
        '[mcp.servers.a_b]\ncommand = ["x"]',
        '[mcp.servers.A]\ncommand = ["x"]',
        'mode = "audit"',
        "profile = 1",
        'profile = "prod"',
        "require_verified = 'no'",
        "[tasks.t]\ntools = 'pay'",
        "[tasks.t]\nexpires_in = 0",
        "[tasks.t]\nexpires_in = 9999999",
        "[tasks.t]\nexpires_in = true",
        "[tasks.t]\nautonomous = 1",
        "[tasks.t]\ncalls = -1",
        "[tasks.t]\nspend = 5",
        "policy_timeout = 0",
        "policy_timeout = nan",
        "policy_timeout = 1e9",
        '[agents."a b"]',
        '[agents."a/b"]',
        '[agents."a\\u0000b"]',
        'tenant = ""',
        "users = 3",
        "rule = {}",
        "labels = [1]",
    ],
)
def test_a_wrong_value_does_not_load_and_its_place_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"lictor\.toml: ") as caught:
        loaded(tmp_path, text)
    assert caught.value.mend


@pytest.mark.parametrize(
    "text", ["mode =", "mode = 'enforce'\nmode = 'observe'", "[a", "a = " + "[" * 5000]
)
def test_what_is_not_toml_does_not_load(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"not TOML|nested") as caught:
        loaded(tmp_path, text)
    assert caught.value.where.endswith("lictor.toml")


def test_bytes_that_are_no_text_do_not_load(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_bytes(b"mode = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "lictor.toml")


def test_nothing_is_loose_by_default(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "")
    assert (settings.mode, settings.guardrails, settings.production) == (
        "enforce",
        "starter@1",
        False,
    )
    assert loaded(tmp_path, "policy_timeout = 3").policy_timeout == 3.0


@pytest.mark.parametrize("word", ["1", "0", "false", "yes"])
def test_the_environment_only_tightens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:  # rule 2
    assert not loaded(tmp_path, "").verified_only
    monkeypatch.setenv("LICTOR_PRODUCTION", word)
    assert loaded(tmp_path, "").verified_only
    monkeypatch.setenv("LICTOR_PRODUCTION", "")
    assert loaded(tmp_path, 'profile = "production"').production


def test_production_demands_verified_identity_unless_told(tmp_path: Path) -> None:  # rule 3
    assert loaded(tmp_path, 'profile = "production"').verified_only
    text = 'profile = "production"\nrequire_verified = false'
    assert not loaded(tmp_path, text).verified_only
    assert loaded(tmp_path, "require_verified = true").verified_only


def directory(tmp_path: Path, text: str) -> LocalDirectory:
    return LocalDirectory(loaded(tmp_path, text))


def test_the_directory_knows_whom_the_file_names(tmp_path: Path) -> None:
    found = directory(
        tmp_path,
        'tenant = "acme"\n[agents.bot]\nowner = "alice"\nroles = ["payer"]\n'
        '[users.alice]\n[users.eve]\ntenant = "globex"',
    )
    bot = found.principal(Kind.AGENT, "bot")
    assert bot is not None
    assert (bot.tenant, bot.owner, bot.roles) == ("acme", "alice", {"payer"})
    eve = found.principal(Kind.USER, "eve")
    assert eve is not None
    assert eve.tenant == "globex"
    for kind, name in [
        (Kind.USER, "bot"),
        (Kind.AGENT, "alice"),
        (Kind.USER, "mallory"),
        (Kind.WORKLOAD, "bot"),
        (Kind.USER, ""),
        (Kind.USER, "Alice"),
        (Kind.USER, "alice "),
    ]:
        assert found.principal(kind, name) is None, name
    assert found.near(Kind.USER, "alic") == ["alice"]


@pytest.mark.parametrize("name", ["*", "", "a/b", "a b", 'a"b', "a\nb", "a*", "x" * 129])
def test_any_user_is_not_any_text(tmp_path: Path, name: str) -> None:
    found = directory(tmp_path, '[users."*"]')
    assert found.principal(Kind.USER, "anyone") is not None
    assert found.principal(Kind.USER, name) is None
    assert found.principal(Kind.AGENT, "anyone") is None
