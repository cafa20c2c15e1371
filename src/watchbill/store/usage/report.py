"""Usage reports: the daily sums within the caller's scope, grouped."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from watchbill.accounting import MILLIONTH_MS_PER_HOUR, SUMS, UsageKey
from watchbill.prices import PriceList, Prices
from watchbill.query import Predicate, Scope, UsageQuery
from watchbill.responses.usage import UsageFigures, UsageRow
from watchbill.store.postgres.database import Database, Row
from watchbill.store.usage.accounting import SETTLED_AFTER
from watchbill.store.usage.rounds import FORGOTTEN_BEFORE, LAST_ROUND
from watchbill.store.workloads.select import Statement, add_predicates, in_scope

GROUPS = {
    "cluster": "c.name",
    "department": "e.name",
    "project": "p.name",
    "owner": "nullif(a.submitted_by, '')",
    "namespace": "d.namespace",
    "type": "a.type",
    "category": "nullif(a.category, '')",
    "nodePool": "nullif(a.node_pool, '')",
    "gpuModel": "nullif(w.gpu_model, '')",
    "priorityClass": "nullif(a.priority_class_name, '')",
    "workload": "d.name",
    "day": "to_char(w.day, 'YYYY-MM-DD')",
    "week": "to_char(date_trunc('week', w.day::timestamp), 'YYYY-MM-DD')",
    "month": "to_char(w.day, 'YYYY-MM')",
}
"""A group and its value of one row; a week is named by its Monday."""
_OF_CLUSTERS = frozenset({"cluster", "department", "gpuModel", "day", "week", "month"})
"""Groups that the sums of whole clusters know."""
_TIMES = frozenset({"day", "week", "month"})
_JOINS = {
    "d": "usage_workload d ON d.tenant_id = w.tenant_id AND d.workload_id = w.workload_id",
    "a": "usage_attributes a ON a.tenant_id = w.tenant_id "
    "AND a.id = coalesce(w.attributes_id, w.workload_id)",
    "c": "cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id",
    "p": "project p ON p.tenant_id = w.tenant_id AND p.id = w.project_id",
    "e": "department e ON e.tenant_id = w.tenant_id AND e.id = w.department_id",
}
"""What a group's value is read from, by the alias in `GROUPS`."""
_CONDITIONS = {
    "==": "coalesce({0}, '') = {1}",
    "!=": "coalesce({0}, '') <> {1}",
    "=@": "strpos(lower({0}), lower({1})) > 0",
}
_IS_ANYTHING = f"({' OR '.join(f'{name} <> 0' for name in SUMS)})"
"""A month, and a cluster's day, keeps its row where all that it summed was taken back or forgotten."""
_MIB_MS_PER_GIB_HOUR = 1024 * 3_600_000
_MILLICORE_MS_PER_CORE_HOUR = 1000 * 3_600_000
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class UsagePage:
    rows: tuple[UsageRow, ...]
    totals: UsageFigures
    accounted_until: datetime | None
    """None until all is accounted, for the first time or anew."""
    next_offset: int | None


async def usage_report(
    db: Database, scope: Scope, query: UsageQuery, prices: Prices | None, now: datetime
) -> UsagePage:
    """Rows by most allocated GPU-hours, or in order of time where a group is one of time."""
    statement = _narrowed(scope, query, now)
    sums = _sums(statement, prices)
    groups = [GROUPS[name] for name in query.groups]
    names = [f"g{index}" for index in range(len(groups))]
    if "workload" in query.groups:
        groups.append("w.workload_id::text")
        names.append("workload_id")
    source = _source(statement, scope, query, prices)
    totals = f"SELECT {sums} FROM {source} WHERE {statement.where}"
    parameters = list(statement.parameters)
    offset = statement.bind(query.offset, "::bigint")
    listing = (
        f"SELECT {''.join(f'{sql} AS {name}, ' for sql, name in zip(groups, names, strict=True))}{sums} "
        f"FROM {source} WHERE {statement.where} "
        f"GROUP BY {', '.join(groups)} ORDER BY {_order(query, names)} "
        f"LIMIT {query.limit + 1} OFFSET {offset}"
    )
    async with db.snapshot(scope.tenant_id) as connection:
        last = await connection.fetchval(LAST_ROUND, f"usage {scope.tenant_id}")
        total = await connection.fetchrow(totals, *parameters)
        rows = await connection.fetch(listing, *statement.parameters) if groups else []
    assert total is not None  # an aggregate always has its row
    shown = rows[: query.limit]
    return UsagePage(
        rows=tuple(UsageRow(group=_group(query, row), **_figures(row)) for row in shown)
        if groups
        else (UsageRow(group={}, **_figures(total)),),
        totals=UsageFigures(**_figures(total)),
        accounted_until=None if last is None or last < FORGOTTEN_BEFORE else last - SETTLED_AFTER,
        next_offset=query.offset + query.limit if len(rows) > query.limit else None,
    )


