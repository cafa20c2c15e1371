"""From a WorkloadQuery to SQL: the only place where conditions and orders over workloads are written.

Column names come from the table `workload_fields`, values only as bind parameters. List, count, facets, export
and telemetry share `conditions`, and with it the one scope predicate.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from watchbill.query import (
    LABEL_FIELD,
    RANGE_OPERATORS,
    Predicate,
    Scope,
    WorkloadQuery,
    ascii_lower,
)
from watchbill.workload import GPU_MILLIONTHS, Phase
from watchbill.workload_fields import QUERY_FIELDS, FieldKind, Storage, WorkloadField

WORKLOAD = "workload"
TALLY = "workload_tally"
DELETED_TALLY = "workload_deleted_tally"
TALLIES = frozenset({TALLY, DELETED_TALLY})
"""Each tells of one state, and has a row for many workloads."""
SEARCH = "workload_search"

LIVE = "w.deleted_at IS NULL"
DELETED = "w.deleted_at IS NOT NULL"
SEPARATOR = "\x1f"
"""Stands between the fields of the search column, so that no match runs across two of them."""

# Rounded to microseconds, a float is exact, and many times as fast as the numeric that EXTRACT yields.
_SINCE = (
    "round(date_part('epoch', least($1::timestamptz, c.last_contact_at) - w.{0}_since) * 1e6)"
    "::bigint / 1000"
)
_TOTAL = "((w.{0}_ms + greatest(0, coalesce(" + _SINCE + ", 0))) / 1000)"
PENDING_SECONDS = _TOTAL.format("pending")
RUNNING_SECONDS = _TOTAL.format("running")
"""Whole seconds spent in the phase up to now ($1), which stops at the cluster's last contact."""
IN_PHASE_SECONDS = (
    "greatest(0, date_part('epoch', "
    "least($1::timestamptz, c.last_contact_at) - w.phase_updated_at))"
)
"""Seconds since it entered its phase, as a float, up to the same instant."""

CLUSTER_JOIN = "JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id"


@dataclass(frozen=True, slots=True)
class SelectColumn:
    """How a field is read in SQL. `scale`: what a number is multiplied by before it is compared.

    `sort_sql`: what has the same order and an index; None = `sql` itself.
    """

    sql: str
    is_nullable: bool = True
    scale: int = 1
    needs_cluster: bool = False
    sort_sql: str | None = None


def _select_column(field: WorkloadField) -> SelectColumn:
    column = f"w.{field.column}"
    match field.storage:
        case Storage.PLAIN:
            sort_sql = f"names_order({column})" if field.kind is FieldKind.NAMES else None
            return SelectColumn(column, field.is_nullable, sort_sql=sort_sql)
        case Storage.ID:
            sort_sql = column if field.column == "cluster_id" else None  # UUIDs sort as their text
            return SelectColumn(
                f'({column}::text COLLATE "C")', field.is_nullable, sort_sql=sort_sql
            )
        case Storage.MILLIONTHS:
            return SelectColumn(column, field.is_nullable, scale=GPU_MILLIONTHS)
        case Storage.PHASE_TOTAL:
            return SelectColumn(_TOTAL.format(field.column), field.is_nullable, needs_cluster=True)


COLUMNS: dict[str, SelectColumn] = {
    name: _select_column(field) for name, field in QUERY_FIELDS.items()
}

