"""What exporters would have told of a workload in the day before the demo began, as agents report it.

The figures are those of `exporters`, computed at past moments instead of rendered as a page now.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from simulator.model.hardware import Node
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.simulation.exporters import (
    NVLINK_BYTES,
    NVLINK_POOLS,
    Placed,
    cpu_seconds,
    memory_bytes,
    mig_memory_mib,
    mig_number,
    used_memory_mib,
    utilizations,
)
from simulator.simulation.world import World
from watchbill.metric_types import MAX_DEVICES, MetricType
from watchbill.store.metrics.measured import PastSamples, Series

PAST_SECONDS: Final = 24 * 3600.0
SPACING_SECONDS: Final = 110.0
"""Below the two minutes for which a sample is good."""
_MEBIBYTE: Final = 1024 * 1024
_Column = Sequence[float]
"""A figure of each moment."""


@dataclass(frozen=True, slots=True)
class _Device:
    """One GPU or MIG instance that a workload holds."""

    label: str
    utilization: _Column
    """Percent."""
    memory_bytes: float
    nvlink: _Column
    """Bytes a second; empty where there is none."""
    is_alone: bool
    """No other workload has a share of it."""


def past_samples(world: World, *, now: Seconds) -> Iterable[PastSamples]:
    """Of every workload that has run for a while, one after the other; the world may change meanwhile."""
    running: list[tuple[SimulatedWorkload, list[SimulatedPod]]] = []
    holders: dict[tuple[str, int], list[Placed]] = {}
    for workload in world.workloads.values():
        held = [copy.copy(pod) for pod in workload.pods if pod.holds_resources]
        for pod in held:
            for device in pod.grant.devices:
                holders.setdefault((pod.node, device), []).append((workload, pod))
        if pods := [pod for pod in held if pod.stage == "running"]:
            running.append((workload, pods))
    for workload, pods in running:
        yield _samples(workload, pods, world.nodes, holders, now)


def _samples(
    workload: SimulatedWorkload,
    pods: list[SimulatedPod],
    nodes: Mapping[str, Node],
    holders: Mapping[tuple[str, int], list[Placed]],
    now: Seconds,
) -> PastSamples:
    first = max(now - PAST_SECONDS, max(pod.started_at for pod in pods))
    number = max(0, math.ceil((now - first) / SPACING_SECONDS))
    moments = [now - SPACING_SECONDS * index for index in range(number, 0, -1)]
    devices = [
        device
        for pod in pods
        for device in _devices(workload, pod, nodes[pod.node], holders, moments)
    ]
    columns = dict(_columns(workload, pods, devices, moments))
    return PastSamples(
        workload_id=UUID(workload.uid),
        counted_since=datetime.fromtimestamp(first, UTC),
        series=list(columns),
        at=[datetime.fromtimestamp(moment, UTC) for moment in moments],
        figures=list(itertools.chain.from_iterable(zip(*columns.values(), strict=True))),
    )


def _devices(
    workload: SimulatedWorkload,
    pod: SimulatedPod,
    node: Node,
    holders: Mapping[tuple[str, int], list[Placed]],
    moments: Sequence[Seconds],
) -> Iterable[_Device]:
    busy = utilizations(workload, pod, moments)
    profile = workload.shape(pod.role).mig
    if profile:
        uuid = node.device_uuid(pod.grant.instance % node.pool.gpus)
        label = f"{uuid}/{mig_number(node, profile, pod.grant.instance)}"
        memory = mig_memory_mib(pod) * _MEBIBYTE
        yield _Device(label, [100 * part for part in busy], memory, (), is_alone=True)
    has_link = node.pool.name in NVLINK_POOLS
    is_linked = has_link and len(pod.grant.devices) > 1
    linked = [part * 1.97 * NVLINK_BYTES * is_linked for part in busy] if has_link else []
    for index in pod.grant.devices:
        sharing = holders[pod.node, index]
        if len(sharing) > 1:
            parts = zip(*(utilizations(*placed, moments) for placed in sharing), strict=True)
            busy = [min(1.0, sum(part)) for part in parts]
        memory = (round(sum(used_memory_mib(node, *placed) for placed in sharing)) + 4) * _MEBIBYTE
        yield _Device(
            node.device_uuid(index),
            [float(round(100 * part)) for part in busy],
            memory,
            linked,
            is_alone=all(other is workload for other, _ in sharing),
        )


def _columns(
    workload: SimulatedWorkload,
    pods: list[SimulatedPod],
    devices: list[_Device],
    moments: Sequence[Seconds],
) -> Iterable[tuple[Series, _Column]]:
    used = [sum(cpu_seconds(workload, pod, at) for pod in pods) for at in moments]
    yield (MetricType.CPU_USAGE_CORES, ""), used
    memory = float(sum(memory_bytes(workload, pod) for pod in pods))
    yield (MetricType.CPU_MEMORY_USAGE_BYTES, ""), [memory] * len(moments)
    if not devices:
        return
    utilization = {device.label: device.utilization for device in devices}
    yield from _whole_and_each(MetricType.GPU_UTILIZATION, utilization, 1 / len(devices))
    if all(device.is_alone for device in devices):
        sizes = {device.label: [device.memory_bytes] * len(moments) for device in devices}
        yield from _whole_and_each(MetricType.GPU_MEMORY_USAGE_BYTES, sizes)
        if all(device.nvlink for device in devices):
            links = {device.label: device.nvlink for device in devices}
            yield from _whole_and_each(MetricType.NVLINK_BANDWIDTH_TOTAL, links)


def _whole_and_each(
    kind: MetricType, by_device: Mapping[str, _Column], share: float = 1.0
) -> Iterable[tuple[Series, _Column]]:
    """The workload as a whole, and each device where there are several."""
    yield (kind, ""), [share * sum(parts) for parts in zip(*by_device.values(), strict=True)]
    if 1 < len(by_device) <= MAX_DEVICES:
        for label, column in by_device.items():
            yield (kind, label), column
