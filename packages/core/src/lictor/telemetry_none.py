"""Telemetry that nobody hears: exporters of a program are told of no calls that were made up."""

from __future__ import annotations

from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from lictor.telemetry import Telemetry


def unheard() -> Telemetry:
    """For a gate that only rehearses."""
    return Telemetry(NoOpTracerProvider(), NoOpMeterProvider(), NoOpLoggerProvider())
