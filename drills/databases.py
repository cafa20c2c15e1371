"""A database that does not do its part for a while: the server says so, and recovers without a restart."""

import asyncio
import contextlib
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from drills.processes import (
    Postgres,
    administrator,
    folder,
    free_port,
    postgres,
    status_of,
    until,
    until_ready,
    watchbill_server,
)
from drills.traffic import Traffic, busy, traffic

OUTAGE_SECONDS = 8.0
DISK_BYTES = 400 * 2**20


@contextlib.asynccontextmanager
async def _server_on(database: Postgres, root: Path) -> AsyncIterator[tuple[str, Traffic]]:
    database_url = database.url("watchbill")
    login = await administrator(database_url)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with watchbill_server(root, database_url, port).running():
        await until_ready(url)
        async with traffic(url, login, root) as running:
            yield url, running


async def _says(url: str, words: str) -> None:
    """Raises TimeoutError unless /readyz comes to say so."""

    async def does() -> bool:
        status, message = await status_of(f"{url}/readyz")
        return status == 503 and re.search(words, message) is not None

    await until(does, seconds=60, what=f"/readyz says {words!r}")


async def _recovered(url: str, running: Traffic) -> str:
    started_at = time.monotonic()
    await until_ready(url)
    await running.check()
    workloads = f"{len(running.cluster.pods)} workloads, none lost or doubled"
    return f"complete {time.monotonic() - started_at:.1f} s after, {workloads}"


async def read_only() -> str:
    """As a standby, or a primary that is being replaced: reads go on."""
    with folder() as root:
        async with postgres(root) as database, _server_on(database, root) as (url, running):
            async with busy(running, with_readers=False):
                await database.execute(
                    "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
                )
                await _says(url, "read-only")
                for _ in range(10):
                    assert (await running.client.clusters())[0].name == "drill", "reads go on"
                await asyncio.sleep(OUTAGE_SECONDS)
                await database.execute(
                    "SET default_transaction_read_only = off",
                    "ALTER SYSTEM RESET default_transaction_read_only",
                    "SELECT pg_reload_conf()",
                )
            return f"/readyz: The database is read-only; reads went on; {await _recovered(url, running)}"


async def no_connection_left() -> str:
    """Somebody else holds them all: new ones are refused."""
    with folder() as root:
        settings = {"max_connections": "25", "superuser_reserved_connections": "0"}
        async with (
            postgres(root, **settings) as database,
            _server_on(database, root) as (url, running),
        ):
            async with busy(running, with_readers=False):
                taken = [await asyncpg.connect(database.url())]
                while (await status_of(f"{url}/readyz"))[0] == 200:
                    await taken[0].execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'watchbill'"
                    )
                    with contextlib.suppress(asyncpg.PostgresError):
                        while True:
                            taken.append(await asyncpg.connect(database.url()))
                await _says(url, "no connection left")
                await asyncio.sleep(OUTAGE_SECONDS)
                for connection in taken:
                    await connection.close()
            words = "/readyz: The database has no connection left"
            return f"{len(taken)} taken by others; {words}; {await _recovered(url, running)}"


async def disk_full() -> str:
    """Of a server with its embedded database, on a disk of its own in memory."""
    with folder() as root:
        disk = root / "disk"
        disk.mkdir(mode=0o711)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0711", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)
        try:
            return await _fill(root, disk)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def _fill(root: Path, disk: Path) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    data = disk / "data"
    server = watchbill_server(root, "", port, WATCHBILL_DATA_DIR=str(data))
    async with server.running():
        await until_ready(url)
        login = re.findall(r"client (?:id|secret) +(\S+)", server.log.read_text())
        async with traffic(url, (login[0], login[1]), root) as running:
            async with busy(running, with_readers=False):
                ballast = disk / "ballast"
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(2**20))
                await _says(url, "disk is full")
                await asyncio.sleep(OUTAGE_SECONDS)
                assert server.process is not None
                assert server.process.poll() is None, "the server goes on"
                assert "disk is full" in server.log.read_text(), "the log has the cause"
                ballast.unlink()
            return f"/readyz: The database's disk is full; {await _recovered(url, running)}"


async def killed() -> str:
    """kill -9 of the whole PostgreSQL, and its crash recovery."""
    with folder() as root:
        async with postgres(root) as database, _server_on(database, root) as (url, running):
            async with busy(running, with_readers=False):
                assert database.child.process is not None
                await database.child.stop(signal.SIGQUIT)
                await _says(url, "does not answer|restarting")
                await asyncio.sleep(OUTAGE_SECONDS / 2)
                database.child.start()
                await until(database.answers, seconds=60, what="PostgreSQL answers")
            return f"/readyz: The database does not answer; {await _recovered(url, running)}"


async def point_in_time() -> str:
    """pg_basebackup and archived WAL: restored to an instant, the agent repairs what came after."""
    with folder() as root:
        archive = root / "archive"
        archive.mkdir(mode=0o700)
        settings = {
            "wal_level": "replica",
            "archive_mode": "on",
            "archive_command": f"cp %p {archive}/%f",
            "max_wal_senders": "4",
        }
        async with postgres(root, **settings) as database:
            database.owner.give(archive)
            async with _server_on(database, root) as (_, running):
                base = root / "base"
                base.mkdir(mode=0o700)
                database.owner.give(base)
                await asyncio.to_thread(
                    database.run, "pg_basebackup", "-D", base, "-h", database.sockets, "-p", str(database.port),
                    "-U", "owner", "--checkpoint=fast", "--no-sync",
                )  # fmt: skip
                for _ in range(20):
                    running.cluster.create_pod()
                await running.check()
                connection = await asyncpg.connect(database.url())
                instant = await connection.fetchval("SELECT now()::text")
                await connection.close()
                before = len(running.cluster.pods)
                await asyncio.sleep(1.1)
                for _ in range(20):
                    running.cluster.create_pod()
                await running.check()
                await database.execute("SELECT pg_switch_wal()")
                await asyncio.sleep(1)
                pods = running.cluster
                return await _restored(root, base, archive, instant, before, pods.pods)


async def _restored(
    root: Path, base: Path, archive: Path, instant: str, before: int, pods: set[object]
) -> str:
    restored = root / "restored"
    restored.mkdir(mode=0o711)
    settings = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": instant,
        "recovery_target_action": "promote",
    }
    (base / "recovery.signal").touch()
    server = Postgres(restored, data=base, settings=settings)
    server.owner.give(base / "recovery.signal")
    started_at = time.monotonic()
    async with server.running():

        async def is_promoted() -> bool:
            connection = await asyncpg.connect(server.url())
            try:
                return not await connection.fetchval("SELECT pg_is_in_recovery()")
            finally:
                await connection.close()

        await until(is_promoted, seconds=60, what="the restored database is promoted")
        connection = await asyncpg.connect(server.url("watchbill"))
        count = await connection.fetchval("SELECT count(*) FROM workload")
        await connection.close()
        assert count == before, (count, before)
        return (
            f"restored to the instant in {time.monotonic() - started_at:.1f} s: {count} workloads of then, "
            f"not the {len(pods)} of later"
        )
