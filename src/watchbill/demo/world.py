"""The simulated cluster as it lives: workloads, machines and queues, and the moves that keep them true.

It owns the state and writes it to the store after every move. Which move comes next is `scenario`'s affair;
what befalls a workload stands in `happenings`.
"""

import heapq
import itertools
import random
import uuid
from collections.abc import Iterable
from typing import Final

from watchbill.demo.anatomy import Slot, random_ending, slot_of, slots
from watchbill.demo.birth import Names
from watchbill.demo.census import Census
from watchbill.demo.furniture import drop_reservation, put_queues, put_reservation
from watchbill.demo.hardware import Node
from watchbill.demo.lives import FOLLOWS
from watchbill.demo.model import Pod, Refusal, Seconds, Workload
from watchbill.demo.render import Rendered, render
from watchbill.demo.resources import Resource
from watchbill.demo.scheduler import KAI, PRIORITIES, Queue, Scheduler
from watchbill.demo.store import Store, path_of

_CYCLE: Final = 60
"""Waiting workloads that one round of scheduling looks at."""
_EVICTION_CHANCE: Final = 0.05
_MINIMUM_RUNTIME: Final = 90.0
"""Seconds for which nothing is evicted after its start."""
_VICTIMS: Final = 6

_Key = tuple[Resource, str, str]
"""Kind, path and uid of one written object."""


