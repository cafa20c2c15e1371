"""Three PostgreSQL nodes under Patroni with etcd, and a server with all three in its address: one is killed."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import time
from pathlib import Path

import aiohttp
import asyncpg

from drills.processes import (
    POSTGRES,
    Child,
    administrator,
    folder,
    free_port,
    until,
    until_ready,
    watchbill_server,
)
from drills.traffic import busy, traffic
from watchbill.store.postgres.engine import process_owner

NODES = 3
TTL_SECONDS = 20
"""Patroni's leader key: after so long without its primary the others choose another."""


class Node:
    """A Patroni and its PostgreSQL."""

    def __init__(self, root: Path, number: int, etcd: int) -> None:
        self.owner = process_owner(None)
        self.home = root / f"node{number}"
        self.home.mkdir(mode=0o700)
        self.port, self.api = free_port(), free_port()
        configuration = self.home / "patroni.yml"
        configuration.write_text(json.dumps(self._configuration(number, etcd)))  # JSON is YAML
        for path in (self.home, configuration):
            self.owner.give(path)
        self.child = Child(
            ["/usr/bin/patroni", configuration], root / f"node{number}.log", owner=self.owner
        )

    def _configuration(self, number: int, etcd: int) -> dict[str, object]:
        hba = ["local all all trust", "host all all 127.0.0.1/32 trust"]
        hba.append("host replication all 127.0.0.1/32 trust")
        parameters = {
            "unix_socket_directories": str(self.home),
            "max_connections": 60,
            "fsync": "off",
        }
        return {
            "scope": "drill",
            "name": f"node{number}",
            "restapi": {
                "listen": f"127.0.0.1:{self.api}",
                "connect_address": f"127.0.0.1:{self.api}",
            },
            "etcd3": {"host": f"127.0.0.1:{etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "postgresql": {"use_pg_rewind": False, "parameters": parameters},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "no-sync"],
                "pg_hba": hba,
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.home / "data"),
                "bin_dir": str(POSTGRES),
                "pgpass": str(self.home / "pgpass"),
                "pg_hba": hba,
                "authentication": {
                    "superuser": {"username": "owner"},
                    "replication": {"username": "replicator"},
                },
            },
        }

    async def is_primary(self) -> bool:
        return await self._answers("primary")

    async def is_replica(self) -> bool:
        return await self._answers("replica")

    async def _answers(self, role: str) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=2)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self.api}/{role}") as answer,
            ):
                return answer.status == 200
        return False

    def kill(self) -> None:
        """As a machine that loses its power."""
        assert self.child.process is not None
        lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        for pid in (self.child.process.pid, int(lines[0])):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def primary_of(nodes: list[Node]) -> Node | None:
    for node in nodes:
        if await node.is_primary():
            return node
    return None


async def patroni() -> str:
    """Right again after the promotion, nothing lost or doubled. Raises TimeoutError, AssertionError."""
    with folder() as root:
        client, peer = free_port(), free_port()
        addresses = (f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}")
        etcd = Child(
            [
                *("/usr/bin/etcd", "--data-dir", root / "etcd", "--unsafe-no-fsync"),
                *("--listen-client-urls", addresses[0], "--advertise-client-urls", addresses[0]),
                *(
                    "--listen-peer-urls",
                    addresses[1],
                    "--initial-cluster",
                    f"default={addresses[1]}",
                ),
                *("--initial-advertise-peer-urls", addresses[1]),
            ],
            root / "etcd.log",
        )
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(etcd.running())
            nodes = [Node(root, number, client) for number in range(1, NODES + 1)]
            stack.callback(_kill_all, nodes)
            for node in nodes:
                await stack.enter_async_context(node.child.running())
            return await _kill_the_primary(stack, root, nodes)


def _kill_all(nodes: list[Node]) -> None:
    for node in nodes:
        with contextlib.suppress(OSError):
            node.kill()


async def _have_database(nodes: list[Node]) -> bool:
    for node in nodes:
        connection = await asyncpg.connect(f"postgresql://owner@127.0.0.1:{node.port}/postgres")
        try:
            name = "SELECT 1 FROM pg_database WHERE datname = 'watchbill'"
            if not await connection.fetchval(name):
                return False
        finally:
            await connection.close()
    return True


async def _kill_the_primary(stack: contextlib.AsyncExitStack, root: Path, nodes: list[Node]) -> str:
    await until(lambda: primary_of(nodes), seconds=120, what="Patroni has a primary")

    async def are_replicas() -> bool:
        return sum([await node.is_replica() for node in nodes]) == NODES - 1

    await until(are_replicas, seconds=120, what="Patroni has two replicas")
    primary = await primary_of(nodes)
    assert primary is not None
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    address = f"postgresql://owner@{hosts}/{{}}?target_session_attrs=read-write"
    connection = await asyncpg.connect(address.format("postgres"))
    await connection.execute("CREATE DATABASE watchbill")
    await connection.close()
    await until(
        functools.partial(_have_database, nodes), seconds=60, what="the database is on every node"
    )
    database_url = address.format("watchbill")
    login, port = await administrator(database_url), free_port()
    url = f"http://127.0.0.1:{port}"
    await stack.enter_async_context(watchbill_server(root, database_url, port).running())
    await until_ready(url)
    running = await stack.enter_async_context(traffic(url, login, root))
    others = [node for node in nodes if node is not primary]
    async with busy(running, with_readers=False):
        await asyncio.sleep(3)
        primary.kill()
        killed_at = time.monotonic()
        await until(lambda: primary_of(others), seconds=120, what="another primary")
        promoted = time.monotonic() - killed_at
    promoted_at = time.monotonic()
    await running.check()
    right = time.monotonic() - promoted_at
    assert right < 30, f"{right:.1f} s after the promotion"
    return (
        f"another primary after {promoted:.1f} s (leader key of {TTL_SECONDS} s), right {right:.1f} s later; "
        f"{len(running.cluster.pods)} workloads, none lost or doubled"
    )
