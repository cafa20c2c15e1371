"""Where to count; and the tallies of live and of deleted workloads: by cluster, project, type, phase and so on.

The database keeps them and the search table exact (see their migrations). Their columns bear the names of the
workload's, so conditions hold for all three; this module knows which questions each can answer.
"""

from datetime import datetime

from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Database, allow_seconds
from watchbill.store.workloads.search import INDEXED_NAMES
from watchbill.store.workloads.select import (
    DELETED_TALLY,
    SEARCH,
    TALLIES,
    TALLY,
    WORKLOAD,
    Statement,
    conditions,
)
from watchbill.workload_fields import TALLIED_FIELDS

REBUILD_TIMEOUT_SECONDS = 300
IN_SEARCH_TABLE = frozenset(
    {"clusterId", "projectId", "departmentId", "phase", "deletedAt", "workloadClass"}
).union(INDEXED_NAMES)


def counting(
    scope: Scope, query: WorkloadQuery, now: datetime, *, by: str | None = None
) -> Statement:
    """What counts the matches, all of them or `by` a field."""
    return conditions(scope, query, now, table=count_table(query, by=by))


def count_table(query: WorkloadQuery, *, by: str | None = None) -> str:
    """Where to count: in a tally if it knows all that is asked for, else row by row, and there in the narrow
    rows of the search where these do."""
    fields = {predicate.field for predicate in query.predicates} | ({by} if by else set())
    if not query.search and fields <= TALLIED_FIELDS:
        return DELETED_TALLY if query.is_deleted else TALLY
    return SEARCH if fields <= IN_SEARCH_TABLE else WORKLOAD


async def tally_rebuild(db: Database, tenant_id: int) -> None:
    """Count everything anew; writers wait meanwhile."""
    async with db.transaction(tenant_id) as connection:
        await allow_seconds(connection, REBUILD_TIMEOUT_SECONDS)
        for table in sorted(TALLIES):
            await connection.execute(f"SELECT {table}_rebuild()")


async def tally_sweep(db: Database, tenant_id: int) -> None:
    """Forget what nothing is counted under any more. Never waits for a writer, so never in a circle."""
    async with db.transaction(tenant_id) as connection:
        for table in sorted(TALLIES):
            await connection.execute(
                f"DELETE FROM {table} t USING (SELECT cluster_id, digest FROM {table} "
                "WHERE tenant_id = $1 AND workloads = 0 FOR UPDATE SKIP LOCKED) AS e "
                "WHERE t.tenant_id = $1 AND t.cluster_id = e.cluster_id AND t.digest = e.digest",
                tenant_id,
            )
