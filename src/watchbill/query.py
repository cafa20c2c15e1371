"""How workloads are queried: the operators, the filter grammar, the order and the scope. No SQL here.

The fields are those of `workload_fields.QUERY_FIELDS`. The same grammar over rows in memory (`RowTable`) is for
the few things that have no table of their own, such as clusters, node pools and priority classes.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, get_args
from uuid import UUID

import msgspec

from watchbill.errors import Invalid
from watchbill.workload_fields import QUERY_FIELDS, FieldKind

Row = TypeVar("Row")

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=@": lambda value, text: ascii_lower(text) in ascii_lower(value),
    "!@": lambda value, text: ascii_lower(text) not in ascii_lower(value),
    "=^": lambda value, text: ascii_lower(value).startswith(ascii_lower(text)),
    "=$": lambda value, text: ascii_lower(value).endswith(ascii_lower(text)),
}
MAX_FILTERS = 10
DEFAULT_LIMIT = 50
LABEL_FIELD = "label"
"""The field of labels, each `KEY=VALUE`."""


OPERATORS: dict[str, str] = {
    "==": "is",
    "!=": "is not",
    "<=": "at most",
    ">=": "at least",
    "=@": "contains",
    "!@": "does not contain",
    "=^": "starts with",
    "=$": "ends with",
}
ORDER_OPERATORS = frozenset({"==", "!=", "<=", ">="})
RANGE_OPERATORS = ORDER_OPERATORS - {"!="}
NEGATIVE_OPERATORS = frozenset({"!=", "!@"})
"""They also match rows that have no value."""

_OPERATOR = "|".join(re.escape(operator) for operator in OPERATORS)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?)?"
    r"([Zz]|[+\- ][0-9]{2}:[0-9]{2})?",
    re.ASCII,
)

Value = str | float | datetime


@dataclass(frozen=True, slots=True)
class Predicate:
    """One filter item; `value` is already of the field's kind."""

    field: str
    operator: str
    value: Value

    @property
    def is_negative(self) -> bool:
        return self.operator in NEGATIVE_OPERATORS


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may read: a whole tenant, or the union of some clusters, departments and projects.

    Departments and projects are the numbers that the server gave them (`projectId`, `departmentId`).
    """

    tenant_id: int
    is_whole_tenant: bool = False
    cluster_ids: frozenset[UUID] = frozenset()
    department_ids: frozenset[int] = frozenset()
    project_ids: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        return not (
            self.is_whole_tenant or self.cluster_ids or self.department_ids or self.project_ids
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadQuery:
    """Which workloads, in which order, which page. Count, facets, export and telemetry use the first three."""

    predicates: tuple[Predicate, ...] = ()
    search: str | None = None
    is_deleted: bool = False
    sort_by: str = "createdAt"
    is_descending: bool = False
    offset: int = 0
    limit: int = DEFAULT_LIMIT


TELEMETRY_GROUPS = (
    "ClusterId",
    "DepartmentId",
    "ProjectId",
    "Type",
    "CurrentNodepools",
    "RequestedNodepools",
    "Phase",
    "Category",
)


POD_FIELDS: dict[str, FieldKind] = {
    "clusterId": FieldKind.TEXT,
    "workloadId": FieldKind.TEXT,
    "revisionId": FieldKind.TEXT,
    "nodeName": FieldKind.TEXT,
    "currentNodepool": FieldKind.TEXT,
    "createdAt": FieldKind.INSTANT,
    "completedAt": FieldKind.INSTANT,
    "deletedAt": FieldKind.INSTANT,
}
"""What pods can be filtered and sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodQuery:
    """Which pods, in which order, which page. `is_completed` None = both; `workload_id` None = of all."""

    predicates: tuple[Predicate, ...] = ()
    search: str | None = None
    is_deleted: bool = False
    is_completed: bool | None = None
    workload_id: UUID | None = None
    sort_by: str = "createdAt"
    is_descending: bool = False
    with_names: bool = False
    offset: int = 0
    limit: int = DEFAULT_LIMIT


