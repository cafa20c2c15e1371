"""Rounds over the cluster's exporters: what they tell becomes samples of workloads, and idle GPUs.

A workload of which a part could not be asked gets no figure for that moment rather than a wrong one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.targets import ScrapeTarget, ScrapeTargets
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.metrics.devices import (
    DCGM_METRICS,
    DeviceShare,
    PodName,
    device_shares,
    read_devices,
)
from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.agent.metrics.figures import (
    CounterTotals,
    Figures,
    count_cpu,
    gpu_figures,
    memory_figures,
)
from watchbill.agent.metrics.idle import IdleGpuWatch, IdleSettings
from watchbill.agent.metrics.inference import INFERENCE_METRICS, combine, read_server
from watchbill.agent.metrics.sample_queue import SampleQueue
from watchbill.agent.metrics.scrape_pool import Fetcher, ScrapePool
from watchbill.kinds.objects.pod import Pod
from watchbill.protocol import KindState, Measured, Reading, Scrape

log = structlog.get_logger(__name__)

CONCURRENT_SCRAPES = 16
MEASURED_WORKLOADS = 1_000
TOO_MANY = (
    "more workloads are measured than the database should keep samples of; "
    "point the server at a Prometheus and set WATCHBILL_AGENT_PUSH_SAMPLES=false"
)
"""Beyond about as many, a metrics store is the better place for samples."""
CPU_COUNTER = "container_cpu_usage_seconds_total"
MEMORY_GAUGE = "container_memory_working_set_bytes"
RESOURCE_PAGE = "/metrics/resource"
CADVISOR_PAGE = "/metrics/cadvisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeSettings:
    interval_seconds: float
    idle: IdleSettings
    gpu_resources: tuple[str, ...]
    pushes: bool = True


@dataclass(slots=True)
class Snapshot:
    """Who holds what, as of the last round."""

    pods: dict[PodName, tuple[str, Pod]] = field(default_factory=dict)
    shares: dict[str, list[DeviceShare]] = field(default_factory=dict)


class Scraper:
    """`changed` is told which workloads' idle GPUs differ from before."""

    def __init__(
        self,
        settings: ScrapeSettings,
        *,
        fetch: Fetcher,
        targets: ScrapeTargets,
        cache: Cache,
        samples: SampleQueue,
        changed: Callable[[Iterable[str]], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.idle = IdleGpuWatch(settings.idle)
        self.snapshot = Snapshot()
        self.rounds = 0
        self._settings = settings
        self._fetcher = fetch
        self._targets = targets
        self._cache = cache
        self._samples = samples
        self._changed = changed
        self._clock = clock
        self._totals = CounterTotals()
        self._counted_since = clock()
        self._without_resource_page: set[str] = set()
        self._inference_paths: dict[str, str] = {}
        self._is_large = False
        slots = asyncio.Semaphore(CONCURRENT_SCRAPES)
        self._dcgm = ScrapePool("DCGM exporter", DCGM_METRICS, slots)
        self._kubelets = ScrapePool("kubelet", (CPU_COUNTER, MEMORY_GAUGE), slots)
        self._servers = ScrapePool(
            "inference server", INFERENCE_METRICS, slots, is_strict=False, has_always=True
        )

    def states(self) -> tuple[KindState, ...]:
        dcgm = self._dcgm.state
        if dcgm is not None:
            window = self._settings.idle.window.total_seconds()
            dcgm = msgspec.structs.replace(dcgm, idle_after_seconds=window)
            if self._is_large and dcgm.message is None:
                dcgm = msgspec.structs.replace(dcgm, message=TOO_MANY)
        states = (dcgm, self._kubelets.state, self._servers.state)
        return tuple(state for state in states if state is not None)

    async def run(self, ready: Callable[[], bool]) -> None:
        """One round every interval, for ever; a slow round delays the next, and none is made up for."""
        loop = asyncio.get_running_loop()
        while not ready():
            await asyncio.sleep(0.1)
        due = loop.time()
        while True:
            try:
                async with asyncio.timeout(max(10.0, 2 * self._settings.interval_seconds)):
                    await self.round()
            except TimeoutError:
                log.warning("a round over the exporters took too long and was given up")
            due = max(due + self._settings.interval_seconds, loop.time())
            await asyncio.sleep(due - loop.time())

    async def round(self) -> None:
        """Ask everybody once."""
        at = self._clock()
        pods = self._living_pods()
        by_uid = {pod.uid: (root, pod) for root, pod in pods.values()}
        figures: Figures = {}
        await asyncio.gather(
            self._scrape_exporters(pods, figures, at),
            self._scrape_kubelets(pods, figures),
            self._scrape_servers(by_uid, figures),
        )
        self._forget(by_uid, {root for root, _ in pods.values()})
        self.rounds += 1
        if figures and self._settings.pushes:
            self._samples.put(
                Scrape(
                    at=at, counted_since=self._counted_since, workloads=tuple(_measured(figures))
                )
            )
            self._warn_if_large(len(figures))
        self._changed(())

    def _living_pods(self) -> dict[PodName, tuple[str, Pod]]:
        """Pods that hold something now, by name."""
        return {
            (entry.namespace, entry.name): (entry.root, entry.payload)
            for entry in self._cache.owner_tree.entries.values()
            if isinstance(entry.payload, Pod)
            and entry.root is not None
            and entry.payload.node
            and not entry.payload.is_terminal
        }

    async def _scrape_exporters(
        self, pods: Mapping[PodName, tuple[str, Pod]], figures: Figures, at: datetime
    ) -> None:
        exporters = {
            f"{target.namespace}/{target.pod}": target
            for target in self._targets.exporters.values()
        }
        asks = {name: partial(self._fetcher.pod, t, t.paths[0]) for name, t in exporters.items()}
        answers = await self._dcgm.scrape(asks, hint=self._untrusted_hint())
        devices = read_devices(sample for page in answers.pages.values() for sample in page)
        held = device_shares(
            devices,
            pods,
            self._targets.reservations.values(),
            nodes=self._cache.cluster.node_labels,
            gpu_resources=self._settings.gpu_resources,
        )
        self.snapshot = Snapshot(dict(pods), held)
        silent = {exporters[name].node for name in answers.failures}
        incomplete = {root for root, pod in pods.values() if pod.node in silent}
        for root, parts in held.items():
            if root not in incomplete:
                figures.setdefault(root, {}).update(gpu_figures(parts))
        self._changed(self.idle.observe(held, devices, at))

    def _untrusted_hint(self) -> str | None:
        if self._targets.exporters or not self._targets.untrusted_exporters:
            return None
        places = sorted({target.namespace for target in self._targets.untrusted_exporters.values()})
        return (
            f"There are exporters in {', '.join(places[:3])}, which is not among the namespaces "
            "that are believed; name it in WATCHBILL_AGENT_EXPORTER_NAMESPACES."
        )

    async def _scrape_kubelets(
        self, pods: Mapping[PodName, tuple[str, Pod]], figures: Figures
    ) -> None:
        nodes = {pod.node for _, pod in pods.values()}
        answers = await self._kubelets.scrape(
            {node: partial(self._kubelet, node) for node in nodes}
        )
        by_metric: dict[str, list[ParsedSample]] = {CPU_COUNTER: [], MEMORY_GAUGE: []}
        for page in answers.pages.values():
            for sample in page:
                by_metric[sample.name].append(sample)
        incomplete = {root for root, pod in pods.values() if pod.node in answers.failures}
        for root, found in count_cpu(by_metric[CPU_COUNTER], pods, self._totals).items():
            if root not in incomplete:
                figures.setdefault(root, {}).update(found)
        for root, found in memory_figures(by_metric[MEMORY_GAUGE], pods).items():
            if root not in incomplete:
                figures.setdefault(root, {}).update(found)

    async def _kubelet(self, node: str) -> bytes:
        if node not in self._without_resource_page:
            try:
                return await self._fetcher.node(node, RESOURCE_PAGE)
            except ApiFailure as failure:
                if failure.kind is not ErrorKind.ABSENT:
                    raise
                self._without_resource_page.add(node)
        return await self._fetcher.node(node, CADVISOR_PAGE)

    async def _scrape_servers(
        self, by_uid: Mapping[str, tuple[str, Pod]], figures: Figures
    ) -> None:
        servers = {
            target.uid: target
            for target in self._targets.inference.values()
            if target.uid in by_uid and by_uid[target.uid][1].is_ready
        }
        names = {uid: f"{target.namespace}/{target.pod}" for uid, target in servers.items()}
        answers = await self._servers.scrape(
            {names[uid]: partial(self._server, target) for uid, target in servers.items()}
        )
        tellings: dict[str, list[str]] = {}
        for uid in names:
            tellings.setdefault(by_uid[uid][0], []).append(uid)
        for root, uids in tellings.items():
            if any(names[uid] in answers.failures for uid in uids):
                continue
            told = {uid: read_server(answers.pages[names[uid]]) for uid in uids}
            found = figures.setdefault(root, {})
            found.update({(kind, ""): v for kind, v in combine(list(told.values())).items()})
            for uid, server in told.items():
                for bucket in server.buckets:
                    total = (root, bucket.type, bucket.bound)
                    self._totals.count(total, (uid, bucket.type, bucket.key), bucket.count)
                    found[bucket.type, bucket.bound] = self._totals.of(total)

    async def _server(self, target: ScrapeTarget) -> bytes:
        """The page at the first path that there is; that one is remembered."""
        known = self._inference_paths.get(target.uid)
        for path in (known,) if known else target.paths:
            try:
                body = await self._fetcher.pod(target, path)
            except ApiFailure as failure:
                if failure.kind is not ErrorKind.ABSENT or path == target.paths[-1]:
                    self._inference_paths.pop(target.uid, None)
                    raise
            else:
                self._inference_paths[target.uid] = path
                return body
        self._inference_paths.pop(target.uid, None)
        raise ApiFailure(ErrorKind.ABSENT, "there is no page of metrics")

    def _forget(self, by_uid: Mapping[str, tuple[str, Pod]], roots: set[str]) -> None:
        self._totals.forget(by_uid, roots)
        self.idle.forget(self._cache.owner_tree.groups.keys())
        for uid in self._inference_paths.keys() - by_uid.keys():
            del self._inference_paths[uid]

    def _warn_if_large(self, workloads: int) -> None:
        is_large = workloads > MEASURED_WORKLOADS
        if is_large and not self._is_large:
            log.warning(TOO_MANY, workloads=workloads)
        self._is_large = is_large


def _measured(figures: Figures) -> Iterable[Measured]:
    for root, found in figures.items():
        try:
            workload_id = UUID(root)
        except ValueError:
            continue
        yield Measured(
            workload_id,
            tuple(Reading(kind, value, label) for (kind, label), value in sorted(found.items())),
        )
