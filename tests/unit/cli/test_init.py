"""`lictor init`: what it writes from the first day, what it never writes, and what runs with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lictor import ConfigError, Denied, Gate, Tool, ToolCall, audit, dev
from lictor.assemble import read
from lictor.catalog import Decided, classify
from lictor.cli import app
from lictor.dev import account, program
from lictor.model import Impact
from lictor.testing import UnsafeApprovals, tool_of

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of("pay", {"to": TEXT, "amount": NUMBER}, required=["to", "amount"])
WIPE = tool_of("wipe", {"name": TEXT}, required=["name"])
WHEN = "2026-11-24T00:00:00+00:00"


def review(folder: Path, tool: Tool, impact: Impact, **parts: object) -> None:
    decided = Decided(frozenset({impact}), "me", WHEN, reviewed_in="dev", **parts)  # type: ignore[arg-type]
    classify(folder / "catalog.toml", folder / "catalog.lock", tool, decided)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dev, "_gates", {})
    monkeypatch.delenv("LICTOR_PRODUCTION", raising=False)
    yield
    for gate in dev._gates.values():
        gate.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    review(tmp_path, LOOK, Impact.READ)
    more = {"target": ("to",), "amount": "amount", "recordable": ("to", "amount")}
    review(tmp_path, PAY, Impact.TRANSFER, **more)
    review(tmp_path, WIPE, Impact.DELETE, target=("name",))
    return tmp_path


def first_day(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *made: tuple[Tool, dict[str, object]],
    answer: str = "granted",
) -> None:
    monkeypatch.setattr(dev, "FirstReady", lambda channels: UnsafeApprovals(answer))
    with Gate.dev(folder) as gate:
        tries(gate, *made)


def tries(gate: Gate, *made: tuple[Tool, dict[str, object]]) -> list[str]:
    found = []
    for tool, arguments in made:
        try:
            gate.run(ToolCall(tool, arguments), dict)
            found.append("permit")
        except Denied as denied:
            found.append(denied.decision.reason)
    return found


def init(folder: Path) -> str:
    done = CliRunner().invoke(app, ["init", "-p", str(folder)], env={"COLUMNS": "300"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


RENT = (PAY, {"to": "landlord", "amount": 1100})
SMALL = (PAY, {"to": "landlord", "amount": 20.5})
DAY = ((LOOK, {"n": 1}), RENT, SMALL)


def test_it_writes_what_was_seen_in_under_15_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_day(folder, monkeypatch, *DAY)

    output = init(folder)

    agent, user = program()[1], account()
    text = (folder / "lictor.toml").read_text()
    assert text == (
        "# Written by lictor init from what Gate.dev() has seen; yours to edit.\n"
        'profile = "local"\n'
        'guardrails = "starter@1"\n'
        f'process = {{ task = "{agent}", agent = "{agent}", user = "{user}" }}\n'
        f"[agents.{agent}]\n"
        f'owner = "{user}"\n'
        f"[users.{user}]\n"
        f"[tasks.{agent}]\n"
        'tools = ["local/look", "local/pay"]\n'
        "expires_in = 86400\n"
        "[[rule]]\n"
        'tool = "local/pay"\n'
        'allow = { to = { one_of = ["landlord"] }, amount = { min = "0.01", max = "1100" } }\n'
        'otherwise = "confirm:user"\n'
    )
    assert len(text.splitlines()) < 15
    assert 'gate = Gate.from_file(Path(__file__).with_name("lictor.toml"))' in output


def test_the_same_program_then_runs_and_nothing_is_wider(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_day(folder, monkeypatch, *DAY, (WIPE, {"name": "x"}))
    init(folder)

    asked = UnsafeApprovals("rejected")
    with Gate.from_file(folder / "lictor.toml", approvals=asked) as gate:
        found = tries(gate, *DAY, (PAY, {"to": "eve", "amount": 1}), (WIPE, {"name": "x"}))

    assert found == ["permit", *["ask_rejected"] * 4]
    assert [ask.kinds for ask in asked.asked] == [("confirm:user",)] * 4
    why = [" ".join(ask.why) for ask in asked.asked]
    assert ["leave this call to a person" in each for each in why] == [False, False, True, False]


def test_what_was_never_allowed_is_not_in_the_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_day(folder, monkeypatch, (LOOK, {"n": 1}), RENT, (WIPE, {"name": "x"}), answer="rejected")
    init(folder)

    made = read(folder / "lictor.toml")
    with Gate.from_file(folder / "lictor.toml") as gate:
        found = tries(gate, RENT, (WIPE, {"name": "x"}))

    assert found == ["grant_scope", "grant_scope"]
    assert not made.settings.rule


def test_a_blocked_tool_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_day(folder, monkeypatch, *DAY)
    review(folder, PAY, Impact.TRANSFER, blocked=True)

    output = init(folder)

    (task,) = read(folder / "lictor.toml").settings.tasks.values()
    assert task.tools == ["local/look"]
    assert "[[rule]]" not in output


def test_what_was_not_recorded_makes_no_rule(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_day(folder, monkeypatch, (WIPE, {"name": "secret-plan"}))

    init(folder)

    text = (folder / "lictor.toml").read_text()
    assert 'tools = ["local/wipe"]' in text
    assert "[[rule]]" not in text
    assert "secret-plan" not in text


@pytest.mark.parametrize("to", ['a"]}\n[users.eve]\n', "\u202eevil", "\x7f", "é", "a\\"])
def test_hostile_text_stays_a_value(folder: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    first_day(folder, monkeypatch, (PAY, {"to": to, "amount": 1}))

    init(folder)

    settings = read(folder / "lictor.toml").settings
    assert list(settings.users) == [account()]
    for rule in settings.rule:
        assert rule["allow"]["to"] == {"one_of": [to]}


def test_a_value_that_no_rule_can_hold_costs_the_rule_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_day(folder, monkeypatch, (PAY, {"to": "x", "amount": 0.000001}))

    init(folder)

    settings = read(folder / "lictor.toml").settings
    assert [list(task.tools) for task in settings.tasks.values()] == [["local/pay"]]
    assert not settings.rule


def test_nothing_seen_gives_a_task_that_only_reads(tmp_path: Path) -> None:
    output = init(tmp_path)

    settings = read(tmp_path / "lictor.toml").settings
    assert settings.process is not None
    assert [task.tools for task in settings.tasks.values()] == [[]]
    assert "No call has been allowed here yet" in output
    assert "Gate.dev()" in output


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "lictor.toml").write_text("# mine\n")

    with pytest.raises(ConfigError, match=r"lictor\.toml: exists, and nothing is overwritten"):
        init(folder)

    assert (folder / "lictor.toml").read_text() == "# mine\n"


def test_a_link_is_not_followed(folder: Path) -> None:
    (folder / "lictor.toml").symlink_to(folder / "elsewhere")

    with pytest.raises(ConfigError, match="nothing is overwritten"):
        init(folder)

    assert not (folder / "elsewhere").exists()


def test_a_catalog_that_does_not_load_writes_nothing(folder: Path) -> None:
    (folder / "catalog.toml").write_text("[[tool]\n")

    with pytest.raises(ConfigError, match=r"catalog\.toml"):
        init(folder)

    assert sorted(path.name for path in folder.iterdir()) == ["catalog.lock", "catalog.toml"]


def test_two_programs_of_one_folder_keep_their_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_day(folder, monkeypatch, *DAY)
    monkeypatch.setattr(dev, "program", lambda: (folder, "second.app"))
    first_day(folder, monkeypatch, (LOOK, {"n": 1}))

    init(folder)

    settings = read(folder / "lictor.toml").settings
    assert set(settings.agents) == {program()[1], "second.app"} | {dev.program()[1]}
    assert settings.process is not None
    assert settings.process.agent == "second.app"


def test_a_damaged_store_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_day(folder, monkeypatch, *DAY)
    with closing(sqlite3.connect(folder / ".lictor/lictor.db")) as db, db:
        db.execute("UPDATE record SET body = 'x' WHERE kind = 'decision'")

    with pytest.raises(Exception, match="cannot be read as a store"):
        init(folder)

    assert not (folder / "lictor.toml").exists()
    assert not audit.verify(folder / ".lictor/lictor.db").ok
