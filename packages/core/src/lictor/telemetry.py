"""What the world outside sees of decisions: spans, log events, metrics.

Rules enforced here:

1. Emitting never raises and never changes a decision; what goes wrong is counted.
2. The span is made after the decision with all attributes at start, so that samplers see them, and
   is ended before the body runs. It is never current and never the parent of the tool.
3. Only spans can be switched off from the calling context; log events and metrics cannot.
4. Trace context correlates and nothing more; baggage is neither read nor passed on.
5. No arguments (but under a double opt-in), no tokens, exception texts or approvers' words.
   Strings are cut and lose their control characters; a user is a pseudonym.
6. A metric label comes from the catalog or a closed list, never from a model.
7. Nothing else imports opentelemetry, and this needs its API only; no provider is configured.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import _logs, context, metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags

from lictor import telemetry_names as names
from lictor.model import Mode, Outcome, ToolKey, Verdict
from lictor.telemetry_event import (
    NO_IDS,
    UNREGISTERED,
    Attributes,
    Decided,
    Describer,
    Executed,
    Ids,
    cleaned,
    content,
    pep_kind,
    pep_side,
    reason,
    tool_names,
)

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import TracerProvider

__all__ = ["NO_IDS", "Decided", "Executed", "Ids", "Telemetry", "keep_denied"]

MAX_TOOLS: Final = 200
"""Tools with metric series of their own; the rest share `_other`."""
BUCKETS: Final = tuple(n * 10.0**e for e in range(-5, 1) for n in (1, 2, 5))
"""Of a decision's duration, in seconds: 10 µs to 5 s."""
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_OTHER: Final = ToolKey("_other", "_other")
_GUARDRAIL: Final = {names.OPENINFERENCE_SPAN_KIND: "GUARDRAIL"}
_logger = logging.getLogger("lictor")


class Telemetry:
    """Emits what was decided and how it ended. Thread-safe.

    Args:
        tracer_provider: Whose spans; `None` is the global one, also if it is set later.
        meter_provider: Whose metrics; likewise.
        logger_provider: Whose log events; likewise.
        mode: Of the gate.
        placement: `p0`, `p1` or `p2`.
        known_tools: The catalog's tools as `server/name`, or how to get them.
        capture_content: First half of the opt-in for arguments; the environment is the second.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        *,
        mode: Mode = Mode.ENFORCE,
        placement: str = "p0",
        known_tools: Callable[[], frozenset[str]] | frozenset[str] = frozenset(),
        capture_content: bool = False,
    ) -> None:
        release = _release()
        self._tracer = trace.get_tracer("lictor", release, tracer_provider)
        self._traced = tracer_provider is not None
        self._logger = _logs.get_logger("lictor", release, logger_provider)
        self._meters = _meters(meter_provider, release)
        self._mode = mode.value
        self._describe = Describer(mode, placement)
        self._known = known_tools if callable(known_tools) else lambda: known_tools
        wish = os.environ.get(CAPTURE, "").upper() if capture_content else ""
        self._span_content = wish in ("SPAN_ONLY", "SPAN_AND_EVENT")
        self._log_content = wish in ("EVENT_ONLY", "SPAN_AND_EVENT")

    def current(self) -> Ids:
        """The trace a decision made here and now would belong to, for its record."""
        try:
            return _ids(_parent().get_span_context())
        except Exception:
            self._meters.failed()
            return NO_IDS

    def decided(self, event: Decided) -> Ids:
        """Emits a decision: count, span, log event, duration.

        Returns:
            Ids of the span, or of the host's span if none was made.
        """
        span: Span = trace.INVALID_SPAN
        attributes, where = None, None
        meters = self._meters
        try:
            tool = (
                meters.tool(event.decision.tool, self._known) if event.registered else UNREGISTERED
            )
            meters.count(tool, event, self._mode)
            span = parent = _parent()
            if self._tracing():
                attributes = self._describe.decision(event)
                span = self._open(event, attributes, parent)
                where = trace.set_span_in_context(span, Context())
                self._close(span, event, parent)
        except Exception:
            meters.failed()
        try:
            self._log_decision(event, attributes, span)
        except Exception:
            meters.failed()
        try:
            meters.time(event, self._mode, where)
            return _ids(span.get_span_context())
        except Exception:
            meters.failed()
            return NO_IDS

    def executed(self, event: Executed) -> None:
        """Emits how an allowed call ended, under the ids of its decision."""
        try:
            good = event.outcome is Outcome.DONE or event.outcome is Outcome.SUSPENDED
            severity = SeverityNumber.INFO if good else SeverityNumber.WARN
            self._log(
                names.EVENT_EXECUTION_FINISHED,
                severity,
                self._describe.execution(event),
                _remembered(event.ids),
                None,
            )
        except Exception:
            self._meters.failed()

    def degraded(self, problem: str) -> None:
        """Says that a record could not be kept. `problem` goes to the operator's log only."""
        try:
            _logger.error("a record could not be kept: %s", problem)
            self._meters.lost()
            event, span = names.EVENT_RECORD_DEGRADED, trace.get_current_span()
            self._log(event, SeverityNumber.ERROR, self._describe.degraded(), span, None)
        except Exception:
            self._meters.failed()

    def _tracing(self) -> bool:
        """Whether a span is wanted: somebody has set up tracing and nobody suppresses it here."""
        if not self._traced:
            if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return False
            self._traced = True
        return not (
            context.get_value(_SUPPRESS_INSTRUMENTATION_KEY)
            or context.get_value("suppress_instrumentation")
        )

    def _open(self, event: Decided, attributes: Attributes, parent: Span) -> Span:
        given = {**attributes, **_GUARDRAIL}
        if self._span_content and event.arguments is not None:
            given[names.GEN_AI_TOOL_CALL_ARGUMENTS] = content(event.arguments)
        # A context of its own: span processors that copy baggage onto spans find none to copy.
        where = trace.set_span_in_context(parent, Context())
        name = f"{names.SPAN_AUTHORIZE} {attributes[names.GEN_AI_TOOL_NAME]}"
        return self._tracer.start_span(
            name, where, attributes=given, start_time=event.started_ns or None
        )

    def _close(self, span: Span, event: Decided, parent: Span) -> None:
        if event.failure:
            span.set_status(Status(StatusCode.ERROR))
        span.end(event.ended_ns or None)
        if parent.is_recording() and _runs_tool(parent, event.decision.tool.name):
            parent.set_attributes(
                {
                    names.DECISION_VERDICT: event.decision.verdict.value,
                    names.DECISION_ID: event.decision.id,
                    names.POLICY_IDS: cleaned(event.decision.policies),
                }
            )

    def _log_decision(self, event: Decided, attributes: Attributes | None, span: Span) -> None:
        severity = SeverityNumber.INFO
        if event.failure:
            severity = SeverityNumber.ERROR
        elif event.decision.verdict is not Verdict.ALLOW:
            severity = SeverityNumber.WARN
        if not self._logger.enabled(severity_number=severity, event_name=names.EVENT_DECISION_MADE):
            return
        attributes = self._describe.decision(event) if attributes is None else attributes
        if self._log_content and event.arguments is not None:
            attributes[names.GEN_AI_TOOL_CALL_ARGUMENTS] = content(event.arguments)
        self._log(names.EVENT_DECISION_MADE, severity, attributes, span, event.ended_ns or None)

    def _log(
        self,
        name: str,
        severity: SeverityNumber,
        attributes: Attributes,
        span: Span,
        at: int | None,
    ) -> None:
        if self._logger.enabled(severity_number=severity, event_name=name):
            self._logger.emit(
                timestamp=at or time.time_ns(),
                context=trace.set_span_in_context(span, Context()),
                severity_number=severity,
                severity_text=severity.name,
                attributes=attributes,
                event_name=name,
            )


