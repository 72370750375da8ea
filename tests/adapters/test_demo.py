"""The main job: the theft is stopped and the rent changed in one run, on a real ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lictor import audit
from lictor_langchain.demo import Report, run
from lictor_langchain.demo.bank import ATTACKER
from lictor_langchain.demo.script import CALLS


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(tmp_path_factory.mktemp("demo"))


def test_without_a_gate_the_money_is_gone(report: Report) -> None:
    assert report.unguarded.after["paid_to_attacker"] == ["0.01"]
    assert report.unguarded.after["balance"] == "1809.99"
    assert report.unguarded.after["rent"] == "1200.00"


def test_with_a_gate_the_money_is_safe_and_the_rent_is_changed(report: Report) -> None:
    assert report.guarded.after["paid_to_attacker"] == []
    assert report.guarded.after["balance"] == report.guarded.before["balance"]
    assert (report.guarded.before["rent"], report.guarded.after["rent"]) == ("1100.00", "1200.00")
    assert report.guarded.after["rent_goes_to"] == report.guarded.before["rent_goes_to"]
    assert report.stopped()


def test_both_money_tools_are_transfers_and_the_grant_stops_the_theft(report: Report) -> None:
    rows = {row["call"]: row for row in report.decisions}

    assert [row["call"] for row in report.decisions] == [f"local/{name}" for name, _ in CALLS]
    theft, rent = rows["local/send_money"], rows["local/update_scheduled_transaction"]
    assert theft["impact"] == rent["impact"] == ["transfer"]
    assert (theft["verdict"], theft["reason"]) == ("deny", "grant_scope")
    assert theft["arguments"]["recipient"] == ATTACKER
    assert rent["verdict"] == "allow"


def test_every_decision_has_a_span_under_the_agents(report: Report) -> None:
    assert report.spans[0] == "invoke_agent banker"
    assert report.spans[1:] == [
        f"  authorize {name}  [{row['verdict']}: {row['reason']}]"
        for (name, _), row in zip(CALLS, report.decisions, strict=True)
    ]


def test_the_record_verifies(report: Report) -> None:
    assert report.audit["ok"]
    assert audit.verify(report.project / ".lictor/lictor.db").records == report.audit["records"]


def test_the_report_is_written_as_json(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "new/report.json")

    written = json.loads((tmp_path / "new/report.json").read_text())
    assert set(written) >= {"unguarded", "guarded", "decisions", "audit"}
    assert set(written["guarded"]) == {"before", "after"}
    assert written["stopped"] is True


def test_a_run_that_shows_nothing_says_so(report: Report) -> None:
    from dataclasses import replace

    undone = replace(report, guarded=report.unguarded)

    assert not undone.stopped()
