"""Kubernetes objects that every kind of workload shares: metadata, pods, services, PodGroups.

Rendered from the scenario's state in the form that API servers, kubelets and schedulers give them.
"""

from datetime import UTC, datetime
from typing import Any

from simulator.model.mixture import UNKNOWN
from simulator.model.model import Refusal, Seconds, Shape, SimulatedPod, SimulatedWorkload
from simulator.model.names import BAD_IMAGE_TAG, COMMANDS, IMAGES
from simulator.model.pod_layout import child_uid
from simulator.model.scheduler import KAI, hundredths, is_fixed

Document = dict[str, Any]
GPU = "nvidia.com/gpu"
POOL_LABEL = "kai.scheduler/node-pool"
QUEUE_LABEL = "kai.scheduler/queue"
BLOCK_LABEL = "topology.example.com/block"
RACK_LABEL = "topology.example.com/rack"
TOPOLOGY = "datacenter"
GRACE_SECONDS = 30


def stamp(moment: Seconds) -> str:
    """A moment as Kubernetes writes it: whole seconds, UTC."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner_reference(api_version: str, kind: str, name: str, uid: str) -> Document:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(
    *,
    name: str,
    namespace: str | None,
    uid: str,
    created_at: Seconds,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: Document | None = None,
) -> Document:
    document: Document = {"name": name}
    if namespace is not None:
        document["namespace"] = namespace
    document |= {"uid": uid, "creationTimestamp": stamp(created_at)}
    if labels:
        document["labels"] = labels
    if annotations:
        document["annotations"] = annotations
    if owner is not None:
        document["ownerReferences"] = [owner]
    return document


def root_metadata(
    workload: SimulatedWorkload,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Document:
    """The top owner's, with what its user wrote on it, and the marks of a foreground deletion."""
    document = metadata(
        name=workload.name,
        namespace=workload.namespace,
        uid=workload.uid,
        created_at=workload.created_at,
        labels=root_labels(workload) | (labels or {}),
        annotations=root_annotations(workload) | (annotations or {}),
    )
    if workload.deleted_at:
        document["deletionTimestamp"] = stamp(workload.deleted_at)
        document["deletionGracePeriodSeconds"] = 0
        document["finalizers"] = ["foregroundDeletion"]
    return document


def child_metadata(
    workload: SimulatedWorkload, key: str, name: str, labels: dict[str, str], owner: Document
) -> Document:
    return metadata(
        name=name,
        namespace=workload.namespace,
        uid=child_uid(workload, key),
        created_at=workload.children.get(key, workload.created_at),
        labels=labels,
        owner=owner,
    )


def root_labels(workload: SimulatedWorkload) -> dict[str, str]:
    labels = {"app": workload.name, "project": workload.project}
    if workload.scheduler == KAI:
        labels[QUEUE_LABEL] = workload.project
        labels["priorityClassName"] = workload.priority_class
    if workload.release:
        labels |= {
            "app.kubernetes.io/instance": workload.release,
            "app.kubernetes.io/managed-by": "Helm",
            "helm.sh/chart": f"{workload.release}-1.4.0",
        }
    return labels


def root_annotations(workload: SimulatedWorkload) -> dict[str, str]:
    annotations = {"user": workload.user}
    if workload.release:
        annotations["meta.helm.sh/release-name"] = workload.release
        annotations["meta.helm.sh/release-namespace"] = workload.namespace
    if workload.topology:
        annotations["kai.scheduler/topology"] = TOPOLOGY
        annotations[f"kai.scheduler/topology-{workload.topology}-placement"] = RACK_LABEL
    return annotations


def resources(shape: Shape) -> Document:
    requests = {"cpu": f"{shape.cpu_millis}m", "memory": f"{shape.memory_mib}Mi"}
    devices = {}
    if shape.gpus:
        devices[GPU] = str(shape.gpus)
    if shape.mig:
        devices[f"nvidia.com/mig-{shape.mig}"] = "1"
    limits = {"memory": f"{shape.memory_mib}Mi"} | devices
    return {"limits": limits, "requests": requests | devices}


def container(workload: SimulatedWorkload, shape: Shape, revision: int) -> Document:
    """The container as its author wrote it, for templates."""
    command, arguments = COMMANDS[shape.image]
    document: Document = {"name": shape.container, "image": image(workload, shape, revision)}
    if command:
        document |= {"command": command, "args": arguments}
    document["env"] = [
        {"name": "MODEL", "value": workload.name.split("-")[0]},
        {"name": "LOG_LEVEL", "value": "info"},
        {
            "name": "API_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "model-hub", "key": "token"}},
        },
    ]
    if workload.family in ("serving", "serverless"):
        document["ports"] = [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]
    document["resources"] = resources(shape)
    return document


def image(workload: SimulatedWorkload, shape: Shape, revision: int) -> str:
    """Later revisions have later tags; a stuck start asks for a tag that does not exist."""
    name, _, tag = IMAGES[shape.image].rpartition(":")
    if any(pod.stage == "stuck" for pod in workload.pods):
        return f"{name}:{BAD_IMAGE_TAG}"
    return f"{name}:{tag}" if revision == 1 else f"{name}:{tag}-r{revision}"


def pod_annotations(workload: SimulatedWorkload, shape: Shape) -> dict[str, str]:
    annotations = {"user": workload.user}
    if shape.fraction_percent:
        annotations["gpu-fraction"] = f"{shape.fraction_percent / 100:g}"
    if shape.gpu_memory_mib:
        annotations["gpu-memory"] = str(shape.gpu_memory_mib)
    return annotations


