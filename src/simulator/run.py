"""The demo: embedded database, server, simulated clusters with an agent each; all of it ends together.

This process runs the server (whose database minds its own death); the clusters and agents run in processes
of their own (`fleet`), so that what the page waits for shares no interpreter with the world it shows. Its
things lie in a folder that was named, or in one of its own that goes at the end.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

from simulator.fleet import ClusterPlan, FleetReport, Plan, ReportTarget, Stop
from simulator.model.hardware import EXAMPLE_PRICES
from simulator.model.names import cluster_name
from simulator.past.recording import repeated
from watchbill.client import Client, Selection
from watchbill.errors import Conflict, Unavailable
from watchbill.files import write_private
from watchbill.identity import FIRST_TENANT_ID
from watchbill.serve import FirstLogin, Started, serve
from watchbill.settings.server import ServerSettings
from watchbill.store.fleet.backfill import fleet_backfill
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account
from watchbill.store.usage.rounds import usage_rebuild

log = structlog.get_logger(__name__)

_PREFIX = "watchbill-demo-"
_LOCK = "demo.lock"


@contextmanager
def demo_home(data_dir: Path | None) -> Iterator[Path]:
    """The folder, held by a lock while it is used. Raises Conflict where another demo uses it."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _locked(data_dir):
            yield data_dir
        return
    _sweep()
    home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # The database may run as another user, who has to pass through.
    home.chmod(0o711)
    try:
        with _locked(home):
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write_credentials(path: Path, *, url: str, client_id: str, client_secret: str) -> None:
    """The whole file at once, readable by its owner alone."""
    content = {"url": url, "clientId": client_id, "clientSecret": client_secret}
    write_private(path, json.dumps(content, indent=2).encode() + b"\n")


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another demo is using {home}.", details="End it, or name another folder."
            ) from None
        yield


def _sweep() -> None:
    """Remove what demos left that were killed: folders of ours whose lock nobody holds."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if home.is_symlink() or home.stat().st_uid != os.geteuid():
                continue
            with (home / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(home, ignore_errors=True)
        except OSError:
            # In use, just being made, or not ours to judge.
            continue


class Progress:
    """`begin` opens a step, `count` moves it on, `done` closes the last one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._step = ""
        self._began = time.monotonic()

    def begin(self, step: str) -> None:
        self._close()
        self._step = step
        if self._is_terminal:
            self._redraw("")
        else:
            self._write(f"{step} ...\n")

    def count(self, done: int, total: int) -> None:
        if self._is_terminal:
            self._redraw(f" {done} of {total}")

    def done(self) -> None:
        self._close()
        seconds = time.monotonic() - self._began
        self._write(f"Ready after {seconds:.1f} s.\n")

    def warn(self, message: str) -> None:
        self._close()
        self._write(f"{message}\n")

    def _redraw(self, ending: str) -> None:
        self._write(f"\r\x1b[K{self._step} ...{ending}")

    def _close(self) -> None:
        if self._step and self._is_terminal:
            self._write(f"\r\x1b[K{self._step}: done\n")
        self._step = ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, OSError):
            # Nobody reads it any more; the demo goes on.
            self._is_terminal = False


ADMINISTRATOR = "demo"
DEFAULT_RATE = 2.0
_FILL_SECONDS = 60.0
"""How long the start waits for the agents' first reports before it says so."""
_MISSING_SHARE = 0.03
_MISSING = 3
"""So many workloads may be missing when the page counts as filled; some come and go meanwhile."""
_FLEET_STOP_SECONDS = 8.0
_MOST_PROCESSES = 4
_DAY = timedelta(days=1)
_START_AGAIN = "Start the demo again; with fewer workloads (`--workloads`) it takes less memory."
_SERIES_DAYS = 7
"""Days of the fleet's series that a new demo has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """`rate`: changes a second, over all clusters. `data_dir` None = new data, removed at the end."""

    host: str = "127.0.0.1"
    port: int = 8600
    clusters: int = 2
    workloads: int = 500
    seed: int = 7
    credentials: Path | None = None
    data_dir: Path | None = None
    rate: float = DEFAULT_RATE


async def run_demo(options: DemoOptions, *, progress: Progress | None = None) -> None:
    """Run until SIGINT or SIGTERM; the shell's end does not matter. Raises WatchbillError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with demo_home(options.data_dir) as home:
        await _run(options, home, stop, progress or Progress())


