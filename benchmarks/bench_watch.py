"""How long a person waits: for a call after his key, and to see a decision in `lictor watch`.

Each in processes of their own, on pseudo-terminals. Goals: a key releases its call within 100 ms,
a decision is on the screen within 300 ms at 500 decisions a second, and none is left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write

from lictor.catalog import lock, note, read_seen
from lictor.testing import tool_of
from lictor.testing.seat import Seat

ROUNDS, RATE, SECONDS = 30, 500, 6
SETTINGS = """\
[agents.bot]
owner = "alice"
[users.alice]
[tasks.open]
tools = ["look", "pay"]
"""
CATALOG = """\
[[tool]]
server = "local"
name = "look"
impact = "read"
recordable = ["n"]
[[tool]]
server = "local"
name = "pay"
impact = "transfer"
target = ["to"]
recordable = ["to"]
"""
SHAPES = """
import sys, time
from lictor import Gate, ToolCall
from lictor.approval.terminal import AtTerminal, Terminal
from lictor.testing import tool_of
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of("pay", {"to": {"type": "string"}}, required=["to"])
def body(args):
    print("AT", time.time_ns(), flush=True)
"""
TASK = """
with gate, gate.task("open", agent="bot", on_behalf_of="alice", session="s"):
"""
ASKS = (
    TASK
    + """
    for n in range(int(sys.argv[2])):
        gate.run(ToolCall(PAY, {"to": f"{sys.argv[3]}{n}"}), body)
"""
)
READS = (
    TASK
    + """
    rate, seconds = int(sys.argv[2]), int(sys.argv[3])
    begun, times = time.monotonic(), []
    for n in range(rate * seconds):
        while time.monotonic() - begun < n / rate: time.sleep(0.0005)
        gate.run(ToolCall(LOOK, {"n": n}), bool)
        times.append(time.time_ns())
print("\\n".join(map(str, times)))
"""
)
AT_TERMINAL = 'gate = Gate.from_file(sys.argv[1], approvals=AtTerminal(Terminal(), "me"))'
WATCHED = "gate = Gate.from_file(sys.argv[1])"
MAIN = "from lictor.cli import main; main()"


def project(folder: Path) -> Path:
    path = folder / "lictor.toml"
    path.write_text(SETTINGS)
    (folder / "catalog.toml").write_text(CATALOG)
    tools = [
        tool_of("look", {"n": {"type": "integer"}}),
        tool_of("pay", {"to": {"type": "string"}}, required=["to"]),
    ]
    note(folder / ".lictor/seen.json", tools)
    seen = read_seen(folder / ".lictor/seen.json")
    lock(folder / "catalog.toml", folder / "catalog.lock", seen, accept=seen)
    return path


def at_terminal(path: Path) -> list[float]:
    """Milliseconds from key to body, at the program's own terminal."""
    code = SHAPES + AT_TERMINAL + ASKS
    found = []
    with Seat([sys.executable, "-c", code, str(path), str(ROUNDS), "t"]) as seat:
        for number in range(ROUNDS):
            seat.until(f'"t{number}"')
            seat.until("[y/N] ")
            pressed = time.time_ns()
            seat.press("y")
            seat.until("AT ")
            found.append((int(seat.until("\n")) - pressed) / 1e6)
        seat.rest()
    return found


def at_watch(path: Path) -> list[float]:
    """The same, answered in `lictor watch`."""
    code = SHAPES + WATCHED + ASKS
    found = []
    with Seat([sys.executable, "-c", MAIN, "watch", "-p", str(path)]) as seat:
        seat.until("running: none")
        argv = [sys.executable, "-c", code, str(path), str(ROUNDS), "w"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            for number in range(ROUNDS):
                seat.until(f'"w{number}"')
                seat.until("[y/n] ")
                pressed = time.time_ns()
                seat.press("y")
                found.append((int(program.stdout.readline().split()[1]) - pressed) / 1e6)
    return found


def shown(path: Path) -> tuple[list[float], int]:
    """Milliseconds from decision to screen at the rate, and how many never came."""
    code = SHAPES + WATCHED + READS
    seen: dict[int, int] = {}
    rest = [""]

    def hear(data: bytes) -> None:
        at, text = time.time_ns(), rest[0] + data.decode("utf-8", "replace")
        whole, _, rest[0] = text.rpartition("\n")
        for number in re.findall(r" n=(\d+) ", whole):
            seen.setdefault(int(number), at)

    argv = [sys.executable, "-c", MAIN, "watch", "-p", str(path), "--last", "0"]
    with Seat(argv, hear=hear, columns=200) as seat:
        seat.until("running: none")
        argv = [sys.executable, "-c", code, str(path), str(RATE), str(SECONDS)]
        with tempfile.TemporaryFile("w+") as out, subprocess.Popen(argv, stdout=out) as program:
            seat.until("task ended", seconds=SECONDS + 60)
            program.wait()
            out.seek(0)
            times = [int(line) for line in out]
    return [(seen[n] - at) / 1e6 for n, at in enumerate(times) if n in seen], sum(
        n not in seen for n in range(len(times))
    )


def high(values: list[float]) -> float:
    """The 99th percentile, or the largest of few."""
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = project(Path(folder).resolve())
        terminal, watch = at_terminal(path), at_watch(path)
        screen, missing = shown(path)
    figures = {
        "key_terminal_median_ms": sorted(terminal)[len(terminal) // 2],
        "key_terminal_max_ms": max(terminal),
        "key_watch_median_ms": sorted(watch)[len(watch) // 2],
        "key_watch_max_ms": max(watch),
        "shown_median_ms": sorted(screen)[len(screen) // 2],
        "shown_p99_ms": high(screen),
        "shown_max_ms": max(screen),
        "decisions": float(len(screen) + missing),
    }
    for name, value in figures.items():
        print(f"watch: {name} = {value:.1f}")
    ratios = {
        "key_terminal_of_100_ms": max(terminal) / 100,
        "key_watch_of_100_ms": max(watch) / 100,
        "shown_of_300_ms": high(screen) / 300,
        "left_out": float(missing),
    }
    goals = dict.fromkeys(ratios, "<= 1")
    return 0 if write("watch", figures, ratios, {**goals, "left_out": "<= 0"}) else 1


if __name__ == "__main__":
    sys.exit(main())
