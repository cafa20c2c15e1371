"""The objects of a cluster that no workload owns: namespaces, nodes, queues, priorities, the topology.

And the pods of its own: those that reserve shared GPUs, and DCGM exporters.
"""

import uuid
from collections.abc import Iterable, Mapping

from simulator.apiserver.store import Store
from simulator.manifests.objects import (
    BLOCK_LABEL,
    GPU,
    POOL_LABEL,
    RACK_LABEL,
    TOPOLOGY,
    Document,
    gpu_quantity,
    metadata,
    owner_reference,
    stamp,
)
from simulator.model.hardware import Node
from simulator.model.model import Seconds, SimulatedPod
from simulator.model.names import PROJECTS, namespace_of
from simulator.model.scheduler import PRIORITIES, Queue
from simulator.resources import (
    DAEMON_SETS,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    TOPOLOGIES,
)

RESERVATIONS = "kai-resource-reservation"
EXPORTERS_NAMESPACE = "gpu-operator"
_EXPORTER = "nvidia-dcgm-exporter"
SYSTEM_NAMESPACES = (
    "default",
    "kube-system",
    "kai-scheduler",
    RESERVATIONS,
    EXPORTERS_NAMESPACE,
)


def put_shared_objects(
    store: Store, nodes: Mapping[str, Node], queues: Mapping[str, Queue], *, built_at: Seconds
) -> None:
    """Put everything that exists before the first workload."""
    for name in SYSTEM_NAMESPACES:
        store.put(NAMESPACES, _namespace(name, built_at, {}))
    for project in PROJECTS:
        labels = {"project": project.name}
        store.put(NAMESPACES, _namespace(namespace_of(project.name), built_at, labels))
    for name, value in PRIORITIES.items():
        store.put(PRIORITY_CLASSES, _priority_class(name, value, built_at))
    levels = (BLOCK_LABEL, RACK_LABEL, "kubernetes.io/hostname")
    topology = {
        "metadata": _metadata(TOPOLOGY, built_at),
        "spec": {"levels": [{"nodeLabel": label} for label in levels]},
    }
    store.put(TOPOLOGIES, topology)
    exporter = exporter_set(built_at)
    store.put(DAEMON_SETS, exporter)
    for node in nodes.values():
        store.put(NODES, _node(node, built_at))
        if node.pool.gpus:
            store.put(PODS, exporter_pod(node, exporter, built_at))
    put_queues(store, queues.values(), built_at=built_at)


def put_queues(store: Store, queues: Iterable[Queue], *, built_at: Seconds) -> None:
    """Queues carry what they have given out."""
    for queue in queues:
        store.put(QUEUES, _queue(queue, built_at))


def _metadata(
    name: str, built_at: Seconds, labels: dict[str, str] | None = None, uid: str | None = None
) -> Document:
    return metadata(
        name=name,
        namespace=None,
        uid=uid or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{built_at}")),
        created_at=built_at,
        labels=labels,
    )


def _namespace(name: str, built_at: Seconds, labels: dict[str, str]) -> Document:
    return {
        "metadata": _metadata(name, built_at, {"kubernetes.io/metadata.name": name} | labels),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def _priority_class(name: str, value: int, built_at: Seconds) -> Document:
    return {
        "metadata": _metadata(name, built_at),
        "value": value,
        "globalDefault": False,
        "description": f"Simulated priority {value}.",
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _queue(queue: Queue, built_at: Seconds) -> Document:
    unlimited = {"quota": -1, "limit": -1, "overQuotaWeight": 1}
    spec: Document = {
        "displayName": queue.name,
        "priority": 100,
        "resources": {
            "gpu": {
                "quota": queue.quota / 100,
                "limit": -1 if queue.limit < 0 else queue.limit / 100,
                "overQuotaWeight": 1,
            },
            "cpu": unlimited,
            "memory": unlimited,
        },
    }
    if queue.parent is not None:
        spec["parentQueue"] = queue.parent.name
    if queue.min_runtime is not None:
        spec["preemptMinRuntime"] = queue.min_runtime
    return {
        "metadata": _metadata(queue.name, built_at),
        "spec": spec,
        "status": {
            "allocated": gpu_quantity(queue.allocated),
            "allocatedNonPreemptible": gpu_quantity(queue.allocated_fixed),
        },
    }


def _node_labels(node: Node) -> dict[str, str]:
    pool = node.pool
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": node.zone,
        BLOCK_LABEL: node.block,
        RACK_LABEL: node.rack,
        POOL_LABEL: pool.name,
    }
    if pool.gpus:
        labels |= {
            "nvidia.com/gpu.product": pool.product,
            "nvidia.com/gpu.count": str(pool.gpus),
            "nvidia.com/gpu.memory": str(pool.gpu_memory_mib),
            "nvidia.com/mig.strategy": "mixed" if pool.mig else "none",
        }
    return labels


def _node(node: Node, built_at: Seconds) -> Document:
    pool = node.pool
    capacity = {"cpu": f"{pool.cpu_millis}m", "memory": f"{pool.memory_mib}Mi", "pods": "110"}
    if pool.gpus:
        capacity[GPU] = "0" if pool.mig else str(pool.gpus)
        capacity |= {f"nvidia.com/mig-{profile}": str(count) for profile, count in pool.mig}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": stamp(built_at),
        "lastTransitionTime": stamp(built_at),
    }
    return {
        "metadata": _metadata(node.name, built_at, _node_labels(node), uid=node.uid),
        "spec": {"providerID": f"simulated://{node.name}"},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ],
            "nodeInfo": {
                "kubeletVersion": "v1.36.2",
                "osImage": "Simulated Linux",
                "architecture": "amd64",
            },
        },
    }


