"""What a terminal would show, kept row by row, with the moments at which rows changed.

Knows what our commands use: text, line ends, backspace, colours, erasing, moving the cursor within
what was written. Rows are as long as what was written into them, and none is ever lost above.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

Style = tuple[str, ...]
"""`bold`, `dim`, or the name of a colour; sorted."""
Cell = tuple[str, Style]

_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_TOKEN = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b[=>78]"
    r"|(?P<control>[\r\n\b\a])"
    r"|(?P<text>[^\x1b\r\n\b\a]+)"
)
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?\Z")


@dataclass
class Screen:
    """A terminal without a lower end.

    Attributes:
        rows: What stands there.
        history: (moment, row, cells) of every row whenever it had changed.
        told: What programs told the terminal aside (OSC strings), which is not shown.
    """

    rows: list[list[Cell]] = field(default_factory=lambda: [[]])
    history: list[tuple[float, int, list[Cell]]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    row: int = 0
    column: int = 0
    _style: set[str] = field(default_factory=set)
    _rest: str = ""
    _decode: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _changed: set[int] = field(default_factory=set)

    def lines(self) -> list[str]:
        """The rows as text."""
        return ["".join(char for char, _ in row).rstrip() for row in self.rows]

    def feed(self, data: bytes, at: float) -> None:
        """Takes what a program wrote."""
        text = self._rest + self._decode.decode(data)
        begun = _BEGUN.search(text)
        self._rest = begun[0] if begun else ""
        for token in _TOKEN.finditer(text[: len(text) - len(self._rest)]):
            self._take(token)
        for row in sorted(self._changed):
            cells = list(self.rows[row]) if row < len(self.rows) else []
            self.history.append((at, row, cells))
        self._changed.clear()

    def _take(self, token: re.Match[str]) -> None:
        if token["text"]:
            for char in token["text"]:
                self._put(char)
        elif token["osc"] is not None:
            self.told.append(token["osc"])
        elif token["final"]:
            self._sequence(token["final"], [int(n) for n in re.findall(r"\d+", token["args"])])
        elif token["control"] == "\n":
            self._go(self.row + 1)
        elif token["control"] == "\r":
            self.column = 0
        elif token["control"] == "\b":
            self.column = max(self.column - 1, 0)

    def _put(self, char: str) -> None:
        row = self.rows[self.row]
        row.extend([(" ", ())] * (self.column - len(row)))
        row[self.column : self.column + 1] = [(char, tuple(sorted(self._style)))]
        self.column += 1
        self._changed.add(self.row)

    def _go(self, row: int) -> None:
        while len(self.rows) <= row:
            self.rows.append([])
        self.row = row

    def _sequence(self, final: str, args: list[int]) -> None:
        first = args[0] if args else 0
        if final == "m":
            for code in args or [0]:
                self._render(code)
        elif final in "JK":
            if first == 2:
                raise ValueError("a screen that clears itself cannot be shown as rows")
            del self.rows[self.row][self.column :]
            self._changed.add(self.row)
            if final == "J":
                self._changed |= set(range(self.row + 1, len(self.rows)))
                del self.rows[self.row + 1 :]
        elif final == "A":
            self.row = max(self.row - max(first, 1), 0)
        elif final == "G":
            self.column = max(first, 1) - 1

    def _render(self, code: int) -> None:
        if code == 0:
            self._style.clear()
        elif code in (1, 2):
            self._style.add({1: "bold", 2: "dim"}[code])
        elif code == 22:
            self._style -= {"bold", "dim"}
        elif 30 <= code <= 37 or 90 <= code <= 97 or code == 39:
            self._style -= set(_COLOURS)
            if code != 39:
                self._style.add(_COLOURS[code % 10])
