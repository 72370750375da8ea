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
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from opentelemetry import _logs, context, metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import Span, Status, StatusCode

from lictor import telemetry_names as names
from lictor.model import Decision, Mode, Outcome, Pep, Verdict
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
)
from lictor.telemetry_host import host, ids_of, is_remote, remembered, runs_tool
from lictor.telemetry_remote import Remote
from lictor.telemetry_tally import LOCK, OTHER, Row, Tally

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import TracerProvider

__all__ = ["NO_IDS", "Decided", "Executed", "Ids", "Telemetry", "keep_denied", "quiet"]

BUCKETS: Final = tuple(n * 10.0**e for e in range(-5, 1) for n in (1, 2, 5))
"""Of a decision's duration, in seconds: 10 µs to 5 s."""
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_GUARDRAIL: Final = {names.OPENINFERENCE_SPAN_KIND: "GUARDRAIL"}
_logger = logging.getLogger("lictor")
_P = ParamSpec("_P")
_T = TypeVar("_T")


@contextmanager
def quiet() -> Iterator[None]:
    """No spans in this block, neither ours nor those of instrumentations that obey."""
    token = context.attach(context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        context.detach(token)


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

    Attributes:
        remote: Spans of a relay.
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
        # Asking first saves the attributes; APIs before 1.45 cannot be asked.
        self._wanted = getattr(self._logger, "enabled", _always)
        meters = _meters(meter_provider, release)
        self._tally, self._duration = meters.tally, meters.duration
        self.remote = Remote(self._tracer, self._tracing, self._tally.failed)
        self._mode = mode.value
        self._placement = placement
        self._describe = Describer(mode, placement)
        self._known = known_tools if callable(known_tools) else lambda: known_tools
        wish = os.environ.get(CAPTURE, "").upper() if capture_content else ""
        self._span_content = wish in ("SPAN_ONLY", "SPAN_AND_EVENT")
        self._log_content = wish in ("EVENT_ONLY", "SPAN_AND_EVENT")

    def current(self) -> Ids:
        """The trace a decision made here and now would belong to, for its record."""
        return self._safely(ids_of, self._parent()) or NO_IDS

    def listens(self, decision: Decision, *, failure: bool) -> bool:
        """Whether a span or a log event would tell of a decision; if not, `counted` is all of it.

        Args:
            decision: The decision.
            failure: The gate could not decide.
        """
        try:
            severity = _severity(decision, failure)
            wanted = self._wanted(severity_number=severity, event_name=names.EVENT_DECISION_MADE)
            return wanted or self._tracing()
        except Exception:
            return True  # `decided` meets it again, and counts it

    def counted(
        self, decision: Decision, pep: Pep, *, registered: bool, failure: bool, took_ns: int
    ) -> None:
        """Counts and times a decision that nobody listens to."""
        try:
            row = self._count(decision, pep, registered, failure)
            self._duration.record(max(0, took_ns) / 1e9, row.timed, None)
        except Exception:
            self._tally.failed()

    def follows(self, outcome: Outcome) -> bool:
        """Whether `executed` would tell of an outcome."""
        try:
            return self._wanted(
                severity_number=_gravity(outcome), event_name=names.EVENT_EXECUTION_FINISHED
            )
        except Exception:
            return True

    def decided(self, event: Decided) -> Ids:
        """Emits a decision: count, span, log event, duration.

        Returns:
            Ids of the span, or of the host's span if none was made.
        """
        # Three steps, each guarded alone: a broken tracer must not take the log event with it.
        span: Span = trace.INVALID_SPAN
        told, row, where = None, None, None
        try:
            row = self._count(event.decision, event.pep, event.registered, event.failure)
            span = parent = self._parent()
            if self._tracing():
                told = self._describe.decision(event)
                span = self._span(event, told, parent)
                where = trace.set_span_in_context(span, Context())
        except Exception:
            self._tally.failed()
        try:
            severity = _severity(event.decision, event.failure)
            if self._wanted(severity_number=severity, event_name=names.EVENT_DECISION_MADE):
                told = self._describe.decision(event) if told is None else told
                self._log_decision(event, severity, told, span)
        except Exception:
            self._tally.failed()
        try:
            if row is not None:
                seconds = max(0, event.ended_ns - event.started_ns) / 1e9
                self._duration.record(seconds, row.timed, where)
            return ids_of(span)
        except Exception:
            self._tally.failed()
            return NO_IDS

    def executed(self, event: Executed) -> None:
        """Emits how an allowed call ended, under the ids of its decision if they are given."""
        self._safely(self._executed, event)

    def degraded(self, problem: str) -> None:
        """Says that a record could not be kept. `problem` goes to the operator's log only."""
        self._safely(_logger.error, "a record could not be kept: %s", problem)
        self._safely(self._tally.missed)
        name, span = names.EVENT_RECORD_DEGRADED, self._parent()
        self._safely(self._emit, name, SeverityNumber.ERROR, self._describe.degraded(), span, None)

    def alarm(self) -> None:
        """Says that the watchman has found something; what it is stands in the operator's log."""
        name, span = names.EVENT_HOME_ALARM, self._parent()
        self._safely(self._emit, name, SeverityNumber.WARN, self._describe.degraded(), span, None)

    def turn_to(self, mode: Mode) -> None:
        """Tells this mode from now on."""
        self._mode, self._describe = mode.value, Describer(mode, self._placement)

    def _safely(self, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        try:
            return step(*args, **kwargs)
        except Exception:
            self._tally.failed()
            return None

    def _count(self, decision: Decision, pep: Pep, registered: bool, failure: bool) -> Row:
        tool = UNREGISTERED
        if registered:
            tool = self._safely(self._tally.label, decision.tool, self._known) or OTHER
        return self._tally.count(tool, decision, pep, self._mode, failure)

    def _parent(self) -> Span:
        found = self._safely(host) or trace.INVALID_SPAN
        # Without a span of ours, what somebody far away says of himself would be all there is.
        return trace.INVALID_SPAN if is_remote(found) and not self._tracing() else found

    def _tracing(self) -> bool:
        """Whether a span is wanted: somebody has set up tracing and nobody suppresses it here."""
        if not self._traced:
            # Without one, asking for it reads the environment, on every call.
            if getattr(trace, "_TRACER_PROVIDER", trace) is None or isinstance(
                trace.get_tracer_provider(), trace.ProxyTracerProvider
            ):
                return False
            self._traced = True
        return not (
            context.get_value(_SUPPRESS_INSTRUMENTATION_KEY)
            or context.get_value("suppress_instrumentation")
        )

    def _span(self, event: Decided, told: Attributes, parent: Span) -> Span:
        given = {**told, **_GUARDRAIL}
        if self._span_content and event.arguments is not None:
            given[names.GEN_AI_TOOL_CALL_ARGUMENTS] = content(event.arguments)
        # A context of its own: span processors that copy baggage onto spans find none to copy.
        where = trace.set_span_in_context(parent, Context())
        name = f"{names.SPAN_AUTHORIZE} {told[names.GEN_AI_TOOL_NAME]}"
        start = event.started_ns or None
        span = self._tracer.start_span(name, where, attributes=given, start_time=start)
        self._safely(_end, span, event)
        self._safely(_enrich, parent, event.decision)
        return span

    def _log_decision(
        self, event: Decided, severity: SeverityNumber, told: Attributes, span: Span
    ) -> None:
        told.update(self._describe.evidence(event))
        if self._log_content and event.arguments is not None:
            told[names.GEN_AI_TOOL_CALL_ARGUMENTS] = content(event.arguments)
        self._emit(names.EVENT_DECISION_MADE, severity, told, span, event.ended_ns)

    def _executed(self, event: Executed) -> None:
        severity, name = _gravity(event.outcome), names.EVENT_EXECUTION_FINISHED
        if self._wanted(severity_number=severity, event_name=name):
            # Without the decision's ids, the host's span is at least of the same trace.
            span = remembered(event.ids) if event.ids.trace_id else self._parent()
            self._emit(name, severity, self._describe.execution(event), span, None)

    def _emit(
        self, name: str, severity: SeverityNumber, told: Attributes, span: Span, at: int | None
    ) -> None:
        self._logger.emit(
            timestamp=at or time.time_ns(),
            context=trace.set_span_in_context(span, Context()),
            severity_number=severity,
            severity_text=severity.name,
            attributes=told,
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


class _Meters:
    """The metrics of one meter provider, shared by all gates that use it.

    A provider keeps the first callback of an observable instrument and drops later ones, so two
    gates with a tally each would lose the decisions of one.
    """

    def __init__(self, provider: MeterProvider | None, release: str) -> None:
        self.tally = Tally()
        meter = metrics.get_meter("lictor", release, provider)
        meter.create_observable_counter(
            names.METRIC_DECISIONS, [self._decisions], names.METRIC_DECISIONS_UNIT
        )
        meter.create_observable_counter(
            names.METRIC_RECORD_FAILURES, [self._lost], names.METRIC_RECORD_FAILURES_UNIT
        )
        meter.create_observable_counter(
            names.METRIC_TELEMETRY_ERRORS, [self._errors], names.METRIC_TELEMETRY_ERRORS_UNIT
        )
        self.duration = meter.create_histogram(
            names.METRIC_DECISION_DURATION,
            names.METRIC_DECISION_DURATION_UNIT,
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def _decisions(self, _: CallbackOptions) -> Iterable[Observation]:
        return [metrics.Observation(row.count, row.labels) for row in self.tally.rows()]

    def _errors(self, _: CallbackOptions) -> Iterable[Observation]:
        return [metrics.Observation(self.tally.errors)]

    def _lost(self, _: CallbackOptions) -> Iterable[Observation]:
        return [metrics.Observation(self.tally.lost)]


class _Global:
    """Stands for the global meter provider, which may be set after the gate is built."""


_GLOBAL: Final = _Global()
_METERS: WeakKeyDictionary[object, _Meters] = WeakKeyDictionary()


def _meters(provider: MeterProvider | None, release: str) -> _Meters:
    key = _GLOBAL if provider is None or provider is metrics.get_meter_provider() else provider
    with LOCK:
        found = _METERS.get(key)
        if found is None:
            found = _METERS[key] = _Meters(provider, release)
    return found


# -- steps ----------------------------------------------------------------------------------------


def _end(span: Span, event: Decided) -> None:
    if event.failure:
        span.set_status(Status(StatusCode.ERROR))
    span.end(event.ended_ns or None)


def _enrich(span: Span, decision: Decision) -> None:
    """Marks the host's own span of this tool, if it is recording. Its status is left alone."""
    if span.is_recording() and runs_tool(span, decision.tool.name):
        span.set_attribute(names.DECISION_VERDICT, decision.verdict.value)
        span.set_attribute(names.DECISION_ID, decision.id)
        span.set_attribute(names.POLICY_IDS, cleaned(decision.policies))


def _always(*, severity_number: SeverityNumber, event_name: str) -> bool:
    return True


def _severity(decision: Decision, failure: bool) -> SeverityNumber:
    if failure:
        return SeverityNumber.ERROR
    allowed = decision.verdict is Verdict.ALLOW
    return SeverityNumber.INFO if allowed else SeverityNumber.WARN


def _gravity(outcome: Outcome) -> SeverityNumber:
    good = outcome is Outcome.DONE or outcome is Outcome.SUSPENDED
    return SeverityNumber.INFO if good else SeverityNumber.WARN


def _release() -> str:
    try:
        return version("lictor")
    except PackageNotFoundError:
        return ""
