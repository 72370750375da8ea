"""What a guarded LlamaIndex call costs beside a bare one, measured inside `tool.call`.

Run: `python benchmarks/bench_llamaindex.py`. The real store, Cedar with `starter@1`, and a batch
span processor whose exporter drops everything. Bare and guarded calls take turns in one run, so
that all meet the same machine; the figures are medians. A bare call validates nothing.

"One principal" is what a call costs when the policy engine is asked about the user only.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from lictor.gate import Gate
from lictor.ports import Answer, Query
from lictor.telemetry import Telemetry
from lictor.testing import gate_for
from lictor_llamaindex import guard, guard_agent
from lictor_llamaindex.testing import Script, calls, known

sys.path.insert(0, str(Path(__file__).parent))
from common import write

PATH = "/data/notes.txt"
WARM, ROUNDS, RUNS, CALLS = 200, 1_500, 30, 20
LIMIT = """
@id("limit") @reason("too many")
forbid (principal, action == Lictor::Action::"local/fresh_read", resource)
when { context.input has n && context.input.n > 1000000000 };
"""


class Dropping(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Any) -> SpanExportResult:
        """Drops."""
        return SpanExportResult.SUCCESS


class OnlyTheUser:
    """Asks an engine about the first principal alone."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.blocking = engine.blocking
        self.engine = engine.engine
        self.reads = engine.reads
        self.could_allow = engine.could_allow

    def evaluate(self, query: Query) -> Answer:
        """Asks."""
        return self._engine.evaluate(replace(query, chain=query.chain[:1]))  # type: ignore[no-any-return]


def read_file(path: str, n: int = 0) -> str:
    """Reads a file."""
    return path


def fresh_read(path: str, n: int = 0) -> str:
    """Reads a file; the policy looks at `n`."""
    return path


def gate_in(folder: Path, provider: TracerProvider, only_user: bool = False) -> Gate:
    """A gate over a store of its own."""
    folder.mkdir()
    gate = gate_for(
        folder,
        [known(read_file), known(fresh_read)],
        cedar=LIMIT,
        telemetry=Telemetry(tracer_provider=provider),
    )
    if only_user:
        stages = gate._pipeline.stages
        object.__setattr__(stages, "policy", OnlyTheUser(stages.policy))
    return gate


def timed(call: Callable[[], Any]) -> int:
    """Nanoseconds; what was measured must have been the real thing."""
    start = time.perf_counter_ns()
    result = call()
    spent = time.perf_counter_ns() - start
    if result.content != PATH:
        raise SystemExit(f"measured something else: {result!r}")
    return spent


def single(two: Gate, one: Gate) -> dict[str, float]:
    """Medians of single calls, in microseconds."""
    bare = FunctionTool.from_defaults(read_file)
    fresh_tool = FunctionTool.from_defaults(fresh_read)
    memo, fresh = guard(bare, two), guard(fresh_tool, two)
    alone = guard(fresh_tool, one)
    spent: dict[str, list[int]] = {"bare": [], "memo": [], "fresh": [], "alone": []}
    with two.task(agent="bot", on_behalf_of="alice", session="s"):
        other = one.task(agent="bot", on_behalf_of="alice", session="s")
        contextvars.Context().run(other.__enter__)
        for n in range(WARM + ROUNDS):
            given = {"path": PATH, "n": n}
            spent["bare"].append(timed(partial(bare.call, **given)))
            spent["memo"].append(timed(partial(memo.call, **given)))
            spent["fresh"].append(timed(partial(fresh.call, **given)))
            with other.here():
                spent["alone"].append(timed(partial(alone.call, **given)))
        other.end()
    return {name: statistics.median(each[WARM:]) / 1000 for name, each in spent.items()}


def agent(run: int) -> FunctionAgent:
    """One whose model makes twenty calls, one a turn."""
    turns = [
        calls(("read_file", {"path": PATH, "n": n}), ids=[f"r{run}-{n}"]) for n in range(CALLS)
    ]
    return FunctionAgent(tools=[read_file], llm=Script(*turns).model())


async def finish(made: FunctionAgent) -> int:
    """Runs an agent; every call must have been allowed."""
    start = time.perf_counter_ns()
    done = await made.run("Read.", max_iterations=CALLS + 5)
    spent = time.perf_counter_ns() - start
    if [each.tool_output.is_error for each in done.tool_calls] != [False] * CALLS:
        raise SystemExit(f"measured something else: {done.tool_calls}")
    return spent


async def whole(gate: Gate) -> dict[str, float]:
    """Medians of agent runs, in milliseconds."""
    spent: dict[str, list[int]] = {"bare_run": [], "guarded_run": []}
    for run in range(RUNS):
        spent["bare_run"].append(await finish(agent(run)))
        safe = guard_agent(agent(run), gate)
        with gate.task(agent="bot", on_behalf_of="alice", session=f"run-{run}"):
            spent["guarded_run"].append(await finish(safe))
    return {name: statistics.median(each[5:]) / 1_000_000 for name, each in spent.items()}


def main() -> int:
    """Measures and writes; 1 if a goal was missed."""
    warnings.simplefilter("ignore")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two, one = gate_in(folder / "two", provider), gate_in(folder / "one", provider, True)
        gc.collect()
        gc.freeze()
        us, ms = single(two, one), asyncio.run(whole(two))
        two.close()
        one.close()
    provider.shutdown()
    met = write(
        "llamaindex",
        {
            **{f"{key}_us": value for key, value in us.items()},
            **{f"{k}_ms": v for k, v in ms.items()},
        },
        {
            "memo_hit": us["memo"] / us["bare"],
            "fresh_one_principal": us["alone"] / us["bare"],
            "fresh_agent_and_user": us["fresh"] / us["bare"],
            "twenty_call_run": ms["guarded_run"] / ms["bare_run"],
        },
        {
            "memo_hit": "<= 3",
            "fresh_one_principal": "<= 4.5",
            "fresh_agent_and_user": "<= 5.5",
            "twenty_call_run": "<= 1.15",
        },
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
