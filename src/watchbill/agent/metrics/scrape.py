"""Scrape rounds over the cluster's exporters, which give samples of workloads, pods and nodes, and idle GPUs.

A workload of which a part could not be scraped gets no figure for that round rather than a wrong one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.targets import AddressClaims, ScrapeTarget, ScrapeTargets, device_id
from watchbill.agent.kubernetes.client import CountBytes
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.metrics.devices import (
    DCGM_METRICS,
    Device,
    DeviceShare,
    Key,
    PodName,
    device_shares,
    node_devices,
    read_devices,
)
from watchbill.agent.metrics.exposition import INFRASTRUCTURE, WORKLOADS
from watchbill.agent.metrics.figures import (
    CADVISOR_PAGE,
    INFERENCE_METRICS,
    KUBELET_METRICS,
    RESOURCE_PAGE,
    ByContainer,
    CounterTotals,
    Figures,
    KubeletPage,
    ServerFigures,
    Subjects,
    combine,
    count_cpu,
    gpu_figures,
    held_by_gpu,
    measured,
    memory_figures,
    node_gpu_figures,
    pod_gpu_figures,
    read_kubelet,
    read_server,
    shown_pods,
)
from watchbill.agent.metrics.idle import IdleGpuWatch, IdleSettings, IdleTimes
from watchbill.agent.metrics.scrape_pool import Fetcher, ScrapeJob, ScrapePool
from watchbill.agent.stream.additions import SampleQueue
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import allocated_gpus
from watchbill.metric_types import DCGM, KUBELET, MAX_DEVICES, SERVER, MetricType
from watchbill.protocol import KindState, Scrape

log = structlog.get_logger(__name__)

CONCURRENT_SCRAPES = 16
"""Of each kind: slow targets of one kind do not delay the others."""
MIN_ROUND_SECONDS = 10.0
SECOND_ROUND_SECONDS = 15.0
"""After the first at the latest: rates, and what is idle, take two."""
MEASURED_WORKLOADS = 1_000
TOO_MANY = (
    "more workloads are measured than the database should keep samples of; "
    "point the server at a Prometheus and set WATCHBILL_AGENT_PUSH_SAMPLES=false"
)
"""Beyond about as many, a metrics store is the better place for samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeSettings:
    interval_seconds: float
    idle: IdleSettings
    gpu_resources: tuple[str, ...]
    pushes: bool = True


@dataclass(slots=True)
class Snapshot:
    """Pods by name and device shares by workload, as of the last round."""

    pods: dict[PodName, tuple[str, Pod]] = field(default_factory=dict)
    shares: dict[str, list[DeviceShare]] = field(default_factory=dict)


