"""Reads of projects and departments: list, count and one.

Scope is the tree tenant, cluster, department, project: who may see a project sees the name of its department,
but none of its sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from watchbill.query import AVERAGES, UNIT_FIELDS, Predicate, Scope, UnitQuery, ascii_lower
from watchbill.responses.organisation import DepartmentResponse, ProjectResponse, UnitName
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.organisation.answer import (
    PoolUse,
    department_answer,
    project_answer,
    quota_sums,
)
from watchbill.store.organisation.source import (
    RANGES,
    averages,
    exists_condition,
    unit_number,
    unit_source,
    visible_departments,
    whole_condition,
)
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.select import (
    LIVE,
    TALLY,
    SelectColumn,
    Statement,
    add_predicates,
    add_text_search,
    compare,
    in_scope,
)
from watchbill.workload import GPU_MILLIONTHS

MAX_CHILDREN = 5_000
"""Projects that a page of departments names."""
_PHASE = (
    "(CASE WHEN w.queue IS NULL THEN 'Unknown' WHEN w.queue ? 'notReadyMessage' THEN 'NotReady' "
    "ELSE 'Ready' END COLLATE \"C\")"
)
_ABOVE = '(w.above::text COLLATE "C")'
_COLUMNS = {
    "name": SelectColumn('(w.name COLLATE "C")', is_nullable=False),
    "clusterId": SelectColumn('(w.cluster_id::text COLLATE "C")', is_nullable=False),
    "departmentId": SelectColumn(_ABOVE),
    "parentId": SelectColumn(_ABOVE),
    "parentName": SelectColumn('(w.above_name COLLATE "C")'),
    "phase": SelectColumn(_PHASE, is_nullable=False),
    "totalGpuQuota": SelectColumn("w.gpu_quota", scale=GPU_MILLIONTHS),
    "gpuAllocated": SelectColumn(
        "(CASE WHEN s.workloads IS NULL THEN 0 ELSE s.allocated_gpu END)", scale=GPU_MILLIONTHS
    ),
    "createdAt": SelectColumn("w.created_at", is_nullable=False),
    **{name: SelectColumn("NULL::numeric") for name in AVERAGES},
    **{
        f"avgGpuAllocation{length}": SelectColumn(f"avg_{length}.gpu", scale=GPU_MILLIONTHS)
        for length in RANGES
    },
}


@dataclass(frozen=True, slots=True)
class ProjectPage:
    projects: list[ProjectResponse]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class DepartmentPage:
    departments: list[DepartmentResponse]
    next_offset: int | None


async def project_list(db: Database, scope: Scope, query: UnitQuery, now: datetime) -> ProjectPage:
    async with db.acquire(scope.tenant_id) as connection:
        rows, next_offset = await _rows(connection, scope, "project", query, now)
        ids = [row["id"] for row in rows]
        means = await _averages(connection, scope, "project", ids, now)
        pools = await pool_uses(connection, scope, "project", ids, now)
    return ProjectPage(
        [
            project_answer(dict(row), means.get(row["id"], {}), pools.get(row["id"], {}), now)
            for row in rows
        ],
        next_offset,
    )


async def department_list(
    db: Database, scope: Scope, query: UnitQuery, now: datetime, *, with_status: bool
) -> DepartmentPage:
    """`with_status` False leaves out what is held. One department by `query.number` has its projects' sums."""
    async with db.acquire(scope.tenant_id) as connection:
        rows, next_offset = await _rows(connection, scope, "department", query, now)
        whole = [row["id"] for row in rows if row["is_whole"]]
        means = await _averages(connection, scope, "department", whole, now)
        pools = await pool_uses(connection, scope, "department", whole, now) if with_status else {}
        children = await _children(connection, scope, [row["id"] for row in rows], now)
        queues = await _queues(connection, scope, whole) if query.number is not None else []
    departments = []
    for row in rows:
        department = department_answer(
            dict(row),
            means.get(row["id"], {}),
            pools.get(row["id"], {}),
            children.get(row["id"], ()),
            now,
            with_status=with_status,
        )
        departments.append(quota_sums(department, queues) if queues else department)
    return DepartmentPage(departments, next_offset)


