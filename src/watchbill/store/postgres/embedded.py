"""The embedded PostgreSQL: binaries from a wheel, run as our child process, stopped when we are.

`start` makes the data directory if there is none, starts `postgres` itself (never through `pg_ctl`, whose
child would outlive us) and supervises it: when it ends unexpectedly it is started again, at the same URL, so
whoever holds the URL reaches it again. A postgres that already runs on the directory is used as it is, and
replaced when it ends. Nothing listens on TCP.

The folder of its socket is inside the data directory. Only where that path is too long for a socket is it a
folder in the system's temporary directory, whose name the data directory remembers.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog

from watchbill.errors import Unavailable
from watchbill.store.postgres import engine
from watchbill.store.postgres.engine import ProcessOwner

MAX_PATH_BYTES = 100
"""A socket's path has room for 103 bytes on macOS, 107 on Linux."""
SOCKET_NAME = ".s.PGSQL.5432"


def socket_folder(data_dir: Path, owner: ProcessOwner) -> Path:
    """Made where it is missing, owned by the database's user, closed to everybody else."""
    inside = data_dir / "socket"
    if len(os.fsencode(inside / SOCKET_NAME)) <= MAX_PATH_BYTES:
        return _private(inside, owner)
    note = data_dir / "postgres.socket"
    remembered = Path(note.read_text(encoding="utf-8")) if note.is_file() else None
    if remembered is not None:
        try:
            return _private(remembered, owner)
        except OSError:  # somebody else has taken the name since a cleaner removed the folder
            pass
    made = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    owner.give(made)
    note.write_text(str(made), encoding="utf-8")
    return made


def remove_socket_folder(data_dir: Path) -> None:
    """Leave nothing in the temporary directory once no socket is in there; the name stays remembered."""
    note = data_dir / "postgres.socket"
    if note.is_file():
        with contextlib.suppress(OSError):
            Path(note.read_text(encoding="utf-8")).rmdir()


def _private(folder: Path, owner: ProcessOwner) -> Path:
    """Raises OSError where something else has this name."""
    try:
        folder.mkdir(mode=0o700)
        owner.give(folder)
    except FileExistsError:
        status = folder.lstat()
        expected = os.geteuid() if owner.uid is None else owner.uid
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != expected:
            raise
    folder.chmod(0o700)
    return folder


log = structlog.get_logger(__name__)

USER = "watchbill"
START_TIMEOUT_SECONDS = 120.0  # crash recovery of a large database takes its time
STOP_TIMEOUT_SECONDS = 20.0
RETRY_SECONDS = 0.5  # backends of a killed postmaster take a moment to end
MAX_RETRY_SECONDS = 5.0

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    # A large cluster fills a new database in less than the usual minute; until then joins take seconds.
    "autovacuum_naptime": "15s",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
