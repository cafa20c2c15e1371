"""Pods as their owners and the scheduler write them; their status is the `kubelet`'s."""

from watchbill.demo.hardware import Node
from watchbill.demo.model import Pod, Shape, Workload
from watchbill.demo.objects import (
    GRACE_SECONDS,
    Document,
    metadata,
    pod_annotations,
    scheduling_labels,
    stamp,
    template_spec,
)
from watchbill.demo.pod_groups import pod_group_name
from watchbill.demo.scheduler import KAI, PRIORITIES

_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105


def pod_spec(workload: Workload, pod: Pod, restart: str) -> Document:
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
    workload: Workload,
    pod: Pod,
    *,
    owner: Document | None,
    labels: dict[str, str],
    node: Node | None,
) -> Document:
    shape = workload.shape(pod.role)
    found = scheduling_labels(workload) | labels
    annotations = pod_annotations(workload, shape)
    if workload.scheduler == KAI:
        annotations["pod-group-name"] = pod_group_name(workload, pod)
        found["kai.scheduler/subgroup-name"] = pod.role
        if pod.node:
            annotations["received-resource-type"] = _received(shape)
    if pod.grant.group:
        found["runai-gpu-group"] = pod.grant.group
    if node is not None:
        found["topology.kubernetes.io/region"] = "region-1"
        found["topology.kubernetes.io/zone"] = node.zone
    document = metadata(
        name=pod.name,
        namespace=workload.namespace,
        uid=pod.uid,
        created_at=pod.created_at,
        labels=found,
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
