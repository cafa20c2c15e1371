"""Where workloads with samples run, and how well each kind of exporter can be read there."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.metric_types import (
    EXPORTER_GROUP,
)
from watchbill.protocol import KindState
from watchbill.query import Scope
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.select import Statement, in_scope


@dataclass(frozen=True, slots=True)
class ObservedCluster:
    """Where a workload runs; `observed`: how well each kind of exporter can be read there."""

    name: str
    namespace: str
    observed: dict[str, str]


async def cluster_names(
    db: Database, scope: Scope, ids: Collection[UUID], now: datetime
) -> dict[UUID, str]:
    """The names of their clusters, of those workloads that are in scope."""
    statement = Statement(now, needs_cluster=True)
    in_scope(statement, scope)
    statement.conditions.append(f"w.id = ANY({statement.bind(list(ids), '::uuid[]')})")
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            f"SELECT w.id, c.name FROM {statement.source} WHERE {statement.where}",
            *statement.parameters,
        )
    return {row["id"]: row["name"] for row in rows}


async def observed_cluster_get(db: Database, tenant_id: int, workload_id: UUID) -> ObservedCluster:
    """Of a workload that is known to be in scope."""
    async with db.acquire(tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT c.name, c.kinds, w.namespace FROM workload w "
            "JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
            "WHERE w.tenant_id = $1 AND w.id = $2",
            tenant_id,
            workload_id,
        )
    if row is None:  # purged between two questions
        return ObservedCluster("", "", {})
    return ObservedCluster(row["name"], row["namespace"], _observed(row["kinds"]))


async def exporter_states(db: Database, tenant_id: int, cluster_id: UUID) -> dict[str, str]:
    """How well each kind of exporter can be read in a cluster."""
    async with db.acquire(tenant_id) as connection:
        stored = await connection.fetchval(
            "SELECT kinds FROM cluster WHERE tenant_id = $1 AND id = $2", tenant_id, cluster_id
        )
    return _observed(stored)


def _observed(stored: bytes | None) -> dict[str, str]:
    kinds = msgspec.json.decode(stored or b"[]", type=tuple[KindState, ...])
    return {kind.kind: str(kind.state) for kind in kinds if kind.group == EXPORTER_GROUP}
