"""Which pods that are gone a search may match, from the indexes of trigrams, where these are few.

What the indexes yield are only candidates: the query's own conditions, the scope among them, decide over each.
"""

from uuid import UUID

from watchbill.query import PodQuery, Scope, ascii_lower
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.search import MAX_CANDIDATES, trigrams
from watchbill.store.workloads.select import Statement, escape_like

_LIMIT = MAX_CANDIDATES + 1
_BY_OWN_TEXT = f"SELECT workload_id, id FROM workload_pod_gone_ids($1, $2, {_LIMIT})"
_WORKLOADS = (
    f"SELECT id FROM workload_search_ids(false, $1, ARRAY[$2], {_LIMIT}) AS n(id) "
    f"UNION ALL SELECT id FROM workload_search_ids(true, $1, ARRAY[$2], {_LIMIT}) AS n(id)"
)
_OF_WORKLOADS = (
    "SELECT p.workload_id, p.id FROM unnest($2::uuid[]) AS n(id) "
    "JOIN workload w ON w.tenant_id = $1 AND w.id = n.id AND lower(w.name) LIKE $3 "
    "JOIN workload_pod p ON p.tenant_id = $1 AND p.workload_id = w.id AND p.deleted_at IS NOT NULL "
    f"LIMIT {_LIMIT}"
)
PodKey = tuple[UUID, UUID]


async def pod_candidates(
    connection: Connection, scope: Scope, query: PodQuery
) -> list[PodKey] | None:
    """Workload and id of each; None where there may be more than `MAX_CANDIDATES`, or no index tells."""
    if not query.search or not query.is_deleted or query.workload_id is not None:
        return None
    text = ascii_lower(query.search)
    numbers, pattern = trigrams([text]), f"%{escape_like(text)}%"
    if not numbers or "\0" in text:
        return None
    own = await connection.fetch(_BY_OWN_TEXT, numbers, pattern)
    workloads = await connection.fetch(_WORKLOADS, numbers, pattern)
    if max(len(own), len(workloads)) > MAX_CANDIDATES:
        return None
    ids = [row["id"] for row in workloads]
    of_workloads = await connection.fetch(_OF_WORKLOADS, scope.tenant_id, ids, pattern)
    keys = {(row["workload_id"], row["id"]) for row in (*own, *of_workloads)}
    return sorted(keys) if len(keys) <= MAX_CANDIDATES else None


def among(statement: Statement, candidates: list[PodKey] | None) -> None:
    """Narrows the statement to them."""
    if candidates is None:
        return
    workload_ids = statement.bind([workload_id for workload_id, _ in candidates], "::uuid[]")
    ids = statement.bind([pod_id for _, pod_id in candidates], "::uuid[]")
    statement.conditions.append(
        f"(p.workload_id, p.id) IN (SELECT * FROM unnest({workload_ids}, {ids}))"
    )
