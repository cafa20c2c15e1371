"""CSV by RFC 4180, with text that no spreadsheet runs as a formula."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

CsvCell = str | int | float | Decimal | datetime | None

_FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"
_SKIPPED = " \"'\u00a0\u3000\ufeff"
"""A spreadsheet may look behind these for the start of a formula."""


def rows_as_csv(rows: Iterable[Sequence[CsvCell]]) -> bytes:
    """Text cells are made harmless; numbers and instants are written as what they are."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(
        [_written(cell) for cell in row] for row in rows
    )
    return text.getvalue().encode()


def cell_at(document: Mapping[str, Any], path: Sequence[str]) -> CsvCell:
    """The member at the end of the path as a cell: null and absent are empty, lists are joined by commas."""
    value: Any = document
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return cell_of(value)


def cell_of(value: Any) -> CsvCell:
    """A member that is no object as a cell. A list of anything but texts and numbers is JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, list):
        cell: CsvCell = value
        return cell
    if any(isinstance(item, Mapping | list) for item in value):
        return msgspec.json.encode(value).decode()
    return ", ".join(str(item) for item in value)


def instant(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _written(cell: CsvCell) -> str | int | float | Decimal:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return instant(cell)
    return _harmless(cell) if isinstance(cell, str) else cell


def _harmless(text: str) -> str:
    return f"'{text}" if text.lstrip(_SKIPPED)[:1] in tuple(_FORMULA_STARTS) else text
