"""Reads of pods: list and count, of all workloads or of one. A pod is in scope where its workload is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.query import POD_FIELDS, PodQuery, Predicate, Scope, ascii_lower
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.document import fitting
from watchbill.store.workloads.select import (
    SelectColumn,
    Statement,
    add_predicates,
    add_text_search,
    compare,
    in_scope,
    one_workload,
)
from watchbill.workload import Wire

_FROM = "workload_pod p JOIN workload w ON w.tenant_id = p.tenant_id AND w.id = p.workload_id"
_ENDED = "p.k8s_phase IN ('Succeeded', 'Failed')"
_COLUMNS: Mapping[str, SelectColumn] = {
    "clusterId": SelectColumn('(w.cluster_id::text COLLATE "C")', is_nullable=False),
    "workloadId": SelectColumn('(p.workload_id::text COLLATE "C")', is_nullable=False),
    "revisionId": SelectColumn('(NULL::text COLLATE "C")'),
    "nodeName": SelectColumn("p.node_name"),
    "currentNodepool": SelectColumn("p.current_node_pool"),
    "createdAt": SelectColumn("p.created_at", is_nullable=False),
    "completedAt": SelectColumn("p.completed_at"),
    "deletedAt": SelectColumn("p.deleted_at"),
}
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
    statement = _conditions(scope, query, now)
    offset = statement.bind(query.offset, "::bigint")
    order = _order(query)
    # The keys first: sorting whole rows up to a far offset takes many times the memory.
    sql = (
        f"SELECT {_SELECTED} FROM (SELECT p.tenant_id, p.workload_id, p.id FROM {_FROM} "
        f"WHERE {statement.where} ORDER BY {order} LIMIT {query.limit + 1} OFFSET {offset}) AS page "
        "JOIN workload_pod p USING (tenant_id, workload_id, id) "
        "JOIN workload w ON w.tenant_id = p.tenant_id AND w.id = p.workload_id "
        f"ORDER BY {order}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        if query.workload_id is not None and not await _is_visible(
            connection, scope, query.workload_id, now
        ):
            return None
        rows = await connection.fetch(sql, *statement.parameters)
    shown = rows[: fitting(row["bytes"] for row in rows[: query.limit])]
    return PodPage(
        [_document(row, with_names=query.with_names) for row in shown],
        query.offset + len(shown) if len(rows) > len(shown) else None,
    )


async def pod_count(db: Database, scope: Scope, query: PodQuery, now: datetime) -> int:
    statement = _conditions(scope, query, now)
    async with db.acquire(scope.tenant_id) as connection:
        count: int = await connection.fetchval(
            f"SELECT count(*) FROM {_FROM} WHERE {statement.where}", *statement.parameters
        )
    return count


async def pod_life_get(
    db: Database, scope: Scope, workload_id: UUID, pod_id: UUID, now: datetime
) -> PodLife | None:
    """None where the workload has no such pod, or is not in scope."""
    statement = one_workload(scope, workload_id, now)
    statement.conditions.append(f"p.id = {statement.bind(pod_id, '::uuid')}")
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT p.created_at, least(p.completed_at, p.deleted_at) AS ended_at "
            f"FROM {_FROM} WHERE {statement.where}",
            *statement.parameters,
        )
    return None if row is None else PodLife(row["created_at"], row["ended_at"])


def _conditions(scope: Scope, query: PodQuery, now: datetime) -> Statement:
    statement = Statement(now)
    in_scope(statement, scope)
    statement.conditions.append(f"p.deleted_at IS {'NOT ' if query.is_deleted else ''}NULL")
    if query.workload_id is not None:
        statement.conditions.append(
            f"p.workload_id = {statement.bind(query.workload_id, '::uuid')}"
        )
    if query.is_completed is not None:
        statement.conditions.append(_ENDED if query.is_completed else f"NOT {_ENDED}")
    add_predicates(statement, query.predicates, _condition)
    if query.search:
        add_text_search(statement, query.search, "p.name", "w.name", "p.node_name")
    return statement


def _condition(statement: Statement, predicate: Predicate) -> str:
    if predicate.operator == "==" and predicate.field == "workloadId":
        predicate = replace(predicate, value=ascii_lower(str(predicate.value)))
    return compare(statement, _COLUMNS[predicate.field], POD_FIELDS[predicate.field], predicate)


def _order(query: PodQuery) -> str:
    """No value last both ways, ties by id in the same direction."""
    direction = "DESC" if query.is_descending else "ASC"
    column = _COLUMNS[query.sort_by]
    nulls = " NULLS LAST" if column.is_nullable else ""
    return f"{column.sql} {direction}{nulls}, p.id {direction}, p.workload_id {direction}"


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
