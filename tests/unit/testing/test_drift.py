"""The fixture that users put into their own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lictor.catalog import Decided, classify
from lictor.model import Impact
from lictor.testing import tool_of

CONFTEST = "from lictor.testing.drift import lictor_drift\n"
TEST = """\
from lictor.testing import tool_of

def test_tools(lictor_drift):
    lictor_drift([tool_of("look"){more}]{where})
"""


def run(folder: Path, more: str = "", where: str = "", *, ends: int) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_tools.py").write_text(TEST.format(more=more, where=where))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tools.py"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == ends, done.stdout + done.stderr
    return done.stdout


def review(folder: Path, name: str, **parts: object) -> None:
    decided = Decided(frozenset({Impact.READ}), "ops", "2026-11-24", **parts)  # type: ignore[arg-type]
    classify(folder / "catalog.toml", folder / "catalog.lock", tool_of(name), decided)


def test_a_program_as_it_was_reviewed_passes(tmp_path: Path) -> None:
    review(tmp_path, "look")
    review(tmp_path, "gone", blocked=True)

    run(tmp_path, ends=0)


def test_drift_fails_with_the_report_that_check_gives(tmp_path: Path) -> None:
    review(tmp_path, "look")
    review(tmp_path, "gone")

    output = run(tmp_path, ', tool_of("new")', ends=1)

    assert "local/new is not reviewed" in output
    assert "local/gone is reviewed, and the program does not have it" in output
    assert "mend: start the program once, then lictor review" in output


def test_the_project_may_lie_elsewhere_and_in_production_a_dev_review_is_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "app").mkdir()
    review(tmp_path / "app", "look", reviewed_in="dev")
    run(tmp_path, where=', project="app"', ends=0)

    (tmp_path / "app/lictor.toml").write_text('profile = "production"\n')
    assert "local/look is not reviewed" in run(tmp_path, where=', project="app"', ends=1)


def test_a_project_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    assert "no gate has been in its folder" in run(tmp_path, ends=1)
