"""A report: whole, true, checked without the store, harmless to open, and honest about gaps."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lictor import ConfigError, Denied, Gate, Tool, ToolCall, audit
from lictor.assemble import read
from lictor.audit.twin import pieces
from lictor.catalog import lock, note, read_seen
from lictor.cli import app
from lictor.policy import CedarPolicy
from lictor.ports import Ask, Reply
from lictor.testing import tool_of

LICTOR = """\
[agents.bot]
owner = "alice"

[users.alice]

[tasks.pay]
tools = ["look", "pay"]

[[rule]]
tool = "local/pay"
allow = { amount = { min = "0.01", max = "500" } }
otherwise = "confirm:user"
"""
CATALOG = """\
[[tool]]
server = "local"
name = "look"
impact = "read"

[[tool]]
server = "local"
name = "pay"
impact = "transfer"
target = ["to"]
amount = "amount"
recordable = ["to", "amount"]
"""
TEXT = {"type": "string"}
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of(
    "pay", {"to": TEXT, "amount": {"type": "number"}, "note": TEXT}, required=["to", "amount"]
)


class Person:
    """Answers, as somebody whose identity was established so far."""

    lasting = False

    def __init__(self, state: str = "granted", assurance: str = "dev") -> None:
        self.state, self.assurance = state, assurance

    def ready(self, ask: Ask) -> str:
        return ""

    def answer(self, ask: Ask) -> Reply:
        return Reply(self.state, "", "alice", "terminal", self.assurance, "ab" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lictor.toml").write_text(LICTOR)
    (tmp_path / "catalog.toml").write_text(CATALOG)
    note(tmp_path / ".lictor/seen.json", [LOOK, PAY])
    seen = read_seen(tmp_path / ".lictor/seen.json")
    lock(tmp_path / "catalog.toml", tmp_path / "catalog.lock", seen, accept=seen)
    return tmp_path


def calls(folder: Path, *made: tuple[Tool, dict[str, object]], answer: str = "granted") -> None:
    with (
        Gate.from_file(folder / "lictor.toml", approvals=Person(answer)) as gate,
        gate.task("pay", agent="bot", on_behalf_of="alice", session="s"),
    ):
        for tool, arguments in made:
            try:
                gate.run(ToolCall(tool, arguments), lambda args: args)
            except Denied:
                continue


def lictor(folder: Path, *words: str, ends: int = 0) -> str:
    given = ["audit", *words, "-p", str(folder / "lictor.toml")]
    done = CliRunner().invoke(app, given, env={"COLUMNS": "300"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == ends, done.output
    return done.output


def report(folder: Path, *words: str, ends: int = 0) -> tuple[str, dict[str, Any]]:
    """The page, and its twin."""
    page, twin = folder / "r.html", folder / "r.json"
    lictor(folder, "report", "--html", str(page), "--json", str(twin), *words, ends=ends)
    return page.read_text("utf-8"), json.loads(twin.read_text("utf-8"))


def checked(folder: Path, name: str = "r.json", *words: str, ends: int = 0) -> str:
    return lictor(folder, "report", "--check", str(folder / name), *words, ends=ends)


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / ".lictor/lictor.db")) as db, db:
        assert db.execute(statement).rowcount > 0


BIG = (PAY, {"to": "bob", "amount": 600, "note": "for the roof"})
SMALL = (PAY, {"to": "bob", "amount": 5})


class Page(HTMLParser):
    """Everything on a page that is not text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


# -- what it holds


def test_it_tells_who_was_asked_what_they_saw_and_the_rule_of_that_day(folder: Path) -> None:
    calls(folder, BIG)
    toml = folder / "lictor.toml"
    toml.write_text(LICTOR.replace("500", "50000"))

    page, twin = report(folder)

    (row,) = twin["decisions"]
    assert row["decision"]["body"]["arguments"]["amount"] == 600
    assert set(row["decision"]["body"]["arguments"]["note"]) == {"digest"}
    (ask,), (answer,), (outcome,) = row["asks"], row["answers"], row["outcomes"]
    assert ask["body"]["arguments"]["to"] == "bob"
    assert answer["body"]["shown"] == "ab" * 32
    assert (answer["body"]["by"], outcome["body"]["verdict"]) == ("alice", "done")
    assert twin["verification"]["ok"] is True
    words = "".join(Page(page).words)
    assert "granted by alice" in words
    assert "given in development: no evidence of an approval" in words
    assert "no certification" in words
    assert "user:local/alice → agent:local/bot" in words