NODE_FIELDS: dict[str, FieldKind] = dict.fromkeys(
    (
        *("name", "status", "nodePool", "gpuType"),
        *("nvLinkDomainUid", "nvLinkCliqueId", "clusterUuid"),
    ),
    FieldKind.TEXT,
)
"""What nodes can be filtered and sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    """Which nodes, in which order, which page. `cluster_id` None = of all; `limit` None = all of them.

    `is_brief`: without their conditions and taints, which an agent can make long."""

    predicates: tuple[Predicate, ...] = ()
    search: str | None = None
    cluster_id: UUID | None = None
    node_id: UUID | None = None
    sort_by: str = "name"
    is_descending: bool = False
    offset: int = 0
    limit: int | None = None
    is_brief: bool = False


AVERAGES = tuple(
    f"avg{figure}{length}"
    for length in ("24h", "7d", "30d")
    for figure in ("GpuAllocation", "GpuUtilization", "GpuMemoryUtilization")
)
UNIT_FIELDS: dict[str, FieldKind] = {
    "name": FieldKind.TEXT,
    "clusterId": FieldKind.TEXT,
    "totalGpuQuota": FieldKind.NUMBER,
    "gpuAllocated": FieldKind.NUMBER,
    "createdAt": FieldKind.INSTANT,
    **dict.fromkeys(AVERAGES, FieldKind.NUMBER),
    "departmentId": FieldKind.TEXT,
    "parentId": FieldKind.TEXT,
    "parentName": FieldKind.TEXT,
    "phase": FieldKind.TEXT,
}
"""What projects can be filtered and sorted by; departments have no parent and no phase among theirs."""
OF_PROJECTS_ALONE = frozenset({"departmentId", "parentId", "parentName", "phase"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitQuery:
    """Which projects or departments, in which order, which page. `number`: the one that is asked for."""

    predicates: tuple[Predicate, ...] = ()
    search: str | None = None
    sort_by: str = "name"
    is_descending: bool = False
    number: int | None = None
    offset: int = 0
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryQuery:
    """Sums over live workloads; `telemetry_type` is the contract's WorkloadTelemetryType."""

    telemetry_type: str
    group_by: tuple[str, ...] = ()
    cluster_id: UUID | None = None
    node_pool: str | None = None
    department_id: str | None = None
    phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingBuckets:
    """Bounds of PENDING_TIME_DISTRIBUTION: each bucket reaches from the bound before up to its own."""

    upper_seconds: tuple[int, ...] = (300, 3600, 86400)
    labels: tuple[str, ...] = field(default=("0-5m", "5m-1h", "1h-24h", "24h+"))


