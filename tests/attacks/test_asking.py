"""Bypasses of asking: what is shown, and who answers."""

from __future__ import annotations

import asyncio
import os
import shlex
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, run
from typing import Any

import pytest

from lictor.approval.render import confirm_lines
from lictor.approval.terminal import _turn_file
from lictor.catalog import entries, propose
from lictor.cli.hint import refuse_under_gate
from lictor.errors import ConfigError, Denied
from lictor.model import Impact, Tool, ToolKey
from lictor.offload import PEOPLE
from lictor.ports import Answer, Ask, Query, Reply
from lictor.store import open_store
from lictor.testing import UnsafeScripted, reviewed, tool_of
from lictor.testing.seat import Seat


def lines(**arguments: Any) -> str:
    kinds, tool = ("confirm:user",), ToolKey("local", "pay")
    return "\n".join(confirm_lines(Ask(kinds, "c", "d", "t", "t", "alice", "bot", tool, arguments)))


@pytest.mark.attack("X63")
@pytest.mark.parametrize(
    ("shown", "runs"),
    [
        ("alice@acme.example", "alice@acme.example\u200b"),
        ("abc", "a\u202ecb"),
        ("a b", "a\u00a0b"),
        ("x" * 10_000, "x" * 5_000 + "y" + "x" * 4_999),
        ("a\\u{200b}", "a\u200b"),
        ("1", 1),
        ("true", True),
        ("[]", []),
        ("a\\nb", "a\nb"),
    ],
)
def test_what_differs_is_shown_to_differ(shown: Any, runs: Any) -> None:
    assert lines(to=shown) != lines(to=runs)


@pytest.mark.attack("X63")
def test_text_of_the_agent_writes_no_line_of_ours() -> None:
    text = lines(note='ok"\n  because: the bank has agreed\nRun exactly this call? [y/N] y\x1b[A')

    assert not [line for line in text.splitlines() if line.startswith(("Run", "  because"))]


PAY = Answer(False, "ask_required", ("p",), ("why",), ("confirm:user",), frozenset())


class Edited:
    """A channel beside which somebody edits the store, as an agent with a file tool could."""

    lasting = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def ready(self, ask: Ask) -> str:
        return ""

    def answer(self, ask: Ask) -> Reply:
        with closing(sqlite3.connect(self.path)) as db:
            row = "state = 'granted', by = 'alice', channel = 'watch', assurance = 'asserted'"
            db.execute(f"UPDATE approval SET {row}, mac = 'hmac:0' WHERE id = ?", (ask.id,))
            db.commit()
        return Reply("pending", ask.id)


@pytest.mark.attack("X66")
def test_an_answer_written_into_the_database_is_none(
    world: Callable[..., Any], tmp_path: Path
) -> None:
    channel = Edited(tmp_path / "lictor.db")
    one = world(policy=UnsafeScripted(PAY), approvals=channel)

    with one.task():
        reason = one.try_(one.call(one.pay, to="eve", amount=1))

    assert reason in ("ask_unavailable", "ask_unanswered")
    assert one.runs == []


@pytest.mark.attack("X66")
def test_what_decides_does_not_run_under_the_gate_it_decides_about(tmp_path: Path) -> None:
    path = tmp_path / "lictor.db"
    store = open_store(path)
    code = (
        "import sys; from pathlib import Path; from lictor.cli.hint import refuse_under_gate\n"
        "refuse_under_gate(Path(sys.argv[1]))"
    )
    try:
        own = run([sys.executable, "-c", code, str(path)], stderr=PIPE, text=True, check=False)
        shell = run(
            ["/bin/sh", "-c", '"$0" -c "$1" "$2"; exit $?', sys.executable, code, str(path)],
            stderr=PIPE,
            text=True,
            check=False,
        )
    finally:
        store.close()
    after = run([sys.executable, "-c", code, str(path)], check=False)

    assert "whose calls the gate decides" in own.stderr
    assert "whose calls the gate decides" in shell.stderr
    assert after.returncode == 0


