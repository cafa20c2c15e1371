"""Which kinds the agent watches besides the defined ones, and what each is for. Data, no code."""

from dataclasses import dataclass
from enum import Enum

from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.objects.objects import GroupKind


class Role(Enum):
    POD = "pod"
    OWNER = "owner"
    """It may own pods, through others or directly."""
    ROUTING = "routing"
    """It leads to pods of its namespace."""
    AUTOSCALER = "autoscaler"
    EVENT = "event"
    POD_GROUP = "pod group"
    QUEUE_WORKLOAD = "queue workload"
    QUEUE = "queue"
    LOCAL_QUEUE = "local queue"
    CLUSTER_QUEUE = "cluster queue"
    VOLCANO_QUEUE = "volcano queue"
    GATEWAY = "gateway"
    ISTIO_GATEWAY = "istio gateway"
    CLAIM = "claim"
    """Devices that pods ask for by name."""
    CLAIM_TEMPLATE = "claim template"
    PRIORITY_CLASS = "priority class"
    TOPOLOGY = "topology"
    SHARD = "shard"
    NODE = "node"
    NAMESPACE = "namespace"
    KIND = "kind"
    """A CustomResourceDefinition: its coming and going is that of a kind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kind to watch, in whichever version the server prefers."""

    key: GroupKind
    role: Role
    is_metadata: bool = False
    field_selector: str = ""
    """Only on fields that never change: leaving a selection would look like a deletion."""

    @property
    def is_workload_kind(self) -> bool:
        return self.role in (Role.POD, Role.OWNER)


POD = GroupKind("", "Pod")
NODE = GroupKind("", "Node")
REPLICA_SET = GroupKind("apps", "ReplicaSet")
KIND = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")

_EVENTS = "type=Warning,reason!=BackOff,reason!=Unhealthy"
"""The pods' own statuses say what is left out, and would be most of all events."""

_BESIDES = (
    Wanted(KIND, Role.KIND, is_metadata=True),
    Wanted(NODE, Role.NODE),
    Wanted(GroupKind("", "Namespace"), Role.NAMESPACE, is_metadata=True),
    Wanted(GroupKind("", "Service"), Role.ROUTING),
    Wanted(GroupKind("networking.k8s.io", "Ingress"), Role.ROUTING),
    Wanted(GroupKind("gateway.networking.k8s.io", "HTTPRoute"), Role.ROUTING),
    Wanted(GroupKind("gateway.networking.k8s.io", "GRPCRoute"), Role.ROUTING),
    Wanted(GroupKind("gateway.networking.k8s.io", "Gateway"), Role.GATEWAY),
    Wanted(GroupKind("inference.networking.k8s.io", "InferencePool"), Role.ROUTING),
    Wanted(GroupKind("inference.networking.x-k8s.io", "InferencePool"), Role.ROUTING),
    Wanted(GroupKind("route.openshift.io", "Route"), Role.ROUTING),
    Wanted(GroupKind("networking.istio.io", "VirtualService"), Role.ROUTING),
    Wanted(GroupKind("networking.istio.io", "Gateway"), Role.ISTIO_GATEWAY),
    Wanted(GroupKind("resource.k8s.io", "ResourceClaim"), Role.CLAIM),
    Wanted(GroupKind("resource.k8s.io", "ResourceClaimTemplate"), Role.CLAIM_TEMPLATE),
    Wanted(GroupKind("autoscaling", "HorizontalPodAutoscaler"), Role.AUTOSCALER),
    Wanted(GroupKind("keda.sh", "ScaledObject"), Role.AUTOSCALER),
    Wanted(GroupKind("", "Event"), Role.EVENT, field_selector=_EVENTS),
    Wanted(GroupKind("scheduling.k8s.io", "PriorityClass"), Role.PRIORITY_CLASS),
    Wanted(GroupKind("scheduling.run.ai", "Queue"), Role.QUEUE),
    Wanted(GroupKind("scheduling.run.ai", "PodGroup"), Role.POD_GROUP),
    Wanted(GroupKind("scheduling.volcano.sh", "PodGroup"), Role.POD_GROUP),
    Wanted(GroupKind("scheduling.volcano.sh", "Queue"), Role.VOLCANO_QUEUE),
    Wanted(GroupKind("kai.scheduler", "Topology"), Role.TOPOLOGY),
    Wanted(GroupKind("kai.scheduler", "SchedulingShard"), Role.SHARD),
    Wanted(GroupKind("kueue.x-k8s.io", "Topology"), Role.TOPOLOGY),
    Wanted(GroupKind("kueue.x-k8s.io", "Workload"), Role.QUEUE_WORKLOAD),
    Wanted(GroupKind("kueue.x-k8s.io", "LocalQueue"), Role.LOCAL_QUEUE),
    Wanted(GroupKind("kueue.x-k8s.io", "ClusterQueue"), Role.CLUSTER_QUEUE),
)


def wanted_kinds(definitions: Definitions) -> tuple[Wanted, ...]:
    """Everything to watch: the defined kinds, those between them and their pods, and what describes them."""
    owners = tuple(
        Wanted(GroupKind(found.group, found.kind), Role.OWNER, is_metadata=not found.is_whole)
        for found in definitions.watched()
        if GroupKind(found.group, found.kind) != POD
    )
    taken = {wanted.key for wanted in owners}
    return (
        Wanted(POD, Role.POD),
        *owners,
        *(wanted for wanted in _BESIDES if wanted.key not in taken),
    )


def root_kinds(definitions: Definitions) -> frozenset[GroupKind]:
    """Kinds that are workloads even while they have no pods."""
    return frozenset(
        GroupKind(found.group, found.kind)
        for found in definitions.watched()
        if found.is_whole and GroupKind(found.group, found.kind) != POD
    )
