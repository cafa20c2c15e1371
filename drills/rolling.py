"""Servers behind a proxy: each is stopped and started in turn while people read and an agent reports."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from drills.processes import (
    PROXIES,
    administrator,
    folder,
    free_port,
    pgbouncer,
    postgres,
    until_ready,
    watchbill_server,
)
from drills.traffic import busy, traffic

DRAIN_SECONDS = 3
"""Longer than the proxy takes to notice, with its checks twice a second."""
MAX_STOP_SECONDS = 20


async def rolling_restart(proxy: str, servers: int) -> str:
    """No request may fail, nothing may be lost or doubled, and the stream goes on. Raises AssertionError."""
    with folder() as root:
        async with postgres(root) as database:
            environ = {"WATCHBILL_DATABASE_URL": database.url("watchbill")}
            return await _restart_all(root, environ, proxy, servers)


async def pooled_restart() -> str:
    """As `rolling_restart`, with three connections to the database for all servers together."""
    with folder() as root:
        async with (
            postgres(root) as database,
            pgbouncer(root, database, connections=3) as pooled_url,
        ):
            environ = {
                "WATCHBILL_DATABASE_URL": pooled_url,
                "WATCHBILL_DATABASE_DIRECT_URL": database.url("watchbill"),
            }
            return await _restart_all(root, environ, "HAProxy", 2)


async def _restart_all(root: Path, environ: Mapping[str, str], proxy: str, count: int) -> str:
    login = await administrator(environ["WATCHBILL_DATABASE_URL"])
    environ = {**environ, "WATCHBILL_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    ports = [free_port() for _ in range(count)]
    servers = {
        port: watchbill_server(root, environ["WATCHBILL_DATABASE_URL"], port, **environ)
        for port in ports
    }
    front = free_port()
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server.running())
        for port in ports:
            await until_ready(f"http://127.0.0.1:{port}")
        await stack.enter_async_context(PROXIES[proxy](root, front, ports).running())
        url = f"http://127.0.0.1:{front}"
        await until_ready(url)
        running = await stack.enter_async_context(traffic(url, login, root))
        stops = []
        async with busy(running):
            for port, server in servers.items():
                stops.append(await server.stop())
                server.start()
                await until_ready(f"http://127.0.0.1:{port}")
                await asyncio.sleep(2)  # the proxy takes it back
        caught_up = await running.check()
        readers = running.readers
        assert not readers.failures, readers.failures[:5]
        assert max(stops) < DRAIN_SECONDS + MAX_STOP_SECONDS, stops
        return (
            f"{readers.requests} requests, none failed; {len(running.cluster.pods)} workloads, none lost or "
            f"doubled; "
            f"stopped in {max(stops):.1f} s at most; stream opened {running.follower.opened} times, "
            f"complete {caught_up:.1f} s later"
        )
