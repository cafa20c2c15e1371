"""Filters, order and search over rows in memory, by the rules of `query`: for the few things that have no
table of their own to ask, such as clusters, node pools and priority classes. No I/O."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from watchbill.query import FilterGrammar, Predicate, Value, ascii_lower
from watchbill.workload_fields import FieldKind

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
