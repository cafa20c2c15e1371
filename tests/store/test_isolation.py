"""The two locks: the scope predicate narrows every read, row security holds tenants apart without it."""

import importlib
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, all_nodes, node, pod, upsert, workload
from tests.fixtures.store_modules import store_modules
from watchbill.query import (
    NodeQuery,
    PodQuery,
    Scope,
    TelemetryQuery,
    UnitQuery,
    UsageQuery,
    WorkloadQuery,
)
from watchbill.store.fleet.clusters import cluster_delete, cluster_list, cluster_repin
from watchbill.store.fleet.fleet import fleet_now, fleet_series
from watchbill.store.fleet.nodes import cluster_names, node_count, node_get, node_list
from watchbill.store.identity.accounts import account_list, user_list
from watchbill.store.identity.audit import AuditQuery, audit_list
from watchbill.store.identity.rules import rule_list
from watchbill.store.ingest.held_deletions import held_refuse, held_release
from watchbill.store.metrics.measured import measured_purge
from watchbill.store.organisation.series import unit_series
from watchbill.store.organisation.telemetry import UnitTelemetryQuery, unit_telemetry
from watchbill.store.organisation.units import department_list, project_list, unit_count
from watchbill.store.postgres.database import Database
from watchbill.store.usage.report import usage_report
from watchbill.store.workloads.changes import change_list, matching_ids
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.events import event_list, history_list
from watchbill.store.workloads.idle import idle_list
from watchbill.store.workloads.pods import pod_count, pod_life_get, pod_list
from watchbill.store.workloads.search import trigrams
from watchbill.store.workloads.telemetry import telemetry_query
from watchbill.store.workloads.usage_steps import usage_list
from watchbill.store.workloads.workloads import (
    element_count,
    element_list,
    endpoint_list,
    phase_interval_list,
    priority_class_list,
    workload_count,
    workload_export,
    workload_facets,
    workload_get,
    workload_list,
)

NOW = START + timedelta(minutes=1)


