"""Rules of lictor.telemetry: what is emitted, where it hangs, and what can never get out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import StatusCode

from lictor.model import (
    Decision,
    Enforcement,
    Impact,
    Kind,
    Mode,
    Outcome,
    Principal,
    ToolKey,
    Verdict,
    ulid,
)
from lictor.telemetry import Decided, Executed, Ids, Telemetry, keep_denied

TOOLS = frozenset({"local/refund", "payments/refund"})
KEY = ToolKey("local", "refund")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Rig:
    """Own providers with in-memory ends, and a Telemetry on top."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, **options: Any) -> None:
        self.spans_out, self.logs_out = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.tracers, self.loggers = TracerProvider(sampler=sampler), LoggerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_out))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs_out))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        options.setdefault("known_tools", TOOLS)
        self.telemetry = Telemetry(self.tracers, self.meters, self.loggers, **options)

    def spans(self) -> list[ReadableSpan]:
        return [s for s in self.spans_out.get_finished_spans() if s.name.startswith("authorize")]

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def events(self, name: str = "lictor.decision.made") -> list[Any]:
        records = [entry.log_record for entry in self.logs_out.get_finished_logs()]
        return [record for record in records if record.event_name == name]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = [s for r in data.resource_metrics for s in r.scope_metrics] if data else []
        metrics = [m for s in scopes for m in s.metrics if m.name == name]
        return [point for metric in metrics for point in metric.data.data_points]

    def total(self, name: str = "lictor.decisions") -> int:
        return sum(point.value for point in self.points(name))

    def everything(self) -> str:
        data = self.reader.get_metrics_data()
        return "".join(
            [
                *(span.to_json() for span in self.spans_out.get_finished_spans()),
                *(entry.to_json() for entry in self.logs_out.get_finished_logs()),
                data.to_json() if data else "",
            ]
        )

    def close(self) -> None:
        self.tracers.shutdown()
        self.loggers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def decision(
    verdict: Verdict = Verdict.DENY, reason: str = "no_permit", key: ToolKey = KEY, **rest: Any
) -> Decision:
    enforcement = Enforcement.PROCEED if verdict is Verdict.ALLOW else Enforcement.BLOCK
    return Decision(ulid(), ulid(), key, verdict, enforcement, reason, "No.", **rest)


def decided(made: Decision | None = None, **rest: Any) -> Decided:
    now = time.time_ns()
    rest = {"registered": True, "started_ns": now - 50_000, "ended_ns": now} | rest
    return Decided(decision() if made is None else made, **rest)


ALLOW = (Verdict.ALLOW, "permit")


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


class TestSpan:
    def test_one_span_per_decision_is_made_after_it_and_ended(self, rig: Rig) -> None:
        event = decided()
        ids = rig.telemetry.decided(event)
        span = rig.span()
        assert span.name == "authorize refund"
        assert (span.start_time, span.end_time) == (event.started_ns, event.ended_ns)
        assert told(span)["openinference.span.kind"] == "GUARDRAIL"
        assert told(span)["lictor.decision.id"] == event.decision.id
        assert span.context is not None
        assert ids == Ids(
            f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", ids.flags
        )

    @pytest.mark.parametrize(
        ("verdict", "reason", "failure"),
        [
            (Verdict.ALLOW, "permit", False),
            (Verdict.DENY, "grant_scope", False),
            (Verdict.ASK, "ask_required", False),
            (Verdict.DENY, "policy_error", True),
        ],
    )
    def test_status_is_an_error_only_if_the_gate_could_not_decide(
        self, rig: Rig, verdict: Verdict, reason: str, failure: bool
    ) -> None:
        rig.telemetry.decided(decided(decision(verdict, reason), failure=failure))
        span = rig.span()
        assert span.status.status_code is (StatusCode.ERROR if failure else StatusCode.UNSET)
        assert told(span).get("error.type") == (reason if failure else None)
        assert not span.events

    def test_a_user_is_a_pseudonym_even_when_the_user_acts(self, rig: Rig) -> None:
        alice = Principal(Kind.USER, "alice@example.org", "acme")
        rig.telemetry.decided(decided(principal=alice, user="hmac-sha256:k1:ab"))
        assert told(rig.span())["lictor.user.id"] == "hmac-sha256:k1:ab"
        assert "alice" not in rig.everything()

    def test_it_is_never_current(self, rig: Rig) -> None:
        rig.telemetry.decided(decided())
        assert trace.get_current_span() is trace.INVALID_SPAN

    def test_strings_are_cut_and_lose_control_characters_and_arrays_are_cut(self, rig: Rig) -> None:
        made = decision(policies=tuple(f"p{n}" for n in range(20)))
        nasty = "a\x1b[31m\u202e\ud800\n" + "b" * 900
        rig.telemetry.decided(decided(made, conversation=nasty))
        seen = told(rig.span())
        assert seen["gen_ai.conversation.id"] == "a[31m" + "b" * 251
        assert seen["lictor.policy.ids"] == tuple(f"p{n}" for n in range(8))


