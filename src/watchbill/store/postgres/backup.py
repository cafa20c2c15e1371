"""Backups that are checked: pg_dump in one snapshot, and the rows of the file counted against that snapshot.

Row security hides every row from the schema's owner, so a plain pg_dump of it fails, and one that is asked to
go on writes empty tables. A role that may read past row security is used instead: the login's own where it is
a superuser, else `watchbill_backup`, which an administrator of the database makes once.

The wheel's client programs are the newest, and were built without TLS. So they read files and speak to this
machine's sockets; to a database on the network the system's speak where they are there.
"""

import asyncio
import contextlib
import errno
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import asyncpg

from watchbill.errors import Conflict, Invalid, Unavailable
from watchbill.files import unwritable
from watchbill.store.postgres.database import check_direct
from watchbill.store.postgres.engine import WHEEL, wheel_binaries
from watchbill.store.postgres.errors import translated
from watchbill.store.postgres.migrate import check_revision, ensure_role, migrate

_DEBIAN = Path("/usr/lib/postgresql")
_TLS_MODES = frozenset({"require", "verify-ca", "verify-full"})


def newest_program(name: str) -> str:
    """For files. Raises Unavailable."""
    for program in (*_bundled(name), *_installed(name)):
        return str(program)
    raise Unavailable(
        f"The program {name} is not installed.",
        details=f"Install PostgreSQL's client programs, or the package {WHEEL}.",
    )


async def connecting_program(name: str, database_url: str) -> str:
    """For a database. pg_dump refuses a server that is newer than itself. Raises Unavailable."""
    parts = urlsplit(database_url)
    if not parts.hostname:
        return newest_program(name)
    installed = list(_installed(name))
    if installed:
        server = await _server_major(database_url)
        for program in installed:
            if name != "pg_dump" or _major(program) >= server:
                return str(program)
    mode = parse_qs(parts.query).get("sslmode", [""])[-1]
    if mode in _TLS_MODES:
        raise Unavailable(
            f"No {name} that speaks TLS and is as new as the database is installed.",
            details="Install PostgreSQL's client programs of the database's version "
            f"(Debian: postgresql-client-{await _server_major(database_url)}).",
        )
    return newest_program(name)


def _bundled(name: str) -> Iterator[Path]:
    folder = wheel_binaries()
    if folder is not None and (folder / name).is_file():
        yield folder / name


def _installed(name: str) -> Iterator[Path]:
    """The newest of Debian's first; its wrapper on the path would choose by the clusters that run here."""
    yield from sorted(_DEBIAN.glob(f"*/bin/{name}"), key=_major, reverse=True)
    path = shutil.which(name)
    if path is not None and not any(_DEBIAN.glob(f"*/bin/{name}")):
        yield Path(path)


def _major(program: Path) -> int:
    """Of a program in Debian's folders, from its path; another one on the path counts as new enough."""
    match = re.search(r"/postgresql/(\d+)/bin/", str(program))
    return int(match[1]) if match else 10**6


async def _server_major(database_url: str) -> int:
    async with translated():
        connection = await asyncpg.connect(database_url, timeout=10.0, statement_cache_size=0)
        try:
            return int(connection.get_server_version().major)
        finally:
            await connection.close()


BACKUP_ROLE = "watchbill_backup"
_STATEMENTS = (
    "CREATE ROLE {role} NOLOGIN BYPASSRLS; GRANT pg_read_all_data TO {role}; "
    'GRANT {role} TO "{user}";'
)
_TABLES = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY 1"
)
_STDERR_LINES = 5
_ENGLISH = {"LC_ALL": "C"}
_NO_SPACE = b"output file: No space left on device"

_LINE_BYTES = 2**26
"""A row of a dump is a line; a document has 256 KiB at most."""
_NEWER_SETTINGS = frozenset({b"SET transaction_timeout = 0;\n"})
"""Written by pg_restore 17 and newer, not understood by servers before that."""

Counts = dict[str, int]
"""Rows by table."""


