"""Which of PostgreSQL's own client programs to run: those of the wheel, or the system's.

The wheel's are the newest, and were built without TLS. So they read files and speak to this machine's sockets;
to a database on the network the system's speak where they are there.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from watchbill.errors import Unavailable
from watchbill.store.postgres.engine import WHEEL, wheel_binaries
from watchbill.store.postgres.errors import translated

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
