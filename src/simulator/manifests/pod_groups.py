"""KAI's PodGroups: what is placed together, and why it is not."""

from simulator.manifests.objects import (
    GPU,
    POOL_LABEL,
    QUEUE_LABEL,
    RACK_LABEL,
    TOPOLOGY,
    Document,
    metadata,
    stamp,
)
from simulator.model.mixture import UNKNOWN
from simulator.model.model import Refusal, SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import child_uid
from simulator.model.scheduler import hundredths, is_fixed


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
            annotations=_annotations(workload, first, top),
            owner=owner | {"controller": False},
        ),
        "spec": _spec(workload, gang),
        "status": _status(workload, gang),
    }


def _annotations(workload: SimulatedWorkload, first: SimulatedPod, top: Document) -> dict[str, str]:
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


def _spec(workload: SimulatedWorkload, gang: list[SimulatedPod]) -> Document:
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


def _status(workload: SimulatedWorkload, gang: list[SimulatedPod]) -> Document:
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
        status["schedulingConditions"] = [_condition(workload, gang[0], refusal)]
    return status


def _weight(workload: SimulatedWorkload, pod: SimulatedPod) -> int:
    shape = workload.shape(pod.role)
    return hundredths(shape, workload.pool if shape.wants_gpu else "cpu")


def gpu_quantity(amount: int) -> dict[str, str]:
    """Hundredths of GPUs as a resource list; parts are written in thousandths."""
    return {GPU: f"{amount // 100}" if amount % 100 == 0 else f"{amount * 10}m"}


def _condition(workload: SimulatedWorkload, first: SimulatedPod, refusal: Refusal) -> Document:
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
