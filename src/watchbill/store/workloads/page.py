"""The rows of one page of a query, in SQL: four ways to the same answer, for what is known of it.

Every one of them applies all conditions of the query; they differ in what is read first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.query import Scope, WorkloadQuery
from watchbill.store.workloads.select import (
    CLUSTER_JOIN,
    WORKLOAD,
    Statement,
    order_by,
    range_conditions,
    sort_column,
    sorted_statement,
    state_condition,
)
from watchbill.workload_fields import QUERY_FIELDS, Storage

FIRST_ROWS = 8_000
"""Of the wanted order, as many as a page is sought among before all rows are read."""


@dataclass(frozen=True, slots=True)
class PageStatement:
    """`condition`: what the rows of a page and one more are found by; `order` ends with their number, where
    the condition does not say it."""

    statement: Statement
    condition: str
    order: str

    def select(self, columns: str) -> str:
        return (
            f"SELECT {columns} FROM workload w {CLUSTER_JOIN} WHERE {self.condition} "
            f"ORDER BY {self.order}"
        )


def _page_of_ids(statement: Statement, order: str, ids: str) -> PageStatement:
    return PageStatement(statement, f"w.tenant_id = $2 AND w.id IN ({ids})", order)


def page_statement(scope: Scope, query: WorkloadQuery, now: datetime) -> PageStatement:
    """By whatever the planner thinks best. The first page of an order that has an index, for which nobody has
    to read past others, comes straight from the rows, by a plan that is made once."""
    statement, order = sorted_statement(scope, query, now)
    has_index = has_sort_index(query)
    is_split = order.endswith(_NULLS_LAST) and has_index
    if query.offset == 0 and has_index and not is_split:
        return PageStatement(statement, statement.where, f"{order} LIMIT {query.limit + 1}")
    offset = statement.bind(query.offset, "::bigint")
    if is_split:
        ids = _values_then_none(statement, query, offset, tables=(WORKLOAD, WORKLOAD))
        return _page_of_ids(statement, order, ids)
    return _page_of_ids(statement, order, _sorted_ids(statement, query, order, offset))


def _sorted_ids(statement: Statement, query: WorkloadQuery, order: str, offset: str) -> str:
    return (
        f"SELECT w.id FROM {statement.source} WHERE {statement.where} "
        f"ORDER BY {order} {_limits(query, offset)}"
    )


def page_among_first(scope: Scope, query: WorkloadQuery, now: datetime) -> PageStatement | None:
    """What matches of the first `FIRST_ROWS` of the order, which is the page if it fills one. None where no
    index has the order. Predicates on what is sorted by say where in the order these rows begin and end."""
    if not has_sort_index(query) or query.offset >= FIRST_ROWS:
        return None
    statement, order = sorted_statement(scope, query, now)
    offset = statement.bind(query.offset, "::bigint")
    conditions = [f"w.tenant_id = {statement.bind(scope.tenant_id, '::int')}"]
    conditions += [state_condition(query), *range_conditions(statement, query)]
    if order.endswith(_NULLS_LAST):
        column = sort_column(query).sql
        valued = f"workload w WHERE {' AND '.join(conditions)} AND {column} IS NOT NULL"
        are_few = (
            f"(SELECT count(*) FROM (SELECT FROM {valued} LIMIT {FIRST_ROWS}) AS v) < {FIRST_ROWS}"
        )
        tables = (
            _first(query, [*conditions, f"{column} IS NOT NULL"]),
            _first(query, [*conditions, f"{column} IS NULL", are_few]),
        )
        ids = _values_then_none(statement, query, offset, tables=tables)
        return _page_of_ids(statement, order, ids)
    statement.table = _first(query, conditions)
    return _page_of_ids(statement, order, _sorted_ids(statement, query, order, offset))


def _first(query: WorkloadQuery, conditions: Sequence[str]) -> str:
    """The first rows in the order of an index, which does not know where rows without a value belong."""
    order = order_by(query).replace(" NULLS LAST", "")
    where = " AND ".join(conditions)
    return f"(SELECT w.* FROM workload w WHERE {where} ORDER BY {order} LIMIT {FIRST_ROWS})"


def page_of_all(
    scope: Scope, query: WorkloadQuery, now: datetime, ids: Sequence[UUID] | None = None
) -> PageStatement:
    """All matches, which are among `ids` where these are given, are gathered and then sorted."""
    statement, order = sorted_statement(scope, query, now)
    narrow(statement, ids)
    offset = statement.bind(query.offset, "::bigint")
    if not has_sort_index(query):  # sorted by several processes, which OFFSET would leave to one
        return _page_of_ids(statement, order, _sorted_ids(statement, query, order, offset))
    # OFFSET 0 keeps the planner from reading in the wanted order, in the hope of many matches.
    matches = f"(SELECT w.* FROM {statement.source} WHERE {statement.where} OFFSET 0)"
    cluster = CLUSTER_JOIN if sort_column(query).needs_cluster else ""
    page = f"SELECT w.id FROM {matches} AS w {cluster} ORDER BY {order} {_limits(query, offset)}"
    return _page_of_ids(statement, order, page)


def narrow(statement: Statement, ids: Sequence[UUID] | None) -> None:
    """To rows among which all matches are; None = not known."""
    if ids is not None:
        statement.conditions.append(f"w.id = ANY({statement.bind(list(ids), '::uuid[]')})")


def has_sort_index(query: WorkloadQuery) -> bool:
    """All but the totals of live workloads, which run on. By when those were deleted, which is never, they have
    the order of their ids."""
    return query.is_deleted or QUERY_FIELDS[query.sort_by].storage is not Storage.PHASE_TOTAL


_NULLS_LAST = " NULLS LAST, w.id DESC"


def _limits(query: WorkloadQuery, offset: str) -> str:
    return f"LIMIT {query.limit + 1} OFFSET {offset}"


def _values_then_none(
    statement: Statement, query: WorkloadQuery, offset: str, *, tables: tuple[str, str]
) -> str:
    """Descending, no value last. Read backwards, an index has what has no value first: so those that have one
    come from one scan of it, and what the page then still wants from another. `tables`: where to find each."""
    column = sort_column(query).sql
    end = f"{query.limit + 1} + {offset}"

    def part(table: str, condition: str, limit: str) -> str:
        statement.table = table
        return (
            f"SELECT w.id, {column} AS value FROM {statement.source} "
            f"WHERE {statement.where} AND {column} {condition} "
            f"ORDER BY {column} DESC, w.id DESC LIMIT {limit}"
        )

    present = part(tables[0], "IS NOT NULL", end)
    absent = part(tables[1], "IS NULL", f"greatest(0, {end} - (SELECT count(*) FROM present))")
    return (
        f"WITH present AS MATERIALIZED ({present}), absent AS ({absent}) "
        "SELECT id FROM (SELECT id, value, 0 AS part FROM present UNION ALL "
        "SELECT id, value, 1 FROM absent) AS p "
        f"ORDER BY part, value DESC, id DESC {_limits(query, offset)}"
    )
