"""From samples to a workload's figures: summed, averaged, accumulated across resets, or omitted. Pure.

A counter seen for the first time adds nothing: what it counted before was not observed. One that is smaller
than before was reset, so all of it is new. NIM's metrics have no prefix, vLLM's have one; a pod that exports
both is counted once, by NIM's.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import isfinite
from uuid import UUID

from watchbill.agent.metrics.devices import PROFILE, Device, DeviceShare, Key, PodName
from watchbill.agent.metrics.exposition import Limit, LimitExceeded, ParsedSample
from watchbill.kinds.objects.pod import Pod
from watchbill.metric_types import DEVICE_METRICS, MAX_DEVICES, MetricType
from watchbill.protocol import MAX_READING, Measured, Reading

RESOURCE_PAGE = "/metrics/resource"
CADVISOR_PAGE = "/metrics/cadvisor"
CPU_COUNTER = "container_cpu_usage_seconds_total"
MEMORY_GAUGE = "container_memory_working_set_bytes"
NODE_CPU_COUNTER = "node_cpu_usage_seconds_total"
NODE_MEMORY_GAUGE = "node_memory_working_set_bytes"
"""Of the whole node, whatever runs on it; on the resource page alone."""
KUBELET_METRICS = (CPU_COUNTER, MEMORY_GAUGE, NODE_CPU_COUNTER, NODE_MEMORY_GAUGE)
MEASURED_PODS = 1_000
"""Of which samples are kept one by one: those with GPUs come first, then the oldest."""
_SUCCESS_REASONS = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True)
class _Figure:
    """A metric type and its metric names; the first that a pod exports counts."""

    names: tuple[str, ...]
    counts: Callable[[ParsedSample], bool] = lambda _: True
    is_mean: bool = False


def _succeeded(sample: ParsedSample) -> bool:
    return sample.labels.get("finished_reason", "stop") in _SUCCESS_REASONS


FIGURES = {
    MetricType.NIM_NUM_REQUESTS_RUNNING: _Figure(
        ("num_requests_running", "vllm:num_requests_running")
    ),
    MetricType.NIM_NUM_REQUESTS_WAITING: _Figure(
        ("num_requests_waiting", "vllm:num_requests_waiting")
    ),
    MetricType.NIM_NUM_REQUEST_MAX: _Figure(("num_request_max",)),
    MetricType.NIM_REQUEST_SUCCESS_TOTAL: _Figure(
        ("request_success_total", "vllm:request_success_total"), _succeeded
    ),
    MetricType.NIM_REQUEST_FAILURE_TOTAL: _Figure(
        ("request_failure_total", "vllm:request_success_total"),
        lambda sample: sample.name == "request_failure_total" or not _succeeded(sample),
    ),
    MetricType.NIM_GPU_CACHE_USAGE_PERC: _Figure(
        ("gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        is_mean=True,
    ),
}
HISTOGRAMS = {
    MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS: (
        "time_to_first_token_seconds_bucket",
        "vllm:time_to_first_token_seconds_bucket",
    ),
    MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS: (
        "e2e_request_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_bucket",
    ),
}
INFERENCE_METRICS = (
    *dict.fromkeys(name for figure in FIGURES.values() for name in figure.names),
    *(name for names in HISTOGRAMS.values() for name in names),
)


MAX_BUCKETS = 100
_BOUND = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One series of a histogram; `key` tells it from the pod's others of the same bound."""

    type: str
    bound: str
    key: int
    count: float


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """The current figures of one pod's server."""

    figures: dict[str, float]
    buckets: list[Bucket]