def reservation_name(node: Node, group: str) -> str:
    return f"gpu-reservation-{node.name}-{group[:5]}"


def exporter_name(node: Node) -> str:
    """The pod that exports metrics of a node's GPUs."""
    return f"{_EXPORTER}-{node.uid[:5]}-{node.name}"


def reservation_pod(node: Node, group: str, *, created_at: Seconds) -> Document:
    """The pod that holds a shared GPU for the scheduler."""
    return _plain_pod(
        node,
        name=reservation_name(node, group),
        namespace=RESERVATIONS,
        uid=str(uuid.uuid5(uuid.UUID(group), node.name)),
        created_at=created_at,
        labels={"app": "kai-resource-reservation", "runai-gpu-group": group},
        annotations={"run.ai/reserve_for_gpu_index": node.device_uuid(node.groups[group])},
        container={
            "name": "resource-reservation",
            "image": "registry.example.com/kai/reservation:0.9",
            "resources": {"limits": {GPU: "1"}, "requests": {GPU: "1"}},
        },
    )


def exporter_set(built_at: Seconds) -> Document:
    labels = {"app": _EXPORTER}
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{_EXPORTER}/{built_at}"))
    return {
        "metadata": metadata(
            name=_EXPORTER,
            namespace=EXPORTERS_NAMESPACE,
            uid=uid,
            created_at=built_at,
            labels=labels,
        ),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [_EXPORTER_CONTAINER]},
            },
        },
        "status": {"observedGeneration": 0},
    }


_EXPORTER_CONTAINER: Document = {
    "name": _EXPORTER,
    "image": "registry.example.com/monitoring/dcgm-exporter:4.2",
    "ports": [{"name": "metrics", "containerPort": 9400, "protocol": "TCP"}],
    "resources": {"limits": {}, "requests": {"cpu": "100m", "memory": "128Mi"}},
}


def exporter_pod(node: Node, exporter: Document, built_at: Seconds) -> Document:
    head = exporter["metadata"]
    return _plain_pod(
        node,
        name=exporter_name(node),
        namespace=EXPORTERS_NAMESPACE,
        uid=str(uuid.uuid5(uuid.UUID(node.uid), _EXPORTER)),
        created_at=built_at,
        labels={"app": _EXPORTER},
        annotations={},
        container=_EXPORTER_CONTAINER,
        owner=owner_reference("apps/v1", "DaemonSet", _EXPORTER, head["uid"]),
    )


def _plain_pod(
    node: Node,
    *,
    name: str,
    namespace: str,
    uid: str,
    created_at: Seconds,
    labels: dict[str, str],
    annotations: dict[str, str],
    container: Document,
    owner: Document | None = None,
) -> Document:
    """A pod of the cluster's own, which just runs."""
    return {
        "metadata": metadata(
            name=name,
            namespace=namespace,
            uid=uid,
            created_at=created_at,
            labels=labels,
            annotations=annotations,
            owner=owner,
        ),
        "spec": {
            "nodeName": node.name,
            "schedulerName": "default-scheduler",
            "containers": [container],
        },
        "status": {
            "phase": "Running",
            "hostIP": node.address,
            "podIP": node.address,
            "startTime": stamp(created_at),
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "lastProbeTime": None,
                    "lastTransitionTime": stamp(created_at),
                }
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
        },
    }


def put_reservation(store: Store, node: Node, pod: SimulatedPod) -> None:
    document = reservation_pod(node, pod.grant.group, created_at=pod.scheduled_at)
    if store.get(PODS, RESERVATIONS, document["metadata"]["name"]) is None:
        store.put(PODS, document)


def delete_reservation(store: Store, node: Node, group: str) -> None:
    """Only once nobody shares the device any more."""
    if group not in node.groups:
        store.delete(PODS, RESERVATIONS, reservation_name(node, group))