def keep_denied(delegate: Sampler) -> Sampler:
    """A sampler that keeps every denial and ask, and asks `delegate` about all other spans.

    It must be the outermost one: `ParentBased(keep_denied(...))` would not ask it below an
    unsampled parent.
    """
    from opentelemetry.sdk.trace import sampling

    class KeepDenied(sampling.Sampler):
        def should_sample(
            self, parent_context: Any, trace_id: int, name: str, kind: Any = None,
            attributes: Any = None, links: Any = None, trace_state: Any = None,
        ) -> sampling.SamplingResult:  # fmt: skip
            keep = sampling.Decision.RECORD_AND_SAMPLE
            result = delegate.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )
            verdict = (attributes or {}).get(names.DECISION_VERDICT, Verdict.ALLOW.value)
            if verdict == Verdict.ALLOW.value or result.decision is keep:
                return result
            return sampling.SamplingResult(keep, attributes, result.trace_state)

        def get_description(self) -> str:
            return f"KeepDenied{{{delegate.get_description()}}}"

    return KeepDenied()


# -- metrics --------------------------------------------------------------------------------------

_LOCK = Lock()
# A fork while another thread counts must not leave the child with a lock nobody will release.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
    )


class _Meters:
    """The metrics of one meter provider, shared by all gates that use it.

    A provider keeps the first callback of an observable instrument and drops later ones, so two
    gates with a dictionary each would lose the decisions of one.
    """

    def __init__(self, provider: MeterProvider | None, release: str) -> None:
        self._decisions: dict[tuple[ToolKey, str, str, str, str, str, str], int] = {}
        self._totals = {names.METRIC_TELEMETRY_ERRORS: 0, names.METRIC_RECORD_FAILURES: 0}
        self._tools: set[ToolKey] = set()
        self._labels: dict[tuple[str, str, str, str], Attributes] = {}
        meter = metrics.get_meter("lictor", release, provider)
        for name, unit, observe in (
            (names.METRIC_DECISIONS, names.METRIC_DECISIONS_UNIT, self._observe),
            (names.METRIC_RECORD_FAILURES, names.METRIC_RECORD_FAILURES_UNIT, self._observe_lost),
            (
                names.METRIC_TELEMETRY_ERRORS,
                names.METRIC_TELEMETRY_ERRORS_UNIT,
                self._observe_errors,
            ),
        ):
            meter.create_observable_counter(name, [observe], unit)
        self._duration = meter.create_histogram(
            names.METRIC_DECISION_DURATION,
            names.METRIC_DECISION_DURATION_UNIT,
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def tool(self, key: ToolKey, known: Callable[[], frozenset[str]]) -> ToolKey:
        """The tool as a label: itself if the catalog has it and there is room, else `_other`."""
        if key in self._tools:
            return key
        if len(self._tools) >= MAX_TOOLS or str(key) not in known():
            return _OTHER
        with _LOCK:
            self._tools.add(key)
        return key

    def count(self, tool: ToolKey, event: Decided, mode: str) -> None:
        decision = event.decision
        key = (
            tool,
            decision.verdict.value,
            decision.enforcement.value,
            reason(decision.reason),
            pep_kind(event.pep),
            pep_side(event.pep),
            mode,
        )
        with _LOCK:
            self._decisions[key] = self._decisions.get(key, 0) + 1

    def time(self, event: Decided, mode: str, where: Context | None) -> None:
        verdict, kind = event.decision.verdict.value, pep_kind(event.pep)
        error = reason(event.decision.reason) if event.failure else ""
        key = (verdict, kind, mode, error)
        labels = self._labels.get(key)
        if labels is None:
            labels = {names.DECISION_VERDICT: verdict, names.PEP_KIND: kind, names.MODE: mode}
            if error:
                labels[names.ERROR_TYPE] = error
            self._labels[key] = labels
        seconds = max(0, event.ended_ns - event.started_ns) / 1e9
        self._duration.record(seconds, labels, where)

    def failed(self) -> None:
        self._add(names.METRIC_TELEMETRY_ERRORS)

    def lost(self) -> None:
        self._add(names.METRIC_RECORD_FAILURES)

    def _add(self, total: str) -> None:
        with _LOCK:
            self._totals[total] += 1

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        with _LOCK:
            counted = list(self._decisions.items())
        for (tool, verdict, enforcement, code, kind, side, mode), count in counted:
            yield metrics.Observation(
                count,
                {
                    **tool_names(tool),
                    names.DECISION_VERDICT: verdict,
                    names.DECISION_ENFORCEMENT: enforcement,
                    names.DECISION_REASON: code,
                    names.PEP_KIND: kind,
                    names.PEP_SIDE: side,
                    names.MODE: mode,
                },
            )

    def _observe_errors(self, _: CallbackOptions) -> Iterable[Observation]:
        yield metrics.Observation(self._totals[names.METRIC_TELEMETRY_ERRORS])

    def _observe_lost(self, _: CallbackOptions) -> Iterable[Observation]:
        yield metrics.Observation(self._totals[names.METRIC_RECORD_FAILURES])


class _Global:
    """Stands for the global meter provider, which may be set after the gate is built."""


_GLOBAL: Final = _Global()
_METERS: WeakKeyDictionary[object, _Meters] = WeakKeyDictionary()


def _meters(provider: MeterProvider | None, release: str) -> _Meters:
    key = _GLOBAL if provider is None or provider is metrics.get_meter_provider() else provider
    found = _METERS.get(key)
    if found is None:
        found = _METERS[key] = _Meters(provider, release)
    return found


# -- trace context --------------------------------------------------------------------------------


def _parent() -> Span:
    """The host's span: the current one, else the one OpenInference keeps for LangChain runs.

    OpenInference never makes its LangChain spans current, so ours would start a trace of its own.
    The module is looked up, never imported.
    """
    span = trace.get_current_span()
    if span.get_span_context().is_valid:
        return span
    module: Any = sys.modules.get("openinference.instrumentation.langchain")
    if module is None or not module.LangChainInstrumentor().is_instrumented_by_opentelemetry:
        return span
    found: Span | None = module.get_current_span()
    return span if found is None else found


def _runs_tool(span: Span, tool: str) -> bool:
    """Whether a span of the host is the span of this tool's execution.

    OpenInference sets its attributes when a run ends; until then only the name tells.
    """
    held: Mapping[str, object] = getattr(span, "attributes", None) or {}
    return (
        held.get("gen_ai.operation.name") == "execute_tool"
        or held.get("mcp.method.name") == "tools/call"
        or held.get(names.OPENINFERENCE_SPAN_KIND) == "TOOL"
        or getattr(span, "name", "") == tool
    )


def _ids(span: SpanContext) -> Ids:
    if not span.is_valid:
        return NO_IDS
    return Ids(f"{span.trace_id:032x}", f"{span.span_id:016x}", int(span.trace_flags))


def _remembered(ids: Ids) -> Span:
    if not ids.trace_id:
        return trace.INVALID_SPAN
    flags = TraceFlags(ids.flags)
    return trace.NonRecordingSpan(
        SpanContext(int(ids.trace_id, 16), int(ids.span_id, 16), False, flags)
    )


def _release() -> str:
    try:
        return version("lictor")
    except PackageNotFoundError:
        return ""
