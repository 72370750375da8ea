"""From `lictor.toml` to a gate: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor import ConfigError, Denied, Gate, LictorError, StoreError, ToolCall
from lictor.assemble import record_key
from lictor.catalog import lock
from lictor.model import ToolKey
from lictor.testing import tool_of

PAY = tool_of("pay", {"to": {"type": "string"}}, required=["to"])
READ = tool_of("look")
TOML = """
[agents.bot]
owner = "alice"
[users.alice]
[tasks.t]
tools = ["pay", "look"]
limits.pay.to = { one_of = ["bob"] }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "app"
    home.mkdir()
    (home / "lictor.toml").write_text(TOML)
    lock(home / "catalog.toml", home / "catalog.lock", {PAY.key: PAY, READ.key: READ})
    text = (home / "catalog.toml").read_text()
    head, _, tail = text.partition('name = "pay"')
    tail = tail.replace("impact = []", 'impact = ["transfer"]\ntarget = ["to"]', 1)
    head = head.replace("impact = []", 'impact = ["read"]', 1)
    (home / "catalog.toml").write_text(head + 'name = "pay"' + tail)
    return home


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., Gate]]:
    gates: list[Gate] = []

    def make(**more: Any) -> Gate:
        gates.append(Gate.from_file(folder / "lictor.toml", **more))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


def reason(gate: Gate, to: str = "bob", tool: Any = PAY) -> str:
    arguments = {"to": to} if tool is PAY else {}
    try:
        with gate.task("t", agent="bot", on_behalf_of="alice", session="s"):
            gate.run(ToolCall(tool, arguments), lambda args: args)
    except Denied as denied:
        return denied.decision.reason
    return "permit"


def broken(folder: Path) -> LictorError:
    with pytest.raises((ConfigError, StoreError)) as caught:
        Gate.from_file(folder / "lictor.toml")
    error = caught.value
    assert "mend:" in str(error)
    return error


def test_a_whole_project_makes_a_gate(opened: Callable[..., Gate]) -> None:
    gate = opened()
    assert reason(gate) == "permit"
    assert reason(gate, "eve") == "grant_limit"
    assert reason(gate, tool=tool_of("ghost")) == "tool_unreviewed"


def test_the_store_and_key_are_ours_alone(opened: Callable[..., Gate], folder: Path) -> None:
    opened()
    for file in (folder / ".lictor").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


# -- where it lies (rule 1) -----------------------------------------------------------------------


def test_a_relative_path_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="relative"):
        Gate.from_file("lictor.toml")


def test_nothing_is_searched_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="does not exist"):
        Gate.from_file(folder.parent / "lictor.toml")


@pytest.mark.parametrize(
    "name", ["lictor.toml", "catalog.toml", "catalog.lock", "policies/p.cedar"]
)
@pytest.mark.parametrize("how", ["link", "open"])
def test_a_file_that_is_a_link_or_open_to_others_is_refused(
    folder: Path, name: str, how: str
) -> None:
    file = folder / name
    if not file.exists():
        file.parent.mkdir()
        file.write_text('@id("p") forbid (principal, action, resource) when { false };')
    if how == "link":
        file.rename(folder.parent / "real")
        file.symlink_to(folder.parent / "real")
    else:
        file.chmod(0o666)
    assert name.rpartition("/")[2] in str(broken(folder))


def test_a_folder_others_can_write_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    assert "written by others" in str(broken(folder))


# -- half a project (rule 2) ----------------------------------------------------------------------


def test_without_a_catalog_nothing_runs(opened: Callable[..., Gate], folder: Path) -> None:
    (folder / "catalog.toml").unlink()
    (folder / "catalog.lock").unlink()
    (folder / "lictor.toml").write_text(TOML.replace("limits", "#limits"))
    assert reason(opened()) == "tool_unreviewed"


@pytest.mark.parametrize("key", ["catalog", "policies"])
def test_a_file_the_settings_name_must_be_there(folder: Path, key: str) -> None:
    (folder / "lictor.toml").write_text(f'{key} = "typo"\n{TOML}')
    assert "typo" in str(broken(folder))


def test_policies_that_lead_nowhere_are_not_no_policies(folder: Path) -> None:
    (folder / "policies").symlink_to(folder / "gone")
    assert "policies" in str(broken(folder))


def test_an_empty_policies_folder_is_refused(folder: Path) -> None:
    (folder / "policies").mkdir()
    assert "holds no *.cedar" in str(broken(folder))


def test_no_policy_at_all_is_refused(folder: Path) -> None:
    (folder / "lictor.toml").write_text('guardrails = ""\n' + TOML)
    assert "no policy at all" in str(broken(folder))


