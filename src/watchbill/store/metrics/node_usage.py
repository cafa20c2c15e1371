"""What nodes use at one moment, from the samples of them: the newest ones, for many nodes in one question."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.metric_types import MetricType
from watchbill.store.metrics.measured import SEPARATOR
from watchbill.store.postgres.database import Database, Row

PRESENT_WINDOW = timedelta(minutes=2)
"""A figure older than this is no longer the present one; a rate looks back over as much again."""
_GAUGES = {
    "gpu_utilization": MetricType.GPU_UTILIZATION,
    "gpu_memory_bytes": MetricType.GPU_MEMORY_USAGE_BYTES,
    "cpu_memory_bytes": MetricType.CPU_MEMORY_USAGE_BYTES,
    "cpu_seconds": MetricType.CPU_USAGE_CORES,
}


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """Of a whole node, whatever runs on it; None = not measured. `gpu_utilization` in percent."""

    gpu_utilization: float | None = None
    gpu_memory_bytes: float | None = None
    cpu_cores: float | None = None
    cpu_memory_bytes: float | None = None


_SAMPLE = (
    'SELECT s.at, s.counted_since, s.layout, s."values" FROM measured_sample s '
    "WHERE s.tenant_id = $1 AND s.workload_id = n.id "
    "AND (s.cluster_id IS NULL OR (s.is_of_node AND s.cluster_id = n.cluster_id))"
)


def _figure(sample: str, place: str) -> str:
    return f'{sample}."values"[array_position(l.series, {place})]'


_LATEST = (
    "SELECT n.id, last.at, "
    + ", ".join(f"{_figure('last', f'${4 + n}')} AS {name}" for n, name in enumerate(_GAUGES))
    + ", before.at AS before_at, "
    'before."values"[array_position(b.series, $7)] AS cpu_seconds_before '
    "FROM cluster_node n "
    f"CROSS JOIN LATERAL ({_SAMPLE} AND s.at <= $3 AND s.at > $3 - $8::interval "
    "ORDER BY s.at DESC LIMIT 1) AS last "
    "JOIN measured_layout l ON l.tenant_id = $1 AND l.id = last.layout "
    f"LEFT JOIN LATERAL ({_SAMPLE} AND s.at < last.at AND s.at >= last.at - $8::interval "
    "AND s.counted_since = last.counted_since ORDER BY s.at LIMIT 1) AS before ON true "
    "LEFT JOIN measured_layout b ON b.tenant_id = $1 AND b.id = before.layout "
    "WHERE n.tenant_id = $1 AND n.id = ANY($2::uuid[])"
)


async def node_usage_list(
    db: Database, tenant_id: int, ids: Collection[UUID], at: datetime
) -> dict[UUID, NodeUsage]:
    """By node, of those that were measured within the two minutes before. Of nodes in scope as a whole."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            _LATEST,
            tenant_id,
            list(ids),
            at,
            *(f"{kind}{SEPARATOR}" for kind in _GAUGES.values()),
            PRESENT_WINDOW,
        )
    return {
        row["id"]: NodeUsage(
            gpu_utilization=row["gpu_utilization"],
            gpu_memory_bytes=row["gpu_memory_bytes"],
            cpu_cores=_cores(row),
            cpu_memory_bytes=row["cpu_memory_bytes"],
        )
        for row in rows
    }


def _cores(row: Row) -> float | None:
    counted, before = row["cpu_seconds"], row["cpu_seconds_before"]
    if counted is None or before is None or counted < before:
        return None
    seconds: float = (row["at"] - row["before_at"]).total_seconds()
    return float(counted - before) / seconds
