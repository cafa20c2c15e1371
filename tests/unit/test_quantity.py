"""Quantities are read and written exactly, as Kubernetes means them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.quantity import LARGEST, format_bytes, format_count, parse_quantity


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("0", 0),
        ("1", 1),
        ("+5", 5),
        ("-3", -3),
        ("100m", Fraction(1, 10)),
        ("1500m", Fraction(3, 2)),
        ("2000m", 2),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("64Mi", 64 * 1024**2),
        ("64M", 64 * 1000**2),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 1536 * 1024**2),
        ("12e6", 12_000_000),
        ("1E3", 1000),
        ("1e-3", Fraction(1, 1000)),
        ("3E", 3 * 10**18),
        ("250n", Fraction(1, 4_000_000)),
        ("7u", Fraction(7, 1_000_000)),
        ("9Ei", LARGEST),
        (2, 2),
        (0.5, Fraction(1, 2)),
    ],
)
def test_reads(written: object, amount: int | Fraction) -> None:
    assert parse_quantity(written) == amount


@pytest.mark.parametrize(
    "written",
    ["", " ", "1 Gi", "Gi", "1gi", "1K", "1e", "0x10", "１", "1_000", "NaN", "inf", "1e400", "--1"],
)
def test_refuses_text(written: str) -> None:
    assert parse_quantity(written) is None


@pytest.mark.parametrize(
    "written",
    ["9" * 100, None, True, [], {}, float("nan"), float("inf"), 1e300, 10**400],
)
def test_refuses(written: object) -> None:
    assert parse_quantity(written) is None


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "0"),
        (64 * 1024**2, "64Mi"),
        (64 * 1000**2, "64M"),
        (1536 * 1024**2, "1536Mi"),
        (10**9, "1G"),
        (1024, "1Ki"),
        (1000, "1k"),
        (1023, "1023"),
        (80 * 1024**3, "80Gi"),
        (Fraction(3, 2), "2"),
    ],
)
def test_writes_bytes(amount: int | Fraction, written: str) -> None:
    assert format_bytes(amount) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [(3, "3"), (Fraction(1, 2), "500m"), (Fraction(3, 2), "1500m"), (Fraction(1, 3), "334m")],
)
def test_writes_counts(amount: int | Fraction, written: str) -> None:
    assert format_count(amount) == written


@given(st.integers(min_value=0, max_value=LARGEST))
def test_bytes_survive_writing_and_reading(amount: int) -> None:
    assert parse_quantity(format_bytes(amount)) == amount


@given(st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.booleans())
def test_reading_never_raises(written: object) -> None:
    amount = parse_quantity(written)
    assert amount is None or abs(amount) <= LARGEST
