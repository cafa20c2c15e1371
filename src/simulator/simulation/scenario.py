"""The course of events: one change at a time, drawn from the tables of lives, at a given rate.

Deterministic: the same seed, the same moments, the same changes. Its state can be kept and continued.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable

import msgspec

from simulator.apiserver.store import Store
from simulator.manifests.shared_objects import put_shared_objects
from simulator.model.hardware import build_nodes, total_gpus
from simulator.model.lifecycles import FOLLOWS
from simulator.model.model import Seconds, SimulatedWorkload
from simulator.model.scheduler import build_queues
from simulator.model.workload_factory import draw_kind, make_workload
from simulator.simulation.dispatcher import Dispatcher
from simulator.simulation.initial_state import begin_world
from simulator.simulation.transitions import EVENT_HAPPENINGS, STEPS
from simulator.simulation.world import World


class Kept(msgspec.Struct):
    """What it takes to go on: everything else is rendered or counted again."""

    seed: int
    prefix: str
    target: int
    changes: int
    built_at: Seconds
    node_counts: dict[str, int]
    name_counters: dict[str, int]
    workloads: list[SimulatedWorkload]


class Scenario:
    """One cluster's life. `step` makes one change; `live` makes `rate` of them a second until stopped."""

    def __init__(self, world: World, *, seed: int, prefix: str, target: int) -> None:
        self.world = world
        self._dispatcher = Dispatcher(world)
        self.changes = 0
        self._seed = seed
        self._prefix = prefix
        self._target = target

    @classmethod
    def begin(
        cls, store: Store, *, seed: int, prefix: str, workloads: int, now: Seconds
    ) -> "Scenario":
        world = begin_world(store, seed=seed, prefix=prefix, workloads=workloads, now=now)
        return cls(world, seed=seed, prefix=prefix, target=workloads)

    @classmethod
    def resume(cls, store: Store, kept: bytes, *, now: Seconds) -> "Scenario":
        """Go on from what `keep` gave; the store has been restored already."""
        state = msgspec.msgpack.decode(kept, type=Kept)
        nodes = build_nodes(state.node_counts, prefix=state.prefix)
        queues = build_queues(total_gpus(nodes.values()))
        rng = random.Random(f"{state.seed}/{state.changes}")
        world = World(store, nodes=nodes, queues=queues, rng=rng, built_at=state.built_at)
        world.names.counters = state.name_counters
        for workload in state.workloads:
            world.readopt(workload)
        put_shared_objects(store, nodes, queues, built_at=state.built_at)
        for workload in state.workloads:
            if workload.stage in FOLLOWS:
                world.later(workload, FOLLOWS[workload.stage][0], now + rng.uniform(0, 5))
        world.write_all()
        scenario = cls(world, seed=state.seed, prefix=state.prefix, target=state.target)
        scenario.changes = state.changes
        return scenario

    def keep(self) -> bytes:
        counts: dict[str, int] = {}
        for node in self.world.nodes.values():
            counts[node.pool.name] = counts.get(node.pool.name, 0) + 1
        return msgspec.msgpack.encode(
            Kept(
                seed=self._seed,
                prefix=self._prefix,
                target=self._target,
                changes=self.changes,
                built_at=self.world.built_at,
                node_counts=counts,
                name_counters=self.world.names.counters,
                workloads=list(self.world.workloads.values()),
            )
        )

    def step(self, now: Seconds) -> None:
        """One change: what is due first, then a birth where one is missing, else whatever befalls."""
        self.changes += 1
        if not self._follow(now):
            if self._count_live() < self._target:
                self._bear(now)
            else:
                self._befall(now)
        self._dispatcher.schedule(now)

    async def live(
        self, rate: float, stop: asyncio.Event, *, clock: Callable[[], Seconds] = time.time
    ) -> None:
        """Make `rate` changes a second (0 = none); after a pause no lost time is made up for."""
        if rate <= 0:
            await stop.wait()
            return
        pause = 1 / rate
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                self.step(clock())

    def _count_live(self) -> int:
        return len(self.world.workloads) - self.world.census.count("deleting")

    def _follow(self, now: Seconds) -> bool:
        agenda = self.world.agenda
        while agenda and agenda[0][0] <= now:
            _, _, uid, step = heapq.heappop(agenda)
            workload = self.world.workloads.get(uid)
            stages, happening = STEPS[step]
            if workload is None or workload.stage not in stages:
                continue
            happening(self.world, workload, now)
            self.world.sync_if_there(workload)
            return True
        return False

    def _bear(self, now: Seconds) -> None:
        world = self.world
        framework = draw_kind(world.rng, world.census.kinds())
        workload = make_workload(world.rng, world.names, framework, created_at=now)
        world.workloads[workload.uid] = workload
        if workload.kind == "Pod":
            world.make_pods(workload, now)
            world.enter(workload, "pending", now)
        else:
            world.enter(workload, "creating", now)
        world.sync(workload)

    def _befall(self, now: Seconds) -> None:
        drawn = self.world.census.draw(self.world.rng)
        if drawn is None:
            return
        name, uid = drawn
        workload = self.world.workloads[uid]
        EVENT_HAPPENINGS[name](self.world, workload, now)
        self.world.sync_if_there(workload)
