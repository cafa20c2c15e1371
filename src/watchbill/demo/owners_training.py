"""Owners that train: PyTorchJob, RayCluster, JobSet, and a kind that no catalogue knows."""

from watchbill.demo.model import Pod, Workload
from watchbill.demo.objects import Document, pod_template, root_metadata, stamp
from watchbill.demo.parts import (
    Parts,
    condition,
    moment,
    reference,
    some,
    tally,
    with_update_time,
)
from watchbill.demo.resources import (
    PYTORCH_JOBS,
    RAY_CLUSTERS,
    TUNING_STUDIES,
)

_HAS_RUN = ("running", "degraded", "completing", "completed", "failing", "failed")


def pytorch_job_parts(workload: Workload) -> Parts:
    head = root_metadata(workload)
    specs = {
        role.shape.role.capitalize(): {
            "replicas": role.replicas,
            "restartPolicy": "OnFailure",
            "template": pod_template(workload, role.shape.role, restart="OnFailure"),
        }
        for role in workload.roles
    }
    spec: Document = {
        "runPolicy": {
            "backoffLimit": 3,
            "cleanPodPolicy": "Running",
            "suspend": workload.is_suspended,
        },
        "pytorchReplicaSpecs": specs,
    }
    document: Document = {"metadata": head, "spec": spec}
    if workload.stage != "creating":
        document["status"] = _pytorch_status(workload)

    def labels(pod: Pod) -> dict[str, str]:
        found = {
            "training.kubeflow.org/job-name": workload.name,
            "training.kubeflow.org/operator-name": "pytorchjob-controller",
            "training.kubeflow.org/replica-index": str(pod.index),
            "training.kubeflow.org/replica-type": pod.role,
        }
        if pod.role == "master":
            found["training.kubeflow.org/job-role"] = "master"
        return found

    return Parts(
        owners=[(PYTORCH_JOBS, document)],
        references={"": reference(PYTORCH_JOBS, head)},
        labels=labels,
        restart="OnFailure",
    )


def _pytorch_status(workload: Workload) -> Document:
    """Conditions appear when they first become true; Running turns False at the end and on hold."""
    name = workload.name
    found = [("Created", True, workload.created_at, f"PyTorchJob {name} is created.")]
    if workload.first_ready_at:
        is_running = workload.stage in ("running", "degraded", "completing", "failing")
        since = workload.first_ready_at if is_running else workload.since
        found.append(("Running", is_running, since, f"PyTorchJob {name} is running."))
    if workload.is_suspended:
        since = moment(workload, workload.suspended_at)
        found.append(("Suspended", True, since, f"PyTorchJob {name} is suspended."))
    elif workload.resumed_at:
        found.append(("Suspended", False, workload.resumed_at, f"PyTorchJob {name} is resumed."))
    ended_at = moment(workload, workload.finished_at)
    if workload.stage == "completed":
        message = f"PyTorchJob {name} is successfully completed."
        found.append(("Succeeded", True, ended_at, message))
    if workload.stage == "failed":
        message = f"PyTorchJob {name} is failed because 1 replica(s) failed."
        found.append(("Failed", True, ended_at, message))
    reasons = {"Suspended": {True: "PyTorchJobSuspended", False: "PyTorchJobResumed"}}
    conditions = [
        with_update_time(
            condition(
                kind,
                is_true,
                since,
                reasons.get(kind, {}).get(is_true, f"PyTorchJob{kind}"),
                message,
            )
        )
        for kind, is_true, since, message in found
    ]
    status: Document = {"conditions": conditions}
    if workload.first_ready_at:
        status["startTime"] = stamp(workload.first_ready_at)
    status["replicaStatuses"] = {
        role.shape.role.capitalize(): _replica_status(workload, role.shape.role)
        for role in workload.roles
    }
    if workload.stage == "completed":
        status["completionTime"] = stamp(ended_at)
    return status


def _replica_status(workload: Workload, role: str) -> Document:
    found = tally(pod for pod in workload.pods if pod.role == role)
    active = found.active if workload.stage in _HAS_RUN else 0
    return some(active=active, succeeded=found.succeeded, failed=found.failed)