def test_unknown_guardrails_are_refused(folder: Path) -> None:
    (folder / "lictor.toml").write_text('guardrails = "starter@99"\n' + TOML)
    assert "starter@1" in str(broken(folder))


def test_an_edited_lock_is_refused(folder: Path) -> None:
    file = folder / "catalog.lock"
    raw = json.loads(file.read_text())
    raw["tools"]["local/pay"]["description"] = "Harmless."
    file.write_text(json.dumps(raw))
    assert "catalog" in str(broken(folder))


def test_a_tool_that_is_not_the_locked_one_does_not_run(opened: Callable[..., Gate]) -> None:
    changed = tool_of("pay", {"to": {"type": "string"}}, required=["to"], title="Other")
    assert changed.key == ToolKey("local", "pay")
    assert reason(opened(), tool=changed) == "tool_changed"


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ('@id("a") permit (principal, action, resource) when { context.inptu.to == "x" };', 1),
        ('\n@id("a") permit (principal, action, resource) when { true ;', 2),
        ('@id("a") forbid (principal, action, resource);\n@id("a") forbid (principal, action, '
         "resource);", 2),
        ('\n\n@id("a") forbid (principal, action, resource) when { principal.rank > 3 };', 3),
    ],
    ids=["attribute", "syntax", "duplicate", "unknown-attribute"],
)  # fmt: skip
def test_a_wrong_policy_names_file_line_and_mend(folder: Path, policy: str, line: int) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "mine.cedar").write_text(policy)
    assert f"mine.cedar:{line}" in str(broken(folder))


def test_a_policy_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "mine.cedar").write_bytes(b"\xff")
    assert "mine.cedar" in str(broken(folder))


def test_policies_may_lie_elsewhere(opened: Callable[..., Gate], folder: Path) -> None:
    other = folder.parent / "rules"
    other.mkdir()
    (other / "mine.cedar").write_text('@id("no") forbid (principal, action, resource);')
    (folder / "lictor.toml").write_text(f'policies = "{other}"\n{TOML}')
    assert reason(opened()) == "policy_denied"


@pytest.mark.parametrize(
    "rule",
    [
        '[[rule]]\ntool = "pay"\nalow = {}',
        '[[rule]]\ntool = "ghost"\nallow = { to = { equals = "bob" } }',
        '[[rule]]\ntool = "pay"\nallow = { amonut = { equals = "bob" } }',
        '[[rule]]\ntool = "pay"\notherwise = "perhaps"',
        '[[rule]]\ntool = "pay"\notherwise = "approval:"',
    ],
)
def test_a_wrong_rule_is_refused(folder: Path, rule: str) -> None:
    (folder / "lictor.toml").write_text(TOML + rule)
    assert "rule" in str(broken(folder))


def test_production_runs_nothing_for_names(
    opened: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICTOR_PRODUCTION", "1")
    assert reason(opened()) == "identity_unverified"


def test_a_gate_that_does_not_come_to_be_holds_no_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lictor.store import lifetime

    def fail(*_: object, **__: object) -> None:
        raise ConfigError("x", "y", "z")

    before = len(lifetime._open)
    with pytest.raises(ConfigError):
        Gate.from_file(folder / "lictor.toml", telemetry=fail)  # type: ignore[arg-type]
    assert len(lifetime._open) == before


def test_our_own_files_are_protected(opened: Callable[..., Gate], folder: Path) -> None:
    (folder / "lictor.toml").write_text(TOML.replace("limits", "#limits"))
    gate = opened()
    for name in ("lictor.toml", "catalog.toml", "catalog.lock", "policies/x.cedar",
                 ".lictor/lictor.db", ".lictor/record.key", ".lictor/seen.json"):  # fmt: skip
        assert reason(gate, str(folder / name)) == "protected", name


# -- the record key -------------------------------------------------------------------------------


def test_the_record_key_is_made_once(tmp_path: Path) -> None:
    first, second = record_key(tmp_path / "k"), record_key(tmp_path / "k")
    assert first.digest(b"x") == second.digest(b"x") != record_key(tmp_path / "other").digest(b"x")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"short", b"k" * 33])
def test_a_record_key_of_the_wrong_size_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "k").write_bytes(data)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(ConfigError, match="32 bytes"):
        record_key(tmp_path / "k")


def test_a_record_key_others_can_read_or_link_is_refused(tmp_path: Path) -> None:
    record_key(tmp_path / "k")
    (tmp_path / "l").symlink_to(tmp_path / "k")
    with pytest.raises(ConfigError, match="symbolic"):
        record_key(tmp_path / "l")
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        record_key(tmp_path / "k")


def test_a_record_key_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        record_key(tmp_path / "file" / "k")
    assert os.listdir(tmp_path) == ["file"]
