"""Every adapter of ours holds in every trial, as docs/coverage.md says; an unguarded host fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import coverage_page

pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")

from lictor.testing import kit
from lictor.testing.adapter_suite import Driver, Report, Result, Trial, engines, flow, trials
from lictor_langchain.testing.hitl import Driver as Hitl
from lictor_langchain.testing.host import LangChain
from lictor_llamaindex.testing.host import LlamaIndex

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"  # `as_tool` is a beta
    ),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning"  # of LlamaIndex: it looks at every attribute of an agent
    ),
]
ROOT = Path(__file__).resolve().parents[2]


OURS: dict[str, Driver] = {driver.host: driver for driver in coverage_page.drivers()}
PAGE = (ROOT / "docs" / "coverage.md").read_text()
CASES = [(host, trial) for host, driver in OURS.items() for trial in trials(driver)]


@pytest.mark.parametrize(
    ("host", "trial"), CASES, ids=[f"{host}-{trial.id}" for host, trial in CASES]
)
def test_our_adapter_holds_and_the_page_says_so(host: str, trial: Trial) -> None:
    result = trial.run(OURS[host])

    assert result.state != "broken", result.text
    assert coverage_page.published(PAGE, host, trial) == coverage_page.MARKS[result.state]
    if trial.part == "failures" and result.state == "not applicable":
        assert f"* {host}, {trial.title}: {result.text}.\n" in PAGE


def test_the_page_has_no_row_that_no_trial_gave() -> None:
    states = {mark: state for state, mark in coverage_page.MARKS.items()}
    reports = []
    for host, driver in OURS.items():
        found = [
            (t, Result(t.id, states[coverage_page.published(PAGE, host, t)]))
            for t in trials(driver)
        ]
        reports.append(Report(driver.name, host, tuple(found)))

    page, made = (
        text.partition("Where it does not")[0] for text in (PAGE, coverage_page.page(reports))
    )

    assert page == made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that asks nobody, or waits without end, is not waited for as long as ours."""
    for part in (engines, flow):
        monkeypatch.setattr(part, "SECONDS", 1.0)


UNGUARDED: tuple[Driver, ...] = (LangChain(), LlamaIndex())
REFUSED_BY_THE_HOST = {
    "langchain": {"no-arguments"},
    "llamaindex": {"no-arguments", "unknown-argument"},
}
FAILURES = [(host, t) for host in UNGUARDED for t in trials(host) if t.part == "failures"]


@pytest.mark.parametrize(
    ("host", "trial"), FAILURES, ids=[f"{host.host}-{trial.id}" for host, trial in FAILURES]
)
@pytest.mark.usefixtures("hasty")
def test_the_suite_notices_that_nobody_guards(host: Driver, trial: Trial) -> None:
    result = trial.run(host)

    assert (result.state == "held") == (trial.id in REFUSED_BY_THE_HOST[host.host])


@pytest.mark.parametrize(
    ("host", "path"), [(host, path) for host in UNGUARDED for path in host.paths]
)
def test_the_suite_notices_a_path_that_nobody_guards(host: Driver, path: str) -> None:
    found = [t for t in trials(host) if t.cell[0] == "schema" and t.cell[1] == path]

    assert {trial.run(host).state for trial in found} == {"broken"}


HITL_HOLDS = ("agent.invoke", "agent.stream", "agent.ainvoke", "agent.astream")


@pytest.mark.parametrize("path", Hitl.paths)
def test_the_hosts_own_middleware_holds_in_its_agent_and_on_no_path_beside_it(path: str) -> None:
    found = [t for t in trials(Hitl()) if t.cell[0] == "schema" and t.cell[1] == path]

    states = {trial.run(Hitl()).state for trial in found}

    assert states == {"held" if path in HITL_HOLDS else "broken"}


class Few(LangChain):
    """A driver with little to try."""

    shapes = ("function",)
    paths = ("invoke",)


@pytest.mark.usefixtures("hasty")
def test_the_kit_prints_what_was_run_and_says_by_its_code_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lictor_langchain.testing.host.Few", Few, raising=False)
    file = tmp_path / "deep" / "found.json"

    code = kit.main(["--driver", "lictor_langchain.testing.host:Few", "--json", str(file)])

    said = capsys.readouterr().out
    assert code == 1
    assert logging.root.manager.disable == logging.NOTSET  # others in this process still log
    assert "unguarded on langchain" in said
    assert "✗ path invoke: 0 of 2 shapes and verdicts" in said
    assert '"state": "broken"' in file.read_text()
    assert "not tried here: X06 callback handler" in said
    assert "not tried here: X01" not in said


class FewAsked(Few, Hitl):
    """The same of the host's own middleware, with a path that it stands in."""

    paths = ("agent.invoke", "invoke")


@pytest.mark.usefixtures("hasty")
def test_the_kit_prints_a_card_of_the_hosts_own_middleware(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lictor_langchain.testing.hitl.Few", FewAsked, raising=False)

    code = kit.main(["--driver", "lictor_langchain.testing.hitl:Few"])

    said = capsys.readouterr().out
    assert code == 1
    assert "HumanInTheLoopMiddleware on langchain" in said
    assert "✓ path agent.invoke: 2 of 2 shapes and verdicts" in said
    assert "✗ path invoke: 0 of 2 shapes and verdicts" in said
    assert "✗ a tool that came later  [X05]" in said
    assert "– a call without a task  [X41]\n      the guard knows no task" in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "write module:Class"),
        ("no.such.module:Driver", "cannot be imported"),
        ("lictor.testing:Nobody", "has no Nobody"),
        ("lictor.testing:UnsafeAllowAll", "is no lictor.testing.adapter_suite.Driver"),
    ],
)
def test_the_kit_says_what_is_wrong_with_a_driver(
    name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit.main(["--driver", name]) == 2
    assert told in capsys.readouterr().err
