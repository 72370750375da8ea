"""Every page tells the truth: its blocks are run, in order, in a folder of their own.

* ```` ```toml NAME ```` and ```` ```python NAME ```` are written to NAME; other python blocks run,
  one after the other, in one namespace.
* ```` ```console ```` runs each `$ ` line. What follows must be in its output, in order, `…`
  standing for anything; `# exit N` at the end of the line says how it ends. `make` targets are only
  looked up.
* `<!-- test NAME … -->` writes a file the reader does not need to see, `<!-- test-run … -->` runs a
  command.
* A page that presses keys (`‹y›`) or has a second terminal is followed on real ones, line by line:
  `scripts/follow.py` says how.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from follow import Reader, acted, blocks

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    command, expected = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], []
        elif line.strip():
            expected.append(line.strip())
    if command:
        yield command, expected


def run(command: str, expected: list[str], folder: Path, where: str) -> None:
    command, _, note = command.partition("  #")
    exit_code = int(note.split()[1]) if note.split()[:1] == ["exit"] else 0
    if command.split()[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert f"\n{command.split()[1]}:" in makefile, f"{where}: there is no such target"
        return
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", command.strip()],
        cwd=folder,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == exit_code, f"{where}: {command}\n{output}"
    # `…` on a line of its own skips lines; within a line it skips characters.
    pattern = ".*?".join(
        r"[^\n]*?".join(re.escape(part) for part in line.split("…"))
        for line in expected
        if line != "…"
    )
    assert re.search(pattern, output, re.DOTALL), f"{where}: {command}\n{expected}\n{output}"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "quickstart.md"],  # test_first_minutes.py follows it
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_page_is_true(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if acted(page):
        folder = tmp_path / "my-agent"
        folder.mkdir()
        with Reader(folder, Path(sys.executable).parent) as reader:
            reader.follow(page)
        return
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.lang == "console":
            for command, expected in commands(block.text):
                run(command, expected, tmp_path, where)
        elif block.name and block.lang in ("toml", "python", "file", "cedar", "json", "yaml"):
            path = tmp_path / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.lang == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (shown,) = [b for b in blocks(ROOT / "README.md") if b.name == "demo"]
    run("lictor demo", [*shown.text.split("\n")], tmp_path, "README demo")


def test_what_a_page_makes_can_be_made() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE):
            assert f"\n{target}:" in makefile, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
