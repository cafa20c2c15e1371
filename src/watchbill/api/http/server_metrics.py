"""The server's own metrics: requests, and how its background work is doing."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchbill.background import Background


class BackgroundCollector(Collector):
    """Every loop's last success and failures, read when they are asked for."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def collect(self) -> Iterator[Metric]:
        succeeded = GaugeMetricFamily(
            "watchbill_background_last_success_timestamp_seconds",
            "Unix time at which a background task last succeeded; absent until it has.",
            labels=["task"],
        )
        failures = CounterMetricFamily(
            "watchbill_background_failures",
            "Failed rounds of a background task since the start.",
            labels=["task"],
        )
        for state in self._background.states.values():
            failures.add_metric([state.name], state.failures)
            if state.last_success_at is not None:
                succeeded.add_metric([state.name], state.last_success_at.timestamp())
        yield succeeded
        yield failures


class ServerMetrics:
    """The server's own metrics. Labels come from the route table, never from a caller."""

    def __init__(self, background: Background) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(BackgroundCollector(background))
        self.requests = Counter(
            "watchbill_requests",
            "HTTP requests by operation, method and status.",
            ("operation", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "watchbill_request_seconds",
            "HTTP request duration in seconds.",
            ("operation",),
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "watchbill_requests_in_progress", "HTTP requests in progress.", registry=self.registry
        )
