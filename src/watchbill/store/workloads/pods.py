"""Reads of pods: list and count, of all workloads or of one. A pod is in scope where its workload is.

A list joins them, in the order of an index. Counting whatever is not found by few keys reads nothing but the
index of nodes and names, and asks for a pod's workload among those that the caller's scope and filters have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from watchbill.protocol import PodGroupRoot
from watchbill.query import POD_FIELDS, PodQuery, Predicate, Scope, ascii_lower
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.document import fitting
from watchbill.store.workloads.gone_count import GoneCounting, GoneCounts, Selection
from watchbill.store.workloads.page import FIRST_ROWS
from watchbill.store.workloads.pod_search import PodKey, PodMatches, pod_matches, text_condition
from watchbill.store.workloads.select import (
    DELETED,
    LIVE,
    SelectColumn,
    Statement,
    add_predicates,
    add_text_search,
    compare,
    id_bounds,
    in_scope,
    one_workload,
)
from watchbill.workload import Wire

_MAX_GROUPED = 100
"""Pods of a group that an agent hears of at its start: one that is left is enough."""
_MIN_GROUPED = 10
_MAX_GROUPED_IN_ALL = 20_000
"""Beyond that each group has fewer: decoding and encoding 200,000 held the loop for a quarter of a second."""
_MAX_POD_GROUPS = 2_000
POD = "workload_pod"
_PODS = f"{POD} p"
_OF_WORKLOAD = "ON w.tenant_id = p.tenant_id AND w.id = p.workload_id"
_WITH_WORKLOADS = f"{_PODS} JOIN workload w {_OF_WORKLOAD}"
_CLUSTER = "clusterId"
"""Only the workload knows it."""
_ENDED = "p.k8s_phase IN ('Succeeded', 'Failed')"
_COLUMNS: Mapping[str, SelectColumn] = {
    _CLUSTER: SelectColumn(
        '(w.cluster_id::text COLLATE "C")', is_nullable=False, sort_sql="w.cluster_id"
    ),
    "workloadId": SelectColumn(
        '(p.workload_id::text COLLATE "C")', is_nullable=False, sort_sql="p.workload_id"
    ),
    "revisionId": SelectColumn('(NULL::text COLLATE "C")'),
    "nodeName": SelectColumn("p.node_name"),
    "currentNodepool": SelectColumn("p.current_node_pool"),
    "createdAt": SelectColumn("p.created_at", is_nullable=False),
    "completedAt": SelectColumn("p.completed_at"),
    "deletedAt": SelectColumn("p.deleted_at", is_nullable=False),
}
"""`sort_sql`: UUIDs sort as their text, and have an index."""
_NO_MATCHES = PodMatches()
_SELECTED = (
    "p.document, p.workload_id, p.k8s_phase_updated_at, p.updated_at, p.deleted_at, "
    "w.cluster_id, w.project_id, w.tenant_id, w.name, w.project_name, "
    "octet_length(p.document) AS bytes"
)


@dataclass(frozen=True, slots=True)
class PodPage:
    """Finished documents in the query's order; `next_offset` None = there is no more."""

    documents: list[bytes]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class PodLife:
    """From its creation to its end; `ended_at` None = it still lives."""

    created_at: datetime
    ended_at: datetime | None

    def __contains__(self, at: datetime) -> bool:
        return self.created_at <= at and (self.ended_at is None or at <= self.ended_at)


class _ServerMembers(Wire, frozen=True):
    """What only the server knows of a pod."""

    tenant_id: int
    cluster_id: UUID
    workload_id: UUID
    project_id: str
    k8s_phase_updated_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    workload_name: str | None = None
    project_name: str | None = None


_ENCODER = msgspec.json.Encoder()


async def pod_list(db: Database, scope: Scope, query: PodQuery, now: datetime) -> PodPage | None:
    """One page. None where the one workload that is asked for is not there or not in scope."""
    async with db.acquire(scope.tenant_id) as connection:
        if query.workload_id is not None and not await _is_visible(
            connection, scope, query.workload_id, now
        ):
            return None
        rows = await _searched_rows(connection, scope, query, now)
    shown = rows[: fitting(row["bytes"] for row in rows[: query.limit])]
    return PodPage(
        [_document(row, with_names=query.with_names) for row in shown],
        query.offset + len(shown) if len(rows) > len(shown) else None,
    )


