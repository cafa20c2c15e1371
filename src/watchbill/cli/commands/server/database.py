"""What is done to the server's database directly, on its machine: backup, restore, a way back in."""

import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.output.terminal import json_document, safe
from watchbill.files import write_private

if TYPE_CHECKING:
    from watchbill.store.postgres.backup import Counts

Result = TypeVar("Result")
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
    from watchbill.store.postgres.backup import write_backup

    async def run() -> "Counts":
        async with _database(database_url, data_dir, is_new=False) as url:
            return await write_backup(url, file)

    _print(f"Wrote {file}", _until_terminated(run()))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `backup` wrote.")],
    *,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Fill an empty database from FILE, verify it, and bring it to this version's schema.

    Agents that kept running bring the records up to date with their next inventory.
    """
    from watchbill.store.postgres.backup import backup_counts, restore_backup

    async def run() -> "Counts":
        expected = await backup_counts(file)  # before a database is made that nothing can fill
        async with _database(database_url, data_dir, is_new=True) as url:
            return await restore_backup(url, file, expected=expected)

    _print(f"Restored {file}", _until_terminated(run()))


def recover(
    *,
    name: Annotated[str, typer.Option(help="Name of the account.")] = "recovered",
    output: options.CredentialFile = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Create a new administrator when no administrator can log in any more. Recorded in the audit log.

    Requires no login, but access to the database: run it on the server's machine.
    With --output no account is created if FILE cannot be written.
    """
    if output is not None and output.exists():
        usage_error(f"{output} exists already.", hint="name a new file, or remove that one")

    async def run() -> None:
        async with _database(database_url, data_dir, is_new=False) as url:
            await _recover(url, name, output)

    _until_terminated(run())


async def _recover(database_url: str, name: str, output: Path | None) -> None:
    """The secret is written before it counts; a file of one that does not count is removed again."""
    from datetime import UTC, datetime

    from watchbill.store.identity.administration import administrator_recover
    from watchbill.store.postgres.database import Database
    from watchbill.store.postgres.migrate import check_schema

    await check_schema(database_url)
    db = await Database.open(database_url, pool_size=2)
    written: list[Path] = []

    def keep(client_id: str, client_secret: str) -> None:
        if output is None:
            _print_secret(client_id, client_secret)
            return
        members = {"clientId": client_id, "clientSecret": client_secret}
        write_private(output, json_document(members))
        written.append(output)

    try:
        await administrator_recover(
            db, name, subject=f"uid {os.getuid()}", now=datetime.now(UTC), keep=keep
        )
        written.clear()
    finally:
        for file in written:
            file.unlink(missing_ok=True)
        await db.close()


def _print_secret(client_id: str, client_secret: str) -> None:
    print(
        "A new administrator (shown this once; keep the secret):\n"
        f"  client id      {client_id}\n"
        f"  client secret  {client_secret}",
        flush=True,
    )


def _until_terminated(work: Coroutine[Any, Any, Result]) -> Result:
    """SIGTERM ends the work as Ctrl-C does: what was begun is cleared away. Raises KeyboardInterrupt."""
    import asyncio
    import signal
    import threading

    async def run() -> Result:
        task = asyncio.ensure_future(work)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


@contextlib.asynccontextmanager
async def _database(
    database_url: str | None, data_dir: Path | None, *, is_new: bool
) -> AsyncIterator[str]:
    """The database that is named, or the embedded one, which is started for as long as this lasts.

    Without a pooler between, where the environment says how.

    Raises Invalid where there is no embedded one and `is_new` does not ask for it to be made.
    """
    from watchbill.cli.connection.log_setup import log_to_stderr
    from watchbill.errors import Invalid
    from watchbill.settings.server import server_settings
    from watchbill.store.postgres.embedded import EmbeddedPostgres
    from watchbill.store.postgres.errors import naming_database

    log_to_stderr("warning")
    settings = server_settings(os.environ, database_url=database_url, data_dir=data_dir)
    if settings.database_url is not None:
        direct = settings.database_direct_url if database_url is None else None
        async with naming_database(direct or settings.database_url):
            yield direct or settings.database_url
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
