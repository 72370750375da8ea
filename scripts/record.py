"""Draws what a page's reader sees as pictures that move: one SVG with nothing outside itself.

`python scripts/record.py` follows docs/quickstart.md and writes docs/pictures/. A row that changes
is drawn once for each of its states; a rule of the style sheet says when each of them is seen. The
last moment is what a viewer shows that does not animate, or that was asked not to.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from follow import COLUMNS, MAIN, READER, Press, Reader, equip
from lictor.dev import account
from screen import Cell, Screen, Style

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/quickstart.md"
PICTURES: Final = ROOT / "docs/pictures"
LONGEST: Final = 1.2
"""Seconds that a pause lasts at most."""
SHORTEST: Final = 0.1
READING: Final = 2.5
"""Seconds before a key is pressed: whoever looks must read the question."""
PRESSED: Final = 0.7
"""Seconds that a key is shown."""
STAND: Final = 8.0
"""Seconds that the end is shown before it begins again."""
_TOGETHER: Final = re.compile(r"\S+(?: \S+)*")
_EM: Final = 13
CELL: Final = 7.8
_LINE: Final = 17.0
MARGIN: Final = 14
_TOP: Final = 40
_COLOURS: Final = {
    "black": "#6e7681",
    "red": "#ff7b72",
    "green": "#7ee787",
    "yellow": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#a5d6ff",
    "white": "#f0f6fc",
    "key": "#ffa657",
}


@dataclass(frozen=True)
class Seen:
    """What a row held, from a moment on and up to another; for ever if it is the last."""

    row: int
    cells: Sequence[Cell]
    since: float
    until: float | None


def seen(
    screen: Screen, rows: range, pressed: Sequence[Press], until: float = float("inf")
) -> tuple[list[Seen], float]:
    """The states of some rows, and the seconds all of it takes.

    Args:
        screen: What was recorded.
        rows: Which rows.
        pressed: The keys; each is shown where it was pressed.
        until: Nothing that came later counts.
    """
    changes = [each for each in screen.history if each[1] in rows and each[0] < until]
    keys = [each for each in pressed if each.row in rows and each.at < until]
    clock = paced({at for at, _, _ in changes}, {key.at for key in keys})
    standing: dict[int, tuple[list[Cell], float]] = {}
    found: list[Seen] = []

    def change(at: float, row: int, cells: list[Cell]) -> None:
        old, since = standing.pop(row, ([], 0.0))
        if old == cells:
            standing[row] = (old, since)
            return
        if old and since < clock[at]:
            found.append(Seen(row - rows.start, old, since, clock[at]))
        if cells:
            standing[row] = (cells, clock[at])

    for at, row, what in sorted([*changes, *((k.at, k.row, k.keys) for k in keys)], key=_moment):
        if isinstance(what, str):
            prompt = standing.get(row, ([], 0.0))[0]
            gap = [] if prompt and prompt[-1][0] == " " else [(" ", ())]
            change(at, row, [*prompt, *gap, *((char, ("key",)) for char in what)])
        else:
            change(at, row, named(what))
    found += [
        Seen(row - rows.start, cells, since, None) for row, (cells, since) in standing.items()
    ]
    return found, max(clock.values())


def _moment(change: tuple[float, int, object]) -> float:
    return change[0]


def named(cells: Sequence[Cell]) -> list[Cell]:
    """A row in which the account that recorded it has the reader's name."""
    text, made, end = "".join(char for char, _ in cells), list[Cell](), 0
    for match in re.finditer(rf"\b{re.escape(account())}\b", text):
        made += cells[end : match.start()]
        made += [(char, cells[match.start()][1]) for char in READER]
        end = match.end()
    return [*made, *cells[end:]]


def paced(changes: set[float], keys: set[float]) -> dict[float, float]:
    """When each moment is shown: long waits cut, and time to read before a key."""
    clock, shown = 0.0, dict[float, float]()
    moments = sorted(changes | keys)
    for before, at in zip([moments[0], *moments], moments, strict=False):
        pause = min(max(at - before, SHORTEST), LONGEST)
        clock += READING if at in keys else PRESSED if before in keys else pause
        shown[at] = round(clock, 2)
    return shown


def runs(cells: Sequence[Cell]) -> Iterator[tuple[int, str, Style]]:
    """Words that stand together and have one style: column, text, style."""
    for match in _TOGETHER.finditer("".join(char for char, _ in cells)):
        start = match.start()
        for style, group in groupby(cells[start : match.end()], key=lambda cell: cell[1]):
            text = "".join(char for char, _ in group)
            yield start + len(text) - len(text.lstrip()), text.strip(), style
            start += len(text)


