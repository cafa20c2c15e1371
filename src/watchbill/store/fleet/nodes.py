"""Reads of nodes: list, count, and what pods hold of each.

Who sees a cluster as a whole sees its nodes as a whole. Anybody else sees the nodes that the caller's own
workloads hold, and of these no more than that: neither what others hold, nor what taints and messages may tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.cluster_node import ClusterNode, DeviceWorkload, NodeDevice, NodeResources
from watchbill.query import NODE_FIELDS, NodeQuery, Predicate, Scope
from watchbill.responses.fleet import cluster_state
from watchbill.responses.nodes import NodeResponse, NodeWorkload
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.select import (
    SelectColumn,
    Statement,
    add_predicates,
    add_text_search,
    compare,
    scope_conditions,
)
from watchbill.workload import GPU_MILLIONTHS

SHOWN_WORKLOADS = 100
"""Of one node."""
NODES_AT_ONCE = 200
"""Nodes that are decoded before others have their turn: one may take 32 KiB."""

HOLDS = "p.deleted_at IS NULL AND p.k8s_phase NOT IN ('Succeeded', 'Failed')"
"""Whether the pod `p`, if it has a node, holds a part of it."""
_PODS = (
    "workload_pod p JOIN workload w ON w.tenant_id = p.tenant_id AND w.id = p.workload_id "
    f"AND w.deleted_at IS NULL AND {HOLDS}"
)
_FROM = (
    "cluster_node n JOIN cluster c ON c.tenant_id = n.tenant_id AND c.id = n.cluster_id "
    "AND c.removed_at IS NULL"
)
_COLUMNS: Mapping[str, SelectColumn] = {
    "name": SelectColumn("n.name", is_nullable=False),
    "status": SelectColumn("n.status", is_nullable=False),
    "nodePool": SelectColumn("n.node_pool", is_nullable=False),
    "gpuType": SelectColumn("n.gpu_type"),
    "nvLinkDomainUid": SelectColumn("n.nv_link_domain_uid"),
    "nvLinkCliqueId": SelectColumn("n.nv_link_clique_id"),
    "clusterUuid": SelectColumn('(n.cluster_id::text COLLATE "C")', is_nullable=False),
}
_NODE = msgspec.json.Decoder(ClusterNode)


@dataclass(frozen=True, slots=True)
class NodePage:
    """In the query's order; `next_offset` None = there is no more."""

    nodes: list[NodeResponse]
    next_offset: int | None


async def node_list(db: Database, scope: Scope, query: NodeQuery, now: datetime) -> NodePage:
    """One page; with `limit` None all of them."""
    statement = _conditions(scope, query, now)
    page = ""
    if query.limit is not None:
        offset = statement.bind(query.offset, "::bigint")
        page = f" LIMIT {query.limit + 1} OFFSET {offset}"
    sql = (
        f"SELECT n.document, n.cluster_id, n.updated_at, c.last_contact_at FROM {_FROM} "
        f"WHERE {statement.where} ORDER BY {_order(query)}{page}"
    )
    read: list[_NodeRow] = []
    async with db.transaction(scope.tenant_id) as connection:
        cursor = await connection.cursor(sql, *statement.parameters)
        while rows := await cursor.fetch(NODES_AT_ONCE):
            read += [_node_row(row, is_brief=query.is_brief) for row in rows]
        shown = read if query.limit is None else read[: query.limit]
        allocations = await _allocations(connection, scope, shown, now)
        holders = await _holders(connection, scope, shown, now)
    return NodePage(
        [_response(row, allocations, holders, scope, now) for row in shown],
        query.offset + len(shown) if len(read) > len(shown) else None,
    )


@dataclass(frozen=True, slots=True)
class _NodeRow:
    node: ClusterNode
    cluster_id: UUID
    updated_at: datetime
    last_contact_at: datetime | None


def _node_row(row: Row, *, is_brief: bool) -> _NodeRow:
    node = _NODE.decode(row["document"])
    if is_brief:
        node = msgspec.structs.replace(node, conditions=(), taints=(), devices=())
    return _NodeRow(node, row["cluster_id"], row["updated_at"], row["last_contact_at"])


async def node_get(db: Database, scope: Scope, node_id: UUID, now: datetime) -> NodeResponse | None:
    """None where it is not there or not in scope."""
    return next(iter((await node_list(db, scope, NodeQuery(node_id=node_id), now)).nodes), None)


async def node_count(db: Database, scope: Scope, query: NodeQuery, now: datetime) -> int:
    statement = _conditions(scope, query, now)
    async with db.acquire(scope.tenant_id) as connection:
        count: int = await connection.fetchval(
            f"SELECT count(*) FROM {_FROM} WHERE {statement.where}", *statement.parameters
        )
    return count