def test_the_rule_is_the_one_that_decided_not_the_one_of_today(folder: Path) -> None:
    calls(folder, BIG, answer="rejected")
    (folder / "lictor.toml").write_text(LICTOR.replace("500", "550"))
    calls(folder, BIG, answer="rejected")

    page, twin = report(folder)

    rules = [{r["id"]: r["text"] for r in row["rules"]} for row in twin["decisions"]]
    then, now = (row["rule:local/pay:otherwise"] for row in rules)
    assert 'decimal("500.0000")' in then
    assert 'decimal("550.0000")' in now
    assert 'decimal("500.0000")' in "".join(Page(page).words)


def test_the_text_of_a_policy_is_kept_once_and_before_its_first_decision(folder: Path) -> None:
    calls(folder, SMALL)
    calls(folder, SMALL)
    (folder / "lictor.toml").write_text(LICTOR.replace("500", "40"))
    calls(folder, SMALL)

    lines = list(audit.show(folder / ".lictor/lictor.db", limit=100))
    kept = [line.body["code"] for line in lines if line.body["kind"] == "policy"]
    order = [
        str(line.body["kind"]) for line in lines if line.body["kind"] in ("policy", "decision")
    ]

    assert len(kept) == len(set(kept)) == 2
    assert order == ["policy", "decision", "decision", "policy", "decision"]
    assert kept[-1] == read(folder / "lictor.toml").policy.digest


def test_a_gate_that_changes_its_policy_keeps_the_new_text_first(folder: Path) -> None:
    project = read(folder / "lictor.toml")
    with Gate.from_file(folder / "lictor.toml") as gate:
        sources = tuple(s for s in project.sources if "rule" not in s.name)
        tools = project.catalog.known_tools()
        other = CedarPolicy.load(tools=tools, sources=sources, declared=project.declared)
        gate.swap(project.catalog, other)

    assert audit.has_policy(project.store, other.digest)


def test_filters_choose_the_rows_and_the_twin_still_holds_the_period(folder: Path) -> None:
    calls(folder, (LOOK, {"n": 1}), SMALL, BIG)

    _, twin = report(folder, "--impact", "transfer", "--user", "alice")

    assert [row["decision"]["body"]["tool"] for row in twin["decisions"]] == ["local/pay"] * 2
    assert twin["filters"] == {"impact": "transfer", "user": "alice"}
    assert sum(len(section["records"]) for section in twin["sections"]) > 6
    assert "intact" in checked(folder)


# -- what is not recorded


def test_it_lists_what_was_not_recorded_and_since_when(folder: Path) -> None:
    calls(folder, BIG)

    page, twin = report(folder)

    told = {each["tool"]: each for each in twin["not_recorded"]}
    assert told["local/pay"]["not_recordable"] == ["note"]
    assert [each["name"] for each in told["local/pay"]["digests"]] == ["note"]
    assert told["local/pay"]["digests"][0]["times"] == 1
    assert told["local/look"]["not_recordable"] == ["n"]
    assert "note: digest only in 1 decisions" in "".join(Page(page).words)


def test_gaps_are_told(folder: Path) -> None:
    calls(folder, SMALL)
    change(folder, "UPDATE stream SET closed = 0")

    _, twin = report(folder)

    assert any("was not closed" in gap for gap in twin["gaps"]["listed"])


def test_an_effect_without_an_outcome_is_a_gap(folder: Path) -> None:
    with Gate.from_file(folder / "lictor.toml", approvals=Person()) as gate:
        with gate.task("pay", agent="bot", on_behalf_of="alice", session="s"):

            def body(args: dict[str, object]) -> None:
                _, twin = report(folder)
                assert any("how the call ended is not rec" in g for g in twin["gaps"]["listed"])

            gate.run(ToolCall(*SMALL), body)


# -- damage


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE record SET body = replace(body, CAST('bob' AS BLOB), CAST('eve' AS BLOB)) "
        "WHERE kind = 'decision'",
        "UPDATE record SET body = 'torn' WHERE kind = 'decision'",
        "DELETE FROM record WHERE kind = 'answer'",
        "UPDATE record SET tool = 'local/other' WHERE kind = 'decision'",
    ],
)
def test_a_tampered_store_is_reported_as_damaged(folder: Path, damage: str) -> None:
    calls(folder, BIG)
    change(folder, damage)

    page, twin = report(folder, ends=1)

    assert page.index("DAMAGED") < page.index("What was decided")
    assert twin["verification"]["ok"] is False
    assert twin["verification"]["problems"]
    assert "DAMAGED" in checked(folder, ends=1)


# -- checked without the store


@pytest.mark.parametrize("name", ["r.json", "r.html"])
def test_a_report_is_checked_without_the_store(folder: Path, name: str) -> None:
    calls(folder, BIG, SMALL)
    _, twin = report(folder)
    head = twin["verification"]["streams"][0]["head"]
    (folder / ".lictor/lictor.db").unlink()

    assert "records of the period, intact" in checked(folder, name, "--expect", head)
    assert "intact" in lictor(folder, "verify", "--file", str(folder / name))


