"""Agents of earlier versions at this one's server: each reports the same cluster, the records are compared."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from drills.processes import (
    Child,
    Postgres,
    administrator,
    folder,
    free_port,
    postgres,
    until,
    until_ready,
    watchbill_server,
)
from drills.versions import BETWEEN, FIRST, earlier_packages
from simulator.apiserver.protocol import SimulatedCluster
from simulator.simulation.scenario import Scenario
from watchbill.client import Client, Selection

WORKLOADS = 200
SETTLED_SECONDS = 8.0
"""Nothing changes in the cluster: what has not come by then after the last one does not come."""
MEMBERS = (
    "name",
    "namespace",
    "type",
    "phase",
    "createdAt",
    "requestedPods",
    "runningPods",
    "priority",
)
"""What every version told of a workload."""


async def earlier_agents() -> str:
    """All must tell of the same workloads, with the same members but where a later version knows better,
    which is counted. Raises AssertionError, TimeoutError."""
    with folder() as root:
        async with postgres(root) as database:
            cluster = SimulatedCluster(seed=7)
            Scenario.create(
                cluster.store, seed=7, prefix="drill", workloads=WORKLOADS, now=time.time()
            )
            await cluster.start()
            try:
                versions = {"the first": FIRST, "one in between": BETWEEN, "this one": None}
                records = {}
                for name, commit in versions.items():
                    packages = earlier_packages(root, commit) if commit else ""
                    records[name] = await _reported(root, database, cluster, packages)
            finally:
                await cluster.stop()
    return _compared(records)


def _compared(records: dict[str, dict[str, dict[str, Any]]]) -> str:
    present = records["this one"]
    words = []
    for name, reported in records.items():
        if reported is present:
            continue
        both = reported.keys() & present.keys()
        assert len(both) >= 0.95 * len(present), (name, len(reported), len(present))
        others = Counter(
            member
            for uid in both
            for member in MEMBERS
            if reported[uid].get(member) != present[uid].get(member)
        )
        same = sum(
            all(reported[uid].get(member) == present[uid].get(member) for member in MEMBERS)
            for uid in both
        )
        assert same >= 0.9 * len(both), (name, others)
        differing = ", ".join(f"{member} of {count}" for member, count in others.most_common())
        words.append(
            f"{name}: {len(reported)} workloads, {same} equal to those of this version, of {len(present)}"
            + (f" (others: {differing})" if differing else "")
        )
    return "; ".join(words)


async def _reported(
    root: Path, database: Postgres, cluster: SimulatedCluster, packages: str
) -> dict[str, dict[str, Any]]:
    """By id what this version's server answers of each workload once the agent has told all."""
    name = f"agents_{free_port()}"
    await database.execute(f"CREATE DATABASE {name}")
    database_url = database.url(name)
    login = await administrator(database_url)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with watchbill_server(root, database_url, port).running():
        await until_ready(url)
        async with Client(url, *login) as client, _agent(root, client, cluster, packages):
            await _settled(client)
            (state,) = await client.clusters()
            assert not state.refused, state.refused
            return {
                str(document.workload.id): document.members()
                for document in [
                    document
                    async for page in client.pages(Selection())
                    for document in page.documents
                ]
            }


@contextlib.asynccontextmanager
async def _agent(
    root: Path, client: Client, cluster: SimulatedCluster, packages: str
) -> AsyncIterator[None]:
    credential = root / "agents.credential"
    credential.write_text((await client.cluster_create("drill")).credential)
    agent = Child(
        [
            *(sys.executable, "-m", "watchbill", "agent", "--server", client.url),
            *("--credential", credential, "--kubeconfig"),
            cluster.kubeconfig(root / "kubeconfig"),
        ],
        root / "agents.log",
        {"WATCHBILL_AGENT_SCRAPE_SECONDS": "0"} | ({"PYTHONPATH": packages} if packages else {}),
    )
    async with agent.running():
        yield


async def _settled(client: Client) -> None:
    counts: list[tuple[float, int]] = []

    async def is_settled() -> bool:
        count = await client.workload_count(Selection())
        if not counts or counts[-1][1] != count:
            counts.append((time.monotonic(), count))
        await asyncio.sleep(0.5)
        return count > 0 and time.monotonic() - counts[-1][0] > SETTLED_SECONDS

    await until(is_settled, seconds=240, what="the agent has told all")
