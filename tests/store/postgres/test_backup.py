"""Backups on both engines: whole, verified, private, restored to equal rows; a newer schema is refused."""

import asyncio
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert, workload
from watchbill.cli.app import run
from watchbill.errors import Conflict, Invalid, Unavailable, WatchbillError
from watchbill.store.postgres import backup
from watchbill.store.postgres.backup import backup_counts, restore_backup, write_backup
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.migrate import migrate

NOW = datetime.now(UTC)
TABLES = ("workload", "transition", "cluster", "project", "workload_tally")


async def empty_database(engine: Engine) -> str:
    name = f"empty_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(engine.database("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return engine.database(name)


async def filled_database(engine: Engine) -> str:
    url = await fresh_database(engine)
    db = await Database.open(url, pool_size=2)
    agent = await connected_agent(db, NOW)
    await agent.send(*(upsert(workload(number)) for number in range(1, 31)), now=NOW)
    await db.close()
    return url


async def rows(url: str) -> dict[str, list[str]]:
    """All rows of some tables, as text."""
    connection = await asyncpg.connect(url)
    try:
        return {
            name: [
                row["row"]
                for row in await connection.fetch(f"SELECT t::text AS row FROM {name} t ORDER BY 1")
            ]
            for (name,) in await connection.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        }
    finally:
        await connection.close()


async def test_a_backup_holds_every_row_and_comes_back_as_it_was(
    engine: Engine, tmp_path: Path
) -> None:
    url, file = await filled_database(engine), tmp_path / "watchbill.dump"
    before = await rows(url)
    counts = await write_backup(url, file)
    assert counts == {name: len(result) for name, result in before.items()}
    assert counts["workload"] == 30
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    restored = await empty_database(engine)
    assert await restore_backup(restored, file) == counts
    assert await rows(restored) == before
    connection = await asyncpg.connect(restored)
    try:
        known = await connection.fetchval(
            "SELECT reltuples FROM pg_class WHERE relname = 'workload'"
        )
    finally:
        await connection.close()
    assert known == 30, "the planner knows what was restored"
    with pytest.raises(Conflict, match="already holds"):
        await restore_backup(restored, file)


