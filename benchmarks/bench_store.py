"""The effect transaction beside a bare write+fdatasync on the same disk, and group commit.

`python benchmarks/bench_store.py` measures on the disk as it is, then again with a shim that adds
2 ms to every flush (where a C compiler is present), and writes `build/bench/store.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import common

from lictor.ports import (
    BudgetFits,
    CallIsNew,
    CallRow,
    Committed,
    Entry,
    GrowSession,
    PutTask,
    RevisionIs,
    SessionIs,
    SettleCall,
    StartCall,
    TaskIs,
    TaskRow,
)
from lictor.store import SqlStore, open_store

HERE = Path(__file__).resolve().parent
ROUNDS = 12
EACH = 40
THREADS = 32
BODY = {
    "decision": "01J00000000000000000000000",
    "chain": ["user:acme/alice", "agent:acme/banker"],
    "policies": ["starter.read", "tasks.adjust-rent", "rules.rent"],
    "input": {"amount": "sha256:" + "0" * 64, "recipient": "sha256:" + "1" * 64},
    "catalog": "sha256:" + "2" * 64,
    "policy": "sha256:" + "3" * 64,
}


def effect(store: SqlStore, number: int, conversation: str = "c") -> None:
    """One whole effect: what the gate commits before a body starts, and the settle after it."""
    start(store, number, conversation)
    settle(store, number)


def start(store: SqlStore, number: int, conversation: str = "c") -> None:
    """The durable commit: five guards, two writes, the decision record."""
    call, digest = f"C{number:026d}", f"hmac:{number:064x}"
    entry = Entry(
        "decision", number, BODY, call, "acme", "T", "local/pay", verdict="allow", code="permit"
    )
    done = store.commit(
        (
            RevisionIs(0),
            TaskIs("T"),
            SessionIs("acme", conversation, growth=0),
            CallIsNew(call, digest, "acme", conversation),
            BudgetFits("T", 1, 5, 10**9, 10**12),
        ),
        (
            StartCall(CallRow(call, "started", digest, "local/pay", "T", "D"), "acme", "c", 5),
            GrowSession("acme", conversation, calls=1, effects=1, spent=5),
        ),
        (entry,),
        durable=True,
    ).result(30)
    if done.moved is not None:
        raise SystemExit(f"a guard moved: {done}")


def settle(store: SqlStore, number: int) -> Future[Committed]:
    """The relaxed commit: the call's state and the outcome record."""
    call = f"C{number:026d}"
    outcome = Entry("outcome", number, {"ms": 3}, call, "acme", "T", "local/pay", verdict="done")
    return store.commit((), (SettleCall(call, "done"),), (outcome,), durable=False)


def bare(file: int, line: bytes) -> None:
    """What nobody can do without: one write and one flush."""
    os.write(file, line)
    os.fdatasync(file)


def p50(work: Callable[[int], object], count: int, after: Callable[[int], object]) -> float:
    """Median of single runs, in µs.

    What comes `after` each is handed over unmeasured; the settle of one effect then rides with the
    next one's transaction, as it does under a gate.
    """
    taken = []
    for number in range(count):
        begun = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - begun) * 1e6)
        after(number)
    return statistics.median(taken)


def rate(store: SqlStore, threads: int, each: int, base: int) -> float:
    """Effects per second with so many callers at once."""
    gate = threading.Barrier(threads + 1)

    def caller(n: int) -> None:
        gate.wait()
        for number in range(each):
            effect(store, base + n * each + number, f"c{n}")

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(threads)]
    for one in callers:
        one.start()
    gate.wait()
    start = time.perf_counter()
    for one in callers:
        one.join()
    return threads * each / (time.perf_counter() - start)


def measure() -> dict[str, float]:
    """All figures of one disk, the compared ones in turns so that they share the weather."""
    with tempfile.TemporaryDirectory(dir=common.BUILD) as folder:
        store = open_store(Path(folder) / "state" / "lictor.db")
        task = TaskRow("T", "running", "acme", "c", {"tools": ["local/pay"]})
        store.commit((), (PutTask(task),), durable=True).result(30)
        file = os.open(Path(folder) / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        line = json.dumps(BODY).encode().ljust(668) + b"\n"
        bares, effects = [], []
        for turn in range(ROUNDS):
            base = turn * EACH
            bares.append(p50(lambda _: bare(file, line), EACH, after=lambda _: None))
            effects.append(
                p50(
                    lambda n, base=base: start(store, base + n),  # type: ignore[misc]
                    EACH,
                    after=lambda n, base=base: settle(store, base + n),  # type: ignore[misc]
                )
            )
        ones, many = [], []
        for turn in range(3):
            ones.append(rate(store, 1, 400, (turn + 1) * 1_000_000))
            many.append(rate(store, THREADS, 60, (turn + 1) * 1_000_000 + 500_000))
        os.close(file)
        store.close()
    return {
        "bare_us": statistics.median(bares),
        "effect_us": statistics.median(effects),
        "one_thread_per_s": statistics.median(ones),
        "threads_32_per_s": statistics.median(many),
    }


def with_shim() -> dict[str, float] | None:
    """The same in a process whose flushes take 2 ms longer, or `None` without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory(dir=common.BUILD) as folder:
        shim = Path(folder) / "shim.so"
        source = HERE / "fsync_shim.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        done = subprocess.run(
            [sys.executable, __file__, "--figures"],
            env={**os.environ, "LD_PRELOAD": str(shim)},
            check=True,
            stdout=subprocess.PIPE,
        )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> int:
    """Measures, writes, and says whether the goals were met."""
    common.BUILD.mkdir(parents=True, exist_ok=True)
    if "--figures" in sys.argv:
        json.dump(measure(), sys.stdout)
        return 0
    plain, slow = measure(), with_shim()
    figures = dict(plain)
    ratios = {
        "effect_over_bare": plain["effect_us"] / plain["bare_us"],
        "threads_32_over_1": plain["threads_32_per_s"] / plain["one_thread_per_s"],
    }
    goals = {"effect_over_bare": "<= 2.0", "threads_32_over_1": ">= 2.5"}
    if slow is not None:
        figures |= {f"{key}_2ms": value for key, value in slow.items()}
        ratios["effect_over_bare_2ms"] = slow["effect_us"] / slow["bare_us"]
        ratios["threads_32_over_1_2ms"] = slow["threads_32_per_s"] / slow["one_thread_per_s"]
        goals |= {"effect_over_bare_2ms": "<= 1.3", "threads_32_over_1_2ms": ">= 8.0"}
    return 0 if common.write("store", figures, ratios, goals) else 1


if __name__ == "__main__":
    sys.exit(main())
