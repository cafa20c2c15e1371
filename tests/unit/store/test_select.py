"""How a search text becomes conditions that an index can answer."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from watchbill.query import Scope, WorkloadQuery
from watchbill.store.workloads.select import conditions, id_bounds

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("prefix", "first", "last"),
    [
        ("a", "a0000000-0000-0000-0000-000000000000", "afffffff-ffff-ffff-ffff-ffffffffffff"),
        (
            "12345678-9",
            "12345678-9000-0000-0000-000000000000",
            "12345678-9fff-ffff-ffff-ffffffffffff",
        ),
        (
            "12345678-9abc-def0-1234-56789abcdef0",
            "12345678-9abc-def0-1234-56789abcdef0",
            "12345678-9abc-def0-1234-56789abcdef0",
        ),
    ],
)
def test_ids_that_begin_alike_lie_side_by_side(prefix: str, first: str, last: str) -> None:
    assert id_bounds(prefix) == (UUID(first), UUID(last))


@pytest.mark.parametrize("prefix", ["g", "123456789", "a-", "{a", "a\n", "a" * 37, "²"])
def test_what_begins_no_id_has_no_bounds(prefix: str) -> None:
    assert id_bounds(prefix) is None


def test_a_search_that_names_no_phase_and_no_id_looks_at_one_column() -> None:
    scope = Scope(1, is_whole_tenant=True)
    statement = conditions(scope, WorkloadQuery(search="llama"), NOW)
    assert statement.conditions[-1] == "(w.search LIKE $3::text)"
    assert "w.phase" in conditions(scope, WorkloadQuery(search="PEND"), NOW).where