async def _run(options: DemoOptions, home: Path, stop: asyncio.Event, progress: Progress) -> None:
    async with contextlib.AsyncExitStack() as stack:
        progress.begin(f"Simulating {options.clusters} clusters, starting database and server")
        # Entered first, left last: the agents sign off from a server that still answers.
        server = await stack.enter_async_context(_server(options, home))
        fleet = await stack.enter_async_context(_fleet(_plan(options, home)))
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(_start(options, home, server, fleet, progress))
        stack.push_async_callback(_cancel, stopping, starting)
        ends: list[asyncio.Task[Any]] = [stopping, server.task, fleet.watching]
        await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (server.task, fleet.watching):
            if task.done():
                task.result()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _start(
    options: DemoOptions, home: Path, server: "_Server", fleet: "_Fleet", progress: Progress
) -> None:
    """From processes that come up to a filled page."""
    started = await server.started()
    assert started.login is not None
    login = started.login
    expected = await fleet.built
    async with Client(started.url, login.client_id, login.client_secret) as client:
        credentials = await _register(client, home, list(fleet.names))
        await fleet.send(
            ReportTarget(
                server_url=started.url,
                credentials=credentials,
                database_url=started.database_url,
            )
        )
        progress.begin("Writing down their past month")
        has_past = await fleet.remembered > 0
        progress.begin(f"Agents report {expected} workloads")
        await _fill(client, expected, progress)
    now = datetime.now(UTC)
    if has_past:
        await _prepare(started.database_url, start=now - _DAY, end=now)
    if options.credentials is not None:
        write_credentials(
            options.credentials,
            url=started.url,
            client_id=login.client_id,
            client_secret=login.client_secret,
        )
    progress.done()
    _print_access(started.url, login, options.credentials)
    if has_past:
        await fleet.measured
        await _settle(started.database_url, now)


@contextlib.asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    db = await Database.open(url, pool_size=1, statement_timeout_seconds=_FILL_SECONDS)
    try:
        yield db
    finally:
        await db.close()


async def _prepare(database_url: str, *, start: datetime, end: datetime) -> None:
    """The first round of accounting knew nothing of the past: until it is accounted, nobody says that it is."""
    async with _database(database_url) as db:
        await repeated(partial(usage_rebuild, db, FIRST_TENANT_ID))
        await repeated(partial(fleet_backfill, db, FIRST_TENANT_ID, start=start, end=end))


async def _settle(database_url: str, now: datetime) -> None:
    """What may take some seconds more: the month's usage, and the fleet's series before the last day."""
    async with _database(database_url) as db:
        await repeated(partial(usage_account, db, FIRST_TENANT_ID, datetime.now(UTC)))
        for day in range(1, _SERIES_DAYS):
            start, end = now - (day + 1) * _DAY, now - day * _DAY
            await repeated(partial(fleet_backfill, db, FIRST_TENANT_ID, start=start, end=end))


async def _register(client: Client, home: Path, names: list[str]) -> dict[str, str]:
    """Each cluster's agent credential: kept from an earlier start, else made now."""
    known = {cluster.name for cluster in await client.clusters()}
    credentials: dict[str, str] = {}
    for name in names:
        kept = home / "simulated" / f"{name}.credential"
        if name in known and kept.is_file():
            credentials[name] = kept.read_text().strip()
            continue
        if name in known:
            raise Unavailable(
                f"The server knows a cluster {name}, but {kept} is missing.",
                details=f"Remove the cluster with `watchbill admin cluster delete {name}`, "
                "or name another data directory.",
            )
        created = await client.cluster_create(name)
        write_private(kept, created.credential.encode() + b"\n")
        credentials[name] = created.credential
    return credentials


async def _fill(client: Client, expected: int, progress: Progress) -> None:
    """Wait until the agents have reported what there is."""
    deadline = asyncio.get_running_loop().time() + _FILL_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        try:
            if await _is_filled(client, expected, progress):
                return
        except Unavailable as error:  # of a question that is asked again
            log.warning("the server did not answer yet", reason=error.message)
        await asyncio.sleep(0.2)
    progress.warn("The agents have not reported everything yet; the rest follows.")


async def _is_filled(client: Client, expected: int, progress: Progress) -> bool:
    count = await client.workload_count(Selection())
    progress.count(min(count, expected), expected)
    if count < expected - max(_MISSING, expected * _MISSING_SHARE):
        return False
    return all(cluster.state == "connected" for cluster in await client.clusters())


def _plan(options: DemoOptions, home: Path) -> Plan:
    share, rest = divmod(options.workloads, options.clusters)
    return Plan(
        tuple(
            ClusterPlan(
                name=cluster_name(index),
                seed=options.seed * 1000 + index,
                workloads=share + (index < rest),
                rate=options.rate / options.clusters,
                folder=str(home / "simulated"),
                is_kept=options.data_dir is not None,
            )
            for index in range(options.clusters)
        )
    )