async def _searched_rows(
    connection: Connection, scope: Scope, query: PodQuery, now: datetime
) -> list[Row]:
    """The matches of what lives cost less than the first rows of an order, those of what is gone more."""
    matches = _NO_MATCHES
    if not query.is_deleted:
        matches = await pod_matches(connection, scope, query, now, is_count=False)
    if query.search and matches.keys is None and _has_first_rows(query):
        first = pod_page_statement(scope, query, now, is_among_first=True)
        rows = await _page_rows(connection, first)
        if len(rows) > query.limit:
            return rows
    if query.is_deleted:
        matches = await pod_matches(connection, scope, query, now, is_count=False)
    return await _page_rows(connection, pod_page_statement(scope, query, now, matches.keys))


async def _page_rows(connection: Connection, page: "PodPageStatement") -> list[Row]:
    """The keys first: sorting whole rows up to a far offset takes many times the memory."""
    return await connection.fetch(
        f"SELECT {_SELECTED} FROM ({page.keys}) AS page "
        "JOIN workload_pod p USING (tenant_id, workload_id, id) "
        f"JOIN workload w {_OF_WORKLOAD} ORDER BY {page.order}",
        *page.parameters,
    )


async def pod_count(
    db: Database, scope: Scope, query: PodQuery, now: datetime, counts: GoneCounts | None = None
) -> int:
    """`counts`: what is remembered of counts of what is gone, where that is wanted."""
    if counts is not None and query.is_deleted and query.workload_id is None:

        async def select(_: Connection) -> Selection:
            return _source(scope, query), _conditions(scope, query, now)

        async def count_all(connection: Connection) -> int:
            return await _count(connection, scope, query, now)

        counting = GoneCounting(db, counts, scope, query, POD, "p", select, count_all)
        return await counting.count(now)
    async with db.acquire(scope.tenant_id) as connection:
        return await _count(connection, scope, query, now)


async def _count(connection: Connection, scope: Scope, query: PodQuery, now: datetime) -> int:
    matches = await pod_matches(connection, scope, query, now, is_count=True)
    sql, parameters = pod_count_statement(scope, query, now, matches)
    count: int = await connection.fetchval(sql, *parameters)
    return count


def pod_count_statement(
    scope: Scope, query: PodQuery, now: datetime, matches: PodMatches = _NO_MATCHES
) -> tuple[str, list[Any]]:
    """SQL and its parameters."""
    if matches.keys is not None or query.workload_id is not None:
        statement = _conditions(scope, query, now)
        _among(statement, matches.keys)
        source = _source(scope, query)
    else:
        statement = _conditions_by_index(scope, query, now, matches)
        source = _PODS
    return f"SELECT count(*) FROM {source} WHERE {statement.where}", statement.parameters


def _conditions_by_index(
    scope: Scope, query: PodQuery, now: datetime, matches: PodMatches
) -> Statement:
    """The same without a join: a plan that begins with workloads would read every one's pods."""
    statement = Statement(now)
    statement.conditions.append(f"p.tenant_id = {statement.bind(scope.tenant_id, '::int')}")
    statement.conditions += [_state(query), *_ended(query)]
    by_cluster = [each for each in query.predicates if each.field == _CLUSTER]
    others = [each for each in query.predicates if each.field != _CLUSTER]
    if by_cluster or not scope.is_whole_tenant:
        workloads = statement.shared()
        in_scope(workloads, scope)
        add_predicates(workloads, by_cluster, _condition)
        if not query.is_deleted:
            workloads.conditions.append(LIVE)
        statement.conditions.append(
            f"p.workload_id IN (SELECT w.id FROM workload w WHERE {workloads.where})"
        )
    add_predicates(statement, others, _condition)
    if query.search:
        statement.conditions.append(text_condition(statement, scope, query, matches))
    return statement


async def pod_life_get(
    db: Database, scope: Scope, workload_id: UUID, pod_id: UUID, now: datetime
) -> PodLife | None:
    """None where the workload has no such pod, or is not in scope."""
    statement = one_workload(scope, workload_id, now)
    statement.conditions.append(f"p.id = {statement.bind(pod_id, '::uuid')}")
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT p.created_at, least(p.completed_at, p.deleted_at) AS ended_at "
            f"FROM {_WITH_WORKLOADS} WHERE {statement.where}",
            *statement.parameters,
        )
    return None if row is None else PodLife(row["created_at"], row["ended_at"])


@dataclass(frozen=True, slots=True)
class PodPageStatement:
    """`keys`: a query for the keys of a page's pods and one more; `order` is theirs."""

    keys: str
    order: str
    parameters: list[Any]


