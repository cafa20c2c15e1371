"""The file of prices: what it may hold, and what is said of anything else."""

from datetime import date
from pathlib import Path

import pytest

from watchbill.errors import Invalid
from watchbill.prices import PriceChange, Prices, read_prices


def test_prices_by_node_pool_and_for_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    text = "currency: EUR\ngpuHour: 1.8\nnodePools: {h100: 3.2}\ngpuModels: {L4: 0.8}\n"
    file.write_text(text, encoding="utf-8")
    assert read_prices(file) == Prices(
        currency="EUR", gpu_hour=1.8, node_pools={"h100": 3.2}, gpu_models={"L4": 0.8}
    )
    assert read_prices(None) is None


def test_prices_change_on_a_day(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    text = "currency: EUR\ngpuHour: 1\nchanges: [{from: 2026-12-01, nodePools: {h100: 3}}]\n"
    file.write_text(text, encoding="utf-8")
    change = PriceChange(since=date(2026, 12, 1), node_pools={"h100": 3.0})
    assert read_prices(file) == Prices(currency="EUR", gpu_hour=1.0, changes=(change,))


@pytest.mark.parametrize(
    "text",
    [
        "currency: EUR\nchanges: [{from: 2026-12-01}, {from: 2026-12-01}]",
        "currency: EUR\nchanges: [{from: 2026-12-02}, {from: 2026-12-01}]",
        "currency: EUR\nchanges: [{from: soon, gpuHour: 1}]",
        "currency: EUR\nchanges: [{gpuHour: 1}]",
        "",
        "currency: EUR\ngpuHour: -1",
        "currency: EUR\nh100: 3",
        "currency: [",
        "currency: EUR\ngpuHour: .inf",
    ],
)
def test_anything_else_is_refused_with_the_file_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid, match=r"prices\.yaml"):
        read_prices(file)
    with pytest.raises(Invalid, match="absent"):
        read_prices(tmp_path / "absent")
