"""The bench's copies are rows as ingest writes them: listed, counted and searched alike."""

import asyncpg
import msgspec

from bench.data import fill
from bench.rows import fill_million
from tests.fixtures.records import START
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.workloads import workload_count, workload_list

SCOPE = Scope(1, is_whole_tenant=True)


async def test_copies_are_rows_as_ingest_writes_them(database_url: str, db: Database) -> None:
    await fill_million(database_url, total=120, live=40)
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetchval("SELECT count(*) FROM workload")
    live = await connection.fetchval("SELECT count(*) FROM workload WHERE deleted_at IS NULL")
    await connection.close()
    assert (rows, live) == (120, 40)
    assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 40, "the tally counts them"
    query = WorkloadQuery(is_deleted=True, limit=500)
    page = await workload_list(db, DocumentCache(0), SCOPE, query, START)
    ids = {msgspec.json.decode(b"".join(document))["id"] for document in page.documents}
    assert len(ids) == 80, "every copy's document bears its own id"


async def test_as_many_are_live_as_were_asked_for(db: Database) -> None:
    _, live = await fill(db, total=10, live=3)
    assert len(live) == 3
    assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 3
    assert await workload_count(db, SCOPE, WorkloadQuery(is_deleted=True), START) == 7