# {0} is the column, {1} the bind parameter.
_COMPARISONS = {
    "==": "{0} = {1}",
    "!=": "({0} IS NULL OR {0} <> {1})",
    "<=": "{0} <= {1}",
    ">=": "{0} >= {1}",
}
_TEXT = _COMPARISONS | {
    "=@": "lower({0}) LIKE {1}",
    "!@": "({0} IS NULL OR lower({0}) NOT LIKE {1})",
    "=^": "lower({0}) LIKE {1}",
    "=$": "lower({0}) LIKE {1}",
}
_NAMES = {
    "==": "{1} = ANY({0})",
    "!=": "({0} IS NULL OR {1} <> ALL({0}))",
    "<=": "EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE n <= {1})",
    ">=": "EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE n >= {1})",
    "=@": "EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE lower(n) LIKE {1})",
    "!@": "({0} IS NULL OR NOT EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE lower(n) LIKE {1}))",
    "=^": "EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE lower(n) LIKE {1})",
    "=$": "EXISTS (SELECT 1 FROM unnest({0}) AS n WHERE lower(n) LIKE {1})",
}
_JOINED = "lower(array_to_string({0}, '" + SEPARATOR + "'))"
_JOINED_NAMES = {
    "=@": _JOINED + " LIKE {1}",
    "!@": "({0} IS NULL OR " + _JOINED + " NOT LIKE {1})",
    "=^": "(" + _JOINED + " LIKE '%' || {1} AND " + _NAMES["=^"] + ")",
    "=$": "(" + _JOINED + " LIKE {1} || '%' AND " + _NAMES["=$"] + ")",
}
"""The same in two fifths of the time, of a text that cannot reach from a name into the next."""
TEMPLATES: dict[FieldKind, dict[str, str]] = {
    FieldKind.TEXT: _TEXT,
    FieldKind.NUMBER: _COMPARISONS,
    FieldKind.INSTANT: _COMPARISONS,
    FieldKind.NAMES: _NAMES,
}
_LIKE: dict[str, Callable[[str], str]] = {
    "=@": lambda text: f"%{text}%",
    "!@": lambda text: f"%{text}%",
    "=^": lambda text: f"{text}%",
    "=$": lambda text: f"%{text}",
}
_CASTS = {
    FieldKind.TEXT: "::text",
    FieldKind.NAMES: "::text",
    FieldKind.INSTANT: "::timestamptz",
}
_PHASES = frozenset(phase.value for phase in Phase)
"""Written into statements: they are few and most workloads are in one or two of them, so a plan that is made
once for every value would take a common one for rare."""
_BIGINT = 2**63 - 1
_ROUNDING = Decimal("0.000001")
_ID_TEXT = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LEAST_ID, _GREATEST_ID = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(slots=True)
class Statement:
    """Conditions gathered together with their parameters; $1 is always the request's `now`."""

    now: datetime
    parameters: list[Any] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    needs_cluster: bool = False
    table: str = WORKLOAD

    def __post_init__(self) -> None:
        self.parameters.append(self.now)

    def bind(self, value: Any, cast: str = "") -> str:
        self.parameters.append(value)
        return f"${len(self.parameters)}{cast}"

    def shared(self) -> "Statement":
        """Conditions of their own, over the same parameters."""
        other = Statement(self.now, table=self.table)
        other.parameters = self.parameters
        return other

    @property
    def source(self) -> str:
        return f"{self.table} w {CLUSTER_JOIN}" if self.needs_cluster else f"{self.table} w"

    @property
    def count(self) -> str:
        """How many workloads the rows of `source` stand for."""
        return "coalesce(sum(w.workloads), 0)::bigint" if self.table in TALLIES else "count(*)"

    @property
    def where(self) -> str:
        # $1 must be used for its type to be known; the planner drops a constant condition.
        return " AND ".join(["$1::timestamptz IS NOT NULL", *self.conditions])


def conditions(
    scope: Scope, query: WorkloadQuery, now: datetime, *, table: str = WORKLOAD
) -> Statement:
    """Everything that decides whether a row belongs to the answer."""
    statement = Statement(now, table=table)
    add_conditions(statement, scope, query)
    return statement


def add_conditions(statement: Statement, scope: Scope, query: WorkloadQuery) -> None:
    in_scope(statement, scope)
    if statement.table not in TALLIES:
        statement.conditions.append(state_condition(query))
    add_predicates(statement, query.predicates, _condition)
    if query.search:
        _add_search(statement, query.search)


def one_workload(scope: Scope, workload_id: UUID, now: datetime) -> Statement:
    """What narrows the table to the workload, if it is in scope."""
    statement = Statement(now)
    in_scope(statement, scope)
    statement.conditions.append(f"w.id = {statement.bind(workload_id, '::uuid')}")
    return statement


