"""`python -m bench.metrics`: ten types with a thousand samples each, of two hundred workloads at once.

The samples are the agent's own, a row every half minute, eight GPUs a workload, read from the database by a
server with tokens, scope and turns in place. Told are the whole time, the median and the longest question, and
how much memory the server's process took meanwhile.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID

import asyncpg
import msgspec
import psutil

from bench import servers
from bench.data import bench_workload
from bench.http import Connection
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import record, upsert
from watchbill.client import Client
from watchbill.metric_types import DCGM, KUBELET
from watchbill.protocol import Batch, Heartbeat, KindState, Measured, Reading, Scrape
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.workload import Phase, Usage

GPUS = 8
SCRAPE = timedelta(seconds=30)
SAMPLES = 1000
AT_ONCE = 4
"""As many questions of one tenant as the server answers at a time; the others wait here."""
SCRAPES_A_BATCH = 20
TYPES = (
    *("GPU_UTILIZATION", "GPU_MEMORY_USAGE_BYTES", "NVLINK_BANDWIDTH_TOTAL", "GPU_ALLOCATION"),
    *("CPU_USAGE_CORES", "CPU_MEMORY_USAGE_BYTES", "CPU_REQUEST_CORES", "CPU_MEMORY_REQUEST_BYTES"),
    *("POD_COUNT", "RUNNING_POD_COUNT"),
)
PER_GPU = TYPES[:3]
USAGE = Usage(
    pod_count=1,
    running_pod_count=1,
    gpu_millionths=GPUS * 1_000_000,
    gpu_memory_request_bytes=0,
    cpu_request_cores=64.0,
    cpu_memory_request_bytes=2**39,
)


def readings(rng: random.Random, number: int, seconds: float) -> tuple[Reading, ...]:
    devices = [f"GPU-{number:06d}-{device}" for device in range(GPUS)]
    return (
        *(Reading(kind, rng.random() * 100, gpu) for kind in PER_GPU for gpu in ("", *devices)),
        Reading("CPU_USAGE_CORES", 12.5 * seconds),
        Reading("CPU_MEMORY_USAGE_BYTES", rng.random() * 2**38),
    )


async def fill(db: Database, *, workloads: int, hours: float) -> list[UUID]:
    """Workloads that ran all the time, and what was measured of them."""
    now = datetime.now(UTC)
    began = now - timedelta(hours=hours)
    rng = random.Random(3)
    agent = await connected_agent(db, began)
    made = [
        msgspec.structs.replace(bench_workload(rng, number), phase=Phase.RUNNING, created_at=began)
        for number in range(1, workloads + 1)
    ]
    await agent.send(
        *(upsert(record(entry, usage=USAGE), observed_at=began) for entry in made), now=began
    )
    ids = [entry.id for entry in made]
    moments = [began + SCRAPE * step for step in range(1, int(hours * 3600 / 30))]
    for start in range(0, len(moments), SCRAPES_A_BATCH):
        scrapes = tuple(
            Scrape(
                at=at,
                counted_since=began,
                workloads=tuple(
                    Measured(workload_id, readings(rng, number, (at - began).total_seconds()))
                    for number, workload_id in enumerate(ids)
                ),
            )
            for at in moments[start : start + SCRAPES_A_BATCH]
        )
        await send(agent, scrapes, now)
    kinds = tuple(
        KindState(group="metrics", kind=kind, state="complete", since=began)
        for kind in (DCGM, KUBELET)
    )
    beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq, kinds=kinds, node_pools=())
    await heartbeat_apply(db, agent.identity, beat, now)
    return ids


async def send(agent: Agent, scrapes: tuple[Scrape, ...], now: datetime) -> None:
    agent.seq += 1
    batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=(), scrapes=scrapes)
    await batch_apply(agent.db, agent.identity, batch, now)


@asynccontextmanager
async def watched(process: psutil.Process) -> AsyncIterator[list[int]]:
    """Its resident bytes, ten times a second."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(process.memory_info().rss)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


async def ask_all(url: str, token: str, ids: list[UUID], hours: float) -> tuple[list[float], int]:
    """Seconds of each question, and the bytes of all answers."""
    end = datetime.now(UTC)
    start = end - timedelta(hours=hours)
    query = (
        f"metricType={','.join(TYPES)}&numberOfSamples={SAMPLES}"
        f"&start={quote(start.isoformat())}&end={quote(end.isoformat())}"
    )
    waiting, seconds, size = list(ids), [], 0

    async def ask(connection: Connection) -> None:
        nonlocal size
        while waiting:
            path = f"/api/v1/workloads/{waiting.pop()}/metrics?{query}"
            began = time.perf_counter()
            size += len(await connection.send("GET", path, token=token))
            seconds.append(time.perf_counter() - began)

    connections = [await Connection.open(url) for _ in range(AT_ONCE)]
    await asyncio.gather(*(ask(opened) for opened in connections))
    for opened in connections:
        await opened.close()
    return seconds, size


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metrics", description=__doc__)
    parser.add_argument("--workloads", type=int, default=200)
    parser.add_argument("--hours", type=float, default=8.0)
    options = parser.parse_args()
    async with servers.database() as database_url:
        db = await Database.open(database_url, pool_size=4)
        print(
            f"filling in {options.hours} hours of {options.workloads} workloads ...",
            file=sys.stderr,
        )
        began = time.perf_counter()
        ids = await fill(db, workloads=options.workloads, hours=options.hours)
        filled = time.perf_counter() - began
        connection = await asyncpg.connect(database_url)
        await connection.execute("VACUUM ANALYZE")
        rows = await connection.fetchval("SELECT count(*) FROM measured_sample")
        await connection.close()
        client_id, secret = await servers.administrator(db)
        async with (
            servers.serving(servers.OURS, database_url) as url,
            Client(url, client_id, secret) as client,
        ):
            process = next(
                child
                for child in psutil.Process().children()
                if url.rsplit(":", 1)[1] in child.cmdline()
            )
            before = process.memory_info().rss
            async with watched(process) as seen:
                began = time.perf_counter()
                seconds, size = await ask_all(url, await client.token(), ids, options.hours)
                whole = time.perf_counter() - began
        await db.close()
    reported = {
        "rows": rows,
        "rows_written_per_second": round(rows / filled),
        "questions": len(seconds),
        "whole_seconds": round(whole, 1),
        "median_ms": round(statistics.median(seconds) * 1000),
        "longest_ms": round(max(seconds) * 1000),
        "answers_mb": round(size / 1e6, 1),
        "server_mb_before": round(before / 1e6),
        "server_mb_most": round(max(seen) / 1e6),
    }
    print(json.dumps(reported))


if __name__ == "__main__":
    asyncio.run(main())
