"""Where `lictor.toml` is: the line of the texts works however a program is started, or says so.

Rules enforced here:

1. `Gate.from_file(Path(__file__).with_name("lictor.toml"))` finds the file beside the program.
2. Where it does not, the text holds the line that does.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LINE = 'Gate.from_file(Path(__file__).with_name("lictor.toml"))'
PROGRAM = f"""\
from pathlib import Path
from lictor import Gate, ToolCall
from lictor.testing import tool_of

gate = {LINE}
print("made from", gate.store.path)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "lictor.toml").write_text('[agents.bot]\nowner = "alice"\n\n[users.alice]\n')
    (folder / "app.py").write_text(PROGRAM)
    return folder


def started(*words: str, cwd: Path, ends: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ends, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "cwd"),
    [
        (["app.py"], "app"),
        (["./app.py"], "app"),
        (["app/app.py"], "."),
        (["../app/app.py"], "app"),
        (["-m", "app.app"], "."),
        (["-c", "import sys; sys.path.insert(0, 'app'); import app"], "."),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_the_line_finds_the_file_beside_the_program(  # rule 1
    app: Path, words: list[str], cwd: str
) -> None:
    shown = started(*words, cwd=app.parent / cwd)
    assert (app / ".lictor/lictor.db").exists()
    assert "made from" in shown


def mended(app: Path, line: str, start: Path, *, old: str = LINE) -> str:
    """Puts the line of an error into the program, and starts it again."""
    (app / "app.py").write_text((app / "app.py").read_text().replace(old, line))
    return started(str(start), cwd=app.parent)


def line_of(text: str) -> str:
    (found,) = re.findall(r"mend: .*?(Gate\.from_file\(.*\))$", text, re.MULTILINE)
    return str(found)


def test_through_a_linked_folder_the_text_says_how(app: Path, tmp_path: Path) -> None:  # rule 2
    (tmp_path / "current").symlink_to(app)
    start = tmp_path / "current" / "app.py"
    told = started(str(start), cwd=tmp_path, ends=1)
    assert "current is a symbolic link" in told
    line = line_of(told)
    assert "made from" in mended(app, line, start)


def test_a_relative_path_is_refused_with_the_line_that_works(app: Path) -> None:  # rule 2
    given = 'Gate.from_file("lictor.toml")'
    (app / "app.py").write_text(PROGRAM.replace(LINE, given))
    told = started("app.py", cwd=app, ends=1)
    assert "is a relative path" in told
    assert line_of(told) == LINE
    assert "made from" in mended(app, line_of(told), app / "app.py", old=given)


def test_a_program_whose_own_name_is_relative_is_told_how(app: Path) -> None:  # rule 2
    start = ["-c", "import runpy; runpy.run_path('app/app.py')"]
    line = line_of(started(*start, cwd=app.parent, ends=1))
    (app / "app.py").write_text(PROGRAM.replace(LINE, line))
    assert "made from" in started(*start, cwd=app.parent)


def test_a_missing_file_leads_to_the_first_day(app: Path) -> None:
    (app / "lictor.toml").unlink()
    told = started("app.py", cwd=app, ends=1)
    assert "lictor.toml: does not exist" in told
    assert "mend: begin with Gate.dev(), which needs no file; then lictor init writes it" in told


def test_what_a_missing_file_leads_to_makes_it(app: Path) -> None:
    (app / "lictor.toml").unlink()
    call = 'gate.run(ToolCall(tool_of("look"), {}), print)'
    (app / "app.py").write_text(
        PROGRAM.replace(LINE, "Gate.dev()")
        + f"try:\n    {call}\nexcept Exception as error:\n    print(error.code)\n"
    )
    assert "tool_unreviewed" in started("app.py", cwd=app)
    main = "from lictor.cli import main; main()"
    assert "wrote" in started("-c", main, "init", cwd=app)
    (app / "app.py").write_text(PROGRAM)
    assert "made from" in started("app.py", cwd=app)


COMMANDS = [
    "check",
    "explain last",
    "catalog diff",
    "catalog lock",
    "watch",
    "review",
    "test",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_a_project_leads_to_the_first_day(tmp_path: Path, command: str) -> None:
    main = "from lictor.cli import main; main()"
    told = started("-c", main, *command.split(), cwd=tmp_path, ends=2)
    assert "mend: start your program with Gate.dev() once" in told
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_and_the_text_names_the_file_in_it(app: Path) -> None:
    (app / "app.py").write_text(PROGRAM.replace('.with_name("lictor.toml")', ".parent"))
    told = started("app.py", cwd=app, ends=1)
    assert f"mend: name the file in it: {app / 'lictor.toml'}" in told
