"""The plans of what is asked for often: a first page is read from an index, whatever it is sorted by."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from bench.rows import fill_million
from tests.conftest import Engine, fresh_database
from tests.fixtures.records import START
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.workloads.page import page_statement
from watchbill.store.workloads.search import trigrams
from watchbill.workload_fields import SORT_FIELDS

SCOPE = Scope(1, is_whole_tenant=True)
RUNNING_ON = {"totalPendingTimeSeconds", "totalRunningTimeSeconds"}
ORDERS = [
    (field, is_deleted)
    for is_deleted in (False, True)
    for field in sorted(SORT_FIELDS)
    if is_deleted or field not in RUNNING_ON
]


@pytest_asyncio.fixture(scope="module")
async def connection(engine: Engine) -> AsyncIterator[asyncpg.Connection]:
    url = await fresh_database(engine)
    await fill_million(url, total=12_000, live=6_000, seeds=400)
    connection = await asyncpg.connect(url)
    await connection.execute("SET jit = off; SET ROLE watchbill_app")
    await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
    yield connection
    await connection.close()


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize(("field", "is_deleted"), ORDERS)
async def test_a_first_page_reads_no_whole_table(
    connection: asyncpg.Connection, field: str, is_descending: bool, is_deleted: bool
) -> None:
    query = WorkloadQuery(
        sort_by=field, is_descending=is_descending, is_deleted=is_deleted, limit=20
    )
    page = page_statement(SCOPE, query, START)
    plan = await connection.fetch(f"EXPLAIN {page.ids}", *page.statement.parameters)
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on workload" not in text, text
    assert "Bitmap" not in text, text


@pytest.mark.parametrize(("state", "is_deleted"), [("live", False), ("deleted", True)])
async def test_a_rare_text_is_found_by_its_trigrams(
    connection: asyncpg.Connection, state: str, is_deleted: bool
) -> None:
    index = f"workload_search_{state}"
    before = await scans(connection, index)
    await connection.fetch(
        "SELECT workload_search_ids($1, $2, $3, 100)",
        *(is_deleted, trigrams(["project-77"]), ["%project-77%"]),
    )
    assert await scans(connection, index) > before


@pytest.mark.parametrize(("state", "is_deleted"), [("live", False), ("deleted", True)])
async def test_a_label_is_found_by_the_index_of_names(
    connection: asyncpg.Connection, state: str, is_deleted: bool
) -> None:
    index = f"workload_search_names_{state}"
    before = await scans(connection, index)
    await connection.fetch(
        "SELECT workload_named_ids($1, $2, 100)", is_deleted, ["label=team=vision"]
    )
    assert await scans(connection, index) > before


async def scans(connection: asyncpg.Connection, index: str) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    counted: int = await connection.fetchval(
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1", index
    )
    return counted
