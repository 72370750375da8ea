"""telemetry.yaml is the one list of names: what is generated is current, what is emitted fits."""

from __future__ import annotations

import ast
import copy
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

import lictor
from lictor import telemetry_names
from lictor.errors import PERMIT, REFUSALS
from lictor.model import (
    Assurance,
    Decision,
    Enforcement,
    Impact,
    Kind,
    Mode,
    Outcome,
    Pep,
    Principal,
    ToolKey,
    Verdict,
    ulid,
)
from lictor.telemetry import Decided, Executed, Telemetry

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(lictor.__file__).parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def registry() -> Any:
    return script("check_telemetry").Registry()


def test_generated_files_are_current() -> None:
    for path, text in script("generate_docs").generated().items():
        assert (ROOT / path).read_text("utf-8") == text, f"run scripts/generate_docs.py: {path}"


def test_the_check_notices_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = script("generate_docs")
    for path, text in generate.generated().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 0
    (tmp_path / "docs/errors.md").write_text("old", "utf-8")
    assert generate.main(["--check"]) == 1
    assert "docs/errors.md is not current" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_registry_is_sound(registry: Any) -> None:
    assert registry.lint() == []


def test_the_lint_sees_a_name_that_is_a_namespace_and_a_label_that_may_not_be(
    registry: Any,
) -> None:
    broken = copy.deepcopy(registry)
    broken.attributes["lictor.decision"] = {"key": "lictor.decision", "type": "string"}
    broken.metrics["lictor.decisions"]["attributes"].append(
        {"ref": "lictor.call.id", "requirement_level": "required"}
    )
    problems = "\n".join(broken.lint())
    assert "lictor.decision is a name and also the namespace of lictor.decision.id" in problems
    assert "metric lictor.decisions is labelled with lictor.call.id" in problems


def test_reasons_are_those_of_the_table_of_refusals(registry: Any) -> None:
    reasons = registry.values("lictor.decision.reason")
    assert set(reasons) == {PERMIT, *REFUSALS}
    assert len(reasons) == len(set(reasons))


def test_error_types_are_the_refusals_that_are_failures(registry: Any) -> None:
    failures = {code for code, refusal in REFUSALS.items() if refusal.failure}
    assert set(registry.values("error.type")) == failures


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lictor.decision.verdict", Verdict),
        ("lictor.decision.enforcement", Enforcement),
        ("lictor.execution.outcome", Outcome),
        ("lictor.mode", Mode),
        ("lictor.assurance", Assurance),
        ("lictor.principal.kind", Kind),
    ],
)
def test_enums_are_those_of_the_model(registry: Any, key: str, words: type[Any]) -> None:
    assert registry.values(key) == [word.value for word in words]


def test_impacts_are_those_of_the_model(registry: Any) -> None:
    items = registry.attributes["lictor.tool.impact"]["annotations"]["items"]
    assert items == sorted(impact.value for impact in Impact)


def test_names_shared_with_upstream_are_upstreams() -> None:
    upstream = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    assert telemetry_names.GEN_AI_TOOL_NAME == upstream.GEN_AI_TOOL_NAME
    assert telemetry_names.GEN_AI_TOOL_CALL_ID == upstream.GEN_AI_TOOL_CALL_ID
    assert telemetry_names.GEN_AI_TOOL_CALL_ARGUMENTS == upstream.GEN_AI_TOOL_CALL_ARGUMENTS
    assert telemetry_names.GEN_AI_CONVERSATION_ID == upstream.GEN_AI_CONVERSATION_ID


# -- live check -----------------------------------------------------------------------------------