class Scraper:
    """`changed` is called with the workloads whose idle GPUs changed."""

    def __init__(
        self,
        settings: ScrapeSettings,
        *,
        fetch: Fetcher,
        targets: ScrapeTargets,
        cache: Cache,
        samples: SampleQueue,
        changed: Callable[[Iterable[str]], None],
        api_server: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`api_server`: its host."""
        self._api_server = api_server
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
        self._pod_totals = CounterTotals()
        self._idle_times = IdleTimes()
        self._counted_since = clock()
        self._without_resource_page: set[str] = set()
        self._inference_paths: dict[str, str] = {}
        self._address_claims = AddressClaims()
        self._is_large = False
        self._round_seconds = max(MIN_ROUND_SECONDS, settings.interval_seconds)
        self._dcgm = ScrapePool(
            DCGM,
            DCGM_METRICS,
            list,
            limits=INFRASTRUCTURE,
            concurrency=CONCURRENT_SCRAPES,
        )
        self._kubelets = ScrapePool(
            KUBELET,
            KUBELET_METRICS,
            read_kubelet,
            limits=INFRASTRUCTURE,
            concurrency=CONCURRENT_SCRAPES,
        )
        self._servers = ScrapePool(
            SERVER,
            INFERENCE_METRICS,
            read_server,
            limits=WORKLOADS,
            concurrency=CONCURRENT_SCRAPES,
            is_strict=False,
            is_optional=True,
        )
        self.pools = (self._dcgm, self._kubelets, self._servers)

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
        """One round every interval, the second one soon, until cancelled; a slow round delays the next."""
        loop = asyncio.get_running_loop()
        while not ready():
            await asyncio.sleep(0.1)
        due = loop.time()
        pause = min(SECOND_ROUND_SECONDS, self._settings.interval_seconds)
        while True:
            await self.round()
            due = max(due + pause, loop.time())
            await asyncio.sleep(due - loop.time())
            pause = self._settings.interval_seconds

    async def round(self) -> None:
        """Scrape every target once; what cannot be scraped within the round's time is omitted."""
        at = self._clock()
        pods = self._living_pods()
        by_uid = {pod.uid: (root, pod) for root, pod in pods.values()}
        workloads = Subjects(pods, self._totals)
        single = Subjects(
            {name: (pod.uid, pod) for name, (_, pod) in pods.items()}, self._pod_totals
        )
        nodes: Figures = {}
        await asyncio.gather(
            self._scrape_exporters(workloads, single, nodes, at),
            self._scrape_kubelets(workloads, single, nodes),
            self._scrape_servers(by_uid, workloads, single),
        )
        self._forget(by_uid, {root for root, _ in pods.values()})
        self.rounds += 1
        if (workloads.figures or nodes) and self._settings.pushes:
            readings = (
                *measured(workloads.figures | nodes),
                *measured(shown_pods(single.figures, by_uid, self._pods_by_workload()), by_uid),
            )
            self._samples.put(Scrape(at=at, counted_since=self._counted_since, workloads=readings))
            self._warn_if_large(len(workloads.figures))
        self._changed(())

    def _pods_by_workload(self) -> Counter[str | None]:
        """How many there are of each, those that have ended too."""
        return Counter(
            entry.root
            for entry in self._cache.owner_tree.entries.values()
            if isinstance(entry.payload, Pod)
        )

    def _living_pods(self) -> dict[PodName, tuple[str, Pod]]:
        """Pods that hold resources now, by name."""
        return {
            (entry.namespace, entry.name): (entry.root, entry.payload)
            for entry in self._cache.owner_tree.entries.values()
            if isinstance(entry.payload, Pod)
            and entry.root is not None
            and entry.payload.node
            and not entry.payload.is_terminal
        }

    async def _scrape_exporters(
        self, workloads: Subjects, single: Subjects, nodes: Figures, at: datetime
    ) -> None:
        exporters = {
            f"{target.namespace}/{target.pod}": target
            for target in self._targets.exporters.values()
        }
        jobs = {
            name: ScrapeJob(partial(self._fetcher.pod, target, target.paths[0], INFRASTRUCTURE))
            for name, target in exporters.items()
        }
        results = await self._dcgm.scrape(
            jobs, seconds=self._round_seconds, hint=self._untrusted_hint()
        )
        devices = read_devices(sample for page in results.pages.values() for sample in page)
        shares, pod_shares = (self._shares(devices, each) for each in (workloads, single))
        self.snapshot = Snapshot(dict(workloads.pods), shares)
        unmeasured = {exporters[name].node for name in results.failures}
        workloads.add(
            {root: gpu_figures(parts) for root, parts in shares.items()}, workloads.on(unmeasured)
        )
        single.add(
            {uid: gpu_figures(parts) | pod_gpu_figures(parts) for uid, parts in pod_shares.items()},
            single.on(unmeasured),
        )
        node_of = {
            device_id(uuid): exporters[name].node
            for name, page in results.pages.items()
            for uuid in {sample.labels.get("UUID", "") for sample in page}
        }
        by_node: dict[str, list[Device]] = {}
        for (uuid, _), device in devices.items():
            if uuid in node_of:
                by_node.setdefault(node_of[uuid], []).append(device)
        silent = self._without_holders(workloads, shares)
        for node, values in self._node_figures(by_node, shares, silent, at):
            nodes.setdefault(self._node_id(node), {}).update(values)
        changed = self.idle.observe(shares, devices, at)
        known = {node: present for node, present in by_node.items() if node not in silent}
        self._cache.cluster.node_devices = node_devices(known, shares, self.idle.devices())
        self._changed(changed)

    def _shares(
        self, devices: Mapping[Key, Device], subjects: Subjects
    ) -> dict[str, list[DeviceShare]]:
        return device_shares(
            devices,
            subjects.pods,
            self._targets.reservations.values(),
            nodes=self._cache.cluster.node_labels,
            gpu_resources=self._settings.gpu_resources,
        )

    def _node_figures(
        self,
        by_node: Mapping[str, list[Device]],
        shares: Mapping[str, list[DeviceShare]],
        silent: Set[str],
        at: datetime,
    ) -> Iterator[tuple[str, dict[tuple[str, str], float]]]:
        idle = self._idle_times.observe(
            (each for present in by_node.values() for each in present), at
        )
        held = held_by_gpu(shares)
        for node, present in by_node.items():
            figures = node_gpu_figures(present)
            for device in [each for each in present if not each.key[1]][:MAX_DEVICES]:
                share = None if node in silent else held.get(device.key[0], 0.0)
                if share is not None:
                    figures["GPU_ALLOCATION_PER_GPU", device.name] = min(1.0, round(share, 6))
                if device.key in idle:
                    figures["GPU_IDLE_TIME_SECONDS_PER_GPU", device.name] = idle[device.key]
            yield node, figures

    def _without_holders(
        self, workloads: Subjects, shares: Mapping[str, list[DeviceShare]]
    ) -> set[str]:
        """Nodes whose exporter names no pod although pods hold GPUs there: who holds which is not known."""
        labels, resources = self._cache.cluster.node_labels, self._settings.gpu_resources
        holding = {
            pod.node
            for _, pod in workloads.pods.values()
            if pod.resources.extended
            and allocated_gpus(pod.resources, pod.annotations, labels.get(pod.node, {}), resources)
            != 0
        }
        return holding - {part.pod.node for parts in shares.values() for part in parts}

    def _node_id(self, name: str) -> str:
        """ "" for a node that cannot be read."""
        details = self._cache.cluster.node_details.get(name)
        return "" if details is None else details.uid

    def _untrusted_hint(self) -> str | None:
        if self._targets.exporters or not self._targets.untrusted_exporters:
            return None
        namespaces = sorted(
            {target.namespace for target in self._targets.untrusted_exporters.values()}
        )
        return (
            f"There are exporters in {', '.join(namespaces[:3])}, which is not a trusted namespace; "
            "add it to WATCHBILL_AGENT_EXPORTER_NAMESPACES."
        )

    async def _scrape_kubelets(self, workloads: Subjects, single: Subjects, nodes: Figures) -> None:
        existing = self._existing({pod.node for _, pod in workloads.pods.values()})
        jobs = {node: ScrapeJob(partial(self._kubelet, node)) for node in existing}
        results = await self._kubelets.scrape(jobs, seconds=self._round_seconds)
        cpu: ByContainer = {}
        memory: ByContainer = {}
        for node, page in results.pages.items():
            cpu |= page.cpu
            memory |= page.memory
            self._add_node(nodes, self._node_id(node), page)
        for subjects in (workloads, single):
            incomplete = subjects.on(results.failures.keys())
            subjects.add(count_cpu(cpu, subjects.pods, subjects.totals), incomplete)
            subjects.add(memory_figures(memory, subjects.pods), incomplete)

    def _add_node(self, nodes: Figures, node_id: str, page: KubeletPage) -> None:
        values = nodes.setdefault(node_id, {})
        cpu, memory = MetricType.CPU_USAGE_CORES, MetricType.CPU_MEMORY_USAGE_BYTES
        if page.node_cpu is not None:
            self._totals.count(node_id, "node", {"": ((node_id, cpu, ""), page.node_cpu)})
            values[cpu, ""] = self._totals.of(node_id, cpu)[""]
        if page.node_memory is not None:
            values[memory, ""] = page.node_memory

    def _existing(self, nodes: set[str]) -> set[str]:
        """Those that are Ready, whatever runs there, and those of pods. A pod's author may name any node; where
        nodes cannot be read, all of them may exist."""
        known = self._cache.cluster.node_labels
        if not known:
            return nodes
        details = self._cache.cluster.node_details
        return {node for node in nodes if node in known} | {
            name for name, each in details.items() if each.is_ready and not each.is_virtual
        }

    async def _kubelet(self, node: str, count: CountBytes) -> bytes:
        if node not in self._without_resource_page:
            try:
                return await self._fetcher.node(node, RESOURCE_PAGE, INFRASTRUCTURE, count)
            except ApiFailure as failure:
                if failure.kind is not ErrorKind.ABSENT:
                    raise
                self._without_resource_page.add(node)
        return await self._fetcher.node(node, CADVISOR_PAGE, INFRASTRUCTURE, count)

    async def _scrape_servers(
        self,
        by_uid: Mapping[str, tuple[str, Pod]],
        workloads: Subjects,
        single: Subjects,
    ) -> None:
        servers = {
            target.uid: target
            for target in self._targets.inference.values()
            if target.uid in by_uid and by_uid[target.uid][1].is_ready
        }
        objections = self._objections(servers)
        names = {uid: f"{target.namespace}/{target.pod}" for uid, target in servers.items()}
        jobs = {
            names[uid]: ScrapeJob(
                partial(self._server, target, objections[uid]),
                target.namespace,
            )
            for uid, target in servers.items()
        }
        results = await self._servers.scrape(jobs, seconds=self._round_seconds)
        by_root: dict[str, list[str]] = {}
        for uid in names:
            by_root.setdefault(by_uid[uid][0], []).append(uid)
        for subjects, groups in ((workloads, by_root), (single, {uid: [uid] for uid in names})):
            for subject, uids in groups.items():
                if not any(names[uid] in results.failures for uid in uids):
                    pages = {uid: results.pages[names[uid]] for uid in uids}
                    figures = self._server_figures(subject, pages, subjects.totals)
                    subjects.add({subject: figures}, frozenset())

    def _objections(self, servers: Mapping[str, ScrapeTarget]) -> dict[str, str | None]:
        """By pod UID, why a server's address is not believed."""
        pods = {
            uid: entry.payload.ip
            for uid, entry in self._cache.owner_tree.entries.items()
            if isinstance(entry.payload, Pod) and entry.payload.ip and not entry.payload.is_terminal
        }
        nodes = {
            name: details.addresses for name, details in self._cache.cluster.node_details.items()
        }
        self._address_claims.update(pods, nodes)
        return {
            uid: self._address_claims.objection(target, self._api_server())
            for uid, target in servers.items()
        }

    def _server_figures(
        self, root: str, pages: Mapping[str, ServerFigures], counted: CounterTotals
    ) -> dict[tuple[str, str], float]:
        """`pages`: of all servers of one workload, or of one pod, by pod UID."""
        figures = {(kind, ""): value for kind, value in combine(list(pages.values())).items()}
        for uid, page in pages.items():
            counted.count(
                uid,
                "server",
                {
                    (bucket.type, bucket.key): ((root, bucket.type, bucket.bound), bucket.count)
                    for bucket in page.buckets
                },
            )
        for kind in {bucket.type for page in pages.values() for bucket in page.buckets}:
            totals = counted.of(root, kind)
            figures |= {(kind, bound): value for bound, value in totals.items()}
        return figures

    async def _server(
        self, target: ScrapeTarget, objection: str | None, count: CountBytes
    ) -> bytes:
        """The page at the first path that exists; the path is remembered."""
        if objection is not None:
            raise ApiFailure(ErrorKind.REFUSED, objection)
        known = self._inference_paths.get(target.uid)
        for path in (known,) if known else target.paths:
            try:
                body = await self._fetcher.pod(target, path, WORKLOADS, count)
            except ApiFailure as failure:
                if failure.kind is not ErrorKind.ABSENT or path == target.paths[-1]:
                    self._inference_paths.pop(target.uid, None)
                    raise
            else:
                self._inference_paths[target.uid] = path
                return body
        self._inference_paths.pop(target.uid, None)
        raise ApiFailure(ErrorKind.ABSENT, "no path has a page of metrics")

    def _forget(self, by_uid: Mapping[str, tuple[str, Pod]], roots: set[str]) -> None:
        nodes = {details.uid for details in self._cache.cluster.node_details.values()}
        self._totals.forget(by_uid.keys() | nodes, roots | nodes)
        self._pod_totals.forget(by_uid.keys(), by_uid.keys())
        self.idle.forget(self._cache.owner_tree.groups.keys())
        for uid in self._inference_paths.keys() - by_uid.keys():
            del self._inference_paths[uid]

    def _warn_if_large(self, workloads: int) -> None:
        is_large = workloads > MEASURED_WORKLOADS
        if is_large and not self._is_large:
            log.warning(TOO_MANY, workloads=workloads)
        self._is_large = is_large
