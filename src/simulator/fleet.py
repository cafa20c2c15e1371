"""The demo's second process: simulated clusters and their agents. Run as `python -m simulator.fleet`.

It is told by its parent, in lines of JSON on standard input, first what to build and then where to report; it
answers in lines of JSON on standard output. It ends when its parent does.
"""

import asyncio
import logging
import sys
import time
from pathlib import Path

import msgspec
import structlog
import uvloop

from simulator.apiserver.protocol import SimulatedCluster
from simulator.home import write_privately
from simulator.simulation.exporters import Exporters
from simulator.simulation.parent_watch import exit_with_parent
from simulator.simulation.scenario import Scenario
from watchbill.agent.run import run_agent
from watchbill.errors import WatchbillError
from watchbill.settings import AgentSettings

KEEP_SECONDS = 3.0
"""How often the state is kept, at least; a large one less often."""
KEEP_SHARE = 0.03
"""Most of the time that keeping the state may take."""
SCRAPE_SECONDS = 5.0
IDLE_WINDOW_SECONDS = 60.0
"""Nobody who looks at a demo waits the usual five minutes for the first idle GPU."""


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


class Orders(msgspec.Struct, frozen=True, tag="orders"):
    """Where to report, with the agents' credentials by cluster name."""

    server_url: str
    credentials: dict[str, str]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The last word: end in good order."""


class FleetReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child tells: `built` (with the number of workloads), `failed` (with the reason)."""

    event: str
    cluster: str = ""
    workloads: int = 0
    message: str = ""


class State(msgspec.Struct, frozen=True):
    store: bytes
    scenario: bytes


class FleetCluster:
    """One simulated cluster, its scenario and its agent."""

    def __init__(self, plan: ClusterPlan) -> None:
        self.plan = plan
        self._folder = Path(plan.folder)
        self._cluster = SimulatedCluster(seed=plan.seed)
        self._scenario: Scenario | None = None
        self._kept_changes = -1

    async def build(self) -> int:
        """Make the world or go on with the kept one; serve it. Returns its number of workloads."""
        store, now = self._cluster.store, time.time()
        if self._state.is_file():
            state = msgspec.msgpack.decode(self._state.read_bytes(), type=State)
            store.restore(state.store)
            self._scenario = Scenario.resume(store, state.scenario, now=now)
        else:
            self._scenario = Scenario.begin(
                store,
                seed=self.plan.seed,
                prefix=self.plan.name,
                workloads=self.plan.workloads,
                now=now,
            )
        self._cluster.exporters = Exporters(self._scenario.world)
        await self._cluster.start()
        return self._scenario.world.count_visible()

    async def live(self, orders: Orders, stop: asyncio.Event) -> None:
        """Let things happen and report them until told to stop."""
        assert self._scenario is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = AgentSettings(
            server_url=orders.server_url,
            credential=orders.credentials[self.plan.name],
            kubeconfig=self._cluster.kubeconfig(self._folder / f"{self.plan.name}.kubeconfig"),
            scrape_seconds=SCRAPE_SECONDS,
            idle_window_seconds=IDLE_WINDOW_SECONDS,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_agent(settings, stop=stop))
            tasks.create_task(self._scenario.live(self.plan.rate, stop))
            if self.plan.is_kept:
                tasks.create_task(self._keep_often(stop))

    async def close(self) -> None:
        if self.plan.is_kept and self._scenario is not None:
            self.keep()
        await self._cluster.stop()

    def keep(self) -> None:
        """Write the state, at once or not at all."""
        assert self._scenario is not None
        if self._scenario.changes == self._kept_changes:
            return
        state = State(store=self._cluster.store.dump(), scenario=self._scenario.keep())
        write_privately(self._state, msgspec.msgpack.encode(state))
        self._kept_changes = self._scenario.changes

    async def _keep_often(self, stop: asyncio.Event) -> None:
        pause = 0.0
        while not stop.is_set():
            began = time.perf_counter()
            self.keep()
            pause = max(KEEP_SECONDS, (time.perf_counter() - began) / KEEP_SHARE)
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue

    @property
    def _state(self) -> Path:
        return self._folder / f"{self.plan.name}.state"


async def main() -> int:
    """The whole life of the process; returns its exit code."""
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    exit_with_parent(asyncio.get_running_loop(), lines.put_nowait)
    plan = await lines.get()
    if plan is None:
        return 0
    fleet = [FleetCluster(found) for found in msgspec.json.decode(plan, type=Plan).clusters]
    try:
        for cluster in fleet:
            _tell(FleetReport("built", cluster.plan.name, await cluster.build()))
        word = await lines.get()
        orders = None if word is None else msgspec.json.decode(word, type=Orders | Stop)
        if isinstance(orders, Orders):
            await _live(fleet, orders, lines)
    finally:
        for cluster in fleet:
            await cluster.close()
    return 0


async def _live(
    fleet: list[FleetCluster], orders: Orders, lines: "asyncio.Queue[bytes | None]"
) -> None:
    """A third line is a friendly stop: agents say farewell. The parent's end is none: they just go."""
    stop = asyncio.Event()
    living = asyncio.create_task(_all(fleet, orders, stop))
    hearing = asyncio.create_task(lines.get())
    await asyncio.wait([living, hearing], return_when=asyncio.FIRST_COMPLETED)
    if hearing.done() and hearing.result() is not None:
        stop.set()
        hearing = asyncio.create_task(lines.get())
        await asyncio.wait([living, hearing], return_when=asyncio.FIRST_COMPLETED)
    hearing.cancel()
    living.cancel()
    await asyncio.wait([living])


async def _all(fleet: list[FleetCluster], orders: Orders, stop: asyncio.Event) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            for cluster in fleet:
                tasks.create_task(cluster.live(orders, stop))
    except* WatchbillError as group:
        error = _first(group)
        _tell(
            FleetReport(
                "failed", message=f"{error} {getattr(error, 'details', None) or ''}".strip()
            )
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _tell(news: FleetReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


def _log_to_stderr() -> None:
    """Standard output belongs to the parent."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    _log_to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
