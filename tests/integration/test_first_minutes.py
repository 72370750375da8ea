"""The first minutes as docs/quickstart.md tells them: our wheels, real terminals, its pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from follow import Block, Reader, blocks, equip, matches
from record import CELL, MARGIN

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/quickstart.md"
PICTURES = ROOT / "docs/pictures"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    folder = tmp_path / "my-agent"
    folder.mkdir()
    with Reader(folder, equip(tmp_path)) as reader:
        reader.follow(PAGE)


def until_the_first_stopped_call() -> Iterator[Block]:
    """The page's blocks from the first command to the first call that did not run."""
    started = False
    for block in blocks(PAGE):
        started = started or block.lang == "console"
        if started:
            yield block
        if block.lang == "console" and "was denied" in block.text:
            return
    pytest.fail("no call is stopped on this page")


def test_three_commands_two_changed_lines_and_no_file_lead_to_the_first_stopped_call() -> None:
    way = list(until_the_first_stopped_call())
    shown = "".join(block.text for block in way if block.lang == "console")
    commands = re.findall(r"^\$ (.+)$", shown, re.MULTILINE)
    files = [block.name for block in way if block.name and block.lang not in ("diff", "console")]
    diffs = [line for block in way if block.lang == "diff" for line in block.text.splitlines()]

    assert len(commands) == 3, commands
    assert commands[0].startswith("pip install ")
    assert "Run exactly this call? [y/N] ‹y›" in shown
    assert not files
    assert len([line for line in diffs if line.startswith("+")]) == 2
    assert len([line for line in diffs if line.startswith("-")]) == 2


def drawn(name: str) -> list[str]:
    """The lines of a picture, those that vanish again too."""
    found = []
    for group in ElementTree.parse(PICTURES / f"{name}.svg").iter(f"{SVG}g"):
        line = ""
        for text in group.iter(f"{SVG}text"):
            column = round((float(text.get("x", "")) - MARGIN) / CELL)
            line = line.ljust(column) + (text.text or "")
        found.append(line)
    return found


def told(terminal: str, command: str = "") -> list[str]:
    """What the page shows of a terminal, or of one of its commands."""
    shown = "".join(b.text for b in blocks(PAGE) if b.lang == "console" and b.name == terminal)
    if command:
        shown = shown.partition(f"$ {command}\n")[2].partition("\n$ ")[0]
    return [line for line in shown.splitlines() if line.strip() not in ("", "…")]


@pytest.mark.parametrize(("name", "lines"), [("demo", ("", "lictor demo")), ("watch", ("watch",))])
def test_a_picture_shows_what_the_page_says(name: str, lines: tuple[str, ...]) -> None:
    left = drawn(name)
    wanted = told(*lines)

    assert len(wanted) > 3
    for line in wanted:
        prompt, _, key = line.partition("‹")
        if key == "q›":  # the picture ends before
            continue
        expected = f"{prompt}{key.removesuffix('›')}"
        while left and not matches(expected, left[0]):
            del left[0]
        assert left, f"docs/pictures/{name}.svg has no {expected!r}: make pictures"


@pytest.mark.parametrize("name", ["demo", "watch"])
def test_a_picture_holds_nothing_from_outside_and_nothing_of_the_machine(name: str) -> None:
    source = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)

    assert len(source) < 150_000
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        "svg", "title", "style", "rect", "circle", "text", "g",
    }  # fmt: skip
    assert not re.search(r"href|url\(|@import|\bon[a-z]+=", source)
    assert source.count("http") == 1, "the namespace, and no other address"
    paths = re.findall(r"(?:^|[\s\"'=])(/\w+)", "\n".join(drawn(name)))
    assert set(paths) <= {"/tmp"}


def test_a_picture_stands_still_where_motion_is_not_wanted() -> None:
    for name in ("demo", "watch"):
        source = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert "@media (prefers-reduced-motion:reduce){g{animation:none!important}}" in source
        hidden = set(re.findall(r"\.(t\d+)\{visibility:hidden", source))
        tops = re.findall(r'<g class="(t\d+)"><text x="[^"]*" y="([^"]*)"', source)
        still = [top for group, top in tops if group not in hidden]
        assert len(still) == len(set(still)), "two states of a row would be seen at once"
        assert len(still) > 10