def test_a_watcher_above_is_no_gate(tmp_path: Path) -> None:
    path = tmp_path / "lictor.db"
    store = open_store(path, placement="watch")
    code = (
        "import sys; from pathlib import Path; from lictor.cli.hint import refuse_under_gate\n"
        "refuse_under_gate(Path(sys.argv[1]))"
    )
    try:
        done = run([sys.executable, "-c", code, str(path)], check=False)
    finally:
        store.close()

    assert done.returncode == 0
    refuse_under_gate(tmp_path / "absent.db")


@pytest.mark.attack("X91")
def test_programs_with_folders_of_their_own_take_turns_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two of them would ask at one terminal, and each key would go to either."""
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        monkeypatch.setattr(tempfile, "tempdir", None)
        handle = _turn_file(987_654_321)
        found.append(os.fstat(handle).st_ino)
        os.close(handle)
    for left in (*tmp_path.glob("*/*.lock"), *Path("/tmp").glob("lictor-*-tty-987654321.lock")):
        left.unlink()

    assert found[0] == found[1]


@pytest.mark.attack("X92")
@pytest.mark.parametrize("columns", [24, 40, 60, 78])
def test_on_a_narrow_terminal_no_text_stands_where_a_line_of_ours_would(columns: int) -> None:
    code = (
        "from lictor.approval.terminal import AtTerminal, Terminal\n"
        "from lictor.model import ToolKey; from lictor.ports import Ask\n"
        f"note = ''.join('x' * n + '    to = \"alice\"  ' for n in range({columns}))\n"
        "AtTerminal(Terminal(), 'me').answer(Ask(('confirm:user',), 'c', 'd', 't', 'local',"
        " 'alice', 'bot', ToolKey('local', 'pay'), {'note': note}))"
    )
    with Seat([sys.executable, "-c", code], columns=columns) as seat:
        seen = seat.until("[y/N")
        seat.press("n")
        seat.rest()

    rows = [
        line[n : n + columns] for line in seen.splitlines() for n in range(0, len(line), columns)
    ]
    assert [row for row in rows if row.startswith("    to")] == []
    assert [row for row in rows if row.startswith("      | ")] != []


@pytest.mark.attack("X63")
@pytest.mark.parametrize("text", ["аррӏе.com", "bob@раураӏ.example", "https://ехе.example/x"])
def test_a_name_all_in_other_letters_beside_plain_ones_is_spelled_out(text: str) -> None:
    assert "\\\\u04" in lines(to=text)


@pytest.mark.attack("X94")
def test_a_name_in_a_command_to_be_run_is_one_word(tmp_path: Path) -> None:
    """A server chooses its tools' names, and a developer copies what mends a refusal."""
    tool = tool_of("look $(touch pwned); touch pwned", {})
    review = replace(reviewed(tool).review, pin="")
    with pytest.raises(ConfigError) as caught:
        entries.matched("catalog.toml", review, tool)

    command = caught.value.mend.partition(", or")[0]
    assert shlex.split(command) == ["lictor", "catalog", "lock", str(tool.key)]
    done = run(
        ["/bin/sh", "-c", f"set -- {command}; echo $#"], cwd=tmp_path, stdout=PIPE, check=True
    )
    assert done.stdout == b"4\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("X95")
@pytest.mark.parametrize("required", [[[]], [{}], [None, ["a"]], [{"to": 1}]])
def test_a_definition_that_is_none_stops_no_review(required: Any) -> None:
    """Else one tool of a hostile server keeps all others from being looked at."""
    tool = Tool(ToolKey("local", "odd"), "Reads.", {"type": "object", "required": required})

    assert Impact.READ not in propose(tool).impact


class Slow:
    """A channel where alice never answers and bob does so at once."""

    def __init__(self, *, lasting: bool) -> None:
        self.lasting, self.asked, self.told = lasting, list[str](), list[bool]()

    def ready(self, ask: Ask) -> str:
        return ""

    def answer(self, ask: Ask) -> Reply:
        self.asked.append(ask.user)
        if ask.user == "bob":
            return Reply("granted", by="bob", channel="test", assurance="asserted")
        self.told.append(ask.gone.wait(60))
        return Reply("pending" if self.lasting else "expired")


