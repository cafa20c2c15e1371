"""A workload's state as Kubernetes objects, owners first: the order in which they are created and deleted."""

from collections.abc import Mapping

from simulator.manifests.kubelet import pod_status
from simulator.manifests.objects import (
    GRACE_SECONDS,
    Document,
    metadata,
    owner_reference,
    pod_annotations,
    root_annotations,
    root_labels,
    scheduling_labels,
    stamp,
    template_spec,
)
from simulator.manifests.owners import Owners, owners_of, services_of
from simulator.manifests.pod_groups import pod_group, pod_group_name
from simulator.model.hardware import Node
from simulator.model.model import Shape, SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import KAI, PRIORITIES
from simulator.resources import POD_GROUPS, PODS, ResourceType

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
