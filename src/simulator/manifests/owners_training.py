"""Built-in owners that run to an end: Pod, Job, CronJob.

Owners that train: PyTorchJob, RayCluster, JobSet, and a kind that no catalogue knows.
"""

from simulator.apiserver.resources import (
    CRON_JOBS,
    JOBS,
    PYTORCH_JOBS,
    RAY_CLUSTERS,
    TUNING_STUDIES,
    ResourceType,
)
from simulator.manifests.objects import Document, child_metadata, pod_template, root_metadata, stamp
from simulator.manifests.parts import (
    Parts,
    Tally,
    condition,
    moment,
    reference,
    some,
    tally,
    with_probe_time,
    with_update_time,
)
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import run_name
from simulator.model.slot import child_uid


def pod_parts(workload: SimulatedWorkload) -> Parts:
    """A bare pod is its own root."""
    return Parts(owners=[], references={}, restart="Never")


def job_labels(name: str, uid: str) -> dict[str, str]:
    return {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }


def job_status(
    workload: SimulatedWorkload, pods: list[SimulatedPod], *, started_at: float
) -> Document:
    """A job's status from its pods; the end is told by conditions, of which a running one has none."""
    found = tally(pods)
    conditions = [*_suspension(workload), *_job_end(workload, found)]
    status: Document = {"conditions": conditions} if conditions else {}
    if not workload.is_suspended and pods:
        status["startTime"] = stamp(started_at)
    if workload.stage == "completed":
        status["completionTime"] = stamp(moment(workload, workload.finished_at))
    is_over = workload.stage in ("completed", "failed", "failing", "completing")
    status |= some(
        active=0 if is_over else found.active, succeeded=found.succeeded, failed=found.failed
    )
    return status | {
        "terminating": found.leaving,
        "uncountedTerminatedPods": {},
        "ready": found.ready,
    }


def _suspension(workload: SimulatedWorkload) -> list[Document]:
    if workload.is_suspended:
        since = moment(workload, workload.suspended_at)
        return [
            with_probe_time(condition("Suspended", True, since, "JobSuspended", "Job suspended"))
        ]
    if workload.resumed_at:
        since = workload.resumed_at
        return [with_probe_time(condition("Suspended", False, since, "JobResumed", "Job resumed"))]
    return []


def _job_end(workload: SimulatedWorkload, found: Tally) -> list[Document]:
    ends = {
        "completed": (
            ("SuccessCriteriaMet", "Complete"),
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        ),
        "failed": (
            ("FailureTarget", "Failed"),
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ),
        "failing": (
            ("FailureTarget",),
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ),
    }
    if workload.stage not in ends:
        return []
    kinds, reason, message = ends[workload.stage]
    since = moment(workload, workload.finished_at)
    return [with_probe_time(condition(kind, True, since, reason, message)) for kind in kinds]


def job_spec(workload: SimulatedWorkload, role: str, count: int, name: str, uid: str) -> Document:
    return {
        "parallelism": count,
        "completions": count,
        "backoffLimit": 3,
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
        "manualSelector": False,
        "template": pod_template(workload, role, job_labels(name, uid), restart="OnFailure"),
        "completionMode": "NonIndexed",
        "suspend": workload.is_suspended,
        "podReplacementPolicy": "TerminatingOrFailed",
    }


def job_parts(workload: SimulatedWorkload) -> Parts:
    head = root_metadata(workload)
    started_at = moment(workload, workload.resumed_at, workload.created_at)
    document = {
        "metadata": head,
        "spec": job_spec(workload, "main", workload.replicas("main"), workload.name, workload.uid),
        "status": job_status(workload, workload.pods, started_at=started_at),
    }
    labels = job_labels(workload.name, workload.uid)
    return Parts(
        owners=[(JOBS, document)],
        references={"": reference(JOBS, head)},
        labels=lambda _: labels,
        restart="OnFailure",
    )


