"""Metrics of one node, from the samples that its cluster's agent pushed; and of one cluster, from the fleet's
figures as they are recorded every five minutes.

Of a node only what exporters say of it as a whole: what a device or a kubelet does not tell is not supported.
Of a cluster nothing is recorded by node pool or category, and no utilization.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.metric_types import MetricType
from watchbill.metrics.embedded import EmbeddedSamples
from watchbill.metrics.figures import decimal_text
from watchbill.metrics.source import (
    FailedType,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.responses.fleet import FleetMoment
from watchbill.responses.nodes import NodeResponse
from watchbill.store.fleet.fleet import fleet_series
from watchbill.store.metrics.measured import exporter_states
from watchbill.store.postgres.database import Database


@dataclass(frozen=True, slots=True)
class NodeMetric:
    """`sampled`: the type whose samples it is read from. `whole_of`: what 100 percent are, of a share."""

    sampled: MetricType
    is_per_gpu: bool = False
    whole_of: Callable[[NodeResponse], float | None] | None = None


def _gpu_memory(node: NodeResponse) -> float | None:
    if node.gpu_memory_bytes is None or not node.capacity.gpus:
        return None
    return node.gpu_memory_bytes * node.capacity.gpus


NODE_METRICS: dict[str, NodeMetric] = {
    "GPU_UTILIZATION": NodeMetric(MetricType.GPU_UTILIZATION),
    "GPU_UTILIZATION_PER_GPU": NodeMetric(MetricType.GPU_UTILIZATION, is_per_gpu=True),
    "GPU_MEMORY_USAGE_BYTES": NodeMetric(MetricType.GPU_MEMORY_USAGE_BYTES),
    "GPU_MEMORY_USAGE_BYTES_PER_GPU": NodeMetric(
        MetricType.GPU_MEMORY_USAGE_BYTES, is_per_gpu=True
    ),
    "GPU_MEMORY_UTILIZATION": NodeMetric(MetricType.GPU_MEMORY_USAGE_BYTES, whole_of=_gpu_memory),
    "GPU_MEMORY_UTILIZATION_PER_GPU": NodeMetric(
        MetricType.GPU_MEMORY_USAGE_BYTES,
        is_per_gpu=True,
        whole_of=lambda node: node.gpu_memory_bytes,
    ),
    "NVLINK_BANDWIDTH_TOTAL": NodeMetric(MetricType.NVLINK_BANDWIDTH_TOTAL),
    "NVLINK_BANDWIDTH_TOTAL_PER_GPU": NodeMetric(
        MetricType.NVLINK_BANDWIDTH_TOTAL, is_per_gpu=True
    ),
    "CPU_USAGE_CORES": NodeMetric(MetricType.CPU_USAGE_CORES),
    "CPU_UTILIZATION": NodeMetric(
        MetricType.CPU_USAGE_CORES, whole_of=lambda node: node.capacity.cpu_cores
    ),
    "CPU_MEMORY_USAGE_BYTES": NodeMetric(MetricType.CPU_MEMORY_USAGE_BYTES),
    "CPU_MEMORY_UTILIZATION": NodeMetric(
        MetricType.CPU_MEMORY_USAGE_BYTES, whole_of=lambda node: node.capacity.cpu_memory_bytes
    ),
}
"""The contract's types that are measured; all others are not supported."""


async def node_outcomes(
    db: Database, scope: Scope, node: NodeResponse, query: MetricsQuery, now: datetime
) -> list[Outcome]:
    """Outcomes in the order of the types, of a node that is in scope as a whole."""
    sampled = tuple(
        dict.fromkeys(NODE_METRICS[name].sampled for name in query.types if name in NODE_METRICS)
    )
    about = WorkloadContext(
        workload_id=node.id,
        namespace="",
        cluster_name="",
        known=tuple(at for at in query.instants() if at <= now),
        observed=await exporter_states(db, scope.tenant_id, node.cluster_uuid),
        node_cluster_id=node.cluster_uuid,
    )
    samples = EmbeddedSamples(db)
    answered = await samples.measured(about, scope, query, sampled, now) if sampled else []
    return [outcome for name in query.types for outcome in _of_type(name, node, answered)]


