"""Beside an instrumentation of the host: one trace, our span under the tool's, none for a probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lictor.telemetry import Telemetry
from lictor_langchain import create_agent
from lictor_langchain.testing import Scene, ScriptedModel, calls

openinference = pytest.importorskip("openinference.instrumentation.langchain")


@tool
def look(n: int) -> str:
    """Looks."""
    return f"saw {n}"


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = openinference.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield provider, exporter
    instrumentor.uninstrument()
    provider.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_decision_hangs_under_the_tools_span(
    host: Callable[..., Scene], spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    made = host(look, telemetry=Telemetry(tracer_provider=provider))
    agent = create_agent(ScriptedModel(script=[calls(("look", {"n": 1}))]), [look], gate=made.gate)
    before = exporter.get_finished_spans()

    with made.task():
        agent.invoke({"messages": [("user", "go")]})

    found: dict[str, Any] = {span.name: span for span in exporter.get_finished_spans()}
    assert before == ()
    assert len({span.context.trace_id for span in found.values()}) == 1
    parent = found["authorize look"].parent
    assert parent is not None
    assert parent.span_id == found["look"].context.span_id
