"""Metrics of one node and of one pod, from the samples that their cluster's agent pushed.

Of a node only what exporters say of it as a whole: what a device or a kubelet does not tell is not supported.
Pods have samples of their own where their workload had several. While it had this one alone, the workload's are
the pod's; only what is measured of single devices is always the pod's own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from watchbill.metric_types import DEVICE_METRICS, METRICS, MetricType
from watchbill.metrics.figures import decimal_text, steps
from watchbill.metrics.pushed import PushedSamples
from watchbill.metrics.source import (
    FailedType,
    Histogram,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.responses.nodes import NodeResponse
from watchbill.store.metrics.measured import pod_samples_id
from watchbill.store.metrics.observed import exporter_states, observed_cluster_get
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.pods import pod_life_get
from watchbill.store.workloads.usage_steps import usage_list

GPU_LABEL = "gpu"


@dataclass(frozen=True, slots=True)
class SampledMetric:
    """`sampled`: the type whose samples it is read from. `is_per_gpu`: by device, not as a whole."""

    sampled: str
    is_per_gpu: bool = False


def _per_gpu(name: str, sampled: str | None = None) -> dict[str, SampledMetric]:
    """The type of single devices beside that of all; `sampled` None = it has samples of its own."""
    return {name: SampledMetric(sampled or name, is_per_gpu=True)}


def _of_type(
    name: str,
    metric: SampledMetric | None,
    answered: Sequence[Outcome],
    factor: float | None = None,
) -> Iterator[Outcome]:
    """What answers the type: at least one outcome. `factor`: what values are multiplied by."""
    if metric is None:
        yield FailedType(type=name, reason=Reason.UNSUPPORTED)
        return
    own = [outcome for outcome in answered if outcome.type == metric.sampled]
    failed = [outcome for outcome in own if isinstance(outcome, FailedType)]
    if failed:
        yield replace(failed[0], type=name)
        return
    histograms = [outcome for outcome in own if isinstance(outcome, Histogram)]
    yield from (replace(each, type=name) for each in histograms)
    series = _chosen([each for each in own if isinstance(each, Measurement)], metric)
    if not series and not histograms:
        series = [Measurement(type=name, samples=())]
    for each in series:
        yield replace(each, type=name, samples=tuple(_scaled(each.samples, factor)))


def _chosen(series: Sequence[Measurement], metric: SampledMetric) -> Sequence[Measurement]:
    if metric.is_per_gpu:  # of a single device there is only the whole
        return [each for each in series if GPU_LABEL in each.labels] or series
    return [each for each in series if GPU_LABEL not in each.labels]


def _scaled(samples: Iterable[MetricPoint], factor: float | None) -> Iterator[MetricPoint]:
    for sample in samples:
        text = sample.value if factor is None else decimal_text(factor * float(sample.value))
        if text is not None:
            yield MetricPoint(sample.at, text)


NODE_METRICS: Mapping[str, SampledMetric] = {
    "GPU_UTILIZATION": SampledMetric(MetricType.GPU_UTILIZATION),
    **_per_gpu("GPU_UTILIZATION_PER_GPU", MetricType.GPU_UTILIZATION),
    "GPU_MEMORY_USAGE_BYTES": SampledMetric(MetricType.GPU_MEMORY_USAGE_BYTES),
    **_per_gpu("GPU_MEMORY_USAGE_BYTES_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    "GPU_MEMORY_UTILIZATION": SampledMetric(MetricType.GPU_MEMORY_USAGE_BYTES),
    **_per_gpu("GPU_MEMORY_UTILIZATION_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    **_per_gpu("GPU_MEMORY_ALLOCATION_BYTES_PER_GPU", "GPU_ALLOCATION_PER_GPU"),
    "NVLINK_BANDWIDTH_TOTAL": SampledMetric(MetricType.NVLINK_BANDWIDTH_TOTAL),
    **_per_gpu("NVLINK_BANDWIDTH_TOTAL_PER_GPU", MetricType.NVLINK_BANDWIDTH_TOTAL),
    "CPU_USAGE_CORES": SampledMetric(MetricType.CPU_USAGE_CORES),
    "CPU_UTILIZATION": SampledMetric(MetricType.CPU_USAGE_CORES),
    "CPU_MEMORY_USAGE_BYTES": SampledMetric(MetricType.CPU_MEMORY_USAGE_BYTES),
    "CPU_MEMORY_UTILIZATION": SampledMetric(MetricType.CPU_MEMORY_USAGE_BYTES),
    **{name: SampledMetric(name, is_per_gpu=True) for name in DEVICE_METRICS},
}
"""The contract's types that are measured of nodes; all others are not supported."""


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
    samples = PushedSamples(db)
    answered = await samples.measured(about, scope, query, sampled, now) if sampled else []
    return [outcome for name in query.types for outcome in _of_node(name, node, answered)]