def pod_template(
    workload: SimulatedWorkload,
    role: str,
    labels: dict[str, str] | None = None,
    restart: str = "Always",
) -> Document:
    """What an owner says of its pods."""
    shape = workload.shape(role)
    return {
        "metadata": {
            "labels": scheduling_labels(workload) | (labels or {}),
            "annotations": pod_annotations(workload, shape),
        },
        "spec": template_spec(workload, shape, workload.revision) | {"restartPolicy": restart},
    }


def scheduling_labels(workload: SimulatedWorkload) -> dict[str, str]:
    labels = {"app": workload.name, "project": workload.project}
    return labels | {QUEUE_LABEL: workload.project} if workload.scheduler == KAI else labels


def template_spec(workload: SimulatedWorkload, shape: Shape, revision: int) -> Document:
    pool = workload.pool if shape.wants_gpu else "cpu"
    return {
        "containers": [container(workload, shape, revision)],
        "schedulerName": workload.scheduler,
        "nodeSelector": {POOL_LABEL: pool},
        "priorityClassName": workload.priority_class,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }


def pod_group_name(workload: SimulatedWorkload, pod: SimulatedPod) -> str:
    """One group per pod for replicas of one template, else one per gang."""
    if pod.gang.startswith("pod-"):
        return f"pg-{pod.name}-{pod.uid}"
    if pod.gang == "main":
        return f"pg-{workload.name}-{workload.uid}"
    return f"pg-{workload.name}-{workload.uid}-{pod.gang}"


def pod_group(
    workload: SimulatedWorkload, gang: list[SimulatedPod], owner: Document, top: Document
) -> Document:
    """KAI's PodGroup over pods that are placed together; `top` is whom it takes for their top owner."""
    first = gang[0]
    return {
        "metadata": metadata(
            name=pod_group_name(workload, first),
            namespace=workload.namespace,
            uid=child_uid(workload, pod_group_name(workload, first)),
            created_at=min(pod.created_at for pod in gang),
            labels={POOL_LABEL: workload.pool, QUEUE_LABEL: workload.project},
            annotations=_group_annotations(workload, first, top),
            owner=owner | {"controller": False},
        ),
        "spec": _group_spec(workload, gang),
        "status": _group_status(workload, gang),
    }


def _group_annotations(
    workload: SimulatedWorkload, first: SimulatedPod, top: Document
) -> dict[str, str]:
    group, _, version = top["apiVersion"].rpartition("/")
    annotations = {
        "kai.scheduler/top-owner-metadata": (
            f"name: {top['name']}\nuid: {top['uid']}\ngroup: {group}\n"
            f"version: {version}\nkind: {top['kind']}\n"
        ),
        "user": workload.user,
    }
    placed_at = workload.placements.get(first.gang)
    if placed_at:
        annotations["kai.scheduler/last-start-timestamp"] = stamp(placed_at)
    return annotations


def _group_spec(workload: SimulatedWorkload, gang: list[SimulatedPod]) -> Document:
    spec: Document = {
        "minMember": 1 if workload.kind == UNKNOWN else len(gang),
        "queue": workload.project,
        "priorityClassName": workload.priority_class,
        "preemptibility": "non-preemptible" if is_fixed(workload) else "preemptible",
        "schedulingBackoff": 1,
    }
    if workload.topology:
        spec["topologyConstraint"] = {
            "topology": TOPOLOGY,
            f"{workload.topology}TopologyLevel": RACK_LABEL,
        }
    return spec


def _group_status(workload: SimulatedWorkload, gang: list[SimulatedPod]) -> Document:
    status: Document = {
        "resourcesStatus": {
            "requested": gpu_quantity(
                sum(_weight(workload, pod) for pod in gang if not pod.is_over)
            ),
            "allocated": gpu_quantity(
                sum(_weight(workload, pod) for pod in gang if pod.holds_resources)
            ),
        }
    }
    refusal = workload.refusals.get(gang[0].gang)
    if refusal is not None:
        status["schedulingConditions"] = [_group_condition(workload, gang[0], refusal)]
    return status


def _weight(workload: SimulatedWorkload, pod: SimulatedPod) -> int:
    shape = workload.shape(pod.role)
    return hundredths(shape, workload.pool if shape.wants_gpu else "cpu")


def gpu_quantity(amount: int) -> dict[str, str]:
    """Hundredths of GPUs as a resource list; parts are written in thousandths."""
    return {GPU: f"{amount // 100}" if amount % 100 == 0 else f"{amount * 10}m"}


def _group_condition(
    workload: SimulatedWorkload, first: SimulatedPod, refusal: Refusal
) -> Document:
    reason: Document = {"reason": refusal.reason, "message": refusal.message}
    if refusal.queue:
        details: Document = {
            "name": refusal.queue,
            "podGroupRequestedResources": gpu_quantity(refusal.requested),
            "queueRequestedResources": gpu_quantity(refusal.allocated + refusal.requested),
            "queueAllocatedResources": gpu_quantity(refusal.allocated),
            "queueAllocatedNonPreemptibleResources": gpu_quantity(refusal.allocated_fixed),
            "queueDeservedResources": gpu_quantity(refusal.quota),
        }
        if refusal.limit >= 0:
            details["queueResourceLimits"] = gpu_quantity(refusal.limit)
        reason["details"] = {"queueDetails": details}
    return {
        "type": "UnschedulableOnNodePool",
        "nodePool": workload.pool,
        "status": "True",
        "reason": "Unschedulable",
        "message": refusal.message,
        "reasons": [reason],
        "transitionID": "1",
        "lastTransitionTime": stamp(first.refused_at or first.created_at),
    }