class World:
    """One cluster. Every method that takes `now` may change state; `sync` makes the store say so."""

    def __init__(
        self,
        store: Store,
        *,
        nodes: dict[str, Node],
        queues: dict[str, Queue],
        rng: random.Random,
        built_at: Seconds,
    ) -> None:
        self.store = store
        self.rng = rng
        self.names = Names()
        self.built_at = built_at
        self.scheduler = Scheduler(nodes, queues)
        self.workloads: dict[str, Workload] = {}
        self.census = Census()
        self.agenda: list[tuple[Seconds, int, str, str]] = []
        self.is_quiet = False
        """While a world is being built nothing is written step by step."""
        self._order = itertools.count()
        self._written: dict[str, dict[_Key, None]] = {}
        self._waiting: dict[str, None] = {}
        self._is_stale = False

    @property
    def nodes(self) -> dict[str, Node]:
        return self.scheduler.nodes

    # State

    def readopt(self, workload: Workload) -> None:
        """Take in a workload of an earlier life of the program, with all that it holds."""
        self.workloads[workload.uid] = workload
        self.census.settle(workload)
        for pod in workload.pods:
            if pod.holds_resources:
                self.scheduler.retake(workload, pod)
        if any(not pod.node for pod in workload.present_pods()):
            self._waiting[workload.uid] = None
            self._is_stale = True
        self._written[workload.uid] = self._keys(render(workload, self.nodes))

    def enter(self, workload: Workload, stage: str, now: Seconds) -> None:
        """Change stage; what follows by itself is put on the agenda."""
        workload.stage = stage
        workload.since = now
        self.census.settle(workload)
        if stage in FOLLOWS:
            step, least, most = FOLLOWS[stage]
            self.later(workload, step, now + self.rng.uniform(least, most))

    def later(self, workload: Workload, step: str, due: Seconds) -> None:
        heapq.heappush(self.agenda, (due, next(self._order), workload.uid, step))

    def forget(self, workload: Workload) -> None:
        """The workload is gone for good."""
        workload.stage = "gone"
        workload.is_root_gone = True
        self.drop(workload, list(workload.pods))
        self.census.settle(workload)
        self.sync(workload)
        del self.workloads[workload.uid]
        self._written.pop(workload.uid, None)
        self._waiting.pop(workload.uid, None)

    # Pods

    def make_pods(self, workload: Workload, now: Seconds) -> None:
        """Fill the slots that have no pod."""
        taken = {slot_of(pod) for pod in workload.pods}
        for slot in slots(workload):
            if slot.key not in taken:
                workload.pods.append(self._new_pod(workload, slot, now))
                if slot.owner:
                    workload.children.setdefault(slot.owner, now)
        if any(not pod.node for pod in workload.present_pods()):
            self._waiting[workload.uid] = None
            self._is_stale = True

    def _new_pod(self, workload: Workload, slot: Slot, now: Seconds) -> Pod:
        ending = "" if slot.is_name_whole else random_ending(self.rng.getrandbits(32))
        is_root = workload.kind == "Pod"
        number = self.rng.getrandbits(128)
        return Pod(
            name=slot.prefix + ending,
            uid=workload.uid if is_root else str(uuid.UUID(int=number, version=4)),
            role=slot.role,
            index=slot.index,
            owner=slot.owner,
            gang=slot.gang,
            created_at=workload.created_at if is_root else now,
            revision=workload.revision,
            since=now,
        )

    def doom(self, pods: Iterable[Pod], now: Seconds) -> None:
        """Pods get their deletion timestamp; they go when `drop` takes them."""
        for pod in pods:
            pod.deleted_at = pod.deleted_at or now

    def drop(self, workload: Workload, pods: Iterable[Pod]) -> None:
        """Pods are gone; what they held is free."""
        for pod in list(pods):
            self.free(workload, pod)
            workload.pods.remove(pod)

    def free(self, workload: Workload, pod: Pod) -> None:
        """Give back what the pod holds; call before it counts as over."""
        if not pod.holds_resources:
            return
        self.scheduler.release(workload, pod)
        self._is_stale = True
        if pod.gpu_group:
            drop_reservation(self.store, self.nodes[pod.node], pod.gpu_group)

    def finish(
        self, workload: Workload, pods: Iterable[Pod], stage: str, now: Seconds, reason: str = ""
    ) -> None:
        """Pods end as succeeded or failed; those that never started just go."""
        for pod in list(pods):
            if pod.is_over:
                continue
            if not pod.started_at:
                self.drop(workload, [pod])
                continue
            self.free(workload, pod)
            pod.stage, pod.since, pod.finished_at, pod.reason = stage, now, now, reason

    def start(self, workload: Workload, now: Seconds) -> None:
        """Containers of placed pods come up."""
        for pod in workload.present_pods():
            if pod.stage in ("bound", "stuck"):
                pod.stage, pod.since = "running", now
                pod.started_at = pod.ready_at = now
        if not workload.first_ready_at:
            workload.first_ready_at = now

    # Scheduling

    def schedule(self, now: Seconds) -> None:
        """Place what fits, most important first; keep the reasons of what waits true."""
        if not self._is_stale:
            return
        self._is_stale = False
        for uid in list(self._waiting):
            workload = self.workloads[uid]
            if all(pod.node for pod in workload.present_pods()):
                del self._waiting[uid]
        for workload in self._round():
            self._attempt(workload, now)
        if not self.is_quiet:
            put_queues(self.store, self.scheduler.queues.values(), built_at=self.built_at)

    def _round(self) -> list[Workload]:
        waiting = [self.workloads[uid] for uid in self._waiting]
        waiting.sort(key=lambda w: (-PRIORITIES[w.priority_class], w.created_at, w.uid))
        if len(waiting) <= _CYCLE:
            return waiting
        half = _CYCLE // 2
        return waiting[:half] + self.rng.sample(waiting[half:], half)

    def _attempt(self, workload: Workload, now: Seconds) -> None:
        gangs: dict[str, list[Pod]] = {}
        for pod in workload.present_pods():
            if not pod.node:
                gangs.setdefault(pod.gang, []).append(pod)
        has_changed = False
        for name, gang in gangs.items():
            result = self.scheduler.place(workload, gang)
            if isinstance(result, Refusal):
                has_changed |= self._refuse(workload, name, gang, result, now)
            else:
                has_changed = True
                self.bind(workload, name, gang, now)
        if not has_changed:
            return
        self._settle_waiting(workload, now)
        self.sync(workload)

    def _refuse(
        self, workload: Workload, name: str, gang: list[Pod], refusal: Refusal, now: Seconds
    ) -> bool:
        """Like the scheduler, say it anew only when the message differs."""
        if refusal.reason == "NotEnoughResources" and not self.is_quiet:
            self._make_room(workload, gang, now)
        before = workload.refusals.get(name)
        is_fresh = [pod for pod in gang if not pod.refused_at]
        for pod in is_fresh:
            pod.refused_at = now
        if before is not None and before.message == refusal.message:
            return bool(is_fresh)
        workload.refusals[name] = refusal
        return True

    def bind(self, workload: Workload, name: str, gang: list[Pod], now: Seconds) -> None:
        workload.refusals.pop(name, None)
        workload.placements[name] = now
        for pod in gang:
            pod.stage, pod.since, pod.scheduled_at = "bound", now, now
            if pod.gpu_group:
                put_reservation(self.store, self.nodes[pod.node], pod)

    def stop_waiting(self, workload: Workload) -> None:
        self._waiting.pop(workload.uid, None)

    def _settle_waiting(self, workload: Workload, now: Seconds) -> None:
        is_complete = all(pod.node for pod in workload.present_pods())
        if is_complete:
            self._waiting.pop(workload.uid, None)
        if workload.stage == "pending" and is_complete:
            self.enter(workload, "starting", now)
        elif any(pod.stage == "bound" for pod in workload.pods):
            self.later(workload, "become_ready", now + self.rng.uniform(3.0, 15.0))

    def _make_room(self, workload: Workload, gang: list[Pod], now: Seconds) -> None:
        """Evict one preemptible workload if that alone lets the gang in."""
        if workload.scheduler != KAI or self.rng.random() > _EVICTION_CHANCE:
            return
        candidates = [
            other
            for other in self.workloads.values()
            if other.pool == workload.pool
            and other.stage == "running"
            and now - max(other.placements.values(), default=now) >= _MINIMUM_RUNTIME
            and self.scheduler.may_evict(workload, other)
        ]
        candidates.sort(key=lambda w: (PRIORITIES[w.priority_class], -w.created_at, w.uid))
        for victim in candidates[:_VICTIMS]:
            if self._would_help(workload, gang, victim):
                self.evict(victim, now)
                return

    def _would_help(self, workload: Workload, gang: list[Pod], victim: Workload) -> bool:
        held = [pod for pod in victim.pods if pod.holds_resources]
        for pod in held:
            self.scheduler.release(victim, pod)
        helps = self.scheduler.explain(workload, gang) is None
        for pod in held:
            self.scheduler.retake(victim, pod)
        return helps

    def evict(self, victim: Workload, now: Seconds) -> None:
        """An eviction is a plain deletion of the pods; their owner makes new ones."""
        self.doom(victim.pods, now)
        self.enter(victim, "deleting" if victim.kind == "Pod" else "evicting", now)
        self.sync(victim)

    # Writing

    def sync(self, workload: Workload) -> None:
        """Make the store hold exactly what the workload consists of now."""
        if self.is_quiet:
            return
        rendered = [] if workload.stage == "gone" else render(workload, self.nodes)
        wanted = self._keys(rendered)
        for resource, path, uid in self._written.get(workload.uid, ()):
            if (resource, path, uid) not in wanted:
                namespace, _, name = path.rpartition("/")
                self.store.delete(resource, namespace or None, name)
        for resource, document in rendered:
            self.store.put(resource, document)
        self._written[workload.uid] = wanted

    def sync_if_there(self, workload: Workload) -> None:
        if workload.stage != "gone":
            self.sync(workload)

    def write_all(self) -> None:
        """Write every workload, after a quiet time."""
        for workload in self.workloads.values():
            self.sync(workload)
        put_queues(self.store, self.scheduler.queues.values(), built_at=self.built_at)

    @staticmethod
    def _keys(rendered: Rendered) -> dict[_Key, None]:
        keys: dict[_Key, None] = {}
        for resource, document in rendered:
            head = document["metadata"]
            path = path_of(resource, head.get("namespace"), head["name"])
            keys[resource, path, head["uid"]] = None
        return keys
