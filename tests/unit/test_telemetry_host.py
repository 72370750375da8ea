"""Rules of lictor.telemetry_host: which span is marked with a decision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from lictor.telemetry_host import runs_tool

MCP = {"mcp.method.name": "tools/call"}


@pytest.fixture
def tracers() -> Iterator[TracerProvider]:
    made = TracerProvider()
    yield made
    made.shutdown()


@pytest.mark.parametrize(
    ("told", "marked"),
    [
        (MCP, True),
        ({**MCP, "gen_ai.tool.name": "refund"}, True),
        ({**MCP, "gen_ai.tool.name": "other"}, False),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "other"}, False),
        ({"gen_ai.operation.name": "execute_tool"}, True),
        ({"mcp.method.name": "tools/list"}, False),
    ],
)
def test_a_span_is_marked_with_decisions_about_its_own_tool_alone(
    tracers: TracerProvider, told: dict[str, str], marked: bool
) -> None:
    span = tracers.get_tracer("host").start_span("tools/call", attributes=told)

    assert runs_tool(span, "refund") is marked


def test_a_span_of_ours_is_never_marked(tracers: TracerProvider) -> None:
    assert not runs_tool(tracers.get_tracer("lictor").start_span("x", attributes=MCP), "refund")
