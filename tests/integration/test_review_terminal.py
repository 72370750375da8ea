"""`lictor review` at a real terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lictor.catalog import Catalog, note
from lictor.model import Impact, Tool
from lictor.testing import tool_of
from lictor.testing.seat import Seat

PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
LOOK = tool_of("look", {"n": {"type": "integer"}})
WIPE = tool_of("wipe", {"path": {"type": "string"}}, server="files")
LICTOR = [sys.executable, "-c", "from lictor.cli import main; main()"]

Sit = Callable[..., Seat]


@pytest.fixture
def sit(tmp_path: Path) -> Iterator[Sit]:
    """`lictor review` in a folder in which only `Gate.dev()` has been."""
    note(tmp_path / ".lictor/seen.json", [PAY, LOOK, WIPE])
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(
            Seat([*LICTOR, "review", *words, "-p", str(tmp_path)], columns=200)
        )


def catalog(folder: Path, *, production: bool = False) -> Catalog:
    return Catalog.load(folder / "catalog.toml", folder / "catalog.lock", production=production)


def test_all_pending_tools_in_one_sitting(sit: Sit, tmp_path: Path) -> None:
    seat = sit()
    table = seat.until("--- 1 of 3")
    assert "waiting for review: 3" in table
    assert "files/wipe  new  looks like delete" in table
    assert "local/pay   new  looks like transfer" in table
    seat.until("[q]uit > ")
    seat.press("b\n")
    seat.until("written: blocked")
    seat.until("--- 2 of 3")
    seat.until("[q]uit > ")
    seat.press("r\n")
    seat.until("can outsiders write what this returns? [Y/n] ")
    seat.press("n")
    seat.until("sensitive? [y/N] ")
    seat.press("\n")
    seat.until("written: reviewed")
    seat.until("[q]uit > ")
    seat.press("t\n")
    seat.until("where it goes? (- for none) [to] ")
    seat.press("\n")
    seat.until("how much? (- for none) [amount] ")
    seat.press("\n")
    seat.until("stand in clear in the record? [Y/n] ")
    seat.press("y")
    told = seat.rest()

    assert "2 reviewed, 1 blocked, 0 left open" in told
    assert "running programs take this at their next start" in told
    assert told.endswith("[exit 0]")
    found = catalog(tmp_path, production=True)
    assert found.check(WIPE) == "tool_blocked"
    assert found.check(LOOK) is None
    known = found.known(PAY.key)
    assert known is not None
    assert known.review.impact == {Impact.TRANSFER}
    assert (known.review.target, known.review.amount) == (("to",), "amount")


def test_leaving_keeps_what_was_done(sit: Sit, tmp_path: Path) -> None:
    seat = sit("--server", "local")
    seat.until("--- 1 of 2")
    seat.until("[q]uit > ")
    seat.press("r\n")
    seat.until("[Y/n] ")
    seat.press("\n")
    seat.until("who? [outsiders] ")
    seat.press("\n")
    seat.until("[y/N] ")
    seat.press("\n")
    seat.until("--- 2 of 2")
    seat.until("[q]uit > ")
    seat.press("q\n")

    assert "1 reviewed, 0 blocked, 1 left open" in seat.rest()
    found = catalog(tmp_path)
    known = found.known(LOOK.key)
    assert known is not None
    assert known.review.sources == {"outsiders"}
    assert found.check(PAY) == "tool_unreviewed"


def test_an_interrupt_keeps_what_was_done_and_the_terminal_as_it_was(
    sit: Sit, tmp_path: Path
) -> None:
    seat = sit()
    before = seat.modes()
    seat.until("[q]uit > ")
    seat.press("b\n")
    seat.until("--- 2 of 3")
    seat.until("[q]uit > ")
    seat.press("\x03")

    assert "0 reviewed, 1 blocked, 2 left open" in seat.rest()
    assert seat.modes() == before
    assert catalog(tmp_path).check(WIPE) == "tool_blocked"


def test_a_development_review_is_confirmed_with_one_key(sit: Sit, tmp_path: Path) -> None:
    entry = f'[[tool]]\nserver = "local"\nname = "look"\nimpact = "read"\npin = "{LOOK.pin}"\n'
    (tmp_path / "catalog.toml").write_text(entry + 'reviewed_in = "dev"\nproduces = "untrusted"\n')
    from lictor.catalog.locking import locked_text

    (tmp_path / "catalog.lock").write_text(locked_text({LOOK.key: LOOK}))
    assert catalog(tmp_path, production=True).check(LOOK) == "tool_unreviewed"

    seat = sit("--confirm")
    assert "Does look." in seat.until("[k]eep: read; returns untrusted text")
    seat.until("[q]uit > ")
    seat.press("k\n")

    assert "1 reviewed" in seat.rest()
    known = catalog(tmp_path, production=True).known(LOOK.key)
    assert known is not None
    assert known.review.reviewer
    assert known.review.reviewed_in == ""
    assert "nothing waits" in sit("--confirm").rest()


def test_a_changed_tool_shows_what_changed(sit: Sit, tmp_path: Path) -> None:
    from lictor.catalog import Decided, classify

    decided = Decided(frozenset({Impact.READ}), "bob", "2026-11-24")
    classify(tmp_path / "catalog.toml", tmp_path / "catalog.lock", LOOK, decided)
    newer = Tool.from_definition({**LOOK.definition(), "description": "Does look again."})
    note(tmp_path / ".lictor/seen.json", [newer])

    seat = sit("--server", "local")
    assert "local/look  changed  read" in seat.until("--- 1 of 2")
    assert "{+ again+}" in seat.until("[q]uit > ")
    seat.press("k\n")
    seat.until("--- 2 of 2")
    seat.until("[q]uit > ")
    seat.press("n\n")

    assert "1 reviewed, 0 blocked, 1 left open" in seat.rest()
    assert catalog(tmp_path).check(newer) is None


def test_a_catalog_that_turned_into_nonsense_meanwhile_is_left_alone(
    sit: Sit, tmp_path: Path
) -> None:
    seat = sit("--server", "files")
    seat.until("[q]uit > ")
    (tmp_path / "catalog.toml").write_text("[[tool]\n")
    seat.press("b\n")

    told = seat.rest()
    assert "not written: " in told
    assert "not TOML" in told
    assert told.endswith("[exit 1]")
    assert (tmp_path / "catalog.toml").read_text() == "[[tool]\n"


@pytest.mark.parametrize(
    "words", [["review"], ["review", "--confirm"], ["catalog", "lock"], ["init"]]
)
def test_a_program_under_a_gate_decides_nothing_about_itself(
    tmp_path: Path, words: list[str]
) -> None:
    note(tmp_path / ".lictor/seen.json", [LOOK])
    program = f"""
import subprocess, sys
from pathlib import Path
from lictor.store import open_store
store = open_store(Path({str(tmp_path)!r}) / ".lictor/lictor.db")
done = subprocess.run([*{LICTOR!r}, *{words!r}, "-p", {str(tmp_path)!r}], text=True)
store.close()
"""
    with Seat([sys.executable, "-c", program], columns=200) as seat:
        told = seat.rest()

    assert "is not for that program to run" in told
    assert not (tmp_path / "catalog.toml").exists()
    assert not (tmp_path / "lictor.toml").exists()


def test_without_a_terminal_nothing_is_decided(tmp_path: Path) -> None:
    note(tmp_path / ".lictor/seen.json", [LOOK])
    done = subprocess.run(
        [*LICTOR, "review", "-p", str(tmp_path)],
        input="r\nn\nn\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )

    assert done.returncode == 2
    assert "run it in a terminal of your own" in done.stderr
    assert not (tmp_path / "catalog.toml").exists()
