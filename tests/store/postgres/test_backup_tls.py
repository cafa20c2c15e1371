"""Backups of a database on the network, which is reached by TLS alone: the wheel's programs do not speak it."""

from pathlib import Path

import pytest

from drills.processes import folder, postgres
from tests.conftest import require
from tests.fixtures.identity.certificates import write_certificate
from watchbill.errors import Unavailable
from watchbill.store.postgres import backup
from watchbill.store.postgres.backup import (
    connecting_program,
    newest_program,
    restore_backup,
    write_backup,
)
from watchbill.store.postgres.engine import process_owner
from watchbill.store.postgres.migrate import migrate


async def test_a_database_that_is_reached_by_tls_is_backed_up_and_restored() -> None:
    require("PostgreSQL 15")
    with folder() as root:
        chain, key = write_certificate(root)
        for file in (chain, key):
            process_owner(None).give(file)
        key.chmod(0o600)
        settings = {"ssl": "on", "ssl_cert_file": str(chain), "ssl_key_file": str(key)}
        async with postgres(root, **settings) as database:
            await database.execute("CREATE DATABASE restored")
            address = f"postgresql://owner@127.0.0.1:{database.port}"
            options = f"sslmode=verify-full&sslrootcert={chain}"
            url = f"{address}/watchbill?{options}"
            await migrate(url)
            counts = await write_backup(url, root / "backup.dump")
            assert counts["tenant"] == 1
            restored = await restore_backup(f"{address}/restored?{options}", root / "backup.dump")
            assert restored == counts


async def test_the_wheels_programs_speak_to_sockets() -> None:
    url = "postgresql://owner@/watchbill?host=/run/watchbill"
    assert await connecting_program("pg_dump", url) == newest_program("pg_dump")


async def test_without_a_program_that_can_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def major(_: str) -> int:
        return 17

    monkeypatch.setattr(backup, "_server_major", major)
    monkeypatch.setattr(
        backup,
        "_installed",
        lambda name: iter([Path(f"/usr/lib/postgresql/15/bin/{name}")]),
    )
    with pytest.raises(Unavailable) as raised:
        await connecting_program("pg_dump", "postgresql://db.example.com/watchbill?sslmode=require")
    assert "postgresql-client-17" in (raised.value.details or "")
    psql = await connecting_program("psql", "postgresql://db.example.com/watchbill?sslmode=require")
    assert psql == "/usr/lib/postgresql/15/bin/psql", "an older psql speaks to a newer server"
