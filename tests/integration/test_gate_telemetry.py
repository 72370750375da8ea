"""The gate tells the world exactly what it records, and only what the registry declares."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lictor.errors import Denied
from lictor.gate import Gate
from lictor.model import ToolCall
from lictor.telemetry import Telemetry
from lictor.testing import AGENT, USER, UnsafeAllowAll, gate_for, reviewed, tool_of

ROOT = Path(__file__).resolve().parents[2]
SECRET = "x"
READ = tool_of("look", {"at": {"type": "string"}})
PAY = tool_of("pay", {"to": {"type": "string"}, "amount": {"type": "integer"}})
STRANGE = tool_of("unreviewed_thing", {"at": {"type": "string"}})


def registry() -> Any:
    path = ROOT / "scripts" / "check_telemetry.py"
    spec = importlib.util.spec_from_file_location("check_telemetry", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Registry()


class World:
    """A gate whose telemetry ends in memory."""

    def __init__(self, folder: Path) -> None:
        self.spans, self.logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        self.tracers, self.loggers = TracerProvider(), LoggerProvider()
        self.meters = MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        known = [
            reviewed(READ),
            reviewed(PAY, "transfer", target=("to",), amount="amount", recordable=("amount",)),
        ]
        telemetry = Telemetry(
            self.tracers,
            self.meters,
            self.loggers,
            known_tools=frozenset({"local/look", "local/pay"}),
            capture_content=True,
        )
        self.gate: Gate = gate_for(folder, known, policy=UnsafeAllowAll(), telemetry=telemetry)

    def attempt(self, call: ToolCall, body: Callable[[dict[str, object]], object]) -> str:
        try:
            self.gate.run(call, body)
        except Denied as denied:
            return denied.code
        except RuntimeError:
            return "raised"
        return "ran"

    def events(self, name: str) -> list[Any]:
        records = [entry.log_record for entry in self.logs.get_finished_logs()]
        return [record for record in records if record.event_name == name]

    def metrics(self) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]

    def close(self) -> None:
        self.gate.close()
        for provider in (self.tracers, self.loggers, self.meters):
            provider.shutdown()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_AND_EVENT")
    made = World(tmp_path)
    yield made
    made.close()


def breaks(arguments: dict[str, object]) -> None:
    raise RuntimeError(SECRET)


def run_all(world: World) -> list[str]:
    """One attempt of each kind: read, effect, raising body, bad arguments, not reviewed."""
    with world.gate.task(agent=AGENT, on_behalf_of=USER, tools=["local/look", "local/pay"]):
        return [
            world.attempt(ToolCall(READ, {"at": SECRET}), lambda arguments: SECRET),
            world.attempt(ToolCall(PAY, {"to": SECRET, "amount": 3}, "h1"), lambda arguments: None),
            world.attempt(ToolCall(READ, {"at": SECRET}), breaks),
            world.attempt(ToolCall(READ, {"at": SECRET, "extra": SECRET}), breaks),
            world.attempt(ToolCall(STRANGE, {"at": SECRET}), breaks),
        ]


def test_each_attempt_is_one_record_one_span_one_event_one_count(world: World) -> None:
    ends = run_all(world)
    assert ends == ["ran", "ran", "raised", "input_invalid", "tool_unreviewed"]
    spans = world.spans.get_finished_spans()
    ids = [dict(span.attributes or {})["lictor.decision.id"] for span in spans]
    made = world.events("lictor.decision.made")
    assert len(set(ids)) == len(ids) == len(ends)
    assert [record.attributes["lictor.decision.id"] for record in made] == ids
    (counted,) = [metric for metric in world.metrics() if metric.name == "lictor.decisions"]
    assert sum(point.value for point in counted.data.data_points) == len(ends)
    ended = world.events("lictor.execution.finished")
    outcomes = [record.attributes["lictor.execution.outcome"] for record in ended]
    assert outcomes == ["done", "done", "failed"]
    assert [record.attributes["lictor.decision.id"] for record in ended] == ids[:3]
    places = [span.context.span_id for span in spans if span.context is not None]
    assert [record.span_id for record in made] == places
    assert [record.span_id for record in ended] == places[:3]


def test_all_that_the_gate_emits_is_declared(world: World) -> None:
    run_all(world)
    known = registry()
    problems = [p for span in world.spans.get_finished_spans() for p in known.span(span)]
    problems += [
        p for entry in world.logs.get_finished_logs() for p in known.event(entry.log_record)
    ]
    problems += [p for metric in world.metrics() for p in known.metric(metric)]
    assert problems == []


def test_with_both_consents_the_recordable_arguments_alone_are_told(world: World) -> None:
    run_all(world)
    key = "gen_ai.tool.call.arguments"
    told = [dict(span.attributes or {}).get(key) for span in world.spans.get_finished_spans()]
    assert told == [None, '{"amount": 3}', None, None, None]


def test_every_decision_event_says_where_the_journal_stands(world: World) -> None:
    run_all(world)
    heads = [record.attributes for record in world.events("lictor.decision.made")]
    assert all(len(told["lictor.record.head"]) >= 64 for told in heads)
    assert len({told["lictor.record.stream"] for told in heads}) == 1
    numbers = [told["lictor.record.seq"] for told in heads]
    assert numbers == sorted(numbers)


def test_telemetry_that_fails_in_every_part_changes_no_decision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("_tracer", "_logger", "_duration", "_describe"):
        monkeypatch.setattr(world.gate.telemetry, part, object())
    ends = run_all(world)
    assert ends == ["ran", "ran", "raised", "input_invalid", "tool_unreviewed"]
    assert world.spans.get_finished_spans() == ()