LEAST_BUFFERS_MB, MOST_BUFFERS_MB = 128, 2048
SHARE_FOR_BUFFERS = 8
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What a container may take, in bytes, or `max`."""


def shared_buffers_mb(memory_limit: Path = MEMORY_LIMIT) -> int:
    """An eighth of the memory that there is, within bounds; it is taken as pages are read, not at once."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit.read_text().strip() if memory_limit.exists() else "max"
    if limit.isdecimal():
        memory = min(memory, int(limit))
    return min(max(memory // 2**20 // SHARE_FOR_BUFFERS, LEAST_BUFFERS_MB), MOST_BUFFERS_MB)


class EmbeddedPostgres:
    """One PostgreSQL cluster in `data_dir/postgres`. Use `start`, then `url`, then `stop`."""

    def __init__(self, data_dir: Path, *, system_user: str | None = None) -> None:
        data_dir = data_dir.absolute()  # PostgreSQL runs elsewhere
        self._root = data_dir
        self._cluster = data_dir / "postgres"
        self._system_user = system_user
        self._owner: engine.ProcessOwner | None = None
        self._binaries = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._watchdog: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self) -> str:
        """Returns the database URL. Raises Unavailable with what to do about it."""
        engine.make_private(self._root, mode=0o711)
        self._owner = engine.process_owner(self._system_user)
        engine.check_reachable(self._owner, self._root)
        self._binaries = engine.reachable_binaries(self._owner, self._root)
        await self._start_or_adopt()
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded PostgreSQL")
        self._supervisor.add_done_callback(_report_end)
        return self.url

    async def stop(self) -> None:
        """Stop the postgres that we started; one that was running before goes on."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_SECONDS)
            except TimeoutError:
                self._process.send_signal(signal.SIGQUIT)
                await self._process.wait()
            remove_socket_folder(self._root)
        self._process = None
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            await self._watchdog.wait()
            self._watchdog = None

    async def _start_or_adopt(self) -> None:
        with _lock(self._root / "postgres.lock"):
            if not (self._cluster / "PG_VERSION").is_file():
                await self._initialise()
            deadline = asyncio.get_running_loop().time() + START_TIMEOUT_SECONDS
            while engine.running_postmaster(self._cluster) is not None:
                socket_dir = _recorded_socket_dir(self._cluster)
                self.url = self._url(socket_dir) if socket_dir else ""
                if socket_dir and await self._answers():
                    log.info("using the PostgreSQL that runs on the data directory")
                    return
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(
                        f"A PostgreSQL server runs on {self._cluster} but does not answer.",
                        details="End that process, then start again.",
                    )
                await asyncio.sleep(0.1)
            await self._spawn(deadline)

    async def _initialise(self) -> None:
        """`initdb` into a folder beside, renamed when complete: a kill half-way leaves nothing to trip over."""
        password = secrets.token_urlsafe(24)
        password_file = self._root / "postgres.password"
        half_made = self._root / "postgres.new"
        shutil.rmtree(half_made, ignore_errors=True)
        assert self._owner is not None
        engine.make_private(half_made, mode=0o700, owner=self._owner)
        engine.write_private(password_file, password, owner=self._owner)
        await self._run(
            "initdb",
            *("-D", str(half_made), "-U", USER, "--pwfile", str(password_file), "-E", "UTF8"),
            *("--locale=C", "--auth=scram-sha-256", "--no-instructions"),
        )
        half_made.rename(self._cluster)

    async def _spawn(self, deadline: float) -> None:
        assert self._owner is not None
        socket_dir = socket_folder(self._root, self._owner)
        settings = SETTINGS | {"shared_buffers": f"{shared_buffers_mb()}MB"}
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with engine.open_log(self._root / "postgres.log") as output:
            logged_bytes = os.fstat(output.fileno()).st_size
            self._process = await asyncio.create_subprocess_exec(
                str(self._binaries / "postgres"),
                *("-D", str(self._cluster), f"-cunix_socket_directories={socket_dir}"),
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                preexec_fn=self._owner.becoming(then=_die_with_parent()),
            )
        await self._watch_for_our_death()
        self.url = self._url(socket_dir)
        while not await self._answers():
            if self._process.returncode is not None:
                raise Unavailable(
                    "The embedded PostgreSQL did not start.",
                    details=log_reasons(self._root / "postgres.log", logged_bytes),
                )
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"The embedded PostgreSQL was not ready in {START_TIMEOUT_SECONDS:.0f} s."
                )
            await asyncio.sleep(0.05)

    async def _watch_for_our_death(self) -> None:
        """Where the kernel offers no parent-death signal, a process that waits for our pipe to close."""
        if sys.platform == "linux":
            return
        assert self._process is not None
        self._watchdog = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watchbill.store.postgres.watchdog", str(self._process.pid)),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    async def _supervise(self) -> None:
        retry_seconds = RETRY_SECONDS
        while True:
            if self._process is not None:
                await self._process.wait()
                log.error(
                    "the embedded PostgreSQL ended; starting it again",
                    status=self._process.returncode,
                )
            else:
                while engine.running_postmaster(self._cluster) is not None:
                    await asyncio.sleep(1.0)
                log.warning("the PostgreSQL that was running before ended; starting our own")
            self._process = None
            try:
                await self._start_or_adopt()
            except Unavailable as error:
                log.error(
                    "could not start the embedded PostgreSQL; trying again",
                    reason=error.message,
                    details=error.details,
                )
            except Exception as error:  # whatever it was, the next attempt may help
                log.error("could not start the embedded PostgreSQL; trying again", exc_info=error)
            else:
                retry_seconds = RETRY_SECONDS
                continue
            await asyncio.sleep(retry_seconds)
            retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)

    async def _answers(self) -> bool:
        """Ready, and our database is there."""
        try:
            connection = await asyncpg.connect(self._administration_url(), timeout=5.0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", USER):
                await connection.execute(f'CREATE DATABASE "{USER}"')
        finally:
            await connection.close()
        return True

    def _url(self, socket_dir: Path, database: str = USER) -> str:
        password = (self._root / "postgres.password").read_text()
        return (
            f"postgresql://{USER}:{quote(password, safe='')}@/{database}"
            f"?host={quote(str(socket_dir), safe='')}"
        )

    def _administration_url(self) -> str:
        return self.url.replace(f"@/{USER}?", "@/postgres?")

    async def _run(self, program: str, *arguments: str) -> None:
        assert self._owner is not None
        process = await asyncio.create_subprocess_exec(
            str(self._binaries / program),
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            preexec_fn=self._owner.becoming(),
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            lines = output.decode(errors="replace").strip().splitlines()
            reasons = [line for line in lines if "error: " in line or "hint: " in line] or lines
            raise Unavailable(f"{program} failed.", details="\n".join(reasons[-4:]))


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux: what the child runs, after its change of user, to be interrupted when we die."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_the_kernel() -> None:
        prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One starter at a time on a data directory, whatever process it is in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _recorded_socket_dir(cluster: Path) -> Path | None:
    """The fifth line of postmaster.pid is the socket folder of the postgres that wrote it."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _report_end(supervisor: asyncio.Task[None]) -> None:
    """It runs until it is cancelled: any other end would leave a killed PostgreSQL dead, in silence."""
    if not supervisor.cancelled():
        log.critical(
            "the embedded PostgreSQL is no longer watched", exc_info=supervisor.exception()
        )


_REASON = re.compile(r"\b(?:FATAL|PANIC|ERROR|HINT|DETAIL): ")
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \w+ \[\d+\] ")


def log_reasons(path: Path, since_byte: int = 0, count: int = 4) -> str:
    """Why PostgreSQL did not start: of what it has logged since, the lines that say so, else the last ones."""
    try:
        with path.open("rb") as file:
            file.seek(since_byte)
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"its log {path} cannot be read: {error.strerror}"
    lines = [_STAMP.sub("", line.strip()) for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if _REASON.search(line)] or lines
    return "\n".join(reasons[-count:]) or f"it has logged nothing, see {path}"
