"""The course of events: the world at the start, then one change at a time, at a given rate.

At the start workloads have run for days, on machines that just hold them; what is drawn as running and does
not fit waits, for the true reason. Deterministic: the same seed, the same moments, the same changes. The
state can be dumped and continued.
"""

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from simulator.apiserver.store import Store
from simulator.manifests.shared_objects import put_shared_objects
from simulator.model.framework import FRAMEWORKS, Framework
from simulator.model.hardware import POOLS_BY_NAME, Node, build_nodes, count_nodes, total_gpus
from simulator.model.lifecycles import INITIAL_STAGES, NEXT_STEPS
from simulator.model.mixture import KINDS, NameGenerator, draw_kind, make_workload
from simulator.model.model import (
    DeviceGrant,
    Refusal,
    Seconds,
    Shape,
    SimulatedPod,
    SimulatedWorkload,
)
from simulator.model.pod_layout import is_kept, slots
from simulator.model.scheduler import build_queues
from simulator.simulation import transitions
from simulator.simulation.dispatcher import Dispatcher
from simulator.simulation.transitions import EVENT_TRANSITIONS, STEPS
from simulator.simulation.world import World

_DAY = 86400.0
_OLDEST = 9 * _DAY
_CAPACITY = {"h100": 0.9, "a100": 0.9, "l40s": 1.0, "mig": 1.1, "cpu": 1.4}
"""Part of what is requested in each pool that its machines can hold."""
_HOLDING = ("running", "degraded", "updating")


@dataclass(frozen=True, slots=True)
class _Draft:
    workload: SimulatedWorkload
    stage: str


def build_world(
    store: Store,
    *,
    seed: int,
    prefix: str,
    workloads: int,
    now: Seconds,
    first: Sequence[Framework] = KINDS,
) -> World:
    """A mature cluster of so many workloads; the first are one of each kind in `first`."""
    rng = random.Random(seed)
    names = NameGenerator()
    drafts: list[_Draft] = []
    present: Counter[str] = Counter()
    for number in range(workloads):
        framework = first[number] if number < len(first) else draw_kind(rng, present)
        present[framework.key] += 1
        drafts.append(_draft(rng, names, framework, now))
    nodes = build_nodes(count_nodes(_requested(drafts), capacity=_CAPACITY), prefix=prefix)
    built_at = float(int(now - 2 * _OLDEST))
    world = World(
        store,
        nodes=nodes,
        queues=build_queues(total_gpus(nodes.values())),
        rng=rng,
        built_at=built_at,
    )
    world.names = names
    put_shared_objects(store, nodes, world.scheduler.queues, built_at=built_at)
    world.is_building = True
    for draft in sorted(drafts, key=lambda draft: draft.workload.created_at):
        _live_until_now(world, draft, now)
    Dispatcher(world).schedule(now, is_full=True)
    world.is_building = False
    world.write_all()
    return world


def _draft(rng: random.Random, names: NameGenerator, framework: Framework, now: Seconds) -> _Draft:
    age = min(_OLDEST, rng.expovariate(1 / (1.2 * _DAY))) + 600
    workload = make_workload(rng, names, framework, created_at=float(int(now - age)))
    stages, weights = zip(*INITIAL_STAGES[workload.family], strict=True)
    (stage,) = rng.choices(stages, weights)
    if stage == "updating" and not framework.can_update:
        stage = "running"
    if stage == "stopped" and not framework.can_stop:
        stage = "running"
    return _Draft(workload, stage)


def _requested(drafts: Iterable[_Draft]) -> Iterable[tuple[str, Shape]]:
    for draft in drafts:
        if draft.stage not in _HOLDING:
            continue
        for slot in slots(draft.workload):
            shape = draft.workload.shape(slot.role)
            yield (draft.workload.pool if shape.wants_gpu else "cpu"), shape


def _live_until_now(world: World, draft: _Draft, now: Seconds) -> None:
    """Give the workload the state that it would have by now."""
    workload = draft.workload
    world.workloads[workload.uid] = workload
    if workload.family == "recurring":
        workload.runs = world.rng.randint(3, 40)
    stage = draft.stage
    has_deadline = FRAMEWORKS[workload.kind].has_deadline
    if stage == "failed" and workload.family == "serving" and not has_deadline:
        stage = "running"
    _STAGES[stage](world, workload, now)


def _run_pods(world: World, workload: SimulatedWorkload, now: Seconds) -> bool:
    """Give all pods their nodes, long ago; False where they have to wait instead."""
    rng, created_at = world.rng, workload.created_at
    made_at = created_at + rng.uniform(1, 4)
    transitions.make_pods(world, workload, made_at)
    gangs: dict[str, list[SimulatedPod]] = {}
    for pod in workload.pods:
        gangs.setdefault(pod.gang, []).append(pod)
    placed_at = made_at + min(rng.lognormvariate(4.0, 1.6), (now - created_at) * 0.4)
    ready_at = placed_at + rng.uniform(10, 120)
    for gang in gangs.values():
        if isinstance(world.scheduler.place(workload, gang), Refusal):
            _wait_instead(world, workload, now)
            return False
    for pod in workload.pods:
        world.bind(workload, pod.gang, [pod], placed_at)
        pod.stage, pod.since = "running", ready_at
        pod.started_at = ready_at - rng.uniform(2, 8)
        pod.ready_at = ready_at
    workload.first_ready_at = ready_at
    return True


