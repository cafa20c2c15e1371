"""Rows in memory are asked by the same rules as workloads in the database."""

from dataclasses import dataclass

import pytest

from watchbill.errors import Invalid
from watchbill.query import RowField, RowTable
from watchbill.workload_fields import FieldKind


@dataclass(frozen=True)
class Item:
    name: str
    size: float | None = None
    note: str = ""


TABLE = RowTable[Item](
    {
        "name": RowField(lambda item: item.name),
        "size": RowField(lambda item: item.size, FieldKind.NUMBER),
        "note": RowField(lambda item: item.note),
    },
    key=lambda item: item.name,
)
ITEMS = [Item("b", 2.0), Item("A", 10.0, "Straße"), Item("c"), Item("ÄX", 2.0, "a,b")]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["name==b"], ["b"]),
        (["name==b,name==c"], ["b", "c"]),
        (["name==b", "size>=10"], []),
        (["size<=2"], ["b", "ÄX"]),
        (["size!=2"], ["A", "c"]),
        (["note!@s"], ["b", "c", "ÄX"]),
        (["note=^STRA"], ["A"]),
        (["name=@äx"], []),
        (["name=@x"], ["ÄX"]),
        (["note==a,b"], ["ÄX"]),
        (["name>=b"], ["b", "c", "ÄX"]),
        (['["name==b","size<=2"]'], ["b"]),
        ([""], ["b", "A", "c", "ÄX"]),
    ],
)
def test_filters(filters: list[str], expected: list[str]) -> None:
    assert [item.name for item in TABLE.matching(ITEMS, filters)] == expected


@pytest.mark.parametrize("bad", ["colour==x", "name", "size=@1", "size==x", "name=="])
def test_what_is_no_filter_is_refused(bad: str) -> None:
    with pytest.raises(Invalid):
        TABLE.matching(ITEMS, [bad])


def test_no_value_is_last_both_ways_and_ties_follow_the_order() -> None:
    up = [item.name for item in TABLE.ordered(ITEMS, "size", is_descending=False)]
    down = [item.name for item in TABLE.ordered(ITEMS, "size", is_descending=True)]
    assert up == ["b", "ÄX", "A", "c"]
    assert down == ["A", "ÄX", "b", "c"]
