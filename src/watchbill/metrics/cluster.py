"""Metrics of one cluster and of its node pools over time, from what is recorded every five minutes.

GPUs and workloads of a whole cluster are the fleet's figures, all else is summed over node pools. What neither
records is not supported.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from watchbill.metrics.figures import decimal_text
from watchbill.metrics.source import (
    FailedType,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
)
from watchbill.query import Scope
from watchbill.responses.fleet import FleetMoment
from watchbill.store.fleet.fleet import fleet_series
from watchbill.store.fleet.series import (
    PoolFigures,
    PoolMoment,
    UnitMoment,
    pool_series,
    unit_moments,
)
from watchbill.store.postgres.database import Database
from watchbill.workload import GPU_MILLIONTHS

Figures = TypeVar("Figures")
Series = Sequence[tuple[datetime, Figures]]
"""In the order of time."""


def _rest(total: float | None, allocated: float | None) -> float | None:
    return None if total is None or allocated is None else max(0.0, total - allocated)


def _gpus(millionths: int | None) -> float | None:
    return None if millionths is None else millionths / GPU_MILLIONTHS


def _percent(part: float, whole: float) -> float | None:
    """None where nothing was measured."""
    return 100 * part / whole if whole else None


FLEET_METRICS: Mapping[str, Callable[[FleetMoment], float | None]] = {
    "TOTAL_GPU": lambda moment: moment.gpus.total,
    "ALLOCATED_GPU": lambda moment: moment.gpus.allocated,
    "UNALLOCATED_GPU": lambda moment: _rest(moment.gpus.total, moment.gpus.allocated),
    "WORKLOADS_COUNT": lambda moment: moment.workloads,
}
POOL_METRICS: Mapping[str, Callable[[PoolFigures], float | None]] = {
    "TOTAL_GPU_NODES": lambda pool: pool.gpu_nodes,
    "GPU_UTILIZATION": lambda pool: (
        pool.gpu_percent / pool.measured_gpu if pool.measured_gpu else None
    ),
    "GPU_MEMORY_UTILIZATION": lambda pool: _percent(pool.used_gpu_memory, pool.gpu_memory),
    "CPU_UTILIZATION": lambda pool: _percent(pool.used_cpu, pool.cpu),
    "CPU_MEMORY_UTILIZATION": lambda pool: _percent(pool.used_cpu_memory, pool.cpu_memory),
    "TOTAL_GPU": lambda pool: _gpus(pool.gpu),
    "ALLOCATED_GPU": lambda pool: _gpus(pool.allocated_gpu),
    "UNALLOCATED_GPU": lambda pool: _rest(_gpus(pool.gpu), _gpus(pool.allocated_gpu)),
    "WORKLOADS_COUNT": lambda pool: pool.workloads,
}
UNIT_METRICS: Mapping[str, Callable[[UnitMoment], float | None]] = {
    "ALLOCATED_GPU": lambda unit: _gpus(unit.allocated_gpu),
    "WORKLOADS_COUNT": lambda unit: unit.workloads,
    "GPU_QUOTA": lambda unit: _gpus(unit.gpu_quota),
}
"""The contract's types that are recorded: of a whole cluster, by node pool, by project or department."""


async def cluster_outcomes(
    db: Database,
    tenant_id: int,
    cluster_id: UUID,
    query: MetricsQuery,
    now: datetime,
    *,
    group_by: str | None = None,
    node_pool: str | None = None,
) -> list[Outcome]:
    """Outcomes in the order of the types. `group_by`: a value of the contract's ClusterMetricsGroupBy."""
    reader = _Reader(db, tenant_id, cluster_id, query, now)
    by_type: dict[str, list[Outcome]] = {}
    if group_by in ("Project", "Department") and node_pool is None:
        by_type = await reader.by_unit(group_by)
    elif group_by == "Nodepool" or (group_by is None and node_pool is not None):
        by_type = await reader.by_pool(node_pool, is_grouped=group_by is not None)
    elif group_by is None:
        by_type = await reader.of_cluster()
    unsupported = {name: [FailedType(type=name, reason=Reason.UNSUPPORTED)] for name in query.types}
    return [outcome for name in query.types for outcome in (unsupported | by_type)[name]]