def _of_type(name: str, node: NodeResponse, answered: Sequence[Outcome]) -> Iterator[Outcome]:
    metric = NODE_METRICS.get(name)
    whole = metric.whole_of(node) if metric is not None and metric.whole_of is not None else None
    if metric is None or (metric.whole_of is not None and not whole):
        yield FailedType(type=name, reason=Reason.UNSUPPORTED)
        return
    own = [outcome for outcome in answered if outcome.type == metric.sampled]
    failed = [outcome for outcome in own if isinstance(outcome, FailedType)]
    if failed:
        yield replace(failed[0], type=name)
        return
    series = [outcome for outcome in own if isinstance(outcome, Measurement)]
    if metric.is_per_gpu:
        series = [each for each in series if each.labels] or series
    else:
        series = [each for each in series if not each.labels]
    for each in series or [Measurement(type=name, samples=())]:
        yield replace(each, type=name, samples=tuple(_scaled(each.samples, whole)))


def _scaled(samples: Sequence[MetricPoint], whole: float | None) -> Iterator[MetricPoint]:
    """As percent of the whole; as they are where there is none."""
    for sample in samples:
        text = sample.value if whole is None else decimal_text(100 * float(sample.value) / whole)
        if text is not None:
            yield MetricPoint(sample.at, text)


Figure = Callable[[FleetMoment], float | None]


def _unallocated(moment: FleetMoment) -> float | None:
    total = moment.gpus.total
    return None if total is None else max(0.0, total - moment.gpus.allocated)


CLUSTER_METRICS: Mapping[str, Figure] = {
    "TOTAL_GPU": lambda moment: moment.gpus.total,
    "ALLOCATED_GPU": lambda moment: moment.gpus.allocated,
    "UNALLOCATED_GPU": _unallocated,
    "WORKLOADS_COUNT": lambda moment: moment.workloads,
}
"""The contract's types that are recorded; all others are not supported."""


async def cluster_outcomes(
    db: Database,
    tenant_id: int,
    cluster_id: UUID,
    query: MetricsQuery,
    now: datetime,
    *,
    is_divided: bool,
) -> list[Outcome]:
    """Outcomes in the order of the types. `is_divided`: by groups or by node pool."""
    supported = [name for name in query.types if name in CLUSTER_METRICS and not is_divided]
    moments: Sequence[FleetMoment] = ()
    step_seconds = 0
    if supported and query.number_of_samples:
        scope = Scope(tenant_id, cluster_ids=frozenset({cluster_id}))
        # A moment before the first instant is the present one there.
        start = query.start - query.step
        series = await fleet_series(db, scope, start=start, end=query.end, now=now)
        moments, step_seconds = series.moments, series.step_seconds
    window = timedelta(seconds=2 * step_seconds)
    return [
        Measurement(
            type=name,
            samples=tuple(_points(CLUSTER_METRICS[name], moments, query, now, window)),
        )
        if name in supported
        else FailedType(type=name, reason=Reason.UNSUPPORTED)
        for name in query.types
    ]


def _points(
    figure: Figure,
    moments: Sequence[FleetMoment],
    query: MetricsQuery,
    now: datetime,
    window: timedelta,
) -> Iterator[MetricPoint]:
    """At each instant the last moment before it, if it is not older than two steps of the record."""
    times = [moment.at for moment in moments]
    for instant in query.instants() if moments else ():
        index = bisect_right(times, instant) - 1
        if instant > now or index < 0 or instant - times[index] > window:
            continue
        value = figure(moments[index])
        text = None if value is None else decimal_text(value)
        if text is not None:
            yield MetricPoint(instant, text)
