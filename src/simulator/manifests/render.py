"""A workload's state as Kubernetes objects, owners first: the order in which they are created and deleted.

With the status that scheduler and kubelet give a pod.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from simulator.manifests.objects import (
    GRACE_SECONDS,
    Document,
    image,
    metadata,
    owner_reference,
    pod_annotations,
    pod_group,
    pod_group_name,
    resources,
    root_annotations,
    root_labels,
    scheduling_labels,
    stamp,
    template_spec,
)
from simulator.manifests.owners import Owners, owners_of, services_of
from simulator.model.hardware import Node
from simulator.model.model import Refusal, Shape, SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import KAI, PRIORITIES
from simulator.resources import POD_GROUPS, PODS, ResourceType

_READY_STAGES = ("running",)
_EXIT_CODES = {"OOMKilled": 137, "Error": 1, "Completed": 0, "Evicted": 143}
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105


def pod_spec(workload: SimulatedWorkload, pod: SimulatedPod, restart: str) -> Document:
    shape = workload.shape(pod.role)
    volume = f"kube-api-access-{pod.uid[:5]}"
    spec = template_spec(workload, shape, pod.revision)
    written = spec["containers"][0]
    written |= {
        "volumeMounts": [{"name": volume, "readOnly": True, "mountPath": _TOKEN_PATH}],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
    ]
    spec["volumes"] = [{"name": volume, "projected": {"sources": sources, "defaultMode": 420}}]
    spec |= {
        "restartPolicy": restart,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "tolerations": [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        ],
        "priority": PRIORITIES[workload.priority_class],
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    if pod.node:
        spec["nodeName"] = pod.node
    return spec


def pod_metadata(
    workload: SimulatedWorkload,
    pod: SimulatedPod,
    *,
    owner: Document | None,
    labels: dict[str, str],
    node: Node | None,
) -> Document:
    shape = workload.shape(pod.role)
    pod_labels = scheduling_labels(workload) | labels
    annotations = pod_annotations(workload, shape)
    if workload.scheduler == KAI:
        annotations["pod-group-name"] = pod_group_name(workload, pod)
        pod_labels["kai.scheduler/subgroup-name"] = pod.role
        if pod.node:
            annotations["received-resource-type"] = _received(shape)
    if pod.grant.group:
        pod_labels["runai-gpu-group"] = pod.grant.group
    if node is not None:
        pod_labels["topology.kubernetes.io/region"] = "region-1"
        pod_labels["topology.kubernetes.io/zone"] = node.zone
    document = metadata(
        name=pod.name,
        namespace=workload.namespace,
        uid=pod.uid,
        created_at=pod.created_at,
        labels=pod_labels,
        annotations=annotations,
        owner=owner,
    )
    if pod.deleted_at:
        document["deletionTimestamp"] = stamp(pod.deleted_at + GRACE_SECONDS)
        document["deletionGracePeriodSeconds"] = GRACE_SECONDS
    return document


def _received(shape: Shape) -> str:
    if shape.mig:
        return "MigInstance"
    return "Fraction" if shape.fraction_percent or shape.gpu_memory_mib else "Regular"


Rendered = list[tuple[ResourceType, Document]]


def render(workload: SimulatedWorkload, nodes: Mapping[str, Node]) -> Rendered:
    """Everything that belongs to the workload now."""
    owners = owners_of(workload)
    root = owners.references.get("")
    documents: Rendered = [] if workload.is_root_gone else list(owners.documents)
    if root is not None and not workload.is_root_gone:
        documents += services_of(workload, root)
    if workload.scheduler == KAI:
        documents += _pod_groups(workload, owners.references)
    documents += [(PODS, _pod(workload, pod, owners, nodes.get(pod.node))) for pod in workload.pods]
    return documents


def _pod(
    workload: SimulatedWorkload, pod: SimulatedPod, owners: Owners, node: Node | None
) -> Document:
    owner = None if workload.kind == "Pod" else owners.references[pod.owner]
    head = pod_metadata(workload, pod, owner=owner, labels=owners.labels(pod), node=node)
    if workload.kind == "Pod":
        head["labels"] = root_labels(workload) | head["labels"]
        head["annotations"] = root_annotations(workload) | head["annotations"]
    return {
        "metadata": head,
        "spec": pod_spec(workload, pod, owners.restart),
        "status": pod_status(workload, pod, node),
    }


def _pod_groups(workload: SimulatedWorkload, references: Mapping[str, Document]) -> Rendered:
    """Groups of pods that are not being deleted; one whose owner is gone goes with it.

    Replicas have a group each, owned by the pod; a scheduled run's group belongs to its job.
    """
    gangs: dict[str, list[SimulatedPod]] = {}
    for pod in workload.pods:
        if not pod.deleted_at:
            gangs.setdefault(pod.gang, []).append(pod)
    root = references.get("")
    groups: Rendered = []
    for name, gang in gangs.items():
        itself = owner_reference("v1", "Pod", gang[0].name, gang[0].uid)
        if root is None:
            groups.append((POD_GROUPS, pod_group(workload, gang, itself, itself)))
        elif name.startswith("pod-"):
            groups.append((POD_GROUPS, pod_group(workload, gang, itself, root)))
        elif not workload.is_root_gone:
            owner = references[name] if name.startswith("run-") else root
            groups.append((POD_GROUPS, pod_group(workload, gang, owner, owner)))
    return groups


def pod_status(workload: SimulatedWorkload, pod: SimulatedPod, node: Node | None) -> Document:
    """Unplaced pods have little to say; placed ones carry conditions and container states."""
    if node is None:
        return _unplaced(workload.refusals.get(pod.gang), pod)
    status: Document = {
        "observedGeneration": 0,
        "phase": _phase(pod),
        "conditions": _conditions(workload, pod),
    }
    if pod.reason == "Evicted":
        status |= {
            "reason": "Evicted",
            "message": "The node was low on resource: ephemeral-storage.",
        }
    status |= {"hostIP": node.address, "hostIPs": [{"ip": node.address}]}
    if pod.started_at:
        status |= {"podIP": _address(pod), "podIPs": [{"ip": _address(pod)}]}
    status["startTime"] = stamp(pod.scheduled_at)
    status["containerStatuses"] = [_container_status(workload, pod)]
    status["qosClass"] = "Burstable"
    return status


def _unplaced(refusal: Refusal | None, pod: SimulatedPod) -> Document:
    status: Document = {"phase": "Pending", "qosClass": "Burstable"}
    if refusal is not None:
        since = pod.refused_at or pod.created_at
        status["conditions"] = [
            _condition("PodScheduled", False, since, "Unschedulable", refusal.message)
        ]
    return status


def _phase(pod: SimulatedPod) -> str:
    if pod.is_over:
        return pod.stage.capitalize()
    return "Running" if pod.started_at else "Pending"


def _conditions(workload: SimulatedWorkload, pod: SimulatedPod) -> list[Document]:
    started_at = pod.started_at or pod.scheduled_at
    over_reason = "PodCompleted" if pod.stage == "succeeded" else ""
    is_ready = pod.stage in _READY_STAGES
    changed_at = pod.finished_at or (pod.ready_at if is_ready else pod.since) or started_at
    reason, message = over_reason, ""
    if not is_ready and not pod.is_over:
        reason = "ContainersNotReady"
        message = f"containers with unready status: [{workload.shape(pod.role).container}]"
    if pod.stage == "failed":
        reason = "PodFailed"
    has_sandbox = bool(pod.started_at) and not pod.is_over
    return [
        _condition("PodReadyToStartContainers", has_sandbox, pod.finished_at or started_at),
        _condition("Initialized", True, pod.scheduled_at, over_reason),
        _condition("Ready", is_ready, changed_at, reason, message),
        _condition("ContainersReady", is_ready, changed_at, reason, message),
        _condition("PodScheduled", True, pod.scheduled_at),
    ]


def _condition(
    kind: str, is_true: bool, since: float, reason: str = "", message: str = ""
) -> Document:
    document: Document = {
        "type": kind,
        "observedGeneration": 0,
        "status": str(is_true),
        "lastProbeTime": None,
        "lastTransitionTime": stamp(since),
    }
    if reason:
        document["reason"] = reason
    if message:
        document["message"] = message
    return document


def _container_status(workload: SimulatedWorkload, pod: SimulatedPod) -> Document:
    shape = workload.shape(pod.role)
    name = image(workload, shape, pod.revision)
    requested = resources(shape)
    status: Document = {
        "name": shape.container,
        "state": _state(workload, pod),
        "lastState": _last_state(pod),
        "ready": pod.stage in _READY_STAGES,
        "restartCount": pod.restarts,
        "image": name,
        "imageID": f"{name.rpartition(':')[0]}@sha256:{_digest(name)}" if pod.started_at else "",
        "started": bool(pod.started_at) and pod.stage in _READY_STAGES,
        "allocatedResources": requested["requests"],
        "resources": requested,
    }
    if pod.started_at:
        status["containerID"] = _container_id(pod)
    return status


def _state(workload: SimulatedWorkload, pod: SimulatedPod) -> Document:
    if pod.is_over:
        return _terminated(pod, pod.finished_at, pod.restarts)
    if pod.stage == "stuck":
        name = image(workload, workload.shape(pod.role), pod.revision)
        message = f'Back-off pulling image "{name}"'
        return {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    if pod.stage == "crashing":
        message = f"back-off 40s restarting failed container={workload.shape(pod.role).container}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    if not pod.started_at:
        return {"waiting": {"reason": "ContainerCreating"}}
    return {"running": {"startedAt": stamp(pod.ready_at or pod.started_at)}}


def _last_state(pod: SimulatedPod) -> Document:
    if not pod.restarts or pod.is_over:
        return {}
    ended_at = pod.since if pod.stage == "crashing" else pod.ready_at
    return _terminated(pod, ended_at, pod.restarts - 1)


def _terminated(pod: SimulatedPod, ended_at: float, run: int) -> Document:
    reason = pod.reason or ("Completed" if pod.stage == "succeeded" else "Error")
    state: dict[str, Any] = {
        "exitCode": _EXIT_CODES.get(reason, 1),
        "reason": "Error" if reason == "Evicted" else reason,
        "startedAt": stamp(min(pod.started_at, ended_at)),
        "finishedAt": stamp(ended_at),
        "containerID": f"containerd://{_digest(f'{pod.uid}/{run}')}",
    }
    return {"terminated": state}


def _container_id(pod: SimulatedPod) -> str:
    return f"containerd://{_digest(f'{pod.uid}/{pod.restarts}')}"


def _address(pod: SimulatedPod) -> str:
    octets = hashlib.sha256(pod.uid.encode()).digest()
    return f"10.244.{octets[0]}.{octets[1] % 250 + 1}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
