"""The simulated cluster's state: workloads, machines and queues, and the changes that keep them consistent.

It writes the state to the store after every change. Which change comes next is up to `scenario`; the changes
themselves are in `transitions`.
"""

import heapq
import itertools
import random
import uuid
from collections.abc import Iterable

from simulator.apiserver.store import Store, path_of
from simulator.manifests.render import Rendered, render
from simulator.manifests.shared_objects import delete_reservation, put_queues, put_reservation
from simulator.model.hardware import Node
from simulator.model.lifecycles import NEXT_STEPS, StageIndex
from simulator.model.mixture import UNKNOWN, NameGenerator
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import Slot, random_ending, slot_of, slots
from simulator.model.scheduler import Queue, Scheduler
from simulator.resources import ResourceType

_Key = tuple[ResourceType, str, str]
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
        self.names = NameGenerator()
        self.built_at = built_at
        self.scheduler = Scheduler(nodes, queues)
        self.workloads: dict[str, SimulatedWorkload] = {}
        self.stages = StageIndex()
        self.pending_steps: list[tuple[Seconds, int, str, str]] = []
        self.is_building = False
        """While a world is being built nothing is written step by step."""
        self._order = itertools.count()
        self._written: dict[str, dict[_Key, None]] = {}
        self.unscheduled: dict[str, None] = {}
        """Workloads with pods that have no node."""
        self.needs_scheduling = False
        """Something was freed or has come to wait since the last round of scheduling."""

    @property
    def nodes(self) -> dict[str, Node]:
        return self.scheduler.nodes

    # State

    def restore(self, workload: SimulatedWorkload) -> None:
        """Take in a workload of an earlier life of the program, with all that it holds."""
        self.workloads[workload.uid] = workload
        self.stages.update(workload)
        for pod in workload.pods:
            if pod.holds_resources:
                self.scheduler.reallocate(workload, pod)
        if any(not pod.node for pod in workload.present_pods()):
            self.unscheduled[workload.uid] = None
            self.needs_scheduling = True
        self._written[workload.uid] = self._keys(render(workload, self.nodes))

    def enter_stage(self, workload: SimulatedWorkload, stage: str, now: Seconds) -> None:
        """Change stage; what follows by itself is put on the agenda."""
        workload.stage = stage
        workload.since = now
        self.stages.update(workload)
        if stage in NEXT_STEPS:
            step, least, most = NEXT_STEPS[stage]
            self.schedule_step(workload, step, now + self.rng.uniform(least, most))

    def schedule_step(self, workload: SimulatedWorkload, step: str, due: Seconds) -> None:
        heapq.heappush(self.pending_steps, (due, next(self._order), workload.uid, step))

    def remove(self, workload: SimulatedWorkload) -> None:
        """The workload is gone for good."""
        workload.stage = "gone"
        workload.is_root_gone = True
        self.remove_pods(workload, list(workload.pods))
        self.stages.update(workload)
        self.sync(workload)
        del self.workloads[workload.uid]
        self._written.pop(workload.uid, None)
        self.unscheduled.pop(workload.uid, None)

    def count_visible(self) -> int:
        """How many workloads an agent can find: an unknown kind is known by its pods alone."""
        return sum(
            1 for workload in self.workloads.values() if workload.pods or workload.kind != UNKNOWN
        )

    # Pods

    def make_pods(self, workload: SimulatedWorkload, now: Seconds) -> None:
        """Fill the slots that have no pod."""
        taken = {slot_of(pod) for pod in workload.pods}
        for slot in slots(workload):
            if slot.key not in taken:
                workload.pods.append(self._new_pod(workload, slot, now))
                if slot.owner:
                    workload.children.setdefault(slot.owner, now)
        if any(not pod.node for pod in workload.present_pods()):
            self.unscheduled[workload.uid] = None
            self.needs_scheduling = True

    def _new_pod(self, workload: SimulatedWorkload, slot: Slot, now: Seconds) -> SimulatedPod:
        ending = "" if slot.is_name_whole else random_ending(self.rng.getrandbits(32))
        is_root = workload.kind == "Pod"
        number = self.rng.getrandbits(128)
        return SimulatedPod(
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

    def mark_deleted(self, pods: Iterable[SimulatedPod], now: Seconds) -> None:
        """Pods get their deletion timestamp; they go when `drop` takes them."""
        for pod in pods:
            pod.deleted_at = pod.deleted_at or now

    def remove_pods(self, workload: SimulatedWorkload, pods: Iterable[SimulatedPod]) -> None:
        """Remove pods; what they held is free again."""
        for pod in list(pods):
            self.release(workload, pod)
            workload.pods.remove(pod)

    def release(self, workload: SimulatedWorkload, pod: SimulatedPod) -> None:
        """Give back what the pod holds; call before it counts as over."""
        if not pod.holds_resources:
            return
        self.scheduler.release(workload, pod)
        self.needs_scheduling = True
        if pod.grant.group:
            delete_reservation(self.store, self.nodes[pod.node], pod.grant.group)

    def finish_pods(
        self,
        workload: SimulatedWorkload,
        pods: Iterable[SimulatedPod],
        stage: str,
        now: Seconds,
        reason: str = "",
    ) -> None:
        """Pods end as succeeded or failed; those that never started just go."""
        for pod in list(pods):
            if pod.is_over:
                continue
            if not pod.started_at:
                self.remove_pods(workload, [pod])
                continue
            self.release(workload, pod)
            pod.stage, pod.since, pod.finished_at, pod.reason = stage, now, now, reason

    def start_pods(self, workload: SimulatedWorkload, now: Seconds) -> None:
        """Containers of placed pods come up."""
        for pod in workload.present_pods():
            if pod.stage in ("bound", "stuck"):
                pod.stage, pod.since = "running", now
                pod.started_at = pod.ready_at = now
        if not workload.first_ready_at:
            workload.first_ready_at = now

    def bind(
        self, workload: SimulatedWorkload, name: str, gang: list[SimulatedPod], now: Seconds
    ) -> None:
        workload.refusals.pop(name, None)
        workload.placements[name] = now
        for pod in gang:
            pod.stage, pod.since, pod.scheduled_at = "bound", now, now
            if pod.grant.group:
                put_reservation(self.store, self.nodes[pod.node], pod)

    def mark_scheduled(self, workload: SimulatedWorkload) -> None:
        self.unscheduled.pop(workload.uid, None)

    # Writing

    def sync(self, workload: SimulatedWorkload) -> None:
        """Make the store hold exactly what the workload consists of now."""
        if self.is_building:
            return
        rendered = [] if workload.stage == "gone" else render(workload, self.nodes)
        keys = self._keys(rendered)
        for resource, path, uid in self._written.get(workload.uid, ()):
            if (resource, path, uid) not in keys:
                namespace, _, name = path.rpartition("/")
                self.store.delete(resource, namespace or None, name)
        for resource, document in rendered:
            self.store.put(resource, document)
        self._written[workload.uid] = keys

    def sync_if_present(self, workload: SimulatedWorkload) -> None:
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