class _Fleet:
    """The processes of the simulated clusters, as this one sees them."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process], names: list[str]) -> None:
        self._processes = processes
        self.names = names
        loop = asyncio.get_running_loop()
        self._done: dict[str, asyncio.Future[int]] = {
            event: loop.create_future() for event in ("built", "remembered", "measured")
        }
        self._workloads: Counter[str] = Counter()
        self._missing = {event: set(names) for event in self._done}
        self.watching = asyncio.create_task(self._watch())

    @property
    def built(self) -> asyncio.Future[int]:
        """All clusters stand; the result is how many workloads they have."""
        return self._done["built"]

    @property
    def remembered(self) -> asyncio.Future[int]:
        """The past of all clusters is written; the result is how many workloads it tells of."""
        return self._done["remembered"]

    @property
    def measured(self) -> asyncio.Future[int]:
        """So is what their exporters measured in it."""
        return self._done["measured"]

    async def send(self, message: msgspec.Struct) -> None:
        """To all of them."""
        for process in self._processes:
            await _send(process, message)

    async def _watch(self) -> None:
        """Read their reports. None has a reason to end before we do, so the first end is an error."""
        reading = [asyncio.create_task(self._read(process)) for process in self._processes]
        try:
            ended, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            raise Unavailable(ended.pop().result(), details=_START_AGAIN)
        finally:
            for task in reading:
                task.cancel()

    async def _read(self, process: asyncio.subprocess.Process) -> str:
        """Until it ends; why it did."""
        assert process.stdout is not None
        message = "The simulated clusters ended unexpectedly."
        async for line in process.stdout:
            report = msgspec.json.decode(line, type=FleetReport)
            if report.event == "failed":
                message = f"The simulated clusters ended: {report.message}"
                continue
            self._workloads[report.event] += report.workloads
            self._missing[report.event].discard(report.cluster)
            if not self._missing[report.event] and not self._done[report.event].done():
                self._done[report.event].set_result(self._workloads[report.event])
        return message

    async def close(self) -> None:
        """Stop them; they save their state and end."""
        self.watching.cancel()
        with contextlib.suppress(asyncio.CancelledError, Unavailable):
            await self.watching
        await asyncio.gather(*map(_end, self._processes))


async def _send(process: asyncio.subprocess.Process, message: msgspec.Struct) -> None:
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(message) + b"\n")
    await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ConnectionError):
        await _send(process, Stop())
    try:
        await asyncio.wait_for(process.wait(), _FLEET_STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _fleet(plan: Plan) -> AsyncIterator[_Fleet]:
    """The clusters in as many processes as there are cores for: their past is computed at once."""
    number = min(len(plan.clusters), os.cpu_count() or 1, _MOST_PROCESSES)
    processes = [await _start_process() for _ in range(number)]
    fleet = _Fleet(processes, [cluster.name for cluster in plan.clusters])
    try:
        for index, process in enumerate(processes):
            await _send(process, Plan(plan.clusters[index::number]))
        yield fleet
    finally:
        await fleet.close()


async def _start_process() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulator.fleet",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


class _Server:
    """The server's task, and the moment when it answers."""

    def __init__(self, settings: ServerSettings) -> None:
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            serve(
                settings, stop=self._stop, ready=self._ready.set_result, administrator=ADMINISTRATOR
            )
        )

    async def started(self) -> Started:
        """Raises what ended the server, should it end before it answers."""
        first: tuple[asyncio.Future[Any], ...] = (self.task, self._ready)
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            self.task.result()
        return self._ready.result()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.wait([self.task])


@contextlib.asynccontextmanager
async def _server(options: DemoOptions, home: Path) -> AsyncIterator[_Server]:
    if not (prices := home / "prices.yaml").exists():
        prices.write_text(EXAMPLE_PRICES)
    server = _Server(
        ServerSettings(data_dir=home, host=options.host, port=options.port, prices_file=prices)
    )
    try:
        yield server
    finally:
        await server.close()


def _print_access(url: str, login: FirstLogin, credentials: Path | None) -> None:
    body = (
        f'{{"grantType":"client_credentials","clientId":"{login.client_id}",'
        f'"clientSecret":"{login.client_secret}"}}'
    )
    token = (
        f"$(curl -s {url}/api/v1/token -H 'Content-Type: application/json' -d '{body}' "
        '| sed \'s/.*"accessToken":"\\([^"]*\\)".*/\\1/\')'
    )
    kept = f"\n  kept in        {credentials}" if credentials is not None else ""
    text = (
        f"\nWatchbill answers at {url}\n\n"
        f"  client id      {login.client_id}\n"
        f"  client secret  {login.client_secret}{kept}\n\n"
        f'  curl -s "{url}/api/v1/workloads?limit=3" -H "Authorization: Bearer {token}"\n\n'
        "Ctrl-C ends it.\n"
    )
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()