class TestParent:
    def test_the_hosts_current_span(self, rig: Rig) -> None:
        with rig.tracers.get_tracer("host").start_as_current_span("step") as host:
            assert rig.telemetry.current().span_id == f"{host.get_span_context().span_id:016x}"
            rig.telemetry.decided(decided())
        span = rig.span()
        assert span.parent is not None
        assert span.parent.span_id == host.get_span_context().span_id

    def test_nobodys_span_makes_a_trace_of_its_own(self, rig: Rig) -> None:
        rig.telemetry.decided(decided())
        assert rig.span().parent is None
        assert rig.telemetry.current() == Ids()

    def test_openinference_spans_are_found_though_they_are_never_current(self, rig: Rig) -> None:
        from langchain_core.tools import StructuredTool
        from openinference.instrumentation.langchain import LangChainInstrumentor

        def refund(amount: int) -> str:
            assert not trace.get_current_span().get_span_context().is_valid
            rig.telemetry.decided(decided(decision(*ALLOW)))
            return str(amount)

        tool = StructuredTool.from_function(refund, description="Refunds.")
        instrumentor = LangChainInstrumentor()
        instrumentor.instrument(tracer_provider=rig.tracers)
        try:
            tool.invoke({"amount": 1})
        finally:
            instrumentor.uninstrument()
        (theirs,) = [s for s in rig.spans_out.get_finished_spans() if s.name == "refund"]
        span = rig.span()
        assert theirs.context is not None
        assert span.parent is not None
        assert span.parent.span_id == theirs.context.span_id
        assert told(theirs)["lictor.decision.id"] == told(span)["lictor.decision.id"]
        tool.invoke({"amount": 1})
        assert rig.spans()[-1].parent is None, "the instrumentation is off again"

    def test_a_tool_span_of_the_host_is_marked_and_its_status_left_alone(self, rig: Rig) -> None:
        made = decision(policies=("starter.no-send",))
        tracer = rig.tracers.get_tracer("host")
        kind = {"gen_ai.operation.name": "execute_tool"}
        with tracer.start_as_current_span("execute_tool refund", attributes=kind):
            rig.telemetry.decided(decided(made))
        (theirs,) = [s for s in rig.spans_out.get_finished_spans() if s.name.startswith("execute")]
        assert told(theirs) == kind | {
            "lictor.decision.verdict": "deny",
            "lictor.decision.id": made.id,
            "lictor.policy.ids": ("starter.no-send",),
        }
        assert theirs.status.status_code is StatusCode.UNSET

    def test_another_span_of_the_host_is_not_touched(self, rig: Rig) -> None:
        with rig.tracers.get_tracer("host").start_as_current_span("plan"):
            rig.telemetry.decided(decided())
        (theirs,) = [s for s in rig.spans_out.get_finished_spans() if s.name == "plan"]
        assert told(theirs) == {}


