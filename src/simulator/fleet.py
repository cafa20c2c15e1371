"""A process of the demo: simulated clusters and their agents. Run as `python -m simulator.fleet`.

Its parent sends, in lines of JSON on standard input, first what to build and then where to report; it
answers in lines of JSON on standard output. It ends with its parent, even when that is killed: on Linux the
kernel signals it, and everywhere the end of its standard input does.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
import uvloop

from simulator.apiserver.protocol import SimulatedCluster
from simulator.past.recording import record_histories, record_samples
from simulator.simulation.exporters import Exporters
from simulator.simulation.scenario import Scenario
from watchbill.agent.run import cluster_of, run_agent
from watchbill.errors import WatchbillError
from watchbill.files import write_private
from watchbill.settings.agent import AgentSettings
from watchbill.store.postgres.database import Database

EXIT_GRACE_SECONDS: Final = 1.5
"""How long the child may take to end by itself once the parent is gone."""
_PR_SET_PDEATHSIG: Final = 1
_STDIN: Final = 0
SAVE_SECONDS = 3.0
"""How often the state is kept, at least; a large one less often."""
SAVE_SHARE = 0.03
"""Most of the time that keeping the state may take."""
COMPACT_SECONDS = 300.0
"""How often history older than this is forgotten, as an API server does with etcd's."""
SCRAPE_SECONDS = 60.0
"""Half as often as usual: asking 300 exporters and kubelets is half of what a demo does while nobody looks."""
IDLE_WINDOW_SECONDS = 10.0
"""Nobody who looks at a demo waits the usual five minutes for the first idle GPU: the second scrape tells."""
_WRITE_SECONDS = 60.0


log = structlog.get_logger(__name__)


class ClusterPlan(msgspec.Struct, frozen=True):
    """`state` None = nothing is kept."""

    name: str
    seed: int
    workloads: int
    rate: float
    folder: str
    is_kept: bool


class Plan(msgspec.Struct, frozen=True):
    clusters: tuple[ClusterPlan, ...]


class ReportTarget(msgspec.Struct, frozen=True, tag="target"):
    """Where to report, with the agents' credentials by cluster name; the past goes straight to the database."""

    server_url: str
    credentials: dict[str, str]
    database_url: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The last message: end in good order."""


class FleetReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child reports, of each cluster in this order: `built` (with the number of workloads),
    `remembered` and `measured`: its past, and what exporters measured in it, are written. Of all: `failed`
    (with the reason)."""

    event: str
    cluster: str = ""
    workloads: int = 0
    message: str = ""


class SavedState(msgspec.Struct, frozen=True):
    store: bytes
    scenario: bytes