def read_server(samples: Iterable[ParsedSample]) -> ServerFigures:
    """Raises LimitExceeded for a histogram with too many buckets."""
    by_name: dict[str, list[ParsedSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    figures: dict[str, float] = {}
    for kind, figure in FIGURES.items():
        samples_of_figure = _first(by_name, figure.names)
        if samples_of_figure:
            values = [sample.value for sample in samples_of_figure if figure.counts(sample)]
            figures[kind] = sum(values) / (len(values) or 1) if figure.is_mean else sum(values)
    buckets = [
        Bucket(kind, bound, hash(tuple(sorted(sample.labels.items()))), sample.value)
        for kind, names in HISTOGRAMS.items()
        for sample in _first(by_name, names)
        if (bound := _bound(sample)) is not None
    ]
    for kind in HISTOGRAMS:
        if len({bucket.bound for bucket in buckets if bucket.type == kind}) > MAX_BUCKETS:
            raise LimitExceeded(Limit.BUCKETS, MAX_BUCKETS)
    return ServerFigures(figures, buckets)


def combine(servers: Sequence[ServerFigures]) -> dict[str, float]:
    """One workload's figures from its pods': sums, and means where the figure is a share."""
    figures: dict[str, float] = {}
    for kind, figure in FIGURES.items():
        values = [server.figures[kind] for server in servers if kind in server.figures]
        if values:
            figures[kind] = sum(values) / len(values) if figure.is_mean else sum(values)
    return figures


def _first(by_name: dict[str, list[ParsedSample]], names: Iterable[str]) -> list[ParsedSample]:
    return next((by_name[name] for name in names if name in by_name), [])


def _bound(sample: ParsedSample) -> str | None:
    """The bucket's upper bound, written one way; None where it is no number, or none that a duration has."""
    text = sample.labels.get("le", "")
    if text in ("+Inf", "Inf"):
        return "+Inf"
    if _BOUND.fullmatch(text) is None:
        return None
    bound = float(text)
    return f"{bound:g}" if isfinite(bound) else None


Total = tuple[str, str, str]
"""Workload, metric type, label."""
MAX_LABELS = 100
"""Totals kept of one workload and metric type: a histogram has fewer bounds than that."""


class CounterTotals:
    """Increases of counters since the start."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], dict[Hashable, float]] = {}
        """By pod UID and source, the last value of each counter."""
        self._totals: dict[str, dict[str, dict[str, float]]] = {}
        """By workload, metric type and label."""

    def count(
        self, pod: str, source: str, counters: Mapping[Hashable, tuple[Total, float]]
    ) -> None:
        """Add the increases of all counters of one source of a pod; others of it are forgotten."""
        last = self._last.get((pod, source), {})
        for key, ((root, kind, label), value) in counters.items():
            before = last.get(key)
            increase = 0.0 if before is None else value - before if value >= before else value
            totals = self._totals.setdefault(root, {}).setdefault(kind, {})
            if label in totals or len(totals) < MAX_LABELS:
                totals[label] = totals.get(label, 0.0) + increase
        self._last[pod, source] = {key: value for key, (_, value) in counters.items()}

    def of(self, root: str, kind: str) -> Mapping[str, float]:
        """By label."""
        return self._totals.get(root, {}).get(kind, {})

    def forget(self, pods: Iterable[str], workloads: Iterable[str]) -> None:
        """Keep only these pods and these workloads."""
        live_pods, live_workloads = set(pods), set(workloads)
        self._last = {key: last for key, last in self._last.items() if key[0] in live_pods}
        for root in self._totals.keys() - live_workloads:
            del self._totals[root]


Figures = dict[str, dict[tuple[str, str], float]]
"""By workload, then by metric type and label."""
_NO_CONTAINER = frozenset({"", "POD"})
"""Series of a pod as a whole, which include its containers a second time."""


def gpu_figures(parts: Iterable[DeviceShare]) -> dict[tuple[str, str], float]:
    """Mean utilization; memory and NVLink traffic if no other workload has a share of the device."""
    devices: dict[Key, Device] = {}
    is_alone = True
    for part in parts:
        devices[part.device.key] = part.device
        is_alone = is_alone and part.is_alone
    figures: dict[tuple[str, str], float] = {}
    shown = [devices[key] for key in sorted(devices)]
    each = {device.name: device.utilization for device in shown}
    _add(figures, MetricType.GPU_UTILIZATION, each, is_mean=True)
    if is_alone:
        memory = {device.name: device.memory_bytes for device in shown}
        _add(figures, MetricType.GPU_MEMORY_USAGE_BYTES, memory)
        traffic = {device.name: device.nvlink_bytes_per_second for device in shown}
        _add(figures, MetricType.NVLINK_BANDWIDTH_TOTAL, traffic)
    return figures


def pod_gpu_figures(parts: Sequence[DeviceShare]) -> dict[tuple[str, str], float]:
    """What DCGM's profiling says of the devices that the pod has alone."""
    devices = {part.device.key: part.device for part in parts if part.is_alone}
    return _profile([devices[key] for key in sorted(devices)])


def node_gpu_figures(devices: Iterable[Device]) -> dict[tuple[str, str], float]:
    """Of the physical GPUs of one node."""
    shown = sorted((each for each in devices if not each.key[1]), key=lambda each: each.key)
    figures = _profile(shown)
    if shown:
        each = {device.name: device.utilization for device in shown}
        _add(figures, MetricType.GPU_UTILIZATION, each, is_mean=True)
        memory = {device.name: device.memory_bytes for device in shown}
        _add(figures, MetricType.GPU_MEMORY_USAGE_BYTES, memory)
        traffic = {device.name: device.nvlink_bytes_per_second for device in shown}
        _add(figures, MetricType.NVLINK_BANDWIDTH_TOTAL, traffic)
    return figures


def held_by_gpu(shares: Mapping[str, Iterable[DeviceShare]]) -> dict[str, float | None]:
    """By UUID, how much of each physical GPU pods hold, its slices among it; None = not known."""
    held: dict[str, float | None] = {}
    for part in (part for parts in shares.values() for part in parts):
        uuid = part.device.key[0]
        before = held.get(uuid, 0.0)
        held[uuid] = None if before is None or part.share is None else before + part.share
    return held


def _profile(devices: Sequence[Device]) -> dict[tuple[str, str], float]:
    return {
        (kind, device.name): factor * device.figures[metric]
        for kind, (metric, factor) in PROFILE.items()
        for device in devices[:MAX_DEVICES]
        if metric in device.figures
    }


def _add(
    figures: dict[tuple[str, str], float],
    kind: str,
    each: Mapping[str, float | None],
    *,
    is_mean: bool = False,
) -> None:
    known = {name: value for name, value in each.items() if value is not None}
    if not known:
        return
    total = sum(known.values())
    if is_mean:
        figures[kind, ""] = total / len(known)
    elif len(known) == len(each):
        figures[kind, ""] = total
    if 1 < len(known) <= MAX_DEVICES:
        figures |= {(kind, name): value for name, value in known.items()}


ByContainer = dict[tuple[PodName, str], float]


def count_cpu(
    seconds: ByContainer, pods: Mapping[PodName, tuple[str, Pod]], totals: CounterTotals
) -> Figures:
    """Core-seconds of the containers, accumulated."""
    by_pod: dict[PodName, dict[Hashable, tuple[Total, float]]] = {}
    for (name, container), value in seconds.items():
        if name in pods:
            total = (pods[name][0], MetricType.CPU_USAGE_CORES, "")
            by_pod.setdefault(name, {})[container] = (total, value)
    figures: Figures = {}
    for name, counters in by_pod.items():
        root, pod = pods[name]
        totals.count(pod.uid, "cpu", counters)
        figures[root] = {
            (MetricType.CPU_USAGE_CORES, ""): totals.of(root, MetricType.CPU_USAGE_CORES)[""]
        }
    return figures


def memory_figures(working_sets: ByContainer, pods: Mapping[PodName, tuple[str, Pod]]) -> Figures:
    """Working sets of the containers."""
    figures: Figures = {}
    for (name, _), value in working_sets.items():
        if name in pods:
            own = figures.setdefault(pods[name][0], {})
            key = (MetricType.CPU_MEMORY_USAGE_BYTES, "")
            own[key] = own.get(key, 0.0) + value
    return figures


def by_container(samples: Iterable[ParsedSample]) -> ByContainer:
    """One value per container: of several the largest, for the same may be exported twice."""
    values: ByContainer = {}
    for sample in samples:
        labels = sample.labels
        container = labels.get("container", "")
        if container in _NO_CONTAINER:
            continue
        key = ((labels.get("namespace", ""), labels.get("pod", "")), container)
        values[key] = max(sample.value, values.get(key, 0.0))
    return values


@dataclass(slots=True)
class Subjects:
    """Workloads, or single pods: whose figures a round collects.

    `pods`: every living pod, with the id of what it counts for; of single pods its own.
    """

    pods: Mapping[PodName, tuple[str, Pod]]
    totals: CounterTotals
    figures: Figures = field(default_factory=dict)

    def add(self, part: Figures, incomplete: Set[str]) -> None:
        for subject, values in part.items():
            if subject not in incomplete and values:
                self.figures.setdefault(subject, {}).update(values)

    def on(self, nodes: Set[str]) -> set[str]:
        """Those with a pod on one of the nodes."""
        return {subject for subject, pod in self.pods.values() if pod.node in nodes}


def shown_pods(
    figures: Figures, by_uid: Mapping[str, tuple[str, Pod]], pods: Mapping[str | None, int]
) -> Figures:
    """Of the pods that are reported one by one. `pods`: how many each workload has.

    The only pod of a workload has its workload's figures: of it only those are reported that no workload has.
    """
    own = {
        uid: figures[uid]
        if pods.get(by_uid[uid][0], 0) > 1
        else {key: value for key, value in figures[uid].items() if key[0] in DEVICE_METRICS}
        for uid in figures.keys() & by_uid.keys()
    }
    shown = sorted(filter(own.get, own), key=lambda uid: _turn(by_uid[uid][1]))
    return {uid: own[uid] for uid in shown[:MEASURED_PODS]}


def _turn(pod: Pod) -> tuple[bool, str, str]:
    """Pods with GPUs before others, older ones before newer ones: so each keeps its place."""
    has_devices = bool(pod.resources.extended or pod.claims)
    return not has_devices, pod.created_at.isoformat() if pod.created_at else "", pod.uid


def measured(
    figures: Figures, pods: Mapping[str, tuple[str, Pod]] | None = None
) -> Iterable[Measured]:
    """`pods`: what the figures are of, with their workloads; None = they are of workloads and nodes."""
    for subject, values in figures.items():
        try:
            subject_id = UUID(subject)
            workload_id = None if pods is None else UUID(pods[subject][0])
        except ValueError:
            continue
        if not values:
            continue
        yield Measured(
            subject_id,
            tuple(
                Reading(kind, value, label)
                for (kind, label), value in sorted(values.items())
                if 0 <= value <= MAX_READING
            ),
            workload_id,
        )


@dataclass(frozen=True, slots=True)
class KubeletPage:
    """`node_cpu` and `node_memory`: of the whole node; None where the page has them not."""

    cpu: ByContainer
    memory: ByContainer
    node_cpu: float | None
    node_memory: float | None


def read_kubelet(samples: Sequence[ParsedSample]) -> KubeletPage:
    return KubeletPage(
        by_container(sample for sample in samples if sample.name == CPU_COUNTER),
        by_container(sample for sample in samples if sample.name == MEMORY_GAUGE),
        max((sample.value for sample in samples if sample.name == NODE_CPU_COUNTER), default=None),
        max((sample.value for sample in samples if sample.name == NODE_MEMORY_GAUGE), default=None),
    )
