"""`python -m bench.usage`: reports over 400 days of 2,000 projects, and what keeping their sums costs.

Days are written as accounting writes them, through the database's triggers; reports are asked over HTTP. Beside
the time on the clock stands processor time, of the server and of PostgreSQL: other work may share the machine.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import asyncpg

from bench import servers
from bench.http import Connection
from watchbill.accounting import SUMS
from watchbill.client import Client
from watchbill.store.postgres.database import Database

FIRST = date(2025, 11, 1)
DAYS = 400
LAST = FIRST + timedelta(days=DAYS)
DEPARTMENTS = 20
OWNERS = 3
"""Of each project."""
_ORGANISATION = f"""
INSERT INTO cluster (tenant_id, id, name, credential_salt, credential_hash, created_at)
SELECT 1, md5('cluster' || n)::uuid, 'cluster-' || n, '', '', now() FROM generate_series(0, 1) n;
INSERT INTO department (tenant_id, id, cluster_id, key, name)
SELECT 1, n, md5('cluster' || n % 2)::uuid, 'department-' || n, 'department-' || n
FROM generate_series(0, {DEPARTMENTS - 1}) n;
INSERT INTO project (tenant_id, id, cluster_id, key, name, department_id)
SELECT 1, n, md5('cluster' || n % 2)::uuid, 'project-' || n, 'project-' || n, n % {DEPARTMENTS}
FROM generate_series(0, $projects - 1) n;
INSERT INTO usage_attributes
SELECT 1, md5('attributes' || n || ' ' || o)::uuid, (ARRAY['PyTorchJob', 'RayJob', 'Deployment'])[o + 1],
    (ARRAY['Train', 'Train', 'Deploy'])[o + 1], 'user-' || (n * 2 + o) % 1500 || '@example.com', 'normal',
    'pool-' || n % 6, current_date
FROM generate_series(0, $projects - 1) n, generate_series(0, {OWNERS - 1}) o;
"""
_WORKLOADS = """
INSERT INTO usage_workload (tenant_id, workload_id, cluster_id, name, namespace)
SELECT 1, md5(n || ' ' || k || ' ' || $1::int / 7)::uuid, md5('cluster' || n % 2)::uuid,
    'training-' || n || '-' || k || '-' || $1::int / 7, 'namespace-' || n
FROM generate_series(0, $2::int - 1) n, generate_series(0, $3::int - 1) k ON CONFLICT DO NOTHING
"""
"""A new workload each week."""
_DAYS = f"""
INSERT INTO usage_day (tenant_id, day, workload_id, cluster_id, project_id, department_id, gpu_model,
    attributes_id, {", ".join(SUMS)})
SELECT 1, $4::date, md5(n || ' ' || k || ' ' || $1::int / 7)::uuid, md5('cluster' || n % 2)::uuid, n,
    n % {DEPARTMENTS}, (ARRAY['NVIDIA-A100-SXM4-80GB', 'NVIDIA-H100-80GB-HBM3', 'NVIDIA-L40S', ''])[n % 4 + 1],
    md5('attributes' || n || ' ' || (k + $1::int / 7) % {OWNERS})::uuid,
    {", ".join(f"(n % 17 + k + $1::int % 5 + {i}) * 3600000000000::bigint" for i, _ in enumerate(SUMS))}
FROM generate_series(0, $2::int - 1) n, generate_series(0, $3::int - 1) k
"""
_YEAR = f"start={FIRST}T00:00:00Z&end={LAST}T00:00:00Z"
_MONTH = "start=2026-11-01T00:00:00Z&end=2026-12-01T00:00:00Z"
_GROUPS_OF_400_DAYS = """
    project department owner type gpuModel nodePool namespace cluster
    project,month department,month owner,month type,month gpuModel,month namespace,month
    department,project,month project,owner,month project,type,gpuModel
    day month project,day department,day owner,day type,day project,week workload project,owner,week
