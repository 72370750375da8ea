"""Two runs of the conformance suite are alike when every check is."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import checks

    return checks


BEARER = ("valid-bearer-token", "ValidBearerToken", "SUCCESS")
HELD = ("client-called", "Called", "SUCCESS")


def wrote(folder: Path, name: str, *found: tuple[str, str, str], ids: tuple[Any, ...] = ()) -> None:
    home = folder / f"{name}-2026-11-24T21-13-11-692Z"
    home.mkdir(parents=True)
    written: list[dict[str, Any]] = [
        {"id": id, "name": called, "status": status} for id, called, status in found
    ]
    for id in ids:
        details = {"body": {"id": id, "method": "tools/list"}}
        written.append(
            {"id": "incoming-request", "name": "R", "status": "INFO", "details": details}
        )
    (home / "checks.json").write_text(json.dumps(written), encoding="utf-8")


def two(checks: ModuleType, folder: Path, theirs: Any, ours: Any) -> list[str]:
    for name, (found, ids) in (("plain", theirs), ("ours", ours)):
        wrote(folder / name, "auth/basic", *found, ids=ids)
    said = "✓ auth/basic: 2 passed, 0 failed\n"
    found: list[str] = checks.differences(
        checks.read(said, folder / "plain"), checks.read(said, folder / "ours")
    )
    return found


def test_the_same_checks_are_alike(checks: ModuleType, tmp_path: Path) -> None:
    assert not two(checks, tmp_path, ([HELD], (1, 2)), ([HELD], (1, 2)))


def test_a_check_that_fails_is_seen_though_the_totals_are_the_same(
    checks: ModuleType, tmp_path: Path
) -> None:
    other = ("client-called", "Called", "FAILURE")
    assert two(checks, tmp_path, ([HELD], ()), ([other], ())) == [
        "auth/basic: lost client-called success",
        "auth/basic: new client-called failure",
    ]


def test_what_is_held_for_the_guards_own_messages_is_not_counted(
    checks: ModuleType, tmp_path: Path
) -> None:
    assert not two(checks, tmp_path, ([BEARER], (1,)), ([BEARER] * 3, (1, "guard-1", "guard-2")))


def test_a_message_of_the_guard_without_a_token_is_seen(checks: ModuleType, tmp_path: Path) -> None:
    found = two(checks, tmp_path, ([BEARER] * 2, (1, 2)), ([BEARER] * 2, (1, 2, "guard-1")))
    assert found == ["auth/basic: lost valid-bearer-token success"]


def test_a_token_more_than_there_are_messages_is_seen(checks: ModuleType, tmp_path: Path) -> None:
    assert two(checks, tmp_path, ([BEARER], (1,)), ([BEARER] * 2, (1,))) == [
        "auth/basic: new valid-bearer-token success"
    ]


def test_a_scenario_that_was_not_run_is_seen(checks: ModuleType) -> None:
    one = {"tools_call": checks.Scenario(1, 0)}
    assert checks.differences(one, {}) == ["tools_call: not run"]
    assert checks.differences({}, one) == ["tools_call: run only here"]


def test_an_exemption_is_one_only_as_long_as_it_is_needed(checks: ModuleType) -> None:
    assert not checks.exempted(["a"], ["a"])
    assert checks.exempted(["a", "b"], ["a"]) == ["b"]
    assert checks.exempted([], ["a"]) == ["expected, and not there: a"]


def test_a_control_counts_only_when_its_scenario_was_run_and_failed(
    checks: ModuleType, tmp_path: Path
) -> None:
    wrote(tmp_path, "fails", ("client-called", "Called", "FAILURE"))
    wrote(tmp_path, "holds", HELD)
    ran = checks.read("", tmp_path)
    assert checks.unbroken(["fails", "holds", "missing"], ran) == ["holds", "missing"]
