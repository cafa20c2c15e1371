"""Telemetry: present counts and sums over live workloads, grouped.

Each telemetry type is one row of `_TYPES`, each grouping one of `_GROUPS`. Figures come from the tally, except
what only the workloads themselves tell: how long they wait, and which share of its GPUs each of several node
pools holds. A workload in two node pools counts in each; GPU figures are split, so that sums agree.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from watchbill.errors import Invalid
from watchbill.query import PendingBuckets, Scope, TelemetryQuery
from watchbill.responses.contract import TelemetryGroup, TelemetryValue
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.select import (
    IN_PHASE_SECONDS,
    LIVE,
    TALLY,
    WORKLOAD,
    Statement,
    in_scope,
)
from watchbill.workload import GPU_MILLIONTHS

PENDING_TIME = "PENDING_TIME_DISTRIBUTION"
PENDING_TIME_KEY = "PendingTime"
MAX_GROUPS = 5_000
"""Of one answer, those with the most; by two fields there may be far more."""


@dataclass(frozen=True, slots=True)
class _Group:
    """`counted_join` unfolds a list for counts; `shared_value` reads the pool that holds a GPU figure."""

    value: str
    name: str | None = None
    counted_join: str = ""
    shared_value: str | None = None


_EACH = "CROSS JOIN LATERAL unnest(coalesce({0}, '{{\"\"}}')) AS {1}(pool)"
_COLUMNS = (
    "tenant_id, cluster_id, department_id, department_name, project_id, project_name, type, phase, category, "
    "current_node_pools, requested_node_pools"
)
_BY_POOL = (
    f"(SELECT {_COLUMNS}, coalesce(gpu_node_pools[1], '') AS pool, allocated_gpu, measured_workloads, "
    f"idle_gpu::numeric AS idle_gpu FROM {TALLY} "
    "WHERE gpu_node_pools IS NULL OR cardinality(gpu_node_pools) < 2 UNION ALL "
    f"SELECT {_COLUMNS}, held.pool, held.share, "
    "(idle_allocated_gpu IS NOT NULL AND allocated_gpu > 0)::int, "
    "CASE WHEN allocated_gpu > 0 THEN idle_allocated_gpu::numeric * held.share / allocated_gpu END "
    f"FROM {WORKLOAD}, unnest(gpu_node_pools, gpu_node_pool_shares) AS held(pool, share) "
    "WHERE deleted_at IS NULL AND cardinality(gpu_node_pools) > 1)"
)
"""GPU figures by the pool that holds them: from the tally, and from workloads that hold some in several."""

_GROUPS: dict[str, _Group] = {
    "ClusterId": _Group("w.cluster_id::text", name="max(c.name)"),
    "DepartmentId": _Group("coalesce(w.department_id::text, '')", name="max(w.department_name)"),
    "ProjectId": _Group("w.project_id::text", name="max(w.project_name)"),
    "Type": _Group("w.type"),
    "Phase": _Group("w.phase"),
    "Category": _Group("coalesce(w.category, '')"),
    "CurrentNodepools": _Group(
        "current.pool",
        counted_join=_EACH.format("w.current_node_pools", "current"),
        shared_value="w.pool",
    ),
    "RequestedNodepools": _Group(
        "requested.pool",
        counted_join=_EACH.format("w.requested_node_pools", "requested"),
        shared_value="CASE WHEN w.pool = ANY(w.requested_node_pools) THEN w.pool ELSE '' END",
    ),
}


@dataclass(frozen=True, slots=True)
class _Type:
    """`sum` is the aggregate over the tally, or over what pools hold; `having`: groups worth a line.

    `is_split`: among node pools, by what each of them holds.
    """

    sum: str
    having: str
    is_split: bool = False
    scale: int = 1


_TYPES: dict[str, _Type] = {
    "WORKLOADS_COUNT": _Type(
        "coalesce(sum(w.workloads), 0)::bigint", having="sum(w.workloads) > 0"
    ),
    "GPU_ALLOCATION": _Type(
        "coalesce(sum(w.allocated_gpu), 0)",
        having="sum(w.allocated_gpu) <> 0",
        is_split=True,
        scale=GPU_MILLIONTHS,
    ),
    "IDLE_ALLOCATED_GPUS": _Type(
        "sum(w.idle_gpu)",
        having="sum(w.measured_workloads) > 0",
        is_split=True,
        scale=GPU_MILLIONTHS,
    ),
}
ALWAYS_ANSWERED = frozenset({"WORKLOADS_COUNT", "GPU_ALLOCATION"})


@dataclass(frozen=True, slots=True)
class TelemetryValues:
    """In the order of their groups; `is_partial`: there are more than `MAX_GROUPS`."""

    values: list[TelemetryValue]
    is_partial: bool


async def telemetry_query(
    db: Database,
    scope: Scope,
    query: TelemetryQuery,
    now: datetime,
    *,
    buckets: PendingBuckets | None = None,
) -> TelemetryValues:
    """Raises Invalid where a pending-time distribution is grouped by more than one thing."""
    if query.telemetry_type == PENDING_TIME:
        return await _pending_times(db, scope, query, now, buckets or PendingBuckets())
    kind = _TYPES[query.telemetry_type]
    groups = [_GROUPS[name] for name in query.group_by]
    is_split = kind.is_split and any(group.shared_value for group in groups)
    values = [g.shared_value if is_split and g.shared_value else g.value for g in groups]
    joins = [] if is_split else [g.counted_join for g in groups if g.counted_join]
    statement = _conditions(scope, query, now, table=_BY_POOL if is_split else TALLY)
    columns = [*values, *(group.name or "NULL::text" for group in groups), kind.sum]
    having = kind.having if groups or query.telemetry_type not in ALWAYS_ANSWERED else "true"
    sql = (
        f"SELECT {', '.join(columns)} FROM {statement.source} {' '.join(joins)} "
        f"WHERE {statement.where} {_group_clause(values)} HAVING {having} "
        f"ORDER BY {len(columns)} DESC, {', '.join(str(n + 1) for n in range(len(columns)))} "
        f"LIMIT {MAX_GROUPS + 1}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(sql, *statement.parameters)
    largest = sorted(rows[:MAX_GROUPS], key=lambda row: tuple(row[: len(groups)]))
    return TelemetryValues(
        [
            TelemetryValue(
                _number(row[-1], kind.scale),
                tuple(
                    TelemetryGroup(key, row[index], row[len(groups) + index])
                    for index, key in enumerate(query.group_by)
                ),
            )
            for row in largest
        ],
        is_partial=len(rows) > MAX_GROUPS,
    )


def _conditions(
    scope: Scope, query: TelemetryQuery, now: datetime, *, table: str = WORKLOAD
) -> Statement:
    statement = Statement(now, table=table, needs_cluster=True)
    in_scope(statement, scope)
    if table == WORKLOAD:
        statement.conditions.append(LIVE)
    if query.cluster_id is not None:
        statement.conditions.append(f"w.cluster_id = {statement.bind(query.cluster_id, '::uuid')}")
    if query.department_id is not None:
        number = query.department_id if query.department_id.isascii() else ""
        statement.conditions.append(f"w.department_id::text = {statement.bind(_plain(number))}")
    if query.node_pool is not None:
        pool = statement.bind(_plain(query.node_pool), "::text")
        statement.conditions.append(f"{pool} = ANY(w.current_node_pools)")
    if query.phases:
        statement.conditions.append(f"w.phase = ANY({statement.bind(list(query.phases))}::text[])")
    return statement


def _plain(text: str) -> str:
    """NUL matches nothing, and PostgreSQL refuses to be asked for it; nor does any stored text hold \\ufffe."""
    return "\ufffe" if "\0" in text else text


def _group_clause(values: list[str]) -> str:
    return f"GROUP BY {', '.join(str(index + 1) for index in range(len(values)))}" if values else ""


def _with_largest(counted: str, groups: int) -> str:
    """Of rows with `value`, `bucket` and `count` those of the values with the most; `place`: how many have
    as many or more."""
    summed = f"SELECT *, sum(count) OVER (PARTITION BY value) AS total FROM ({counted}) AS counted"
    ranked = (
        f"SELECT *, dense_rank() OVER (ORDER BY total DESC, value) AS place FROM ({summed}) AS s"
    )
    return f"SELECT * FROM ({ranked}) AS r WHERE place <= {groups} ORDER BY value, bucket"


def _names(statement: Statement, group: _Group) -> str:
    """What joins the names of `counted` groups, from the tally: no index that counts has room for them."""
    if group.name is None:
        return "CROSS JOIN (SELECT NULL::text AS name) AS named"
    return (
        f"JOIN (SELECT {group.value} AS value, {group.name} AS name FROM {statement.source} "
        f"WHERE {statement.where} AND w.workloads > 0 GROUP BY 1) AS named USING (value)"
    )


def pending_times_statement(
    scope: Scope, query: TelemetryQuery, now: datetime, buckets: PendingBuckets
) -> tuple[str, list[Any]]:
    """How many are pending, by group and by how long; those of one more group than an answer may have."""
    group = _GROUPS[query.group_by[0]] if query.group_by else _Group("''::text")
    statement = _conditions(scope, query, now, table=TALLY)
    statement.conditions.append("w.phase = 'Pending'")
    names = _names(statement, group)
    # All are in the one phase, which no index of what is pending has to hold.
    value = "'Pending'::text" if group is _GROUPS["Phase"] else group.value
    statement.table = WORKLOAD
    statement.conditions.append(LIVE)
    bounds = statement.bind(list(buckets.upper_seconds), "::float8[]")
    sql = (
        f"SELECT value, name, bucket, count FROM (SELECT {value} AS value, "
        f"width_bucket({IN_PHASE_SECONDS}, {bounds}) AS bucket, count(*) AS count "
        f"FROM {statement.source} {group.counted_join} "
        f"WHERE {statement.where} GROUP BY 1, 2) AS counted {names}"
    )
    return _with_largest(sql, _most_groups(buckets) + 1), statement.parameters


def _most_groups(buckets: PendingBuckets) -> int:
    return MAX_GROUPS // len(buckets.labels)


async def _pending_times(
    db: Database,
    scope: Scope,
    query: TelemetryQuery,
    now: datetime,
    buckets: PendingBuckets,
) -> TelemetryValues:
    if len(query.group_by) > 1:
        raise Invalid(
            f"{PENDING_TIME} takes at most one groupBy.",
            details="A value carries at most two groups, and the bucket is one of them.",
        )
    key = query.group_by[0] if query.group_by else None
    limit = _most_groups(buckets)
    sql, parameters = pending_times_statement(scope, query, now, buckets)
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(sql, *parameters)
    names = {row["value"]: row["name"] for row in rows if row["place"] <= limit}
    counts = {(row["value"], row["bucket"]): row["count"] for row in rows}
    groups: list[str] = list(names) if key else [""]
    values = [
        TelemetryValue(
            str(counts.get((value, index), 0)),
            (
                *((TelemetryGroup(key, value, names[value]),) if key else ()),
                TelemetryGroup(PENDING_TIME_KEY, label),
            ),
        )
        for value in groups
        for index, label in enumerate(buckets.labels)
    ]
    return TelemetryValues(values, is_partial=any(row["place"] > limit for row in rows))


def _number(figure: Decimal | int, scale: int) -> str:
    """A plain decimal without trailing zeros."""
    if scale == 1:
        return str(figure)
    text = f"{(Decimal(figure) / scale):.6f}"
    return text.rstrip("0").rstrip(".")
