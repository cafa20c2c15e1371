"""Metrics pages through the simulated API server's proxy: DCGM exporters, kubelets, inference servers.

They are in Prometheus' text format, under the names and labels that the real exporters use. Activity is a
function of a pod's identity and of time, so nothing has to be kept and counters never go back.
"""

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from simulator.manifests.shared_objects import (
    EXPORTERS_NAMESPACE,
    RESERVATIONS,
    exporter_name,
    reservation_name,
)
from simulator.model.hardware import Node
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.model.names import IMAGES
from simulator.simulation.world import World


@dataclass(frozen=True, slots=True)
class ActivityProfile:
    """Busy at `level` on average (0 to 1), give or take `swing`; a part of all pods never does anything."""

    level: float
    swing: float
    period_seconds: float
    idle_share: float


_PROFILES: Final = {
    "finite": ActivityProfile(0.88, 0.07, 240.0, 0.05),
    "session": ActivityProfile(0.40, 0.30, 900.0, 0.45),
    "serving": ActivityProfile(0.45, 0.25, 1800.0, 0.12),
    "resident": ActivityProfile(0.60, 0.25, 1200.0, 0.35),
    "serverless": ActivityProfile(0.30, 0.20, 600.0, 0.0),
    "recurring": ActivityProfile(0.55, 0.15, 300.0, 0.0),
}
_BUSY_STAGES: Final = ("running",)


def utilization(workload: SimulatedWorkload, pod: SimulatedPod, now: Seconds) -> float:
    """From 0 to 1; exactly 0 where the pod holds devices and does nothing with them."""
    return utilizations(workload, pod, (now,))[0]


def utilizations(
    workload: SimulatedWorkload, pod: SimulatedPod, moments: Sequence[Seconds]
) -> list[float]:
    """The same at each of the moments, for a pod that was then what it is now."""
    profile = _PROFILES[workload.family]
    if pod.stage not in _BUSY_STAGES or _share(pod, "idle") < profile.idle_share:
        return [0.0] * len(moments)
    level, swing, sin = _level(profile, pod), profile.swing, math.sin
    speed, begin = 2 * math.pi / profile.period_seconds, 2 * math.pi * _share(pod, "phase")
    return [max(0.01, min(1.0, level + swing * sin(begin + speed * now))) for now in moments]


def work_done(workload: SimulatedWorkload, pod: SimulatedPod, now: Seconds) -> float:
    """Seconds of full activity since the pod started: the sum of `level` and swing over its time."""
    if not pod.started_at:
        return 0.0
    profile = _PROFILES[workload.family]
    if _share(pod, "idle") < profile.idle_share:
        return 0.002 * max(0.0, now - pod.started_at)
    speed = 2 * math.pi / profile.period_seconds
    swung = math.cos(_angle(profile, pod, pod.started_at)) - math.cos(_angle(profile, pod, now))
    return max(0.0, _level(profile, pod) * (now - pod.started_at) + profile.swing * swung / speed)


def memory_share(pod: SimulatedPod) -> float:
    """How much of its requested memory a pod uses, from 0 to 1."""
    return 0.35 + 0.55 * _share(pod, "memory")


def cpu_seconds(workload: SimulatedWorkload, pod: SimulatedPod, now: Seconds) -> float:
    """Core-seconds that the pod used since it started."""
    cores = workload.shape(pod.role).cpu_millis / 1000
    return work_done(workload, pod, now) * cores * 0.6


def memory_bytes(workload: SimulatedWorkload, pod: SimulatedPod) -> int:
    requested = workload.shape(pod.role).memory_mib * _MEBIBYTE
    return int(requested * memory_share(pod))


def used_memory_mib(node: Node, workload: SimulatedWorkload, pod: SimulatedPod) -> float:
    """Of the memory of each of its GPUs."""
    if not pod.started_at:
        return 0.0
    shape = workload.shape(pod.role)
    portion = node.gpu_share(shape) / 100 if pod.grant.group else 1.0
    return node.pool.gpu_memory_mib * portion * memory_share(pod)


def mig_memory_mib(pod: SimulatedPod) -> float:
    return 4000 * memory_share(pod)


def mig_number(node: Node, profile: str, instance: int) -> int:
    """The number that the driver gives to an instance on its GPU."""
    return _MIG_NUMBERS[profile] + instance // node.pool.gpus


def _level(profile: ActivityProfile, pod: SimulatedPod) -> float:
    return profile.level * (0.9 + 0.2 * _share(pod, "level"))


def _angle(profile: ActivityProfile, pod: SimulatedPod, now: Seconds) -> float:
    return 2 * math.pi * (now / profile.period_seconds + _share(pod, "phase"))


def _share(pod: SimulatedPod, what: str) -> float:
    """A number from 0 to 1 that is the pod's own."""
    return _number(pod.uid, what)


