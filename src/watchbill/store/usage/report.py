"""Usage reports: the daily sums within the caller's scope, grouped."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from watchbill.accounting import MILLIONTH_MS_PER_HOUR, SUMS, UsageKey
from watchbill.prices import PriceList, Prices
from watchbill.query import Predicate, Scope, UsageQuery, UsageSort
from watchbill.responses.usage import UsageFigures, UsageRow
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.usage.accounting import SETTLED_AFTER
from watchbill.store.usage.rounds import usage_complete_at
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
_COLUMNS = {name: sql.removeprefix("nullif(").partition(",")[0] for name, sql in GROUPS.items()}
"""Without what is made of it; of groups of time, nothing that a statement could use."""
_OF_CLUSTERS = frozenset({"cluster", "department", "gpuModel", "day", "week", "month"})
"""Groups that the sums of whole clusters know."""
_GROUPED = {"day": "w.day"}
"""What rows are grouped by where that is not a group's value: days have an index, so that the first days can be
listed without the others."""
_OF_WORKLOADS = frozenset({"workload", "namespace"})
"""Groups that only the sums of single workloads know."""
_TIMES = frozenset({"day", "week", "month"})
_SORTS: Mapping[UsageSort, str] = {
    "allocatedGpuHours": "allocated_gpu",
    "requestedGpuHours": "requested_gpu",
    "idleGpuHours": "idle_gpu",
    "pendingGpuHours": "pending_gpu",
    "cost": "cost",
}
_WINDOWED = frozenset({"day", "week"})
_FIRST_WINDOW_DAYS = 7
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
_UUID_CHARACTERS = 36


def _amount(value: str, unit: int) -> str:
    return f"round({value}::float8 / {unit / 10**_DECIMALS}) / 1e{_DECIMALS} + 0"  # + 0: no -0


def _gpu_hours(name: str) -> str:
    return _amount(name, MILLIONTH_MS_PER_HOUR)


_FIGURES = {
    "requested_gpu_hours": _gpu_hours("requested_gpu"),
    "allocated_gpu_hours": _gpu_hours("allocated_gpu"),
    "busy_gpu_hours": f"CASE WHEN sampled_gpu <> 0 THEN {_gpu_hours('busy_gpu')} END",
    "sampled_gpu_hours": _gpu_hours("sampled_gpu"),
    "idle_gpu_hours": (
        "CASE WHEN allocated_gpu > 0 AND unmeasured_gpu >= allocated_gpu THEN NULL "
        f"ELSE greatest(0, {_gpu_hours('idle_gpu')}) END"
    ),
    "unmeasured_gpu_hours": _gpu_hours("unmeasured_gpu"),
    "gap_gpu_hours": _gpu_hours("gap_gpu"),
    "pending_gpu_hours": _gpu_hours("pending_gpu"),
    "cpu_core_hours": _amount("cpu_millicore_ms", _MILLICORE_MS_PER_CORE_HOUR),
    "memory_gib_hours": _amount("memory_mib_ms", _MIB_MS_PER_GIB_HOUR),
    "cost": _gpu_hours("cost"),
    "unpriced_gpu_hours": _gpu_hours("unpriced"),
}
"""As the API tells them, of sums: PostgreSQL does it many times as fast for many rows."""
_AMOUNTS = ", ".join(f"{sql} AS {name}" for name, sql in _FIGURES.items())


_FIRST_DAY = "SELECT day FROM usage_day WHERE tenant_id = $1 ORDER BY day LIMIT 1"


@dataclass(frozen=True, slots=True)
class UsagePage:
    groups: tuple[str, ...]
    lines: Sequence[Row]
    """The values of the groups, then the figures, in the order of a table."""
    totals: UsageFigures
    accounted_until: datetime | None
    """None until all is accounted, for the first time or anew."""
    recorded_since: date | None
    next_offset: int | None

    @property
    def rows(self) -> tuple[UsageRow, ...]:
        if not self.groups:
            return (UsageRow(group={}, **msgspec.structs.asdict(self.totals)),)
        names = (*self.groups, *(["workloadId"] if "workload" in self.groups else ()))
        return tuple(
            UsageRow(group=dict(zip(names, row.values(), strict=False)), **_figures(row))
            for row in self.lines
        )


async def usage_report(
    db: Database, scope: Scope, query: UsageQuery, prices: Prices | None, now: datetime
) -> UsagePage:
    """Rows by the most of `sort_by`, or in order of time where a group is one of time."""
    totals = _summed(scope, replace(query, groups=()), prices, now)
    sql = (
        f"SELECT {_AMOUNTS} FROM (SELECT {totals.sums} FROM {totals.source} "
        f"WHERE {totals.statement.where}) AS r"
    )
    async with db.snapshot(scope.tenant_id) as connection:
        last = await usage_complete_at(connection, scope.tenant_id)
        since = await connection.fetchval(_FIRST_DAY, scope.tenant_id)
        total = await connection.fetchrow(sql, *totals.statement.parameters)
        lines = await _lines(connection, scope, query, prices, now) if query.groups else []
    assert total is not None  # an aggregate always has its row
    return UsagePage(
        groups=query.groups,
        lines=lines[: query.limit],
        totals=UsageFigures(**_figures(total)),
        accounted_until=None if last is None else last - SETTLED_AFTER,
        recorded_since=since,
        next_offset=query.offset + query.limit if len(lines) > query.limit else None,
    )


async def _lines(
    connection: Connection, scope: Scope, query: UsageQuery, prices: Prices | None, now: datetime
) -> list[Row]:
    """One more than asked for where there are more."""
    lines: list[Row] = []
    for start, end in _windows(query):
        part = replace(query, start=start, end=end, limit=query.limit - len(lines))
        sql, parameters = _listing(scope, part, prices, now)
        lines += await connection.fetch(sql, *parameters)
        if len(lines) > query.limit:
            break
    return lines


def _windows(query: UsageQuery) -> Iterator[tuple[date, date]]:
    """What is listed one after the other: in order of time the first days answer for a page, and the others
    need not be read. No day, week or month of a group is divided: only single days and weeks are windowed."""
    days = timedelta(days=_FIRST_WINDOW_DAYS)
    start = query.start
    if query.offset == 0 and query.groups and _WINDOWED & {*query.groups}:
        monday = start - timedelta(days=start.weekday())
        while monday + days < query.end:
            yield start, monday + days
            start = monday = monday + days
            days *= 4
    yield start, query.end


def _listing(
    scope: Scope, query: UsageQuery, prices: Prices | None, now: datetime
) -> tuple[str, list[Any]]:
    listing = _summed(scope, query, prices, now)
    names = [f"g{index}" for index, _ in enumerate(query.groups)]
    grouped = [_GROUPED.get(name, GROUPS[name]) for name in query.groups]
    columns = [
        f"{GROUPS[name]} AS {alias}" for name, alias in zip(query.groups, names, strict=True)
    ]
    if "workload" in query.groups:
        grouped.append("w.workload_id")
        columns.append("w.workload_id::text AS workload_id")
        names.append("workload_id")
    offset = listing.statement.bind(query.offset, "::bigint")
    sql = (
        f"SELECT {', '.join(names)}, {_AMOUNTS} FROM (SELECT {', '.join(columns)}, {listing.sums} "
        f"FROM {listing.source} WHERE {listing.statement.where} "
        f"GROUP BY {', '.join(grouped)} ORDER BY {_order(query, names)} "
        f"LIMIT {query.limit + 1} OFFSET {offset}) AS r"
    )
    return sql, listing.statement.parameters


@dataclass(frozen=True, slots=True)
class _Summed:
    """The parts of a statement that sums up."""

    statement: Statement
    sums: str
    source: str


def _summed(scope: Scope, query: UsageQuery, prices: Prices | None, now: datetime) -> _Summed:
    """Reads the coarsest sums that tell what is asked for."""
    statement = Statement(now)
    in_scope(statement, scope)
    add_predicates(statement, query.predicates, partial(_condition, scope.tenant_id))
    used = {*query.groups, *(predicate.field for predicate in query.predicates)}
    sums = _sums(statement, prices)
    return _Summed(statement, sums, _source(statement, scope, query, prices, used))


def _source(
    statement: Statement, scope: Scope, query: UsageQuery, prices: Prices | None, used: set[str]
) -> str:
    """The sums of the days asked for, and what the groups `used` are read from: of whole clusters where no
    project or workload is asked for, else whole months as one row each where no group is shorter."""
    start, end = (statement.bind(day, "::date") for day in (query.start, query.end))
    keys = (*("tenant_id", "cluster_id"), *UsageKey._fields[1:], *SUMS)
    days = f"SELECT day, workload_id, {', '.join(keys)} FROM usage_day WHERE day >= {start} AND day < {end}"
    first, last = _whole_months(query)
    if _is_of_clusters(scope, used, prices):
        sums = (
            f"SELECT day, tenant_id, cluster_id, department_id, gpu_model, {', '.join(SUMS)} "
            f"FROM usage_cluster_day WHERE day >= {start} AND day < {end} AND {_IS_ANYTHING}"
        )
    elif used & {"day", "week"} or first >= last or _changes_within_months(prices):
        sums = days
    else:
        low, high = (statement.bind(day, "::date") for day in (first, last))
        months, workload_id = "usage_project_month", "NULL::uuid"
        if used & _OF_WORKLOADS:
            months, workload_id = "usage_month", "workload_id"
        sums = (
            f"SELECT month AS day, {workload_id} AS workload_id, {', '.join(keys)} FROM {months} "
            f"WHERE month >= {low} AND month < {high} AND {_IS_ANYTHING} "
            f"UNION ALL {days} AND (day < {low} OR day >= {high})"
        )
    aliases = {_COLUMNS[name].partition(".")[0] for name in used}
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


def _condition(tenant_id: int, statement: Statement, predicate: Predicate) -> str:
    """A workload is named by its id too."""
    sql = GROUPS[predicate.field]
    if predicate.operator == "==" and predicate.value and predicate.field not in _TIMES:
        column, value = _COLUMNS[predicate.field], statement.bind(predicate.value, "::text")
        workload_id = _as_uuid(predicate.value) if predicate.field == "workload" else None
        if workload_id is not None:
            tenant = statement.bind(tenant_id, "::int")
            return (
                f"w.workload_id IN (SELECT {statement.bind(workload_id, '::uuid')} "
                "UNION ALL SELECT u.workload_id FROM usage_workload u "
                f"WHERE u.tenant_id = {tenant} AND u.name = {value})"
            )
        return f"{column} = {value}"  # which an index can answer
    return _CONDITIONS[predicate.operator].format(sql, statement.bind(predicate.value, "::text"))


def _as_uuid(text: object) -> UUID | None:
    if not isinstance(text, str) or len(text) != _UUID_CHARACTERS:
        return None
    with contextlib.suppress(ValueError):
        return UUID(text)
    return None


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
    times = [
        _GROUPED.get(group, name)
        for group, name in zip(query.groups, names, strict=False)
        if group in _TIMES
    ]
    most = f"{_SORTS[query.sort_by]} DESC NULLS LAST"
    return ", ".join([*times, most, *(f"{name} NULLS LAST" for name in names)])


def _figures(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in _FIGURES}
