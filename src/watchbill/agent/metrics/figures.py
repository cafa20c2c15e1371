"""Counters of containers and servers, accumulated per workload across resets and deletions. Pure.

A counter seen for the first time adds nothing: what it counted before was not observed. One that is smaller
than before was reset, so all of it is new.

From samples to a workload's figures: summed, averaged, accumulated, or omitted. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence

from watchbill.agent.metrics.devices import Device, DeviceShare, Key, PodName
from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.kinds.objects.pod import Pod

Counter = tuple[str, ...]
"""One series of one pod, the pod's UID first."""
Total = tuple[str, str, str]
"""Workload, metric type, label."""


class CounterTotals:
    """What has been counted since the start."""

    def __init__(self) -> None:
        self._last: dict[Counter, float] = {}
        self._totals: dict[Total, float] = {}

    def count(self, total: Total, counter: Counter, value: float) -> None:
        before = self._last.get(counter)
        self._last[counter] = value
        added = 0.0 if before is None else value - before if value >= before else value
        self._totals[total] = self._totals.get(total, 0.0) + added

    def of(self, total: Total) -> float:
        return self._totals[total]

    def forget(self, pods: Iterable[str], workloads: Iterable[str]) -> None:
        """Keep only what concerns these pods and these workloads."""
        living, known = set(pods), set(workloads)
        self._last = {key: value for key, value in self._last.items() if key[0] in living}
        self._totals = {key: value for key, value in self._totals.items() if key[0] in known}


GPUS_SHOWN_EACH = 16
"""Workloads with more GPUs are reported as a whole only."""

Figures = dict[str, dict[tuple[str, str], float]]
"""By workload, then by metric type and label."""
_NO_CONTAINER = frozenset({"", "POD"})
"""Series of a pod as a whole, which include its containers a second time."""


def gpu_figures(parts: Iterable[DeviceShare]) -> dict[tuple[str, str], float]:
    """Mean utilisation; memory and NVLink traffic if no other workload has a share of the device."""
    devices: dict[Key, Device] = {}
    is_alone = True
    for part in parts:
        devices[part.device.key] = part.device
        is_alone = is_alone and part.is_alone
    figures: dict[tuple[str, str], float] = {}
    shown = [devices[key] for key in sorted(devices)]
    each = {device.name: device.utilization for device in shown}
    _add(figures, "GPU_UTILIZATION", each, is_mean=True)
    if is_alone:
        memory = {device.name: device.memory_bytes for device in shown}
        _add(figures, "GPU_MEMORY_USAGE_BYTES", memory)
        traffic = {device.name: device.nvlink_bytes_per_second for device in shown}
        _add(figures, "NVLINK_BANDWIDTH_TOTAL", traffic)
    return figures


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
    if 1 < len(known) <= GPUS_SHOWN_EACH:
        figures |= {(kind, name): value for name, value in known.items()}


def count_cpu(
    samples: Sequence[ParsedSample], pods: Mapping[PodName, tuple[str, Pod]], totals: CounterTotals
) -> Figures:
    """Core-seconds of the containers, accumulated."""
    figures: Figures = {}
    for (name, container), value in _by_container(samples).items():
        if name in pods:
            root, pod = pods[name]
            total = (root, "CPU_USAGE_CORES", "")
            totals.count(total, (pod.uid, "cpu", container), value)
            figures.setdefault(root, {})["CPU_USAGE_CORES", ""] = totals.of(total)
    return figures


def memory_figures(
    samples: Sequence[ParsedSample], pods: Mapping[PodName, tuple[str, Pod]]
) -> Figures:
    """Working sets of the containers."""
    figures: Figures = {}
    for (name, _), value in _by_container(samples).items():
        if name in pods:
            own = figures.setdefault(pods[name][0], {})
            key = ("CPU_MEMORY_USAGE_BYTES", "")
            own[key] = own.get(key, 0.0) + value
    return figures


def _by_container(samples: Iterable[ParsedSample]) -> dict[tuple[PodName, str], float]:
    """One value per container: of several the largest, for the same may be exported twice."""
    figures: dict[tuple[PodName, str], float] = {}
    for sample in samples:
        labels = sample.labels
        container = labels.get("container", "")
        if container in _NO_CONTAINER:
            continue
        key = ((labels.get("namespace", ""), labels.get("pod", "")), container)
        figures[key] = max(sample.value, figures.get(key, 0.0))
    return figures
