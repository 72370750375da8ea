"""What a guarded LangChain call costs beside a bare one, measured inside `tool.invoke`.

Run: `python benchmarks/bench_langchain.py`. The real store, Cedar with `starter@1`, and a batch
span processor whose exporter drops everything. Bare and guarded calls take turns in one run, so
that all meet the same machine and the same cold caches; the figures are medians.

Every chain has two principals at least, the user and the agent. "One principal" is therefore what
the same call costs when the policy engine is asked about the user only.
"""

from __future__ import annotations

import contextvars
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from langchain import agents
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from lictor.gate import Gate
from lictor.ports import Answer, Query
from lictor.telemetry import Telemetry
from lictor_langchain import create_agent, guard
from lictor_langchain.testing import ScriptedModel, calls, gate_over, known

sys.path.insert(0, str(Path(__file__).parent))
from common import write

PATH = "/data/notes.txt"
WARM, ROUNDS, RUNS = 200, 1_500, 60
LIMIT = """
@id("limit") @reason("too many")
forbid (principal, action == Lictor::Action::"local/{name}", resource)
when {{ context.input has n && context.input.n > 1000000000 }};
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


@tool
def read_file(path: str, n: int = 0) -> str:
    """Reads a file."""
    return path


@tool
def fresh_read(path: str, n: int = 0) -> str:
    """Reads a file; the policy looks at `n`."""
    return path


@tool
def adjust(item: int, amount: int) -> str:
    """Changes a payment."""
    return "ok"


def gate_in(folder: Path, provider: TracerProvider, only_user: bool = False) -> Gate:
    """A gate over a store of its own."""
    folder.mkdir()
    gate = gate_over(
        folder,
        [known(read_file), known(fresh_read), known(adjust, "transfer", target=("item",))],
        cedar=LIMIT.format(name="fresh_read"),
        telemetry=Telemetry(tracer_provider=provider),
    )
    if only_user:
        stages = gate._pipeline.stages
        object.__setattr__(stages, "policy", OnlyTheUser(stages.policy))
    return gate


def timed(call: Callable[[], object], expected: object = None) -> int:
    """Nanoseconds; what was measured must have been the real thing."""
    start = time.perf_counter_ns()
    result = call()
    spent = time.perf_counter_ns() - start
    if expected is not None and result != expected:
        raise SystemExit(f"measured something else: {result!r}")
    return spent


def single(two: Gate, one: Gate) -> dict[str, float]:
    """Medians of single calls, in microseconds."""
    memo, fresh, alone = guard(read_file, two), guard(fresh_read, two), guard(fresh_read, one)
    spent: dict[str, list[int]] = {"bare": [], "memo": [], "fresh": [], "alone": []}
    with two.task(agent="bot", on_behalf_of="alice", session="s"):
        other = one.task(agent="bot", on_behalf_of="alice", session="s")
        enter(other)
        for n in range(WARM + ROUNDS):
            given = {"path": PATH, "n": n}
            spent["bare"].append(timed(partial(read_file.invoke, given), PATH))
            spent["memo"].append(timed(partial(memo.invoke, given), PATH))
            spent["fresh"].append(timed(partial(fresh.invoke, given), PATH))
            with other.here():
                spent["alone"].append(timed(partial(alone.invoke, given), PATH))
        other.end()
    return {name: statistics.median(each[WARM:]) / 1000 for name, each in spent.items()}


def enter(task: Any) -> None:
    """Begins a task beside the current one, in a context of its own."""
    contextvars.Context().run(task.__enter__)


SCRIPT = [
    ("read_file", {"path": "landlord-notices.txt"}),
    ("read_file", {"path": "transactions"}),
    ("adjust", {"item": 7, "amount": 1100}),
    ("read_file", {"path": "scheduled"}),
    ("adjust", {"item": 7, "amount": 1200}),
]
GO = {"messages": [("user", "Adjust my rent.")]}
TOOLS = [read_file, adjust]


def script(run: int) -> ScriptedModel:
    """A model that makes the five calls."""
    return ScriptedModel(script=[calls(each, ids=[f"r{run}-{n}"]) for n, each in enumerate(SCRIPT)])


def finish(agent: Any) -> None:
    """Runs an agent; every call must have been allowed."""
    answered = [m for m in agent.invoke(GO)["messages"] if isinstance(m, ToolMessage)]
    if [m.status for m in answered] != ["success"] * len(SCRIPT):
        raise SystemExit(f"measured something else: {answered}")


def whole(gate: Gate) -> dict[str, float]:
    """Medians of five-call agent runs, in milliseconds."""
    spent: dict[str, list[int]] = {"bare_run": [], "guarded_run": []}
    limits = {"adjust": {"item": 7, "amount": {"min": 0, "max": 5000}}}
    for run in range(RUNS):
        bare = agents.create_agent(script(run), TOOLS)
        safe = create_agent(script(run), TOOLS, gate=gate)
        spent["bare_run"].append(timed(partial(bare.invoke, GO)))
        with gate.task(
            agent="bot",
            on_behalf_of="alice",
            session=f"run-{run}",
            tools=["read_file", "adjust"],
            limits=limits,
        ):
            spent["guarded_run"].append(timed(partial(finish, safe)))
    return {name: statistics.median(each[5:]) / 1_000_000 for name, each in spent.items()}


def main() -> int:
    """Measures and writes; 1 if a goal was missed."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two, one = gate_in(folder / "two", provider), gate_in(folder / "one", provider, True)
        gc.collect()
        gc.freeze()
        us, ms = single(two, one), whole(two)
        two.close()
        one.close()
    provider.shutdown()
    met = write(
        "langchain",
        {
            **{f"{key}_us": value for key, value in us.items()},
            **{f"{k}_ms": v for k, v in ms.items()},
        },
        {
            "memo_hit": us["memo"] / us["bare"],
            "fresh_one_principal": us["alone"] / us["bare"],
            "fresh_agent_and_user": us["fresh"] / us["bare"],
            "five_call_run": ms["guarded_run"] / ms["bare_run"],
        },
        {
            "memo_hit": "<= 1.7",
            "fresh_one_principal": "<= 2.4",
            "fresh_agent_and_user": "<= 2.7",
            "five_call_run": "<= 1.25",
        },
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
