"""A pod, read once from JSON into about a kilobyte: all that derivation needs of it, no more.

Pods are the most numerous objects. Strings are interned, sums, images and owners shared among pods of one
template; commands and variables come from templates, so a pod keeps none. Nothing here can refer to itself, so
the garbage collector need not look (`gc=False`).
"""

import sys
from collections.abc import Mapping, Set
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from watchbill.kinds.objects.containers import (
    Container,
    LastExit,
    bounded,
    read_containers,
    short,
)
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    condition,
    group_version,
    instant,
    labels,
    mapping,
    metadata,
    objects,
    text,
    whole,
)
from watchbill.kinds.objects.pod_spec import read_spec, short_texts
from watchbill.kinds.objects.resources import (
    GPU_ANNOTATIONS,
    Resources,
)
from watchbill.workload_pod import NodeAffinity, Toleration

POD_GROUP_ANNOTATION = "pod-group-name"
VOLCANO_GROUP_ANNOTATION = "scheduling.k8s.io/group-name"
VOLCANO_OWN_GROUP_ANNOTATION = "scheduling.volcano.sh/group-name"
RESERVATION_ANNOTATION = "run.ai/reserve_for_gpu_index"
KEPT_ANNOTATIONS = GPU_ANNOTATIONS | {
    POD_GROUP_ANNOTATION,
    VOLCANO_GROUP_ANNOTATION,
    VOLCANO_OWN_GROUP_ANNOTATION,
    "kueue.x-k8s.io/workload",
    "user",
}
_GROUP_LABELS = (
    "kueue.x-k8s.io/pod-group-name",
    "scheduling.x-k8s.io/pod-group",
    "pod-group.scheduling.sigs.k8s.io",
)
"""Kueue's, and that of the coscheduling plugin with its older form."""
_GROUP_ANNOTATIONS = (
    VOLCANO_GROUP_ANNOTATION,
    VOLCANO_OWN_GROUP_ANNOTATION,
    POD_GROUP_ANNOTATION,
)
TERMINAL_POD_PHASES = frozenset({"Succeeded", "Failed"})
_TEXT_LENGTH = 1024
_ADDRESS_LENGTH = 45
"""Of the longest text of an IPv6 address."""
_MAX_OWNERS = 16
_NAME_LENGTH = 253
_MAX_CLAIMS = 100


class OwnerReference(msgspec.Struct, frozen=True, gc=False):
    """One entry of `ownerReferences`."""

    group: str
    version: str
    kind: str
    name: str
    uid: str
    is_controller: bool


class PodCondition(msgspec.Struct, frozen=True, gc=False):
    status: str
    reason: str
    message: str
    at: datetime | None


class ContainerProblem(msgspec.Struct, frozen=True, gc=False):
    """The worst problem of any container: why it waits, or how it ended."""

    container: str
    reason: str
    message: str
    exit_code: int | None
    is_waiting: bool
    last_reason: str = ""
    """Why the container last ended, where it waits to be started again."""


class BackingClaim(NamedTuple):
    """The ResourceClaim that the scheduler made for a pod's extended resources, and those; "" for none."""

    name: str = ""
    resources: tuple[str, ...] = ()


NO_BACKING = BackingClaim()


