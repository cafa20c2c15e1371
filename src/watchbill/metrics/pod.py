"""Metrics of one pod, from the samples that its cluster's agent pushed.

Pods have samples of their own where their workload had several. While it had this one alone, the workload's are
the pod's; only what is measured of single devices is always the pod's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from watchbill.metric_types import DEVICE_METRICS, METRICS, MetricType
from watchbill.metrics.embedded import EmbeddedSamples
from watchbill.metrics.figures import steps
from watchbill.metrics.selection import SampledMetric, per_gpu, selected
from watchbill.metrics.source import (
    FailedType,
    Histogram,
    Measurement,
    MetricsQuery,
    Outcome,
    Reason,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.store.metrics.measured import pod_samples_id
from watchbill.store.metrics.observed import observed_cluster_get
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.pods import pod_life_get
from watchbill.store.workloads.usage_steps import usage_list

_NOT_OF_PODS = frozenset({"GPU_ALLOCATION_PER_GPU", "GPU_IDLE_TIME_SECONDS_PER_GPU"})
POD_METRICS: Mapping[str, SampledMetric] = {
    **{name: SampledMetric(name) for name, metric in METRICS.items() if metric.from_usage is None},
    **per_gpu("GPU_UTILIZATION_PER_GPU", MetricType.GPU_UTILIZATION),
    **per_gpu("GPU_MEMORY_USAGE_BYTES_PER_GPU", MetricType.GPU_MEMORY_USAGE_BYTES),
    **per_gpu("NVLINK_BANDWIDTH_TOTAL_PER_GPU", MetricType.NVLINK_BANDWIDTH_TOTAL),
    **{name: SampledMetric(name, is_per_gpu=True) for name in DEVICE_METRICS.keys() - _NOT_OF_PODS},
}
"""The contract's types that are measured; all others are not supported."""


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
    store = EmbeddedSamples(db)
    answered: list[Outcome] = []
    if of_devices:
        answered += await store.measured(about, scope, query, of_devices, now)
    if others:
        parts = [await store.measured(each, scope, query, others, now) for each in (own, shared)]
        answered += [outcome for name in others for outcome in _merged(name, *parts)]
    return [outcome for name in query.types for outcome in _of_type(name, answered)]


def _of_type(name: str, answered: Sequence[Outcome]) -> Iterable[Outcome]:
    metric = POD_METRICS.get(name)
    if metric is None:
        return [FailedType(type=name, reason=Reason.UNSUPPORTED)]
    return selected(name, metric, answered)


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
