"""`make bench`: reads and writes over HTTP against the bare driver and against peers, turn by turn.

Every line is a ratio of medians from rounds in which the contestants alternate, so a machine that slows down
slows all of them; beside it stand the lowest and the highest ratio of a single round. Four clients ask the same
at once where nothing else is said, so ours asks the database once. Ours runs with tokens, scope, validation and
limits in place; the peers with none of these.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from bench import servers
from bench.data import NOW, changed, fill
from bench.http import Connection
from bench.peer import COPY_ROWS
from bench.readers import Reader, datasette, postgrest
from tests.fixtures.clusters import Agent
from watchbill.client import Client
from watchbill.protocol import Upsert
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account

AT_ONCE = 4
LEAST_LIVE = 500
"""The longest list that is asked for has as many."""
OURS = "ours"
DRIVER = "bare driver"
PEER = "FastAPI + SQLAlchemy + pydantic"

GPUS_BY_PROJECT = (
    "SELECT project_id, max(project_name), sum(allocated_gpu) FROM workload "
    "WHERE tenant_id = 1 AND deleted_at IS NULL GROUP BY project_id"
)

Work = Callable[[], Awaitable[None]]
Line = dict[str, str | float]


@dataclass(frozen=True)
class Contest:
    """What is compared: `per_turn` calls of each contestant a turn; `ours` is the numerator's inverse."""

    name: str
    ours: Work
    rivals: dict[str, Work]
    per_turn: int = 20