async def tenant_tables(db: Database) -> dict[str, bool]:
    """Every table that knows tenants, and whether row security is forced on it."""
    async with db.acquire(1) as connection:
        rows = await connection.fetch(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS is_locked "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )
    return {row["relname"]: row["is_locked"] for row in rows}


async def two_tenants(database_url: str, db: Database) -> None:
    owner = await asyncpg.connect(database_url)
    await owner.execute("INSERT INTO tenant (id, name) VALUES (2, 'second')")
    await owner.close()
    for tenant_id in (1, 2):
        agent = await connected_agent(db, START, number=tenant_id, tenant_id=tenant_id)
        await agent.send(upsert(workload(tenant_id), pods=[pod(tenant_id)]), now=START)
        await agent.send_nodes(all_nodes(node(f"node-{tenant_id}")), START)


async def test_a_session_sees_its_tenant_only(database_url: str, db: Database) -> None:
    await two_tenants(database_url, db)
    tables = await tenant_tables(db)
    for tenant_id in (1, 2):
        async with db.acquire(tenant_id) as connection:
            for table in tables:
                rows = await connection.fetch(f"SELECT tenant_id FROM {table}")
                assert {row["tenant_id"] for row in rows} <= {tenant_id}, table
            assert await connection.fetchval("SELECT count(*) FROM workload") == 1


async def test_a_session_without_a_tenant_sees_and_writes_nothing(
    database_url: str, db: Database
) -> None:
    await two_tenants(database_url, db)
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET ROLE watchbill_app")
    for table in await tenant_tables(db):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(
            "INSERT INTO cluster_gap (tenant_id, cluster_id, from_at, to_at) "
            "VALUES (1, $1, now(), now())",
            UUID(int=1),
        )
    await connection.close()


async def test_a_tenant_cannot_write_into_another(database_url: str, db: Database) -> None:
    await two_tenants(database_url, db)
    async with db.acquire(1) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE workload SET tenant_id = 2")
        assert await connection.execute("DELETE FROM workload WHERE tenant_id = 2") == "DELETE 0"


async def test_every_tenant_table_is_forced(db: Database) -> None:
    tables = await tenant_tables(db)
    assert {"workload", "cluster", "account", "phase_transition"} <= tables.keys()
    unlocked = [name for name, is_locked in tables.items() if not is_locked]
    assert sorted(unlocked) == ["workload_pod", "workload_search"], (
        "their owner reads them, in functions that name the session's tenant alone"
    )


@pytest.mark.parametrize(
    "function",
    [
        "workload_search_ids(false, '{}', '{%}', 10)",
        "workload_named_ids(false, '{node=n}', 10)",
        "(workload_pod_gone_ids('{}', '%', 10)).id",
    ],
)
async def test_the_search_index_is_read_for_the_sessions_tenant_alone(
    database_url: str, db: Database, function: str
) -> None:
    """Although its function runs as the owner, whom row security does not bind there."""
    await two_tenants(database_url, db)
    owner = await asyncpg.connect(database_url)
    await owner.execute("UPDATE workload_search SET nodes = '{n}'")
    await owner.execute("UPDATE workload_pod SET deleted_at = now()")
    await owner.close()
    sql = f"SELECT {function}"
    for tenant_id in (1, 2):
        async with db.acquire(tenant_id) as connection:
            rows = await connection.fetch(sql)
        assert [row[0] for row in rows] == [UUID(int=tenant_id)]
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET ROLE watchbill_app")
    assert await connection.fetch(sql) == [], "and for none where the session has none"
    await connection.close()


_FILL_SEARCH = (
    "INSERT INTO workload_search (tenant_id, id, cluster_id, project_id, phase, search, labels) "
    "SELECT $1::int, md5($1::int || '-' || n)::uuid, md5('c')::uuid, 1, 'Running', 'llama-sft-' || n || "
    "repeat('y', CASE WHEN $1::int = 2 AND n % 2 = 0 THEN 1100 ELSE 0 END), "
    "CASE WHEN $1::int = 2 OR n % 200 = 0 THEN ARRAY['team=vision'] END "
    "FROM generate_series(1, $2::int) AS n"
)


@pytest.mark.parametrize(
    ("index", "search", "arguments", "count"),
    [
        (
            "workload_search_live",
            "workload_search_ids(false, $1, $2, 10001)",
            (trigrams(["llama-sft-77"]), ["%llama-sft-77%"]),
            11,  # 77, and 770 to 779
        ),
        (
            "workload_search_live",
            "generate_series(1, workload_search_count(false, $1, $2, '{Pending}'))",
            (trigrams(["llama-sft-77"]), ["%llama-sft-77%"]),
            11,
        ),
        (
            "workload_search_names_live",
            "workload_named_ids(false, $1, 10001)",
            (["label=team=vision"],),
            10,
        ),
    ],
)
async def test_a_search_reads_no_entry_of_another_tenant_in_the_index(
    database_url: str, db: Database, index: str, search: str, arguments: Any, count: int
) -> None:
    """Which has ten thousand texts with the same letters, as many that are too long, and the same label."""
    await two_tenants(database_url, db)
    owner = await asyncpg.connect(database_url)
    for tenant_id, rows in ((1, 2_000), (2, 20_000)):
        await owner.execute(_FILL_SEARCH, tenant_id, rows)
    await owner.execute("VACUUM ANALYZE workload_search")
    await owner.close()
    read = "SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1"
    async with db.acquire(1) as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        before = await connection.fetchrow(read, index)
        result = await connection.fetch(f"SELECT {search}", *arguments)
        await connection.execute("SELECT pg_stat_force_next_flush()")
        after = await connection.fetchrow(read, index)
    assert len(result) == count
    assert before is not None
    assert after is not None
    assert after["idx_scan"] > before["idx_scan"]
    assert after["idx_tup_read"] - before["idx_tup_read"] < 100


async def test_every_partition_is_forced(db: Database) -> None:
    """Row security holds on the table that is asked, so it is forced on each day as well."""
    await measured_purge(db, 1, days=7, now=NOW)
    async with db.acquire(1) as connection:
        rows = await connection.fetch(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS is_locked "
            "FROM pg_class c WHERE c.relispartition AND c.relkind = 'r'"
        )
    assert rows, "no partition was looked at"
    assert all(row["is_locked"] for row in rows)


SCOPES = {
    "whole tenant": (lambda ids: Scope(1, is_whole_tenant=True), {1, 2, 3}),
    "one cluster": (lambda ids: Scope(1, cluster_ids=frozenset({ids["cluster"]})), {1, 2}),
    "one project": (lambda ids: Scope(1, project_ids=frozenset({ids["project"]})), {2}),
    "one department": (lambda ids: Scope(1, department_ids=frozenset({ids["department"]})), {1}),
    "project and department": (
        lambda ids: Scope(
            1,
            project_ids=frozenset({ids["project"]}),
            department_ids=frozenset({ids["department"]}),
        ),
        {1, 2},
    ),
    "nothing": (lambda ids: Scope(1), set()),
    "another tenant": (lambda ids: Scope(7, is_whole_tenant=True), set()),
}


@pytest.mark.parametrize("name", SCOPES)
async def test_one_predicate_narrows_every_read(db: Database, name: str) -> None:
    first = await connected_agent(db, START, number=1)
    second = await connected_agent(db, START, number=2)
    await first.send(
        upsert(workload(1, project_name="vision", department_name="research")),
        upsert(workload(2, project_name="speech", department_name="products")),
        now=START,
    )
    await second.send(upsert(workload(3, project_name="vision")), now=START)
    async with db.acquire(1) as connection:
        single = await connection.fetchrow(
            "SELECT department_id FROM workload WHERE id = $1", UUID(int=1)
        )
        two = await connection.fetchrow(
            "SELECT project_id FROM workload WHERE id = $1", UUID(int=2)
        )
    assert single is not None
    assert two is not None
    ids = {
        "cluster": first.identity.cluster_id,
        "project": two["project_id"],
        "department": single["department_id"],
    }
    make, expected = SCOPES[name]
    scope = make(ids)
    query = WorkloadQuery()
    page = await workload_list(db, DocumentCache(0), scope, query, NOW)
    assert len(page.documents) == len(expected)
    assert await workload_count(db, scope, query, NOW) == len(expected)
    facets = await workload_facets(db, scope, query, ["phase", "projectName"], NOW)
    assert all(
        sum(count for _, count in facet.values) == len(expected) for facet in facets.values()
    )
    counted = await telemetry_query(
        db, scope, TelemetryQuery(telemetry_type="WORKLOADS_COUNT"), NOW
    )
    assert counted.values[0].value == str(len(expected))
    clusters = await cluster_list(db, scope, NOW)
    assert sum(cluster.workloads for cluster in clusters) == len(expected)
    for number in (1, 2, 3):
        workload_id = UUID(int=number)
        is_seen = number in expected
        assert (await workload_get(db, scope, workload_id, NOW) is not None) is is_seen
        assert (
            await phase_interval_list(db, scope, workload_id, offset=0, limit=9, now=NOW)
            is not None
        ) is is_seen
        assert (await element_count(db, scope, workload_id, NOW) is not None) is is_seen
        pods = await pod_list(db, scope, PodQuery(workload_id=workload_id), NOW)
        assert (pods is not None) is is_seen
        assert (await endpoint_list(db, scope, workload_id, NOW) is not None) is is_seen
        series = await usage_list(db, scope, workload_id, instants=[NOW], now=NOW)
        assert (series is not None) is is_seen


class Mislaid:
    """A database whose connections are always the second tenant's, whatever they are asked for: as if the
    code named the wrong tenant and its predicate with it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def acquire(self, _: int) -> Any:
        return self._db.acquire(2)

    def transaction(self, _: int) -> Any:
        return self._db.transaction(2)

    def snapshot(self, _: int) -> Any:
        return self._db.snapshot(2)


QUERY, FIRST = WorkloadQuery(), UUID(int=1)
USED = UsageQuery(start=START.date(), end=NOW.date(), groups=("project",))
COUNTED = TelemetryQuery(telemetry_type="WORKLOADS_COUNT")


async def exported(db: Any, scope: Scope) -> list[bytes]:
    return [entry async for batch in workload_export(db, scope, QUERY, NOW) for entry in batch]


READS: dict[str, Callable[[Any, Scope], Awaitable[Any]]] = {
    "workload_list": lambda db, scope: workload_list(db, DocumentCache(0), scope, QUERY, NOW),
    "workload_count": lambda db, scope: workload_count(db, scope, QUERY, NOW),
    "workload_get": lambda db, scope: workload_get(db, scope, FIRST, NOW),
    "workload_facets": lambda db, scope: workload_facets(db, scope, QUERY, ["phase"], NOW),
    "priority_class_list": lambda db, scope: priority_class_list(db, scope, NOW),
    "phase_interval_list": lambda db, scope: phase_interval_list(
        db, scope, FIRST, offset=0, limit=9, now=NOW
    ),
    "workload_export": exported,
    "project_list": lambda db, scope: project_list(db, scope, UnitQuery(), NOW),
    "department_list": lambda db, scope: department_list(
        db, scope, UnitQuery(), NOW, with_status=True
    ),
    "unit_telemetry": lambda db, scope: unit_telemetry(
        db, scope, UnitTelemetryQuery(unit="project", telemetry_type="GPU_ALLOCATION"), NOW
    ),
    "unit_series": lambda db, scope: unit_series(db, scope, "project", 2, instants=[NOW], now=NOW),
    "unit_count": lambda db, scope: unit_count(db, scope, "project", UnitQuery(), NOW),
    "element_list": lambda db, scope: element_list(db, scope, FIRST, offset=0, limit=9, now=NOW),
    "element_count": lambda db, scope: element_count(db, scope, FIRST, NOW),
    "endpoint_list": lambda db, scope: endpoint_list(db, scope, FIRST, NOW),
    "usage_list": lambda db, scope: usage_list(db, scope, FIRST, instants=[NOW], now=NOW),
    "telemetry_query": lambda db, scope: telemetry_query(db, scope, COUNTED, NOW),
    "cluster_list": lambda db, scope: cluster_list(db, scope, NOW),
    "fleet_now": lambda db, scope: fleet_now(db, scope, NOW),
    "fleet_series": lambda db, scope: fleet_series(
        db, scope, start=NOW - timedelta(hours=1), end=NOW, now=NOW
    ),
    "usage_report": lambda db, scope: usage_report(db, scope, USED, None, NOW),
    "event_list": lambda db, scope: event_list(db, scope, FIRST, offset=0, limit=9, now=NOW),
    "history_list": lambda db, scope: history_list(db, scope, FIRST, offset=0, limit=9, now=NOW),
    "pod_list": lambda db, scope: pod_list(db, scope, PodQuery(), NOW),
    "pod_count": lambda db, scope: pod_count(db, scope, PodQuery(), NOW),
    "pod_life_get": lambda db, scope: pod_life_get(db, scope, FIRST, pod(1).id, NOW),
    "node_list": lambda db, scope: node_list(db, scope, NodeQuery(), NOW),
    "node_count": lambda db, scope: node_count(db, scope, NodeQuery(), NOW),
    "node_get": lambda db, scope: node_get(db, scope, node("node-1").id, NOW),
    "cluster_names": lambda db, scope: cluster_names(db, scope),
    "idle_list": lambda db, scope: idle_list(db, DocumentCache(0), scope, QUERY, NOW),
    "matching_ids": lambda db, scope: matching_ids(db, scope, QUERY, [FIRST], NOW),
}


def test_every_read_that_takes_a_scope_is_here() -> None:
    collected = set()
    for module_name in store_modules():
        module = importlib.import_module(module_name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            parameters = inspect.signature(function).parameters
            if not name.startswith("_") and {"db", "scope"} <= parameters.keys():
                collected.add(name)
    changes = {"cluster_delete", "cluster_repin", "held_release", "held_refuse"}
    assert collected - changes == READS.keys()


@pytest.mark.parametrize("name", READS)
async def test_row_security_alone_keeps_every_read(
    database_url: str, db: Database, name: str
) -> None:
    """A scope that grants all of the first tenant, over a connection of the second, reads what there is in a
    tenant that does not exist: nothing."""
    await two_tenants(database_url, db)
    read, scope = READS[name], Scope(1, is_whole_tenant=True)
    nothing = await read(db, Scope(7, is_whole_tenant=True))
    assert await read(Mislaid(db), scope) == nothing
    if name not in (
        "idle_list",
        "fleet_series",
        "usage_report",
    ):  # nothing idles or is recorded yet
        assert await read(db, scope) != nothing


async def test_row_security_alone_keeps_administration(database_url: str, db: Database) -> None:
    await two_tenants(database_url, db)
    mislaid: Any = Mislaid(db)
    assert not await cluster_delete(
        mislaid, Scope(1, is_whole_tenant=True), UUID(int=0xC0 << 64 | 1), NOW
    )
    assert not await cluster_repin(
        mislaid, Scope(1, is_whole_tenant=True), UUID(int=0xC0 << 64 | 1)
    )
    for decide in (held_release, held_refuse):
        first = UUID(int=0xC0 << 64 | 1)
        assert not await decide(mislaid, Scope(1, is_whole_tenant=True), first, NOW)
    assert await rule_list(mislaid, 1) == []
    assert await account_list(mislaid, 1) == []
    assert await audit_list(mislaid, 1, AuditQuery()) == []
    assert await user_list(mislaid, 1) == []
    assert await change_list(mislaid, 1, [FIRST]) == []