def state_condition(query: WorkloadQuery) -> str:
    return DELETED if query.is_deleted else LIVE


def in_scope(statement: Statement, scope: Scope) -> None:
    """Narrows the statement by the one scope predicate."""
    statement.conditions += scope_conditions(statement, scope)


def scope_conditions(statement: Statement, scope: Scope) -> list[str]:
    """The one scope predicate, on the workload `w`."""
    tenant = f"w.tenant_id = {statement.bind(scope.tenant_id, '::int')}"
    if scope.is_whole_tenant:
        return [tenant]
    granted = [
        f"w.{column} = ANY({statement.bind(sorted(ids), cast)})"
        for column, ids, cast in (
            ("cluster_id", scope.cluster_ids, "::uuid[]"),
            ("department_id", scope.department_ids, "::int[]"),
            ("project_id", scope.project_ids, "::int[]"),
        )
        if ids
    ]
    return [tenant, f"({' OR '.join(granted)})" if granted else "false"]


def add_predicates(
    statement: Statement,
    predicates: Iterable[Predicate],
    condition: Callable[[Statement, Predicate], str],
) -> None:
    """All must hold, but several `==` on one field (of labels, on one key) mean any of them. `condition`
    writes one as SQL."""
    statement.conditions += _joined(statement, predicates, condition)


def _joined(
    statement: Statement,
    predicates: Iterable[Predicate],
    condition: Callable[[Statement, Predicate], str],
) -> list[str]:
    joined: list[str] = []
    wanted: dict[str, list[str]] = {}
    for predicate in predicates:
        sql = condition(statement, predicate)
        if predicate.operator == "==":
            wanted.setdefault(alternatives_key(predicate), []).append(sql)
        else:
            joined.append(sql)
    return joined + [f"({' OR '.join(alternatives)})" for alternatives in wanted.values()]


def alternatives_key(predicate: Predicate) -> str:
    """What several `==` have in common where any of them is enough: the field, of labels the key too."""
    if predicate.field != LABEL_FIELD:
        return predicate.field
    return f"{LABEL_FIELD} {str(predicate.value).partition('=')[0]}"


def range_conditions(statement: Statement, query: WorkloadQuery) -> list[str]:
    """The predicates that narrow the wanted order to a part of it, as an index on it can tell."""
    column = COLUMNS[query.sort_by]
    if column.sort_sql is not None or column.needs_cluster:
        return []
    own = (
        predicate
        for predicate in query.predicates
        if predicate.field == query.sort_by and predicate.operator in RANGE_OPERATORS
    )
    return _joined(statement, own, _condition)


def _condition(statement: Statement, predicate: Predicate) -> str:
    column = COLUMNS[predicate.field]
    statement.needs_cluster |= column.needs_cluster
    return compare(statement, column, QUERY_FIELDS[predicate.field].kind, predicate)


def compare(
    statement: Statement, column: SelectColumn, kind: FieldKind, predicate: Predicate
) -> str:
    """One predicate on a column, as SQL."""
    value, templates = predicate.value, TEMPLATES[kind]
    if isinstance(value, str):
        if kind is FieldKind.NAMES and value and SEPARATOR not in value:
            templates = templates | _JOINED_NAMES
        if "\0" in value:  # no stored text holds it, and PostgreSQL rejects the parameter
            return "true" if predicate.is_negative else "false"
        if predicate.operator in _LIKE:
            value = _LIKE[predicate.operator](escape_like(ascii_lower(value)))
    if isinstance(value, float):
        parameter = _bind_number(statement, value, column.scale)
    elif column.sql == "w.phase" and value in _PHASES:
        parameter = f"'{value}'"
    else:
        parameter = statement.bind(value, _CASTS[kind])
    return templates[predicate.operator].format(column.sql, parameter)


