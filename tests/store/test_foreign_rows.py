"""Whatever objects somebody creates in one namespace, no row of another namespace's workloads changes."""

import re
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings

from tests.fixtures.clusters import connected_agent
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.unit.agent.foreign_objects import VICTIMS, Json, attacks
from tests.unit.agent.test_cache import DEFINITIONS
from tests.unit.agent.test_foreign_namespace import (
    EXPORTERS,
    filled_with_events,
    scraped,
    taken_events,
)
from watchbill.kinds.derive import derive
from watchbill.protocol import Batch, PodChanges, Upsert, record_hash
from watchbill.store.identity.administration import tenant_create
from watchbill.store.ingest.stream import batch_apply
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account

NOW = datetime(2026, 11, 23, 12, 5, tzinfo=UTC)
OBSERVED_MINUTES = 30
"""Longer than accounting waits for what an agent may still tell."""
LATER = NOW + timedelta(hours=2)
ROWS = {
    "workload": "w.id",
    "workload_pod": "w.workload_id",
    "workload_event": "w.workload_id",
    "workload_elements": "w.workload_id",
    "phase_transition": "w.workload_id",
    "usage_sample": "w.workload_id",
    "usage_step": "w.workload_id",
    "usage_day": "w.workload_id",
    "measured_sample": "w.workload_id",
}
"""Tables, and what says of whom a row is."""
NUMBERS = [
    "tenant_id",
    "cluster_id",
    "project_id",
    "department_id",
    "layout",
    "document",
    "revision",
]
"""Drawn by each tenant, with the document that begins with them and its hash: what they stand for is compared
beside them."""
_DRAWN = re.compile(
    r'^\{"tenantId":\d+,"clusterId":"[^"]+","projectId":"\d+","departmentId":"\d*",'
)
_numbers = count(1)


async def _reported(db: Database, own: str, objects: list[Json]) -> dict[str, list[str]]:
    """What a server has of the namespace's workloads, after an agent reported all of its objects."""
    number = next(_numbers)
    tenant_id, _, _ = await tenant_create(db, f"tenant-{number}", now=NOW)
    agent = await connected_agent(db, NOW, number=number, tenant_id=tenant_id)
    filled = filled_with_events([*EXPORTERS, *VICTIMS[own], *objects])
    tree = filled.cache.owner_tree
    derived = [
        derive(filled.cache.gather(root), DEFINITIONS, SETTINGS)
        for root in sorted(tree.groups)
        if filled.cache.is_alive(root)
    ]
    items = tuple(
        Upsert(
            record=each.record,
            record_hash=record_hash(each.record),
            transitions=each.transitions,
            observed_at=NOW,
            pods=PodChanges(changed=each.pods),
        )
        for each in derived
    )
    _, scrapes = await scraped(filled, own, objects)
    for seq, members in enumerate(
        (
            {"items": items},
            {"items": (), "scrapes": tuple(scrapes), "events": tuple(taken_events(filled))},
        ),
        start=1,
    ):
        batch = Batch(stream_id=agent.stream_id, seq=seq, **members)  # type: ignore[arg-type]
        await batch_apply(db, agent.identity, batch, NOW)
    agent.seq = 2
    for minute in range(1, OBSERVED_MINUTES):
        await agent.beat(NOW + timedelta(minutes=minute))
    await usage_account(db, tenant_id, LATER)
    ids = [each.record.workload.id for each in derived if each.record.workload.namespace == own]
    return await _rows(db, tenant_id, ids)


async def _rows(db: Database, tenant_id: int, ids: list[UUID]) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    async with db.acquire(tenant_id) as connection:
        for table, id_ in ROWS.items():
            stored = await connection.fetch(
                f"SELECT (to_jsonb(w) - $3::text[])::text AS row FROM {table} w "
                f"WHERE w.tenant_id = $1 AND {id_} = ANY($2::uuid[]) ORDER BY 1",
                tenant_id,
                ids,
                NUMBERS,
            )
            rows[table] = [row["row"] for row in stored]
        documents = await connection.fetch(
            "SELECT convert_from(document, 'UTF8') AS row FROM workload "
            "WHERE tenant_id = $1 AND id = ANY($2::uuid[]) ORDER BY id",
            tenant_id,
            ids,
        )
        rows["document"] = [_DRAWN.sub("{", row["row"]) for row in documents]
        pods = await connection.fetch(
            "SELECT convert_from(document, 'UTF8') AS row FROM workload_pod "
            "WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[]) ORDER BY id",
            tenant_id,
            ids,
        )
        rows["pod document"] = [row["row"] for row in pods]
        named = await connection.fetch(
            "SELECT w.id::text || ' ' || p.key || ' ' || p.name || ' ' || coalesce(d.key, '') AS row "
            "FROM workload w JOIN project p ON p.tenant_id = $1 AND p.id = w.project_id "
            "LEFT JOIN department d ON d.tenant_id = $1 AND d.id = w.department_id "
            "WHERE w.tenant_id = $1 AND w.id = ANY($2::uuid[]) ORDER BY 1",
            tenant_id,
            ids,
        )
        rows["project"] = [row["row"] for row in named]
    return rows


@given(attacks())
@settings(
    max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
async def test_foreign_objects_change_no_row(db: Database, attack: tuple[str, list[Json]]) -> None:
    own, objects = attack
    alone = await _reported(db, own, [])
    assert {table for table, rows in alone.items() if rows} >= set(ROWS) - {"workload_elements"}
    assert await _reported(db, own, objects) == alone