def cron_job_parts(workload: SimulatedWorkload) -> Parts:
    head = root_metadata(workload)
    root = reference(CRON_JOBS, head)
    document = {
        "metadata": head,
        "spec": _schedule(workload),
        "status": _schedule_status(workload),
    }
    owners: list[tuple[ResourceType, Document]] = [(CRON_JOBS, document)]
    references = {"": root}
    for key in sorted(workload.children, key=lambda key: int(key[4:])):
        job = _run(workload, int(key[4:]), key, root)
        owners.append((JOBS, job))
        references[key] = reference(JOBS, job["metadata"])

    def labels(pod: SimulatedPod) -> dict[str, str]:
        run = int(pod.owner[4:])
        return job_labels(run_name(workload, run), child_uid(workload, pod.owner))

    return Parts(owners=owners, references=references, labels=labels, restart="OnFailure")


def _schedule(workload: SimulatedWorkload) -> Document:
    template = {
        "spec": {
            "parallelism": workload.replicas("main"),
            "completions": workload.replicas("main"),
            "template": pod_template(workload, "main", restart="OnFailure"),
        }
    }
    return {
        "schedule": "*/30 * * * *",
        "concurrencyPolicy": "Forbid",
        "suspend": workload.is_suspended,
        "jobTemplate": template,
        "successfulJobsHistoryLimit": 2,
        "failedJobsHistoryLimit": 1,
    }


def _schedule_status(workload: SimulatedWorkload) -> Document:
    status: Document = {}
    if workload.stage not in ("idle", "stopped", "stopping") and workload.runs:
        status["active"] = [
            {
                "kind": "Job",
                "namespace": workload.namespace,
                "name": run_name(workload, workload.runs),
                "uid": child_uid(workload, f"run-{workload.runs}"),
                "apiVersion": "batch/v1",
            }
        ]
    if workload.children:
        status["lastScheduleTime"] = stamp(max(workload.children.values()))
    if workload.finished_at:
        status["lastSuccessfulTime"] = stamp(workload.finished_at)
    return status


def _run(workload: SimulatedWorkload, run: int, key: str, root: Document) -> Document:
    """One run's job; runs before the present one are complete."""
    name, uid = run_name(workload, run), child_uid(workload, key)
    pods = [pod for pod in workload.pods if pod.owner == key]
    head = child_metadata(workload, key, name, {"app": workload.name}, root)
    started_at = workload.children[key]
    spec = job_spec(workload, "main", workload.replicas("main"), name, uid) | {"suspend": False}
    found = tally(pods)
    is_over = bool(pods) and found.succeeded == len(pods)
    status: Document = {"startTime": stamp(started_at)}
    if is_over or not pods:
        ended_at = max((pod.finished_at for pod in pods), default=started_at + 60)
        done = ("CompletionsReached", "Reached expected number of succeeded pods")
        status |= {
            "conditions": [
                with_probe_time(condition(kind, True, ended_at, *done))
                for kind in ("SuccessCriteriaMet", "Complete")
            ],
            "completionTime": stamp(ended_at),
            "succeeded": workload.replicas("main"),
        }
    else:
        status |= some(active=found.active, succeeded=found.succeeded, failed=found.failed)
    status |= {"terminating": found.leaving, "uncountedTerminatedPods": {}, "ready": found.ready}
    return {"metadata": head, "spec": spec, "status": status}


_HAS_RUN = ("running", "degraded", "completing", "completed", "failing", "failed")


def pytorch_job_parts(workload: SimulatedWorkload) -> Parts:
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

    def labels(pod: SimulatedPod) -> dict[str, str]:
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


def _pytorch_status(workload: SimulatedWorkload) -> Document:
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


def _replica_status(workload: SimulatedWorkload, role: str) -> Document:
    found = tally(pod for pod in workload.pods if pod.role == role)
    active = found.active if workload.stage in _HAS_RUN else 0
    return some(active=active, succeeded=found.succeeded, failed=found.failed)


def ray_cluster_parts(workload: SimulatedWorkload) -> Parts:
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

    def labels(pod: SimulatedPod) -> dict[str, str]:
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


def _ray_status(workload: SimulatedWorkload) -> Document:
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


def _ray_conditions(workload: SimulatedWorkload, *, is_head_ready: bool) -> list[Document]:
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


def tuning_study_parts(workload: SimulatedWorkload) -> Parts:
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
