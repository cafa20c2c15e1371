"""A workload's past as the items that an agent would have sent, had it been there: what it asked for while it
waited, what it held from when it ran, which of that lay idle, and how it ended.

The records are derived by the product itself, from the objects as the cluster held them then.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from simulator.apiserver.store import Store
from simulator.manifests.render import Rendered, render
from simulator.model.hardware import ONE_GPU
from simulator.model.model import Seconds, SimulatedWorkload
from simulator.model.pod_layout import is_kept
from simulator.model.scheduler import hundredths
from simulator.past.ended import EndedWorkload
from simulator.resources import (
    NODES,
    POD_GROUPS,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    SERVICES,
    TOPOLOGIES,
    ResourceType,
)
from simulator.simulation.exporters import utilization
from simulator.simulation.world import World
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.derivation.totals import idle_fields, idle_millionths
from watchbill.kinds.derive import Derived, DeriveSettings, derive
from watchbill.kinds.objects.objects import ClusterObjects, IdleGpus, Object, WorkloadObjects
from watchbill.kinds.objects.pod import read_pod
from watchbill.protocol import Delete, Record, Upsert, record_hash
from watchbill.workload import GPU_MILLIONTHS, Phase, Transition, Usage

_NO_CHILDREN = frozenset(
    resource.full_name for resource in (PODS, POD_GROUPS, SERVICES)
) | frozenset({"ingresses.networking.k8s.io"})


class PastDeriver:
    """Derives workloads of one cluster. Raises Invalid like `derive`."""

    def __init__(self, world: World, cluster_id: UUID) -> None:
        self._nodes = world.nodes
        self._definitions = load_definitions(None)
        self._settings = DeriveSettings(cluster_id=cluster_id)
        self._cluster = _cluster_objects(world.store)
        self._versions = itertools.count(1)

    def derive(self, workload: SimulatedWorkload) -> Derived | None:
        """None for what has no object of its own."""
        rendered = render(workload, self._nodes)
        version = str(next(self._versions))
        for _, document in rendered:  # else each question reads the root anew
            document["metadata"]["resourceVersion"] = version
        root = next(
            (obj for obj in _whole(rendered) if obj["metadata"]["uid"] == workload.uid), None
        )
        if root is None:
            return None
        objects = WorkloadObjects(
            root=root,
            is_chain_truncated=False,
            is_root_listed=True,
            pods=[
                read_pod(document, extra_annotations=self._settings.pod_annotations)
                for resource, document in rendered
                if resource is PODS
            ],
            children=[
                obj
                for obj in _whole(
                    item for item in rendered if item[0].full_name not in _NO_CHILDREN
                )
                if obj is not root and obj["metadata"]["uid"] != workload.uid
            ],
            services=list(
                _whole(
                    item
                    for item in rendered
                    if item[0].full_name in _NO_CHILDREN and item[0] not in (PODS, POD_GROUPS)
                )
            ),
            pod_groups=list(_whole(item for item in rendered if item[0] is POD_GROUPS)),
            queue_workloads=(),
            cluster=self._cluster,
        )
        return derive(objects, self._definitions, self._settings)


def _whole(rendered: Iterable[tuple[ResourceType, Object]] | Rendered) -> Iterable[Object]:
    """The objects with the kind that lists leave out."""
    for resource, document in rendered:
        yield {**document, "apiVersion": resource.api_version, "kind": resource.kind}


def _cluster_objects(store: Store) -> ClusterObjects:
    nodes = dict(_by_name(store, NODES))
    return ClusterObjects(
        queues=dict(_by_name(store, QUEUES)),
        priority_classes=dict(_by_name(store, PRIORITY_CLASSES)),
        topologies=dict(_by_name(store, TOPOLOGIES)),
        node_labels={name: node["metadata"]["labels"] for name, node in nodes.items()},
        node_addresses={
            name: address["address"]
            for name, node in nodes.items()
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        },
    )


def _by_name(store: Store, resource: ResourceType) -> Iterable[tuple[str, Object]]:
    table = store.table(resource.group, resource.plural)
    for stored in table.objects.values() if table is not None else ():
        (obj,) = _whole([(resource, stored.decode())])
        yield obj["metadata"]["name"], obj


_BEFORE_RUNNING = frozenset({Phase.CREATING, Phase.INITIALIZING, Phase.PENDING})


@dataclass(frozen=True, slots=True)
class PastItems:
    """Of one workload. `upserts` in the order of time, all different; `delete` None = it still lives."""

    upserts: list[Upsert]
    delete: Delete | None = None


class Historian:
    """Tells the past of the workloads of one cluster. It changes nothing in the world."""

    def __init__(self, world: World, cluster_id: UUID, *, seed: int, window: timedelta) -> None:
        self._deriver = PastDeriver(world, cluster_id)
        self._window = window
        """For so long a GPU does nothing before it counts as idle."""
        self._rng = random.Random(f"history/{seed}")
        self._scratch = World(
            Store(),
            nodes=world.nodes,
            queues=world.scheduler.queues,
            rng=self._rng,
            built_at=world.built_at,
        )

    def of_living(self, workload: SimulatedWorkload) -> PastItems | None:
        """None where there is nothing to tell that the agent will not see for itself."""
        if any(pod.holds_resources for pod in workload.pods):
            return self._running(workload)
        if workload.finished_at and workload.first_ready_at and workload.stage != "idle":
            running = self._as_running(workload, workload.first_ready_at)
            upserts = self._running(running).upserts if running else []
            return PastItems([*upserts, *self._last(workload, workload.finished_at, running)])
        if workload.stage == "pending":
            return PastItems(list(self._last(workload, workload.created_at)))
        return None

    def of_ended(self, ended: EndedWorkload) -> PastItems | None:
        running = self._as_running(ended.workload, ended.started_at)
        if running is None:
            return None
        history = self._running(running)
        if ended.end:
            over = self._as_ended(running, ended)
            history.upserts.extend(self._last(over, ended.ended_at, running))
        delete = Delete(id=UUID(ended.workload.uid), deleted_at=_instant(ended.deleted_at))
        return PastItems(history.upserts, delete)

    def _running(self, workload: SimulatedWorkload) -> PastItems:
        """From its creation to the present, which the workload's pods stand for."""
        derived = self._deriver.derive(workload)
        if derived is None:
            return PastItems([])
        steps = [*_waiting(derived), *self._holding(workload, derived)]
        return PastItems(steps)

    def _holding(self, workload: SimulatedWorkload, derived: Derived) -> Iterator[Upsert]:
        """Measured from when it ran; what does nothing counts as idle a while later."""
        started_at = _instant(max(pod.started_at or pod.created_at for pod in workload.pods))
        measured = IdleGpus(millionths=0, measured_since=started_at, gpu_hours=0.0)
        yield _upsert(_measured(derived, measured), started_at)
        idle = round(_idle_gpus(workload) * GPU_MILLIONTHS)
        if idle:
            measured = dataclasses.replace(
                measured, millionths=idle, since=started_at, mean_since=started_at
            )
            yield _upsert(_measured(derived, measured), started_at + self._window)

    def _last(
        self, workload: SimulatedWorkload, at: Seconds, running: SimulatedWorkload | None = None
    ) -> Iterator[Upsert]:
        """What it is from `at` on; `running`: as it was when it ran, whose idle hours it keeps."""
        derived = self._deriver.derive(workload)
        if derived is not None:
            hours = _idle_gpus(running) * (at - running.first_ready_at) / 3600 if running else 0.0
            if hours:
                since = _instant(running.first_ready_at if running else at)
                measured = IdleGpus(millionths=0, measured_since=since, gpu_hours=hours)
                derived = _measured(derived, measured)
            yield _upsert(derived, _instant(at))

    def _as_running(self, workload: SimulatedWorkload, at: Seconds) -> SimulatedWorkload | None:
        """A copy with all of its pods on nodes, from `at` on. None where it has no pods."""
        copy = _copy(workload)
        copy.pods, copy.finished_at, copy.is_suspended = [], 0.0, False
        self._scratch.make_pods(copy, copy.created_at + 2)
        for pod in copy.pods:
            pool = copy.pool if copy.shape(pod.role).wants_gpu else "cpu"
            pod.node = self._rng.choice(self._scratch.scheduler.nodes_of(pool)).name
            pod.scheduled_at, pod.started_at, pod.ready_at = at - 20, at, at
            pod.stage, pod.since = "running", at
        copy.stage, copy.since, copy.first_ready_at = "running", at, at
        return copy if copy.pods else None

    def _as_ended(self, running: SimulatedWorkload, ended: EndedWorkload) -> SimulatedWorkload:
        over = _copy(running)
        over.finished_at = ended.ended_at
        for pod in over.pods:
            pod.stage, pod.since, pod.finished_at = ended.end, ended.ended_at, ended.ended_at
        if ended.end == "failed":
            crashed = self._rng.choice(over.pods)
            crashed.reason = self._rng.choice(("Error", "OOMKilled", "Evicted"))
            over.pods = [crashed]
        over.pods = [pod for pod in over.pods if is_kept(pod, over)]
        over.stage = "failed" if ended.end == "failed" else "completed"
        over.since = ended.ended_at + 1
        return over