async def test_what_is_not_whole_is_never_left_behind(
    embedded_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, file = await filled_database(embedded_engine), tmp_path / "watchbill.dump"
    file.write_bytes(b"yesterday's")
    genuine = backup.backup_counts

    async def one_row_short(path: Path) -> dict[str, int]:
        counts = await genuine(path)
        return counts | {"workload": counts["workload"] - 1}

    monkeypatch.setattr(backup, "backup_counts", one_row_short)
    with pytest.raises(Conflict, match="workload has 29 of 30 rows"):
        await write_backup(url, file)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"yesterday's"


async def test_an_owner_that_row_security_binds_sees_what_to_run(
    debian_engine: Engine, tmp_path: Path
) -> None:
    """An owner without superuser's rights, as on any managed PostgreSQL."""
    user, name = f"owner_{uuid4().hex[:8]}", f"owned_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(debian_engine.database("postgres"))
    await admin.execute(f"CREATE ROLE {user} LOGIN CREATEROLE")
    await admin.execute(f"GRANT watchbill_app TO {user}")
    await admin.execute(f"CREATE DATABASE {name} OWNER {user}")
    url = debian_engine.database(name).replace("//owner@", f"//{user}@")
    await migrate(url)
    db = await Database.open(url, pool_size=2)
    agent = await connected_agent(db, NOW)
    await agent.send(upsert(workload(1)), now=NOW)
    await db.close()
    file = tmp_path / "watchbill.dump"
    with pytest.raises(Invalid) as refused:
        await write_backup(url, file)
    assert list(tmp_path.iterdir()) == []
    statements = (refused.value.details or "").partition(": ")[2]
    await admin.execute(statements)
    assert (await write_backup(url, file))["workload"] == 1
    await admin.close()


async def test_a_file_that_is_no_backup_is_refused(embedded_engine: Engine, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"SELECT 1;")
    with pytest.raises(Invalid, match="not a backup"):
        await backup_counts(junk)
    with pytest.raises(Invalid, match="no file"):
        await backup_counts(tmp_path / "none")
    with pytest.raises(Unavailable, match="does not answer"):
        await write_backup("postgresql://nobody@127.0.0.1:1/x", tmp_path / "x")
    with pytest.raises(WatchbillError, match="Cannot write"):
        await write_backup(await fresh_database(embedded_engine), tmp_path / "none" / "x")


async def test_a_truncated_backup_is_refused(embedded_engine: Engine, tmp_path: Path) -> None:
    url, file = await filled_database(embedded_engine), tmp_path / "watchbill.dump"
    await write_backup(url, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    empty = await empty_database(embedded_engine)
    with pytest.raises(Invalid):
        await restore_backup(empty, file)
    assert await rows(empty) == {}


async def test_a_backup_of_a_newer_version_is_refused_before_anything_is_written(
    embedded_engine: Engine, tmp_path: Path
) -> None:
    url, file = await filled_database(embedded_engine), tmp_path / "watchbill.dump"
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = 'r9999'")
    await connection.close()
    with pytest.raises(Invalid, match="schema r9999 of a newer Watchbill"):
        await write_backup(url, file)
    empty = await empty_database(embedded_engine)
    with pytest.raises(Invalid, match="none of Watchbill's tables"):
        await write_backup(empty, file)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_database_is_not_filled_with_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["backup", str(tmp_path / "dump")], ["admin", "recover"]):
        assert run([*words, "--data-dir", str(tmp_path / "none")]) == 2
        assert "There is no database in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


async def test_a_schema_of_a_newer_version_is_refused(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = 'r9999'")
    await connection.close()
    with pytest.raises(Invalid, match="schema r9999 of a newer Watchbill"):
        await migrate(url)


@pytest_asyncio.fixture
async def recoverable(embedded_engine: Engine) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """A migrated database and its owner's connection."""
    url = await fresh_database(embedded_engine)
    connection = await asyncpg.connect(url)
    yield url, connection
    await connection.close()


async def recover(url: str, *words: str) -> int:
    return await asyncio.to_thread(run, ["admin", "recover", "--database-url", url, *words])


@pytest.mark.parametrize(
    ("revision", "words"),
    [("r9999", "of a newer Watchbill"), ("0001", "older schema 0001"), (None, "none of")],
)
async def test_recovery_works_on_this_versions_schema_alone(
    recoverable: tuple[str, asyncpg.Connection],
    capsys: pytest.CaptureFixture[str],
    revision: str | None,
    words: str,
) -> None:
    url, connection = recoverable
    if revision is None:
        await connection.execute("DROP TABLE alembic_version")
    else:
        await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
    assert await recover(url) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert await connection.fetchval("SELECT count(*) FROM account") == 0


async def test_a_recovery_is_whole_or_not_at_all(
    recoverable: tuple[str, asyncpg.Connection], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither an account that the audit log does not know, nor one whose secret is nowhere, nor a file of
    an account that is not there."""
    url, connection = recoverable
    file = tmp_path / "administrator.json"
    assert await recover(url, "--output", "/dev/null/administrator") == 1
    assert await connection.fetchval("SELECT count(*) FROM account") == 0
    await connection.execute("ALTER TABLE audit_event RENAME TO away")
    assert await recover(url, "--output", str(file)) == 1
    assert list(tmp_path.iterdir()) == []
    await connection.execute("ALTER TABLE away RENAME TO audit_event")
    # A commit that fails, after everything was written.
    await connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$; "
        "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON account DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    assert await recover(url, "--output", str(file)) == 3
    assert "The database's disk is full." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    await connection.execute("DROP TRIGGER fails ON account")
    assert await recover(url, "--output", str(file)) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [row] = await connection.fetch("SELECT client_id FROM account")
    assert json.loads(file.read_text())["clientId"] == row["client_id"]
    assert capsys.readouterr().out == ""
    before = file.read_bytes()
    assert await recover(url, "--output", str(file)) == 2
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", [["backup", "FILE"], ["admin", "recover"]])
async def test_an_error_of_the_database_is_a_sentence(
    recoverable: tuple[str, asyncpg.Connection],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    url, connection = recoverable
    name = await connection.fetchval("SELECT current_database()")
    words = [word.replace("FILE", str(tmp_path / "x")) for word in command]
    missing = url.replace(f"/{name}", "/no_such_database")
    assert await asyncio.to_thread(run, [*words, "--database-url", missing]) == 3
    errors = capsys.readouterr().err
    assert "bug in Watchbill" not in errors
    assert "the cause: " in errors
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_is_a_sentence(
    recoverable: tuple[str, asyncpg.Connection],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pg_dump itself writes to the device that is always full."""
    url, _ = recoverable
    genuine = await backup.connecting_program("pg_dump", url)
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\nexec "{genuine}" "$@" --file=/dev/full\n')
    program.chmod(0o700)

    async def full(name: str, database_url: str) -> str:
        return str(program)

    monkeypatch.setattr(backup, "connecting_program", full)
    file = tmp_path / "x"
    words = ["backup", str(file), "--database-url", url]
    assert await asyncio.to_thread(run, words) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: Cannot write {file}: No space left on device.",
        "hint: nothing was written; check the folder, its permissions and the free space",
    ]
    assert list(tmp_path.iterdir()) == [program]


async def test_a_terminated_backup_leaves_nothing(
    recoverable: tuple[str, asyncpg.Connection], tmp_path: Path
) -> None:
    """While pg_dump waits for a lock."""
    url, connection = recoverable
    async with connection.transaction():
        await connection.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watchbill", "backup", str(tmp_path / "x")),
            *("--database-url", url),
        )
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        assert [path.name for path in tmp_path.iterdir()] == [".x.partial"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 130
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_before_a_database_is_made_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk, data = tmp_path / "junk", tmp_path / "data"
    junk.write_bytes(b"SELECT 1;")
    assert run(["restore", str(junk), "--data-dir", str(data)]) == 2
    assert "not a backup" in capsys.readouterr().err
    assert not data.exists()


async def test_a_lost_administrator_is_made_anew_and_noted(
    embedded_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await fresh_database(embedded_engine)
    code = await asyncio.to_thread(run, ["admin", "recover", "--database-url", url])
    output = capsys.readouterr().out
    assert code == 0
    client_id = output.split("client id")[1].split()[0]
    connection = await asyncpg.connect(url)
    event = await connection.fetchrow("SELECT operation, target, subject_kind FROM audit_event")
    assert tuple(event) == ("recover_administrator", client_id, "machine")
    await connection.close()
