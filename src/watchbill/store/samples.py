"""A workload's usage over time, as its Kubernetes objects told it: a step function, kept as its steps."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.query import Scope
from watchbill.store.database import Database
from watchbill.store.select import Statement, in_scope
from watchbill.workload import Usage

_USAGE = Usage.__struct_fields__


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """In force from `at` until the next point."""

    at: datetime
    usage: Usage


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """Points of an interval, the one in force at its start included.

    `end`: until when they are known: the workload's deletion, else the cluster's last contact.
    """

    points: list[UsagePoint]
    end: datetime | None


async def usage_series(
    db: Database, scope: Scope, workload_id: UUID, *, start: datetime, end: datetime, now: datetime
) -> UsageSeries | None:
    """None = the workload is not there or not in scope."""
    statement = Statement(now)
    in_scope(statement, scope)
    statement.conditions.append(f"w.id = {statement.bind(workload_id, '::uuid')}")
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT coalesce(w.deleted_at, c.last_contact_at) AS until FROM workload w "
            "JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
            f"WHERE {statement.where}",
            *statement.parameters,
        )
        if row is None:
            return None
        rows = await connection.fetch(
            f"SELECT at, {', '.join(_USAGE)} FROM usage_sample "
            "WHERE tenant_id = $1 AND workload_id = $2 AND at <= $4 AND at >= coalesce("
            "(SELECT max(at) FROM usage_sample WHERE tenant_id = $1 AND workload_id = $2 "
            "AND at <= $3), $3) ORDER BY at",
            scope.tenant_id,
            workload_id,
            start,
            end,
        )
    points = [
        UsagePoint(found["at"], Usage(**{name: found[name] for name in _USAGE})) for found in rows
    ]
    return UsageSeries(points, row["until"])