def _bind_number(statement: Statement, value: float, scale: int) -> str:
    """A whole number as bigint, which compares with a column as it stands; any other exactly.

    What lies between two millionths stays between, so `==` does not round into a match.
    """
    scaled = Decimal(repr(value)) * scale
    nearest = round(scaled)
    if abs(scaled - nearest) < _ROUNDING and abs(nearest) <= _BIGINT:
        return statement.bind(int(nearest), "::bigint")
    return statement.bind(scaled, "::numeric")


def _add_search(statement: Statement, text: str) -> None:
    """Substring of the prepared column or of the phase, or the beginning of the id."""
    if "\0" in text or SEPARATOR in text:
        statement.conditions.append("false")
        return
    pattern = statement.bind(f"%{escape_like(ascii_lower(text))}%", "::text")
    alternatives = [f"w.search LIKE {pattern}", *search_beyond_column(statement, text)]
    statement.conditions.append(f"({' OR '.join(alternatives)})")


def add_text_search(statement: Statement, text: str, *columns: str) -> None:
    """Substring of any of these columns."""
    if "\0" in text:
        statement.conditions.append("false")
        return
    pattern = statement.bind(f"%{escape_like(ascii_lower(text))}%", "::text")
    alternatives = " OR ".join(f"lower({column}) LIKE {pattern}" for column in columns)
    statement.conditions.append(f"({alternatives})")


def search_beyond_column(statement: Statement, text: str) -> list[str]:
    """The conditions under which a search matches beside the search column, which phases and ids are not in.

    Which phases and which range of ids that means is known before a row is read.
    """
    alternatives = []
    phases = phases_containing(text)
    if phases:
        alternatives.append(f"w.phase = ANY({statement.bind(phases, '::text[]')})")
    bounds = id_bounds(ascii_lower(text))
    if bounds:
        first, last = (statement.bind(bound, "::uuid") for bound in bounds)
        alternatives.append(f"w.id BETWEEN {first} AND {last}")
    return alternatives


def phases_containing(text: str) -> list[str]:
    lowered = ascii_lower(text)
    return [phase.value for phase in Phase if lowered in ascii_lower(phase.value)]


def id_bounds(prefix: str) -> tuple[UUID, UUID] | None:
    """The least and the greatest UUID whose lower-case text begins so; None where no UUID's does."""
    first = prefix + str(_LEAST_ID)[len(prefix) :]
    last = prefix + str(_GREATEST_ID)[len(prefix) :]
    return (UUID(first), UUID(last)) if _ID_TEXT.fullmatch(first) else None


_SORT_COLUMNS = {
    name: replace(column, sql=column.sort_sql or column.sql) for name, column in COLUMNS.items()
}


def sort_column(query: WorkloadQuery) -> SelectColumn:
    """The field that is sorted by, as its index reads it. Totals of what is deleted do not run on."""
    field = QUERY_FIELDS[query.sort_by]
    if field.storage is Storage.PHASE_TOTAL and query.is_deleted:
        return SelectColumn(f"(w.{field.column}_ms / 1000)", is_nullable=False)
    return _SORT_COLUMNS[query.sort_by]


def order_by(query: WorkloadQuery) -> str:
    """The query's order: no value last both ways, ties by id in the same direction."""
    direction = "DESC" if query.is_descending else "ASC"
    if query.sort_by == "deletedAt" and not query.is_deleted:
        return f"w.id {direction}"  # none has a value
    column = sort_column(query)
    # Written only where a row may have no value: an index cannot serve what it was not made for.
    has_value = not column.is_nullable or query.sort_by == "deletedAt"
    nulls = " NULLS LAST" if query.is_descending and not has_value else ""
    return f"{column.sql} {direction}{nulls}, w.id {direction}"


def sorted_statement(scope: Scope, query: WorkloadQuery, now: datetime) -> tuple[Statement, str]:
    """Conditions and order together, the cluster joined where either needs it."""
    statement = conditions(scope, query, now)
    statement.needs_cluster |= sort_column(query).needs_cluster
    return statement, order_by(query)


def escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