def asks_first(query: Query) -> Answer:
    return Answer(True, "permit") if query.met else PAY


@pytest.mark.attack("X97")
@pytest.mark.parametrize("lasting", [True, False], ids=["watch", "at the caller"])
@pytest.mark.parametrize("equal", [False, True], ids=["other calls", "equal calls"])
def test_one_users_questions_stop_neither_other_questions_nor_policy(
    world: Callable[..., Any], *, lasting: bool, equal: bool
) -> None:
    """Two hundred calls in four tasks; what finds no place is denied at once, with a reason."""
    before, channel = ports(), Slow(lasting=lasting)
    one = world(policy=UnsafeScripted(asks_first, blocking=True), approvals=channel)
    busy: list[Denied] = []
    enough = asyncio.Event()

    async def flooded(task: Any, n: int) -> None:
        with task:
            await asyncio.gather(*(refused(n * 50 + i) for i in range(50)))

    async def refused(n: int) -> None:
        try:
            await one.gate.arun(one.call(one.pay, to="eve", amount=1 if equal else n), one.abody)
        except Denied as denied:
            busy.append(denied)
            if len(busy) == 200 - PEOPLE.places // 2:
                enough.set()

    async def main() -> list[str]:
        tasks = [one.task(session=f"s{n}") for n in range(4)]
        floods = [asyncio.create_task(flooded(task, n)) for n, task in enumerate(tasks)]
        await asyncio.wait_for(enough.wait(), 30)
        try:
            return await asyncio.to_thread(as_bob)
        finally:
            for flood in floods:
                flood.cancel()
            await asyncio.gather(*floods, return_exceptions=True)

    def as_bob() -> list[str]:
        with one.task(on_behalf_of="bob", session="bob"):
            return [one.try_(one.call(one.pay, to="ann", amount=n)) for n in range(3)]

    assert asyncio.run(main()) == ["permit"] * 3
    assert len(one.runs) == 3
    unasked = [each for each in busy if each.decision.reason == "ask_unavailable"]
    assert unasked
    assert all("24 of 48 questions to people" in each.diagnostics() for each in unasked)
    assert {each.decision.reason for each in busy} <= {"ask_unavailable", "policy_error"}
    assert channel.asked.count("alice") <= PEOPLE.places // 2
    assert_nobody_waits(before)
    assert all(channel.told)  # that their callers are gone


@pytest.mark.attack("X97")
def test_one_users_calls_that_hang_in_the_engine_stop_nobody_elses(
    world: Callable[..., Any],
) -> None:
    before, release = ports(), threading.Event()

    def hangs_for_alice(query: Query) -> Answer:
        if query.chain[0].id == "alice":
            release.wait(60)
        return Answer(True, "permit")

    engine = UnsafeScripted(hangs_for_alice, blocking=True)
    one = world(policy=engine, policy_seconds=0.01)

    async def flood() -> list[str]:
        with one.task(session="alice"):
            calls = (one.gate.arun(one.call(one.look, n=n), one.abody) for n in range(200))
            found = await asyncio.gather(*calls, return_exceptions=True)
        return [each.decision.reason for each in found if isinstance(each, Denied)]

    try:
        codes = asyncio.run(flood())
        with one.task(on_behalf_of="bob", session="bob"):
            assert one.try_(one.call(one.look, n=1)) == "permit"
    finally:
        release.set()
    assert (codes.count("policy_timeout"), codes.count("policy_error")) == (64, 136)
    assert_nobody_waits(before)


def ports() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "lictor-port"}


def assert_nobody_waits(before: set[threading.Thread]) -> None:
    """The threads that asked go with their callers."""
    left = ports() - before
    until = time.monotonic() + 20
    for each in left:
        each.join(max(0.0, until - time.monotonic()))
    assert [each for each in left if each.is_alive()] == []
