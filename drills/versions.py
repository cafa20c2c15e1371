"""Servers of two versions at once: an earlier one is replaced server by server, under its own agent."""

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from drills.processes import (
    Child,
    folder,
    free_port,
    haproxy,
    postgres,
    until,
    until_ready,
    watchbill_server,
)
from drills.rolling import DRAIN_SECONDS
from drills.traffic import Cluster, Follower, Readers, Traffic, busy
from watchbill.client import Client, Selection

PROJECT = Path(__file__).parents[1]
FIRST = "115d50cd7a2ab83f2b77248cf27749bbafbae9dd"
"""The commit whose data and messages are kept as those of 0.1.0."""
BETWEEN = "21d44998e991879eea925768eb8c8ec8c2a27535"
"""A later state, without nodes, queues and usage by day: what two versions back will be."""
PODS = 40


async def rolling_upgrade(commit: str) -> str:
    """No request may fail, and what the earlier version's agent reports is lost or doubled nowhere. Raises
    AssertionError."""
    with folder() as root:
        earlier = earlier_packages(root, commit)
        async with postgres(root) as database:
            return await _upgrade(root, earlier, database.url("watchbill"))


def earlier_packages(root: Path, commit: str) -> str:
    """The folder of the earlier version's packages. Raises CalledProcessError without the project's history."""
    target = root / commit
    target.mkdir()
    archive = subprocess.run(
        ["git", "-C", PROJECT, "archive", commit, "src", "contract"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "-x", "-C", target], input=archive.stdout, check=True)
    api = target / "src" / "watchbill" / "api"
    shutil.copy(target / "contract" / "openapi.json", api / "openapi.json")
    shutil.copytree(PROJECT / "src" / "watchbill" / "api" / "page", api / "page")
    return str(target / "src")


async def _upgrade(root: Path, earlier: str, database_url: str) -> str:
    drain = {"WATCHBILL_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    ports = [free_port(), free_port()]
    front = free_port()
    url = f"http://127.0.0.1:{front}"
    async with contextlib.AsyncExitStack() as stack:
        before = []
        for port in ports:
            server = watchbill_server(root, database_url, port, PYTHONPATH=earlier, **drain)
            before.append(await stack.enter_async_context(server.running()))
            await until_ready(f"http://127.0.0.1:{port}")
        await stack.enter_async_context(haproxy(root, front, ports).running())
        await until_ready(url)
        printed = (root / f"server-{ports[0]}.log").read_text()
        login = re.findall(r"client (?:id|secret) +(\S+)", printed)
        running = await stack.enter_async_context(
            _traffic(url, (login[0], login[1]), root, earlier)
        )
        async with busy(running):
            for port, server in zip(ports, before, strict=True):
                await server.stop()
                present = watchbill_server(root, database_url, port, **drain)
                await stack.enter_async_context(present.running())
                await until_ready(f"http://127.0.0.1:{port}")
                await asyncio.sleep(10)  # both versions serve
        caught_up = await running.check()
        readers = running.readers
        assert not readers.failures, readers.failures[:5]
        return (
            f"{readers.requests} requests, none failed; {len(running.cluster.pods)} workloads, none lost or "
            f"doubled, reported by an agent of the earlier version; complete {caught_up:.1f} s later"
        )


@contextlib.asynccontextmanager
async def _traffic(
    url: str, login: tuple[str, str], root: Path, earlier: str
) -> AsyncIterator[Traffic]:
    """Runs until the block ends; begins with PODS pods that are counted."""
    async with Client(url, *login) as client:
        credential = root / "drill.credential"
        credential.write_text((await client.cluster_create("drill")).credential)
        cluster = Cluster()
        for _ in range(PODS):
            cluster.create_pod()
        await cluster.api.start()
        agent = Child(
            [
                *(sys.executable, "-m", "watchbill", "agent", "--server", url),
                *("--credential", credential, "--kubeconfig"),
                cluster.api.kubeconfig(root / "kubeconfig"),
            ],
            root / "agent.log",
            {"PYTHONPATH": earlier, "WATCHBILL_AGENT_SCRAPE_SECONDS": "0"},
        )
        running = Traffic(client, cluster, Readers(url, await client.token()), Follower(client))
        following = asyncio.create_task(running.follower.run())

        async def are_counted() -> bool:
            return await client.workload_count(Selection()) == PODS

        try:
            async with agent.running():
                await until(are_counted, seconds=60, what="the agent's first pods are counted")
                yield running
        finally:
            following.cancel()
            await asyncio.wait({following})
            await cluster.api.stop()
