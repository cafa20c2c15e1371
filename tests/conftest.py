"""What the tests stand on: real PostgreSQL, twice, and a clock that stands still where asked.

A test whose system component is missing is skipped and named at the end with how to install it; with
WATCHBILL_TEST_NO_SKIP=1 it fails instead.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import structlog

from tests.fixtures.identity import strict_provider
from tests.fixtures.statements import learn_tables, statements_checked, take_unbound
from watchbill.serve import Started, serve
from watchbill.settings.server import ServerSettings
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.embedded import EmbeddedPostgres
from watchbill.store.postgres.engine import process_owner
from watchbill.store.postgres.migrate import migrate

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")

COMPONENTS = {
    "PostgreSQL 15": (POSTGRES_15 / "postgres", "apt-get install postgresql-15"),
    "HAProxy": (Path("/usr/sbin/haproxy"), "apt-get install haproxy"),
    "PgBouncer": (Path("/usr/sbin/pgbouncer"), "apt-get install pgbouncer"),
    "Prometheus": (Path("/usr/bin/prometheus"), "apt-get install prometheus"),
    "VictoriaMetrics": (
        Path("/usr/bin/victoria-metrics"),
        "apt-get install victoria-metrics",
    ),
    "kubectl": (Path("/usr/bin/kubectl"), "apt-get install kubernetes-client"),
    "Chromium": (Path("/usr/bin/chromium"), "apt-get install chromium"),
    "strict OpenID provider": (strict_provider.INSTALLED, "npm ci in tests/fixtures/provider"),
}
INSTALLERS = {"strict OpenID provider": strict_provider.install}
_missed: dict[str, int] = {}

hypothesis.settings.register_profile("the same everywhere", deadline=None, derandomize=True)
hypothesis.settings.register_profile("drawn anew", deadline=None)
hypothesis.settings.load_profile(
    "drawn anew" if "WATCHBILL_HISTORIES" in os.environ else "the same everywhere"
)

structlog.configure(  # the default draws every frame's variables: a second for each error that is logged
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


_FOLDER = re.compile(r"watchbill-test-(\d+)-\w+")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """One that other system users may pass through, as a data directory's parent must be. Not below pytest's
    own, which they may not."""
    folder = Path(tempfile.mkdtemp(prefix=f"watchbill-test-{os.getpid()}-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Ends as an interactive run does, and clears up after runs that were killed: a few fill a disk."""
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job: children would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    for folder in Path("/tmp").glob("watchbill-test-*"):
        named = _FOLDER.fullmatch(folder.name)
        if named is not None and not _runs(int(named[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def require(component: str) -> Path:
    """The path of a component, or a skip (a failure where skips are forbidden)."""
    path, how = COMPONENTS[component]
    if component in INSTALLERS:
        INSTALLERS[component]()
    if path.exists():
        return path
    if os.environ.get("WATCHBILL_TEST_NO_SKIP") == "1":
        pytest.fail(f"{component} is missing and skips are forbidden: {how}")
    _missed[component] = _missed.get(component, 0) + 1
    pytest.skip(f"{component} is not installed ({how})")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for component, count in _missed.items():
        terminalreporter.write_line(
            f"Skipped for want of {component}: {count} tests. To run them: {COMPONENTS[component][1]}"
        )


@dataclass(frozen=True)
class Engine:
    """A running PostgreSQL with a migrated template database."""

    name: str
    url: str

    def database(self, name: str) -> str:
        return self.url.replace("@/DATABASE?", f"@/{name}?")


async def _with_template(name: str, url: str) -> Engine:
    engine = Engine(name, url)
    connection = await asyncpg.connect(engine.database("postgres"))
    # Nobody wants these data tomorrow, and no vacuum of its own may change a plan that a test looks at.
    for careless in ("fsync", "full_page_writes", "autovacuum"):
        await connection.execute(f"ALTER SYSTEM SET {careless} = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute("CREATE DATABASE watchbill_template")
    await connection.close()
    await migrate(engine.database("watchbill_template"))
    connection = await asyncpg.connect(engine.database("watchbill_template"))
    await learn_tables(connection)
    await connection.close()
    return engine


@pytest.fixture(scope="session", autouse=True)
def statements_are_checked() -> Iterator[None]:
    with statements_checked():
        yield


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """Whoever sets up logging does so for one test: others look for lines that a level would hide."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def statements_name_their_tenant() -> Iterator[None]:
    yield
    assert take_unbound() == []


@pytest_asyncio.fixture(scope="session")
async def embedded_engine() -> AsyncIterator[Engine]:
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder)
        url = await server.start()
        yield await _with_template("embedded", url.replace("@/watchbill?", "@/DATABASE?"))
        await server.stop()


@pytest_asyncio.fixture(scope="session")
async def debian_engine() -> AsyncIterator[Engine]:
    require("PostgreSQL 15")
    owner = process_owner(None)
    with temporary_folder() as folder:
        data = folder / "data"
        data.mkdir(mode=0o700)
        sockets = folder / "s"
        sockets.mkdir(mode=0o700)
        for path in (data, sockets):
            owner.give(path)
        subprocess.run(
            [
                *(POSTGRES_15 / "initdb", "-D", data, "-U", "owner", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **owner.subprocess_arguments(),
        )
        settings = {"listen_addresses": "", "unix_socket_directories": sockets}
        process = subprocess.Popen(
            [
                *(POSTGRES_15 / "postgres", "-D", data, "-cmax_connections=60"),
                *(f"-c{name}={value}" for name, value in settings.items()),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **owner.subprocess_arguments(),
        )
        url = f"postgresql://owner@/DATABASE?host={quote(str(sockets), safe='')}"
        try:
            await _until_ready(url.replace("DATABASE", "postgres"))
            yield await _with_template("debian", url)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


async def _until_ready(url: str) -> None:
    for _ in range(200):
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.05)
        else:
            await connection.close()
            return
    raise TimeoutError("PostgreSQL did not start")


@pytest.fixture(scope="session", params=["embedded", "debian"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines, one after the other."""
    if request.param == "debian":
        require("PostgreSQL 15")
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    return engine


async def fresh_database(engine: Engine) -> str:
    """The URL of a new, migrated, empty database; it goes with its engine."""
    return engine.database(await _created(engine))


async def _created(engine: Engine) -> str:
    name = f"test_{uuid4().hex[:12]}"
    await _as_owner(
        engine, f"CREATE DATABASE {name} TEMPLATE watchbill_template STRATEGY FILE_COPY"
    )
    return name


async def _as_owner(engine: Engine, statement: str) -> None:
    connection = await asyncpg.connect(engine.database("postgres"))
    await connection.execute(statement)
    await connection.close()


@pytest_asyncio.fixture
async def database_url(engine: Engine) -> AsyncIterator[str]:
    """Of a new, migrated, empty database; it goes with its test: thousands of them would fill a disk."""
    name = await _created(engine)
    yield engine.database(name)
    await _as_owner(engine, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
def private_dir() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@dataclass(frozen=True)
class RunningServer:
    """The whole server on a free port of this machine, and its first administrator."""

    url: str
    client_id: str
    client_secret: str
    database_url: str


@asynccontextmanager
async def running_server(database_url: str, **settings: object) -> AsyncIterator[RunningServer]:
    """Serves in the test's own loop until the block ends."""
    stop = asyncio.Event()
    started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
    options: dict[str, object] = {"data_dir": Path("/nonexistent"), "port": 0, "pool_size": 5}
    task = asyncio.create_task(
        serve(
            ServerSettings(database_url=database_url, **(options | settings)),
            stop=stop,
            ready=started.set_result,
            administrator="tests",
        )
    )
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        result = started.result()
        assert result.login is not None
        yield RunningServer(
            result.url, result.login.client_id, result.login.client_secret, database_url
        )
    finally:
        stop.set()
        await task


@pytest_asyncio.fixture
async def server(database_url: str) -> AsyncIterator[RunningServer]:
    async with running_server(database_url) as running:
        yield running
