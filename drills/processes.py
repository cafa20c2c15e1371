"""What drills are done to: servers, databases and proxies as processes of this machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg

from watchbill.identity import FIRST_TENANT_ID, administrator_rule
from watchbill.store.identity.accounts import account_create
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.engine import ProcessOwner, process_owner
from watchbill.store.postgres.migrate import migrate

POSTGRES = Path("/usr/lib/postgresql/15/bin")
STOP_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Private, but others may pass through it to what is theirs."""
    made = Path(tempfile.mkdtemp(prefix="wb-drill-", dir="/tmp"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


async def until(condition: Callable[[], Awaitable[object]], *, seconds: float, what: str) -> float:
    """Seconds until it held. Raises TimeoutError, saying what was waited for."""
    started_at = time.monotonic()
    while not await condition():
        if time.monotonic() - started_at > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - started_at


@dataclass
class Child:
    """A program that can be started again after it ended; its output is in `log`."""

    arguments: Sequence[str | Path]
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    owner: ProcessOwner | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        more = self.owner.subprocess_arguments() if self.owner is not None else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(argument) for argument in self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=os.environ | dict(self.environ),
                start_new_session=True,
                **more,
            )

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds until it ended."""
        started_at = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                await asyncio.to_thread(self.process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return time.monotonic() - started_at

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Child"]:
        self.start()
        try:
            yield self
        finally:
            await self.stop(signal.SIGKILL)


class Postgres:
    """Debian's PostgreSQL 15 on a port and a socket of its own; whoever may connect is the owner."""

    def __init__(
        self, root: Path, *, data: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.owner = process_owner(None)
        self.data = data or root / "data"
        self.sockets = root / "s"
        for path in (self.data, self.sockets):
            path.mkdir(mode=0o700, exist_ok=True)
            self.owner.give(path)
        self.port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
            "fsync": "off",
            **(settings or {}),
        }
        self.child = Child(
            [
                POSTGRES / "postgres",
                "-D",
                self.data,
                *(f"-c{name}={value}" for name, value in options.items()),
            ],
            root / "postgres.log",
            owner=self.owner,
        )

    def initialise(self) -> None:
        self.run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "owner",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )

    def run(self, program: str, *arguments: str | Path) -> None:
        """One of PostgreSQL's own programs, as its owner. Raises RuntimeError with what it said."""
        done = subprocess.run(
            [POSTGRES / program, *map(str, arguments)],
            capture_output=True,
            cwd="/",
            text=True,
            **self.owner.subprocess_arguments(),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr[-2000:]}")

    def url(self, database: str = "postgres") -> str:
        host = quote(str(self.sockets), safe="")
        return f"postgresql://owner@/{database}?host={host}&port={self.port}"

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def answers(self) -> bool:
        try:
            await self.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Postgres"]:
        async with self.child.running():
            await until(self.answers, seconds=60, what="PostgreSQL answers")
            yield self


@contextlib.asynccontextmanager
async def postgres(
    root: Path, *, data: Path | None = None, **settings: str
) -> AsyncIterator[Postgres]:
    """A fresh one, with an empty database `watchbill`; its files in `data`, else in `root`."""
    server = Postgres(root, data=data, settings=settings)
    server.initialise()
    async with server.running():
        await server.execute("CREATE DATABASE watchbill")
        yield server


@contextlib.asynccontextmanager
async def standby_of(
    root: Path, primary: Postgres, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Postgres]:
    """A standby that streams from it, begun with `pg_basebackup`."""
    files = root / "standby"
    files.mkdir(mode=0o711)
    server = Postgres(files, settings=settings)
    await asyncio.to_thread(
        server.run, "pg_basebackup", "-D", server.data, "-h", primary.sockets, "-p", str(primary.port),
        "-U", "owner", "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
    )  # fmt: skip
    async with server.running():
        yield server


