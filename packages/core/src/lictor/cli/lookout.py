"""The screen of `lictor watch`: what happens scrolls by, a question or the state stands below.

Rules enforced here:

1. A key counts for what stood on the screen when it was pressed: what was typed before a question
   stood is dropped, and so are several keys at once.
2. A question is answered through the store, by compare-and-set: of two watchers one answers.
3. Whatever a record or a call holds is made visible before it is shown.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lictor.approval import ask_of, confirm_lines, digest_of, settle
from lictor.approval.desk import CONFIRM, EDITED, Seal, seal
from lictor.approval.render import fitted, full_lines, is_cut
from lictor.approval.tty import Tty
from lictor.cli.tail import Running, Tail, event, line
from lictor.errors import LictorError
from lictor.forms import visible
from lictor.model import Assurance
from lictor.ports import AskRow, Entry, PutTask, Reply, Store, TaskIs

TICK: Final = 0.03
REFRESH: Final = 1.0
"""Seconds between looks at which tasks run and which asks have run out."""
SOON: Final = 0.2
"""The same when a task has begun or ended."""
COMMIT_SECONDS: Final = 10.0
KEPT: Final = 10_000
"""Decisions that `e` can still name."""
HELP: Final = (
    "  y, n      answer the question that stands (v shows long arguments whole)",
    "  !         end a running task: nothing more of it runs, and its questions are withdrawn",
    "  e         explain a decision: its number and Enter, or just Enter for the last denial",
    "  q         stop watching; questions are then denied with: run: lictor watch",
)


@dataclass(slots=True)
class Lookout:
    """One person who watches, at one terminal.

    Attributes:
        tty: The terminal, in key mode.
        store: Where answers go.
        tail: Where records come from.
        key: Seals answers.
        by: Who sits here, as far as the operating system knows.
        title: The project, for the state.
        explain: Prints why a decision was taken, given its id.
        colour: Whether verdicts have colours.
    """

    tty: Tty
    store: Store
    tail: Tail
    key: Seal
    by: str
    title: str
    explain: Callable[[str], None]
    colour: bool = True
    _number: int = 0
    _decisions: OrderedDict[int, str] = field(default_factory=OrderedDict)
    _denied: int = 0
    _asks: tuple[AskRow, ...] = ()
    _running: list[Running] = field(default_factory=list)
    _looked: float = 0.0
    _stale: bool = False
    _ask: AskRow | None = None
    _shown: str = ""
    _prompt: str = ""
    _refused: set[str] = field(default_factory=set)
    _mode: str = ""
    _typed: str = ""
    _choice: list[Running] = field(default_factory=list)
    _pages: list[str] = field(default_factory=list)
    _below: str = ""

    def run(self) -> None:
        """Watches until `q`.

        Raises:
            NoTerminal: The terminal has gone.
            StoreError: The store cannot be read.
        """
        try:
            while True:
                if self.tty.again():
                    self._below = ""
                self._look()
                keys = self.tty.keys(TICK)
                if keys == ["q"] and not self._mode:
                    return
                self._pressed(keys)
        finally:
            self._write("\r\x1b[J")

    # -- what happens

    def _look(self) -> None:
        now = time.monotonic()
        moved = self.tail.moved()
        due = now - self._looked >= (SOON if self._stale else REFRESH)
        if moved or due:  # before the records: none of what led to a question comes after it
            self._asks = self._open_asks()
        if moved:
            self._show(filter(None, map(self._line, self.tail.new())))
        if due:
            self._looked, self._stale = now, False
            self._running = self.tail.running(time.time())
        self._next_ask()
        self._show(())

    def _line(self, body: Mapping[str, Any]) -> str:
        if body.get("kind") != "decision":
            self._stale = self._stale or body.get("kind") == "task"
            return event(body)
        self._number += 1
        self._decisions[self._number] = str(body.get("id", ""))
        if len(self._decisions) > KEPT:
            self._decisions.popitem(last=False)
        if body.get("verdict") != "allow":
            self._denied = self._number
        return line(self._number, body, colour=self.colour)

    def _open_asks(self) -> tuple[AskRow, ...]:
        """What can be answered here; what has run out is written down as that."""
        found, now = [], time.time()
        for row in self.store.asks():
            if now >= row.expires:
                over = Reply("expired", row.id, channel="watch")
                with contextlib.suppress(LictorError, Late):
                    settle(self.store, row, over, self.key, now)
            elif set(row.kinds) == {CONFIRM}:
                found.append(row)
        return tuple(found)

    def _next_ask(self) -> None:
        """Takes back a question that is over, and puts the next one."""
        open_ids = {row.id for row in self._asks}
        if self._ask is not None and self._ask.id not in open_ids:
            stored = self.store.ask(self._ask.id)
            how = "gone" if stored is None else stored.state
            how = "answered elsewhere: granted" if how in ("granted", "used") else how
            self._drop(f"  ({visible(self._ask.tool)}: the question is over: {how})")
        waiting = [row for row in self._asks if row.id not in self._refused]
        if self._ask is None and waiting and not self._mode:
            self._put(waiting[0])

    def _put(self, row: AskRow) -> None:
        if row.mac != seal(self.key, row):
            self._refused.add(row.id)
            self._show((f"  (a question about {visible(row.tool)} is not shown: {EDITED})",))
            return
        ask = ask_of(row)
        lines = confirm_lines(ask)
        self._ask, self._shown = row, digest_of(lines)
        view = ", [v]iew all" if is_cut(ask) else ""
        what = f"{visible(str(ask.tool))} for {visible(ask.user)}"
        self._prompt = f"{what}: run exactly this call? [y/n{view}]"
        rows = fitted(lines, self.tty.size().columns)
        self._write("\r\x1b[J" + "".join(f"{each}\n" for each in rows))
        self._below = ""
        self.tty.forget()

    def _drop(self, *words: str) -> None:
        self._ask = None
        self._asks = ()
        if self._mode == "pages":
            self._mode = ""
        self._looked = 0.0
        self._show(words)

    # -- keys

    def _pressed(self, keys: list[str]) -> None:
        if self._mode == "explain":
            for key in keys:
                self._type(key)
            return
        if not keys:
            return
        if len(keys) > 1 and keys[1:] != ["\n"] and set(keys) != {"!"}:
            self._show(("  (one key at a time)",))
            return
        key = keys[0].lower()
        if self._mode == "end":
            self._chosen(key)
        elif self._mode == "pages":
            self._page("" if key == "q" else key)
        else:
            self._command(key)

    def _command(self, key: str) -> None:
        if key in ("y", "n") and self._ask is not None:
            self._answer(self._ask, "granted" if key == "y" else "rejected")
        elif key == "v" and self._ask is not None:
            pages = full_lines(ask_of(self._ask)) or confirm_lines(ask_of(self._ask))
            self._pages = fitted(pages, self.tty.size().columns)
            self._mode = "pages"
            self._page("\n")
        elif key == "!":
            self._begin_end()
        elif key == "e":
            self._mode, self._typed = "explain", ""
        elif key == "?":
            self._show(HELP)

    def _answer(self, row: AskRow, state: str) -> None:
        dev = row.request.get("assurance") == Assurance.DEV.value
        assurance = Assurance.DEV.value if dev else Assurance.ASSERTED.value
        reply = Reply(state, row.id, self.by, "watch", assurance, self._shown)
        try:
            first = settle(self.store, row, reply, self.key, time.time())
        except (LictorError, Late) as error:
            self._show((f"  not written: {visible(str(error)) or 'the store is too slow'}",))
            return
        self._drop(*(() if first else ("  (somebody else was first)",)))

    def _page(self, key: str) -> None:
        size = max(self.tty.size().lines - 2, 5)
        shown, self._pages = (self._pages[:size], self._pages[size:]) if key else ((), [])
        if not self._pages:
            self._mode = ""
        self._show(shown)

    def _type(self, key: str) -> None:
        if key.isascii() and key.isdigit() and len(self._typed) < 9:
            self._typed += key
        elif key in ("\x7f", "\b"):
            self._typed = self._typed[:-1]
        elif key == "\n":
            number = int(self._typed or self._denied)
            self._mode = ""
            self._explain(number)
        elif key in ("\x1b", "q"):
            self._mode = ""

    def _explain(self, number: int) -> None:
        decision = self._decisions.get(number)
        if decision is None:
            known = "nothing was denied yet" if not number else f"there is no line {number}"
            self._show((f"  ({known})",))
            return
        self._write("\r\x1b[J")
        self._below = ""
        self.explain(decision)

    # -- ending a task

    def _begin_end(self) -> None:
        self._choice = self.tail.running(time.time())[-9:]
        if not self._choice:
            self._show(("  (no task is running)",))
        elif len(self._choice) == 1:
            self._end(self._choice[0])
        else:
            named = enumerate(self._choice, 1)
            self._show(f"  {n}  {task.name}  {task.who}  {task.id}" for n, task in named)
            self._mode = "end"

    def _chosen(self, key: str) -> None:
        self._mode = ""
        if key.isascii() and key.isdigit() and 0 < int(key) <= len(self._choice):
            self._end(self._choice[int(key) - 1])
        else:
            self._show(("  (no task was ended)",))

    def _end(self, task: Running) -> None:
        try:
            ended = end_task(self.store, task.id, self.by)
        except (LictorError, Late) as error:
            self._show((f"  not ended: {visible(str(error)) or 'the store is too slow'}",))
            return
        self._looked = 0.0
        word = "ended" if ended else "was over already"
        self._show((f"  (task {task.name} ({task.who}) {word})",))

    # -- the screen

    def _state(self) -> str:
        if self._mode == "explain":
            last = f"Enter for {self._denied}" if self._denied else "Enter: back"
            return f"explain which line? ({last}) {self._typed}"
        if self._mode == "end":
            return f"end which task? [1-{len(self._choice)}, any other key: none] "
        if self._mode == "pages":
            return f"-- {len(self._pages):,} more lines: [Enter] next, [q] back -- "
        if self._ask is not None:
            more = f" ({len(self._asks) - 1} more wait)" if len(self._asks) > 1 else ""
            return f"{self._prompt}{more} "
        count = Counter(task.name for task in self._running)
        tasks = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in count.items()) or "none"
        return f"{self.title}  running: {tasks}  asks: {len(self._asks)}  [?] help [q] quit "

    def _show(self, lines: Iterable[str]) -> None:
        """Writes lines above the state, which stays at the bottom."""
        columns = self.tty.size().columns
        text = "".join(f"{each}\n" for each in lines)
        state = self._state()
        below = state if len(state) < columns else f"{state[: columns - 2]}… "
        if text or below != self._below:
            self._write(f"\r\x1b[J{text}{below}")
            self._below = below

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = self.tty.write(data)


def end_task(store: Store, task: str, by: str) -> bool:
    """Ends a running task, whichever process runs it, with a record that says who did.

    Returns:
        Whether it was still running.

    Raises:
        StoreError: It cannot be written.
    """
    row = store.task(task)
    if row is None or row.state != "running":
        return False
    body = {
        "state": "ended",
        "by": by,
        "channel": "watch",
        "template": row.grant.get("template", ""),
        "grant": dict(row.grant),
    }
    at = int(time.time() * 1_000_000)
    entry = Entry("task", at, body, tenant=row.tenant, task=row.id, verdict="ended")
    writes = (PutTask(replace(row, state="ended", calls=0, spent=0)),)
    done = store.commit((TaskIs(row.id),), writes, (entry,), durable=True)
    return done.result(COMMIT_SECONDS).moved is None