async def cluster_names(db: Database, scope: Scope) -> dict[UUID, str]:
    """Of the clusters of which the caller may see something."""
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT c.id, c.name FROM cluster c WHERE c.tenant_id = $1 AND c.removed_at IS NULL "
            "AND ($2 OR c.id = ANY($3::uuid[]) OR EXISTS (SELECT FROM project p "
            "WHERE p.tenant_id = $1 AND p.cluster_id = c.id "
            "AND (p.department_id = ANY($4::int[]) OR p.id = ANY($5::int[]))))",
            scope.tenant_id,
            scope.is_whole_tenant,
            list(scope.cluster_ids),
            list(scope.department_ids),
            list(scope.project_ids),
        )
    return {row["id"]: row["name"] for row in rows}


def sees_whole(scope: Scope, cluster_id: UUID) -> bool:
    return scope.is_whole_tenant or cluster_id in scope.cluster_ids


def _conditions(scope: Scope, query: NodeQuery, now: datetime) -> Statement:
    statement = Statement(now)
    statement.conditions.append(f"n.tenant_id = {statement.bind(scope.tenant_id, '::int')}")
    if not scope.is_whole_tenant:
        clusters = statement.bind(sorted(scope.cluster_ids), "::uuid[]")
        own = " AND ".join(scope_conditions(statement, scope))
        statement.conditions.append(
            f"(n.cluster_id = ANY({clusters}) OR EXISTS (SELECT FROM {_PODS} "
            "WHERE p.tenant_id = n.tenant_id AND p.node_name = n.name "
            f"AND w.cluster_id = n.cluster_id AND {own}))"
        )
    if query.cluster_id is not None:
        statement.conditions.append(f"n.cluster_id = {statement.bind(query.cluster_id, '::uuid')}")
    if query.node_id is not None:
        statement.conditions.append(f"n.id = {statement.bind(query.node_id, '::uuid')}")
    add_predicates(statement, query.predicates, _condition)
    if query.search:
        add_text_search(statement, query.search, "n.name", "n.node_pool", "n.gpu_type")
    return statement


def _condition(statement: Statement, predicate: Predicate) -> str:
    return compare(statement, _COLUMNS[predicate.field], NODE_FIELDS[predicate.field], predicate)


def _order(query: NodeQuery) -> str:
    """No value last both ways, ties by name and cluster in the same direction."""
    direction = "DESC" if query.is_descending else "ASC"
    column = _COLUMNS[query.sort_by]
    nulls = " NULLS LAST" if column.is_nullable else ""
    return f"{column.sql} {direction}{nulls}, n.name {direction}, n.cluster_id {direction}"


@dataclass(frozen=True, slots=True)
class _Allocation:
    """What the caller's workloads hold of one node."""

    allocated: NodeResources
    idle_gpus: float | None
    workloads: tuple[NodeWorkload, ...]
    total: int


_NOTHING = _Allocation(NodeResources(gpus=0.0, cpu_cores=0.0, cpu_memory_bytes=0), 0.0, (), 0)
_AMOUNTS = ("gpus", "cores", "memory")
_SUMS = (
    "CASE WHEN bool_or(p.gpu_millionths IS NULL) THEN NULL ELSE sum(p.gpu_millionths) END AS gpus, "
    "CASE WHEN bool_or(p.cpu_millicores IS NULL) THEN NULL ELSE sum(p.cpu_millicores) END AS cores, "
    "CASE WHEN bool_or(p.cpu_memory_bytes IS NULL) THEN NULL ELSE sum(p.cpu_memory_bytes) END "
    "AS memory"
)


_BY_NODE = (
    "SELECT h.*, count(*) OVER n AS workloads_total, "
    + ", ".join(
        f"CASE WHEN bool_or({name} IS NULL) OVER n THEN NULL ELSE sum({name}) OVER n END AS all_{name}"
        for name in _AMOUNTS
    )
    + ", CASE WHEN count(*) FILTER (WHERE gpus IS DISTINCT FROM 0) OVER n = 0 THEN 0 "
    "ELSE sum(gpus * idle_part) FILTER (WHERE gpus <> 0) OVER n END AS idle_gpus, "
    "row_number() OVER (n ORDER BY gpus DESC NULLS FIRST, id) AS place FROM ({held}) AS h "
    "WINDOW n AS (PARTITION BY cluster_id, node_name)"
)
"""Of each node's workloads the sums, and their places: however many an agent reports, few are read."""


