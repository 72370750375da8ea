"""Rules of lictor.telemetry_remote: one trace over several processes, and nobody else's will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NoOpTracerProvider, SpanContext, SpanKind

from lictor.telemetry import Telemetry
from lictor.telemetry_remote import Remote

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAID = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=a b,two@x=1"}


class Rig:
    """A relay's spans, ending in memory."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.out, self.tracers = InMemorySpanExporter(), TracerProvider(sampler=sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.out))
        self.telemetry = Telemetry(self.tracers)
        self.remote = self.telemetry.remote

    def relay(self, said: Any, *, link: bool = False) -> tuple[ReadableSpan, ReadableSpan, Any]:
        """Spans of a message that came and went on, and what it carried then."""
        with self.remote.received("tools/call", "notes", said, link=link):
            with self.remote.sent("tools/call", "notes") as carried:
                pass
        sent, received = self.out.get_finished_spans()[-2:]
        return received, sent, carried


@pytest.fixture
def rigged() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*args: Any) -> Rig:
        made.append(Rig(*args))
        return made[-1]

    yield make
    for each in made:
        each.tracers.shutdown()


@pytest.fixture
def rig(rigged: Callable[..., Rig]) -> Rig:
    return rigged()


def at(span: Any) -> SpanContext:
    found: SpanContext = span.get_span_context()
    return found


def test_a_trace_that_is_continued_goes_through_us(rig: Rig) -> None:
    received, sent, carried = rig.relay(SAID)

    assert (received.kind, sent.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (received.name, sent.name) == ("receive tools/call", "send tools/call")
    assert received.parent is not None
    assert f"{received.parent.span_id:016x}" == SPAN
    assert sent.parent is not None
    assert sent.parent.span_id == at(received).span_id
    assert carried == {
        "traceparent": f"00-{TRACE}-{at(sent).span_id:016x}-{at(sent).trace_flags:02x}",
        "tracestate": SAID["tracestate"],
    }


def test_a_trace_that_is_linked_ends_before_us(rig: Rig) -> None:
    received, sent, carried = rig.relay(SAID, link=True)

    assert received.parent is None
    assert at(received).trace_id == at(sent).trace_id != int(TRACE, 16)
    (link,) = received.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (TRACE, SPAN)
    assert not link.context.trace_state, "nothing of his text is kept"
    assert carried.keys() == {"traceparent"}
    assert TRACE not in carried["traceparent"]


@pytest.mark.parametrize(("flags", "sampled"), [("01", False), ("00", True)])
def test_who_is_linked_does_not_choose_what_is_sampled(
    rigged: Callable[..., Rig], flags: str, sampled: bool
) -> None:
    root = ALWAYS_ON if sampled else ALWAYS_OFF
    rig = rigged(ParentBased(root))
    with rig.remote.received(
        "ping", "notes", {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}, link=True
    ):
        span = trace.get_current_span()
        with rig.remote.sent("ping", "notes") as carried:
            pass

    assert at(span).trace_flags.sampled is sampled
    assert carried is not None
    assert int(carried["traceparent"][-2:], 16) & 1 == sampled


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"traceparent": None},
        {"traceparent": 7},
        {"traceparent": [SAID["traceparent"]]},
        {"traceparent": ""},
        {"traceparent": "00-1-2-01"},
        {"traceparent": SAID["traceparent"].upper()},
        {"traceparent": SAID["traceparent"] + "\n"},
        {"traceparent": SAID["traceparent"] + "-more"},
        {"traceparent": f" {SAID['traceparent']}"},
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"01-{TRACE}-{SPAN}-01-{'x' * 5000}"},
        {"tracestate": "vendor=1"},
    ],
)
def test_what_cannot_be_read_was_not_said(
    rig: Rig, caplog: pytest.LogCaptureFixture, said: dict[str, Any], link: bool
) -> None:
    received, _, carried = rig.relay(said, link=link)

    assert received.parent is None
    assert received.links == ()
    assert carried.keys() == {"traceparent"}
    assert caplog.records == []


@pytest.mark.parametrize(
    "state",
    [
        "vendor=" + "x" * 600,
        "x" * 600,
        "a=1,a=2",
        "NO\nerror: all is well",
        "a=\x1b[2J",
        "=",
        "a",
        7,
        ["a=1"],
    ],
)
def test_a_state_that_cannot_be_read_is_left_out_and_not_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture, state: Any
) -> None:
    received, _, carried = rig.relay({**SAID, "tracestate": state})

    assert received.parent is not None
    assert f"{at(received).trace_id:032x}" == TRACE
    assert carried.keys() == {"traceparent"}
    assert caplog.records == []