def full(reason: str, verdict: Verdict, enforcement: Enforcement, **rest: Any) -> Decided:
    """A decision with everything filled in that can be."""
    made = Decision(
        ulid(),
        ulid(),
        ToolKey("local", "refund"),
        verdict,
        enforcement,
        reason,
        "No.",
        ("a", "b"),
        ("confirm:user",) if verdict is Verdict.ASK else (),
        final=verdict is Verdict.DENY,
    )
    now = time.time_ns()
    values = {
        "pep": Pep("langchain", "client"),
        "started_ns": now - 1000,
        "ended_ns": now,
        "impact": frozenset(Impact),
        "registered": True,
        "pin": "sha256:" + "a" * 64,
        "input_digest": "hmac-sha256:k1:ab",
        "principal": Principal(Kind.AGENT, "banker", "acme"),
        "user": "hmac-sha256:k1:cd",
        "task": ulid(),
        "grant": ulid(),
        "tenant": "acme",
        "depth": 2,
        "assurance": "asserted",
        "host_call_id": "call_1",
        "conversation": "thread-1",
        "engine": "cedar",
        "policy_digest": "sha256:" + "d" * 64,
        "hit": True,
        "stream": ulid(),
        "seq": 4,
        "head": "e" * 64,
        "failure": reason != PERMIT and REFUSALS[reason].failure,
        "channels": ("terminal",),
        "arguments": {"amount": 3},
    }
    return Decided(made, **(values | rest))


def test_all_that_is_emitted_is_declared(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_AND_EVENT")
    spans, logs, reader = (
        InMemorySpanExporter(),
        InMemoryLogRecordExporter(),
        InMemoryMetricReader(),
    )
    tracers, loggers, meters = TracerProvider(), LoggerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    known = frozenset({"local/refund"})
    telemetry = Telemetry(tracers, meters, loggers, known_tools=known, capture_content=True)
    run = [full(PERMIT, Verdict.ALLOW, Enforcement.PROCEED)]
    run += [full(code, Verdict.DENY, Enforcement.BLOCK) for code in REFUSALS]
    run += [
        full("no_permit", Verdict.DENY, Enforcement.OBSERVE),
        full("ask_required", Verdict.ASK, Enforcement.SUSPEND),
        full("tool_unknown", Verdict.DENY, Enforcement.BLOCK, registered=False),
        full("grant_scope", Verdict.DENY, Enforcement.BLOCK, pep=Pep("elsewhere", "sideways")),
        Decided(run[0].decision),
    ]
    for event in run:
        ids = telemetry.decided(event)
    for outcome in Outcome:
        telemetry.executed(
            Executed(ulid(), ulid(), ToolKey("local", "refund"), outcome, 7, True, ids)
        )
    telemetry.degraded("full")
    telemetry.alarm()
    with telemetry.remote.received("tools/call", "notes", {}, link=True):
        with telemetry.remote.sent("tools/call", "notes"):
            pass

    finished, records = spans.get_finished_spans(), logs.get_finished_logs()
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    problems = [problem for span in finished for problem in registry.span(span)]
    problems += [p for record in records for p in registry.event(record.log_record)]
    problems += [problem for metric in metrics for problem in registry.metric(metric)]
    assert problems == []
    assert len(finished) == len(run) + 2
    assert {record.log_record.event_name for record in records} == set(registry.events)
    assert {metric.name for metric in metrics} == set(registry.metrics)
    seen = {key for span in finished for key in span.attributes or {}}
    seen |= {key for record in records for key in record.log_record.attributes or {}}
    assert seen == set(registry.attributes), "every attribute was seen at least once"
    for provider in (tracers, loggers, meters):
        provider.shutdown()


def test_the_live_check_sees_each_kind_of_fault(registry: Any) -> None:
    good = {
        "openinference.span.kind": "GUARDRAIL",
        "gen_ai.tool.name": "refund",
        "lictor.tool.server": "local",
        "lictor.decision.id": ulid(),
        "lictor.decision.verdict": "deny",
        "lictor.decision.enforcement": "block",
        "lictor.decision.reason": "no_permit",
        "lictor.call.id": "C1",
        "lictor.pep.kind": "function",
        "lictor.pep.side": "client",
        "lictor.placement": "p0",
        "lictor.mode": "enforce",
    }

    def span(name: str = "authorize refund", status: Status | None = None, **told: Any) -> Any:
        attributes = {k: v for k, v in (good | told).items() if v is not None}
        return SimpleNamespace(
            name=name,
            kind=SpanKind.INTERNAL,
            status=status or Status(),
            attributes=attributes,
            events=[],
        )

    assert registry.span(span()) == []
    faults = [
        span("authorize other"),
        span("execute_tool refund"),
        span(status=Status(StatusCode.ERROR)),
        span(**{"lictor.decision.reason": "because"}),
        span(**{"lictor.decision.id": "7"}),
        span(**{"lictor.decision.id": None}),
        span(**{"lictor.secret": "x"}),
        span(**{"lictor.delegation.depth": 1}),
        span(**{"lictor.policy.ids": tuple("abcdefghi")}),
        span(**{"lictor.tool.impact": ("explode",)}),
        span(**{"gen_ai.conversation.id": "a\x1b"}),
        span(**{"gen_ai.conversation.id": "a" * 257}),
        span(**{"lictor.decision.final": "yes"}),
    ]
    assert [len(registry.span(fault)) for fault in faults] == [1] * len(faults)


# -- what is imported -----------------------------------------------------------------------------


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_only_telemetry_imports_opentelemetry() -> None:
    importers = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(name.split(".")[0] == "opentelemetry" for name in imports(path))
    }
    elsewhere = {path for path in importers if not path.startswith(("demo/", "telemetry"))}
    assert not elsewhere
    assert "telemetry.py" in importers


