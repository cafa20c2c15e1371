"""The course of events: one change at a time, drawn from the tables of lifecycles, at a given rate.

Deterministic: the same seed, the same moments, the same changes. Its state can be dump and continued.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from simulator.apiserver.store import Store
from simulator.manifests.shared_objects import put_shared_objects
from simulator.model.framework import Framework
from simulator.model.hardware import build_nodes, total_gpus
from simulator.model.lifecycles import NEXT_STEPS
from simulator.model.mixture import KINDS
from simulator.model.model import Seconds, SimulatedWorkload
from simulator.model.scheduler import build_queues
from simulator.model.workload_factory import draw_kind, make_workload
from simulator.simulation.dispatcher import Dispatcher
from simulator.simulation.initial_state import build_world
from simulator.simulation.transitions import EVENT_TRANSITIONS, STEPS
from simulator.simulation.world import World


class ScenarioState(msgspec.Struct):
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
    """One cluster's events. `step` makes one change; `run` makes `rate` of them a second until stopped."""

    def __init__(self, world: World, *, seed: int, prefix: str, target: int) -> None:
        self.world = world
        self._dispatcher = Dispatcher(world)
        self.changes = 0
        self._seed = seed
        self._prefix = prefix
        self._target = target

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        seed: int,
        prefix: str,
        workloads: int,
        now: Seconds,
        first: Sequence[Framework] = KINDS,
    ) -> "Scenario":
        """A mature cluster; its first workloads are one of each kind in `first`."""
        world = build_world(
            store, seed=seed, prefix=prefix, workloads=workloads, now=now, first=first
        )
        return cls(world, seed=seed, prefix=prefix, target=workloads)

    @classmethod
    def resume(cls, store: Store, dump: bytes, *, now: Seconds) -> "Scenario":
        """Go on from what `dump` gave; the store has been restored already."""
        state = msgspec.msgpack.decode(dump, type=ScenarioState)
        nodes = build_nodes(state.node_counts, prefix=state.prefix)
        queues = build_queues(total_gpus(nodes.values()))
        rng = random.Random(f"{state.seed}/{state.changes}")
        world = World(store, nodes=nodes, queues=queues, rng=rng, built_at=state.built_at)
        world.names.counters = state.name_counters
        for workload in state.workloads:
            world.restore(workload)
        put_shared_objects(store, nodes, queues, built_at=state.built_at)
        for workload in state.workloads:
            if workload.stage in NEXT_STEPS:
                world.schedule_step(
                    workload, NEXT_STEPS[workload.stage][0], now + rng.uniform(0, 5)
                )
        world.write_all()
        scenario = cls(world, seed=state.seed, prefix=state.prefix, target=state.target)
        scenario.changes = state.changes
        return scenario

    def dump(self) -> bytes:
        counts: dict[str, int] = {}
        for node in self.world.nodes.values():
            counts[node.pool.name] = counts.get(node.pool.name, 0) + 1
        return msgspec.msgpack.encode(
            ScenarioState(
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
        """One change: a step that is due, else a new workload where one is missing, else a random event."""
        self.changes += 1
        if not self._run_due_step(now):
            if self._count_live() < self._target:
                self._create_workload(now)
            else:
                self._apply_event(now)
        self._dispatcher.schedule(now)

    async def run(
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
        return len(self.world.workloads) - self.world.stages.count("deleting")

    def _run_due_step(self, now: Seconds) -> bool:
        steps = self.world.pending_steps
        while steps and steps[0][0] <= now:
            _, _, uid, step = heapq.heappop(steps)
            workload = self.world.workloads.get(uid)
            stages, transition = STEPS[step]
            if workload is None or workload.stage not in stages:
                continue
            transition(self.world, workload, now)
            self.world.sync_if_present(workload)
            return True
        return False

    def _create_workload(self, now: Seconds) -> None:
        world = self.world
        framework = draw_kind(world.rng, world.stages.kinds())
        workload = make_workload(world.rng, world.names, framework, created_at=now)
        world.workloads[workload.uid] = workload
        if workload.kind == "Pod":
            world.make_pods(workload, now)
            world.enter_stage(workload, "pending", now)
        else:
            world.enter_stage(workload, "creating", now)
        world.sync(workload)

    def _apply_event(self, now: Seconds) -> None:
        drawn = self.world.stages.draw_event(self.world.rng)
        if drawn is None:
            return
        name, uid = drawn
        workload = self.world.workloads[uid]
        EVENT_TRANSITIONS[name](self.world, workload, now)
        self.world.sync_if_present(workload)
