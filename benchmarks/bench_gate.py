"""What the gate costs a process: import time, and memory over many calls.

Import time is the best of several fresh interpreters, less that of an empty one. Memory is the
resident set after a warm-up and after 100,000 guarded reads and 2,000 guarded effects.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write

from lictor import ToolCall
from lictor.testing import gate_for, reviewed, tool_of

READS, EFFECTS = 100_000, 2_000


def imported(statement: str) -> float:
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        best = min(best, time.perf_counter() - started)
    return best


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory() -> tuple[float, float, float]:
    look = tool_of("look", {"n": {"type": "integer"}})
    pay = tool_of("pay", {"to": {"type": "string"}}, required=["to"])
    known = [reviewed(look), reviewed(pay, "transfer", target=("to",))]
    tasks = {"t": {"tools": ["look", "pay"], "limits": {"pay": {"to": {"equals": "bob"}}}}}
    with tempfile.TemporaryDirectory() as folder:
        with gate_for(Path(folder).resolve(), known, settings={"tasks": tasks}) as gate:
            with gate.task("t", agent="bot", on_behalf_of="alice", session="s"):

                def work(reads: int, effects: int, tag: str) -> None:
                    for n in range(reads):
                        gate.run(ToolCall(look, {"n": n}), lambda args: args)
                        if n % 1000 == 0:  # let the writer keep up: reads are buffered
                            while not gate.store.healthy or _waiting(gate):
                                time.sleep(0.001)
                    for n in range(effects):
                        gate.run(ToolCall(pay, {"to": "bob"}, f"{tag}{n}"), lambda args: args)

                work(10_000, 500, "warm")
                before = resident_mb()
                started = time.perf_counter()
                work(READS, EFFECTS, "c")
                took = time.perf_counter() - started
                return before, resident_mb(), took


def _waiting(gate: object) -> bool:
    pending = getattr(gate.store, "pending", 0)  # type: ignore[attr-defined]
    return bool(pending > 1000) if isinstance(pending, int) else False


def main() -> None:
    empty = imported("pass")
    lictor = imported("import lictor") - empty
    before, after, took = memory()
    write(
        "gate",
        {
            "import_ms": lictor * 1000,
            "rss_before_mb": before,
            "rss_after_mb": after,
            "calls_per_second": (READS + EFFECTS) / took,
        },
        {"import_ms": lictor * 1000, "rss_growth": after / before},
        {"import_ms": "<= 150", "rss_growth": "<= 1.1"},
    )


if __name__ == "__main__":
    main()
