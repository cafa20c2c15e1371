"""The agent's own metrics for a Prometheus: the pods and devices of each workload, as of the last round.

With these beside the exporters' own series, a store keeps the history of workloads that are gone. Labels are
named so that no scrape configuration renames them.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchbill.agent.cache.cache import Cache
from watchbill.agent.metrics.scrape import Scraper
from watchbill.errors import Unavailable
from watchbill.kinds.objects.resources import allocated_gpus
from watchbill.workload import GPU_MILLIONTHS

Row = tuple[tuple[str, ...], float]
"""The values of a family's labels, and the gauge's."""


class WorkloadCollector(Collector):
    """Gauges that are computed when they are scraped."""

    def __init__(
        self,
        scraper: Scraper,
        cache: Cache,
        gpu_resources: tuple[str, ...],
        derive_seconds: Mapping[str, float],
    ) -> None:
        self._scraper = scraper
        self._cache = cache
        self._gpu_resources = gpu_resources
        self._derive_seconds = derive_seconds

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "watchbill_workload_pod_info",
            "Pods that are bound to a node, with their workload.",
            ("workload_id", "pod_namespace", "pod_name", "pod_uid", "pod_node"),
            self._pods(),
        )
        yield _gauge(
            "watchbill_pod_gpu_allocated",
            "GPUs allocated to a pod.",
            ("workload_id", "pod_namespace", "pod_name", "pod_uid"),
            self._allocated(),
        )
        yield _gauge(
            "watchbill_workload_gpu_share",
            "A workload's share of a device, in GPUs; shared = other workloads have shares too.",
            ("workload_id", "UUID", "GPU_I_ID", "shared"),
            self._shares(),
        )
        yield _gauge(
            "watchbill_workload_idle_gpus",
            "Allocated GPUs of a workload that are idle; absent if no exporter measures them.",
            ("workload_id", "workload", "workload_namespace", "workload_kind"),
            self._idle(),
        )
        yield _gauge(
            "watchbill_agent_scrape_targets",
            "Targets of the last scrape round, by result; limited = not measured because of a limit.",
            ("source", "result"),
            self._targets(),
        )
        yield _gauge(
            "watchbill_agent_shed_objects",
            "Objects of a namespace with more than is kept of one, which are read in part or not at all.",
            ("shed_namespace",),
            self._shed(),
        )
        yield self._exceeded()
        yield self._derived()

    def _derived(self) -> Metric:
        derived = CounterMetricFamily(
            "watchbill_agent_derive_seconds",
            "Processor time spent on the records of a namespace's workloads; small amounts are left out.",
            labels=("derive_namespace",),
        )
        for namespace, seconds in self._derive_seconds.items():
            derived.add_metric((namespace,), seconds)
        return derived

    def _exceeded(self) -> Metric:
        exceeded = CounterMetricFamily(
            "watchbill_agent_scrape_limit_exceeded",
            "Targets not measured because of a limit, since the agent's start.",
            labels=("source", "limit"),
        )
        for pool in self._scraper.pools:
            for limit, count in pool.exceeded.items():
                exceeded.add_metric((pool.kind, limit), count)
        return exceeded

    def _shed(self) -> Iterator[Row]:
        for namespace, count in self._cache.budgets.shed().items():
            yield (namespace,), float(count)

    def _targets(self) -> Iterator[Row]:
        for pool in self._scraper.pools:
            for result, count in pool.results.items():
                yield (pool.kind, result), float(count)

    def _pods(self) -> Iterator[Row]:
        for (namespace, name), (root, pod) in self._scraper.snapshot.pods.items():
            yield (root, namespace, name, pod.uid, pod.node), 1.0

    def _allocated(self) -> Iterator[Row]:
        nodes = self._cache.cluster.node_labels
        for (namespace, name), (root, pod) in self._scraper.snapshot.pods.items():
            allocated = allocated_gpus(
                pod.resources, pod.annotations, nodes.get(pod.node, {}), self._gpu_resources
            )
            if allocated:
                yield (root, namespace, name, pod.uid), float(allocated)

    def _shares(self) -> Iterator[Row]:
        for root, device_shares in self._scraper.snapshot.shares.items():
            by_device: dict[tuple[str, str], float] = {}
            for part in device_shares:
                if part.share is not None:
                    known = by_device.get(part.device.key, 0.0)
                    by_device[part.device.key] = known + part.share
            is_shared = "false" if all(part.is_alone for part in device_shares) else "true"
            for (uuid, instance), share in by_device.items():
                yield (root, uuid, instance, is_shared), share

    def _idle(self) -> Iterator[Row]:
        groups = self._cache.owner_tree.groups
        for root, idle in self._scraper.idle.by_workload.items():
            group = groups.get(root)
            if group is not None and idle.millionths is not None:
                entry = group.root
                labels = (root, entry.name, entry.namespace, entry.key.kind)
                yield labels, idle.millionths / GPU_MILLIONTHS


class Exporter:
    """Serves GET /metrics, and /livez for a kubelet, on its own port, if one is configured."""

    def __init__(
        self,
        scraper: Scraper,
        cache: Cache,
        gpu_resources: tuple[str, ...],
        derive_seconds: Mapping[str, float],
    ) -> None:
        """`derive_seconds`: processor time by namespace, kept by whoever derives."""
        self._registry = CollectorRegistry()
        self._registry.register(WorkloadCollector(scraper, cache, gpu_resources, derive_seconds))

    @asynccontextmanager
    async def listening(self, host: str, port: int | None) -> AsyncIterator[None]:
        """Raises Unavailable if the port cannot be bound."""
        if port is None:
            yield
            return
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        app.router.add_get("/livez", _live)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise Unavailable(
                    f"Cannot listen on {host}:{port}: {error.strerror}.",
                    details="Choose another port in WATCHBILL_AGENT_METRICS_PORT.",
                ) from error
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _live(_: web.Request) -> web.Response:
    """That the loop which watches and reports goes round; no metric is computed for it."""
    return web.json_response({"status": "ok"})


def _gauge(
    name: str, documentation: str, labels: tuple[str, ...], rows: Iterable[Row]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