def _of_node(name: str, node: NodeResponse, answered: Sequence[Outcome]) -> Iterator[Outcome]:
    factor = _FACTORS[name](node) if name in _FACTORS else None
    is_known = name not in _FACTORS or factor is not None
    yield from _of_type(name, NODE_METRICS.get(name) if is_known else None, answered, factor)


_NOT_OF_PODS = frozenset({"GPU_ALLOCATION_PER_GPU", "GPU_IDLE_TIME_SECONDS_PER_GPU"})
POD_METRICS: Mapping[str, SampledMetric] = {
    **{name: SampledMetric(name) for name, metric in METRICS.items() if metric.from_usage is None},
    **_per_gpu("GPU_UTILIZATION_PER_GPU", MetricType.GPU_UTILIZATION),
    **_per_gpu("GPU_MEMORY_USAGE_BYTES_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    **_per_gpu("NVLINK_BANDWIDTH_TOTAL_PER_GPU", MetricType.NVLINK_BANDWIDTH_TOTAL),
    **{name: SampledMetric(name, is_per_gpu=True) for name in DEVICE_METRICS.keys() - _NOT_OF_PODS},
}
"""The contract's types that are measured of pods; all others are not supported."""


async def pod_outcomes(
    db: Database,
    scope: Scope,
    workload_id: UUID,
    pod_id: UUID,
    query: MetricsQuery,
    now: datetime,
) -> list[Outcome] | None:
    """Outcomes in the order of the types; None = the pod is not there or not in scope."""
    life = await pod_life_get(db, scope, workload_id, pod_id, now)
    instants = query.instants()
    series = await usage_list(db, scope, workload_id, instants=instants, now=now)
    if life is None or series is None:
        return None
    alive = [(at, usage.pod_count) for at, usage in steps(series, instants, now) if at in life]
    cluster = await observed_cluster_get(db, scope.tenant_id, workload_id)
    about = WorkloadContext(
        workload_id=pod_samples_id(workload_id, pod_id),
        namespace=cluster.namespace,
        cluster_name=cluster.name,
        known=tuple(at for at, _ in alive),
        observed=cluster.observed,
        owner_id=workload_id,
    )
    sampled = dict.fromkeys(
        POD_METRICS[name].sampled for name in query.types if name in POD_METRICS
    )
    of_devices = tuple(name for name in sampled if name in DEVICE_METRICS)
    others = tuple(name for name in sampled if name not in DEVICE_METRICS)
    own = replace(about, known=tuple(at for at, pods in alive if pods != 1))
    shared = replace(
        about, workload_id=workload_id, known=tuple(at for at, pods in alive if pods == 1)
    )
    store = PushedSamples(db)
    answered: list[Outcome] = []
    if of_devices:
        answered += await store.measured(about, scope, query, of_devices, now)
    if others:
        parts = [await store.measured(each, scope, query, others, now) for each in (own, shared)]
        answered += [outcome for name in others for outcome in _merged(name, *parts)]
    return [
        outcome
        for name in query.types
        for outcome in _of_type(name, POD_METRICS.get(name), answered)
    ]


def _merged(name: str, *parts: Sequence[Outcome]) -> list[Outcome]:
    """One series for each label, of samples that lie at different instants. A part in which nothing was
    measured does not make the type fail."""
    own = [outcome for part in parts for outcome in part if outcome.type == name]
    spreads = [
        each for outcome in own if isinstance(outcome, Histogram) for each in outcome.spreads
    ]
    if any(isinstance(outcome, Histogram) for outcome in own):
        return [Histogram(type=name, spreads=tuple(sorted(spreads, key=lambda each: each.at)))]
    by_labels: dict[tuple[tuple[str, str], ...], list[Measurement]] = {}
    for outcome in own:
        if isinstance(outcome, Measurement) and outcome.samples:
            by_labels.setdefault(tuple(sorted(outcome.labels.items())), []).append(outcome)
    if not by_labels:
        failed = [outcome for outcome in own if isinstance(outcome, FailedType)]
        is_failed = len(failed) == len(parts)
        return [failed[0] if is_failed else Measurement(type=name, samples=())]
    return [
        Measurement(
            type=name,
            samples=tuple(
                sorted((each for part in series for each in part.samples), key=lambda each: each.at)
            ),
            labels=dict(labels),
        )
        for labels, series in sorted(by_labels.items())
    ]
