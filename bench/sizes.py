"""`python -m bench.sizes`: bytes of each kind of row in the database with its indexes, and what purging costs.

Everything enters through the product's own ingest, in an empty embedded database.
"""

import argparse
import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

from bench.data import BATCH, NOW, fill
from bench.servers import database
from tests.fixtures.clusters import Agent
from tests.fixtures.records import pod, upsert
from watchbill.protocol import Batch, Measured, Reading, Scrape, Upsert
from watchbill.store.identity.audit import AuditEvent, audit_purge, audit_write
from watchbill.store.ingest.stream import batch_apply
from watchbill.store.metrics.measured import measured_purge
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.storage import table_sizes
from watchbill.store.workloads.deletion import workload_purge
from watchbill.workload import InvolvedObject, WorkloadEvent

PODS, EVENTS, SCRAPES = 4, 10, 10
"""Of each workload."""


async def main(workloads: int) -> None:
    async with database() as url:
        db = await Database.open(url, pool_size=2, statement_timeout_seconds=600)
        await _measure(db, workloads)
        await db.close()


async def _measure(db: Database, workloads: int) -> None:
    agent, kept = await fill(db, total=workloads, live=workloads)
    ids = [entry.record.workload.id for entry in kept]
    await _show(db, "workload", workloads)
    await _send_pods(agent, kept)
    await _show(db, "workload_pod", workloads * PODS)
    await _send_events(agent, ids)
    await _show(db, "workload_event", workloads * EVENTS)
    await _send_scrapes(agent, ids)
    await _show(db, "measured_sample", workloads * SCRAPES)
    for start in range(0, workloads, BATCH):
        await audit_write(db, 1, [_audit_event(start + number) for number in range(BATCH)])
    await _show(db, "audit_event", -(-workloads // BATCH) * BATCH)
    await _purge(db, ids)


async def _purge(db: Database, ids: list[UUID]) -> None:
    async with db.acquire(1) as connection:
        await connection.execute("UPDATE workload SET deleted_at = $1", NOW)
    later = NOW + timedelta(days=200)
    started_at = time.monotonic()
    count = await workload_purge(db, 1, keep=timedelta(days=90), now=later)
    seconds = time.monotonic() - started_at
    print(
        f"purged {count} of {len(ids)} workloads with all of theirs: {count / seconds:.0f} a second"
    )
    started_at = time.monotonic()
    count = await audit_purge(db, 1, keep=timedelta(days=1), now=later)
    print(f"purged {count} audit events: {count / (time.monotonic() - started_at):.0f} a second")
    started_at = time.monotonic()
    count = await measured_purge(db, 1, days=7, now=later)
    print(f"dropped {count} days of samples in {time.monotonic() - started_at:.2f} s")


async def _show(db: Database, table: str, rows: int) -> None:
    sizes = {table_size.name: table_size.size_bytes for table_size in await table_sizes(db, NOW)}
    print(f"{table}: {rows} rows, {sizes[table] / rows:.0f} bytes each", flush=True)
    if table == "workload":
        for name, size in sizes.items():
            if size / rows >= 20:
                print(f"    {name}: {size / rows:.0f} bytes for each workload")


async def _send_pods(agent: Agent, kept: list[Upsert]) -> None:
    """The same workloads again, with pods."""
    for start in range(0, len(kept), BATCH):
        items = []
        for number, entry in enumerate(kept[start : start + BATCH], start):
            name = entry.record.workload.name
            pods = [
                pod(number * PODS + n + 1, name=f"{name}-{n}-{uuid4().hex[:5]}")
                for n in range(PODS)
            ]
            reported = [(transition.phase, transition.at) for transition in entry.transitions]
            items.append(upsert(entry.record, *reported, pods=pods))
        await agent.send(*items, now=NOW)


async def _send_events(agent: Agent, ids: list[UUID]) -> None:
    for start in range(0, len(ids), 50):
        events = tuple(
            WorkloadEvent(
                id=uuid4(),
                workload_id=id_,
                type="Normal",
                reason="Pulled",
                message='Container image "registry.example.com/train:1" already present on machine',
                source="kubelet",
                count=1,
                first_at=NOW - timedelta(minutes=number),
                last_at=NOW - timedelta(minutes=number),
                involved_object=InvolvedObject(
                    uid=uuid4(), kind="Pod", name=f"llama-sft-{number}", namespace="team-vision"
                ),
            )
            for id_ in ids[start : start + 50]
            for number in range(EVENTS)
        )
        await agent.send(now=NOW, events=events)


async def _send_scrapes(agent: Agent, ids: list[UUID]) -> None:
    figures = {
        "GPU_UTILIZATION": 42.5,
        "GPU_MEMORY_USAGE_BYTES": 3.2e10,
        "CPU_USAGE_CORES": 7.25,
        "CPU_MEMORY_USAGE_BYTES": 1.1e10,
    }
    readings = tuple(Reading(type=name, value=value) for name, value in figures.items())
    for number in range(SCRAPES):
        at = NOW - timedelta(minutes=SCRAPES - number)
        measured = tuple(Measured(id=id_, readings=readings) for id_ in ids)
        agent.seq += 1
        scrape = Scrape(at=at, counted_since=at, workloads=measured)
        batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=(), scrapes=(scrape,))
        await batch_apply(agent.db, agent.identity, batch, NOW)


def _audit_event(number: int) -> AuditEvent:
    at = NOW + timedelta(seconds=number)
    return AuditEvent(
        tenant_id=1,
        at=at,
        last_at=at,
        count=1,
        subject_kind="user",
        subject="ada@example.com",
        operation="get_workloads",
        target="",
        rules=("viewer of project vision",),
        address="192.0.2.7",
        outcome=200,
        request_id=uuid4().hex,
        details="filterBy=phase",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.add_argument("--workloads", type=int, default=4_000)
    asyncio.run(main(parser.parse_args().workloads))
