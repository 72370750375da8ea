"""Spans of the demo, kept in memory and drawn as a tree; nothing without the OpenTelemetry SDK.

The demo plays the part of the application here: it configures a provider, which Lictor never does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Tracing:
    """A tracer provider with a memory, if the SDK is installed."""

    def __init__(self) -> None:
        self.provider: Any = None
        self._memory: Any = None
        try:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        except ImportError:
            return
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def span(self, name: str) -> AbstractContextManager[Any]:
        """The application's own span around the agent run."""
        if self.provider is None:
            return nullcontext()
        manager: AbstractContextManager[Any] = self.provider.get_tracer(
            "demo"
        ).start_as_current_span(name)
        return manager

    def tree(self) -> list[str]:
        """The spans, children indented under their parents, in order of time."""
        if self._memory is None:
            return []
        spans = sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time)
        lines: list[str] = []

        def draw(parent: int | None, indent: str) -> None:
            for span in spans:
                if (span.parent.span_id if span.parent else None) == parent:
                    lines.append(f"{indent}{span.name}{_told(span.attributes)}")
                    draw(span.context.span_id, indent + "  ")

        draw(None, "")
        return lines


def _told(attributes: Any) -> str:
    verdict = (attributes or {}).get("lictor.decision.verdict")
    if verdict is None:
        return ""
    return f"  [{verdict}: {attributes.get('lictor.decision.reason')}]"
