"""Choosing records: by column, by what bodies say, by time; and how a limit counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lictor.audit import Filters, instant, records, show
from lictor.errors import ConfigError, StoreError
from lictor.testing import UnsafeApprovals

NOW = datetime(2026, 10, 15, 12).astimezone().timestamp()
PICK = {"kind": "", "tool": "", "verdict": ""}


@pytest.fixture
def path(world: Callable[..., Any], tmp_path: Path) -> Path:
    """Two people, two agents; one effect confirmed, one refused, one read by each."""
    made = world(policy=None, approvals=UnsafeApprovals())
    with made.task(session="monday"):
        made.try_(made.call(made.pay, "h1", to="bob", amount=5))
        made.try_(made.call(made.look, "h2", n=1))
    with made.task(agent="helper", on_behalf_of="bob", tools=["look"], session="tuesday"):
        made.try_(made.call(made.look, "h3", n=2))
        made.try_(made.call(made.pay, "h4", to="eve", amount=7))
    made.gate.close()
    return tmp_path / "lictor.db"


def told(path: Path, **where: Any) -> list[str]:
    """`kind tool verdict` of each record, oldest first."""
    return [
        " ".join(str(line.body[name]) for name in PICK if line.body[name]).replace("local/", "")
        for line in show(path, limit=100, **where)
    ]


PAID = ["ask pay pending", "answer pay granted", "decision pay allow", "outcome pay done"]


def test_an_effect_is_found_with_all_that_belongs_to_it(path: Path) -> None:
    assert told(path, impact="transfer") == [*PAID, "decision pay deny"]
    assert told(path, impact="transfer", verdict="deny") == ["decision pay deny"]


def test_who_acted_and_for_whom(path: Path) -> None:
    bobs = [
        "task running",
        "decision look allow",
        "outcome look done",
        "decision pay deny",
        "task ended",
    ]
    assert told(path, user="bob") == told(path, agent="helper") == bobs
    assert told(path, user="local/bob", kind="decision", tool="local/pay") == ["decision pay deny"]
    assert told(path, user="alice", agent="helper") == []


def test_who_answered(path: Path) -> None:
    assert told(path, approver="test") == PAID
    assert told(path, approver="alice") == []


def test_of_which_conversation_and_tenant(path: Path) -> None:
    assert "decision pay allow" in told(path, session="monday")
    assert "decision pay allow" not in told(path, session="tuesday")
    assert told(path, tenant="elsewhere") == []
    assert len(told(path, tenant="local")) == 13


@pytest.mark.parametrize(
    ("pattern", "tools"),
    [("local/*", {"pay", "look"}), ("local/p?y", {"pay"}), ("local/[pl]*", set()), ("*", None)],
)
def test_tools_by_pattern(path: Path, pattern: str, tools: set[str] | None) -> None:
    found = {text.split()[1] for text in told(path, tool=pattern, kind="decision")}

    assert found == (tools if tools is not None else {"pay", "look"})


def test_a_limit_counts_what_was_chosen(path: Path) -> None:
    newest = [line.body["tool"] for line in show(path, limit=1, impact="read", verdict="allow")]

    assert newest == ["local/look"]
    assert len(list(show(path, limit=2, user="alice"))) == 2
    assert list(show(path, limit=0)) == []


def test_times_choose_at_or_after_and_before(path: Path) -> None:
    first, *_, last = (int(str(line.body["at"])) / 1e6 for line in show(path, limit=100))

    assert told(path, until=first) == []
    assert told(path, since=last + 1) == []
    assert len(told(path, since=first, until=last + 1)) == len(told(path))


@pytest.mark.parametrize(("name", "value"), [("impact", "steal"), ("verdict", "allowed")])
def test_a_value_that_no_record_can_have_is_refused(path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"no record has {name} '{value}'.*\n.*use one of"):
        show(path, **{name: value})


def test_a_torn_record_stops_reading_unless_its_place_is_wanted(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE record SET body = 'not json' WHERE seq = 3")
    torn: list[str] = []

    with pytest.raises(StoreError, match="cannot be read as a store"):
        list(records(path, Filters()))
    left = list(records(path, Filters(), torn=torn))

    assert [place.rpartition(":")[2] for place in torn] == ["3"]
    assert len(left) == len(list(records(path, Filters(kind="stream")))) + 12


def test_records_come_one_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lictor.audit import select

    read: list[int] = []
    real = select.line_of
    monkeypatch.setattr(select, "line_of", lambda row: (read.append(1), real(row))[1])

    next(records(path, Filters()))

    assert len(read) == 1


def test_what_belongs_to_a_call_is_found_by_the_index(path: Path) -> None:
    from lictor.audit import journal, report, select

    condition, _ = Filters(call="C").sql()
    with closing(journal.connect(path)) as db:
        for query in (
            select._RELATED,
            report._OF_CALL,
            f"{journal.SELECT} WHERE {condition} ORDER BY rowid",
        ):
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}", ("C",)).fetchall()
            assert "record_call" in str(plan), query


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-10-01", datetime(2026, 10, 1)),
        ("2026-10-01T14:30", datetime(2026, 10, 1, 14, 30)),
        ("2026-10-01T14:30:00+00:00", datetime.fromisoformat("2026-10-01T14:30+00:00")),
        ("-2h", datetime(2026, 10, 15, 10)),
        ("2h ago", datetime(2026, 10, 15, 10)),
        ("90m", datetime(2026, 10, 15, 10, 30)),
        ("3 d", datetime(2026, 10, 12, 12)),
        ("today", datetime(2026, 10, 15)),
        ("yesterday", datetime(2026, 10, 14)),
        ("now", datetime(2026, 10, 15, 12)),
    ],
)
def test_times_as_people_write_them(text: str, at: datetime) -> None:
    assert instant(text, "--since", NOW) == at.astimezone().timestamp()


def test_a_day_as_an_end_is_included() -> None:
    end = instant("2026-10-31", "--until", NOW, end=True)

    assert end == datetime(2026, 11, 1).astimezone().timestamp()


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "10-01", "2 hours", "20261001", "1e9h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        instant(text, "--since", NOW)
