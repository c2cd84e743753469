"""What the service counts, for Prometheus, and logs, as JSON lines: no photo, name or text."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LOGGER = logging.getLogger("realdamage.service")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MODEL = ("model_version", "graph_sha256")


class Metrics:
    """The figures of one service; several services in a process count apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        ours: Any = {"namespace": "realdamage", "registry": self.registry}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, **ours)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, **ours)

        self.requests = counter("requests", "Requests answered", "route", "method", "status")
        self.seconds = Histogram(
            "request_seconds", "Time to the answer", ["route"], buckets=_SECONDS, **ours
        )
        self.photos = counter("photos", "Photos by outcome, unreadable ones too", "outcome")
        self.claims = counter("claims", "Claims by recommendation", "recommendation")
        self.webhooks = counter("webhooks", "Requests to webhook targets by what follows", "status")
        self.queue = gauge("queue_photos", "Photos that wait or are being judged")
        self.uploads = gauge("upload_bytes", "Bytes of the current requests")
        self.reloads = counter("model_reloads", "Attempts to load the model", "result")
        self.model = gauge("model_info", "1 for the model that answers", *_MODEL)

    def watch_store(self, free_bytes: Callable[[], float]) -> None:
        """Also report what this returns, read at each scrape."""
        text = "Free bytes on the disk of the claim store"
        free = Gauge("store_free_bytes", text, namespace="realdamage", registry=self.registry)
        free.set_function(free_bytes)

    def show_model(self, model_version: str, graph_sha256: str) -> None:
        """The model that answers from now on."""
        self.model.clear()
        self.model.labels(model_version, graph_sha256).set(1)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """A log record as one JSON object; `extra={"fields": {…}}` adds fields to it."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def configure_logging() -> None:
    """Log to standard error as JSON. Called by the command, never on import."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [output], False
        logger.setLevel(logging.INFO)


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log one line with these fields."""
    LOGGER.log(level, event, extra={"fields": fields})
