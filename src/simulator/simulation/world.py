"""The simulated cluster as it lives: workloads, machines and queues, and the moves that keep them true.

It owns the state and writes it to the store after every move. Which move comes next is `scenario`'s affair;
what befalls a workload stands in `happenings`.
"""

import heapq
import itertools
import random
import uuid
from collections.abc import Iterable

from simulator.apiserver.resources import ResourceType
from simulator.apiserver.store import Store, path_of
from simulator.manifests.render import Rendered, render
from simulator.manifests.shared_objects import put_queues
from simulator.manifests.system_pods import drop_reservation, put_reservation
from simulator.model.hardware import Node
from simulator.model.lifecycles import FOLLOWS
from simulator.model.mixture import UNKNOWN
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import slots
from simulator.model.scheduler import Queue, Scheduler
from simulator.model.slot import Slot, random_ending, slot_of
from simulator.model.stage_index import StageIndex
from simulator.model.workload_factory import Names

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
        self.names = Names()
        self.built_at = built_at
        self.scheduler = Scheduler(nodes, queues)
        self.workloads: dict[str, SimulatedWorkload] = {}
        self.census = StageIndex()
        self.agenda: list[tuple[Seconds, int, str, str]] = []
        self.is_quiet = False
        """While a world is being built nothing is written step by step."""
        self._order = itertools.count()
        self._written: dict[str, dict[_Key, None]] = {}
        self.waiting: dict[str, None] = {}
        """Workloads with pods that have no node."""
        self.is_stale = False
        """Something was freed or has come to wait since the last round of scheduling."""

    @property
    def nodes(self) -> dict[str, Node]:
        return self.scheduler.nodes

    # State

    def readopt(self, workload: SimulatedWorkload) -> None:
        """Take in a workload of an earlier life of the program, with all that it holds."""
        self.workloads[workload.uid] = workload
        self.census.settle(workload)
        for pod in workload.pods:
            if pod.holds_resources:
                self.scheduler.retake(workload, pod)
        if any(not pod.node for pod in workload.present_pods()):
            self.waiting[workload.uid] = None
            self.is_stale = True
        self._written[workload.uid] = self._keys(render(workload, self.nodes))

    def enter(self, workload: SimulatedWorkload, stage: str, now: Seconds) -> None:
        """Change stage; what follows by itself is put on the agenda."""
        workload.stage = stage
        workload.since = now
        self.census.settle(workload)
        if stage in FOLLOWS:
            step, least, most = FOLLOWS[stage]
            self.later(workload, step, now + self.rng.uniform(least, most))

    def later(self, workload: SimulatedWorkload, step: str, due: Seconds) -> None:
        heapq.heappush(self.agenda, (due, next(self._order), workload.uid, step))

    def forget(self, workload: SimulatedWorkload) -> None:
        """The workload is gone for good."""
        workload.stage = "gone"
        workload.is_root_gone = True
        self.drop(workload, list(workload.pods))
        self.census.settle(workload)
        self.sync(workload)
        del self.workloads[workload.uid]
        self._written.pop(workload.uid, None)
        self.waiting.pop(workload.uid, None)

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
            self.waiting[workload.uid] = None
            self.is_stale = True

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

    def doom(self, pods: Iterable[SimulatedPod], now: Seconds) -> None:
        """Pods get their deletion timestamp; they go when `drop` takes them."""
        for pod in pods:
            pod.deleted_at = pod.deleted_at or now

    def drop(self, workload: SimulatedWorkload, pods: Iterable[SimulatedPod]) -> None:
        """Pods are gone; what they held is free."""
        for pod in list(pods):
            self.free(workload, pod)
            workload.pods.remove(pod)

    def free(self, workload: SimulatedWorkload, pod: SimulatedPod) -> None:
        """Give back what the pod holds; call before it counts as over."""
        if not pod.holds_resources:
            return
        self.scheduler.release(workload, pod)
        self.is_stale = True
        if pod.grant.group:
            drop_reservation(self.store, self.nodes[pod.node], pod.grant.group)

    def finish(
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
                self.drop(workload, [pod])
                continue
            self.free(workload, pod)
            pod.stage, pod.since, pod.finished_at, pod.reason = stage, now, now, reason

    def start(self, workload: SimulatedWorkload, now: Seconds) -> None:
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

    def stop_waiting(self, workload: SimulatedWorkload) -> None:
        self.waiting.pop(workload.uid, None)

    # Writing

    def sync(self, workload: SimulatedWorkload) -> None:
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

    def sync_if_there(self, workload: SimulatedWorkload) -> None:
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
