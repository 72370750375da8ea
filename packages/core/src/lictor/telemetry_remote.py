"""One trace over several processes: spans of a relay, and the context that messages carry.

Rules enforced here:

1. What another process says of its trace is a place to hang spans on, or to link, and nothing more.
   It is nobody's identity, and no record stands under it.
2. What is malformed or oversized was not said: no error, and nothing of it in a log.
3. Whom we do not trust chooses neither our trace nor whether it is sampled: a new one begins, and
   links to his.
4. Where nobody has set up tracing, nothing goes along: a message passes as it came.
5. Baggage is neither read nor passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lictor import telemetry_names as names

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
MAX_STATE: Final = 512

_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?")
_ENTRY: Final = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_W3C: Final = TraceContextTextMapPropagator()


class Remote:
    """Spans of a relay, between the trace that a message came with and the one it goes on in.

    Args:
        tracer: Makes them.
        tracing: Whether anybody wants spans here and now.
        failed: Told of each thing that goes wrong; nothing is ever raised.
    """

    def __init__(
        self, tracer: Tracer, tracing: Callable[[], bool], failed: Callable[[], None]
    ) -> None:
        self._tracer, self._tracing, self._failed = tracer, tracing, failed

    @contextmanager
    def received(
        self, method: str, server: str, said: Mapping[str, object], *, link: bool
    ) -> Iterator[None]:
        """While open, what happens belongs to a message that has come.

        Args:
            method: Of the message; one of a closed list.
            server: The server it is for.
            said: What the message carries: `traceparent`, `tracestate`.
            link: Begin a trace of our own, and link to the one that it names.
        """
        span = self._begin(lambda: self._received(method, server, said, link))
        with self._current(span):
            yield

    @contextmanager
    def sent(self, method: str, server: str) -> Iterator[Mapping[str, str] | None]:
        """While open, a message is on its way to a server.

        Yields:
            What it has to carry instead of whatever it carried; `None`: it goes as it came.
        """
        span = self._begin(lambda: self._sent(method, server))
        with self._current(span):
            yield None if span is None else self._carried(span)

    def _begin(self, make: Callable[[], Span]) -> Span | None:
        try:
            if not self._tracing():
                return None
            above = trace.get_current_span().get_span_context()
            span = make()
            found = span.get_span_context()
            ours = found.is_valid and not found.is_remote and found.span_id != above.span_id
        except Exception:
            self._failed()
            return None
        return span if ours else None  # a tracer that does nothing hands the parent back

    def _received(self, method: str, server: str, said: Mapping[str, object], link: bool) -> Span:
        remote = _read(said)
        around = trace.get_current_span()
        links, parent = [], around
        if remote is not None and not link:
            parent = trace.NonRecordingSpan(remote)
        elif remote is not None:
            links.append(
                Link(SpanContext(remote.trace_id, remote.span_id, True, remote.trace_flags))
            )
        if link:
            parent = trace.INVALID_SPAN
        if parent is not around and around.get_span_context().is_valid:
            links.append(Link(around.get_span_context()))
        return self._tracer.start_span(
            f"{names.SPAN_RECEIVE} {method}",
            trace.set_span_in_context(parent, Context()),
            SpanKind.SERVER,
            {names.MCP_METHOD_NAME: method, names.TOOL_SERVER: server},
            links,
        )

    def _sent(self, method: str, server: str) -> Span:
        return self._tracer.start_span(
            f"{names.SPAN_SEND} {method}",
            trace.set_span_in_context(trace.get_current_span(), Context()),
            SpanKind.CLIENT,
            {names.MCP_METHOD_NAME: method, names.TOOL_SERVER: server},
        )

    @contextmanager
    def _current(self, span: Span | None) -> Iterator[None]:
        if span is None:
            yield
            return
        # A context of its own: whoever injects baggage meanwhile finds none.
        token = context.attach(trace.set_span_in_context(span, Context()))
        try:
            yield
        finally:
            context.detach(token)
            try:
                span.end()
            except Exception:
                self._failed()

    def _carried(self, span: Span) -> Mapping[str, str] | None:
        found: dict[str, str] = {}
        try:
            _W3C.inject(found, trace.set_span_in_context(span, Context()))
        except Exception:
            self._failed()
            return None
        return found


def _read(said: Mapping[str, object]) -> SpanContext | None:
    """The context that a message carries, if it carries one that can be read."""
    parent, state = said.get(PARENT), said.get(STATE)
    if not isinstance(parent, str) or not _PARENT.fullmatch(parent):
        return None
    carrier = {PARENT: parent}
    if isinstance(state, str) and _is_state(state):
        carrier[STATE] = state
    found = trace.get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    return found if found.is_valid else None


def _is_state(text: str) -> bool:
    if len(text) > MAX_STATE:
        return False
    entries = [each.strip(" \t") for each in text.split(",")]
    return all(not each or _ENTRY.fullmatch(each) for each in entries)
