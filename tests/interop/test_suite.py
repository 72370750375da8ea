"""Two runs of the SDK's own tests are alike but for what is exempted, and each exemption is one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import suite

    return suite


def test_each_test_ends_as_pytest_says(suite: ModuleType) -> None:
    said = (
        "ERROR    mcp.server.runner:runner.py:547 a line of its log\n"
        "PASSED tests/a.py::one\n"
        "PASSED tests/a.py::two[a - b]\n"
        "PASSED tests/a.py::breaks\n"
        "FAILED tests/a.py::three[x y] - list[int] is not list[str]\n"
        "ERROR tests/a.py::breaks - OSError\n"
        "ERROR tests/b.py\n"
        "2 failed, 4038 passed in 1s\n"
    )
    ran = suite.read(said)
    assert ran.passing == {"tests/a.py::one", "tests/a.py::two[a - b]"}
    assert ran.failing == {"tests/a.py::three[x y]", "tests/a.py::breaks", "tests/b.py"}


def test_a_test_that_fails_only_with_the_gate_is_seen(suite: ModuleType) -> None:
    plain = suite.Ran(frozenset({"one", "two[a]"}), frozenset({"bad"}))
    assert suite.differences(plain, plain, []) == []
    ours = suite.Ran(frozenset({"two[a]"}), frozenset({"one", "bad"}))
    assert suite.differences(plain, ours, []) == ["passes only without the gate: one"]
    assert suite.differences(plain, ours, ["one"]) == []


def test_a_test_that_was_not_run_with_the_gate_is_seen(suite: ModuleType) -> None:
    plain, ours = suite.Ran(frozenset({"one"}), frozenset()), suite.Ran(frozenset(), frozenset())
    assert suite.differences(plain, ours, []) == ["passes only without the gate: one"]


def test_a_test_that_passes_only_with_the_gate_is_seen(suite: ModuleType) -> None:
    plain, ours = (
        suite.Ran(frozenset(), frozenset({"one"})),
        suite.Ran(frozenset({"one"}), frozenset()),
    )
    assert suite.differences(plain, ours, []) == ["passes only with the gate: one"]


def test_an_exemption_holds_for_all_variants_and_for_nothing_else(suite: ModuleType) -> None:
    plain = suite.Ran(frozenset({"one[a]", "one[b]", "once"}), frozenset())
    ours = suite.Ran(frozenset(), frozenset({"one[a]", "one[b]", "once"}))
    assert suite.differences(plain, ours, ["one"]) == ["passes only without the gate: once"]


def test_an_exemption_of_which_a_variant_passes_is_seen(suite: ModuleType) -> None:
    plain = suite.Ran(frozenset({"one[a]", "one[b]"}), frozenset())
    ours = suite.Ran(frozenset({"one[b]"}), frozenset({"one[a]"}))
    assert suite.differences(plain, ours, ["one"]) == ["is exempt, and passes: one[b]"]


def test_an_exemption_of_a_test_that_is_not_there_is_seen(suite: ModuleType) -> None:
    none = suite.Ran(frozenset(), frozenset({"one"}))
    assert suite.differences(none, none, ["one"]) == [
        "is exempt, and does not pass without the gate: one"
    ]
