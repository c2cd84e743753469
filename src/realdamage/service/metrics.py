"""What the service counts, for Prometheus: numbers only, never a name, a path or a pixel of a photo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """In a registry of its own, so that two services in one process count apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"namespace": "realdamage", "registry": self.registry}
        self.requests = Counter(
            "requests", "Requests answered", ["route", "method", "status"], **common
        )
        self.seconds = Histogram(
            "request_seconds",
            "From a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            **common,
        )
        self.photos = Counter(
            "photos", "Photos judged, by outcome; unreadable ones too", ["outcome"], **common
        )
        self.queue = Gauge("queue_photos", "Photos waiting or being judged", **common)
        self.uploads = Gauge("upload_bytes", "Bytes of the requests at hand", **common)
        self.batch_tiles = Histogram(
            "batch_tiles",
            "Tiles in a run of the network",
            buckets=(1, 4, 8, 16, 32, 48, 64, 128),
            **common,
        )
        self.batch_calls = Histogram(
            "batch_calls", "Photos in a run", buckets=(1, 2, 3, 4, 6, 8, 16), **common
        )
        self.claims = Counter(
            "claims", "Claims judged, by recommendation", ["recommendation"], **common
        )
        self.shadow = Counter("shadow_photos", "Photos that the shadow model judged too", **common)
        self.disagreements = Counter(
            "shadow_disagreements", "Of those, with another outcome", ["served", "shadow"], **common
        )
        self.shadow_lost = Counter(
            "shadow_lost", "Photos that it should have judged, but did not", ["why"], **common
        )
        self.reloads = Counter(
            "model_reloads", "Attempts to load the model anew", ["result"], **common
        )
        self.model = Gauge(
            "model_info",
            "Always 1; which model answers",
            ["model_version", "graph_sha256"],
            **common,
        )

    def observe_batch(self, tiles: int, calls: int) -> None:
        """A run of the network with that many tiles from that many calls."""
        self.batch_tiles.observe(tiles)
        self.batch_calls.observe(calls)

    def watch_store(self, free_bytes: Callable[[], float]) -> None:
        """Also show what this returns, read at each scrape."""
        free = Gauge(
            "store_free_bytes",
            "Free on the disk of kept claims",
            namespace="realdamage",
            registry=self.registry,
        )
        free.set_function(free_bytes)

    def show_model(self, model_version: str, graph_sha256: str) -> None:
        """The model that answers from now on."""
        self.model.clear()
        self.model.labels(model_version, graph_sha256).set(1)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
