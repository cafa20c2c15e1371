"""`python -m bench.targets`: how long every kind of question takes over a million workloads, and may take.

One server process and one PostgreSQL on this machine, over HTTP, with tokens, scope and limits in place. Each
address is asked in turn, round after round; of each the best, the median and the worst round count. A line of
the table is a kind of question, shown by the address that took the most processor time.

Beside the time that passed stands the processor time of the server and its database's processes in the best
round, which other work on the machine hardly changes (Linux; parallel workers of a query are not in it).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from bench import servers
from bench.http import Connection
from bench.rows import fill_million
from watchbill.client import Client
from watchbill.query import TELEMETRY_GROUPS
from watchbill.store.postgres.database import Database
from watchbill.workload_fields import SORT_FIELDS

WORKLOADS = "/api/v1/workloads"
TELEMETRY = f"{WORKLOADS}/telemetry?telemetryType="
UNSELECTIVE, SELECTIVE = "phase==Running", "projectName==project-7"
TEXTS = {"no match": "no-such-name", "few": "project-399", "many": "llama", "a phase": "running"}
COUNTED = (
    UNSELECTIVE,
    "priority>=50",
    "submittedBy==ada@example.com",
    "type==PyTorchJob,phase==Running,allocatedGPU>=1",
)


@dataclass(frozen=True)
class Question:
    """A kind of question: addresses that ask it, and the milliseconds that each of them may take."""

    name: str
    may_take: float
    paths: tuple[str, ...]


def questions(*, live: int, workload_id: str) -> list[Question]:
    """Of live and, where that makes a difference, of deleted workloads."""
    result = []
    for state, suffix in (("live", ""), ("deleted", "&deleted=true")):
        for name, filters in (
            ("no", ""),
            ("a selective", SELECTIVE),
            ("an unselective", UNSELECTIVE),
        ):
            narrowed = f"&filterBy={quote(filters)}" if filters else ""
            result.append(
                Question(
                    f"any sort, {name} filter, {state}",
                    250,
                    tuple(
                        f"{WORKLOADS}?limit=50&sortBy={field}&sortOrder={order}{narrowed}{suffix}"
                        for field in SORT_FIELDS
                        for order in ("asc", "desc")
                    ),
                )
            )
        for name, text in TEXTS.items():
            asked = (f"search={text}", f"filterBy={quote(f'name=@{text}')}")
            result.append(
                Question(
                    f"search and contains, {name}, {state}",
                    500,
                    tuple(f"{WORKLOADS}?limit=50&{query}{suffix}" for query in asked),
                )
            )
        result.append(
            Question(
                f"count of a search, {state}",
                100,
                tuple(f"{WORKLOADS}/count?search={text}{suffix}" for text in TEXTS.values()),
            )
        )
        result.append(
            Question(
                f"count by fields, {state}",
                100,
                tuple(f"{WORKLOADS}/count?filterBy={quote(field)}{suffix}" for field in COUNTED),
            )
        )
    return [
        *result,
        Question(
            "far page",
            400,
            tuple(
                f"{WORKLOADS}?limit=50&offset={int(0.8 * live)}{order}"
                for order in ("", "&sortBy=projectId")
            ),
        ),
        Question("facets", 150, (f"{WORKLOADS}/facets?fields=phase,type,projectName",)),
        Question("idle GPUs and owners", 150, (f"{WORKLOADS}/idle?limit=20",)),
        Question("fleet", 150, ("/api/v1/fleet",)),
        Question(
            "pending-time distribution",
            150,
            tuple(
                f"{TELEMETRY}PENDING_TIME_DISTRIBUTION{group}"
                for group in ("", *(f"&groupBy={group}" for group in TELEMETRY_GROUPS))
            ),
        ),
        Question(
            "telemetry, any grouping",
            50,
            tuple(
                f"{TELEMETRY}{kind}&groupBy={group}"
                for kind in ("WORKLOADS_COUNT", "GPU_ALLOCATION")
                for group in TELEMETRY_GROUPS
            ),
        ),
        Question("get", 5, (f"{WORKLOADS}/{workload_id}",)),
    ]


@dataclass(frozen=True, slots=True, order=True)
class Taken:
    """Milliseconds; infinite where there was no answer."""

    passed: float
    processor: float


@dataclass(frozen=True, slots=True)
class Processes:
    """The server, which this process started, and the backends of its database on this machine."""

    postmaster: int

    def processor_ms(self) -> float:
        """Since they began, of those that run now."""
        pids = {*_children(os.getpid()), *_children(self.postmaster)} - {self.postmaster}
        return sum(_on_processor_ns(pid) for pid in pids) / 1e6


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            yield from map(int, (task / "children").read_text().split())


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def _on_processor_ns(pid: int) -> int:
    """0 for one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return 0