def _source(statement: Statement, scope: Scope, query: UsageQuery, prices: Prices | None) -> str:
    """The sums of the days asked for, and what the groups are read from: of whole clusters where no project
    or workload is asked for, else whole months as one row each where no group is shorter."""
    start, end = (statement.bind(day, "::date") for day in (query.start, query.end))
    columns = ", ".join(("tenant_id", "workload_id", "cluster_id", *UsageKey._fields[1:], *SUMS))
    first, last = _whole_months(query)
    used = {*query.groups, *(predicate.field for predicate in query.predicates)}
    if _is_of_clusters(scope, used, prices):
        sums = (
            f"SELECT day, tenant_id, cluster_id, department_id, gpu_model, {', '.join(SUMS)} "
            f"FROM usage_cluster_day WHERE day >= {start} AND day < {end} AND {_IS_ANYTHING}"
        )
    elif used & {"day", "week"} or first >= last or _changes_within_months(prices):
        sums = f"SELECT day, {columns} FROM usage_day WHERE day >= {start} AND day < {end}"
    else:
        low, high = (statement.bind(day, "::date") for day in (first, last))
        sums = (
            f"SELECT month AS day, {columns} FROM usage_month WHERE month >= {low} AND month < {high} "
            f"AND {_IS_ANYTHING} "
            f"UNION ALL SELECT day, {columns} FROM usage_day "
            f"WHERE (day >= {start} AND day < {low}) OR (day >= {high} AND day < {end})"
        )
    aliases = {GROUPS[name].removeprefix("nullif(").partition(".")[0] for name in used}
    if prices is not None and prices.has_node_pools:
        aliases.add("a")
    joins = [f"LEFT JOIN {join}" for alias, join in _JOINS.items() if alias in aliases]
    return " ".join([f"({sums}) w", *joins])


def _is_of_clusters(scope: Scope, used: set[str], prices: Prices | None) -> bool:
    """Whether nobody need know whose usage it is beyond its cluster, department and GPU type."""
    has_node_pools = prices is not None and prices.has_node_pools
    return used <= _OF_CLUSTERS and not scope.project_ids and not has_node_pools


def _changes_within_months(prices: Prices | None) -> bool:
    """Whether a month as a whole has no price."""
    return prices is not None and any(change.since.day > 1 for change in prices.changes)


def _whole_months(query: UsageQuery) -> tuple[date, date]:
    """The first day of the first month that lies within the report, and that of the first one after it."""
    first = query.start if query.start.day == 1 else _next_month(query.start)
    return first, query.end.replace(day=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _narrowed(scope: Scope, query: UsageQuery, now: datetime) -> Statement:
    statement = Statement(now)
    in_scope(statement, scope)
    add_predicates(statement, query.predicates, _condition)
    return statement


def _condition(statement: Statement, predicate: Predicate) -> str:
    sql = GROUPS[predicate.field]
    return _CONDITIONS[predicate.operator].format(sql, statement.bind(predicate.value, "::text"))


def _sums(statement: Statement, prices: Prices | None) -> str:
    columns = [f"coalesce(sum(w.{name}), 0) AS {name}" for name in SUMS]
    price = "NULL::float8"
    if prices is not None:
        price = _price(statement, prices, prices)
        for change in prices.changes:
            since = statement.bind(change.since, "::date")
            price = f"CASE WHEN w.day >= {since} THEN {_price(statement, prices, change)} ELSE {price} END"
    return ", ".join(
        [
            *columns,
            f"sum(w.allocated_gpu * {price}) AS cost",
            f"coalesce(sum(w.allocated_gpu) FILTER (WHERE {price} IS NULL), 0) AS unpriced",
        ]
    )


def _price(statement: Statement, prices: Prices, listed: PriceList) -> str:
    """The first that there is. `listed`: those of one time among all of `prices`."""
    alternatives = [_price_of(statement, "w.gpu_model", listed.gpu_models)]
    if prices.has_node_pools:
        alternatives.insert(0, _price_of(statement, "a.node_pool", listed.node_pools))
    alternatives.append(statement.bind(listed.gpu_hour, "::float8"))
    return f"coalesce({', '.join(alternatives)})"


def _price_of(statement: Statement, column: str, prices: Mapping[str, float]) -> str:
    names = statement.bind(list(prices), "::text[]")
    amounts = statement.bind([float(price) for price in prices.values()], "::float8[]")
    return f"({amounts})[array_position({names}, {column})]"


def _order(query: UsageQuery, names: list[str]) -> str:
    times = [name for group, name in zip(query.groups, names, strict=False) if group in _TIMES]
    return ", ".join([*times, "allocated_gpu DESC", *(f"{name} NULLS LAST" for name in names)])


def _group(query: UsageQuery, row: Row) -> dict[str, str | None]:
    group: dict[str, str | None] = {
        name: row[f"g{index}"] for index, name in enumerate(query.groups)
    }
    if "workload" in query.groups:
        group["workloadId"] = row["workload_id"]
    return group


def _figures(row: Row) -> dict[str, Any]:
    def gpu_hours(name: str) -> float:
        return _amount(row[name], MILLIONTH_MS_PER_HOUR)

    is_unmeasured = row["allocated_gpu"] > 0 and row["unmeasured_gpu"] >= row["allocated_gpu"]
    return {
        "requested_gpu_hours": gpu_hours("requested_gpu"),
        "allocated_gpu_hours": gpu_hours("allocated_gpu"),
        "busy_gpu_hours": gpu_hours("busy_gpu") if row["sampled_gpu"] else None,
        "sampled_gpu_hours": gpu_hours("sampled_gpu"),
        "idle_gpu_hours": None if is_unmeasured else max(0.0, gpu_hours("idle_gpu")),
        "unmeasured_gpu_hours": gpu_hours("unmeasured_gpu"),
        "gap_gpu_hours": gpu_hours("gap_gpu"),
        "pending_gpu_hours": gpu_hours("pending_gpu"),
        "cpu_core_hours": _amount(row["cpu_millicore_ms"], _MILLICORE_MS_PER_CORE_HOUR),
        "memory_gib_hours": _amount(row["memory_mib_ms"], _MIB_MS_PER_GIB_HOUR),
        "cost": None if row["cost"] is None else _amount(row["cost"], MILLIONTH_MS_PER_HOUR),
        "unpriced_gpu_hours": gpu_hours("unpriced"),
    }


def _amount(value: Any, unit: int) -> float:
    return round(float(value) / unit, _DECIMALS)