class Pod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Equal pods give equal records: an update that changes nothing here needs no derivation."""

    uid: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[OwnerReference, ...]
    scheduler_name: str
    node: str
    """"" until a scheduler has bound the pod."""
    priority: int | None
    priority_class_name: str
    node_selector: tuple[tuple[str, str], ...]
    resources: Resources
    images: tuple[str, ...]
    claims: tuple[str, ...]
    """Names of the ResourceClaims that it uses; those made for its extended resources are not among them."""
    created_at: datetime | None
    deleted_at: datetime | None
    """When deletion was requested: the deletionTimestamp is later by the grace period."""
    started_at: datetime | None
    finished_at: datetime | None
    """The last end of a container, once the pod is terminal."""
    running_at: datetime | None
    """The last start of a container that runs or has run to its end."""
    phase: str
    reason: str
    message: str
    scheduled: PodCondition | None
    ready: PodCondition | None
    disruption: PodCondition | None
    restarts: int
    problem: ContainerProblem | None
    last_exit: LastExit | None = None
    """The newest end of a container that runs again; None where none was started again."""
    containers: tuple[Container, ...] = ()
    """Init containers first, as many as are reported."""
    tolerations: tuple[Toleration, ...] = ()
    node_affinity: NodeAffinity | None = None
    ip: str = ""
    scheduling_group: str = ""
    """The PodGroup of Kubernetes' own Workload API that the pod names in `spec.schedulingGroup`."""
    gates: tuple[str, ...] = ()
    """Scheduling gates that are still on it, by name."""
    backing: BackingClaim = NO_BACKING

    @property
    def is_terminal(self) -> bool:
        return self.phase in TERMINAL_POD_PHASES

    @property
    def is_ready(self) -> bool:
        """What a pod said before its node was lost (phase Unknown) counts no more than before its end."""
        is_reporting = not self.is_terminal and self.phase != "Unknown"
        return is_reporting and self.ready is not None and self.ready.status == "True"

    @property
    def is_terminating(self) -> bool:
        return self.deleted_at is not None

    @property
    def was_removed(self) -> bool:
        """Evicted, preempted or lost with its node: not ended by what ran in it, nor by its own deadline."""
        is_target = self.disruption is not None and self.disruption.status == "True"
        return is_target or self.reason not in ("", "DeadlineExceeded")

    @property
    def controller(self) -> OwnerReference | None:
        """The owner to walk to: the controller, else the first named."""
        for owner in self.owners:
            if owner.is_controller:
                return owner
        return self.owners[0] if self.owners else None


class PlainGroup(NamedTuple):
    """The pod group that a pod without owners names. `key`: the label, annotation or member that does."""

    namespace: str
    key: str
    name: str


def plain_group(pod: Pod) -> PlainGroup | None:
    """None for a pod that something owns: its group follows from its owner."""
    if pod.owners:
        return None
    if pod.scheduling_group:
        return PlainGroup(pod.namespace, "spec.schedulingGroup", pod.scheduling_group)
    for keys, texts in ((_GROUP_LABELS, pod.labels), (_GROUP_ANNOTATIONS, pod.annotations)):
        for key in keys:
            if texts.get(key):
                return PlainGroup(pod.namespace, key, texts[key])
    return None


def is_reservation(obj: Any, namespaces: Set[str]) -> bool:
    """A pod by which KAI reserves a device that pods share: it belongs to no workload.

    `namespaces`: where KAI puts them. The annotation on any other pod is its author's claim and hides nothing.
    """
    is_annotated = RESERVATION_ANNOTATION in annotations(obj)
    return is_annotated and text(metadata(obj).get("namespace")) in namespaces


def read_pod(obj: Any, *, extra_annotations: frozenset[str] = frozenset()) -> Pod:
    """The pod that `obj` describes; never raises. `extra_annotations`: keys to keep beyond the defaults."""
    meta, spec, status = metadata(obj), mapping(at(obj, "spec")), mapping(at(obj, "status"))
    phase = short(status.get("phase")) or "Pending"
    containers, stated = _Containers(spec, status), read_spec(spec)
    return Pod(
        uid=text(meta.get("uid")),
        name=text(meta.get("name"))[:_NAME_LENGTH],
        namespace=short(meta.get("namespace")),
        labels=_shared_labels(short_texts(labels(obj))),
        annotations=_kept_annotations(annotations(obj), extra_annotations),
        owners=owners(obj),
        scheduler_name=stated.scheduler_name,
        node=short(spec.get("nodeName")),
        priority=stated.priority,
        priority_class_name=stated.priority_class_name,
        node_selector=stated.node_selector,
        resources=stated.resources,
        images=stated.images,
        claims=_claims(spec, status),
        created_at=instant(meta.get("creationTimestamp")),
        deleted_at=deletion_requested_at(meta),
        started_at=instant(status.get("startTime")),
        finished_at=containers.finished_at if phase in TERMINAL_POD_PHASES else None,
        running_at=containers.running_at,
        phase=phase,
        reason=short(status.get("reason")),
        message=bounded(status.get("message")),
        scheduled=_condition(status, "PodScheduled"),
        ready=_condition(status, "Ready"),
        disruption=_condition(status, "DisruptionTarget"),
        restarts=containers.restarts,
        problem=containers.worst,
        last_exit=containers.last_exit,
        containers=read_containers(spec, status),
        tolerations=stated.tolerations,
        node_affinity=stated.node_affinity,
        ip=text(status.get("podIP"))[:_ADDRESS_LENGTH],
        scheduling_group=stated.scheduling_group,
        gates=stated.gates,
        backing=_backing(status),
    )


