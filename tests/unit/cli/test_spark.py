"""Series in one line of text: what is unknown is no zero, and nothing is invented between."""

import pytest

from watchbill.cli.output.humanize import sparkline


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
