"""What is done to the server's database directly, on its machine: backup, restore, a way back in."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.output.terminal import safe

if TYPE_CHECKING:
    from watchbill.store.postgres.backup import Counts

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The database; without it the embedded one.  [WATCHBILL_DATABASE_URL]",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the embedded PostgreSQL.  [WATCHBILL_DATA_DIR]")
]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the backup.")],
    *,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Back up the server's database into FILE, while the server runs or not, and verify what was written.

    FILE is in PostgreSQL's own custom format; `watchbill restore` or pg_restore reads it. It holds signing
    keys: keep it as safe as the database.
    """
    import asyncio

    from watchbill.store.postgres.backup import write_backup

    async def run() -> "Counts":
        async with _database(database_url, data_dir, is_new=False) as url:
            return await write_backup(url, file)

    _print(f"Wrote {file}", asyncio.run(run()))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `backup` wrote.")],
    *,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Fill an empty database from FILE, verify it, and bring it to this version's schema.

    Agents that ran on meanwhile repair what is older than their clusters with their next inventory.
    """
    import asyncio

    from watchbill.store.postgres.backup import restore_backup

    async def run() -> "Counts":
        async with _database(database_url, data_dir, is_new=True) as url:
            return await restore_backup(url, file)

    _print(f"Restored {file}", asyncio.run(run()))


def recover(
    *,
    name: Annotated[str, typer.Option(help="What the account is called.")] = "recovered",
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a new administrator, for when no login of one is left. It is noted in the audit log.

    Whoever may read the database's address may do this: it asks for no login, and needs the server's machine.
    """

    import asyncio

    async def run() -> tuple[str, str]:
        async with _database(database_url, data_dir, is_new=False) as url:
            return await _new_administrator(url, name)

    client_id, client_secret = asyncio.run(run())
    print(
        "A new administrator (shown this once; keep the secret):\n"
        f"  client id      {client_id}\n"
        f"  client secret  {client_secret}"
    )


async def _new_administrator(database_url: str, name: str) -> tuple[str, str]:
    from datetime import UTC, datetime

    from watchbill.identity import FIRST_TENANT_ID, administrator_rule
    from watchbill.store.identity.accounts import account_create
    from watchbill.store.identity.audit import AuditEvent, audit_write
    from watchbill.store.postgres.database import Database

    now = datetime.now(UTC)
    db = await Database.open(database_url, pool_size=2)
    try:
        rules = (administrator_rule(FIRST_TENANT_ID),)
        made = await account_create(db, FIRST_TENANT_ID, name, rules, now=now, created_by="recover")
        event = AuditEvent(
            tenant_id=FIRST_TENANT_ID,
            at=now,
            last_at=now,
            count=1,
            subject_kind="machine",
            subject=f"uid {os.getuid()}",
            operation="recover_administrator",
            target=made[0],
            rules=(),
            address="",
            outcome=200,
            request_id="",
            details=name[:100],
        )
        await audit_write(db, FIRST_TENANT_ID, [event])
    finally:
        await db.close()
    return made


@contextlib.asynccontextmanager
async def _database(
    database_url: str | None, data_dir: Path | None, *, is_new: bool
) -> AsyncIterator[str]:
    """The database that is named, or the embedded one, which is started for as long as this lasts.

    Raises Invalid where there is no embedded one and `is_new` does not ask for it to be made.
    """
    from watchbill.cli.connection.log_setup import log_to_stderr
    from watchbill.errors import Invalid
    from watchbill.settings import server_settings
    from watchbill.store.postgres.embedded import EmbeddedPostgres

    log_to_stderr("warning")
    settings = server_settings(os.environ, database_url=database_url, data_dir=data_dir)
    if settings.database_url is not None:
        yield settings.database_url
        return
    if not is_new and not (settings.data_dir / "postgres" / "PG_VERSION").is_file():
        raise Invalid(
            f"There is no database in {settings.data_dir}.",
            details="Name its folder with --data-dir, or another PostgreSQL with --database-url.",
        )
    embedded = EmbeddedPostgres(settings.data_dir, system_user=settings.system_user)
    try:
        yield await embedded.start()
    finally:
        await embedded.stop()


def _print(headline: str, counts: "Counts") -> None:
    width = max(map(len, counts), default=0)
    for name, count in counts.items():
        if count:
            print(f"{name:{width}}  {count:>12}")
    print(f"{safe(headline)}: {sum(counts.values())} rows in {len(counts)} tables, verified.")