class TestEvents:
    def test_it_carries_the_spans_ids_and_where_the_journal_stands(self, rig: Rig) -> None:
        event = decided(stream="01S", seq=17, head="ab" * 32)
        ids = rig.telemetry.decided(event)
        (record,) = rig.events()
        assert f"{record.trace_id:032x}{record.span_id:016x}" == ids.trace_id + ids.span_id
        assert record.attributes["lictor.record.stream"] == "01S"
        assert record.attributes["lictor.record.seq"] == 17
        assert record.attributes["lictor.record.head"] == "ab" * 32

    @pytest.mark.parametrize(
        ("verdict", "failure", "severity"),
        [
            (Verdict.ALLOW, False, "INFO"),
            (Verdict.DENY, False, "WARN"),
            (Verdict.ASK, False, "WARN"),
            (Verdict.DENY, True, "ERROR"),
        ],
    )
    def test_severity_follows_the_verdict(
        self, rig: Rig, verdict: Verdict, failure: bool, severity: str
    ) -> None:
        reason = "internal_error" if failure else "no_permit"
        rig.telemetry.decided(decided(decision(verdict, reason), failure=failure))
        assert [record.severity_text for record in rig.events()] == [severity]

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_an_execution_ends_under_the_ids_of_its_decision(
        self, rig: Rig, outcome: Outcome
    ) -> None:
        event = decided(decision(*ALLOW))
        ids = rig.telemetry.decided(event)
        rig.telemetry.executed(
            Executed(event.decision.id, "C1", KEY, outcome, 2_000_000, True, ids, "01S", 18, "cd")
        )
        (record,) = rig.events("lictor.execution.finished")
        assert f"{record.span_id:016x}" == ids.span_id
        assert record.attributes["lictor.execution.outcome"] == outcome.value
        assert record.attributes["lictor.execution.seconds"] == pytest.approx(0.002)
        assert record.attributes["lictor.record.seq"] == 18

    def test_an_execution_whose_ids_are_not_known_is_of_the_hosts_trace(self, rig: Rig) -> None:
        with rig.tracers.get_tracer("host").start_as_current_span("step") as host:
            rig.telemetry.executed(Executed("D", "C1", KEY, Outcome.DONE, 1, True))
        (record,) = rig.events("lictor.execution.finished")
        assert record.trace_id == host.get_span_context().trace_id

    def test_an_api_that_cannot_be_asked_first_is_told_anyway(self, rig: Rig) -> None:
        class Old:
            """A logger of opentelemetry-api before 1.45."""

            def __init__(self, logger: Any) -> None:
                self.emit = logger.emit

        class Loggers:
            def get_logger(self, *names: Any, **more: Any) -> Any:
                return Old(rig.loggers.get_logger("old"))

        old = Telemetry(rig.tracers, rig.meters, Loggers())  # type: ignore[arg-type]
        old.decided(decided())
        assert len(rig.events()) == 1
        assert rig.total("lictor.telemetry.errors") == 0

    def test_a_lost_record_is_said_without_saying_why(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig.telemetry.degraded("disk /srv/secret is full")
        assert len(rig.events("lictor.record.degraded")) == 1
        assert rig.total("lictor.record.failures") == 1
        assert "secret" not in rig.everything()
        assert "disk /srv/secret is full" in caplog.text

    def test_an_alarm_is_no_lost_record(self, rig: Rig) -> None:
        rig.telemetry.alarm()
        assert len(rig.events("lictor.home.alarm")) == 1
        assert rig.total("lictor.record.failures") == 0

    def test_another_mode_is_told_from_then_on(self, rig: Rig) -> None:
        telemetry = Telemetry(rig.tracers, rig.meters, rig.loggers, mode=Mode.OBSERVE)
        telemetry.turn_to(Mode.ENFORCE)
        telemetry.decided(decided())
        (event,) = rig.events()
        assert event.attributes["lictor.mode"] == "enforce"


class TestSampling:
    def test_with_the_sampler_off_event_and_count_are_there_with_usable_ids(self) -> None:
        rig = Rig(ALWAYS_OFF)
        ids = rig.telemetry.decided(decided())
        assert rig.spans() == []
        (record,) = rig.events()
        assert f"{record.trace_id:032x}" == ids.trace_id != ""
        assert rig.total() == 1
        rig.close()

    @pytest.mark.parametrize(
        ("verdict", "kept"), [(Verdict.ALLOW, 0), (Verdict.DENY, 1), (Verdict.ASK, 1)]
    )
    def test_keep_denied_keeps_denials_below_an_unsampled_parent(
        self, verdict: Verdict, kept: int
    ) -> None:
        rig = Rig(keep_denied(ParentBased(ALWAYS_OFF)))
        with rig.tracers.get_tracer("host").start_as_current_span("step") as host:
            assert not host.get_span_context().trace_flags.sampled
            rig.telemetry.decided(decided(decision(verdict)))
        assert len(rig.spans()) == kept
        rig.close()

    def test_keep_denied_leaves_other_spans_to_its_delegate(self) -> None:
        rig = Rig(keep_denied(ALWAYS_ON))
        rig.telemetry.decided(decided(decision(*ALLOW)))
        rig.tracers.get_tracer("host").start_span("step").end()
        assert len(rig.spans_out.get_finished_spans()) == 2
        assert "AlwaysOnSampler" in keep_denied(ALWAYS_ON).get_description()
        rig.close()

    def test_suppressing_instrumentation_silences_the_span_only(self, rig: Rig) -> None:
        with suppress_instrumentation():
            rig.telemetry.decided(decided())
        assert rig.spans() == []
        assert len(rig.events()) == 1
        assert rig.total() == 1


class _Asked:
    """Loggers that want only what is at least this severe; `None`: they cannot be asked."""

    def __init__(self, least: int | None) -> None:
        self.least = least

    def get_logger(self, *names: Any, **more: Any) -> Any:
        return self

    def enabled(self, *, severity_number: Any, event_name: str) -> bool:
        if self.least is None:
            raise RuntimeError("cannot say")
        return bool(severity_number.value >= self.least)


class TestNobodyListens:
    """Then nothing is put together, and it counts all the same."""

    @staticmethod
    def deaf(rig: Rig, least: int | None = 99) -> Telemetry:
        return Telemetry(None, rig.meters, _Asked(least), known_tools=TOOLS)  # type: ignore[arg-type]

    @pytest.mark.parametrize("registered", [True, False])
    @pytest.mark.parametrize("failure", [True, False])
    def test_counted_is_what_decided_would_have_counted(
        self, rig: Rig, registered: bool, failure: bool
    ) -> None:
        telemetry, made, pep = self.deaf(rig), decision(), Decided(decision()).pep
        assert not telemetry.listens(made, failure=failure)
        rig.telemetry.decided(decided(made, registered=registered, failure=failure))
        telemetry.counted(made, pep, registered=registered, failure=failure, took_ns=50_000)
        (point,) = rig.points("lictor.decisions")
        assert point.value == 2
        (timed,) = rig.points("lictor.decision.duration")
        assert (timed.count, timed.sum) == (2, pytest.approx(0.0001))

    @pytest.mark.parametrize(
        ("verdict", "failure", "heard"),
        [(ALLOW, False, 9), ((Verdict.DENY, "grant_scope"), False, 13), (ALLOW, True, 17)],
    )
    def test_a_log_that_wants_a_severity_hears_it_and_no_lesser_one(
        self, rig: Rig, verdict: tuple[Verdict, str], failure: bool, heard: int
    ) -> None:
        made = decision(*verdict)
        assert self.deaf(rig, heard).listens(made, failure=failure)
        assert not self.deaf(rig, heard + 1).listens(made, failure=failure)

    @pytest.mark.parametrize(("outcome", "heard"), [(Outcome.DONE, 9), (Outcome.FAILED, 13)])
    def test_so_with_outcomes(self, rig: Rig, outcome: Outcome, heard: int) -> None:
        assert self.deaf(rig, heard).follows(outcome)
        assert not self.deaf(rig, heard + 1).follows(outcome)

    def test_who_cannot_say_is_told(self, rig: Rig) -> None:
        assert self.deaf(rig, None).listens(decision(), failure=False)
        assert self.deaf(rig, None).follows(Outcome.DONE)

    def test_a_tracer_listens_unless_it_is_suppressed_here(self, rig: Rig) -> None:
        telemetry = Telemetry(rig.tracers, rig.meters, _Asked(99))  # type: ignore[arg-type]
        assert telemetry.listens(decision(), failure=False)
        with suppress_instrumentation():
            assert not telemetry.listens(decision(), failure=False)


class _Crash(SpanProcessor):
    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        raise RuntimeError("start")


class _CrashAtEnd(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("end")


class TestNeverRaises:
    @pytest.mark.parametrize("processor", [_Crash(), _CrashAtEnd()])
    def test_a_crashing_span_processor_takes_nothing_else_with_it(
        self, rig: Rig, processor: SpanProcessor
    ) -> None:
        rig.tracers.add_span_processor(processor)
        ids = rig.telemetry.decided(decided())
        (record,) = rig.events()
        assert bool(ids.span_id) is isinstance(processor, _CrashAtEnd)
        assert f"{record.span_id:016x}" == (ids.span_id or "0" * 16)
        assert rig.total() == 1
        assert rig.total("lictor.telemetry.errors") == 1

    @pytest.mark.parametrize("part", ["_tracer", "_logger", "_duration", "_describe"])
    def test_a_crashing_part_is_counted(
        self, rig: Rig, part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rig.telemetry, part, object())
        assert isinstance(rig.telemetry.decided(decided()), Ids)
        rig.telemetry.executed(Executed("D", "C", KEY, Outcome.DONE, 1))
        assert rig.total() == 1
        assert rig.total("lictor.telemetry.errors") >= 1

    def test_a_crashing_instrumentation_is_as_good_as_none(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            __import__("sys").modules, "openinference.instrumentation.langchain", object()
        )
        rig.telemetry.decided(decided())
        assert rig.span().parent is None
        assert rig.total("lictor.telemetry.errors") == 1

    def test_a_crashing_catalog_counts_as_other(self) -> None:
        def broken() -> frozenset[str]:
            raise RuntimeError("no catalog")

        rig = Rig(known_tools=broken)
        rig.telemetry.decided(decided())
        (point,) = rig.points("lictor.decisions")
        assert point.attributes["gen_ai.tool.name"] == "_other"
        assert len(rig.spans()) == 1
        rig.close()


class TestContent:
    CANARY = "canary-7f3a"

    def event(self) -> Decided:
        made = decision(detail=f"{self.CANARY}-detail", key=ToolKey("local", "refund"))
        return decided(made, arguments={"to": self.CANARY})

    def emit(self, monkeypatch: pytest.MonkeyPatch, wish: str, capture: bool) -> Rig:
        monkeypatch.setenv(CAPTURE, wish)
        rig = Rig(capture_content=capture)
        rig.telemetry.decided(self.event())
        rig.telemetry.decided(
            decided(decision(key=ToolKey("local", self.CANARY)), registered=False)
        )
        rig.close()
        return rig

    @pytest.mark.parametrize(
        ("wish", "capture"),
        [("SPAN_AND_EVENT", False), ("NO_CONTENT", True), ("", True), ("true", True)],
    )
    def test_nothing_of_a_call_gets_out_without_both_consents(
        self, monkeypatch: pytest.MonkeyPatch, wish: str, capture: bool
    ) -> None:
        rig = self.emit(monkeypatch, wish, capture)
        assert len(rig.spans()) == 2
        assert self.CANARY not in rig.everything()

    @pytest.mark.parametrize(
        ("wish", "on_span", "on_event"),
        [("SPAN_ONLY", True, False), ("EVENT_ONLY", False, True), ("SPAN_AND_EVENT", True, True)],
    )
    def test_with_both_the_recordable_arguments_stand_where_asked(
        self, monkeypatch: pytest.MonkeyPatch, wish: str, on_span: bool, on_event: bool
    ) -> None:
        rig = self.emit(monkeypatch, wish, True)
        key, value = "gen_ai.tool.call.arguments", json.dumps({"to": self.CANARY})
        assert (told(rig.spans()[0]).get(key) == value) is on_span
        assert (rig.events()[0].attributes.get(key) == value) is on_event
        assert f"{self.CANARY}-detail" not in rig.everything()

    def test_long_arguments_are_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
        rig = Rig(capture_content=True)
        rig.telemetry.decided(decided(arguments={"text": "x" * 9000}))
        assert len(told(rig.span())["gen_ai.tool.call.arguments"]) == 4096
        rig.close()


class _CopyBaggage(SpanProcessor):
    """What opentelemetry-processor-baggage does."""

    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        for key, value in baggage.get_all(parent_context).items():
            span.set_attribute(key, str(value))


class TestForgery:
    def test_forged_baggage_changes_nothing(self, rig: Rig) -> None:
        rig.tracers.add_span_processor(_CopyBaggage())
        forged = baggage.set_baggage("lictor.decision.verdict", "allow")
        token = context.attach(baggage.set_baggage("lictor.user.id", "mallory", forged))
        try:
            rig.telemetry.decided(decided())
        finally:
            context.detach(token)
        assert told(rig.span())["lictor.decision.verdict"] == "deny"
        assert "mallory" not in rig.everything()

    def test_invented_tool_names_add_no_series_and_are_not_told(self, rig: Rig) -> None:
        for number in range(300):
            made = decision(reason="tool_unknown", key=ToolKey("local", f"invented{number}"))
            rig.telemetry.decided(decided(made, registered=False))
        (point,) = rig.points("lictor.decisions")
        assert point.value == 300
        assert point.attributes["gen_ai.tool.name"] == "_unregistered"
        assert {span.name for span in rig.spans()} == {"authorize _unregistered"}
        assert "invented" not in rig.everything()

    def test_labels_outside_the_closed_lists_are_folded(self, rig: Rig) -> None:
        from lictor.model import Pep

        for number in range(50):
            made = decision(reason=f"made_up_{number}")
            rig.telemetry.decided(decided(made, pep=Pep(f"kind{number}", f"side{number}")))
        (point,) = rig.points("lictor.decisions")
        assert point.value == 50
        assert point.attributes["lictor.decision.reason"] == "internal_error"
        assert (
            point.attributes["lictor.pep.kind"] == point.attributes["lictor.pep.side"] == "_other"
        )


class TestMetrics:
    def test_tools_beyond_two_hundred_share_a_series(self) -> None:
        tools = frozenset(f"local/t{n}" for n in range(250))
        rig = Rig(known_tools=lambda: tools)
        for name in sorted(tools):
            rig.telemetry.decided(decided(decision(key=ToolKey.parse(name))))
        points = {p.attributes["gen_ai.tool.name"]: p.value for p in rig.points("lictor.decisions")}
        assert len(points) == 201
        assert points["_other"] == 50
        rig.close()

    def test_equal_names_of_two_servers_are_two_series(self, rig: Rig) -> None:
        for server in ("local", "payments"):
            rig.telemetry.decided(decided(decision(key=ToolKey(server, "refund"))))
        servers = {p.attributes["lictor.tool.server"] for p in rig.points("lictor.decisions")}
        assert servers == {"local", "payments"}

    def test_two_gates_on_one_provider_lose_no_decision(self, rig: Rig) -> None:
        other = Telemetry(
            rig.tracers, rig.meters, rig.loggers, mode=Mode.OBSERVE, known_tools=TOOLS
        )
        rig.telemetry.decided(decided())
        other.decided(decided())
        modes = {p.attributes["lictor.mode"]: p.value for p in rig.points("lictor.decisions")}
        assert modes == {"enforce": 1, "observe": 1}

    def test_duration_is_a_histogram_from_ten_microseconds(self, rig: Rig) -> None:
        rig.telemetry.decided(decided())
        rig.telemetry.decided(decided(decision(reason="policy_timeout"), failure=True))
        points = {p.attributes.get("error.type"): p for p in rig.points("lictor.decision.duration")}
        assert set(points) == {None, "policy_timeout"}
        assert points[None].sum == pytest.approx(50e-6)
        assert points[None].explicit_bounds[0] == pytest.approx(1e-5)

    def test_each_attempt_is_one_span_one_event_one_count(self, rig: Rig) -> None:
        events = [decided(decision(*ALLOW), impact=frozenset({Impact.READ})) for _ in range(25)]
        for event in events:
            rig.telemetry.decided(event)
        wanted = sorted(event.decision.id for event in events)

        def ids(carried: list[Mapping[str, Any]]) -> list[str]:
            return sorted(item["lictor.decision.id"] for item in carried)

        assert ids([told(span) for span in rig.spans()]) == wanted
        assert ids([record.attributes for record in rig.events()]) == wanted
        assert rig.total() == len(wanted)