def _wait_instead(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """It was created in the last hours and does not fit."""
    for pod in workload.pods:
        if pod.node:
            world.release(workload, pod)
            pod.node, pod.grant = "", DeviceGrant()
    workload.created_at = float(int(now - world.rng.uniform(60, 8 * 3600)))
    for key in workload.children:
        workload.children[key] = workload.created_at + 2
    for pod in workload.pods:
        is_root = workload.kind == "Pod"
        pod.created_at = workload.created_at if is_root else workload.created_at + 2
        pod.refused_at = workload.created_at + 4
        pod.since = pod.created_at
    world.enter_stage(workload, "pending", workload.created_at + 2)


def _running(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    if _run_pods(world, workload, now):
        world.enter_stage(workload, "running", workload.first_ready_at)


def _degraded(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    if _run_pods(world, workload, now):
        transitions.crash(world, workload, now - world.rng.uniform(30, 1800))


def _updating(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    if _run_pods(world, workload, now):
        transitions.update(world, workload, now)


def _stopped(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    workload.is_suspended = True
    workload.suspended_at = _between(world, workload.created_at, now)
    workload.first_ready_at = workload.created_at + 60
    for role in FRAMEWORKS[workload.kind].roles:
        if role.owner == "rs-{revision}":
            workload.children |= {"rs-1": workload.created_at + 2}
    world.enter_stage(workload, "stopped", workload.suspended_at)


def _idle(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """Between runs, or scaled to zero."""
    if workload.family == "recurring":
        runs = range(max(1, workload.runs - 2), workload.runs + 1)
        workload.children = {f"run-{run}": now - (workload.runs - run + 1) * 1800 for run in runs}
        workload.finished_at = workload.children[f"run-{workload.runs}"] + 300
        world.enter_stage(workload, "idle", workload.finished_at)
        return
    started_at = workload.created_at + 5
    for key in (*FRAMEWORKS[workload.kind].made_with_pods, "rs-1"):
        workload.children[key] = started_at
    workload.first_ready_at = started_at + 30
    world.enter_stage(workload, "idle", _between(world, workload.first_ready_at, now))


def _completed(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    _make_ended(world, workload, "succeeded", now)
    workload.pods = [pod for pod in workload.pods if is_kept(pod, workload)]
    world.enter_stage(workload, "completed", workload.finished_at + 1)


def _failed(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    if workload.family == "serving":
        if _run_pods(world, workload, now):
            workload.first_ready_at = 0.0
            for pod in workload.pods:
                pod.stage, pod.started_at, pod.ready_at = "stuck", 0.0, 0.0
            world.enter_stage(workload, "failed", workload.created_at + 700)
        return
    _make_ended(world, workload, "failed", now)
    failed = world.rng.choice(workload.pods)
    failed.reason = world.rng.choice(("Error", "OOMKilled", "Evicted"))
    workload.pods = [pod for pod in (failed,) if is_kept(pod, workload)]
    world.enter_stage(workload, "failed", workload.finished_at + 1)


def _make_ended(world: World, workload: SimulatedWorkload, stage: str, now: Seconds) -> None:
    """Pods that ran and are over; they hold nothing any more."""
    rng = world.rng
    started_at = workload.created_at + rng.uniform(30, 300)
    workload.finished_at = _between(world, started_at + 60, now)
    workload.first_ready_at = started_at
    transitions.make_pods(world, workload, workload.created_at + rng.uniform(1, 4))
    world.mark_scheduled(workload)
    for pod in workload.pods:
        pod.node = _any_node(world, workload, pod).name
        pod.scheduled_at = started_at - 20
        pod.started_at = pod.ready_at = started_at
        pod.stage, pod.since, pod.finished_at = stage, workload.finished_at, workload.finished_at


def _any_node(world: World, workload: SimulatedWorkload, pod: SimulatedPod) -> Node:
    pool = workload.pool if workload.shape(pod.role).wants_gpu else "cpu"
    assert pool in POOLS_BY_NAME
    return world.rng.choice(world.scheduler.nodes_of(pool))


def _between(world: World, first: Seconds, last: Seconds) -> Seconds:
    return float(int(world.rng.uniform(first, max(first, last))))


_STAGES = {
    "running": _running,
    "degraded": _degraded,
    "updating": _updating,
    "stopped": _stopped,
    "idle": _idle,
    "completed": _completed,
    "failed": _failed,
}


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