def draw(title: str, states: Sequence[Seen], seconds: float) -> str:
    """The picture."""
    tops, height = places(states)
    rules: dict[tuple[float, float | None], str] = {}
    drawn = list[str]()
    for each in sorted(states, key=lambda state: (state.row, state.since)):
        name = rules.setdefault((each.since, each.until), f"t{len(rules)}")
        drawn.append(f'<g class="{name}">{"".join(texts(each.cells, tops[each.row]))}</g>')
    width = 2 * MARGIN + COLUMNS * CELL
    return _PICTURE.format(
        title=escape(title),
        width=f"{width:g}",
        height=f"{_TOP + height * _LINE + MARGIN:g}",
        middle=f"{width / 2:g}",
        em=_EM,
        colours="".join(f".{name}{{fill:{value}}}" for name, value in _COLOURS.items()),
        rules="\n".join(rule(name, *when, seconds + STAND) for when, name in rules.items()),
        drawn="\n".join(drawn),
    )


def places(states: Iterable[Seen]) -> tuple[list[int], int]:
    """On which line each row begins, when long ones are broken; and how many lines that makes."""
    wanted: dict[int, int] = {}
    for each in states:
        wanted[each.row] = max(wanted.get(each.row, 1), -(-len(each.cells) // COLUMNS))
    tops, top = list[int](), 0
    for row in range(max(wanted) + 1):
        tops.append(top)
        top += wanted.get(row, 1)
    return tops, top


def texts(cells: Sequence[Cell], top: int) -> Iterator[str]:
    """A row as texts, each where it stands whatever font the viewer has."""
    for start in range(0, len(cells), COLUMNS):
        y = _TOP + (top + start // COLUMNS) * _LINE + _EM
        for column, text, style in runs(cells[start : start + COLUMNS]):
            x = MARGIN + column * CELL
            wide = f' textLength="{len(text) * CELL:g}"' if len(text) > 1 else ""
            named = f' class="{" ".join(style)}"' if style else ""
            yield f'<text x="{x:g}" y="{y:g}"{wide}{named}>{escape(text)}</text>'


def rule(name: str, since: float, until: float | None, total: float) -> str:
    """When something is seen; out of the animation, what is seen at the end."""
    if until is None and not since:
        return ""
    start, rest = 100 * since / total, "hidden" if until is not None else "visible"
    steps = f"0%{{visibility:hidden}}{start:.2f}%{{visibility:visible}}"
    if until is not None:
        steps += f"{100 * until / total:.2f}%{{visibility:hidden}}"
    return (
        f"@keyframes {name}{{{steps}}}"
        f".{name}{{visibility:{rest};animation:{name} {total:g}s step-end infinite}}"
    )


_PICTURE: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img">
<title>{title}</title>
<style>
text{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
font-size:{em}px;fill:#e6edf3}}
.bold{{font-weight:bold}}.dim{{opacity:.6}}.bar{{fill:#8b949e}}{colours}
{rules}
@media (prefers-reduced-motion:reduce){{g{{animation:none!important}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<circle cx="18" cy="17" r="5" fill="#ff7b72"/><circle cx="35" cy="17" r="5" fill="#e3b341"/>\
<circle cx="52" cy="17" r="5" fill="#7ee787"/>
<text x="{middle}" y="21" text-anchor="middle" class="bar">{title}</text>
{drawn}
</svg>
"""


def pictures(page: Path = PAGE) -> dict[str, str]:
    """Follows the page, and draws the demo and the second terminal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "my-agent"
        folder.mkdir()
        with Reader(folder, equip(Path(name))) as reader:
            reader.follow(page)
            first, watch = reader.terminal(MAIN), reader.terminal("watch")
            commands = [*first.typed, ("", len(first.screen.rows))]
            start = [command for command, _ in commands].index("lictor demo")
            rows = range(commands[start][1], commands[start + 1][1])
            demo = draw("lictor demo", *seen(first.screen, rows, first.pressed))
            rows = range(watch.typed[0][1], len(watch.screen.rows))
            shown = seen(watch.screen, rows, watch.pressed, watch.pressed[-1].at)  # q
            return {"demo": demo, "watch": draw("lictor watch", *shown)}


def main() -> None:
    """Writes the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (PICTURES / f"{name}.svg").write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/pictures/{name}.svg: {len(text.encode()) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
