"""`python -m bench.neighbours`: what one tenant's flood moves of another one's waiting, in the 99th percentile.

Short turns alternate: the flood comes to the patient one's server, or to another server on this machine. So
both meet what the flood's own processor time does to a small machine, and what else goes on there; what differs
is the sharing of a server. The target is a ratio of at most 1.2. Floods: a tenant at ten times its rate,
strangers whose tokens and agents' credentials open nothing, and an agent that was taken over (`hostile_agent`):
there the server's memory is told too, whose target is 512 MiB.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import aiohttp

from bench import hostile_agent, servers
from tests.fixtures.serving import fill
from watchbill.identity import administrator_rule
from watchbill.store.identity.accounts import account_create
from watchbill.store.identity.administration import tenant_create
from watchbill.store.postgres.database import Database

RATE = 40
ASKED = 30
LIST = "/api/v1/workloads?limit=50"


@dataclass
class Place:
    """A server and what its two tenants hold."""

    url: str
    pid: int
    hasty: str
    patient: str
    agent: str
    """A cluster's credential, of the hasty tenant."""


@dataclass(frozen=True)
class Flood:
    """`credential` None = the hasty tenant's own token; without a path it is the hostile agent, with these
    parts of its attack."""

    method: str
    path: str
    credential: str | None = None
    parts: tuple[str, ...] = hostile_agent.PARTS


FLOODS = {
    "a tenant at ten times its rate": Flood("GET", LIST),
    "tokens that are none": Flood("GET", LIST, "a.b.c"),
    "agents that are none": Flood("POST", "/agent/v1/hello", f"wba.{uuid4()}.{'x' * 43}"),
    "addresses that are none": Flood("GET", "/api/v1/nothing"),
    "a hostile agent": Flood("", ""),
    **{f"a hostile agent, {part}": Flood("", "", parts=(part,)) for part in hostile_agent.PARTS},
}
WHOLE = tuple(name for name in FLOODS if ", " not in name)


@contextlib.asynccontextmanager
async def server_process(url: str, *, rate: int = RATE) -> AsyncIterator[tuple[str, int]]:
    """A server in a process of its own, as it is run, with that rate for every principal."""
    env = dict(os.environ) | {
        "WATCHBILL_REQUESTS_PER_SECOND": str(rate),
        "WATCHBILL_REQUESTS_BURST": str(rate),
        "WATCHBILL_DATABASE_URL": url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchbill", "server", "--port", "0", "--log-level", "warning"),
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[-1], process.pid
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def place(database_url: str) -> AsyncIterator[Place]:
    db = await Database.open(database_url, pool_size=3)
    now = datetime.now(UTC)
    await fill(db, clusters=1, workloads=60)
    _, *second = await tenant_create(db, "second", now=now)
    first = await account_create(db, 1, "flood", (administrator_rule(1),), now=now)
    await db.close()
    async with server_process(database_url) as (url, pid), aiohttp.ClientSession() as session:

        async def token(client_id: str, secret: str) -> str:
            body = {"grantType": "app_token", "appId": client_id, "appSecret": secret}
            async with session.post(f"{url}/api/v1/token", json=body) as answer:
                return str((await answer.json())["accessToken"])

        hasty = await token(*first)
        headers = {"Authorization": f"Bearer {hasty}"}
        async with session.post(
            f"{url}/api/v1/clusters", json={"name": "hostile"}, headers=headers
        ) as answer:
            credential = str((await answer.json())["credential"])
        yield Place(url, pid, hasty, await token(*second), credential)


@contextlib.asynccontextmanager
async def flooding(at: Place, flood: Flood) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client of its own process: it is the server that is measured, not the client. Born asleep."""
    words = (flood.method, at.url + flood.path, flood.credential or at.hasty, str(10 * RATE))
    hostile = ("bench.hostile_agent", at.url, at.agent, *flood.parts)
    program = ("bench.flood", *words) if flood.path else hostile
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *program), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(1.5)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def awake(client: asyncio.subprocess.Process | None) -> AsyncIterator[None]:
    if client is not None:
        client.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.3)
    yield
    if client is not None:
        client.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.3)


async def took(session: aiohttp.ClientSession, at: Place) -> list[float]:
    """Of a caller that keeps well within its rate."""
    headers, key = {"Authorization": f"Bearer {at.patient}"}, []
    for _ in range(ASKED):
        began = time.perf_counter()
        async with session.get(at.url + LIST, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()
        key.append(time.perf_counter() - began)
        await asyncio.sleep(1.2 / RATE)
    return key


def peak_mebibytes(pid: int) -> int | None:
    """The most memory that a server and the process of its agents' messages ever held, added up; None where the
    system does not say."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return None
    return (
        sum(_peak_kibibytes(each) for each in (pid, *map(int, children.read_text().split())))
        // 1024
    )


def _peak_kibibytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1])


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[math.ceil(len(seconds) * 0.99) - 1]


async def measure(here: Place, there: Place, name: str, turns: int) -> None:
    measured: dict[str, list[float]] = {"quiet": [], "elsewhere": [], "beside": []}
    async with (
        aiohttp.ClientSession() as session,
        flooding(here, FLOODS[name]) as beside,
        flooding(there, FLOODS[name]) as elsewhere,
    ):
        clients = {"quiet": None, "elsewhere": elsewhere, "beside": beside}
        for _ in range(turns):
            for kind, client in clients.items():
                async with awake(client):
                    measured[kind] += await took(session, here)
    milliseconds = {kind: round(p99(seconds) * 1000, 2) for kind, seconds in measured.items()}
    ratio = round(milliseconds["beside"] / milliseconds["elsewhere"], 2)
    reported = {"flood": name, "p99_ms": milliseconds, "ratio": ratio}
    print(json.dumps(reported | {"peak_mib": peak_mebibytes(here.pid)}), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--flood", choices=FLOODS, action="append", help="only these")
    arguments = parser.parse_args()
    turns = arguments.turns
    async with (
        servers.database() as first,
        servers.database() as second,
        place(first) as here,
        place(second) as there,
    ):
        for name in arguments.flood or WHOLE:
            await measure(here, there, name, turns)


if __name__ == "__main__":
    asyncio.run(main())