def test_only_the_names_module_spells_a_name(registry: Any) -> None:
    names = {*registry.attributes, *registry.events, *registry.metrics}
    names = {name for name in names if name.startswith("lictor.")}
    for path in SOURCE.glob("telemetry*.py"):
        if path.name != "telemetry_names.py":
            tree = ast.walk(ast.parse(path.read_text("utf-8")))
            texts = {node.value for node in tree if isinstance(node, ast.Constant)}
            assert not names & texts, path.name


def fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_SETUP = """
import sys, time
from lictor.model import Decision, Enforcement, ToolKey, Verdict, ulid
from lictor.telemetry import Decided, Telemetry
key = ToolKey("local", "refund")
made = Decision(ulid(), ulid(), key, Verdict.DENY, Enforcement.BLOCK, "no_permit", "No.")
event = Decided(made, registered=True, started_ns=time.time_ns() - 1, ended_ns=time.time_ns())
telemetry = Telemetry(known_tools=frozenset({"local/refund"}))
"""


def test_the_api_alone_is_enough() -> None:
    code = "import sys; sys.modules['opentelemetry.sdk'] = None\n" + _SETUP
    code += "print(telemetry.decided(event)); print('opentelemetry.sdk.trace' in sys.modules)"
    assert fresh(code) == "Ids(trace_id='', span_id='', flags=0)\nFalse\n"


def test_providers_set_after_the_gate_was_built_are_used() -> None:
    code = (
        _SETUP
        + """
telemetry.decided(event)
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
provider = TracerProvider(); provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
loggers = LoggerProvider(); loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
_logs.set_logger_provider(loggers)
metrics.set_meter_provider(MeterProvider([reader]))
telemetry.decided(event)
Telemetry(known_tools=frozenset({"local/refund"})).decided(event)
data = reader.get_metrics_data()
found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
counted = sum(p.value for m in found if m.name == "lictor.decisions" for p in m.data.data_points)
print(len(spans.get_finished_spans()), len(logs.get_finished_logs()), counted)
"""
    )
    assert fresh(code) == "2 2 3\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_counts_can_count() -> None:
    code = (
        _SETUP
        + """
import os, signal, threading
from lictor.telemetry_tally import LOCK
held, forking = threading.Event(), threading.Event()
def count():
    with LOCK:
        held.set()
        forking.wait()
thread = threading.Thread(target=count)
thread.start()
held.wait()
os.register_at_fork(before=forking.set)  # runs before the hooks that were registered earlier
child = os.fork()
if child == 0:
    signal.alarm(10)
    telemetry.decided(event)
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
"""
    )
    assert fresh(code) == "0\n"
