"""Metrics of one node, from the samples that its cluster's agent pushed.

Only what exporters say of the node as a whole: what a device or a kubelet does not tell is not supported.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from watchbill.metric_types import DEVICE_METRICS, MetricType
from watchbill.metrics.embedded import EmbeddedSamples
from watchbill.metrics.selection import SampledMetric, per_gpu, selected
from watchbill.metrics.source import (
    FailedType,
    MetricsQuery,
    Outcome,
    Reason,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.responses.nodes import NodeResponse
from watchbill.store.metrics.observed import exporter_states
from watchbill.store.postgres.database import Database

NODE_METRICS: Mapping[str, SampledMetric] = {
    "GPU_UTILIZATION": SampledMetric(MetricType.GPU_UTILIZATION),
    **per_gpu("GPU_UTILIZATION_PER_GPU", MetricType.GPU_UTILIZATION),
    "GPU_MEMORY_USAGE_BYTES": SampledMetric(MetricType.GPU_MEMORY_USAGE_BYTES),
    **per_gpu("GPU_MEMORY_USAGE_BYTES_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    "GPU_MEMORY_UTILIZATION": SampledMetric(MetricType.GPU_MEMORY_USAGE_BYTES),
    **per_gpu("GPU_MEMORY_UTILIZATION_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    **per_gpu("GPU_MEMORY_ALLOCATION_BYTES_PER_GPU", "GPU_ALLOCATION_PER_GPU"),
    "NVLINK_BANDWIDTH_TOTAL": SampledMetric(MetricType.NVLINK_BANDWIDTH_TOTAL),
    **per_gpu("NVLINK_BANDWIDTH_TOTAL_PER_GPU", MetricType.NVLINK_BANDWIDTH_TOTAL),
    "CPU_USAGE_CORES": SampledMetric(MetricType.CPU_USAGE_CORES),
    "CPU_UTILIZATION": SampledMetric(MetricType.CPU_USAGE_CORES),
    "CPU_MEMORY_USAGE_BYTES": SampledMetric(MetricType.CPU_MEMORY_USAGE_BYTES),
    "CPU_MEMORY_UTILIZATION": SampledMetric(MetricType.CPU_MEMORY_USAGE_BYTES),
    **{name: SampledMetric(name, is_per_gpu=True) for name in DEVICE_METRICS},
}
"""The contract's types that are measured; all others are not supported."""


def _gpu_memory(node: NodeResponse) -> float | None:
    if node.gpu_memory_bytes is None or not node.capacity.gpus:
        return None
    return node.gpu_memory_bytes * node.capacity.gpus


def _percent_of(whole: float | None) -> float | None:
    return 100 / whole if whole else None


_FACTORS: Mapping[str, Callable[[NodeResponse], float | None]] = {
    "GPU_MEMORY_UTILIZATION": lambda node: _percent_of(_gpu_memory(node)),
    "GPU_MEMORY_UTILIZATION_PER_GPU": lambda node: _percent_of(node.gpu_memory_bytes),
    "GPU_MEMORY_ALLOCATION_BYTES_PER_GPU": lambda node: node.gpu_memory_bytes,
    "CPU_UTILIZATION": lambda node: _percent_of(node.capacity.cpu_cores),
    "CPU_MEMORY_UTILIZATION": lambda node: _percent_of(node.capacity.cpu_memory_bytes),
}
"""What samples are multiplied by; where the node does not tell it, the type is not supported."""


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
    factor = _FACTORS[name](node) if name in _FACTORS else None
    if metric is None or (name in _FACTORS and factor is None):
        yield FailedType(type=name, reason=Reason.UNSUPPORTED)
        return
    yield from selected(name, metric, answered, factor)