async def ask(connection: Connection, path: str, token: str, processes: Processes) -> Taken:
    before, began = processes.processor_ms(), time.perf_counter()
    try:
        await connection.send("GET", path, token=token)
    except AssertionError as error:
        print(f"{path}: {str(error)[:200]}", file=sys.stderr)
        return Taken(float("inf"), float("inf"))
    passed = (time.perf_counter() - began) * 1000
    return Taken(passed, processes.processor_ms() - before)


async def measure(
    connection: Connection,
    token: str,
    asked: list[Question],
    *,
    rounds: int,
    processes: Processes,
) -> list[dict[str, object]]:
    taken: dict[str, list[Taken]] = {path: [] for question in asked for path in question.paths}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: {len(taken)} addresses", file=sys.stderr)
        for path, times in taken.items():
            times.append(await ask(connection, path, token, processes))
    return [line(question, taken) for question in asked]


def line(question: Question, taken: dict[str, list[Taken]]) -> dict[str, object]:
    best = {path: min(run.passed for run in taken[path]) for path in question.paths}
    processor = {path: min(run.processor for run in taken[path]) for path in question.paths}
    heaviest = max(question.paths, key=lambda path: processor[path])
    times = [run.passed for run in taken[heaviest]]
    return {
        "question": question.name,
        "may_take_ms": question.may_take,
        "best_ms": round(min(times), 1),
        "median_ms": round(statistics.median(times), 1),
        "worst_ms": round(max(times), 1),
        "processor_ms": round(processor[heaviest], 1),
        "addresses": len(question.paths),
        "within": sum(best[path] <= question.may_take for path in question.paths),
        "within_by_processor": sum(processor[path] <= question.may_take for path in question.paths),
        "heaviest": heaviest,
        "each": {
            path: [round(best[path], 1), round(processor[path], 1)] for path in question.paths
        },
    }


def markdown(lines: list[dict[str, object]]) -> str:
    rows = [
        "| question | may take | heaviest address: best | median | worst | processor "
        "| within | by processor time |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {line['question']} | {line['may_take_ms']:g} ms | {line['best_ms']:g} ms | "
            f"{line['median_ms']:g} ms | {line['worst_ms']:g} ms | {line['processor_ms']:g} ms | "
            f"{line['within']} of {line['addresses']} | {line['within_by_processor']} of {line['addresses']} |"
            for line in lines
        ),
    ]
    return "\n".join(rows)


@asynccontextmanager
async def filled(database_url: str | None, *, workloads: int, live: int) -> AsyncIterator[str]:
    """The database that was named, as it is; else a new one, filled."""
    if database_url:
        yield database_url
        return
    async with servers.database() as url:
        await fill_million(url, total=workloads, live=live)
        yield url


async def figures(url: str, *, rounds: int, only: str = "") -> list[dict[str, object]]:
    """A line for each kind of question whose name contains `only`, asked of a server on that database."""
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
    live = await connection.fetchval("SELECT sum(workloads)::bigint FROM workload_tally")
    workload_id = await connection.fetchval("SELECT id FROM workload LIMIT 1")
    checkpointer = await connection.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    )
    await connection.close()
    db = await Database.open(url, pool_size=2)
    client_id, secret = await servers.administrator(db)
    await db.close()
    async with servers.serving(servers.OURS, url) as ours:
        async with Client(ours, client_id, secret) as client:
            token = await client.token()
        http = await Connection.open(ours)
        every = questions(live=live, workload_id=str(workload_id))
        asked = [question for question in every if only in question.name]
        processes = Processes(postmaster=_parent(checkpointer))
        lines = await measure(http, token, asked, rounds=rounds, processes=processes)
        await http.close()
    return lines


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.targets", description=__doc__)
    parser.add_argument("--workloads", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database-url", help="a database that is filled already")
    parser.add_argument("--only", default="", help="kinds of questions whose name contains this")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    async with filled(options.database_url, workloads=options.workloads, live=options.live) as url:
        lines = await figures(url, rounds=options.rounds, only=options.only)
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1) + "\n")
    print(markdown(lines))


if __name__ == "__main__":
    asyncio.run(main())
