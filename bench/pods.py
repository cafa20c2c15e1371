"""`python -m bench.pods`: how long orders, filters and searches of pods take, and what a change of one costs.

50,000 pods live in 10,000 workloads, and 1,000,000 are gone with them or with 30,000 deleted ones, in an empty
embedded database; asked by the store's own functions, the best of some rounds.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from bench.data import NOW
from bench.rows import fill_million, without_indexes
from bench.servers import database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import pod, upsert, workload
from watchbill.protocol import Upsert
from watchbill.query import POD_FIELDS, PodQuery, Scope, parse_pod_filters
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.gone_count import GoneCounts
from watchbill.store.workloads.pods import pod_count, pod_list

SCOPE = Scope(1, is_whole_tenant=True)
ROUNDS, CHANGED, EACH = 5, 100, 10
"""Rounds of every question; workloads that change at once, and pods of each."""
PODS = """
INSERT INTO workload_pod (tenant_id, workload_id, id, name, node_name, current_node_pool, k8s_phase,
    k8s_phase_updated_at, created_at, completed_at, updated_at, deleted_at, document)
SELECT 1, w.id, md5(w.id::text || n)::uuid, w.name || '-worker-' || n || '-' || left(md5(n || w.id::text), 5),
    CASE WHEN n % 50 > 0 THEN 'node-' || abs(hashtext(w.id::text || n)) % 1500 END,
    CASE WHEN n % 50 > 0 THEN 'pool-' || n % 5 END, CASE WHEN n > $2 THEN 'Succeeded' ELSE 'Running' END,
    w.created_at, w.created_at + n * interval '1 second',
    CASE WHEN n > $2 THEN w.created_at + n * interval '1 hour' END,
    w.created_at, CASE WHEN n > $2 THEN w.created_at + n * interval '2 hours' END,
    convert_to(repeat(md5(n || w.id::text), 25), 'UTF8')
FROM workload w, generate_series(1, $3::int) n WHERE (w.deleted_at IS NULL) = $1
"""
"""Of live or of deleted workloads: how many pods of each live, and how many there are of each."""


async def main(scale: float) -> None:
    async with database() as url:
        await _fill(url, scale)
        db = await Database.open(url, pool_size=2, statement_timeout_seconds=600)
        await _ask(db)
        await _change(db)
        await db.close()


async def _fill(url: str, scale: float) -> None:
    await fill_million(
        url, total=round(40_000 * scale), live=round(10_000 * scale), seeds=round(2_000 * scale)
    )
    connection = await asyncpg.connect(url)
    try:
        async with without_indexes(connection, "workload_pod"):
            await connection.execute(PODS, True, 5, 15, timeout=1800)
            await connection.execute(PODS, False, 0, 30, timeout=1800)
        await connection.execute("VACUUM ANALYZE workload_pod", timeout=1800)
        for index in await connection.fetch(
            "SELECT indexrelname, pg_relation_size(indexrelid) / 1e6 FROM pg_stat_user_indexes "
            "WHERE relname LIKE 'workload_pod%' ORDER BY 1"
        ):
            print(f"{index[0]:44} {index[1]:8.1f} MB")
    finally:
        await connection.close()


async def _ask(db: Database) -> None:
    for is_deleted in (False, True):
        state = "gone" if is_deleted else "live"
        questions = {f"count of {state}": PodQuery(is_deleted=is_deleted)}
        for field in POD_FIELDS:
            for is_descending in (False, True):
                name = f"{state} by {field}{' descending' if is_descending else ''}"
                questions[name] = PodQuery(
                    is_deleted=is_deleted, sort_by=field, is_descending=is_descending
                )
        for text in ("worker-3", "node-77", "1f3a", "no-such-pod", "n"):
            questions[f"{state} with {text}"] = PodQuery(is_deleted=is_deleted, search=text)
        questions[f"{state} of a node"] = PodQuery(
            is_deleted=is_deleted, predicates=parse_pod_filters(["nodeName==node-77"])
        )
        for name, query in questions.items():
            counts = GoneCounts()
            listed = await _best(lambda query=query: pod_list(db, SCOPE, query, NOW))
            anew = await _best(lambda query=query: pod_count(db, SCOPE, query, NOW))
            await pod_count(db, SCOPE, query, NOW, counts)
            again = await _best(
                lambda query=query, counts=counts: pod_count(db, SCOPE, query, NOW, counts)
            )
            print(
                f"{name:40} list {listed * 1000:8.1f} ms   count {anew * 1000:8.1f} ms   "
                f"again {again * 1000:8.1f} ms",
                flush=True,
            )


async def _best(work: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - began)
    return min(taken)


async def _change(db: Database) -> None:
    """Pods come, run, end and go, through the product's own ingest."""
    agent = await connected_agent(db, NOW, number=7)
    made = [workload(10**6 + number, name=f"measured-{number}") for number in range(CHANGED)]
    lives = {
        "comes": {"node_name": None, "k8s_phase": "Pending"},
        "is scheduled": {"k8s_phase": "Pending"},
        "runs": {"k8s_phase": "Running"},
        "ends": {"k8s_phase": "Succeeded", "completed_at": NOW},
        "goes": None,
    }
    taken: dict[str, list[float]] = {name: [] for name in lives}
    for turn in range(ROUNDS):
        for name, members in lives.items():
            taken[name].append(await _send(agent, made, turn, members))
    for name, times in taken.items():
        print(f"a pod {name:14} {min(times) * 1e6 / CHANGED / EACH:8.0f} µs")


async def _send(agent: Agent, made: list, turn: int, members: dict[str, object] | None) -> float:
    items: list[Upsert] = []
    for each in made:
        numbers = range(turn * EACH, turn * EACH + EACH)
        pods = [
            pod(number + 1, name=f"{each.name}-{number}", **members)
            for number in (numbers if members is not None else ())
        ]
        items.append(upsert(each, pods=pods))
    began = time.perf_counter()
    await agent.send(*items, now=NOW)
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.pods", description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the 50,000 live and 1,000,000 deleted pods"
    )
    asyncio.run(main(parser.parse_args().scale))
