"""Where the files of `Gate.dev()` go, however a program is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

SHOW = """
gate = Gate.dev()
print("record:", gate.store.path)
print("agent:", gate.process.grant.agents[0])
"""


def record(folder: Path) -> str:
    return f"record: {folder}/.lictor/lictor.db"


def test_beside_the_program_wherever_it_is_started_from(play: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = play.alone(SHOW, "project/my program.py", cwd=elsewhere)

    assert record(tmp_path / "project") in told
    assert "agent: my-program" in told
    assert list(elsewhere.iterdir()) == []


def test_beside_the_real_program_when_a_link_to_it_is_started(play: Any, tmp_path: Path) -> None:
    real = play.write(SHOW, "project/app.py")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/app").symlink_to(real)

    assert record(tmp_path / "project") in play.run(str(tmp_path / "bin/app"))
    assert {each.name for each in (tmp_path / "bin").iterdir()} == {"app"}


def test_beside_a_module_that_is_run_by_name(play: Any, tmp_path: Path) -> None:
    play.write(SHOW, "package/part.py")
    told = play.run("-m", "package.part")

    assert record(tmp_path / "package") in told
    assert "agent: part" in told


def test_in_a_package_that_is_run_by_name(play: Any, tmp_path: Path) -> None:
    play.write(SHOW, "package/__main__.py")
    told = play.run("-m", "package")

    assert record(tmp_path / "package") in told
    assert "agent: package" in told


def test_beside_an_archive_that_is_run(play: Any, tmp_path: Path) -> None:
    import zipfile

    program = play.write(SHOW, "source/__main__.py")
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.write(program, "__main__.py")
    told = play.run(str(tmp_path / "app.pyz"))

    assert record(tmp_path) in told
    assert "agent: app.pyz" in told


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_in_the_working_directory_where_there_is_no_program(
    play: Any, tmp_path: Path, how: str
) -> None:
    program = play.write(SHOW, "source/app.py").read_text()
    if how == "-c":
        told = play.run("-c", program)
    else:
        started = f"subprocess.run([sys.executable], input={program!r}, text=True)"
        (tmp_path / "shell.py").write_text(f"import subprocess, sys\n{started}")
        told = play.run(str(tmp_path / "shell.py"))

    assert record(tmp_path) in told
    assert f"agent: {'python' if how == '-c' else 'stdin'}" in told


def test_in_the_working_directory_at_the_prompt_of_python(play: Any, tmp_path: Path) -> None:
    seat = play.seat("-q", "-i", env={"PYTHON_BASIC_REPL": "1"})
    seat.until(">>> ")
    seat.press("from lictor import Gate\n")
    seat.until(">>> ")
    seat.press("print(Gate.dev().store.path)\n")

    seat.until(f"{tmp_path}/.lictor/lictor.db")
    seat.press("exit()\n")
    assert seat.rest().endswith("[exit 0]")


def test_in_the_working_directory_for_an_installed_command(play: Any, tmp_path: Path) -> None:
    """Console scripts, pytest and notebook kernels lie in the environment, not in a project."""
    told = play.run(
        "-c",
        "import sys, __main__\n"
        f"__main__.__file__ = {sys.prefix!r} + '/bin/some-command'\n"
        "from lictor import Gate\n"
        "gate = Gate.dev()\n"
        "print('record:', gate.store.path, 'agent:', gate.process.grant.agents[0])",
    )

    assert record(tmp_path) in told
    assert "agent: some-command" in told


def test_in_the_working_directory_under_pytest(play: Any, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    body = "    print(Gate.dev().store.path, Gate.dev().process.grant.agents)\n"
    (tmp_path / "tests/test_it.py").write_text(
        f"from lictor import Gate\n\n\ndef test_it():\n{body}"
    )
    told = play.run("-m", "pytest", "-s", "-p", "no:cacheprovider", "tests/test_it.py")

    assert f"{tmp_path}/.lictor/lictor.db ('pytest',)" in told
    assert not (tmp_path / "tests/.lictor").exists()


def test_a_program_in_a_folder_that_others_may_write_is_refused_with_what_helps(
    play: Any, tmp_path: Path
) -> None:
    program = play.write(SHOW, "open/app.py")
    program.parent.chmod(0o777)
    told = play.run(str(program))

    assert "ConfigError" in told
    assert f"chmod go-w {program.parent}" in told
    assert told.endswith("[exit 1]")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have folders of other accounts")
def test_a_program_of_another_account_is_refused(play: Any, tmp_path: Path) -> None:
    program = play.write(SHOW, "theirs/app.py")
    os.chown(program.parent, 12345, 12345)

    assert "ConfigError" in play.run(str(program))
    assert not (program.parent / ".lictor").exists()
