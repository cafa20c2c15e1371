"""The cluster's own pods: those that reserve shared GPUs, and DCGM exporters."""

import uuid

from simulator.apiserver.store import Store
from simulator.manifests.objects import GPU, Document, metadata, owner_reference, stamp
from simulator.model.hardware import Node
from simulator.model.model import Seconds, SimulatedPod
from simulator.resources import PODS

RESERVATIONS = "kai-resource-reservation"
EXPORTERS_NAMESPACE = "gpu-operator"
_EXPORTER = "nvidia-dcgm-exporter"


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