def _claims(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    """Claims named outright, and those made from templates, whose names only the status tells."""
    entries = list(objects(spec.get("resourceClaims")))
    if not entries:
        return ()
    made = {
        text(entry.get("name")): text(entry.get("resourceClaimName"))
        for entry in objects(status.get("resourceClaimStatuses"))
    }
    names = (
        text(entry.get("resourceClaimName")) or made.get(text(entry.get("name")), "")
        for entry in entries
    )
    return tuple(dict.fromkeys(name[:253] for name in names if name))[:_MAX_CLAIMS]


def _backing(status: Mapping[str, Any]) -> BackingClaim:
    stated = mapping(status.get("extendedResourceClaimStatus"))
    if not stated:
        return NO_BACKING
    mapped = islice(objects(stated.get("requestMappings")), _MAX_CLAIMS)
    resources = tuple(dict.fromkeys(short(each.get("resourceName")) for each in mapped))
    return BackingClaim(short(stated.get("resourceClaimName")), resources)


def owners(obj: Any) -> tuple[OwnerReference, ...]:
    """The owners that any object names, in its order: the first ones, and the controller in any case."""
    references = list(objects(metadata(obj).get("ownerReferences")))
    controller = next((each for each in references if each.get("controller") is True), None)
    kept = references[:_MAX_OWNERS]
    if controller is not None and not any(each is controller for each in kept):
        kept.append(controller)
    return tuple(
        _owner(
            *(part[:_NAME_LENGTH] for part in group_version(reference)),
            text(reference.get("kind"))[:_NAME_LENGTH],
            text(reference.get("name"))[:_NAME_LENGTH],
            text(reference.get("uid"))[:_NAME_LENGTH],
            reference.get("controller") is True,
        )
        for reference in kept
    )


@lru_cache(maxsize=16384)
def _owner(
    group: str, version: str, kind: str, name: str, uid: str, is_controller: bool
) -> OwnerReference:
    return OwnerReference(sys.intern(group), version, sys.intern(kind), name, uid, is_controller)


class _Containers:
    """One pass over the container statuses.

    The kubelet ends lasting init containers when the others have ended: how counts only where no other failed.
    """

    __slots__ = ("_lasting", "finished_at", "last_exit", "restarts", "running_at", "worst")

    def __init__(self, spec: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        phase = text(status.get("phase"))
        self._lasting = frozenset(
            text(container.get("name"))
            for container in objects(spec.get("initContainers"))
            if phase in TERMINAL_POD_PHASES and container.get("restartPolicy") == "Always"
        )
        ended_last: list[Mapping[str, Any]] = []
        self.restarts = 0
        self.running_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.worst: ContainerProblem | None = None
        self.last_exit: LastExit | None = None
        for container in objects(status.get("initContainerStatuses")):
            self._read(container, is_init=True)
            if text(container.get("name")) in self._lasting:
                ended_last.append(container)
        for container in objects(status.get("containerStatuses")):
            self._read(container, is_init=False)
        if self.worst is None and phase == "Failed":
            for container in ended_last:
                self._ended(text(container.get("name")), at(container, "state", "terminated"))

    def _read(self, container: Mapping[str, Any], *, is_init: bool) -> None:
        self.restarts += max(0, whole(container.get("restartCount")) or 0)
        state = mapping(container.get("state"))
        self._started(instant(at(state, "running", "startedAt")))
        waiting = state.get("waiting")
        if isinstance(state.get("running"), Mapping) or (
            isinstance(waiting, Mapping) and not _is_problem(waiting)
        ):
            self._ended_before(container)
        if not is_init:
            self._started(instant(at(state, "terminated", "startedAt")))
        terminated = state.get("terminated")
        if isinstance(terminated, Mapping):
            finished_at = instant(terminated.get("finishedAt"))
            if finished_at and (self.finished_at is None or finished_at > self.finished_at):
                self.finished_at = finished_at
        name = text(container.get("name"))
        if isinstance(waiting, Mapping) and _is_problem(waiting):
            last = mapping(at(container, "lastState", "terminated"))
            self._note(_problem(name, waiting, last, is_waiting=True))
        elif name not in self._lasting:
            self._ended(name, terminated)

    def _ended(self, name: str, terminated: Any) -> None:
        if isinstance(terminated, Mapping) and _has_failed(terminated):
            self._note(_problem(name, terminated, terminated, is_waiting=False))

    def _started(self, at: datetime | None) -> None:
        if at is not None and (self.running_at is None or at > self.running_at):
            self.running_at = at

    def _ended_before(self, container: Mapping[str, Any]) -> None:
        ended = at(container, "lastState", "terminated")
        if not isinstance(ended, Mapping) or not _has_failed(ended):
            return
        ended_at = instant(ended.get("finishedAt"))
        known_at = self.last_exit.at if self.last_exit is not None else None
        if self.last_exit is None or (ended_at and known_at and ended_at > known_at):
            self.last_exit = LastExit(
                container=sys.intern(text(container.get("name"))[:253]),
                reason=short(ended.get("reason")),
                exit_code=whole(ended.get("exitCode")),
                at=ended_at,
            )

    def _note(self, problem: ContainerProblem) -> None:
        if self.worst is None or (problem.is_waiting and not self.worst.is_waiting):
            self.worst = problem


_ORDINARY_WAITS = frozenset({"", "ContainerCreating", "PodInitializing"})


def _is_problem(waiting: Mapping[str, Any]) -> bool:
    return text(waiting.get("reason")) not in _ORDINARY_WAITS


def _has_failed(terminated: Mapping[str, Any]) -> bool:
    """The kernel may kill a process inside a container that then exits with 0."""
    return whole(terminated.get("exitCode")) != 0 or terminated.get("reason") == "OOMKilled"


def _problem(
    name: str, state: Mapping[str, Any], ended: Mapping[str, Any], *, is_waiting: bool
) -> ContainerProblem:
    # That it is restarted later and later says less than what it ended with.
    is_back_off = text(state.get("reason")) == "CrashLoopBackOff"
    last_words = text(ended.get("message")) if is_back_off else ""
    return ContainerProblem(
        container=sys.intern(name[:253]),
        reason=short(state.get("reason")),
        message=bounded(last_words or state.get("message")),
        exit_code=whole(ended.get("exitCode")),
        is_waiting=is_waiting,
        last_reason=short(ended.get("reason")) if is_waiting else "",
    )


def _condition(status: Mapping[str, Any], kind: str) -> PodCondition | None:
    entry = condition(status.get("conditions"), kind)
    if entry is None:
        return None
    return PodCondition(
        status=short(entry.get("status")),
        reason=short(entry.get("reason")),
        message=bounded(entry.get("message")),
        at=instant(entry.get("lastTransitionTime")),
    )


def deletion_requested_at(meta: Mapping[str, Any]) -> datetime | None:
    deleted_by = instant(meta.get("deletionTimestamp"))
    if deleted_by is None:
        return None
    grace = whole(meta.get("deletionGracePeriodSeconds")) or 0
    try:
        return deleted_by - timedelta(seconds=max(0, grace))
    except OverflowError:
        return deleted_by


def _kept_annotations(
    annotations_: Mapping[str, Any], extra_annotations: frozenset[str]
) -> Mapping[str, str]:
    return _shared_labels(
        tuple(
            sorted(
                (key, value)
                for key, value in annotations_.items()
                if (key in KEPT_ANNOTATIONS or key in extra_annotations)
                and isinstance(value, str)
                and len(value) <= _TEXT_LENGTH
            )
        )
    )


@lru_cache(maxsize=8192)
def _shared_labels(flat: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {sys.intern(key): sys.intern(value) for key, value in flat}
