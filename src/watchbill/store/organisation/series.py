"""Quotas and holdings of one project or department over time, as they were recorded every five minutes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from watchbill.query import Scope, UnitQuery
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.organisation.source import BELOW, STEP_SECONDS
from watchbill.store.organisation.units import unit_row
from watchbill.store.postgres.database import Connection, Database

COLUMNS = (
    "gpu_quota",
    "cpu_quota",
    "memory_quota",
    "allocated_gpu",
    "allocated_cpu",
    "allocated_memory",
)
_RECORD = (
    "INSERT INTO queue_quota (tenant_id, unit, id, at, gpu_quota, cpu_quota, memory_quota) "
    "SELECT $1, '{unit}', u.id, $2, u.gpu_quota, u.cpu_quota, u.memory_quota FROM {unit} u "
    "LEFT JOIN LATERAL (SELECT q.gpu_quota, q.cpu_quota, q.memory_quota FROM queue_quota q "
    "WHERE q.tenant_id = $1 AND q.unit = '{unit}' AND q.id = u.id ORDER BY q.at DESC LIMIT 1) AS last "
    "ON true WHERE u.tenant_id = $1 AND (u.gpu_quota, u.cpu_quota, u.memory_quota) "
    "IS DISTINCT FROM (last.gpu_quota, last.cpu_quota, last.memory_quota) ON CONFLICT DO NOTHING"
)
_PURGE = (
    "DELETE FROM queue_quota q WHERE q.tenant_id = $1 AND q.at < $2 AND EXISTS (SELECT FROM queue_quota n "
    "WHERE n.tenant_id = $1 AND n.unit = q.unit AND n.id = q.id AND n.at > q.at AND n.at <= $2)"
)
COUNTED_AT = "CASE WHEN c.counted_at IS NULL THEN c.at ELSE c.counted_at END"
"""When the projects of an instant `c.at` were counted. Not coalesce: row security keeps it out of conditions on
an index, and every row of the series would be read for every instant."""
_READ = (
    "SELECT n.at, min(q.gpu_quota) AS gpu_quota, min(q.cpu_quota) AS cpu_quota, "
    "min(q.memory_quota) AS memory_quota, coalesce(sum(f.allocated_gpu), 0) AS allocated_gpu, "
    "CASE WHEN count(f.at) = count(f.allocated_cpu) THEN coalesce(sum(f.allocated_cpu), 0) END "
    "AS allocated_cpu, CASE WHEN count(f.at) = count(f.allocated_memory) "
    "THEN coalesce(sum(f.allocated_memory), 0) END AS allocated_memory "
    "FROM unnest($2::timestamptz[]) AS n(at) "
    "JOIN fleet_cluster c ON c.tenant_id = $1 AND c.at = n.at AND c.cluster_id = $3 "
    "LEFT JOIN LATERAL (SELECT * FROM queue_quota h WHERE h.tenant_id = $1 AND h.unit = '{unit}' "
    "AND h.id = $4 AND h.at <= n.at ORDER BY h.at DESC LIMIT 1) AS q ON true "
    f"LEFT JOIN fleet_project f ON f.tenant_id = $1 AND f.at = {COUNTED_AT} "
    "AND f.cluster_id = $3 AND f.{unit}_id = ANY($5::int[]) GROUP BY n.at ORDER BY n.at"
)


@dataclass(frozen=True, slots=True)
class UnitPoint:
    """What was recorded at one instant, by column; None = not known, or without a quota."""

    at: datetime
    values: dict[str, Decimal | None]


async def unit_series(
    db: Database,
    scope: Scope,
    unit: OrganisationUnit,
    number: int,
    *,
    instants: Sequence[datetime],
    now: datetime,
) -> list[UnitPoint] | None:
    """One point for each instant before which something was recorded. None = there is no such unit in scope,
    or the caller may see only a part of it."""
    async with db.acquire(scope.tenant_id) as connection:
        row = await unit_row(connection, scope, unit, UnitQuery(number=number, limit=1), now)
        if row is None or not (unit == "project" or row["is_whole"]):
            return None
        ids = [number]
        if unit == "department":
            is_whole_cluster = scope.is_whole_tenant or row["cluster_id"] in scope.cluster_ids
            below = BELOW.format(tenant="$1::int")
            ids = [
                each["id"]
                for each in await connection.fetch(
                    f"SELECT b.id FROM {below} AS b WHERE b.top = $2", scope.tenant_id, number
                )
                if is_whole_cluster or each["id"] in scope.department_ids
            ]
        recorded = {instant: _recorded_at(instant) for instant in instants}
        rows = await connection.fetch(
            _READ.format(unit=unit),
            scope.tenant_id,
            sorted({at for at in recorded.values() if at >= row["created_at"]}),
            row["cluster_id"],
            number,
            ids,
        )
    values = {each["at"]: {name: each[name] for name in COLUMNS} for each in rows}
    return [UnitPoint(at, values[when]) for at, when in recorded.items() if when in values]


def _recorded_at(instant: datetime) -> datetime:
    """The newest instant of the series up to this one."""
    return datetime.fromtimestamp(instant.timestamp() // STEP_SECONDS * STEP_SECONDS, UTC)


async def quota_record(
    connection: Connection, tenant_id: int, at: datetime, *, kept: timedelta
) -> None:
    """Keep the quotas of this instant where they differ from those before, and forget what is too old."""
    for unit in ("project", "department"):
        await connection.execute(_RECORD.format(unit=unit), tenant_id, at)
    await connection.execute(_PURGE, tenant_id, at - kept)
