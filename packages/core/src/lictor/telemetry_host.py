"""The host's span: found, recognized, remembered.

Rules enforced here:

1. A span is marked with a decision only if it is the one of that tool, and none of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from lictor import telemetry_names as names
from lictor.telemetry_event import NO_IDS, Ids

SCOPE = "lictor"
"""The name under which we emit."""


def host() -> Span:
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


def runs_tool(span: Span, tool: str) -> bool:
    """Whether a span of the host is the span of this tool's execution.

    OpenInference sets its attributes when a run ends; until then only the name tells. Inside the
    span of one tool other things are decided too: what a server asks of its client meanwhile.
    """
    held: Mapping[str, object] = getattr(span, "attributes", None) or {}
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    if scope == SCOPE or held.get(names.GEN_AI_TOOL_NAME, tool) != tool:
        return False
    return (
        held.get("gen_ai.operation.name") == "execute_tool"
        or held.get(names.MCP_METHOD_NAME) == "tools/call"
        or held.get(names.OPENINFERENCE_SPAN_KIND) == "TOOL"
        or getattr(span, "name", "") == tool
    )


def is_remote(span: Span) -> bool:
    """Whether it only stands for what another process has told."""
    return span.get_span_context().is_remote


def ids_of(span: Span) -> Ids:
    """The ids of a span, if it has any."""
    at = span.get_span_context()
    if not at.is_valid:
        return NO_IDS
    return Ids(f"{at.trace_id:032x}", f"{at.span_id:016x}", int(at.trace_flags))


def remembered(ids: Ids) -> Span:
    """A span that stands for the one with these ids."""
    flags = TraceFlags(ids.flags)
    return trace.NonRecordingSpan(
        SpanContext(int(ids.trace_id, 16), int(ids.span_id, 16), False, flags)
    )
