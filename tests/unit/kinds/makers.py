"""Kubernetes objects for tests, as short as the point of each test allows."""

import copy
from collections.abc import Sequence
from typing import Any

from tests.unit.kinds.lives import SETTINGS, definitions
from watchbill.kinds.derive import Derived, DeriveSettings, derive
from watchbill.kinds.objects import ClusterObjects, WorkloadObjects
from watchbill.kinds.pod import read_pod
from watchbill.workload import Workload

JSON = dict[str, Any]
T0 = "2026-05-04T10:00:00Z"


def at(minutes: int, seconds: int = 0) -> str:
    return f"2026-05-04T{10 + minutes // 60:02}:{minutes % 60:02}:{seconds:02}Z"


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def meta(name: str, number: int, **more: Any) -> JSON:
    return {
        "name": name,
        "namespace": "vision",
        "uid": uid(number),
        "resourceVersion": "",
        "creationTimestamp": T0,
        **more,
    }


def condition(kind: str, status: str = "True", **more: Any) -> JSON:
    return {"type": kind, "status": status, "lastTransitionTime": at(5), **more}


def container(**more: Any) -> JSON:
    return {"name": "main", "image": "registry.example/train:1", **more}


def gpus(number: int) -> JSON:
    return {"limits": {"nvidia.com/gpu": str(number)}}


def template(**container_fields: Any) -> JSON:
    return {"spec": {"containers": [container(**container_fields)]}}


def root(
    api_version: str,
    kind: str,
    *,
    spec: JSON | None = None,
    status: JSON | None = None,
    name: str = "w",
    **metadata: Any,
) -> JSON:
    found = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": meta(name, 1, **metadata),
        "spec": spec or {},
    }
    return found if status is None else found | {"status": status}


def pod(number: int, state: str = "ready", **more: Any) -> JSON:
    """A pod of the root in one of the usual states; `more` goes over metadata and spec by prefix."""
    metadata = {key[5:]: value for key, value in more.items() if key.startswith("meta_")}
    spec = {key[5:]: value for key, value in more.items() if key.startswith("spec_")}
    status = {key[7:]: value for key, value in more.items() if key.startswith("status_")}
    owner = {"apiVersion": "x/v1", "kind": "X", "name": "w", "uid": uid(1), "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(f"w-{number}", 100 + number) | {"ownerReferences": [owner]} | metadata,
        "spec": {"containers": [container()]} | _SPECS[state] | spec,
        "status": copy.deepcopy(_STATUSES[state]) | status,
    }


_PLACED = {"nodeName": "node-1"}
_SPECS: dict[str, JSON] = {
    "ready": _PLACED,
    "starting": _PLACED,
    "lost": _PLACED,
    "pulling": _PLACED,
    "crashing": _PLACED,
    "succeeded": _PLACED,
    "failed": _PLACED,
    "waiting": {},
}
_SCHEDULED = condition("PodScheduled", lastTransitionTime=at(1))


def _container_status(state: JSON, *, ready: bool = False, restarts: int = 0, **more: Any) -> JSON:
    return {"name": "main", "state": state, "ready": ready, "restartCount": restarts, **more}


_RUNNING = {"running": {"startedAt": at(2)}}
_STATUSES: dict[str, JSON] = {
    "ready": {
        "phase": "Running",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", lastTransitionTime=at(3))],
        "containerStatuses": [_container_status(_RUNNING, ready=True)],
    },
    "starting": {
        "phase": "Running",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(1))],
        "containerStatuses": [_container_status(_RUNNING)],
    },
    "lost": {
        "phase": "Running",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(9))],
        "containerStatuses": [_container_status(_RUNNING)],
    },
    "pulling": {
        "phase": "Pending",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(1))],
        "containerStatuses": [
            _container_status(
                {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
            )
        ],
    },
    "crashing": {
        "phase": "Running",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(3))],
        "containerStatuses": [
            _container_status(
                {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
                restarts=3,
                lastState={"terminated": {"exitCode": 1, "reason": "Error"}},
            )
        ],
    },
    "succeeded": {
        "phase": "Succeeded",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(8))],
        "containerStatuses": [
            _container_status(
                {"terminated": {"exitCode": 0, "startedAt": at(2), "finishedAt": at(8)}}
            )
        ],
    },
    "failed": {
        "phase": "Failed",
        "startTime": at(1),
        "conditions": [_SCHEDULED, condition("Ready", "False", lastTransitionTime=at(8))],
        "containerStatuses": [
            _container_status(
                {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "OOMKilled",
                        "startedAt": at(2),
                        "finishedAt": at(8),
                    }
                }
            )
        ],
    },
    "waiting": {
        "phase": "Pending",
        "conditions": [
            condition(
                "PodScheduled",
                "False",
                reason="Unschedulable",
                message="0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
                lastTransitionTime=at(1),
            )
        ],
    },
}


def gather(found: JSON, pods: Sequence[JSON] = (), **more: Any) -> WorkloadObjects:
    return WorkloadObjects(
        **{
            "root": found,
            "is_chain_truncated": False,
            "is_root_listed": True,
            "pods": [read_pod(item) for item in pods],
            "children": (),
            "services": (),
            "pod_groups": (),
            "queue_workloads": (),
            "cluster": ClusterObjects(),
        }
        | more
    )


def derived(
    found: JSON, pods: Sequence[JSON] = (), settings: DeriveSettings = SETTINGS, **more: Any
) -> Derived:
    return derive(gather(found, pods, **more), definitions(), settings)


def workload(found: JSON, pods: Sequence[JSON] = (), **more: Any) -> Workload:
    return derived(found, pods, **more).record.workload


def deployment(replicas: int = 2, status: JSON | None = None, **more: Any) -> JSON:
    spec = {"replicas": replicas, "template": template()} | more
    return root("apps/v1", "Deployment", spec=spec, status=status)


def job(status: JSON | None = None, **spec: Any) -> JSON:
    return root("batch/v1", "Job", spec={"template": template()} | spec, status=status)


def pytorch(
    status: JSON | None = None, *, masters: int = 1, workers: int = 2, gpu: int = 2, **more: Any
) -> JSON:
    spec = {
        "pytorchReplicaSpecs": {
            "Master": {"replicas": masters, "template": template(resources=gpus(gpu))},
            "Worker": {"replicas": workers, "template": template(resources=gpus(gpu))},
        }
    }
    spec |= more.pop("spec", {})
    return root("kubeflow.org/v1", "PyTorchJob", spec=spec, status=status, **more)


def pod_group(**more: Any) -> JSON:
    """A KAI PodGroup of the root."""
    spec = {"queue": "team-a"} | more.pop("spec", {})
    status = more.pop("status", {})
    owner = {"apiVersion": "x/v1", "kind": "X", "name": "w", "uid": uid(1)}
    return {
        "apiVersion": "scheduling.run.ai/v2alpha2",
        "kind": "PodGroup",
        "metadata": meta("pg-w", 50, ownerReferences=[owner], **more),
        "spec": spec,
        "status": status,
    }


def queue(name: str, parent: str = "", **spec: Any) -> JSON:
    if parent:
        spec["parentQueue"] = parent
    return {
        "apiVersion": "scheduling.run.ai/v2",
        "kind": "Queue",
        "metadata": {"name": name},
        "spec": spec,
    }