def test_a_later_version_of_the_format_is_read_as_far_as_it_is_known(rig: Rig) -> None:
    received, _, _ = rig.relay({"traceparent": f"01-{TRACE}-{SPAN}-01-what.comes"})

    assert f"{at(received).trace_id:032x}" == TRACE


def test_without_tracing_a_message_goes_as_it_came() -> None:
    remote = Telemetry().remote
    with remote.received("ping", "notes", SAID, link=False):
        assert not at(trace.get_current_span()).is_valid
        with remote.sent("ping", "notes") as carried:
            assert carried is None


@pytest.mark.parametrize("link", [True, False])
def test_a_tracer_that_does_nothing_is_no_tracing(link: bool) -> None:
    remote = Telemetry(NoOpTracerProvider()).remote
    with remote.received("ping", "notes", SAID, link=link):
        with remote.sent("ping", "notes") as carried:
            assert carried is None


def test_suppressed_means_untouched(rig: Rig) -> None:
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation(), rig.remote.received("ping", "notes", SAID, link=False):
        with rig.remote.sent("ping", "notes") as carried:
            assert carried is None
    assert rig.out.get_finished_spans() == ()


def test_a_span_that_nobody_samples_goes_along_all_the_same(rigged: Callable[..., Rig]) -> None:
    rig = rigged(ALWAYS_OFF)
    with rig.remote.received("ping", "notes", SAID, link=False):
        with rig.remote.sent("ping", "notes") as carried:
            pass
    assert carried is not None
    assert carried["traceparent"].startswith(f"00-{TRACE}-")
    assert int(carried["traceparent"][-2:], 16) & 1 == 0


@pytest.mark.parametrize("link", [True, False])
def test_the_span_around_us_is_the_parent_or_a_link(rig: Rig, link: bool) -> None:
    tracer = rig.tracers.get_tracer("host")
    with tracer.start_as_current_span("around") as around:
        alone, _, _ = rig.relay({}, link=link)
        both, _, _ = rig.relay(SAID, link=link)

    assert (alone.parent is None) is link
    assert [each.context.span_id for each in both.links][-1] == at(around).span_id
    if not link:
        assert alone.parent is not None
        assert alone.parent.span_id == at(around).span_id


def test_what_was_current_before_is_current_again(rig: Rig) -> None:
    with rig.tracers.get_tracer("host").start_as_current_span("around") as around:
        with pytest.raises(ZeroDivisionError):
            with rig.remote.received("ping", "notes", SAID, link=True):
                raise ZeroDivisionError
        assert trace.get_current_span() is around
    assert [span.name for span in rig.out.get_finished_spans()] == ["receive ping", "around"]


def test_baggage_of_the_host_is_not_there_meanwhile(rig: Rig) -> None:
    token = context.attach(baggage.set_baggage("user", "alice"))
    try:
        with rig.remote.received("ping", "notes", SAID, link=False):
            assert baggage.get_all() == {}
            with rig.remote.sent("ping", "notes") as carried:
                assert baggage.get_all() == {}
    finally:
        context.detach(token)
    assert carried is not None
    assert "baggage" not in carried


class _Crash(SpanProcessor):
    def __init__(self, when: str) -> None:
        self.when = when

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.when == "start":
            raise RuntimeError

    def on_end(self, span: Any) -> None:
        if self.when == "end":
            raise RuntimeError


@pytest.mark.parametrize(("when", "failures"), [("start", 2), ("end", 2)])
def test_a_broken_tracer_stops_nothing_and_is_counted(when: str, failures: int) -> None:
    tracers, failed = TracerProvider(), list[int]()
    tracers.add_span_processor(_Crash(when))
    remote = Remote(tracers.get_tracer("lictor"), lambda: True, lambda: failed.append(1))
    with remote.received("ping", "notes", SAID, link=False):
        with remote.sent("ping", "notes"):
            ran = True
    assert ran
    assert len(failed) == failures
    tracers.shutdown()


class TestTheRecord:
    """What a decision is recorded under."""

    def test_it_is_our_own_span(self, rig: Rig) -> None:
        with rig.remote.received("ping", "notes", SAID, link=True):
            ids = rig.telemetry.current()
            assert ids.span_id == f"{at(trace.get_current_span()).span_id:016x}"
            assert ids.trace_id != TRACE

    def test_without_tracing_a_trace_of_somebody_far_away_is_none(self) -> None:
        far = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True)
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(far)))
        try:
            assert Telemetry().current().trace_id == ""
        finally:
            context.detach(token)
