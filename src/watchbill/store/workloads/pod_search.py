"""Which pods may match a search, from indexes, where these are few.

What lives is read in the narrow index of nodes and names; of what is gone, indexes of trigrams tell. These are
only candidates: the query's own conditions, the scope among them, decide over each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from watchbill.query import PodQuery, Scope, ascii_lower
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.search import MAX_CANDIDATES, trigrams
from watchbill.store.workloads.select import DELETED, LIVE, Statement, escape_like

PodKey = tuple[UUID, UUID]
"""Of its workload, and its own."""
FEW_LIVE = 1_000
"""With more pods that live, the first rows of the wanted order have a page of them."""
_LIMIT = MAX_CANDIDATES + 1
_GONE_BY_OWN_TEXT = f"SELECT workload_id, id FROM workload_pod_gone_ids($1, $2, {_LIMIT})"
_GONE_OF_WORKLOADS = (
    "SELECT p.workload_id, p.id FROM unnest($2::uuid[]) AS n(id) JOIN workload_pod p "
    f"ON p.tenant_id = $1 AND p.workload_id = n.id AND p.deleted_at IS NOT NULL LIMIT {_LIMIT}"
)
_WITH_TEXT = f"SELECT id FROM workload_search_ids($1, $2, ARRAY[$3], {_LIMIT}) AS n(id)"
_NAMED = (
    "SELECT w.id FROM unnest($2::uuid[]) AS n(id) JOIN workload w ON w.tenant_id = $1 "
    "AND w.id = n.id AND lower(w.name) LIKE $3"
)


@dataclass(frozen=True, slots=True)
class PodMatches:
    """What indexes tell of a search. `keys`: the pods among which all that match are; `workload_ids`: the
    workloads whose own name matches. None where there may be too many, or no index tells."""

    keys: list[PodKey] | None = None
    workload_ids: list[UUID] | None = None


async def pod_matches(
    connection: Connection, scope: Scope, query: PodQuery, now: datetime, *, is_count: bool
) -> PodMatches:
    """Counting what lives takes a look at every live pod's entry: no more than finding keys would."""
    text = ascii_lower(query.search or "")
    if not text or "\0" in text or query.workload_id is not None:
        return PodMatches()
    numbers, pattern = trigrams([text]), f"%{escape_like(text)}%"
    matches = PodMatches()
    if numbers:
        workload_ids = await _named_workloads(connection, scope, query, numbers, pattern)
        matches = PodMatches(workload_ids=workload_ids)
    if not query.is_deleted:
        keys = None if is_count else await _live_keys(connection, scope, query, now, matches)
    elif matches.workload_ids is not None:
        keys = await _gone_keys(connection, scope, numbers, pattern, matches.workload_ids)
    else:
        keys = None
    return replace(matches, keys=keys)


async def _named_workloads(
    connection: Connection, scope: Scope, query: PodQuery, numbers: list[int], pattern: str
) -> list[UUID] | None:
    """Live pods are of live workloads; what is gone may be of both."""
    candidates: list[UUID] = []
    for is_deleted in (False, True)[: 1 + query.is_deleted]:
        rows = await connection.fetch(_WITH_TEXT, is_deleted, numbers, pattern)
        candidates += [row["id"] for row in rows]
    if len(candidates) > MAX_CANDIDATES:
        return None
    rows = await connection.fetch(_NAMED, scope.tenant_id, candidates, pattern)
    return [row["id"] for row in rows]


async def _gone_keys(
    connection: Connection,
    scope: Scope,
    numbers: list[int],
    pattern: str,
    workload_ids: Sequence[UUID],
) -> list[PodKey] | None:
    own = await connection.fetch(_GONE_BY_OWN_TEXT, numbers, pattern)
    if len(own) > MAX_CANDIDATES:
        return None
    of_workloads = await connection.fetch(_GONE_OF_WORKLOADS, scope.tenant_id, workload_ids)
    keys = {(row["workload_id"], row["id"]) for row in (*own, *of_workloads)}
    return sorted(keys) if len(keys) <= MAX_CANDIDATES else None


async def _live_keys(
    connection: Connection, scope: Scope, query: PodQuery, now: datetime, matches: PodMatches
) -> list[PodKey] | None:
    statement = Statement(now)
    statement.conditions.append(f"p.tenant_id = {statement.bind(scope.tenant_id, '::int')}")
    statement.conditions.append("p.deleted_at IS NULL")
    statement.conditions.append(text_condition(statement, scope, query, matches))
    rows = await connection.fetch(
        f"SELECT p.workload_id, p.id FROM workload_pod p WHERE {statement.where} LIMIT {FEW_LIVE + 1}",
        *statement.parameters,
    )
    keys = sorted((row["workload_id"], row["id"]) for row in rows)
    return keys if len(keys) <= FEW_LIVE else None


def text_condition(statement: Statement, scope: Scope, query: PodQuery, matches: PodMatches) -> str:
    """Of the pod `p` alone: what an index has, and a set of workloads that is made once."""
    text = ascii_lower(query.search or "")
    if "\0" in text:
        return "false"
    pattern = statement.bind(f"%{escape_like(text)}%", "::text")
    if matches.workload_ids is not None:
        named = f"p.workload_id = ANY({statement.bind(matches.workload_ids, '::uuid[]')})"
    else:
        tenant = statement.bind(scope.tenant_id, "::int")
        by_state = " UNION ALL ".join(
            f"SELECT w.id FROM workload w WHERE w.tenant_id = {tenant} AND {state} "
            f"AND lower(w.name) LIKE {pattern}"
            for state in (LIVE, DELETED)[: 1 + query.is_deleted]
        )
        named = f"p.workload_id IN ({by_state})"
    return f"({named} OR lower(p.name) LIKE {pattern} OR lower(p.node_name) LIKE {pattern})"
