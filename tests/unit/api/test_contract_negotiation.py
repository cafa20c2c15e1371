"""`Accept`, and what a spreadsheet makes of our CSV."""

import csv
import io
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.api.http.reply import negotiate
from watchbill.errors import Unacceptable
from watchbill.tabular import rows_as_csv

BOTH = ("application/json", "text/csv")

CHOSEN = [
    (None, "application/json"),
    ("", "application/json"),
    ("*/*", "application/json"),
    ("application/json", "application/json"),
    ("text/csv", "text/csv"),
    ("Text/CSV", "text/csv"),
    ("text/csv; charset=utf-8", "text/csv"),
    ("text/*", "text/csv"),
    ("text/csv, */*", "text/csv"),
    ("text/csv, application/json", "application/json"),
    ("text/csv, application/json;q=0.9", "text/csv"),
    ("text/csv;q=0.5, application/json;q=0.9", "application/json"),
    ("text/csv;q=0, */*", "application/json"),
    ("application/json;q=0, */*;q=0.1", "text/csv"),
    ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
    ("application/*;q=0.2, text/csv;q=0.1", "application/json"),
    (", ,text/csv,", "text/csv"),
]


@pytest.mark.parametrize(("accept", "expected"), CHOSEN)
def test_choose(accept: str | None, expected: str) -> None:
    assert negotiate(accept, BOTH) == expected


@pytest.mark.parametrize(
    "accept",
    ["text/html", "text/csv;q=0", "*/*;q=0", "text/csv;q=two", "text/csv;q=2", "text/csv;q=-1", ";;;", "json"],
)  # fmt: skip
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(Unacceptable) as refused:
        negotiate(accept, BOTH)
    assert refused.value.details == "Available: application/json, text/csv."


@given(st.text(max_size=100))
def test_any_accept_is_an_offer_or_unacceptable(accept: str) -> None:
    with suppress(Unacceptable):
        assert negotiate(accept, BOTH) in BOTH


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠a",
     "  =1", '"=1', " ' @x", "\u00a0=1", "\ufeff=1"],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_is_made_harmless(text: str) -> None:
    ((cell,),) = _read(rows_as_csv([[text]]))
    assert cell == f"'{text}"


def test_other_cells_are_written_as_what_they_are() -> None:
    at = datetime(2026, 11, 20, 10, 0, tzinfo=timezone(timedelta(hours=2)))
    row = ["a,b", 'say "no"', "line\nbreak", -1, Decimal("-0.5"), None, at, "1-1", ""]
    assert _read(rows_as_csv([row])) == [
        ["a,b", 'say "no"', "line\nbreak", "-1", "-0.5", "", "2026-11-20T08:00:00.000Z", "1-1", ""]
    ]
    assert rows_as_csv([["a"], ["b"]]) == b"a\r\nb\r\n"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_any_text_reads_back_and_begins_no_formula(row: list[str]) -> None:
    (result,) = _read(rows_as_csv([row]))
    for sent, cell in zip(row, result, strict=True):
        assert cell in (sent, f"'{sent}")
        assert not cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))


def _read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))
