"""What a search server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "ovd_search_requests",
            "Requests to /retrieve, by HTTP status.",
            ["code"],
            registry=self.registry,
        )
        self._errors = Counter(
            "ovd_search_errors",
            "Requests to /retrieve that were not answered with 200.",
            registry=self.registry,
        )
        self.queries = Counter(
            "ovd_search_queries", "Queries that were searched for.", registry=self.registry
        )
        self._seconds = Histogram(
            "ovd_search_request_seconds",
            "From a request to its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._engine_seconds = Histogram(
            "ovd_search_engine_seconds",
            "One call of the engine, a batch of queries.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "ovd_search_batch_queries",
            "Queries in one call of the engine.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self._waiting = Gauge(
            "ovd_search_waiting_queries", "Queries that wait.", registry=self.registry
        )
        self.answered = 0
        """Requests answered with 200."""

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Ask ``waiting`` for the length of the queue whenever the metrics are read."""
        self._waiting.set_function(waiting)

    def request(self, code: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(code=str(code)).inc()
        self._seconds.observe(seconds)
        if code == 200:
            self.answered += 1
        else:
            self._errors.inc()

    def engine_call(self, queries: int, seconds: float) -> None:
        """Count one call of the engine."""
        self._batch.observe(queries)
        self._engine_seconds.observe(seconds)
