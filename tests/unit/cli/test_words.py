"""Spans, instants and numbers as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from watchbill.cli.connection.session import find_time_zone
from watchbill.cli.output.humanize import (
    format_age,
    format_duration,
    format_number,
    format_time,
    plural,
    sparkline,
)
from watchbill.errors import Invalid

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.9, "0s"),
        (45, "45s"),
        (60, "1m"),
        (185, "3m 5s"),
        (3600, "1h"),
        (7880, "2h 11m"),
        (86_400, "1d"),
        (3 * 86_400 + 4 * 3600 + 59, "3d 4h"),
        (400 * 86_400, "400d"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
    assert format_duration(timedelta(seconds=seconds)) == shown


def test_times_are_shown_in_the_time_zone_of_now_with_their_distance() -> None:
    abroad = timezone(timedelta(hours=2))
    berlin = NOW.astimezone(find_time_zone("local", {"TZ": "Europe/Berlin"}))
    assert format_time(NOW, berlin).startswith("2026-11-23 13:00:00 CET (")
    with pytest.raises(Invalid, match="Mars"):
        find_time_zone("Mars", {})
    assert format_age(None, NOW) == format_time(None, NOW) == "-"
    assert format_age(datetime(2026, 11, 23, 9, 49, tzinfo=UTC), NOW) == "2h 11m"
    assert (
        format_time(datetime(2026, 11, 23, 13, 0, tzinfo=abroad), NOW)
        == "2026-11-23 11:00:00 UTC (1h ago)"
    )
    assert (
        format_time(datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC), NOW)
        == "2026-11-23 12:00:30 UTC (in 30s)"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (8.0, "8"),
        (100, "100"),
        (0.5, "0.5"),
        (1 / 3, "0.333"),
        (None, "-"),
        ("64Mi", "64Mi"),
    ],
)
def test_numbers_say_no_more_than_they_know(value: object, shown: str) -> None:
    assert format_number(value) == shown


def test_plurals() -> None:
    assert (plural(1, "workload"), plural(12_431, "workload")) == ("1 workload", "12,431 workloads")


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([0.0, 0.0], 10, "▁▁"),
        ([0.0, 7.0], 10, "▁█"),
        ([None, 7.0, None], 10, "·█·"),
        ([None, None], 10, "··"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 10, "▁▂▃▄▅▆▇█"),
        ([0.0, 4.0, None, 8.0], 2, "▃█"),
        ([5.0] * 1000, 3, "███"),
    ],
)
def test_drawn(values: list[float | None], width: int, drawn: str) -> None:
    assert sparkline(values, width=width) == drawn


def test_a_top_of_ones_own() -> None:
    assert sparkline([50.0], width=5, top=100.0) == "▅"
    assert sparkline([500.0], width=5, top=100.0) == "█"
