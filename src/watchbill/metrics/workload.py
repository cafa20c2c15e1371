"""All metrics of one workload: from its Kubernetes objects, and from its cluster's store of samples.

Every series ends with the workload's pods, whatever a store of samples still remembers.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from uuid import UUID

from watchbill.metric_types import METRICS
from watchbill.metrics.figures import steps, usage_measurement
from watchbill.metrics.prometheus import PrometheusSamples, StoreConnection
from watchbill.metrics.pushed import PushedSamples
from watchbill.metrics.source import (
    MetricsQuery,
    Outcome,
    Samples,
    Utilization,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.settings.prometheus import PrometheusSettings
from watchbill.store.metrics.observed import cluster_names, observed_cluster_get
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.usage_steps import usage_list


class WorkloadMetrics:
    """`samples_of`: which store keeps the samples of the cluster of that name."""

    def __init__(
        self,
        db: Database,
        samples_of: Callable[[str], Samples],
        *,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._db = db
        self._samples_of = samples_of
        self._close = close

    async def close(self) -> None:
        """Let go of what the stores hold open."""
        if self._close is not None:
            await self._close()

    async def utilization(
        self, scope: Scope, ids: Collection[UUID], query: MetricsQuery, now: datetime
    ) -> dict[UUID, Utilization | None]:
        """Of the workloads in scope, one question to each store. None = their store does not answer."""
        by_store: dict[Samples, list[UUID]] = {}
        for workload_id, name in (await cluster_names(self._db, scope, ids, now)).items():
            by_store.setdefault(self._samples_of(name), []).append(workload_id)
        nothing = (None,) * query.number_of_samples
        measured: dict[UUID, Utilization | None] = {}
        for store, own in by_store.items():
            points = await store.utilization(scope.tenant_id, own, query, now)
            measured |= {
                each: None if points is None else points.get(each, nothing) for each in own
            }
        return measured

    async def measure(
        self, scope: Scope, workload_id: UUID, query: MetricsQuery, now: datetime
    ) -> list[Outcome] | None:
        instants = query.instants()
        series = await usage_list(self._db, scope, workload_id, instants=instants, now=now)
        if series is None:
            return None
        known = list(steps(series, instants, now))
        measured = tuple(name for name in query.types if METRICS[name].from_usage is None)
        by_type: dict[str, list[Outcome]] = {
            name: [usage_measurement(name, known)] for name in query.types if name not in measured
        }
        if measured:
            alive = tuple(at for at, usage in known if usage.pod_count)
            cluster = await observed_cluster_get(self._db, scope.tenant_id, workload_id)
            about = WorkloadContext(
                workload_id=workload_id,
                namespace=cluster.namespace,
                cluster_name=cluster.name,
                known=alive,
                observed=cluster.observed,
            )
            samples = self._samples_of(cluster.name)
            for outcome in await samples.measured(about, scope, query, measured, now):
                by_type.setdefault(outcome.type, []).append(outcome)
        return [outcome for name in query.types for outcome in by_type[name]]


def workload_metrics(db: Database, settings: Mapping[str, PrometheusSettings]) -> WorkloadMetrics:
    """`settings`: stores by cluster name, "" for every cluster that is not named."""
    session = StoreConnection()
    stores: dict[str, Samples] = {
        name: PrometheusSamples(store, session) for name, store in settings.items()
    }
    otherwise: Samples = stores.get("") or PushedSamples(db)
    return WorkloadMetrics(
        db, lambda cluster_name: stores.get(cluster_name, otherwise), close=session.close
    )
