"""Unknown is not arithmetic: no column that is NULL breaks a read or locks out an agent."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, upsert, workload
from tests.store.test_isolation import READS
from watchbill.protocol import (
    PROTOCOL_VERSION,
    Delete,
    Heartbeat,
    HelloRequest,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    InventoryEntry,
    KindState,
    NodePoolCapacity,
    record_hash,
)
from watchbill.query import TELEMETRY_GROUPS, Predicate, Scope, TelemetryQuery, WorkloadQuery
from watchbill.store.fleet.fleet import fleet_record
from watchbill.store.ingest import inventory
from watchbill.store.ingest.stream import heartbeat_apply, stream_open
from watchbill.store.metrics.observed import observed_cluster_get
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.select import TEMPLATES
from watchbill.store.workloads.telemetry import telemetry_query
from watchbill.store.workloads.workloads import workload_count, workload_facets, workload_list
from watchbill.workload import Phase
from watchbill.workload_fields import QUERY_FIELDS, FieldKind

NOW = START + timedelta(minutes=10)
ALL = Scope(1, is_whole_tenant=True)
SAMPLE = {
    FieldKind.TEXT: "a",
    FieldKind.NAMES: "a",
    FieldKind.NUMBER: 1.0,
    FieldKind.INSTANT: START,
}
FACETS = ("phase", "type", "category", "clusterId", "departmentName", "projectName")
TABLES = ("workload", "cluster", "project", "usage_sample", "phase_transition")


async def full_of_everything(db: Database) -> Agent:
    """A running, a pending and a deleted workload that have a value in every column."""
    agent = await connected_agent(db, START)
    pool = NodePoolCapacity(node_pool="a100", nodes=1, gpus=8.0)
    kind = KindState(group="metrics", kind="kubelet", state="complete", since=START)
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, kinds=(kind,), node_pools=(pool,))
    await heartbeat_apply(db, agent.identity, beat, START)
    since = f"{START:%Y-%m-%dT%H:%M:%SZ}"
    idle = {
        "workloadClass": "AI",
        "idleGpuHours": 2.5,
        "idleMeasuredSince": since,
        "idleMeanSince": since,
        "nodes": ["gpu-1"],
        "gpuModels": ["H100"],
        "labels": {"team": "vision"},
    }
    members: dict[str, object] = {
        "idle_allocated_gpus": 1.0,
        "idle_gpus": 1,
        "additional_fields": idle,
        "images": ("python:3.13",),
        "completed_at": START,
        "guaranteed_runtime_ends_at": NOW,
        "distributed_framework": "Ray",
        "ai_application_id": "app",
        "ai_application_name": "chat",
    }
    await agent.send(
        upsert(workload(1, **members)),
        upsert(workload(2, phase=Phase.PENDING, **members)),
        upsert(workload(3, **members)),
        now=START,
    )
    await agent.send(Delete(id=UUID(int=3), deleted_at=NOW), now=NOW)
    return agent


async def nullable_columns(owner: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await owner.fetch(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_name = ANY($1) AND is_nullable = 'YES' ORDER BY 1, 2",
        list(TABLES),
    )
    return [(row["table_name"], row["column_name"]) for row in rows]


@asynccontextmanager
async def without(owner: asyncpg.Connection, table: str, column: str) -> AsyncIterator[None]:
    """The column is NULL in every row meanwhile."""
    keys = await owner.fetchval(
        "SELECT string_agg(format('t.%I = b.%I', a.attname, a.attname), ' AND ') FROM pg_index i "
        "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
        "WHERE i.indrelid = $1::regclass AND i.indisprimary",
        table,
    )
    await owner.execute(f"CREATE TEMP TABLE before AS TABLE {table}")
    await owner.execute(f"UPDATE {table} SET {column} = NULL")
    try:
        yield
    finally:
        await owner.execute(
            f"UPDATE {table} t SET {column} = b.{column} FROM before b WHERE {keys}"
        )
        await owner.execute("DROP TABLE before")


async def read_everything(db: Database) -> None:
    for read in READS.values():
        await read(db, ALL)
    for field, is_deleted in itertools.product(QUERY_FIELDS.values(), (False, True)):
        sort_by = field.name if field.is_sortable else "name"
        query = WorkloadQuery(sort_by=sort_by, is_descending=True, is_deleted=is_deleted)
        await workload_list(db, DocumentCache(0), ALL, query, NOW)
        for operator in TEMPLATES[field.kind]:
            predicate = Predicate(field.name, operator, SAMPLE[field.kind])
            await workload_count(db, ALL, WorkloadQuery(predicates=(predicate,)), NOW)
    await workload_facets(db, ALL, WorkloadQuery(), FACETS, NOW)
    kinds = (
        "WORKLOADS_COUNT",
        "GPU_ALLOCATION",
        "IDLE_ALLOCATED_GPUS",
        "PENDING_TIME_DISTRIBUTION",
    )
    for kind, group in itertools.product(kinds, (None, *TELEMETRY_GROUPS)):
        grouped = (group,) if group else ()
        await telemetry_query(db, ALL, TelemetryQuery(telemetry_type=kind, group_by=grouped), NOW)
    await observed_cluster_get(db, 1, UUID(int=1))


async def send_everything(db: Database, agent: Agent) -> None:
    """An agent starts, sends what it has, and goes on."""
    await agent.hello(NOW)
    beat = Heartbeat(stream_id=agent.stream_id, seq=0)
    await heartbeat_apply(db, agent.identity, beat, NOW)
    item = upsert(workload(1, name="renamed"))
    reply = await agent.send(item, now=NOW)
    assert reply.refused == ()
    begun = await inventory.inventory_begin(
        db, agent.identity, InventoryBegin(stream_id=agent.stream_id, coverage=()), NOW
    )
    entry = InventoryEntry(UUID(int=1), record_hash(item.record))
    names = {"stream_id": agent.stream_id, "inventory_id": begun.inventory_id}
    await inventory.inventory_entries(
        db, agent.identity, InventoryEntries(entries=(entry,), **names)
    )
    await inventory.inventory_commit(db, agent.identity, InventoryCommit(count=1, **names), NOW)


async def test_any_column_may_be_unknown(embedded_engine: Engine) -> None:
    """On one engine: what is tried is what our code makes of NULL."""
    database_url = await fresh_database(embedded_engine)
    db = await Database.open(database_url, pool_size=4)
    agent = await full_of_everything(db)
    owner = await asyncpg.connect(database_url)
    columns = await nullable_columns(owner)
    assert ("workload", "idle_allocated_gpu") in columns
    for number, (table, column) in enumerate(columns):
        async with without(owner, table, column):
            try:
                await read_everything(db)
                await fleet_record(db, 1, NOW + timedelta(minutes=5 * number))
                if column not in ("removed_at", "deleted_at"):
                    await send_everything(db, agent)
            except Exception as error:
                error.add_note(f"{table}.{column} is NULL")
                raise
    await owner.close()
    await db.close()


async def test_hours_that_were_counted_outlive_what_is_unknown_now(db: Database) -> None:
    """The exporter is gone, so whether the GPUs idle is unknown; the hours before stay."""
    agent = await connected_agent(db, START)
    since = f"{START:%Y-%m-%dT%H:%M:%SZ}"
    fields = {"idleGpuHours": 2.5, "idleMeasuredSince": since}
    unknown = workload(1, idle_allocated_gpus=None, idle_gpus=None, additional_fields=fields)
    await agent.send(upsert(unknown), now=START)
    request = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test")
    reply = await stream_open(db, agent.identity, request, NOW)
    assert [(hours.id, hours.gpu_hours) for hours in reply.idle] == [(UUID(int=1), 2.5)]


async def test_no_extra_fails_the_handshake(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise TypeError("float() argument must be a string or a real number, not 'NoneType'")

    agent = await connected_agent(db, START)
    monkeypatch.setattr("watchbill.store.ingest.stream.idle_hours_list", broken)
    await agent.hello(NOW)
    assert (await agent.send(upsert(workload(1)), now=NOW)).refused == ()