async def write_backup(database_url: str, file: Path) -> Counts:
    """Write the whole database into `file`, readable by us alone, and return what it holds, by table.

    The file is there only when every row of the snapshot was found in it. Raises Invalid where the login may
    not read past row security or a pooler shares connections, Unavailable where a program fails, Conflict where
    the counts differ, WatchbillError where the disk is full or the folder cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        _make_private(partial)
    except OSError as error:
        raise unwritable(file, error) from error
    try:
        await check_direct(database_url)
        async with _snapshot(database_url) as (snapshot, role, counts):
            arguments = [
                "--format=custom",
                "--no-owner",
                f"--snapshot={snapshot}",
                f"--file={partial}",
            ]
            if role:
                arguments.append(f"--role={role}")
            await _dump(arguments, database_url, file)
        written = await backup_counts(partial)
        if written != counts:
            raise Conflict(f"The backup is incomplete: {_difference(counts, written)}.")
        try:
            partial.replace(file)
        except OSError as error:
            raise unwritable(file, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return counts


async def restore_backup(
    database_url: str, file: Path, *, expected: Counts | None = None
) -> Counts:
    """Fill an empty database from a backup, bring it to the present schema, and return its rows by table.

    `expected`: what `backup_counts` has read in the file, where that was done. All or nothing. Raises Invalid
    where the file is not readable or a pooler shares connections, Conflict where the database is not empty or
    the counts differ.
    """
    if expected is None:
        expected = await backup_counts(file)
    restored = await _fill(database_url, file)
    if restored != expected:
        raise Conflict(f"The restored database is incomplete: {_difference(expected, restored)}.")
    await migrate(database_url)
    async with translated(), _connection(database_url) as connection:
        await connection.execute("ANALYZE")  # else the first questions are planned blind
    return restored


async def _fill(database_url: str, file: Path) -> Counts:
    await check_direct(database_url)
    async with translated(), _connection(database_url) as connection:
        if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is not None:
            raise Conflict(
                "The database already holds Watchbill's tables.",
                details="Restore into an empty database: a new one, or a new --data-dir.",
            )
        await ensure_role(connection)
        await _replay(file, database_url)
        return await _counts(connection, await _reading_role(connection))


async def backup_counts(file: Path) -> Counts:
    """Rows by table, counted in the file itself.

    Raises Invalid where it is no backup of ours, or of a newer version's.
    """
    if not await asyncio.to_thread(file.is_file):
        raise Invalid(f"There is no file {file}.")
    process = await asyncio.create_subprocess_exec(
        *(newest_program("pg_restore"), "--data-only", "--file=-", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    async with _ended(process):
        counts, revision = await _counted(process.stdout)
        if await process.wait() != 0:
            raise Invalid(f"{file} is not a backup that can be read.", details=_last(await errors))
        await errors
    if not revision:
        raise Invalid(f"{file} is a backup of something else: it has none of Watchbill's tables.")
    check_revision(revision)
    return counts


async def _counted(lines: asyncio.StreamReader) -> tuple[Counts, str]:
    """Rows in the text of `pg_restore --data-only`: a line each, between COPY and backslash-dot; and the
    revision of the schema, "" where there is none."""
    counts: Counts = {}
    table = revision = ""
    async for line in lines:
        if table:
            if line == b"\\.\n":
                table = ""
            else:
                counts[table] += 1
                if table == "alembic_version":
                    revision = line.decode().strip()
        elif line.startswith(b"COPY public."):
            table = line.split(b" ", 2)[1].decode().removeprefix("public.").strip('"')
            counts[table] = 0
    return counts, revision


@asynccontextmanager
async def _snapshot(database_url: str) -> AsyncIterator[tuple[str, str, Counts]]:
    """A snapshot as long as this lasts, the role that may read all of it ("" = the login's own), its rows."""
    async with translated(), _connection(database_url) as connection:
        role = await _reading_role(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            snapshot: str = await connection.fetchval("SELECT pg_export_snapshot()")
            yield snapshot, role, await _counts(connection, role)


async def _counts(connection: asyncpg.Connection, role: str) -> Counts:
    async with connection.transaction():
        await connection.execute("SET LOCAL row_security = off; SET LOCAL statement_timeout = 0")
        if role:
            await connection.execute(f"SET LOCAL ROLE {role}")
        tables = [row["relname"] for row in await connection.fetch(_TABLES)]
        return {
            table: await connection.fetchval(f'SELECT count(*) FROM public."{table}"')
            for table in tables
        }


async def _reading_role(connection: asyncpg.Connection) -> str:
    """Raises Invalid with what an administrator of the database has to run."""
    if await connection.fetchval(
        "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    ):
        return ""
    is_member = await connection.fetchval(
        "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = $1",
        BACKUP_ROLE,
    )
    if not is_member:
        user = await connection.fetchval("SELECT current_user")
        raise Invalid(
            f"The database user {user} may not read past row security.",
            details="Let an administrator of the database run once: "
            + _STATEMENTS.format(role=BACKUP_ROLE, user=user),
        )
    return BACKUP_ROLE


@asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url, timeout=10.0)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """The program is gone when this ends, however it ends: one that writes on would outlive us."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _dump(arguments: list[str], database_url: str, file: Path) -> None:
    """Raises Unavailable with the last lines that pg_dump wrote, WatchbillError where the disk is full."""
    address, password = _without_password(database_url)
    process = await asyncio.create_subprocess_exec(
        *(await connecting_program("pg_dump", database_url), *arguments, f"--dbname={address}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | password | _ENGLISH,
    )
    async with _ended(process):
        _, errors = await process.communicate()
    if _NO_SPACE in errors:
        raise unwritable(file, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if process.returncode != 0:
        raise Unavailable("pg_dump failed.", details=_last(errors))


async def _replay(file: Path, database_url: str) -> None:
    """The file's statements, in one transaction. Raises Unavailable with psql's last lines."""
    address, password = _without_password(database_url)
    reading = await asyncio.create_subprocess_exec(
        *(newest_program("pg_restore"), "--no-owner", "--file=-", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE_BYTES,
    )
    writing = await asyncio.create_subprocess_exec(
        *(
            await connecting_program("psql", database_url),
            "--quiet",
            "--no-psqlrc",
            "--single-transaction",
        ),
        *("--set=ON_ERROR_STOP=1", f"--dbname={address}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | password,
    )
    async with _ended(reading), _ended(writing):
        await _pipe(reading, writing)


async def _pipe(reading: asyncio.subprocess.Process, writing: asyncio.subprocess.Process) -> None:
    assert reading.stdout is not None
    assert writing.stdin is not None
    assert writing.stderr is not None
    errors = asyncio.create_task(writing.stderr.read())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # psql says why it left
        async for line in reading.stdout:
            if line not in _NEWER_SETTINGS:
                writing.stdin.write(line)
                await writing.stdin.drain()
    writing.stdin.close()
    if await writing.wait() != 0:
        raise Unavailable("The backup could not be restored.", details=_last(await errors))
    await reading.wait()
    await errors


def _without_password(database_url: str) -> tuple[str, Mapping[str, str]]:
    """Every user of a machine may read the arguments of its processes: the password goes another way."""
    parts = urlsplit(database_url)
    if parts.password is None:
        return database_url, {}
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{host}"
    return urlunsplit(parts._replace(netloc=netloc)), {"PGPASSWORD": unquote(parts.password)}


def _make_private(file: Path) -> None:
    """A dump holds secrets' hashes and signing keys. Raises OSError."""
    file.unlink(missing_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _difference(expected: Counts, restored: Counts) -> str:
    return ", ".join(
        f"{table} has {restored.get(table, 0)} of {expected.get(table, 0)} rows"
        for table in sorted(expected.keys() | restored.keys())
        if expected.get(table) != restored.get(table)
    )


def _last(errors: bytes) -> str:
    return " ".join(errors.decode("utf-8", "replace").strip().splitlines()[-_STDERR_LINES:])
