"""The tally: counts of live workloads by cluster, project, department, type, phase, category and node pools.

The database keeps it exact (see its migration). Its columns bear the names of the workload's, so conditions
hold for both; this module knows which questions it can answer, and looks after it.
"""

from datetime import datetime

from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.select import TALLY, Statement, conditions
from watchbill.workload_fields import TALLIED_FIELDS

REBUILD_TIMEOUT_SECONDS = 300


def counting(scope: Scope, query: WorkloadQuery, now: datetime) -> Statement:
    """Where to count what matches: in the tally if it knows all that is asked for, else row by row."""
    is_known = all(predicate.field in TALLIED_FIELDS for predicate in query.predicates)
    if is_known and not query.is_deleted and not query.search:
        return conditions(scope, query, now, table=TALLY)
    return conditions(scope, query, now)


async def tally_rebuild(db: Database, tenant_id: int) -> None:
    """Count everything anew; writers wait meanwhile."""
    async with db.transaction(tenant_id) as connection:
        await connection.execute(f"SET LOCAL statement_timeout = '{REBUILD_TIMEOUT_SECONDS}s'")
        await connection.execute("SELECT workload_tally_rebuild()")


async def tally_sweep(db: Database, tenant_id: int) -> None:
    """Forget what nothing is counted under any more. Never waits for a writer, so never in a circle."""
    async with db.transaction(tenant_id) as connection:
        await connection.execute(
            "DELETE FROM workload_tally t USING (SELECT cluster_id, digest FROM workload_tally "
            "WHERE tenant_id = $1 AND workloads = 0 FOR UPDATE SKIP LOCKED) AS e "
            "WHERE t.tenant_id = $1 AND t.cluster_id = e.cluster_id AND t.digest = e.digest",
            tenant_id,
        )
