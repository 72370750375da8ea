"""Follows a page of the documentation as its reader would.

* ```` ```LANG NAME ```` is written to the file NAME, `<!-- test NAME … -->` too, unseen.
* ```` ```diff NAME ```` changes it.
* ```` ```console ```` is a terminal, ```` ```console NAME ```` one more, which stays open: lines
  with `$ ` are typed into a shell, `‹y›` and `‹Enter›` are keys pressed when the text before them
  stands there, and all other lines must appear, in order and with nothing between them. `…` stands
  for anything within a line, and for any lines on a line of its own. `# exit N` at the end of a
  command says how it ends. A block without `$ ` goes on where the last one of its terminal stopped.
* `<!-- test-run COMMAND -->` runs a command in the first terminal.
* `alice` is whoever follows the page: his account.
"""

from __future__ import annotations

import re
import select
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from lictor.dev import account
from lictor.testing.seat import Seat
from screen import Screen

ROOT: Final = Path(__file__).parents[1]
SECONDS: Final = 60.0
COLUMNS: Final = 116
PROMPT: Final = "$ "
SKIP: Final = "…"
READER: Final = "alice"
MAIN: Final = ""
_SHELL: Final = ("/bin/bash", "--noprofile", "--norc", "--noediting", "-i")
_OWN: Final = ("pip", "setuptools", "__pycache__")
_CLEAN: Final = ("/usr/bin/env", "-i")
_KEY: Final = re.compile(r"‹([^›]+)›")
_KEYS: Final = {"Enter": "\r", "Ctrl-C": "\x03", "Backspace": "\x7f"}
_BLOCK: Final = re.compile(
    r"^```(?P<lang>[a-z]+)(?: (?P<name>[^\n]+))?\n(?P<text>.*?)^```$"
    r"|<!-- test (?P<file>[^\n]+)\n(?P<hidden>.*?)\n-->"
    r"|<!-- test-run (?P<run>[^\n]+) -->",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, or a hidden one."""

    lang: str
    name: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(source):
        line = source.count("\n", 0, found.start()) + 1
        if found["run"]:
            yield Block("console", "", f"$ {found['run']}\n{SKIP}\n", line)
        elif found["file"]:
            yield Block("file", found["file"], found["hidden"] + "\n", line)
        else:
            yield Block(found["lang"], found["name"] or "", found["text"], line)


def acted(page: Path) -> bool:
    """Whether a page presses keys, or needs more than one terminal."""
    return any(
        block.lang == "console" and (block.name or _KEY.search(block.text))
        for block in blocks(page)
    )


def matches(expected: str, line: str) -> bool:
    """Whether a line is what the page says."""
    parts = (re.escape(part) for part in expected.rstrip().split(SKIP))
    return re.fullmatch(".*?".join(parts), line) is not None


def changed(text: str, diff: str) -> str:
    """A text with a diff (no line numbers, hunks parted by `@@` lines) applied to it.

    Raises:
        AssertionError: What it changes does not stand there exactly once.
    """
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = [line for line in hunk.splitlines() if line]
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        assert text.count(before) == 1, f"not there, or more than once:\n{before}"
        text = text.replace(before, after)
    return text


def equip(folder: Path) -> Path:
    """Makes a clean virtual environment and our wheels, as a reader has them.

    Nothing is downloaded: what we depend on is lent from the running environment, all but lictor.

    Args:
        folder: Where: the wheels go to `lictor/dist`, as in a clone that lies there.

    Returns:
        The folder of the environment's commands.
    """
    wheels, lent = folder / "lictor/dist", folder / "lent"
    for package in ("core", "langchain"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=ROOT / "packages" / package, check=True, capture_output=True)  # noqa: S603
    lent.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith(_OWN) and "lictor" not in each.name and each.suffix != ".pth":
            (lent / each.name).symlink_to(each)
    venv.create(folder / "env", with_pip=True, symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
    return folder / "env/bin"


@dataclass(frozen=True)
class Press:
    """Keys pressed: when, on which row, which."""

    at: float
    row: int
    keys: str


@dataclass
class Terminal:
    """One terminal of the reader, with a shell in it.

    Attributes:
        typed: The commands, and the rows where they stand.
        pressed: The keys that were pressed.
    """

    seat: Seat
    screen: Screen
    pump: Callable[[], None]
    name: str
    place: int = 0
    skipping: bool = True
    running: bool = True
    prompts: int = 0
    command: str = ""
    where: str = ""
    typed: list[tuple[str, int]] = field(default_factory=list)
    pressed: list[Press] = field(default_factory=list)
    _held: tuple[int, str] = (-1, "")

    def act(self, block: Block, where: str) -> None:
        """Does what a block says, and compares what is shown."""
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            self.where = f"{where}:{number}"
            if line.startswith(PROMPT):
                self.finish()
                self.type(line.removeprefix(PROMPT))
            elif line.strip() == SKIP:
                self.skipping = True
            elif _KEY.search(line):
                self.press(line)
            elif line.strip():
                self.expect(line)

    def type(self, command: str) -> None:
        """Types a command at the shell's prompt."""
        self.command, self.running, self.prompts = command, True, len(self.screen.told)
        self.typed.append((command, self.screen.row))
        self.place, self.skipping = self.screen.row + 1, False
        self.seat.press(command.partition("  #")[0].rstrip() + "\r")

    def press(self, line: str) -> None:
        """Waits for the text before the keys, and presses them."""
        self.expect(_KEY.split(line)[0])
        keys = _KEY.findall(line)
        assert not _KEY.sub("", line[line.index("‹") :]).strip(), f"{self.where}: keys come last"
        self.pressed.append(Press(time.monotonic(), self.screen.row, " ".join(keys)))
        self.seat.press("".join(_KEYS.get(key, key) for key in keys))

    def expect(self, expected: str) -> None:
        """Waits for a line."""
        deadline = time.monotonic() + SECONDS
        while not self._found(expected):
            if time.monotonic() > deadline or self._at_prompt():
                self.fail(f"{expected!r} did not come")
            self.pump()
        self.skipping = False

    def finish(self) -> None:
        """Waits for the command to end, as the page says, with nothing more to show."""
        deadline = time.monotonic() + SECONDS
        while not self._at_prompt():
            if time.monotonic() > deadline:
                self.fail(f"{self.command!r} does not end")
            self.pump()
        if not self.running:
            return
        self.running = False
        lines = self.screen.lines()
        left = [line for line in lines[self._start(lines) : self.screen.row] if line]
        if left and not self.skipping:
            self.fail(f"{self.command!r} shows more: {left[0]!r}")
        told = self.command.partition("  # exit ")[2].split()
        wanted = told[0] if told else "0"
        if self.screen.told[-1] != wanted:
            self.fail(f"{self.command!r} ends with {self.screen.told[-1]}, not with {wanted}")

    def fail(self, problem: str) -> None:
        """Says what stands on the terminal instead."""
        raise AssertionError(f"{self.where}: {problem}")

    def _at_prompt(self) -> bool:
        return not self.running or len(self.screen.told) > self.prompts

    def _start(self, lines: list[str]) -> int:
        row, text = self._held
        still = row == self.place and row < len(lines) and lines[row].startswith(text)
        return self.place + still

    def _found(self, expected: str) -> bool:
        lines = self.screen.lines()
        for row in range(self._start(lines), len(lines)):
            last = row == self.screen.row
            if matches(expected, lines[row]):
                self.place = row if last else row + 1
                self._held = (row, lines[row]) if last else (-1, "")
                return True
            if lines[row] and not last and not self.skipping:
                self.fail(f"{lines[row]!r} instead of {expected!r}")
        return False


class Reader:
    """Somebody who follows a page.

    Args:
        folder: Where he stands.
        programs: Folder of the commands he has.
        env: More environment.
    """

    def __init__(self, folder: Path, programs: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.terminals: dict[str, Terminal] = {}
        self._env = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "TERM": "xterm",
            "PS1": r"\e]$?\a$ ",
            "HOME": str(folder.parent),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **(env or {}),
        }

    def follow(self, page: Path) -> None:
        """Does everything that a page says.

        Raises:
            AssertionError: It is not so; says where.
        """
        try:
            for block in blocks(page):
                self.do(block, page.name)
            self.finish()
        except AssertionError as error:
            for _ in range(20):
                self._pump()  # what comes a moment later says more
            for terminal in self.terminals.values():
                shown = "\n".join(terminal.screen.lines())
                error.add_note(f"--- terminal {terminal.name or 'first'}\n{shown}")
            raise

    def do(self, block: Block, where: str) -> None:
        """Does what one block says."""
        block = replace(block, text=re.sub(rf"\b{READER}\b", account(), block.text))
        if block.lang == "console":
            self.terminal(block.name).act(block, where)
        elif block.name:
            if MAIN in self.terminals:
                self.terminals[MAIN].finish()
            path = self.folder / block.name
            text = block.text
            if block.lang == "diff":
                text = changed(path.read_text(encoding="utf-8"), block.text)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        """Everything that was started has ended."""
        for terminal in self.terminals.values():
            terminal.finish()

    def terminal(self, name: str) -> Terminal:
        """A terminal, opened when it is first named."""
        if name not in self.terminals:
            screen = Screen()
            seat = Seat(
                (*_CLEAN, *(f"{key}={value}" for key, value in self._env.items()), *_SHELL),
                columns=COLUMNS,
                hear=lambda data: screen.feed(data, time.monotonic()),
                cwd=self.folder,
            )
            self.terminals[name] = Terminal(seat, screen, self._pump, name)
        return self.terminals[name]

    def _pump(self) -> None:
        """Takes what any of the terminals shows, waiting a little for it."""
        masters = {each.seat.master: each.seat for each in self.terminals.values()}
        for master in select.select([*masters], [], [], 0.05)[0]:
            masters[master].look()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for terminal in self.terminals.values():
            terminal.seat.close()


if __name__ == "__main__":
    with Reader(Path.cwd(), Path(sys.executable).parent) as reader:
        reader.follow(Path(sys.argv[1]).resolve())