def pod_page_statement(
    scope: Scope,
    query: PodQuery,
    now: datetime,
    candidates: list[PodKey] | None = None,
    *,
    is_among_first: bool = False,
) -> PodPageStatement:
    """Every order can be read from an index. `is_among_first`: what matches of the first `FIRST_ROWS` of the
    order, which is the page if it fills one."""
    statement = _conditions(scope, query, now)
    _among(statement, candidates)
    offset = statement.bind(query.offset, "::bigint")
    source, column = _source(scope, query), _sort_column(query)
    order = _order(query, column)
    if is_among_first:
        tenant = statement.bind(scope.tenant_id, "::int")
        source = (
            f"(SELECT p.* FROM {_PODS} WHERE p.tenant_id = {tenant} AND {_state(query)} "
            f"ORDER BY {order} LIMIT {FIRST_ROWS}) p JOIN workload w {_OF_WORKLOAD}"
        )
    if query.sort_by == _CLUSTER and query.is_deleted:
        keys = _live_and_deleted_workloads(statement, query, source, order, offset)
    elif column is not None and column.is_nullable and query.is_descending:
        keys = _values_then_none(statement, query, source, column.sql, offset)
    else:
        keys = (
            f"SELECT {_KEYS} FROM {source} WHERE {statement.where} "
            f"ORDER BY {order} LIMIT {query.limit + 1} OFFSET {offset}"
        )
    return PodPageStatement(keys, order, statement.parameters)


_KEYS = "p.tenant_id, p.workload_id, p.id"


def _live_and_deleted_workloads(
    statement: Statement, query: PodQuery, source: str, order: str, offset: str
) -> str:
    """Pods workload by workload, from the two indexes of workloads by cluster."""
    parts = " UNION ALL ".join(
        f"(SELECT {_KEYS}, w.cluster_id FROM {source} WHERE {statement.where} AND {state} "
        f"ORDER BY {order} LIMIT {query.limit + 1} + {offset})"
        for state in (LIVE, DELETED)
    )
    direction = "DESC" if query.is_descending else "ASC"
    merged = ", ".join(f"{name} {direction}" for name in ("cluster_id", "workload_id", "id"))
    return (
        f"SELECT tenant_id, workload_id, id FROM ({parts}) AS part ORDER BY {merged} "
        f"LIMIT {query.limit + 1} OFFSET {offset}"
    )


def _values_then_none(
    statement: Statement, query: PodQuery, source: str, column: str, offset: str
) -> str:
    """Descending, no value last: an index that is read backwards has it first. So the pods that have a value
    come from one scan of it, and what the page then still wants from another."""
    end = f"{query.limit + 1} + {offset}"

    def part(condition: str, limit: str) -> str:
        return (
            f"SELECT {_KEYS}, {column} AS value FROM {source} "
            f"WHERE {statement.where} AND {column} {condition} "
            f"ORDER BY {column} DESC, p.workload_id DESC, p.id DESC LIMIT {limit}"
        )

    absent = part("IS NULL", f"greatest(0, {end} - (SELECT count(*) FROM present))")
    return (
        f"WITH present AS MATERIALIZED ({part('IS NOT NULL', end)}), absent AS ({absent}) "
        "SELECT tenant_id, workload_id, id FROM (SELECT *, 0 AS part FROM present "
        "UNION ALL SELECT *, 1 FROM absent) AS p ORDER BY part, value DESC, workload_id DESC, "
        f"id DESC LIMIT {query.limit + 1} OFFSET {offset}"
    )


def _conditions(scope: Scope, query: PodQuery, now: datetime) -> Statement:
    statement = Statement(now)
    statement.conditions.append(f"p.tenant_id = {statement.bind(scope.tenant_id, '::int')}")
    if _needs_workloads(scope, query):
        in_scope(statement, scope)
    statement.conditions.append(_state(query))
    if query.workload_id is not None:
        statement.conditions.append(
            f"p.workload_id = {statement.bind(query.workload_id, '::uuid')}"
        )
    statement.conditions += _ended(query)
    add_predicates(statement, query.predicates, _condition)
    if query.search:
        add_text_search(statement, query.search, "p.name", "w.name", "p.node_name")
    return statement


def _ended(query: PodQuery) -> list[str]:
    if query.is_completed is None:
        return []
    return [_ENDED if query.is_completed else f"NOT {_ENDED}"]


def _state(query: PodQuery) -> str:
    return f"p.deleted_at IS {'NOT ' if query.is_deleted else ''}NULL"


def _has_first_rows(query: PodQuery) -> bool:
    """Whether one scan of an index has the order."""
    column = _sort_column(query)
    in_parts = column is None or (column.is_nullable and query.is_descending)
    return not in_parts and query.sort_by != _CLUSTER and query.workload_id is None


def _needs_workloads(scope: Scope, query: PodQuery) -> bool:
    """A pod that is asked for by itself, by who sees the whole tenant, needs no look at its workload."""
    used = {query.sort_by, *(predicate.field for predicate in query.predicates)}
    return not scope.is_whole_tenant or bool(query.search) or _CLUSTER in used


