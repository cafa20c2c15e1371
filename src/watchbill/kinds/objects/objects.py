"""The input of derivation: Kubernetes objects, pruned, gathered around one workload; and its pods by state.

Pods are the most numerous, so they are slotted structs read once from JSON (`read_pod`); everything else
stays a plain JSON object without `managedFields`. The agent's cache fills `WorkloadObjects`; `derive` reads
nothing else.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec

from watchbill.kinds.objects.pod import Pod

Object = Mapping[str, Any]
"""A Kubernetes object as JSON, `kind` and `apiVersion` present, `metadata.managedFields` absent."""


class GroupKind(NamedTuple):
    group: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleGpus:
    """Idle GPUs of a workload by exporters' figures. Changes only where a device starts or stops being idle.

    `millionths` None = which idle now is not known. `gpu_hours`: of idle intervals that have ended, observed
    since `measured_since`. Those of open intervals are `millionths` times the time since `mean_since`, the
    mean of the devices' beginnings weighted by the shares held.
    """

    millionths: int | None
    measured_since: datetime
    gpu_hours: float
    since: datetime | None = None
    mean_since: datetime | None = None


class ClaimLookup(Protocol):
    """What is known of the ResourceClaims of the workload's namespace beside those of its pods."""

    def named(self, names: Collection[str]) -> Mapping[str, Object]:
        """Those of these names."""

    def users(self, name: str) -> int | None:
        """How many live pods of all workloads share it, 0 where none is known; None = too many to follow."""


class _NoClaimLookup:
    def named(self, names: Collection[str]) -> Mapping[str, Object]:
        return {}

    def users(self, name: str) -> int | None:
        return 0


NO_CLAIM_LOOKUP: ClaimLookup = _NoClaimLookup()


