"""Writes a simulated cluster's past into the product's database, before its agent tells of the present.

It takes the way that an agent's batches take, but for their bounds in time: who accounts usage, counts idle
hours or draws phases later finds what it would have found, had the agent been there all along. Samples are
those of `exporters`, computed at past moments instead of rendered as a page now.
"""

import asyncio
import copy
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from simulator.model.hardware import Node
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.past.ended import MOST_ENDED, draw_ended
from simulator.past.history import Historian, PastItems, in_rounds
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
from watchbill.errors import Unavailable
from watchbill.identity import FIRST_TENANT_ID
from watchbill.metric_types import MAX_DEVICES, MetricType
from watchbill.protocol import Delete, Upsert
from watchbill.store.metrics.measured import (
    PastSamples,
    Series,
    measured_backfill,
    partitions_make,
)
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.deletion import workload_delete
from watchbill.store.workloads.write import record_write

TRIES: Final = 20
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


_BATCH: Final = 200
_PER_TURN: Final = 5
"""Histories that are made before others may run."""
_Item = TypeVar("_Item")


async def record_histories(
    db: Database,
    world: World,
    cluster_id: UUID,
    *,
    seed: int,
    idle_window: timedelta,
    now: Seconds,
) -> int:
    """Write what workloads asked for, held and left idle: those that live, and others that are gone.

    Returns how many they are.
    """
    historian = Historian(world, cluster_id, seed=seed, window=idle_window)
    histories: list[PastItems] = []
    ended = draw_ended(world, seed=seed, number=min(len(world.workloads), MOST_ENDED), now=now)
    for number, history in enumerate(
        [
            *map(historian.of_living, list(world.workloads.values())),
            *map(historian.of_ended, ended),
        ]
    ):
        if number % _PER_TURN == 0:
            await asyncio.sleep(0)
        if history is not None:
            histories.append(history)
    await _write(db, cluster_id, histories, datetime.fromtimestamp(now, UTC))
    return len(histories)


async def _write(
    db: Database, cluster_id: UUID, histories: Sequence[PastItems], now: datetime
) -> None:
    async def write(batch: Sequence[Upsert]) -> None:
        async with db.transaction(FIRST_TENANT_ID) as connection:
            await record_write(connection, FIRST_TENANT_ID, cluster_id, batch, now)

    async def delete(batch: Sequence[Delete]) -> None:
        async with db.transaction(FIRST_TENANT_ID) as connection:
            await workload_delete(connection, FIRST_TENANT_ID, cluster_id, batch, now)

    for upserts in in_rounds(histories):
        for batch in _batches(upserts):
            await repeated(partial(write, batch))
    deletes = [history.delete for history in histories if history.delete is not None]
    for removed in _batches(deletes):
        await repeated(partial(delete, removed))


async def record_samples(db: Database, world: World, *, now: Seconds, stop: asyncio.Event) -> None:
    """Write a day of what exporters measured, until `stop` is set."""

    async def write(past: PastSamples) -> None:
        async with db.transaction(FIRST_TENANT_ID) as connection:
            await measured_backfill(connection, FIRST_TENANT_ID, past)

    first, last = (datetime.fromtimestamp(at, UTC) for at in (now - PAST_SECONDS, now))
    await repeated(partial(partitions_make, db, first, last))
    for past in past_samples(world, now=now):
        if stop.is_set():
            return
        await repeated(partial(write, past))


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), _BATCH):
        yield items[first : first + _BATCH]


async def repeated(work: Callable[[], Awaitable[object]]) -> None:
    """Until it is done; so often at most. What was done in part is done as a whole the next time.

    Raises what it raised at last, or at once where a later moment would bring the same.
    """
    for _ in range(TRIES - 1):
        try:
            await work()
        except (Unavailable, ExceptionGroup) as error:
            seconds = _pause_seconds(error)
            if seconds is None:
                raise
            await asyncio.sleep(seconds)
        else:
            return
    await work()


def _pause_seconds(error: Unavailable | ExceptionGroup[Exception]) -> float | None:
    """None where a later moment would bring the same."""
    if isinstance(error, Unavailable):
        return error.retry_after_seconds
    pauses = [
        _pause_seconds(each) if isinstance(each, Unavailable | ExceptionGroup) else None
        for each in error.exceptions
    ]
    return None if None in pauses else max(filter(None, pauses), default=None)