"""
_GROUPS_OF_A_MONTH = "project owner project,day owner,day workload project,owner,day"
QUESTIONS = {
    **{f"400 days by {by}": f"{_YEAR}&groupBy={by}" for by in _GROUPS_OF_400_DAYS.split()},
    **{f"a month by {by}": f"{_MONTH}&groupBy={by}" for by in _GROUPS_OF_A_MONTH.split()},
    "400 days of a project by day": f"{_YEAR}&groupBy=day&filterBy=project==project-7",
    "400 days of a project by workload": f"{_YEAR}&groupBy=workload&filterBy=project==project-7",
    "400 days of a department by project, month": (
        f"{_YEAR}&groupBy=project,month&filterBy=department==department-7"
    ),
    "400 days of an owner by month": f"{_YEAR}&groupBy=month&filterBy=owner==user-7@example.com",
    "400 days without an owner by project": f"{_YEAR}&groupBy=project&filterBy=owner==",
    "CSV of 400 days by project, month": f"{_YEAR}&groupBy=project,month&format=csv",
    "CSV of 400 days by owner, month": f"{_YEAR}&groupBy=owner,month&format=csv",
    "CSV of a month by project, day": f"{_MONTH}&groupBy=project,day&format=csv",
}


def processor_seconds(parent: int) -> float:
    """Of a process's children, and of those that have ended, in user and kernel mode."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    ticks += sum(map(int, fields[11:15]))
                elif int(folder.name) == parent:
                    ticks += sum(map(int, fields[13:15]))
        except OSError:  # it has ended meanwhile
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


async def fill(url: str, projects: int, per_day: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
    await connection.execute(_ORGANISATION.replace("$projects", str(projects)))
    began, rows = time.perf_counter(), 0
    for number in range(DAYS):
        await connection.execute(_WORKLOADS, number, projects, per_day)
        await connection.execute(_DAYS, number, projects, per_day, FIRST + timedelta(days=number))
        rows += projects * per_day
        if number % 50 == 49:
            print(f"{number + 1} days, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows of days": rows, "written in s": round(seconds, 1)}), flush=True)
    await connection.execute(
        "INSERT INTO upkeep VALUES ('usage 1', $1) ON CONFLICT (task) DO UPDATE SET last_at = $1",
        LAST,
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def ask(
    connection: Connection, token: str, question: str, rounds: int, parents: tuple[int, int]
) -> dict[str, float]:
    """`parents`: of PostgreSQL's processes, and of the server."""
    taken: list[float] = []
    await connection.send("GET", f"/api/v1/usage?{question}", token=token)
    before = [*map(processor_seconds, parents)]
    for _ in range(rounds):
        began = time.perf_counter()
        await connection.send("GET", f"/api/v1/usage?{question}", token=token)
        taken.append(time.perf_counter() - began)
    after = [*map(processor_seconds, parents)]
    database, server = ((b - a) / rounds for a, b in zip(before, after, strict=True))
    return {
        "median s": round(statistics.median(taken), 3),
        "most s": round(max(taken), 3),
        "PostgreSQL's processor s": round(database, 3),
        "the server's": round(server, 3),
    }


async def reports(url: str, rounds: int, only: str) -> None:
    db = await Database.open(url, pool_size=2)
    client_id, secret = await servers.administrator(db)
    async with db.acquire(1) as session:
        postgres = parent_of(await session.fetchval("SELECT pg_backend_pid()"))
    async with servers.serving(servers.OURS, url) as ours:
        async with Client(ours, client_id, secret) as client:
            token = await client.token()
        connection = await Connection.open(ours)
        for name, question in QUESTIONS.items():
            if only in name:
                taken = await ask(connection, token, question, rounds, (postgres, os.getpid()))
                print(json.dumps({"report": name, **taken}), flush=True)
        await connection.close()
    await db.close()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.usage", description=__doc__)
    parser.add_argument("--projects", type=int, default=2000)
    parser.add_argument("--per-day", type=int, default=1, help="workloads of a project each day")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="reports whose name has this")
    parser.add_argument("--keep", action="store_true", help="print the database's address and wait")
    parser.add_argument("--url", help="of a database that another run keeps")
    options = parser.parse_args()
    if options.url is not None:
        await reports(options.url, options.rounds, options.only)
        return
    async with servers.database() as url:
        print(f"filling in {DAYS} days of {options.projects} projects ...", file=sys.stderr)
        await fill(url, options.projects, options.per_day)
        if options.keep:
            print(url, flush=True)
            await asyncio.Event().wait()
        await reports(url, options.rounds, options.only)


if __name__ == "__main__":
    asyncio.run(main())
