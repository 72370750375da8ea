"""Attacks by way of telemetry: what leaks, what is believed, what the environment switches on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from lictor.errors import Denied
from lictor.gate import Gate
from lictor.model import Decision, Enforcement, Principal, ToolCall, Verdict, ulid
from lictor.telemetry import Decided, Telemetry
from lictor.testing import AGENT, USER, DenyAll, UnsafeAllowAll, gate_for, reviewed, tool_of

CANARY = "canary-51c9"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LOOK = tool_of("look", {"at": {"type": "string"}})
CALL = ToolCall(LOOK, {"at": CANARY})


class Outside:
    """Everything that an exporter would see."""

    def __init__(self) -> None:
        self.spans, self.logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        self.tracers, self.loggers = TracerProvider(), LoggerProvider()
        self.meters = MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))

    def telemetry(self) -> Telemetry:
        known = frozenset({"local/look"})
        return Telemetry(self.tracers, self.meters, self.loggers, known_tools=known)

    def exported(self) -> str:
        data = self.reader.get_metrics_data()
        assert data is not None
        spans, logs = self.spans.get_finished_spans(), self.logs.get_finished_logs()
        assert spans
        assert logs
        return "".join(
            [*(s.to_json() for s in spans), *(e.to_json() for e in logs), data.to_json()]
        )


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    for provider in (made.tracers, made.loggers, made.meters):
        provider.shutdown()


def breaks(arguments: dict[str, object]) -> None:
    raise RuntimeError(f"{CANARY} in an exception")


def attempts(gate: Gate) -> None:
    """A result, an exception, refused arguments and an unknown tool, each with the canary in it."""
    with gate, gate.task(agent=AGENT, on_behalf_of=USER):
        assert gate.run(CALL, lambda arguments: arguments["at"]) == CANARY
        with pytest.raises(RuntimeError):
            gate.run(CALL, breaks)
        for call in (
            ToolCall(LOOK, {"at": CANARY, CANARY: 1}),
            ToolCall(tool_of(CANARY, {"at": {"type": "string"}}), {"at": CANARY}),
        ):
            with pytest.raises(Denied):
                gate.run(call, breaks)


@pytest.mark.attack("X64")
def test_no_argument_result_name_or_exception_text_gets_out(
    outside: Outside, tmp_path: Path
) -> None:
    known = [reviewed(LOOK)]
    attempts(gate_for(tmp_path, known, policy=UnsafeAllowAll(), telemetry=outside.telemetry()))
    assert len(outside.spans.get_finished_spans()) == 4
    assert CANARY not in outside.exported()
    assert USER not in outside.exported(), "a user is a pseudonym"


@pytest.mark.attack("X71")
@pytest.mark.parametrize("wish", ["SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT", "true"])
def test_the_environment_alone_does_not_open_the_arguments(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setenv(CAPTURE, wish)
    telemetry = outside.telemetry()
    known = [reviewed(LOOK, recordable=("at",))]
    attempts(gate_for(tmp_path, known, policy=UnsafeAllowAll(), telemetry=telemetry))
    made = Decision(
        ulid(), ulid(), LOOK.key, Verdict.ALLOW, Enforcement.PROCEED, "permit", "", ("unsafe",)
    )
    telemetry.decided(Decided(made, registered=True, arguments={"at": CANARY}))
    assert CANARY not in outside.exported()


@pytest.mark.attack("X71")
def test_exporter_variables_set_by_the_agent_start_no_exporter() -> None:
    """Lictor configures no provider, so there is nothing that these variables could redirect."""
    code = """
import socket
def refuse(*a, **k): raise SystemExit("a connection was tried")
socket.socket.connect = refuse
from opentelemetry import trace
from lictor.model import Decision, Enforcement, ToolKey, Verdict, ulid
from lictor.telemetry import Decided, Telemetry
made = Decision(
    ulid(), ulid(), ToolKey("local", "look"), Verdict.DENY, Enforcement.BLOCK, "no_permit", ""
)
Telemetry().decided(Decided(made))
print(type(trace.get_tracer_provider()).__name__)
"""
    variables = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ProxyTracerProvider\n"), done.stderr


@pytest.mark.attack("X33")
def test_traceparent_and_baggage_are_no_identity(outside: Outside, tmp_path: Path) -> None:
    asked: list[tuple[Principal, ...]] = []

    class Policy(DenyAll):
        def evaluate(self, query):  # type: ignore[no-untyped-def]
            asked.append(query.chain)
            return super().evaluate(query)

    gate = gate_for(tmp_path, [reviewed(LOOK)], policy=Policy(), telemetry=outside.telemetry())
    remote = NonRecordingSpan(SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1)))
    forged = set_span_in_context(remote)
    for name, value in (
        ("enduser.id", "root"),
        ("lictor.decision.verdict", "allow"),
        ("lictor.task.id", "somebody-elses"),
    ):
        forged = baggage.set_baggage(name, value, forged)
    with gate, gate.task(agent=AGENT, on_behalf_of=USER):
        token = context.attach(forged)
        try:
            with pytest.raises(Denied, match="not permitted"):
                gate.run(CALL, breaks)
        finally:
            context.detach(token)
    (span,) = outside.spans.get_finished_spans()
    assert [principal.id for principal in asked[0]] == [USER, AGENT]
    assert span.context is not None
    assert span.context.trace_id == 7, "the trace context correlates, and that is all"
    assert dict(span.attributes or {})["lictor.decision.verdict"] == "deny"
    assert "root" not in outside.exported()
    assert "somebody-elses" not in outside.exported()