UsageGroup = Literal[
    "cluster",
    "department",
    "project",
    "owner",
    "namespace",
    "type",
    "category",
    "nodePool",
    "gpuModel",
    "priorityClass",
    "workload",
    "day",
    "week",
    "month",
]
UsageSort = Literal[
    "allocatedGpuHours", "requestedGpuHours", "idleGpuHours", "pendingGpuHours", "cost"
]
"""By which figure the groups of a usage report are sorted, the most first."""
USAGE_SORTS: tuple[UsageSort, ...] = get_args(UsageSort)
USAGE_GROUPS: tuple[UsageGroup, ...] = get_args(UsageGroup)
"""What a usage report may be grouped by, and narrowed by."""
_USAGE_ITEM = re.compile(r"([A-Za-z]+)(==|!=|=@)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Whole UTC days, `end` not included. Predicates on one group: any of the `==`, and all of the others."""

    start: date
    end: date
    groups: tuple[str, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    sort_by: UsageSort = "allocatedGpuHours"
    offset: int = 0
    limit: int = 1000


def parse_usage_filters(parameters: list[str]) -> tuple[Predicate, ...]:
    """Read `filterBy` of a usage report: GROUP==VALUE, GROUP!=VALUE or GROUP=@TEXT. Raises Invalid."""
    if len(parameters) > MAX_FILTERS:
        raise Invalid(f"filterBy takes at most {MAX_FILTERS} items, {len(parameters)} were sent.")
    predicates = []
    for item in parameters:
        match = _USAGE_ITEM.fullmatch(item)
        if match is None or match[1] not in USAGE_GROUPS:
            raise Invalid(
                f"Invalid filter '{_quoted(item)}'.",
                details="Write GROUP==VALUE, GROUP!=VALUE or GROUP=@TEXT (contains). "
                f"Groups: {', '.join(USAGE_GROUPS)}.",
            )
        predicates.append(Predicate(match[1], match[2], match[3]))
    return tuple(predicates)


class FilterGrammar:
    """`filterBy` over some fields: FIELD OPERATOR VALUE, separated by commas or in a JSON array."""

    def __init__(self, fields: Mapping[str, FieldKind]) -> None:
        self._fields = fields
        names = "|".join(sorted(fields, key=len, reverse=True))
        self._item = re.compile(rf"({names})({_OPERATOR})(.+)", re.DOTALL)
        self._next_item = re.compile(rf",(?=(?:{names})(?:{_OPERATOR}))")

    def parse(self, parameters: Iterable[str]) -> tuple[Predicate, ...]:
        """Read `filterBy`, sent once or several times, as a comma list or as a JSON array of strings.

        A comma ends an item only where a known field and an operator follow, so values may hold commas.
        Raises Invalid.
        """
        items = [item for parameter in parameters if parameter for item in self._split(parameter)]
        if len(items) > MAX_FILTERS:
            raise Invalid(f"filterBy takes at most {MAX_FILTERS} items, {len(items)} were sent.")
        return tuple(self._predicate(item) for item in items)

    def _split(self, parameter: str) -> list[str]:
        if parameter.startswith("["):
            try:
                return msgspec.json.decode(parameter, type=list[str])
            except (msgspec.DecodeError, RecursionError) as error:
                message = "filterBy starts with '[' but is not a JSON array of strings."
                raise Invalid(message) from error
        return self._next_item.split(parameter)

    def _predicate(self, item: str) -> Predicate:
        match = self._item.fullmatch(item)
        if match is None:
            raise Invalid(
                f"Invalid filter '{_quoted(item)}'.",
                details="Write FIELD OPERATOR VALUE without spaces. "
                f"Fields: {', '.join(self._fields)}. Operators: {' '.join(OPERATORS)}.",
            )
        name, operator, text = match.groups()
        kind = self._fields[name]
        if kind in (FieldKind.NUMBER, FieldKind.INSTANT) and operator not in ORDER_OPERATORS:
            raise Invalid(
                f"The operator {operator} does not apply to {name}, which is a {kind.value}.",
                details=f"Operators for it: {' '.join(sorted(ORDER_OPERATORS))}.",
            )
        if kind is FieldKind.NUMBER:
            return Predicate(name, operator, parse_number(name, text))
        if kind is FieldKind.INSTANT:
            return Predicate(name, operator, parse_instant(name, text))
        if name == LABEL_FIELD and "=" not in text and operator in ("==", "!="):
            return _label_key(operator, text)
        return Predicate(name, operator, text)


def _label_key(operator: str, key: str) -> Predicate:
    """A key without a value means any value of it, as in a selector of Kubernetes. Raises Invalid."""
    if operator == "==":
        return Predicate(LABEL_FIELD, "=^", f"{key}=")
    raise Invalid(
        f"Invalid filter '{LABEL_FIELD}!={_quoted(key)}': a label is KEY=VALUE.",
        details=f"{LABEL_FIELD}!=KEY=VALUE leaves one value out, {LABEL_FIELD}==KEY is any value of a key.",
    )


_WORKLOAD_GRAMMAR = FilterGrammar({name: field.kind for name, field in QUERY_FIELDS.items()})


_POD_GRAMMAR = FilterGrammar(POD_FIELDS)
_NODE_GRAMMAR = FilterGrammar(NODE_FIELDS)


def parse_node_filters(parameters: Iterable[str]) -> tuple[Predicate, ...]:
    """Read `filterBy` over nodes. Raises Invalid."""
    return _NODE_GRAMMAR.parse(parameters)


_UNIT_GRAMMARS = {
    "project": FilterGrammar(UNIT_FIELDS),
    "department": FilterGrammar(
        {name: kind for name, kind in UNIT_FIELDS.items() if name not in OF_PROJECTS_ALONE}
    ),
}


def parse_unit_filters(
    unit: Literal["project", "department"], parameters: Iterable[str]
) -> tuple[Predicate, ...]:
    """Read `filterBy` over projects or departments. Raises Invalid."""
    return _UNIT_GRAMMARS[unit].parse(parameters)


def parse_pod_filters(parameters: Iterable[str]) -> tuple[Predicate, ...]:
    """Read `filterBy` over pods. Raises Invalid."""
    return _POD_GRAMMAR.parse(parameters)


def parse_filters(parameters: Iterable[str]) -> tuple[Predicate, ...]:
    """Read `filterBy` over workloads. Raises Invalid."""
    return _workload_predicates(tuple(parameters))


@lru_cache(maxsize=256)
def _workload_predicates(parameters: tuple[str, ...]) -> tuple[Predicate, ...]:
    """Whoever watches a list asks with the same filter again and again."""
    return _WORKLOAD_GRAMMAR.parse(parameters)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """A–Z lowered and nothing else, as `lower()` does under the collation C."""
    return text.translate(_ASCII_LOWER)


def parse_number(name: str, text: str) -> float:
    """A finite decimal number. Raises Invalid."""
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise Invalid(f"{name} must be a number, got '{_quoted(text)}'.")
    return number


def parse_instant(name: str, text: str) -> datetime:
    """RFC 3339, or a date alone (midnight); no offset means UTC; a space stands for a decoded '+'.

    Raises Invalid.
    """
    match = _INSTANT.fullmatch(text)
    if match is not None:
        day, time, fraction, offset = match.groups()
        zone = "+00:00" if offset in (None, "Z", "z") else offset.replace(" ", "+")
        try:
            return datetime.fromisoformat(
                f"{day}T{time or '00:00:00'}{(fraction or '')[:7]}{zone}"
            ).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise Invalid(
        f"{name} must be a date, got '{_quoted(text)}'.",
        details="Write it as RFC 3339, for example 2026-11-23T20:00:00Z.",
    )


def _quoted(text: str) -> str:
    """Text of a caller, shortened and on one line, as it may be quoted in a message."""
    return text[:80].encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class RowField(Generic[Row]):
    """How a row is asked for one value; None or "" is no value."""

    read: Callable[[Row], str | float | datetime | None]
    kind: FieldKind = FieldKind.TEXT


class RowTable(Generic[Row]):
    """The fields of one kind of rows. `key` decides between rows that are equal in the order asked for."""

    def __init__(self, fields: Mapping[str, RowField[Row]], *, key: Callable[[Row], str]) -> None:
        self._fields = fields
        self._key = key
        self._grammar = FilterGrammar({name: field.kind for name, field in fields.items()})

    def matching(self, rows: Iterable[Row], filters: Sequence[str]) -> list[Row]:
        """All conditions must hold, but several `==` on one field mean any of them. Raises Invalid."""
        predicates = self._grammar.parse(filters)
        wanted: dict[str, list[Predicate]] = {}
        for predicate in predicates:
            if predicate.operator == "==":
                wanted.setdefault(predicate.field, []).append(predicate)
        others = [[predicate] for predicate in predicates if predicate.operator != "=="]
        groups = [*wanted.values(), *others]
        return [
            row
            for row in rows
            if all(any(self._holds(row, predicate) for predicate in group) for group in groups)
        ]

    def ordered(self, rows: Iterable[Row], sort_by: str, *, is_descending: bool) -> list[Row]:
        """No value last both ways."""
        field = self._fields[sort_by]
        by_key = sorted(rows, key=self._key, reverse=is_descending)
        with_value = [row for row in by_key if _value(field, row) is not None]
        without = [row for row in by_key if _value(field, row) is None]

        def value_of(row: Row) -> Any:
            return _value(field, row)

        return sorted(with_value, key=value_of, reverse=is_descending) + without

    def _holds(self, row: Row, predicate: Predicate) -> bool:
        value = _value(self._fields[predicate.field], row)
        if value is None:
            return predicate.is_negative
        return _COMPARISONS[predicate.operator](value, predicate.value)


def _value(field: RowField[Row], row: Row) -> Value | None:
    value = field.read(row)
    return None if value is None or value == "" else value