def test_a_part_of_the_journal_is_checked_from_where_it_begins(folder: Path) -> None:
    calls(folder, BIG, SMALL)
    last = [line.body["at"] for line in audit.show(folder / ".lictor/lictor.db", kind="decision")]

    with audit.gather(
        folder / ".lictor/lictor.db", audit.Filters(since=int(str(last[-1])) / 1e6), {}
    ) as found:
        assert found.count == 1
        text = "".join(pieces(found, ()))

    assert json.loads(text)["sections"][0]["on"]["after"] > 3
    done = audit.check(text)
    assert done.ok, done.verification.problems


@pytest.mark.parametrize(
    ("find", "put", "problem"),
    [
        ('"amount": 600', '"amount": 6', "the table shows it otherwise than it is"),
        ("context.met.contains", "!context.met.contains", "shows rule starter:confirm otherwise"),
        ('"verdict":"allow"', '"verdict":"deny"', "does not hang on the record before"),
        ('{"lictor_report": 1', '{"lictor_report": 2', "is not a report"),
    ],
)
def test_an_edited_report_is_caught(folder: Path, find: str, put: str, problem: str) -> None:
    calls(folder, BIG)
    calls(folder, BIG, answer="rejected")
    report(folder)
    path = folder / "r.json"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put, 1))

    if "is not" in problem:
        with pytest.raises(ConfigError, match=problem):
            checked(folder)
        return
    assert problem in checked(folder, ends=1)


@pytest.mark.parametrize("drop", ["decisions", "records", "head"])
def test_a_report_with_something_left_out_is_caught(folder: Path, drop: str) -> None:
    calls(folder, BIG, SMALL)
    _, twin = report(folder)
    if drop == "decisions":
        del twin["decisions"][0]
    elif drop == "records":
        del twin["sections"][0]["records"][2]
    else:
        twin["decisions"][0]["decision"]["head"] = "x:1:" + "0" * 64
    (folder / "r.json").write_text(
        '{"lictor_report": 1,' + json.dumps(twin).removeprefix('{"lictor_report": 1,')
    )

    output = checked(folder, ends=1)

    expected = {
        "decisions": "a decision that the table leaves out",
        "records": "records 3 to 3 are missing",
        "head": "the table has a decision that is no record",
    }
    assert expected[drop] in output


# -- harmless


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=a>\"'&\u202egnp\u200b\x1b[2J"


def test_hostile_text_stays_text(folder: Path) -> None:
    calls(folder, (PAY, {"to": HOSTILE, "amount": 600}))

    page, twin = report(folder, "--session", "s")

    found = Page(page)
    assert twin["decisions"][0]["decision"]["body"]["arguments"]["to"] == HOSTILE
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert page.count("</script>") == 1
    assert not re.search("[\u202e\u200b\x1b]", page)
    assert "\\u{202e}gnp" in "".join(found.words)
    assert "intact" in checked(folder, "r.html")


def test_the_page_needs_nothing_and_forbids_the_rest(folder: Path) -> None:
    calls(folder, BIG)

    page, _ = report(folder)

    found = Page(page)
    assert {"link", "img", "iframe", "form", "a", "object"}.isdisjoint(found.tags)
    assert not [each for each in found.attributes if each[0] in ("src", "href", "action")]
    assert not [each for each in found.attributes if each[0].startswith("on")]
    (policy,) = [v for k, v in found.attributes if k == "content" and v and "default-src" in v]
    assert "default-src 'none'" in policy
    assert [v for k, v in found.attributes if k == "type"] == ["application/json"]


# -- files


def test_a_report_that_cannot_be_written_leaves_nothing(folder: Path) -> None:
    calls(folder, SMALL)

    with pytest.raises(ConfigError, match="cannot be written"):
        lictor(folder, "report", "--html", str(folder / "none/r.html"))
    assert not list(folder.glob(".*.html*"))


def test_an_empty_period_is_an_empty_report(folder: Path) -> None:
    calls(folder, SMALL)

    _, twin = report(folder, "--since", "2001-01-01", "--until", "2001-12-31")

    assert twin["decisions"] == twin["sections"] == []
    assert "0 records of the period, intact" in checked(folder)


def test_an_older_store_learns_to_find_policies(folder: Path) -> None:
    calls(folder, SMALL)
    with closing(sqlite3.connect(folder / ".lictor/lictor.db")) as db, db:
        db.execute("DROP INDEX record_policy")
        db.execute("UPDATE meta SET schema = 2")

    calls(folder, SMALL)

    with closing(sqlite3.connect(folder / ".lictor/lictor.db")) as db:
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT 1 FROM record WHERE kind = 'policy' AND code = 'x'"
        ).fetchall()
    assert "record_policy" in str(plan)
