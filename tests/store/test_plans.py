"""The plans of what is asked for often: a first page is read from an index, whatever it is sorted by."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from bench.rows import fill_million
from tests.conftest import Engine, fresh_database
from tests.fixtures.records import START
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.workloads.select import page_statement
from watchbill.workload_fields import QUERY_FIELDS

SCOPE = Scope(1, is_whole_tenant=True)
WITHOUT_INDEX = {"nodepool", "totalPendingTimeSeconds", "totalRunningTimeSeconds"}


@pytest_asyncio.fixture(scope="module")
async def connection(engine: Engine) -> AsyncIterator[asyncpg.Connection]:
    url = await fresh_database(engine)
    await fill_million(url, total=8_000, live=8_000, seeds=400)
    connection = await asyncpg.connect(url)
    await connection.execute("SET jit = off; SET ROLE watchbill_app")
    await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
    yield connection
    await connection.close()


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("field", sorted(QUERY_FIELDS.keys() - WITHOUT_INDEX))
async def test_a_first_page_reads_no_whole_table(
    connection: asyncpg.Connection, field: str, is_descending: bool
) -> None:
    query = WorkloadQuery(sort_by=field, is_descending=is_descending, limit=20)
    statement, _, page = page_statement(SCOPE, query, START)
    plan = await connection.fetch(f"EXPLAIN {page}", *statement.parameters)
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on workload" not in text, text
    assert "Bitmap" not in text, text