@functools.lru_cache(maxsize=16_384)
def _number(uid: str, what: str) -> float:
    digest = hashlib.blake2s(f"{uid}/{what}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 0xFFFFFFFF


NVLINK_POOLS: Final = ("h100", "a100")
NVLINK_BYTES: Final = 4e10
"""That a busy GPU sends in a second; it receives a little less."""
_PROFILING: Final = (
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0),
    ("DCGM_FI_PROF_SM_ACTIVE", 0.9),
    ("DCGM_FI_PROF_SM_OCCUPANCY", 0.4),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.6),
    ("DCGM_FI_PROF_PIPE_FP16_ACTIVE", 0.2),
    ("DCGM_FI_PROF_DRAM_ACTIVE", 0.5),
    ("DCGM_FI_PROF_PCIE_TX_BYTES", 2e9),
    ("DCGM_FI_PROF_PCIE_RX_BYTES", 3e9),
)
"""What DCGM's profiling tells of a device that is wholly busy."""
_DCGM_PORT: Final = 9400
_MEBIBYTE: Final = 1024 * 1024
_INDEX_SECONDS: Final = 1.0
_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MIG_NUMBERS: Final = {"1g.10gb": 7, "2g.20gb": 3, "3g.40gb": 1}
"""Where the driver begins to number instances of a profile."""
_PREFIXES: Final = {IMAGES["nim"]: "", IMAGES["serve"]: "vllm:"}

Placed = tuple[SimulatedWorkload, SimulatedPod]


class Exporters:
    """Each method answers the page at a proxied path, or None where there is none."""

    def __init__(self, world: World, *, clock: Callable[[], Seconds] = time.time) -> None:
        self._world = world
        self._clock = clock
        self._by_node: dict[str, list[Placed]] = {}
        self._by_name: dict[tuple[str, str], Placed] = {}
        self._indexed_at = 0.0
        self._exporters = {
            exporter_name(node): node for node in world.nodes.values() if node.pool.gpus
        }

    def node_page(self, name: str, path: str) -> bytes | None:
        """A kubelet's."""
        if path != "metrics/resource" or name not in self._world.nodes:
            return None
        return _text(self._kubelet(name))

    def pod_page(self, namespace: str, name: str, port: int, path: str) -> bytes | None:
        """An exporter's or an inference server's."""
        if namespace == EXPORTERS_NAMESPACE and (port, path) == (_DCGM_PORT, "metrics"):
            node = self._exporters.get(name)
            return _text(self._dcgm(node)) if node is not None else None
        self._refresh_index()
        placed = self._by_name.get((namespace, name))
        if placed is None or placed[1].stage != "running" or path not in ("metrics", "v1/metrics"):
            return None
        prefix = _PREFIXES.get(IMAGES[placed[0].shape(placed[1].role).image])
        if prefix is None or (not prefix and path != "v1/metrics"):
            return None
        return _text(self._inference(*placed, prefix))

    def _refresh_index(self) -> None:
        """Pods by node and name, at most a second old."""
        now = self._clock()
        if 0 <= now - self._indexed_at < _INDEX_SECONDS:
            return
        self._indexed_at = now
        self._by_node, self._by_name = {}, {}
        for workload in self._world.workloads.values():
            for pod in workload.pods:
                if pod.holds_resources:
                    self._by_node.setdefault(pod.node, []).append((workload, pod))
                    self._by_name[workload.namespace, pod.name] = (workload, pod)

    def _kubelet(self, node: str) -> Iterable[str]:
        self._refresh_index()
        now = self._clock()
        stamp = int(now * 1000)
        placed = [(w, p) for w, p in self._by_node.get(node, ()) if p.started_at]
        yield "# TYPE container_cpu_usage_seconds_total counter"
        for workload, pod in placed:
            done = cpu_seconds(workload, pod, now)
            labels = _container(workload, pod)
            yield f"container_cpu_usage_seconds_total{{{labels}}} {done:.6f} {stamp}"
        yield "# TYPE container_memory_working_set_bytes gauge"
        for workload, pod in placed:
            labels = _container(workload, pod)
            used = memory_bytes(workload, pod)
            yield f"container_memory_working_set_bytes{{{labels}}} {used} {stamp}"
        yield from _node_series(self._world.nodes[node], now, stamp)

    def _dcgm(self, node: Node) -> Iterable[str]:
        self._refresh_index()
        series = self._mig_series(node) if node.pool.mig else self._whole_series(node)
        lines: dict[str, list[str]] = {}
        for metric, labels, value in series:
            lines.setdefault(metric, []).append(f"{metric}{{{labels}}} {value:.6g}")
        for metric, samples in lines.items():
            yield f"# TYPE {metric} gauge"
            yield from samples

    def _whole_series(self, node: Node) -> Iterable[tuple[str, str, float]]:
        """One GPU after the other; a shared one carries the name of the pod that reserves it."""
        now = self._clock()
        holders: dict[int, list[Placed]] = {}
        for workload, pod in self._by_node.get(node.name, ()):
            for device in pod.grant.devices:
                holders.setdefault(device, []).append((workload, pod))
        for device in range(node.pool.gpus):
            sharing = holders.get(device, [])
            labels = f"{_gpu(node, device)}{_holder(node, device, sharing)}"
            busy = min(1.0, sum(utilization(w, p, now) for w, p in sharing))
            used = sum(used_memory_mib(node, w, p) for w, p in sharing)
            yield "DCGM_FI_DEV_GPU_UTIL", labels, round(100 * busy)
            yield "DCGM_FI_DEV_FB_USED", labels, round(used) + 4
            for metric, per_busy in _PROFILING:
                yield metric, labels, per_busy * busy
            if node.pool.name in NVLINK_POOLS:
                linked = (
                    busy * NVLINK_BYTES
                    if any(len(p.grant.devices) > 1 for _, p in sharing)
                    else 0.0
                )
                yield "DCGM_FI_PROF_NVLINK_TX_BYTES", labels, linked
                yield "DCGM_FI_PROF_NVLINK_RX_BYTES", labels, linked * 0.97

    def _mig_series(self, node: Node) -> Iterable[tuple[str, str, float]]:
        """Instances; they tell how long their engine was active, but no utilization."""
        now = self._clock()
        holders = {
            (workload.shape(pod.role).mig, pod.grant.instance): (workload, pod)
            for workload, pod in self._by_node.get(node.name, ())
            if workload.shape(pod.role).mig
        }
        for profile, count in node.pool.mig:
            for instance in range(count):
                device = instance % node.pool.gpus
                number = mig_number(node, profile, instance)
                holder = holders.get((profile, instance))
                labels = (
                    f'{_gpu(node, device)},GPU_I_PROFILE="{profile}",GPU_I_ID="{number}"'
                    f"{_pod_labels(*holder) if holder else ''}"
                )
                busy = utilization(*holder, now) if holder else 0.0
                for metric, per_busy in _PROFILING:
                    yield metric, labels, per_busy * busy
                yield (
                    "DCGM_FI_DEV_FB_USED",
                    labels,
                    mig_memory_mib(holder[1]) if holder else 12,
                )

    def _inference(
        self, workload: SimulatedWorkload, pod: SimulatedPod, prefix: str
    ) -> Iterable[str]:
        now = self._clock()
        busy = utilization(workload, pod, now)
        done = work_done(workload, pod, now)
        labels = f'model_name="{workload.name}"'
        yield f"{prefix}num_requests_running{{{labels}}} {round(24 * busy)}"
        yield f"{prefix}num_requests_waiting{{{labels}}} {max(0, round(30 * (busy - 0.55)))}"
        cache = "gpu_cache_usage_perc" if not prefix else "kv_cache_usage_perc"
        yield f"{prefix}{cache}{{{labels}}} {0.9 * busy:.4f}"
        served = int(done * 6)
        if prefix:
            name = f"{prefix}request_success_total"
            yield f'{name}{{{labels},finished_reason="stop"}} {served}'
            yield f'{name}{{{labels},finished_reason="abort"}} {served // 400}'
        else:
            yield f"num_request_max{{{labels}}} 256"
            yield f"request_success_total{{{labels}}} {served}"
            yield f"request_failure_total{{{labels}}} {served // 400}"
        yield from _histogram(f"{prefix}time_to_first_token_seconds", labels, served, middle=0.25)
        yield from _histogram(f"{prefix}e2e_request_latency_seconds", labels, served, middle=2.5)