def _measured(derived: Derived, measured: IdleGpus) -> Derived:
    """With what exporters tell of its GPUs."""
    record = derived.record
    idle = idle_millionths(measured, allocated=record.usage.gpu_millionths)
    workload = msgspec.structs.replace(
        record.workload,
        idle_allocated_gpus=None if idle is None else idle / GPU_MILLIONTHS,
        idle_gpus=None if idle is None else idle // GPU_MILLIONTHS,
        additional_fields=record.workload.additional_fields | idle_fields(measured, idle),
    )
    return Derived(msgspec.structs.replace(record, workload=workload), derived.transitions)


def _waiting(derived: Derived) -> Iterator[Upsert]:
    """Its first phases, in which it held nothing."""
    first = [
        transition for transition in derived.transitions if transition.phase in _BEFORE_RUNNING
    ]
    if not first or derived.transitions[0] is not first[0]:
        return
    record = derived.record
    usage = msgspec.structs.replace(record.usage, gpu_millionths=0, running_pod_count=0)
    waiting = _holding_nothing(record, usage, first[-1].phase)
    yield _upsert(Derived(waiting, tuple(first)), first[0].at)


def _holding_nothing(record: Record, usage: Usage, phase: Phase) -> Record:
    workload = msgspec.structs.replace(
        record.workload,
        phase=phase,
        k8s_phase=phase,
        phase_message=None,
        idle_gpus=0,
        idle_allocated_gpus=0.0,
    )
    return msgspec.structs.replace(
        record, workload=workload, usage=usage, gpu_millionths_by_node_pool={}
    )


def _upsert(derived: Derived, at: datetime) -> Upsert:
    transitions: tuple[Transition, ...] = derived.transitions
    return Upsert(
        record=derived.record,
        record_hash=record_hash(derived.record),
        transitions=transitions,
        observed_at=at,
    )


def _copy(workload: SimulatedWorkload) -> SimulatedWorkload:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(workload), type=SimulatedWorkload)


def _idle_gpus(workload: SimulatedWorkload) -> float:
    """Of the GPUs that the workload's pods hold, those that do nothing."""
    return sum(
        hundredths(workload.shape(pod.role), workload.pool) / ONE_GPU
        for pod in workload.pods
        if pod.stage == "running" and not utilization(workload, pod, pod.started_at)
    )


def _instant(at: Seconds) -> datetime:
    return datetime.fromtimestamp(int(at), UTC)


def in_rounds(histories: Iterable[PastItems]) -> Iterator[list[Upsert]]:
    """The first item of every history, then every second one: a batch holds a workload once."""
    rounds: list[list[Upsert]] = []
    for history in histories:
        for number, upsert in enumerate(history.upserts):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(upsert)
    yield from rounds