@contextlib.asynccontextmanager
async def pgbouncer(root: Path, database: Postgres, *, connections: int) -> AsyncIterator[str]:
    """The URL of the database behind a PgBouncer in transaction mode."""
    port = free_port()
    configuration = root / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\nwatchbill = host={database.sockets} port={database.port} user=owner\n"
        "[pgbouncer]\nauth_type = any\npool_mode = transaction\n"
        f"default_pool_size = {connections}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        "unix_socket_dir =\n"
    )
    database.owner.give(configuration)
    child = Child(
        ["/usr/sbin/pgbouncer", "-q", configuration], root / "pgbouncer.log", owner=database.owner
    )
    url = f"postgresql://owner@127.0.0.1:{port}/watchbill"

    async def answers() -> bool:
        try:
            connection = await asyncpg.connect(url, statement_cache_size=0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async with child.running():
        await until(answers, seconds=30, what="PgBouncer answers")
        yield url


def watchbill_server(root: Path, database_url: str, port: int, **environ: str) -> Child:
    command = [
        sys.executable,
        "-m",
        "watchbill",
        "server",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    return Child(
        command,
        root / f"server-{port}.log",
        {"WATCHBILL_DATABASE_URL": database_url, "WATCHBILL_REQUESTS_BURST": "100000"} | environ,
    )


async def status_of(url: str) -> tuple[int, str]:
    """Of a request without a login: its status and message; (0, why) where nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session,
            session.get(url) as answer,
        ):
            body = await answer.json(content_type=None)
            return answer.status, str((body or {}).get("message", ""))
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        return 0, str(error)


async def until_ready(url: str, *, seconds: float = 120.0) -> float:
    async def is_ready() -> bool:
        return (await status_of(f"{url}/readyz"))[0] == 200

    return await until(is_ready, seconds=seconds, what=f"{url} is ready")


async def administrator(database_url: str) -> tuple[str, str]:
    """Id and secret of a new administrator, in a database that is migrated on the way."""
    await migrate(database_url)
    db = await Database.open(database_url, pool_size=2)
    try:
        rules = (administrator_rule(FIRST_TENANT_ID),)
        return await account_create(db, FIRST_TENANT_ID, "drill", rules, now=datetime.now(UTC))
    finally:
        await db.close()


def haproxy(root: Path, port: int, servers: Sequence[int]) -> Child:
    """As docs/operations.md has it."""
    lines = "".join(
        f"  server s{server} 127.0.0.1:{server} check inter 500ms fall 1 rise 1\n"
        for server in servers
    )
    configuration = root / "haproxy.cfg"
    configuration.write_text(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend in\n  bind 127.0.0.1:{port}\n  default_backend watchbill\n"
        "backend watchbill\n  balance leastconn\n  option httpchk GET /readyz\n  timeout check 5s\n"
        "  option redispatch\n  retries 3\n"
        "  retry-on conn-failure empty-response response-timeout\n" + lines
    )
    return Child(["/usr/sbin/haproxy", "-db", "-f", configuration], root / "haproxy.log")


def nginx(root: Path, port: int, servers: Sequence[int]) -> Child:
    """As docs/operations.md has it. It has no health checks: what fails is asked of the next one."""
    lines = "".join(
        f"    server 127.0.0.1:{server} max_fails=1 fail_timeout=2s;\n" for server in servers
    )
    configuration = root / "nginx.conf"
    configuration.write_text(
        f"pid {root}/nginx.pid; error_log {root}/nginx-error.log; daemon off; master_process off;\n"
        f"events {{}}\nhttp {{\n  access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n"
        f"  fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/c;\n"
        f"  upstream watchbill {{\n    least_conn;\n{lines}    keepalive 16;\n  }}\n"
        f"  server {{\n    listen 127.0.0.1:{port};\n    client_max_body_size 16m;\n    location / {{\n"
        "      proxy_pass http://watchbill; proxy_http_version 1.1; proxy_set_header Connection '';\n"
        "      proxy_set_header Host $http_host; proxy_read_timeout 60s;\n"
        "      proxy_next_upstream error timeout http_503 non_idempotent;\n    }\n  }\n}\n"
    )
    return Child(["/usr/sbin/nginx", "-c", configuration], root / "nginx.log")


PROXIES = {"HAProxy": haproxy, "nginx": nginx}