def _source(scope: Scope, query: PodQuery) -> str:
    """Live pods are of live workloads, whose indexes are small."""
    if not _needs_workloads(scope, query):
        return _PODS
    return _WITH_WORKLOADS if query.is_deleted else f"{_WITH_WORKLOADS} AND {LIVE}"


def _condition(statement: Statement, predicate: Predicate) -> str:
    column = _COLUMNS[predicate.field]
    if predicate.operator == "==" and column.sort_sql is not None:
        return _is_id(statement, column.sort_sql, str(predicate.value))
    return compare(statement, column, POD_FIELDS[predicate.field], predicate)


def _is_id(statement: Statement, column: str, text: str) -> str:
    """Compared as a UUID, so that its index is used; what is none is nobody's."""
    bounds = id_bounds(ascii_lower(text)) if len(text) == _ID_LENGTH else None
    return "false" if bounds is None else f"{column} = {statement.bind(bounds[0], '::uuid')}"


_ID_LENGTH = 36


def _sort_column(query: PodQuery) -> SelectColumn | None:
    """None where no pod has a value: revisions are not known, and what lives was not deleted."""
    if query.sort_by == "revisionId" or (query.sort_by == "deletedAt" and not query.is_deleted):
        return None
    column = _COLUMNS[query.sort_by]
    return replace(column, sql=column.sort_sql or column.sql)


def _order(query: PodQuery, column: SelectColumn | None) -> str:
    """No value last both ways, ties by workload and id in the same direction."""
    direction = "DESC" if query.is_descending else "ASC"
    workload = "w.id" if query.sort_by == _CLUSTER else "p.workload_id"
    ties = f"{workload} {direction}, p.id {direction}"
    if column is None:
        return ties
    # Ascending, no value is last by itself.
    nulls = " NULLS LAST" if column.is_nullable and query.is_descending else ""
    return f"{column.sql} {direction}{nulls}, {ties}"


async def _is_visible(
    connection: Connection, scope: Scope, workload_id: UUID, now: datetime
) -> bool:
    statement = one_workload(scope, workload_id, now)
    is_visible: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM workload w WHERE {statement.where})", *statement.parameters
    )
    return is_visible


def _document(row: Row, *, with_names: bool) -> bytes:
    members = _ServerMembers(
        tenant_id=row["tenant_id"],
        cluster_id=row["cluster_id"],
        workload_id=row["workload_id"],
        project_id=str(row["project_id"]),
        k8s_phase_updated_at=row["k8s_phase_updated_at"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        workload_name=row["name"] if with_names else None,
        project_name=row["project_name"] if with_names else None,
    )
    own: bytes = row["document"]
    return own + b"," + _ENCODER.encode(members)[1:]


def _among(statement: Statement, candidates: list[PodKey] | None) -> None:
    """Narrows the statement to them."""
    if candidates is None:
        return
    workload_ids = statement.bind([workload_id for workload_id, _ in candidates], "::uuid[]")
    ids = statement.bind([pod_id for _, pod_id in candidates], "::uuid[]")
    statement.conditions.append(
        f"(p.workload_id, p.id) IN (SELECT * FROM unnest({workload_ids}, {ids}))"
    )


async def pod_group_roots_list(
    connection: Connection, tenant_id: int, cluster_id: UUID
) -> tuple[PodGroupRoot, ...]:
    """The cluster's live workloads that are pods and have others beside that one."""
    rows = await connection.fetch(
        "SELECT id, name, created_at, "
        f"pods[1:greatest({_MIN_GROUPED}, {_MAX_GROUPED_IN_ALL} / count(*) OVER ())] AS pods FROM ("
        "SELECT w.id, w.name, w.created_at, array_agg(p.id) AS pods FROM workload w "
        "JOIN LATERAL (SELECT x.id FROM workload_pod x WHERE x.tenant_id = w.tenant_id "
        f"AND x.workload_id = w.id AND x.id <> w.id AND x.deleted_at IS NULL LIMIT {_MAX_GROUPED}) p ON true "
        "WHERE w.tenant_id = $1 AND w.cluster_id = $2 AND w.deleted_at IS NULL AND w.type = 'Pod' "
        f"GROUP BY w.id, w.name, w.created_at ORDER BY w.created_at DESC LIMIT {_MAX_POD_GROUPS}) AS g",
        tenant_id,
        cluster_id,
    )
    return tuple(
        PodGroupRoot(
            id=row["id"], name=row["name"], created_at=row["created_at"], pods=tuple(row["pods"])
        )
        for row in rows
    )
