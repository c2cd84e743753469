"""Sends the spans of requests to an OpenTelemetry collector, with `--traces`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from realdamage import __version__
from realdamage.core.spans import trace_with
from realdamage.errors import MissingExtraError


def start_traces(url: str, exporter: Any = None) -> Callable[[], None]:
    """Trace from now on; returns what ends it. url: of the collector (OTLP over HTTP). exporter:
    takes the spans instead. Raises MissingExtraError without the extra "otel"."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtraError("--traces", "otel", error.name) from error

    about = {"service.name": "realdamage", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(url)))
    trace_with(provider.get_tracer("realdamage", __version__))

    def stop() -> None:
        trace_with(None)
        provider.shutdown()

    return stop
