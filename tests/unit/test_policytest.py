"""Policy tests: what they say, what does not load, what they try, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lictor import ConfigError, Denied, Gate, Tool, ToolCall
from lictor.canonical import Json
from lictor.catalog import lock, note, read_seen
from lictor.cli import app
from lictor.policytest.reading import parse
from lictor.testing import UnsafeApprovals, tool_of

LICTOR = """\
labels = ["sensitive"]

[agents.bot]
owner = "alice"

[users.alice]

[tasks.pay]
tools = ["look", "pay", "mail"]

[tasks.pay.limits.pay]
to = { one_of = ["bob"] }
amount = { min = "0.01", max = "10" }
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

[[tool]]
server = "local"
name = "mail"
impact = "send"
target = ["to"]
recordable = ["to"]
"""
TEXT, NUMBER = {"type": "string"}, {"type": "number"}
LOOK = tool_of("look", {"n": {"type": "integer"}, "all": {"type": "boolean"}}, required=["n"])
PAY = tool_of("pay", {"to": TEXT, "amount": NUMBER}, required=["to", "amount"])
MAIL = tool_of("mail", {"to": TEXT, "text": TEXT}, required=["to", "text"])
BASE = "- tool: pay\n  arguments: {to: bob, amount: 5}\n  as: bot\n  for: alice\n  task: pay\n"
Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lictor.toml").write_text(LICTOR)
    (tmp_path / "catalog.toml").write_text(CATALOG)
    note(tmp_path / ".lictor/seen.json", [LOOK, PAY, MAIL])
    seen = read_seen(tmp_path / ".lictor/seen.json")
    lock(tmp_path / "catalog.toml", tmp_path / "catalog.lock", seen, accept=seen)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """`lictor test …` in the folder."""

    def invoke(*words: str, ends: int = 0) -> str:
        words = ("test", *words, "-p", str(folder / "lictor.toml"))
        done = CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == ends, done.output
        return done.output

    return invoke


def written(folder: Path, text: str) -> Path:
    path = folder / "policy_tests.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def calls(folder: Path, *made: tuple[Tool, dict[str, object]], answer: str = "") -> None:
    approvals = UnsafeApprovals(answer) if answer else None
    with (
        Gate.from_file(folder / "lictor.toml", approvals=approvals) as gate,
        gate.task("pay", agent="bot", on_behalf_of="alice", session="s"),
    ):
        for tool, arguments in made:
            try:
                gate.run(ToolCall(tool, arguments), lambda args: args)
            except Denied:
                continue


# -- the guardrails' own


def test_the_starter_passes_its_own_tests(run: Run) -> None:
    output = run("--guardrails")

    assert "13 passed, 0 failed" in output


def test_the_starters_tests_name_all_its_guardrails(run: Run) -> None:
    """But the two that the gate decides itself, before any policy is asked."""
    import lictor.policytest as policytest

    text = (Path(policytest.__file__).parent / "starter-1/policy_tests.yaml").read_text()
    cedar = Path(policytest.__file__).parents[1] / "policy/guardrails/starter-1.cedar"
    ids = {line.split('"')[1] for line in cedar.read_text().splitlines() if line.startswith("@id")}

    assert {name for name in ids if name not in text} == {"starter:tenant", "starter:grant-scope"}


# -- trying


def test_what_is_decided_as_expected_passes(folder: Path, run: Run) -> None:
    written(folder, f"{BASE}  expect: allow\n  because: starter:named\n")

    assert run() == "ok    local/pay: allow\n1 passed, 0 failed\n"


@pytest.mark.parametrize(
    ("expect", "problem"),
    [
        ("expect: deny", "expected deny, was allow (permit, starter:named)"),
        ("expect: allow\n  because: starter:read", "expected because of starter:read, was allow"),
    ],
)
def test_what_is_decided_otherwise_fails_and_says_how(
    folder: Path, run: Run, expect: str, problem: str
) -> None:
    written(folder, f"{BASE}  name: rent\n  {expect}\n")

    output = run(ends=1)

    assert "FAIL  rent (policy_tests.yaml:1)" in output
    assert problem in output
    assert "0 passed, 1 failed" in output


def test_a_denial_before_policy_was_asked_is_not_the_expected_one(folder: Path, run: Run) -> None:
    wrong = BASE.replace("amount: 5", "amount: '5'")
    written(folder, f"{wrong}  expect: deny\n{wrong}  expect: deny\n  because: input_invalid\n")

    output = run(ends=1)

    assert "the call itself is wrong, so policy was never asked" in output
    assert "1 passed, 1 failed" in output


def test_what_the_session_has_seen_counts_for_its_test_only(folder: Path, run: Run) -> None:
    mail = "- tool: mail\n  arguments: {to: bob, text: hi}\n  as: bot\n  for: alice\n"
    written(
        folder,
        f"{mail}  session: {{labels: [sensitive]}}\n  expect: ask\n  because: starter:leak\n"
        f"{mail}  expect: ask\n  because: starter:leak\n",
    )

    output = run(ends=1)

    assert output.startswith("ok    local/mail: ask\nFAIL  local/mail (policy_tests.yaml:8)")


def test_what_was_spent_reaches_policy(folder: Path, run: Run) -> None:
    (folder / "policies").mkdir()
    (folder / "policies/own.cedar").write_text(
        '@id("much") forbid(principal, action == Lictor::Action::"local/pay", resource)'
        ' when { context.session.spent.greaterThan(decimal("100.0")) };'
    )
    written(
        folder,
        f"{BASE}  session: {{spent: 90}}\n  expect: allow\n"
        f"{BASE}  session: {{spent: 95.5}}\n  expect: deny\n  because: much\n",
    )

    assert "2 passed" in run()


def test_without_for_nobody_is_present(folder: Path, run: Run) -> None:
    written(
        folder, BASE.replace("  for: alice\n", "") + "  expect: deny\n  because: policy_denied\n"
    )

    assert "1 passed" in run()


# -- what does not load


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{BASE}  expct: allow\n", r":6: a test has no key 'expct'\n.*did you mean expect\?"),
        (BASE, r":1: has no expect"),
        (f"{BASE}  expect: alow\n", r":6: 'alow' cannot be expected\n.*allow"),
        (f"{BASE}  expect: deny\n  because: leak\n", r":7: 'leak' is no reason.*\n.*starter:leak"),
        (f"{BASE}  expect: deny\n".replace("tool: pay", "tool: pya"), r":1: local/pya is not rev"),
        (
            f"{BASE}  expect: deny\n".replace("bot", "bto"),
            r":3: nobody declares agent 'bto'.*\n.*b",
        ),
        (f"{BASE}  expect: deny\n".replace("alice", "alise"), r":4: nobody declares user 'alise'"),
        (
            f"{BASE}  expect: deny\n".replace("task: pay", "task: pray"),
            r":5: there is no \[tasks.pr",
        ),
        (f"{BASE}  expect: deny\n".replace("amount:", "amuont:"), r":2: .* no argument 'amuont'"),
        (f"{BASE}  expect: deny\n  session: {{labels: [sensitiv]}}\n", r":7: no label 'sensitiv'"),
        (f"{BASE}  expect: deny\n  session: {{label: [x]}}\n", r":7: session has no key 'label'"),
        (f"{BASE}  expect: deny\n  session: {{spent: -1}}\n", r":7: -1 is no amount"),
        (f"{BASE}  expect: deny\n  session: {{calls: 1.5}}\n", r":7: 1.5 is no count"),
        (f"{BASE}  expect: deny\n  expect: allow\n", r":7: 'expect' stands twice"),
        (f"{BASE}  expect: on\n", r":6: 'on' is read as true or false.*\n.*quote it"),
        (f"{BASE}  expect: deny\n  name: 2026-10-01\n", r":7: '2026-10-01' is read as a date"),
        ("tool: pay\n", r"yaml: holds no list of tests"),
        ("# nothing yet\n", r"yaml: holds no list of tests"),
        ("- just text\n", r":1: a test is a table of keys"),
        ("- [\n", r":\d: is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    folder: Path, run: Run, text: str, problem: str
) -> None:
    written(folder, text)

    with pytest.raises(ConfigError, match=problem):
        run()


@pytest.mark.parametrize(
    "value",
    [
        *("yes", "No", "on", "TRUE", "012", "0x1f", "1_000", "1:30", "1e3", ".5", "5.", "0o17"),
        *(".inf", "2026-10-01", "2026-10-01T10:00:00Z", "192.168.0.1", "+5"),
        *("!!str 5", "!!python/name:os.system", "&a x"),
    ],
)
def test_a_value_that_reads_two_ways_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^f:2: "):
        parse(f"- a: 1\n- b: {value}\n", "f")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        *(("5", 5), ("-0.5", -0.5), ("1.5e+10", 1.5e10), ("true", True), ("null", None)),
        *(("~", None), ("", None), ("'yes'", "yes"), ('"012"', "012"), ("US1330", "US1330")),
    ],
)
def test_a_value_that_reads_one_way_is_taken(value: str, meant: Json) -> None:
    found = parse(f"- {value}", "f")

    assert found is not None
    assert found.root.plain() == [meant]


@pytest.mark.parametrize(
    "text", ["a: &x 1\nb: *x\n", "- [" * 5_000, "a: 1\n---\nb: 2\n", "? [a]\n: 1"]
)
def test_what_only_an_attacker_writes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, "f")


def test_no_file_says_what_makes_one(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"does not exist\n.*lictor test add last makes it"):
        run()


# -- adding


def test_what_just_happened_becomes_a_test_that_passes(folder: Path, run: Run) -> None:
    calls(folder, (PAY, {"to": "bob", "amount": 5}))

    output = run("add", "last", "--name", "rent is paid")

    assert "next: lictor test" in output
    assert (folder / "policy_tests.yaml").read_text() == (
        "# Tried by `lictor test`; `lictor test add last` adds what has just happened.\n"
        '- name: "rent is paid"\n'
        "  tool: local/pay\n"
        "  arguments: {amount: 5, to: bob}\n"
        "  as: bot\n"
        "  for: alice\n"
        "  task: pay\n"
        "  expect: allow\n"
        "  because: starter:named\n"
    )
    assert "1 passed" in run()
    assert "nothing added: policy_tests.yaml:2 is this test" in run("add", "last")


def test_what_the_file_holds_stays_byte_for_byte(folder: Path, run: Run) -> None:
    mine = f"# mine\n{BASE}  expect: allow   # so far"
    before = "\r\n".join(f"  {line}" for line in mine.splitlines())
    path = written(folder, before)
    calls(folder, (PAY, {"to": "eve", "amount": 5}))

    run("add", "last")

    after = path.read_bytes().decode()
    assert after.startswith(
        before + "\r\n  - tool: local/pay\r\n    arguments: {amount: 5, to: eve}\r\n"
    )
    assert "\n" not in after.replace("\r\n", "")
    assert "2 passed" in run()


@pytest.mark.parametrize("end", ["[]\n", "- {tool: pay, as: bot, expect: deny}\n...\n", "a: b\n"])
def test_a_file_of_another_style_is_left_alone(folder: Path, run: Run, end: str) -> None:
    path = written(folder, end)
    calls(folder, (PAY, {"to": "eve", "amount": 5}))

    with pytest.raises(ConfigError):
        run("add", "last")

    assert path.read_text() == end


@pytest.mark.parametrize(
    "text",
    ["yes", "012", "2026-10-01", "a: b # c", '"\\', "two\nlines", "\u202eabc\u2028\x85", "😀", " "],
)
def test_any_text_comes_back_as_it_was(folder: Path, run: Run, text: str) -> None:
    calls(folder, (PAY, {"to": text, "amount": 12.5}))

    run("add", "last")

    assert "1 passed" in run()
    found = parse((folder / "policy_tests.yaml").read_text("utf-8"), "f")
    assert found is not None
    (test,) = found.root.plain()  # type: ignore[misc]
    assert test["arguments"] == {"to": text, "amount": 12.5}  # type: ignore[index,call-overload]


@pytest.mark.parametrize("answer", ["granted", "rejected", ""])
def test_what_a_person_was_asked_is_an_ask_however_he_answered(
    folder: Path, run: Run, answer: str
) -> None:
    calls(folder, (MAIL, {"to": "bob", "text": "hi"}), answer=answer)

    run("add", "last", "--arg", "text=hi")

    assert "expect: ask\n  because: starter:confirm\n" in (folder / "policy_tests.yaml").read_text()
    assert "1 passed" in run()


def test_what_is_not_recorded_must_be_given(folder: Path, run: Run) -> None:
    calls(folder, (MAIL, {"to": "bob", "text": "secret"}), (LOOK, {"n": 3, "all": True}))

    with pytest.raises(ConfigError, match=r"not recorded in clear: n\n.*--arg n=….*recordable"):
        run("add", "last")
    output = run("add", "last", "--arg", "n=3")

    assert "not recorded, so left out: all" in output
    assert not (folder / "policy_tests.yaml").read_text().count("secret")


def test_a_decision_that_files_no_longer_give_is_not_written(folder: Path, run: Run) -> None:
    calls(folder, (PAY, {"to": "bob", "amount": 9}))
    toml = folder / "lictor.toml"
    toml.write_text(toml.read_text().replace('max = "10"', 'max = "8"'))

    with pytest.raises(ConfigError, match=r"was allow .* would be deny \(grant_limit\) now"):
        run("add", "last")
    assert not (folder / "policy_tests.yaml").exists()


def test_what_should_have_been_decided_can_be_written_first(folder: Path, run: Run) -> None:
    calls(folder, (PAY, {"to": "bob", "amount": 9}))

    output = run("add", "last", "--expect", "deny")

    assert "it does not pass yet: expected deny, was allow" in output
    assert "0 passed, 1 failed" in run(ends=1)


def test_labels_of_the_conversation_go_into_the_test(folder: Path, run: Run) -> None:
    with Gate.from_file(folder / "lictor.toml") as gate:
        with gate.task("pay", agent="bot", on_behalf_of="alice"), pytest.raises(Denied):
            gate.run(ToolCall(MAIL, {"to": "bob", "text": "hi"}), lambda args: args)

    run("add", "last", "--arg", "text=hi")

    text = (folder / "policy_tests.yaml").read_text()
    assert "  session: {labels: [untrusted]}\n" in text
    assert "because: starter:" in text


def test_nothing_recorded_is_said(folder: Path, run: Run) -> None:
    calls(folder)
    with pytest.raises(ConfigError, match="no decision 'last' is recorded"):
        run("add", "last")


def test_a_file_that_another_may_write_is_refused(folder: Path, run: Run) -> None:
    path = written(folder, f"{BASE}  expect: allow\n")
    path.chmod(0o666)

    with pytest.raises(ConfigError):
        run()


def test_the_shipped_lock_is_of_this_format() -> None:
    """A pin that no longer fits would leave the starter untested."""
    import lictor.policytest as policytest
    from lictor.assemble import read

    project = read(Path(policytest.__file__).parent / "starter-1/lictor.toml")
    known: Mapping[str, object] = {str(k.review.key): k for k in project.catalog.known_tools()}

    assert set(known) == {f"local/{name}" for name in ("look", "save", "pay", "mail", "remove")}