async def seconds_of(work: Work, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await work()
    return (time.perf_counter() - began) / calls


async def run(contest: Contest, rounds: int) -> list[Line]:
    """Over alternating rounds, after one that does not count."""
    contestants = {OURS: contest.ours, **contest.rivals}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            seconds = await seconds_of(work, contest.per_turn)
            if number:
                taken[name].append(seconds)
    return lines(contest.name, taken)


def lines(contest: str, taken: Mapping[str, Sequence[float]]) -> list[Line]:
    """One for each rival, of the seconds that each took in each round."""
    ours = taken[OURS]
    result: list[Line] = []
    for rival in taken:
        if rival == OURS:
            continue
        ratios = [theirs / own for theirs, own in zip(taken[rival], ours, strict=True)]
        line: Line = {
            "contest": contest,
            "against": rival,
            "ours_ms": round(statistics.median(ours) * 1000, 3),
            "theirs_ms": round(statistics.median(taken[rival]) * 1000, 3),
            "throughput": round(statistics.median(taken[rival]) / statistics.median(ours), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
        }
        result.append(line)
    return result


TABLE_HEAD = (
    "| contest | against | ours | theirs | times their throughput | lowest and highest round |\n"
    "|---|---|---|---|---|---|"
)


def markdown(line: Line) -> str:
    return (
        f"| {line['contest']} | {line['against']} | {line['ours_ms']:g} ms | {line['theirs_ms']:g} ms | "
        f"{line['throughput']:.2f} | {line['lowest']:.2f}, {line['highest']:.2f} |"
    )


def driver(connections: list[asyncpg.Connection], sql: str) -> Work:
    async def work() -> None:
        await asyncio.gather(
            *(connection.fetch(sql.format(number)) for number, connection in enumerate(connections))
        )

    return work


def get(connections: list[Connection], path: str, token: str | None = None) -> Work:
    """One request on each connection at a time; `{}` in the path is the connection's number."""

    async def work() -> None:
        await asyncio.gather(
            *(
                connection.send("GET", path.format(number), token=token)
                for number, connection in enumerate(connections)
            )
        )

    return work


def ingest(agent: Agent, live: list[Upsert], size: int) -> Work:
    turn = 0

    async def work() -> None:
        nonlocal turn
        turn += 1
        start = (turn * size) % (len(live) - size)
        items = [changed(entry, turn) for entry in live[start : start + size]]
        reply = await agent.send(*items, now=NOW)
        assert not reply.refused

    return work


def peer_upsert(connection: Connection, documents: list[dict[str, object]]) -> Work:
    turn = 0

    async def work() -> None:
        nonlocal turn
        turn += 1
        body = [document | {"runningPods": turn} for document in documents]
        await connection.send("POST", "/workloads", body=json.dumps(body).encode())

    return work


async def contests(
    database_url: str, total: int, live_count: int, rounds: int
) -> AsyncGenerator[Line, None]:
    db = await Database.open(database_url, pool_size=4)
    print(f"filling in {total} workloads, {live_count} live ...", file=sys.stderr)
    agent, live = await fill(db, total=total, live=live_count)
    client_id, secret = await servers.administrator(db)
    connection = await asyncpg.connect(database_url)
    await connection.execute(COPY_ROWS)
    # As heartbeats would: of a silent cluster every document has until when it was observed.
    await connection.execute("UPDATE cluster SET last_contact_at = now() + interval '1 day'")
    print("accounting what they used since then ...", file=sys.stderr)
    await usage_account(db, 1, datetime.now(UTC))  # else our server does, all the while
    await connection.execute("VACUUM ANALYZE")
    async with (
        servers.serving(servers.OURS, database_url) as ours,
        servers.serving(servers.PEER, database_url) as peer,
        reading(database_url) as readers,
    ):
        async with Client(ours, client_id, secret) as client:
            token = await client.token()
        arena = Arena(
            drivers=[await asyncpg.connect(database_url) for _ in range(AT_ONCE)],
            ours=[await Connection.open(ours) for _ in range(AT_ONCE)],
            peer=[await Connection.open(peer) for _ in range(AT_ONCE)],
            readers=readers,
            token=token,
        )
        documents = [
            json.loads(row["document"])
            for row in await connection.fetch("SELECT document FROM peer_workload LIMIT 100")
        ]
        for contest in [*reads(arena), writes(arena, agent, live, documents)]:
            for line in await run(contest, rounds):
                yield line
        for side in (*arena.drivers, *arena.ours, *arena.peer):
            await side.close()
    await connection.close()
    await db.close()


@asynccontextmanager
async def reading(database_url: str) -> AsyncIterator[dict[Reader, list[Connection]]]:
    """Peers that only read; what cannot be had here is left out, and said so."""
    readers: dict[Reader, list[Connection]] = {}
    async with AsyncExitStack() as stack:
        for peer in (postgrest, datasette):
            try:
                reader = await stack.enter_async_context(peer(database_url))
            except (RuntimeError, OSError) as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            readers[reader] = [await Connection.open(reader.url) for _ in range(AT_ONCE)]
        yield readers
        for connection in itertools.chain(*readers.values()):
            await connection.close()


@dataclass(frozen=True)
class Arena:
    """`AT_ONCE` connections to each contestant."""

    drivers: list[asyncpg.Connection]
    ours: list[Connection]
    peer: list[Connection]
    readers: dict[Reader, list[Connection]]
    token: str


def reads(arena: Arena) -> list[Contest]:
    def rows(limit: int) -> str:
        return (
            "SELECT id, document FROM workload WHERE tenant_id = 1 AND deleted_at IS NULL "
            f"ORDER BY created_at, id LIMIT {limit}"
        )

    filters = "type==PyTorchJob,phase==Running,allocatedGPU%3E=1"
    counted = (
        "SELECT count(*) FROM workload WHERE tenant_id = 1 AND deleted_at IS NULL "
        "AND type = 'PyTorchJob' AND phase = 'Running' AND allocated_gpu >= 1000000"
    )
    listed = "/api/v1/workloads"
    return [
        *(
            Contest(
                f"list {limit}",
                get(arena.ours, f"{listed}?limit={limit}", arena.token),
                {
                    DRIVER: driver(arena.drivers, rows(limit)),
                    PEER: get(arena.peer, f"/workloads?limit={limit}"),
                    **{each.name: get(at, each.list(limit)) for each, at in arena.readers.items()},
                },
                per_turn=20 if limit == 50 else 5,
            )
            for limit in (50, 500)
        ),
        Contest(
            "list 50, another page each",
            get(arena.ours, f"{listed}?limit=50&offset={{}}0", arena.token),
            {
                DRIVER: driver(arena.drivers, f"{rows(50)} OFFSET {{}}0"),
                PEER: get(arena.peer, "/workloads?limit=50&offset={}0"),
            },
        ),
        Contest(
            "GPUs by project",
            get(
                arena.ours,
                f"{listed}/telemetry?telemetryType=GPU_ALLOCATION&groupBy=ProjectId",
                arena.token,
            ),
            {DRIVER: driver(arena.drivers, GPUS_BY_PROJECT)},
        ),
        Contest(
            "count with 3 filters",
            get(arena.ours, f"{listed}/count?filterBy={filters}", arena.token),
            {
                DRIVER: driver(arena.drivers, counted),
                PEER: get(arena.peer, "/workloads/count?type=PyTorchJob&phase=Running&min_gpu=1"),
                **{each.name: get(at, each.count_path) for each, at in arena.readers.items()},
            },
        ),
    ]


def writes(
    arena: Arena, agent: Agent, live: list[Upsert], documents: list[dict[str, object]]
) -> Contest:
    return Contest(
        "upsert 100",
        ingest(agent, live, 100),
        {PEER: peer_upsert(arena.peer[0], documents)},
        per_turn=2,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--workloads", type=int, default=100_000, help="in the database")
    parser.add_argument(
        "--live-share", type=float, default=0.05, help="of the workloads; 500 are live at least"
    )
    parser.add_argument("--rounds", type=int, default=9, help="after one that does not count")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    total = max(options.workloads, LEAST_LIVE)
    live_count = max(LEAST_LIVE, int(total * options.live_share))
    measured: list[Line] = []
    async with (
        servers.database() as url,
        aclosing(contests(url, total, live_count, options.rounds)) as each,
    ):
        print(TABLE_HEAD, flush=True)
        async for line in each:
            measured.append(line)
            print(markdown(line), flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
