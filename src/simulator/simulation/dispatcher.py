"""Rounds of scheduling: who waits gets a place or a reason, and now and then somebody is evicted for it.

Both are also written as Events (core/v1), of which the oldest go, as after an hour in a real cluster.
"""

import itertools
from collections import deque
from typing import Final

from simulator.apiserver.store import Store
from simulator.manifests.objects import stamp
from simulator.manifests.shared_objects import put_queues
from simulator.model.model import Refusal, Seconds, SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import DEFAULT, KAI, PRIORITIES
from simulator.resources import EVENTS
from simulator.simulation.world import World

_KEPT: Final = 400
_KINDS: Final = {
    "Scheduled": ("Scheduled", "Normal", "Successfully assigned {namespace}/{pod} to {node}"),
    "Unschedulable": ("Unschedulable", "Warning", "{message}"),
    "Evict": ("Evict", "Normal", "Moved away for a workload that comes first"),
}
_PLAIN_REASONS: Final = {"Unschedulable": "FailedScheduling"}
"""What the standard scheduler calls it."""


class EventRecorder:
    """The last few hundred events of one cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(store.revision)
        table = store.table(EVENTS.group, EVENTS.plural)
        paths = table.objects if table is not None else ()
        self._kept = deque(path.partition("/")[::2] for path in paths)

    def record(
        self,
        event: str,
        workload: SimulatedWorkload,
        pod: SimulatedPod,
        now: Seconds,
        message: str = "",
    ) -> None:
        reason, kind, text = _KINDS[event]
        if workload.scheduler == DEFAULT:
            reason = _PLAIN_REASONS.get(event, reason)
        number = next(self._numbers)
        name = f"{pod.name}.{number:016x}"
        document = {
            "metadata": {
                "name": name,
                "namespace": workload.namespace,
                "uid": f"{pod.uid[:-12]}{number:012x}",
                "creationTimestamp": stamp(now),
            },
            "involvedObject": {
                "kind": "Pod",
                "namespace": workload.namespace,
                "name": pod.name,
                "uid": pod.uid,
                "apiVersion": "v1",
            },
            "reason": reason,
            "message": text.format(
                namespace=workload.namespace, pod=pod.name, node=pod.node, message=message
            ),
            "source": {"component": workload.scheduler},
            "firstTimestamp": stamp(now),
            "lastTimestamp": stamp(now),
            "count": 1,
            "type": kind,
            "reportingComponent": workload.scheduler,
        }
        self._store.put(EVENTS, document)
        self._kept.append((workload.namespace, name))
        if len(self._kept) > _KEPT:
            self._store.delete(EVENTS, *self._kept.popleft())


_ROUND_SIZE: Final = 60
"""Waiting workloads that one round looks at."""
_EVICTION_CHANCE: Final = 0.05
_MINIMUM_RUNTIME: Final = 90.0
"""Seconds for which nothing is evicted after its start."""
_VICTIMS: Final = 6


class Dispatcher:
    """Applies the scheduler's decisions to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events = EventRecorder(world.store)

    def schedule(self, now: Seconds, *, is_full: bool = False) -> None:
        """Place event fits, the highest priority first; keep the reasons of event waits true.

        Of many only some are tried, unless `is_full`.
        """
        world = self._world
        if not world.needs_scheduling:
            return
        world.needs_scheduling = False
        for uid in list(world.unscheduled):
            if all(pod.node for pod in world.workloads[uid].present_pods()):
                del world.unscheduled[uid]
        candidates = self._candidates(is_full=is_full)
        placed = [self._try_to_place(workload, now) for workload in candidates]
        if any(placed):
            # What was placed last may be why those before it wait now.
            for workload in candidates:
                self._try_to_place(workload, now)
        if not world.is_building:
            put_queues(world.store, world.scheduler.queues.values(), built_at=world.built_at)

    def _candidates(self, *, is_full: bool) -> list[SimulatedWorkload]:
        waiting = [self._world.workloads[uid] for uid in self._world.unscheduled]
        waiting.sort(key=lambda w: (-PRIORITIES[w.priority_class], w.created_at, w.uid))
        if is_full or len(waiting) <= _ROUND_SIZE:
            return waiting
        half = _ROUND_SIZE // 2
        return waiting[:half] + self._world.rng.sample(waiting[half:], half)

    def _try_to_place(self, workload: SimulatedWorkload, now: Seconds) -> bool:
        """True where something was placed."""
        gangs: dict[str, list[SimulatedPod]] = {}
        for pod in workload.present_pods():
            if not pod.node:
                gangs.setdefault(pod.gang, []).append(pod)
        has_changed = has_placed = False
        for name, gang in gangs.items():
            result = self._world.scheduler.place(workload, gang)
            if isinstance(result, Refusal):
                has_changed |= self._record_refusal(workload, name, gang, result, now)
            else:
                has_changed = has_placed = True
                self._world.bind(workload, name, gang, now)
                self._record("Scheduled", workload, gang[0], now)
        if has_changed:
            self._update_stage(workload, now)
            self._world.sync(workload)
        return has_placed

    def _record_refusal(
        self,
        workload: SimulatedWorkload,
        name: str,
        gang: list[SimulatedPod],
        refusal: Refusal,
        now: Seconds,
    ) -> bool:
        """Like the scheduler, report it anew only when the message differs."""
        if refusal.reason == "NotEnoughResources" and not self._world.is_building:
            self._preempt(workload, gang, now)
        before = workload.refusals.get(name)
        new = [pod for pod in gang if not pod.refused_at]
        for pod in new:
            pod.refused_at = now
        if before is not None and before.message == refusal.message:
            return bool(new)
        workload.refusals[name] = refusal
        self._record("Unschedulable", workload, gang[0], now, refusal.message)
        return True

    def _update_stage(self, workload: SimulatedWorkload, now: Seconds) -> None:
        is_complete = all(pod.node for pod in workload.present_pods())
        if is_complete:
            self._world.unscheduled.pop(workload.uid, None)
        if workload.stage == "pending" and is_complete:
            self._world.enter_stage(workload, "starting", now)
        elif any(pod.stage == "bound" for pod in workload.pods):
            self._world.schedule_step(
                workload, "become_ready", now + self._world.rng.uniform(3.0, 15.0)
            )

    def _preempt(self, workload: SimulatedWorkload, gang: list[SimulatedPod], now: Seconds) -> None:
        """Evict one preemptible workload if that alone lets the gang in."""
        if workload.scheduler != KAI or self._world.rng.random() > _EVICTION_CHANCE:
            return
        candidates = [
            other
            for other in self._world.workloads.values()
            if other.pool == workload.pool
            and other.stage == "running"
            and now - max(other.placements.values(), default=now) >= _MINIMUM_RUNTIME
            and self._world.scheduler.may_evict(workload, other)
        ]
        candidates.sort(key=lambda w: (PRIORITIES[w.priority_class], -w.created_at, w.uid))
        for victim in candidates[:_VICTIMS]:
            if self._would_help(workload, gang, victim):
                self.evict(victim, now)
                return

    def _would_help(
        self, workload: SimulatedWorkload, gang: list[SimulatedPod], victim: SimulatedWorkload
    ) -> bool:
        held = [pod for pod in victim.pods if pod.holds_resources]
        for pod in held:
            self._world.scheduler.release(victim, pod)
        helps = self._world.scheduler.explain(workload, gang) is None
        for pod in held:
            self._world.scheduler.reallocate(victim, pod)
        return helps

    def evict(self, victim: SimulatedWorkload, now: Seconds) -> None:
        """An eviction is a plain deletion of the pods; their owner makes new ones."""
        self._record("Evict", victim, victim.pods[0], now)
        self._world.mark_deleted(victim.pods, now)
        self._world.enter_stage(victim, "deleting" if victim.kind == "Pod" else "evicting", now)
        self._world.sync(victim)

    def _record(
        self,
        event: str,
        workload: SimulatedWorkload,
        pod: SimulatedPod,
        now: Seconds,
        message: str = "",
    ) -> None:
        if not self._world.is_building:
            self._events.record(event, workload, pod, now, message)