async def unit_count(
    db: Database, scope: Scope, unit: OrganisationUnit, query: UnitQuery, now: datetime
) -> int:
    statement = Statement(now)
    source = _narrowed(statement, scope, unit, query)
    async with db.acquire(scope.tenant_id) as connection:
        count: int = await connection.fetchval(
            f"SELECT count(*) FROM {source} WHERE {statement.where}", *statement.parameters
        )
    return count


async def unit_row(
    connection: Connection, scope: Scope, unit: OrganisationUnit, query: UnitQuery, now: datetime
) -> Row | None:
    """The first of the query, as stored."""
    rows, _ = await _rows(connection, scope, unit, query, now)
    return rows[0] if rows else None


async def _rows(
    connection: Connection, scope: Scope, unit: OrganisationUnit, query: UnitQuery, now: datetime
) -> tuple[list[Row], int | None]:
    statement = Statement(now)
    source = _narrowed(statement, scope, unit, query)
    whole = whole_condition(statement, scope)
    column = _COLUMNS[query.sort_by]
    direction = "DESC" if query.is_descending else "ASC"
    nulls = " NULLS LAST" if column.is_nullable else ""
    offset = statement.bind(query.offset, "::bigint")
    rows = await connection.fetch(
        f"SELECT w.*, s.*, w.id AS id, w.queue::text AS queue, {whole} AS is_whole, c.last_contact_at "
        f"FROM {source} "
        f"WHERE {statement.where} ORDER BY {column.sql} {direction}{nulls}, w.id {direction} "
        f"LIMIT {query.limit + 1} OFFSET {offset}",
        *statement.parameters,
    )
    shown = rows[: query.limit]
    return shown, query.offset + len(shown) if len(rows) > len(shown) else None


def _narrowed(statement: Statement, scope: Scope, unit: OrganisationUnit, query: UnitQuery) -> str:
    """The source; its conditions are the statement's."""
    source = unit_source(statement, scope, unit)
    for length in RANGES:
        name = f"avgGpuAllocation{length}"
        if query.sort_by == name or any(each.field == name for each in query.predicates):
            means = averages(statement, scope.tenant_id, unit, [length])
            source += f" LEFT JOIN ({means}) AS avg_{length} ON avg_{length}.id = w.id"
    if unit == "project":
        in_scope(statement, scope)
    else:
        tenant = statement.bind(scope.tenant_id, "::int")
        statement.conditions.append(f"w.tenant_id = {tenant}")
        statement.conditions.append(visible_departments(statement, scope))
    statement.conditions.append(exists_condition(unit))
    if query.number is not None:
        statement.conditions.append(f"w.id = {statement.bind(query.number, '::int')}")
    # What a caller may not see of a department it cannot be asked for by, either.
    if unit == "department" and _asks_for_sums(query):
        statement.conditions.append(whole_condition(statement, scope))
    add_predicates(statement, query.predicates, _condition)
    if query.search:
        add_text_search(statement, query.search, "w.name", "w.above_name")
    return source


def _asks_for_sums(query: UnitQuery) -> bool:
    fields = {query.sort_by, *(each.field for each in query.predicates)}
    return not fields <= {"name", "clusterId", "createdAt"}


def _condition(statement: Statement, predicate: Predicate) -> str:
    if predicate.field in ("departmentId", "parentId"):
        number = unit_number(str(predicate.value))
        if number is not None:
            predicate = replace(predicate, value=str(number))
    if predicate.field == "clusterId" and predicate.operator == "==":
        predicate = replace(predicate, value=ascii_lower(str(predicate.value)))
    return compare(statement, _COLUMNS[predicate.field], UNIT_FIELDS[predicate.field], predicate)


async def _averages(
    connection: Connection,
    scope: Scope,
    unit: OrganisationUnit,
    ids: Sequence[int],
    now: datetime,
) -> dict[int, dict[str, float]]:
    """GPUs held in the mean, by unit and range."""
    if not ids:
        return {}
    statement = Statement(now)
    sql = averages(statement, scope.tenant_id, unit, RANGES, ids=ids)
    means: dict[int, dict[str, float]] = {}
    rows = await connection.fetch(
        f"SELECT * FROM ({sql}) AS n WHERE {statement.where}", *statement.parameters
    )
    for row in rows:
        means.setdefault(row["id"], {})[row["range"]] = float(row["gpu"] / GPU_MILLIONTHS)
    return means


