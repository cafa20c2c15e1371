"""The kinds that the agent watches, and the role of each."""

from dataclasses import dataclass
from enum import Enum

from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.objects.objects import GroupKind


class WatchRole(Enum):
    POD = "pod"
    OWNER = "owner"
    """It may own pods, through others or directly."""
    ROUTING = "routing"
    """It routes to pods of its namespace."""
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
    REFERENCE_GRANT = "reference grant"
    """A namespace's permission for routes of others to lead to its services."""
    CLAIM = "claim"
    """Devices that pods request by name."""
    CLAIM_TEMPLATE = "claim template"
    DEVICE_CLASS = "device class"
    """What devices pods ask for by its name."""
    DEVICE_TAINT_RULE = "device taint rule"
    DEVICE_SLICE = "device slice"
    """Devices that a driver offers on a node."""
    PRIORITY_CLASS = "priority class"
    TOPOLOGY = "topology"
    SHARD = "shard"
    NODE = "node"
    NAMESPACE = "namespace"
    KIND = "kind"
    """A CustomResourceDefinition: its kind comes and goes with it."""


DEVICE_ROLES = frozenset(
    {WatchRole.DEVICE_CLASS, WatchRole.DEVICE_TAINT_RULE, WatchRole.DEVICE_SLICE}
)
"""Without what they say numbers of devices are not known, or not all of them."""


@dataclass(frozen=True, slots=True)
class WatchedKind:
    """One kind to watch, in whichever version the server prefers."""

    key: GroupKind
    role: WatchRole
    is_metadata: bool = False
    field_selector: str = ""
    """Only on immutable fields: an object that leaves a selection looks deleted."""

    @property
    def is_workload_kind(self) -> bool:
        return self.role in (WatchRole.POD, WatchRole.OWNER)


POD = GroupKind("", "Pod")
NODE = GroupKind("", "Node")
REPLICA_SET = GroupKind("apps", "ReplicaSet")
KIND = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")

_OTHER_KINDS = (
    WatchedKind(KIND, WatchRole.KIND, is_metadata=True),
    WatchedKind(NODE, WatchRole.NODE),
    WatchedKind(GroupKind("", "Namespace"), WatchRole.NAMESPACE, is_metadata=True),
    WatchedKind(GroupKind("", "Service"), WatchRole.ROUTING),
    WatchedKind(GroupKind("networking.k8s.io", "Ingress"), WatchRole.ROUTING),
    WatchedKind(GroupKind("gateway.networking.k8s.io", "HTTPRoute"), WatchRole.ROUTING),
    WatchedKind(GroupKind("gateway.networking.k8s.io", "GRPCRoute"), WatchRole.ROUTING),
    WatchedKind(GroupKind("gateway.networking.k8s.io", "Gateway"), WatchRole.GATEWAY),
    WatchedKind(
        GroupKind("gateway.networking.k8s.io", "ReferenceGrant"), WatchRole.REFERENCE_GRANT
    ),
    WatchedKind(GroupKind("inference.networking.k8s.io", "InferencePool"), WatchRole.ROUTING),
    WatchedKind(GroupKind("inference.networking.x-k8s.io", "InferencePool"), WatchRole.ROUTING),
    WatchedKind(GroupKind("route.openshift.io", "Route"), WatchRole.ROUTING),
    WatchedKind(GroupKind("networking.istio.io", "VirtualService"), WatchRole.ROUTING),
    WatchedKind(GroupKind("networking.istio.io", "Gateway"), WatchRole.ISTIO_GATEWAY),
    WatchedKind(GroupKind("resource.k8s.io", "ResourceClaim"), WatchRole.CLAIM),
    WatchedKind(GroupKind("resource.k8s.io", "ResourceClaimTemplate"), WatchRole.CLAIM_TEMPLATE),
    WatchedKind(GroupKind("resource.k8s.io", "DeviceClass"), WatchRole.DEVICE_CLASS),
    WatchedKind(GroupKind("resource.k8s.io", "DeviceTaintRule"), WatchRole.DEVICE_TAINT_RULE),
    WatchedKind(GroupKind("resource.k8s.io", "ResourceSlice"), WatchRole.DEVICE_SLICE),
    WatchedKind(GroupKind("autoscaling", "HorizontalPodAutoscaler"), WatchRole.AUTOSCALER),
    WatchedKind(GroupKind("keda.sh", "ScaledObject"), WatchRole.AUTOSCALER),
    WatchedKind(GroupKind("", "Event"), WatchRole.EVENT),
    WatchedKind(GroupKind("scheduling.k8s.io", "PriorityClass"), WatchRole.PRIORITY_CLASS),
    WatchedKind(GroupKind("scheduling.k8s.io", "PodGroup"), WatchRole.POD_GROUP),
    WatchedKind(GroupKind("scheduling.run.ai", "Queue"), WatchRole.QUEUE),
    WatchedKind(GroupKind("scheduling.run.ai", "PodGroup"), WatchRole.POD_GROUP),
    WatchedKind(GroupKind("scheduling.volcano.sh", "PodGroup"), WatchRole.POD_GROUP),
    WatchedKind(GroupKind("scheduling.volcano.sh", "Queue"), WatchRole.VOLCANO_QUEUE),
    WatchedKind(GroupKind("kai.scheduler", "Topology"), WatchRole.TOPOLOGY),
    WatchedKind(GroupKind("kai.scheduler", "SchedulingShard"), WatchRole.SHARD),
    WatchedKind(GroupKind("kueue.x-k8s.io", "Topology"), WatchRole.TOPOLOGY),
    WatchedKind(GroupKind("kueue.x-k8s.io", "Workload"), WatchRole.QUEUE_WORKLOAD),
    WatchedKind(GroupKind("kueue.x-k8s.io", "LocalQueue"), WatchRole.LOCAL_QUEUE),
    WatchedKind(GroupKind("kueue.x-k8s.io", "ClusterQueue"), WatchRole.CLUSTER_QUEUE),
)


def watched_kinds(definitions: Definitions) -> tuple[WatchedKind, ...]:
    """All kinds to watch: the defined ones, those between them and their pods, and the related ones."""
    owners = tuple(
        WatchedKind(
            GroupKind(definition.group, definition.kind),
            WatchRole.OWNER,
            is_metadata=not definition.is_whole,
        )
        for definition in definitions.watched()
        if GroupKind(definition.group, definition.kind) != POD
    )
    owner_keys = {kind.key for kind in owners}
    return (
        WatchedKind(POD, WatchRole.POD),
        *owners,
        *(kind for kind in _OTHER_KINDS if kind.key not in owner_keys),
    )


def root_kinds(definitions: Definitions) -> frozenset[GroupKind]:
    """Kinds that are workloads even while they have no pods."""
    return frozenset(
        GroupKind(definition.group, definition.kind)
        for definition in definitions.watched()
        if definition.is_whole and GroupKind(definition.group, definition.kind) != POD
    )