def _histogram(name: str, labels: str, count: int, *, middle: float) -> Iterable[str]:
    """Cumulative, half of it up to the middle."""
    yield f"# TYPE {name} histogram"
    for bound in _BUCKETS:
        part = bound / (bound + middle)
        yield f'{name}_bucket{{{labels},le="{bound:g}"}} {int(count * part)}'
    yield f'{name}_bucket{{{labels},le="+Inf"}} {count}'
    yield f"{name}_sum{{{labels}}} {count * middle:.3f}"
    yield f"{name}_count{{{labels}}} {count}"


def _node_series(node: Node, now: Seconds, stamp: int) -> Iterable[str]:
    """Of the node as a whole: a part of it that is its own and does not change."""
    part = 0.15 + 0.5 * _number(node.name, "node")
    yield "# TYPE node_cpu_usage_seconds_total counter"
    yield f"node_cpu_usage_seconds_total {part * node.pool.cpu_millis / 1000 * now:.3f} {stamp}"
    yield "# TYPE node_memory_working_set_bytes gauge"
    yield f"node_memory_working_set_bytes {int(part * node.pool.memory_mib) * _MEBIBYTE} {stamp}"


def _gpu(node: Node, device: int) -> str:
    return (
        f'gpu="{device}",UUID="{node.device_uuid(device)}",device="nvidia{device}",'
        f'modelName="{node.pool.product}",Hostname="{node.name}"'
    )


def _holder(node: Node, device: int, sharing: list[Placed]) -> str:
    group = next((name for name, index in node.groups.items() if index == device), "")
    if group:
        name = reservation_name(node, group)
        return f',container="resource-reservation",namespace="{RESERVATIONS}",pod="{name}"'
    return _pod_labels(*sharing[0]) if sharing else ""


def _pod_labels(workload: SimulatedWorkload, pod: SimulatedPod) -> str:
    return f",{_container(workload, pod)}"


def _container(workload: SimulatedWorkload, pod: SimulatedPod) -> str:
    container = workload.shape(pod.role).container
    return f'container="{container}",namespace="{workload.namespace}",pod="{pod.name}"'


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