class FleetCluster:
    """One simulated cluster, its scenario and its agent."""

    def __init__(self, plan: ClusterPlan) -> None:
        self.plan = plan
        self._folder = Path(plan.folder)
        self._cluster = SimulatedCluster(seed=plan.seed)
        self._scenario: Scenario | None = None
        self._saved_changes = -1
        self.is_new = False
        """It was made at this start."""
        self._has_past = False
        """A world whose past is not recorded to its end is made anew at the next start, past and all."""

    async def build(self) -> int:
        """Make the world or go on with the kept one; serve it. Returns its number of workloads."""
        store, now = self._cluster.store, time.time()
        if self._state.is_file():
            state = msgspec.msgpack.decode(self._state.read_bytes(), type=SavedState)
            store.restore(state.store)
            self._scenario = Scenario.resume(store, state.scenario, now=now)
        else:
            self.is_new = True
            self._scenario = Scenario.create(
                store,
                seed=self.plan.seed,
                prefix=self.plan.name,
                workloads=self.plan.workloads,
                now=now,
            )
        self._cluster.exporters = Exporters(self._scenario.world)
        await self._cluster.start()
        return self._scenario.world.count_visible()

    async def live(self, target: ReportTarget, db: Database, stop: asyncio.Event) -> None:
        """Record the past, then run the scenario and its agent until `stop` is set."""
        assert self._scenario is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        recorded = 0
        if self.is_new:
            recorded = await record_histories(
                db,
                self._scenario.world,
                cluster_of(target.credentials[self.plan.name]),
                seed=self.plan.seed,
                idle_window=timedelta(seconds=IDLE_WINDOW_SECONDS),
                now=time.time(),
            )
        self._has_past = True
        _report(FleetReport("remembered", self.plan.name, recorded))
        settings = AgentSettings(
            server_url=target.server_url,
            credential=target.credentials[self.plan.name],
            kubeconfig=self._cluster.kubeconfig(self._folder / f"{self.plan.name}.kubeconfig"),
            scrape_seconds=SCRAPE_SECONDS,
            idle_window_seconds=IDLE_WINDOW_SECONDS,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_agent(settings, stop=stop))
            tasks.create_task(self._scenario.run(self.plan.rate, stop))
            tasks.create_task(self._compact_often(stop))
            tasks.create_task(self._record_samples(db, stop))
            if self.plan.is_kept:
                tasks.create_task(self._save_often(stop))

    async def close(self) -> None:
        if self.plan.is_kept and self._has_past:
            self.save()
        await self._cluster.stop()

    def save(self) -> None:
        """Write the state, at once or not at all."""
        assert self._scenario is not None
        if self._scenario.changes == self._saved_changes:
            return
        state = SavedState(store=self._cluster.store.dump(), scenario=self._scenario.dump())
        write_private(self._state, msgspec.msgpack.encode(state))
        self._saved_changes = self._scenario.changes

    async def _record_samples(self, db: Database, stop: asyncio.Event) -> None:
        assert self._scenario is not None
        if self.is_new:
            await record_samples(db, self._scenario.world, now=time.time(), stop=stop)
        _report(FleetReport("measured", self.plan.name))

    async def _save_often(self, stop: asyncio.Event) -> None:
        pause = 0.0
        while not stop.is_set():
            began = time.perf_counter()
            try:
                self.save()
            except WatchbillError as error:  # such as a full disk, which may have room again
                log.warning("the simulated cluster was not kept", reason=_reason(error))
            pause = max(SAVE_SECONDS, (time.perf_counter() - began) / SAVE_SHARE)
            await _wait(stop, pause)

    async def _compact_often(self, stop: asyncio.Event) -> None:
        store = self._cluster.store
        while not stop.is_set():
            revision = store.revision
            await _wait(stop, COMPACT_SECONDS)
            store.compact(revision)

    @property
    def _state(self) -> Path:
        return self._folder / f"{self.plan.name}.state"


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Until it is time or `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def main() -> int:
    """The whole life of the process; returns its exit code."""
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    exit_with_parent(asyncio.get_running_loop(), lines.put_nowait)
    plan = await lines.get()
    if plan is None:
        return 0
    fleet = [FleetCluster(cluster) for cluster in msgspec.json.decode(plan, type=Plan).clusters]
    try:
        for cluster in fleet:
            _report(FleetReport("built", cluster.plan.name, await cluster.build()))
        line = await lines.get()
        target = None if line is None else msgspec.json.decode(line, type=ReportTarget | Stop)
        if isinstance(target, ReportTarget):
            await _live(fleet, target, lines)
    except (WatchbillError, OSError) as error:
        _report(FleetReport("failed", message=_reason(error)))
        return 1
    finally:
        await _close(fleet)
    return 0


async def _close(fleet: list[FleetCluster]) -> None:
    """A state that cannot be kept is logged; the next start makes a new world."""
    for cluster in fleet:
        try:
            await cluster.close()
        except WatchbillError as error:
            log.error("the simulated cluster is not kept", reason=_reason(error))


async def _live(
    fleet: list[FleetCluster], target: ReportTarget, lines: "asyncio.Queue[bytes | None]"
) -> None:
    """A third line stops in good order: agents sign off. After the parent's end they just stop."""
    stop = asyncio.Event()
    running = asyncio.create_task(_all(fleet, target, stop))
    reading = asyncio.create_task(lines.get())
    await asyncio.wait([running, reading], return_when=asyncio.FIRST_COMPLETED)
    if reading.done() and reading.result() is not None:
        stop.set()
        reading = asyncio.create_task(lines.get())
        await asyncio.wait([running, reading], return_when=asyncio.FIRST_COMPLETED)
    reading.cancel()
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


async def _all(fleet: list[FleetCluster], target: ReportTarget, stop: asyncio.Event) -> None:
    try:
        db = await Database.open(target.database_url, statement_timeout_seconds=_WRITE_SECONDS)
        try:
            async with asyncio.TaskGroup() as tasks:
                for cluster in fleet:
                    tasks.create_task(cluster.live(target, db, stop))
        finally:
            await db.close()
    except* (WatchbillError, OSError) as group:
        _report(FleetReport("failed", message=_reason(_first(group))))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or 'the demo cannot write'}"
    return f"{error} {getattr(error, 'details', None) or ''}".strip()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _report(report: FleetReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _log_to_stderr() -> None:
    """Standard output belongs to the parent."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def exit_with_parent(
    loop: asyncio.AbstractEventLoop, on_line: Callable[[bytes | None], None]
) -> None:
    """Call in the child: `on_line` gets every line of the parent, and None once it has gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        # The terminal tells the whole group; only the parent decides what it means.
        signal.signal(number, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, on_line, None)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_listen, args=(loop, on_line), daemon=True).start()


def _listen(loop: asyncio.AbstractEventLoop, on_line: Callable[[bytes | None], None]) -> None:
    # Read without a buffer: its lock, held in a read, would stop the interpreter from ending.
    rest = b""
    while piece := os.read(_STDIN, 65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(on_line, line)
    deadline = threading.Timer(EXIT_GRACE_SECONDS, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
    try:
        loop.call_soon_threadsafe(on_line, None)
    except RuntimeError:
        # The loop has ended already, and the process is about to.
        return


if __name__ == "__main__":
    _log_to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
