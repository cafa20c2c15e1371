"""KAI's PodGroups: what is placed together, and why it is not."""

from watchbill.demo.anatomy import child_uid
from watchbill.demo.model import Pod, Refusal, Workload
from watchbill.demo.objects import (
    GPU,
    POOL_LABEL,
    QUEUE_LABEL,
    RACK_LABEL,
    TOPOLOGY,
    Document,
    metadata,
    stamp,
)
from watchbill.demo.scheduler import hundredths, is_fixed


def pod_group_name(workload: Workload, pod: Pod) -> str:
    """One group per pod for replicas of one template, else one per gang."""
    if pod.gang.startswith("pod-"):
        return f"pg-{pod.name}-{pod.uid}"
    if pod.gang == "main":
        return f"pg-{workload.name}-{workload.uid}"
    return f"pg-{workload.name}-{workload.uid}-{pod.gang}"


def pod_group(workload: Workload, gang: list[Pod], owner: Document) -> Document:
    """KAI's PodGroup over pods that are placed together."""
    first = gang[0]
    requested = sum(
        hundredths(workload.shape(p.role), _pool(workload, p)) for p in gang if not p.is_over
    )
    allocated = sum(
        hundredths(workload.shape(p.role), _pool(workload, p)) for p in gang if p.holds_resources
    )
    kind, api_version = owner["kind"], owner["apiVersion"]
    group, _, version = api_version.rpartition("/")
    placed_at = workload.placements.get(first.gang)
    annotations = {
        "kai.scheduler/top-owner-metadata": (
            f"name: {owner['name']}\nuid: {owner['uid']}\ngroup: {group}\n"
            f"version: {version}\nkind: {kind}\n"
        ),
        "user": workload.user,
    }
    if placed_at:
        annotations["kai.scheduler/last-start-timestamp"] = stamp(placed_at)
    spec: Document = {
        "minMember": 1 if workload.kind == "TuningStudy" else len(gang),
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
    status: Document = {
        "resourcesStatus": {
            "requested": gpu_quantity(requested),
            "allocated": gpu_quantity(allocated),
        }
    }
    refusal = workload.refusals.get(first.gang)
    if refusal is not None:
        status["schedulingConditions"] = [_condition(workload, first, refusal)]
    return {
        "metadata": metadata(
            name=pod_group_name(workload, first),
            namespace=workload.namespace,
            uid=child_uid(workload, pod_group_name(workload, first)),
            created_at=min(pod.created_at for pod in gang),
            labels={POOL_LABEL: workload.pool, QUEUE_LABEL: workload.project},
            annotations=annotations,
            owner=owner | {"controller": False},
        ),
        "spec": spec,
        "status": status,
    }


def _pool(workload: Workload, pod: Pod) -> str:
    return workload.pool if workload.shape(pod.role).wants_gpu else "cpu"


def gpu_quantity(amount: int) -> dict[str, str]:
    """Hundredths of GPUs as a resource list; parts are written in thousandths."""
    return {GPU: f"{amount // 100}" if amount % 100 == 0 else f"{amount * 10}m"}


def _condition(workload: Workload, first: Pod, refusal: Refusal) -> Document:
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