class WorkloadObjects(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the cluster holds about one workload at one moment."""

    root: Object
    """The top owner: whole where its kind has a definition, else at least apiVersion, kind and
    metadata. A list's items lack apiVersion and kind: the cache must put them in."""
    is_chain_truncated: bool
    """An owner above `root` exists but cannot be read."""
    is_root_listed: bool
    """The root's own kind is listed completely, so its listing is the witness (else Pod's)."""
    pods: Sequence["Any"]
    """`kinds.pod.Pod`, in no particular order; reservation pods never among them."""
    children: Sequence[Object]
    """Owned objects between the root and its pods (ReplicaSets, Jobs, RayClusters …), the root
    excluded: whole where `Watched.is_whole`, else metadata. Jobs of a CronJob count though no pod
    is left of them."""
    services: Sequence[Object]
    """Services, InferencePools, Ingresses and routes of every kind that may lead to the workload; derivation
    picks those that do."""
    pod_groups: Sequence[Object]
    """KAI or Volcano PodGroups that the pods name or that the chain owns."""
    queue_workloads: Sequence[Object]
    """Kueue Workloads owned by the chain."""
    scheduling_events: Sequence[Object] = ()
    """Events (core/v1) on the pods and the chain that tell of scheduling or of creation that failed;
    none is needed where the pods' own conditions say it."""
    claims: Sequence[Object] = ()
    """ResourceClaims (resource.k8s.io) that the pods use, each once."""
    claim_lookup: ClaimLookup = NO_CLAIM_LOOKUP
    autoscalers: Sequence[Object] = ()
    """HorizontalPodAutoscalers and KEDA ScaledObjects of the namespace whose target is in the chain."""
    idle: IdleGpus | None = None
    """None where nothing measures the workload's GPUs."""
    is_root_gone: bool = False
    """The root was deleted and only its pods remain: the phase is Terminating."""
    cluster: "ClusterObjects" = msgspec.field(default_factory=lambda: ClusterObjects())


class ClusterObjects(msgspec.Struct, frozen=True, kw_only=True):
    """What all workloads share, by name. Of a node its labels and one address are kept."""

    queues: Mapping[str, Object] = msgspec.field(default_factory=dict)
    """KAI Queue objects."""
    shards: Mapping[str, Object] = msgspec.field(default_factory=dict)
    """KAI SchedulingShards: a scheduler for each node pool, with its defaults."""
    local_queues: Mapping[tuple[str, str], Object] = msgspec.field(default_factory=dict)
    """Kueue LocalQueues by (namespace, name)."""
    cluster_queues: Mapping[str, Object] = msgspec.field(default_factory=dict)
    volcano_queues: Mapping[str, Object] = msgspec.field(default_factory=dict)
    gateways: Mapping[tuple[str, str], Object] = msgspec.field(default_factory=dict)
    """Gateways (gateway.networking.k8s.io) by (namespace, name)."""
    istio_gateways: Mapping[tuple[str, str], Object] = msgspec.field(default_factory=dict)
    reference_grants: Mapping[str, Mapping[str, Object]] = msgspec.field(default_factory=dict)
    """ReferenceGrants (gateway.networking.k8s.io) by namespace, then by name."""
    claim_templates: Mapping[tuple[str, str], Object] = msgspec.field(default_factory=dict)
    """ResourceClaimTemplates by (namespace, name)."""
    priority_classes: Mapping[str, Object] = msgspec.field(default_factory=dict)
    topologies: Mapping[str, Object] = msgspec.field(default_factory=dict)
    node_labels: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    node_addresses: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Where a node is reached: its external address, else its internal one."""
    namespaces: Mapping[str, Object] = msgspec.field(default_factory=dict)
    device_classes: Mapping[str, Object] = msgspec.field(default_factory=dict)
    """DeviceClasses (resource.k8s.io)."""
    are_device_classes_read: bool = True
    """Whether they were listed: before that, or without the right to, there may be others."""
    device_profiles: Mapping[tuple[str, str], Mapping[str, str]] = msgspec.field(
        default_factory=dict
    )
    """Profiles of MIG slices whose names do not tell them, by driver and pool, then by the device's name."""


_STABLE = timedelta(minutes=10)
_EPOCH = datetime.fromtimestamp(0, UTC)


def age_key(pod: Pod) -> tuple[datetime, str, str]:
    """Pods in a stable order, oldest first."""
    return (pod.created_at or _EPOCH, pod.name, pod.uid)


class PodCounts:
    """A workload's pods by state, in one pass.

    `active`: neither ended nor being deleted; they alone decide whether a workload has what it needs.
    `lost_readiness`: was ready once and is not any more.
    """

    __slots__ = (
        "active",
        "all",
        "failed",
        "live",
        "lost_readiness",
        "ready",
        "running",
        "succeeded",
        "terminating",
        "unscheduled",
    )

    def __init__(self, pods: Iterable[Pod], *, ignores_deletion: bool = False) -> None:
        self.all = sorted(pods, key=age_key)
        self.live: list[Pod] = []
        self.active: list[Pod] = []
        self.terminating: list[Pod] = []
        self.unscheduled: list[Pod] = []
        self.lost_readiness: list[Pod] = []
        self.failed: list[Pod] = []
        self.succeeded: list[Pod] = []
        self.ready = 0
        self.running = 0
        for pod in self.all:
            if pod.is_terminal:
                (self.failed if pod.phase == "Failed" else self.succeeded).append(pod)
            else:
                self._count(pod, is_terminating=pod.is_terminating and not ignores_deletion)

    def _count(self, pod: Pod, *, is_terminating: bool) -> None:
        self.live.append(pod)
        if is_terminating:
            self.terminating.append(pod)
            return
        self.active.append(pod)
        if pod.phase == "Running":
            self.running += 1
        if not pod.node:
            self.unscheduled.append(pod)
        elif pod.is_ready:
            self.ready += 1
        elif has_lost_readiness(pod):
            self.lost_readiness.append(pod)


def has_lost_readiness(pod: Pod) -> bool:
    """It was ready once: it stopped being so after its containers had started.

    A container that crashes is ready for a moment at every start, so a pod that restarts counts only where
    it had run for a while.
    """
    if pod.phase == "Unknown":
        return True
    if pod.phase != "Running" or pod.ready is None or pod.ready.status == "True":
        return False
    lost_at = pod.ready.at
    if lost_at is None:
        return False
    if (pod.restarts or pod.problem is not None) and pod.started_at is not None:
        return lost_at - pod.started_at >= _STABLE
    return pod.running_at is not None and lost_at > pod.running_at