async def _allocations(
    connection: Connection, scope: Scope, rows: Sequence[_NodeRow], now: datetime
) -> dict[tuple[UUID, str], _Allocation]:
    """By cluster and name of the node, its workloads with the most GPUs first."""
    if not rows:
        return {}
    statement = Statement(now)
    clusters = statement.bind([row.cluster_id for row in rows], "::uuid[]")
    names = statement.bind([row.node.name for row in rows], "::text[]")
    statement.conditions += scope_conditions(statement, scope)
    held = (
        "SELECT w.cluster_id, p.node_name, w.id, w.name, w.project_name, count(*) AS pods, "
        "CASE WHEN max(w.allocated_gpu) > 0 THEN max(w.idle_allocated_gpu)::numeric "
        f"/ max(w.allocated_gpu) END AS idle_part, {_SUMS} "
        f"FROM unnest({clusters}, {names}) AS n(cluster_id, name) "
        f"JOIN ({_PODS}) ON p.node_name = n.name AND w.cluster_id = n.cluster_id "
        f"WHERE p.tenant_id = w.tenant_id AND {statement.where} "
        "GROUP BY w.cluster_id, p.node_name, w.id, w.name, w.project_name"
    )
    held_rows = await connection.fetch(
        f"SELECT * FROM ({_BY_NODE.format(held=held)}) AS b WHERE place <= {SHOWN_WORKLOADS} "
        "ORDER BY place",
        *statement.parameters,
    )
    by_node: dict[tuple[UUID, str], list[Row]] = {}
    for row in held_rows:
        by_node.setdefault((row["cluster_id"], row["node_name"]), []).append(row)
    return {key: _allocation(entries) for key, entries in by_node.items()}


def _allocation(rows: Sequence[Row]) -> _Allocation:
    """Each row tells the sums of all, those that are not among the rows too."""
    sums = rows[0]
    gpus, cores, memory, idle = (
        None if amount is None else float(amount)
        for amount in (sums["all_gpus"], sums["all_cores"], sums["all_memory"], sums["idle_gpus"])
    )
    allocated = NodeResources(
        gpus=None if gpus is None else gpus / GPU_MILLIONTHS,
        cpu_cores=None if cores is None else cores / 1000,
        cpu_memory_bytes=None if memory is None else int(sums["all_memory"]),
    )
    shown = tuple(
        NodeWorkload(
            id=row["id"],
            name=row["name"],
            project_name=row["project_name"],
            pods=row["pods"],
            gpus=None if row["gpus"] is None else int(row["gpus"]) / GPU_MILLIONTHS,
        )
        for row in rows
    )
    return _Allocation(
        allocated,
        None if idle is None else round(idle / GPU_MILLIONTHS, 6),
        shown,
        sums["workloads_total"],
    )


async def _holders(
    connection: Connection, scope: Scope, rows: Sequence[_NodeRow], now: datetime
) -> dict[tuple[UUID, UUID], DeviceWorkload]:
    """By cluster and id, the workloads that hold devices, as far as they are in scope."""
    ids = {
        workload.id for row in rows for device in row.node.devices for workload in device.workloads
    }
    if not ids:
        return {}
    statement = Statement(now)
    statement.conditions += scope_conditions(statement, scope)
    statement.conditions.append(f"w.id = ANY({statement.bind(sorted(ids), '::uuid[]')})")
    named = await connection.fetch(
        "SELECT w.id, w.cluster_id, w.name, w.project_name FROM workload w "
        f"WHERE w.deleted_at IS NULL AND {statement.where}",
        *statement.parameters,
    )
    return {
        (row["cluster_id"], row["id"]): DeviceWorkload(
            id=row["id"], name=row["name"], project_name=row["project_name"]
        )
        for row in named
    }


def _devices(
    row: _NodeRow, holders: Mapping[tuple[UUID, UUID], DeviceWorkload], *, is_partial: bool
) -> Iterator[NodeDevice]:
    """With the names of who holds them; to who sees a part of the cluster only those that the own ones hold."""
    for device in row.node.devices:
        named = tuple(
            holders[row.cluster_id, each.id]
            for each in device.workloads
            if (row.cluster_id, each.id) in holders
        )
        if named or not is_partial:
            yield msgspec.structs.replace(device, workloads=named)


def _response(
    row: _NodeRow,
    allocations: Mapping[tuple[UUID, str], _Allocation],
    holders: Mapping[tuple[UUID, UUID], DeviceWorkload],
    scope: Scope,
    now: datetime,
) -> NodeResponse:
    is_partial = not sees_whole(scope, row.cluster_id)
    shown = _own_part(row.node) if is_partial else row.node
    devices = tuple(_devices(row, holders, is_partial=is_partial))
    shown = msgspec.structs.replace(shown, devices=devices)
    mine = allocations.get((row.cluster_id, row.node.name), _NOTHING)
    return NodeResponse(
        **{name: getattr(shown, name) for name in shown.__struct_fields__},
        cluster_uuid=row.cluster_id,
        updated_at=row.updated_at,
        allocated=mine.allocated,
        idle_allocated_gpus=mine.idle_gpus,
        workloads=mine.workloads,
        workloads_total=mine.total,
        is_partial=is_partial,
        cluster_state=cluster_state(row.last_contact_at, now),
        data_as_of=row.last_contact_at,
    )


def _own_part(node: ClusterNode) -> ClusterNode:
    """What is shown of a node to somebody who holds a part of it."""
    conditions = tuple(
        msgspec.structs.replace(each, message=None)
        for each in node.conditions
        if each.type == "Ready"
    )
    return msgspec.structs.replace(node, conditions=conditions, taints=())
