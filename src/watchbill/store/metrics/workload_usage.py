"""A workload's usage over time, as its Kubernetes objects state it: a step function, stored as its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.query import Scope
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.select import Statement, in_scope
from watchbill.workload import Usage

_USAGE = Usage.__struct_fields__


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """In force from `at` until the next point."""

    at: datetime
    usage: Usage


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """The points in force at the instants asked for, each once, oldest first.

    `end`: until when they are known: the workload's deletion, else the cluster's last contact.
    """

    points: list[UsagePoint]
    end: datetime | None


async def usage_list(
    db: Database, scope: Scope, workload_id: UUID, *, instants: Sequence[datetime], now: datetime
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
            f"SELECT DISTINCT u.at, {', '.join(f'u.{name}' for name in _USAGE)} "
            "FROM unnest($3::timestamptz[]) AS instant CROSS JOIN LATERAL ("
            "SELECT * FROM usage_sample s WHERE s.tenant_id = $1 AND s.workload_id = $2 "
            "AND s.at <= instant ORDER BY s.at DESC LIMIT 1) AS u ORDER BY u.at",
            scope.tenant_id,
            workload_id,
            list(instants),
        )
    points = [UsagePoint(row["at"], Usage(**{name: row[name] for name in _USAGE})) for row in rows]
    return UsageSeries(points, row["until"])