class _Reader:
    """Reads what is recorded of one cluster. A moment before the first instant is the present one there."""

    def __init__(
        self, db: Database, tenant_id: int, cluster_id: UUID, query: MetricsQuery, now: datetime
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._cluster_id = cluster_id
        self._query = query
        self._now = now
        self._start = query.start - query.step

    async def of_cluster(self) -> dict[str, list[Outcome]]:
        names = self._query.types
        answered: dict[str, list[Outcome]] = {}
        if any(name in POOL_METRICS and name not in FLEET_METRICS for name in names):
            answered = await self.by_pool(None, is_grouped=False)
        if any(name in FLEET_METRICS for name in names):
            scope = Scope(self._tenant_id, cluster_ids=frozenset({self._cluster_id}))
            series = await fleet_series(
                self._db, scope, start=self._start, end=self._query.end, now=self._now
            )
            step = timedelta(seconds=series.step_seconds)
            moments = [(moment.at, moment) for moment in series.moments]
            answered |= self._outcomes(FLEET_METRICS, [((), moments)], step)
        return answered

    async def by_pool(self, node_pool: str | None, *, is_grouped: bool) -> dict[str, list[Outcome]]:
        step, moments = await pool_series(
            self._db,
            self._tenant_id,
            self._cluster_id,
            node_pool=node_pool,
            start=self._start,
            end=self._query.end,
            now=self._now,
        )
        if not is_grouped:
            return self._outcomes(POOL_METRICS, [((), _summed(moments))], step)
        pools: dict[str, list[tuple[datetime, PoolFigures]]] = {}
        for moment in moments:
            pools.setdefault(moment.node_pool, []).append((moment.at, moment.figures))
        grouped = [((("Nodepool", name),), series) for name, series in sorted(pools.items())]
        return self._outcomes(POOL_METRICS, grouped, step)

    async def by_unit(self, group_by: str) -> dict[str, list[Outcome]]:
        step, moments = await unit_moments(
            self._db,
            self._tenant_id,
            self._cluster_id,
            "project" if group_by == "Project" else "department",
            start=self._start,
            end=self._query.end,
            now=self._now,
        )
        units: dict[int, list[tuple[datetime, UnitMoment]]] = {}
        for moment in moments:
            units.setdefault(moment.unit_id, []).append((moment.at, moment))
        grouped = [
            (((group_by, str(unit_id)),), series) for unit_id, series in sorted(units.items())
        ]
        return self._outcomes(UNIT_METRICS, grouped, step)

    def _outcomes(
        self,
        metrics: Mapping[str, Callable[[Figures], float | None]],
        grouped: Sequence[tuple[tuple[tuple[str, str], ...], Series[Figures]]],
        step: timedelta,
    ) -> dict[str, list[Outcome]]:
        """One series of each type for each group; without any group the type is there without values."""
        return {
            name: [
                Measurement(
                    type=name,
                    samples=tuple(self._points(metrics[name], series, 2 * step)),
                    groups=groups,
                )
                for groups, series in grouped
            ]
            or [Measurement(type=name, samples=())]
            for name in self._query.types
            if name in metrics
        }

    def _points(
        self,
        figure: Callable[[Figures], float | None],
        series: Series[Figures],
        window: timedelta,
    ) -> Iterator[MetricPoint]:
        """At each instant the last moment before it, if it is not older than two steps of the record."""
        times = [at for at, _ in series]
        for instant in self._query.instants() if series else ():
            index = bisect_right(times, instant) - 1
            if instant > self._now or index < 0 or instant - times[index] > window:
                continue
            value = figure(series[index][1])
            text = None if value is None else decimal_text(value)
            if text is not None:
                yield MetricPoint(instant, text)


def _summed(moments: Sequence[PoolMoment]) -> list[tuple[datetime, PoolFigures]]:
    """Over the pools of each instant."""
    sums: dict[datetime, PoolFigures] = {}
    for moment in moments:
        sums.setdefault(moment.at, PoolFigures()).add(moment.figures)
    return sorted(sums.items(), key=lambda item: item[0])
