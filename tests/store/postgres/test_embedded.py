"""The embedded PostgreSQL: it starts from any wreck, dies with its parent, and touches nothing else."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from watchbill.errors import Unavailable
from watchbill.store.postgres import engine
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.embedded import (
    EmbeddedPostgres,
    log_reasons,
    shared_buffers_mb,
    socket_folder,
)
from watchbill.store.postgres.engine import make_private, running_postmaster
from watchbill.store.postgres.migrate import migrate

PARENT = """
import asyncio, sys
from pathlib import Path
from watchbill.errors import Unavailable
from watchbill.store.postgres import engine
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    print(await server.start(), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def gone(pid: int, *, seconds: float = 20) -> bool:
    for _ in range(int(seconds / 0.05)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_data_survive_a_stop(private_dir: Path) -> None:
    for expected in (None, "kept"):
        server = EmbeddedPostgres(private_dir)
        connection = await asyncpg.connect(await server.start())
        assert await connection.fetchval("SHOW autovacuum_naptime") == "15s", "statistics come soon"
        await connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
        assert await connection.fetchval("SELECT text FROM note") == expected
        await connection.execute("INSERT INTO note VALUES ('kept')")
        await connection.close()
        await server.stop()
        assert running_postmaster(private_dir / "postgres") is None


async def test_it_dies_with_a_killed_parent_and_starts_again(private_dir: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(private_dir)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    url = await asyncio.to_thread(parent.stdout.readline)
    connection = await asyncpg.connect(url.strip())
    await connection.execute("CREATE TABLE note AS SELECT 1 AS n")
    pid = running_postmaster(private_dir / "postgres")
    assert pid is not None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    connection.terminate()
    assert await gone(pid)
    server = EmbeddedPostgres(private_dir)
    connection = await asyncpg.connect(await server.start())
    assert await connection.fetchval("SELECT n FROM note") == 1
    await connection.close()
    await server.stop()


async def test_a_killed_postgres_is_started_again(private_dir: Path) -> None:
    server = EmbeddedPostgres(private_dir)
    connection = await asyncpg.connect(await server.start())
    await connection.execute("CREATE TABLE note AS SELECT 1 AS n")
    pid = running_postmaster(private_dir / "postgres")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    connection.terminate()
    for _ in range(400):
        await asyncio.sleep(0.05)
        try:
            connection = await asyncpg.connect(server.url)
        except (OSError, asyncpg.PostgresError):
            continue
        break
    assert await connection.fetchval("SELECT n FROM note") == 1
    await connection.close()
    await server.stop()


async def test_whoever_holds_the_url_survives_a_killed_postmaster(private_dir: Path) -> None:
    """Under load: nothing but unavailability is seen, what was acknowledged is there, and it works again."""
    server = EmbeddedPostgres(private_dir)
    url = await server.start()
    await migrate(url)
    db = await Database.open(url, pool_size=4)
    acknowledged: list[int] = []
    is_over = asyncio.Event()

    async def write(start: int) -> None:
        for number in range(start, start + 1_000_000):
            if is_over.is_set():
                return
            try:
                async with db.transaction(1) as connection:
                    await connection.execute(
                        "INSERT INTO tenant (id, name) VALUES ($1, 'load')", number
                    )
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                acknowledged.append(number)

    writers = [asyncio.create_task(write(1_000_000 * number)) for number in range(1, 9)]
    for kills in range(1, 3):
        await until(lambda: len(acknowledged) > 50 * kills)  # noqa: B023
        pid = running_postmaster(private_dir / "postgres")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await gone(pid)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 50)  # noqa: B023
    is_over.set()
    await asyncio.gather(*writers)
    await db.check_ready()
    async with db.acquire(1) as connection:
        stored = {row["id"] for row in await connection.fetch("SELECT id FROM tenant")}
    assert set(acknowledged) <= stored
    assert server.url == url
    await db.close()
    await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_long_path_has_its_socket_elsewhere_but_always_there(private_dir: Path) -> None:
    data_dir = private_dir / ("long" * 25)
    urls = set()
    for _ in range(2):
        server = EmbeddedPostgres(data_dir)
        urls.add(await server.start())
        folder = Path((data_dir / "postgres.socket").read_text())
        assert folder.stat().st_mode & 0o777 == 0o700
        await server.stop()
        assert not folder.exists(), "nothing is left behind in the temporary directory"
    assert len(urls) == 1


def test_a_socket_folder_of_somebody_else_is_not_used(private_dir: Path) -> None:
    (private_dir / "socket").symlink_to("/tmp")
    with pytest.raises(FileExistsError):
        socket_folder(private_dir, engine.ProcessOwner())


def test_the_log_is_private_and_does_not_grow_for_ever(
    private_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_LOG_BYTES", 10)
    path = private_dir / "postgres.log"
    path.write_text("older than before")
    path.chmod(0o644)
    for text in (b"first ", b"second"):
        with engine.open_log(path) as log:
            log.write(text)
    assert path.read_bytes() == b"first second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("postgres.log.1").read_text() == "older than before"


async def test_a_foreign_pid_in_the_lock_file_is_not_believed(private_dir: Path) -> None:
    server = EmbeddedPostgres(private_dir)
    await server.start()
    await server.stop()
    lock_file = private_dir / "postgres" / "postmaster.pid"
    lock_file.write_text(f"{os.getpid()}\n{private_dir}/postgres\n1\n5432\n/tmp/elsewhere\n")
    assert running_postmaster(private_dir / "postgres") is None


async def test_a_second_start_uses_the_first(private_dir: Path) -> None:
    first, second = EmbeddedPostgres(private_dir), EmbeddedPostgres(private_dir)
    assert await first.start() == await second.start()
    await second.stop()
    connection = await asyncpg.connect(first.url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    await first.stop()


async def test_an_interrupted_initialisation_is_begun_anew(private_dir: Path) -> None:
    half_made = private_dir / "postgres.new"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(private_dir)
    assert await server.start()
    await server.stop()
    assert not half_made.exists()


async def test_modes(private_dir: Path) -> None:
    existing = private_dir / "data"
    existing.mkdir(mode=0o755)
    existing.chmod(0o755)
    server = EmbeddedPostgres(existing)
    await server.start()
    assert existing.stat().st_mode & 0o777 == 0o755
    assert (existing / "postgres").stat().st_mode & 0o777 == 0o700
    assert (existing / "postgres.password").stat().st_mode & 0o777 == 0o600
    await server.stop()
    make_private(existing, mode=0o700)
    assert existing.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
async def test_binaries_that_its_user_cannot_reach_are_copied(
    private_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = private_dir / "hidden"
    hidden.mkdir(mode=0o700)
    installed = engine._package_dir()
    shutil.copytree(installed / "pginstall18", hidden / installed.name / "pginstall18")
    libraries = installed.parent / f"{installed.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, hidden / libraries.name)
    monkeypatch.setattr(engine, "_package_dir", lambda: hidden / installed.name)
    data = private_dir / "data"
    server = EmbeddedPostgres(data)
    connection = await asyncpg.connect(await server.start())
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    await server.stop()
    assert any((data / "engine").rglob("bin/postgres"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
async def test_a_data_directory_that_its_user_cannot_reach_is_reported(private_dir: Path) -> None:
    hidden = private_dir / "hidden"
    hidden.mkdir(mode=0o700)
    with pytest.raises(Unavailable) as caught:
        await EmbeddedPostgres(hidden / "data").start()
    assert "--data-dir" in (caught.value.details or "")


async def test_no_one_comes_in_without_the_password(private_dir: Path) -> None:
    server = EmbeddedPostgres(private_dir)
    url = await server.start()
    password = (private_dir / "postgres.password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace(password, "wrong"))
    await server.stop()


async def test_two_servers_may_migrate_at_once(private_dir: Path) -> None:
    server = EmbeddedPostgres(private_dir)
    url = await server.start()
    await asyncio.gather(migrate(url), migrate(url), migrate(url))
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    await connection.close()
    await server.stop()


async def test_the_watchdog_interrupts_what_it_guards() -> None:
    guarded = subprocess.Popen(["sleep", "600"])
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "watchbill.store.postgres.watchdog", str(guarded.pid)],
        stdin=subprocess.PIPE,
    )
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    assert watchdog.wait(60) == 0
    assert guarded.wait(60) == -signal.SIGINT


def test_why_it_did_not_start_is_read_from_what_it_logged_since(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    stamp = "2026-11-29 06:00:00.123 UTC [4711] "
    log.write_text(f"{stamp}FATAL:  yesterday's reason\n")
    since = log.stat().st_size
    with log.open("a") as file:
        file.write(
            f"{stamp}LOG:  starting PostgreSQL 18.0\n"
            f'{stamp}FATAL:  could not create lock file "postmaster.pid": No space left on device\n'
            f"{stamp}LOG:  database system is shut down\n"
        )
    assert log_reasons(log, since) == (
        'FATAL:  could not create lock file "postmaster.pid": No space left on device'
    )
    log.write_text("Killed\n")
    assert log_reasons(log) == "Killed"
    assert "cannot be read" in log_reasons(tmp_path / "none")


def test_a_user_without_a_name_sees_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number which /etc/passwd does not know."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(Unavailable, match="user 54321 has no name") as refused:
        engine.process_owner(None)
    assert "WATCHBILL_DATABASE_URL" in (refused.value.details or "")


def test_a_container_limits_the_memory_for_pages(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{2 * 2**30}\n")
    assert shared_buffers_mb(limit) <= 256
    limit.write_text(f"{256 * 2**20}\n")
    assert shared_buffers_mb(limit) == 128
    limit.write_text("max\n")
    assert shared_buffers_mb(limit) == shared_buffers_mb(tmp_path / "absent") >= 128