def ray_cluster_parts(workload: Workload) -> Parts:
    head = root_metadata(workload)
    group = {
        "groupName": "gpu",
        "replicas": workload.replicas("worker"),
        "minReplicas": 1,
        "maxReplicas": 10,
        "numOfHosts": 1,
        "rayStartParams": {},
        "template": pod_template(workload, "worker"),
    }
    spec = {
        "rayVersion": "2.46.0",
        "suspend": workload.is_suspended,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"},  # noqa: S104
            "template": pod_template(workload, "head"),
        },
        "workerGroupSpecs": [group],
    }
    document: Document = {"metadata": head, "spec": spec}
    if workload.stage != "creating":
        document["status"] = _ray_status(workload)

    def labels(pod: Pod) -> dict[str, str]:
        return {
            "app.kubernetes.io/created-by": "kuberay-operator",
            "app.kubernetes.io/name": "kuberay",
            "ray.io/cluster": workload.name,
            "ray.io/group": "headgroup" if pod.role == "head" else "gpu",
            "ray.io/identifier": f"{workload.name}-{pod.role}",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": pod.role,
        }

    return Parts(
        owners=[(RAY_CLUSTERS, document)],
        references={"": reference(RAY_CLUSTERS, head)},
        labels=labels,
    )


def _ray_status(workload: Workload) -> Document:
    head = tally(pod for pod in workload.pods if pod.role == "head")
    workers = tally(pod for pod in workload.pods if pod.role == "worker")
    status: Document = {
        "availableWorkerReplicas": workers.ready,
        "readyWorkerReplicas": workers.ready,
        "desiredWorkerReplicas": workload.replicas("worker"),
        "minWorkerReplicas": 1,
        "maxWorkerReplicas": 10,
        "conditions": _ray_conditions(workload, is_head_ready=head.ready > 0),
        "endpoints": {
            "client": "10001",
            "dashboard": "8265",
            "gcs-server": "6379",
            "metrics": "8080",
        },
        "head": {"serviceName": f"{workload.name}-head-svc"},
        "lastUpdateTime": stamp(workload.since or workload.created_at),
        "observedGeneration": 0,
    }
    if workload.stage == "stopped":
        status["state"] = "suspended"
    elif workload.first_ready_at and not workload.is_suspended:
        status["state"] = "ready"
    return status


def _ray_conditions(workload: Workload, *, is_head_ready: bool) -> list[Document]:
    since = moment(workload, workload.since)
    if is_head_ready:
        ready_at = moment(workload, workload.first_ready_at)
        conditions = [condition("HeadPodReady", True, ready_at, "HeadPodRunningAndReady")]
    else:
        conditions = [condition("HeadPodReady", False, since, "HeadPodNotFound")]
    if workload.first_ready_at:
        message = "All Ray Pods are ready for the first time"
        reason = "AllPodRunningAndReadyFirstTime"
        conditions.append(
            condition("RayClusterProvisioned", True, workload.first_ready_at, reason, message)
        )
    else:
        message = "RayCluster Pods are being provisioned for first time"
        conditions.append(
            condition(
                "RayClusterProvisioned",
                False,
                workload.created_at,
                "RayClusterPodsProvisioning",
                message,
            )
        )
    if workload.is_suspended:
        is_done = workload.stage == "stopped"
        reason = "RayClusterSuspended" if is_done else "UserRequested"
        conditions.append(condition("RayClusterSuspending", not is_done, since, reason))
        if is_done:
            conditions.append(condition("RayClusterSuspended", True, since, reason))
    return conditions


def tuning_study_parts(workload: Workload) -> Parts:
    """Nothing is known of this kind but what it happens to say; finished ones leave no pods."""
    head = root_metadata(workload)
    document: Document = {
        "metadata": head,
        "spec": {
            "trials": workload.replicas("trial"),
            "objective": {"metric": "loss", "goal": "minimize"},
            "template": pod_template(workload, "trial", restart="Never"),
        },
    }
    if workload.stage in ("completed", "failed"):
        document["status"] = {
            "phase": "Succeeded" if workload.stage == "completed" else "Failed",
            "completionTime": stamp(moment(workload, workload.finished_at)),
        }

    return Parts(
        owners=[(TUNING_STUDIES, document)],
        references={"": reference(TUNING_STUDIES, head)},
        labels=lambda pod: {"research.example.com/trial": str(pod.index)},
        restart="Never",
    )
