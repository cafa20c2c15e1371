"""A workload's state as Kubernetes objects, owners first: the order in which they are made and unmade."""

from collections.abc import Callable, Mapping

from watchbill.demo.framework import FRAMEWORKS
from watchbill.demo.framework_parts import framework_parts
from watchbill.demo.fronts import fronts
from watchbill.demo.hardware import Node
from watchbill.demo.kubelet import pod_status
from watchbill.demo.model import Pod, Workload
from watchbill.demo.objects import Document, owner_reference, root_annotations, root_labels
from watchbill.demo.owners_jobs import cron_job_parts, job_parts, pod_parts
from watchbill.demo.owners_knative import knative_parts
from watchbill.demo.owners_replicas import deployment_parts, stateful_set_parts
from watchbill.demo.owners_serving import leader_worker_set_parts, nim_service_parts
from watchbill.demo.owners_sets import job_set_parts
from watchbill.demo.owners_training import pytorch_job_parts, ray_cluster_parts, tuning_study_parts
from watchbill.demo.parts import Parts
from watchbill.demo.pod_groups import pod_group
from watchbill.demo.pod_objects import pod_metadata, pod_spec
from watchbill.demo.resources import POD_GROUPS, PODS, Resource
from watchbill.demo.scheduler import KAI

Rendered = list[tuple[Resource, Document]]

_PARTS: dict[str, Callable[[Workload], Parts]] = {
    **dict.fromkeys(FRAMEWORKS, framework_parts),
    "Pod": pod_parts,
    "Job": job_parts,
    "CronJob": cron_job_parts,
    "Deployment": deployment_parts,
    "StatefulSet": stateful_set_parts,
    "PyTorchJob": pytorch_job_parts,
    "RayCluster": ray_cluster_parts,
    "JobSet": job_set_parts,
    "LeaderWorkerSet": leader_worker_set_parts,
    "KnativeService": knative_parts,
    "NIMService": nim_service_parts,
    "TuningStudy": tuning_study_parts,
}


def render(workload: Workload, nodes: Mapping[str, Node]) -> Rendered:
    """Everything that belongs to the workload now; nothing of it remains where it is gone."""
    parts = _PARTS[workload.kind](workload)
    root = parts.references.get("")
    documents: Rendered = [] if workload.is_root_gone else list(parts.owners)
    if root is not None and not workload.is_root_gone:
        documents += fronts(workload, root)
    if workload.scheduler == KAI:
        documents += _pod_groups(workload, parts.references)
    documents += [(PODS, _pod(workload, pod, parts, nodes.get(pod.node))) for pod in workload.pods]
    return documents


def _pod(workload: Workload, pod: Pod, parts: Parts, node: Node | None) -> Document:
    owner = None if workload.kind == "Pod" else parts.references[pod.owner]
    head = pod_metadata(workload, pod, owner=owner, labels=parts.labels(pod), node=node)
    if workload.kind == "Pod":
        head["labels"] = root_labels(workload) | head["labels"]
        head["annotations"] = root_annotations(workload) | head["annotations"]
    return {
        "metadata": head,
        "spec": pod_spec(workload, pod, parts.restart),
        "status": pod_status(workload, pod, node),
    }


def _pod_groups(workload: Workload, references: Mapping[str, Document]) -> Rendered:
    """Groups of pods that still matter; one that is owned by what is gone goes with it.

    Replicas have a group each, owned by the pod; a scheduled run's group belongs to its job.
    """
    gangs: dict[str, list[Pod]] = {}
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