async def pool_uses(
    connection: Connection,
    scope: Scope,
    unit: OrganisationUnit,
    ids: Sequence[int],
    now: datetime,
    *,
    is_fixed: bool = False,
) -> dict[int, dict[str, PoolUse]]:
    """What is held of each node pool, `is_fixed`: by what cannot be preempted. CPU and memory of a workload in
    several pools are not distinguished."""
    column = f"w.{unit}_id"
    fixed = "AND w.preemptible IS DISTINCT FROM true" if is_fixed else ""
    tallied = Statement(now)
    in_scope(tallied, scope)
    tallied.conditions.append(f"{column} = ANY({tallied.bind(list(ids), '::int[]')})")
    rows = await connection.fetch(
        f"SELECT {column} AS id, w.current_node_pools AS pools, sum(w.unknown_gpu) AS unknown_gpu, "
        "bool_or(w.preemptible IS NULL) AS is_unsure, "
        "sum(w.unknown_host) AS unknown_host, sum(w.allocated_gpu) AS gpu, "
        f"sum(w.allocated_cpu) AS cpu, sum(w.allocated_memory) AS memory FROM {TALLY} w "
        f"WHERE {tallied.where} AND w.workloads > 0 AND w.current_node_pools IS NOT NULL {fixed} "
        "GROUP BY 1, 2",
        *tallied.parameters,
    )
    pools: dict[int, dict[str, PoolUse]] = {}
    spread: set[int] = set()
    for row in rows:
        uses = pools.setdefault(row["id"], {})
        is_one = len(row["pools"]) == 1
        for pool in row["pools"]:
            use = uses.setdefault(pool, PoolUse())
            is_sure = not (is_fixed and row["is_unsure"])
            use.is_gpu_known &= is_sure and not row["unknown_gpu"]
            use.is_host_known &= is_sure and is_one and not row["unknown_host"]
            if is_one:
                use.add(row["gpu"], row["cpu"], row["memory"])
        if not is_one:
            spread.add(row["id"])
    if spread:
        await _add_spread(connection, scope, unit, sorted(spread), now, fixed, pools)
    return pools


async def _add_spread(
    connection: Connection,
    scope: Scope,
    unit: OrganisationUnit,
    ids: Sequence[int],
    now: datetime,
    fixed: str,
    pools: dict[int, dict[str, PoolUse]],
) -> None:
    """The GPUs of workloads in several node pools."""
    column = f"w.{unit}_id"
    held = Statement(now)
    in_scope(held, scope)
    held.conditions.append(f"{column} = ANY({held.bind(list(ids), '::int[]')})")
    for row in await connection.fetch(
        f"SELECT {column} AS id, h.pool, sum(h.share) AS share FROM workload w CROSS JOIN LATERAL "
        "unnest(w.gpu_node_pools, w.gpu_node_pool_shares) AS h(pool, share) "
        f"WHERE {held.where} AND {LIVE} AND cardinality(w.current_node_pools) > 1 {fixed} "
        "GROUP BY 1, 2",
        *held.parameters,
    ):
        pools[row["id"]].setdefault(row["pool"], PoolUse()).add(row["share"])


async def _children(
    connection: Connection, scope: Scope, ids: Sequence[int], now: datetime
) -> dict[int, list[UnitName]]:
    """The projects right below these departments that may be seen, by name."""
    statement = Statement(now)
    source = unit_source(statement, scope, "project")
    in_scope(statement, scope)
    statement.conditions.append(exists_condition("project"))
    statement.conditions.append(f"w.department_id = ANY({statement.bind(list(ids), '::int[]')})")
    children: dict[int, list[UnitName]] = {}
    for row in await connection.fetch(
        f"SELECT w.department_id, w.id, w.name FROM {source} WHERE {statement.where} "
        f"ORDER BY w.name, w.id LIMIT {MAX_CHILDREN}",
        *statement.parameters,
    ):
        name = UnitName(id=UUID(int=row["id"]), name=row["name"])
        children.setdefault(row["department_id"], []).append(name)
    return children


async def _queues(connection: Connection, scope: Scope, ids: Sequence[int]) -> list[str]:
    """The queues of the projects right below these departments."""
    rows = await connection.fetch(
        "SELECT queue::text AS queue FROM project WHERE tenant_id = $1 "
        "AND department_id = ANY($2::int[]) AND queue IS NOT NULL",
        scope.tenant_id,
        list(ids),
    )
    return [row["queue"] for row in rows]
