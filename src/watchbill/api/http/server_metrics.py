"""The server's own metrics: requests, and how its background work is doing."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchbill.api.http.listen import Certificate
from watchbill.background import Background
from watchbill.store.postgres.standby import Standby


class BackgroundCollector(Collector):
    """Every loop's last success and failures, read when they are asked for."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def collect(self) -> Iterator[Metric]:
        overdue = GaugeMetricFamily(
            "watchbill_background_overdue",
            "1 where a background task has missed three rounds in a row.",
            labels=["task"],
        )
        now = self._background.clock()
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
            overdue.add_metric([state.name], float(state.is_stale(now)))
            if state.last_success_at is not None:
                succeeded.add_metric([state.name], state.last_success_at.timestamp())
        yield succeeded
        yield failures
        yield overdue


class StandbyCollector(Collector):
    """How old what the standby shows may be, where there is one."""

    def __init__(self, standby: Standby) -> None:
        self._standby = standby

    def collect(self) -> Iterator[Metric]:
        seconds = self._standby.staleness_seconds()
        yield GaugeMetricFamily(
            "watchbill_standby_up",
            "1 while reads go to the standby; 0 while it is too far behind, or away.",
            value=float(seconds is not None),
        )
        if seconds is not None:
            yield GaugeMetricFamily(
                "watchbill_standby_staleness_seconds",
                "How old what the standby shows may be; absent while nobody reads it.",
                value=seconds,
            )


class CertificateCollector(Collector):
    """Until when the server's own certificate holds, where it has one."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate

    def collect(self) -> Iterator[Metric]:
        if self._certificate.expires_at is not None:
            yield GaugeMetricFamily(
                "watchbill_certificate_expires_timestamp_seconds",
                "Unix time at which the certificate that new connections get expires.",
                value=self._certificate.expires_at.timestamp(),
            )


class ServerMetrics:
    """The server's own metrics. Labels come from the route table, never from a caller."""

    def __init__(
        self,
        background: Background,
        standby: Standby | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(BackgroundCollector(background))
        if standby is not None:
            self.registry.register(StandbyCollector(standby))
        if certificate is not None:
            self.registry.register(CertificateCollector(certificate))
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
        self.in_progress = 0
        in_progress = Gauge(
            "watchbill_requests_in_progress", "HTTP requests in progress.", registry=self.registry
        )
        in_progress.set_function(lambda: self.in_progress)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def note(self, operation: str, method: str, status: int, seconds: float) -> None:
        """A request that was answered. Finding a metric by its labels takes longer than counting."""
        key = (operation, method, status)
        known = self._known.get(key)
        if known is None:
            known = self.requests.labels(*key), self.seconds.labels(operation)
            self._known[key] = known
        requests, durations = known
        requests.inc()
        durations.observe(seconds)
