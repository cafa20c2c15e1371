"""`python -m bench.freshness`: how soon a change in a cluster can be read from the API.

Agent, server and PostgreSQL are processes of their own, the cluster is a simulated one in which pods come and
end in turn. Somebody follows the live stream; what it names is read from the API at once. Told are the seconds
from the change to that reading, in percentiles, and the share of a core that agent and server took meanwhile,
which does not depend on what else the machine does. The target is two seconds in 95 of 100 cases.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from bench import servers
from bench.neighbours import server_process
from drills.processes import Child, folder, until
from drills.traffic import Cluster
from simulator.resources import JOBS, PODS
from watchbill.client import Client, Selection
from watchbill.store.postgres.database import Database

READY_SECONDS = 600.0
LAST_SECONDS = 60.0
"""How long the last changes are waited for."""
READS_AT_ONCE = 4
UNLIMITED = 100_000
"""Requests a second of the one who reads."""


@dataclass
class Changes:
    """What was changed and is not read yet, and how long the rest took."""

    client: Client
    cluster: Cluster = field(default_factory=Cluster)
    names: dict[UUID, str] = field(default_factory=dict)
    """Of pods that are there, the oldest first."""
    changed_at: dict[UUID, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    is_followed: bool = False
    """Whether no change is missed any more."""
    _reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))

    def create(self) -> UUID:
        name = f"pod-{len(self.cluster.pods)}"
        uid = self.cluster.create_pod()
        self.names[uid] = name
        return uid

    def create_job(self, number: int, pods: int) -> None:
        """That rests, with so many pods."""
        uid, name = uuid4(), f"job-{number}"
        template = {"spec": {"containers": [{"name": "main", "image": "bench"}]}}
        metadata = {"name": name, "namespace": "team", "uid": str(uid)}
        job = {"metadata": metadata, "spec": {"template": template, "parallelism": pods}}
        self.cluster.api.store.put(JOBS, job | {"status": {"active": pods, "ready": pods}})
        for index in range(pods):
            self.cluster.create_pod_of("batch/v1", "Job", name, uid, index)

    def end_oldest(self) -> UUID:
        uid = next(iter(self.names))
        self.cluster.api.store.delete(PODS, "team", self.names.pop(uid))
        return uid

    async def make(self, rate: float, seconds: float) -> None:
        """So many a second, for so long."""
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            uid = self.end_oldest() if number % 2 else self.create()
            self.changed_at[uid] = time.monotonic()

    async def follow(self) -> None:
        """Read what the stream names, or all where too much changed for that, until cancelled."""
        async with asyncio.TaskGroup() as readings:
            async for event in self.client.stream(Selection()):
                if event.name == "ready":
                    self.is_followed = True
                is_whole = event.name == "resync"
                named = (*getattr(event.data, "changed", ()), *getattr(event.data, "gone", ()))
                for uid in tuple(self.changed_at) if is_whole else named:
                    if uid in self.changed_at:
                        readings.create_task(self._read(uid))

    async def _read(self, uid: UUID) -> None:
        async with self._reads:
            workload = (await self.client.workload_get(uid)).workload
        is_there = uid in self.names
        if is_there is (workload.deleted_at is None) and uid in self.changed_at:
            self.seconds.append(time.monotonic() - self.changed_at.pop(uid))


def processor_seconds(pid: int) -> float:
    """That the process has taken since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def agent_process(
    changes: Changes, url: str, credential: str, root: Path
) -> AsyncIterator[int]:
    """Its process id."""
    await changes.cluster.api.start()
    file = root / "credential"
    file.write_text(credential + "\n")
    file.chmod(0o600)
    kubeconfig = changes.cluster.api.kubeconfig(root / "kubeconfig")
    command = [sys.executable, "-m", "watchbill", "agent", "--server", url]
    command += ["--credential", str(file), "--kubeconfig", str(kubeconfig)]
    child = Child(command, root / "agent.log", {"WATCHBILL_AGENT_SCRAPE_SECONDS": "0"})
    try:
        async with child.running():
            assert child.process is not None
            yield child.process.pid
    finally:
        await changes.cluster.api.stop()


async def measure(options: argparse.Namespace) -> dict[str, object]:
    with folder() as root:
        async with servers.database() as database_url:
            db = await Database.open(database_url, pool_size=1)
            login = await servers.administrator(db)
            await db.close()
            async with (
                server_process(database_url, rate=UNLIMITED) as (url, server),
                Client(url, *login) as client,
            ):
                changes = Changes(client)
                for _ in range(options.pods):
                    changes.create()
                for number in range(options.jobs):
                    changes.create_job(number, options.pods_each)
                created = await client.cluster_create("bench")
                async with agent_process(changes, url, created.credential, root) as agent:
                    return await _measure(options, changes, {"agent": agent, "server": server})


async def _measure(
    options: argparse.Namespace, changes: Changes, pids: dict[str, int]
) -> dict[str, object]:
    async def are_all_shown() -> bool:
        return await changes.client.workload_count(Selection()) == options.pods + options.jobs

    await until(are_all_shown, seconds=READY_SECONDS, what="the first pods are shown")
    following = asyncio.create_task(changes.follow())

    async def is_followed() -> bool:
        return following.done() or changes.is_followed

    await until(is_followed, seconds=LAST_SECONDS, what="the stream is followed")
    before = {name: processor_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    await changes.make(options.rate, options.seconds)
    took = time.monotonic() - began
    shares = {
        f"{name}_share_of_a_core": round((processor_seconds(pid) - before[name]) / took, 3)
        for name, pid in pids.items()
    }

    async def are_all_read() -> bool:
        return following.done() or not changes.changed_at

    await until(are_all_read, seconds=LAST_SECONDS, what="all changes are read")
    if following.done():
        await following
    following.cancel()
    await asyncio.wait({following})
    seconds = sorted(changes.seconds)
    return {
        "changes": len(seconds),
        "changes_per_second": round(options.rate * options.seconds / took, 1),
        "median_seconds": round(statistics.median(seconds), 2),
        "p95_seconds": round(seconds[math.ceil(0.95 * len(seconds)) - 1], 2),
        "p99_seconds": round(seconds[math.ceil(0.99 * len(seconds)) - 1], 2),
        **shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.freshness", description=__doc__)
    parser.add_argument("--pods", type=int, default=2_000, help="There before the first change.")
    parser.add_argument("--jobs", type=int, default=0, help="That rest meanwhile, beside them.")
    parser.add_argument("--pods-each", type=int, default=10, help="Of a job.")
    parser.add_argument("--rate", type=float, default=100.0, help="Changes a second.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--small", action="store_true", help="200 pods, 20 changes a second, 10 s.")
    options = parser.parse_args()
    if options.small:
        options.pods, options.rate, options.seconds = 200, 20.0, 10.0
    print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
