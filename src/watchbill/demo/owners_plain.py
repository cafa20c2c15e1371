"""Owners of the built-in kinds: Pod, Job, CronJob, Deployment, StatefulSet."""

from watchbill.demo.anatomy import (
    child_uid,
    replica_set_name,
    run_name,
    template_hash,
)
from watchbill.demo.model import Pod, Workload
from watchbill.demo.objects import (
    Document,
    child_metadata,
    pod_template,
    root_metadata,
    stamp,
)
from watchbill.demo.parts import (
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
from watchbill.demo.resources import (
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)


def pod_parts(workload: Workload) -> Parts:
    """A bare pod is its own root."""
    return Parts(owners=[], references={}, restart="Never")


def job_labels(name: str, uid: str) -> dict[str, str]:
    return {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }


def job_status(workload: Workload, pods: list[Pod], *, started_at: float) -> Document:
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


def _suspension(workload: Workload) -> list[Document]:
    if workload.is_suspended:
        since = moment(workload, workload.suspended_at)
        return [
            with_probe_time(condition("Suspended", True, since, "JobSuspended", "Job suspended"))
        ]
    if workload.resumed_at:
        since = workload.resumed_at
        return [with_probe_time(condition("Suspended", False, since, "JobResumed", "Job resumed"))]
    return []


def _job_end(workload: Workload, found: Tally) -> list[Document]:
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


def job_spec(workload: Workload, role: str, count: int, name: str, uid: str) -> Document:
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


def job_parts(workload: Workload) -> Parts:
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


def cron_job_parts(workload: Workload) -> Parts:
    head = root_metadata(workload)
    root = reference(CRON_JOBS, head)
    owners: list[tuple[Resource, Document]] = []
    references = {"": root}
    for key in sorted(workload.children, key=lambda key: int(key[4:])):
        run = int(key[4:])
        job = _run(workload, run, key, root)
        owners.append((JOBS, job))
        references[key] = reference(JOBS, job["metadata"])
    status: Document = {}
    if workload.stage not in ("idle", "stopped", "stopping") and workload.runs:
        key = f"run-{workload.runs}"
        status["active"] = [
            {
                "kind": "Job",
                "namespace": workload.namespace,
                "name": run_name(workload, workload.runs),
                "uid": child_uid(workload, key),
                "apiVersion": "batch/v1",
            }
        ]
    if workload.children:
        status["lastScheduleTime"] = stamp(max(workload.children.values()))
    if workload.finished_at:
        status["lastSuccessfulTime"] = stamp(workload.finished_at)
    template = {
        "spec": {
            "parallelism": workload.replicas("main"),
            "completions": workload.replicas("main"),
            "template": pod_template(workload, "main", restart="OnFailure"),
        }
    }
    document = {
        "metadata": head,
        "spec": {
            "schedule": "*/30 * * * *",
            "concurrencyPolicy": "Forbid",
            "suspend": workload.is_suspended,
            "jobTemplate": template,
            "successfulJobsHistoryLimit": 2,
            "failedJobsHistoryLimit": 1,
        },
        "status": status,
    }
    owners.insert(0, (CRON_JOBS, document))

    def labels(pod: Pod) -> dict[str, str]:
        run = int(pod.owner[4:])
        return job_labels(run_name(workload, run), child_uid(workload, pod.owner))

    return Parts(owners=owners, references=references, labels=labels, restart="OnFailure")


def _run(workload: Workload, run: int, key: str, root: Document) -> Document:
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


def deployment_document(
    workload: Workload, head: Document, revision: int, *, replicas: int, labels: dict[str, str]
) -> Document:
    pods = [pod for pod in workload.pods if pod.owner.startswith("rs-")]
    if workload.kind == "KnativeService":
        pods = [pod for pod in pods if pod.owner == f"rs-{revision}"]
    return {
        "metadata": head
        | {
            "annotations": head.get("annotations", {})
            | {"deployment.kubernetes.io/revision": str(revision)}
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": pod_template(workload, "main", labels),
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
        "status": _deployment_status(workload, pods, revision, replicas),
    }


def _deployment_status(
    workload: Workload, pods: list[Pod], revision: int, replicas: int
) -> Document:
    found = tally(pods)
    updated = sum(1 for p in pods if p.revision == revision and not p.deleted_at)
    name = replica_set_name(workload, revision)
    is_available = found.ready >= max(0, replicas - 1) and (found.ready > 0 or replicas == 0)
    available = ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    lacking = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    complete = found.ready >= replicas and updated == found.present
    progress = {
        True: (True, "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.'),
        False: (True, "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'),
    }[complete or (bool(workload.first_ready_at) and workload.stage != "updating")]
    if workload.stage == "failed":
        message = f'ReplicaSet "{name}" has timed out progressing.'
        progress = (False, "ProgressDeadlineExceeded", message)
    changed_at = moment(workload, workload.since)
    is_true, reason, message = progress
    return {
        "observedGeneration": 0,
        **some(
            replicas=found.present,
            updatedReplicas=updated,
            readyReplicas=found.ready,
            availableReplicas=found.ready,
            unavailableReplicas=max(0, replicas - found.ready),
        ),
        "terminatingReplicas": found.leaving,
        "conditions": [
            with_update_time(
                condition(
                    "Available",
                    is_available,
                    changed_at if not is_available else moment(workload, workload.first_ready_at),
                    *(available if is_available else lacking),
                )
            ),
            with_update_time(
                condition("Progressing", is_true, workload.created_at, reason, message)
            ),
        ],
    }


def replica_sets(
    workload: Workload,
    owner: Document,
    labels: dict[str, str],
    *,
    revision: int | None = None,
) -> list[tuple[str, Document]]:
    """All replica sets so far by key; old ones stay, empty."""
    found = []
    for key in sorted(key for key in workload.children if key.startswith("rs-")):
        number = int(key[3:])
        if revision is not None and number != revision:
            continue
        pods = [pod for pod in workload.pods if pod.owner == key]
        counts = tally(pods)
        hashed = labels | {"pod-template-hash": template_hash(workload, number)}
        name = f"{owner['name']}-{template_hash(workload, number)}"
        head = child_metadata(workload, key, name, hashed, owner)
        head["annotations"] = {"deployment.kubernetes.io/revision": str(number)}
        document = {
            "metadata": head,
            "spec": {
                "replicas": counts.present,
                "selector": {"matchLabels": hashed},
                "template": pod_template(workload, "main", hashed),
            },
            "status": {
                "replicas": counts.present,
                **some(
                    fullyLabeledReplicas=counts.present,
                    readyReplicas=counts.ready,
                    availableReplicas=counts.ready,
                ),
                "terminatingReplicas": counts.leaving,
                "observedGeneration": 0,
            },
        }
        found.append((key, document))
    return found


def replica_set_pod_labels(workload: Workload, labels: dict[str, str], pod: Pod) -> dict[str, str]:
    return labels | {"pod-template-hash": template_hash(workload, int(pod.owner[3:]))}


def deployment_parts(workload: Workload) -> Parts:
    head = root_metadata(workload)
    labels = {"app": workload.name}
    replicas = 0 if workload.is_suspended else workload.replicas("main")
    document = deployment_document(
        workload, head, workload.revision, replicas=replicas, labels=labels
    )
    root = reference(DEPLOYMENTS, head)
    owners: list[tuple[Resource, Document]] = [(DEPLOYMENTS, document)]
    references = {"": root}
    for key, found in replica_sets(workload, root, labels):
        owners.append((REPLICA_SETS, found))
        references[key] = reference(REPLICA_SETS, found["metadata"])
    return Parts(
        owners=owners,
        references=references,
        labels=lambda pod: replica_set_pod_labels(workload, labels, pod),
    )


def stateful_set_document(
    workload: Workload,
    head: Document,
    *,
    role: str,
    pods: list[Pod],
    replicas: int,
    labels: dict[str, str],
    first_ordinal: int = 0,
) -> Document:
    found = tally(pods)
    current = sum(1 for pod in pods if not pod.deleted_at and pod.revision < workload.revision)
    updated = found.present - current
    is_updating = current > 0
    name = head["name"]
    spec: Document = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": pod_template(workload, role, labels),
        "serviceName": workload.name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
    }
    if first_ordinal:
        spec["ordinals"] = {"start": first_ordinal}
    newest = f"{name}-{template_hash(workload, workload.revision)}"
    before = f"{name}-{template_hash(workload, max(1, workload.revision - 1))}"
    return {
        "metadata": head,
        "spec": spec,
        "status": {
            "observedGeneration": 0,
            "replicas": found.present,
            **some(
                readyReplicas=found.ready,
                currentReplicas=current or updated,
                updatedReplicas=updated,
            ),
            "currentRevision": before if is_updating else newest,
            "updateRevision": newest,
            "collisionCount": 0,
            "availableReplicas": found.ready,
        },
    }


def stateful_set_pod_labels(pod: Pod, name: str, ordinal: int) -> dict[str, str]:
    return {
        "apps.kubernetes.io/pod-index": str(ordinal),
        "controller-revision-hash": f"{name}-{pod.revision}",
        "statefulset.kubernetes.io/pod-name": pod.name,
    }


def stateful_set_parts(workload: Workload) -> Parts:
    head = root_metadata(workload)
    document = stateful_set_document(
        workload,
        head,
        role="main",
        pods=workload.pods,
        replicas=0 if workload.is_suspended else workload.replicas("main"),
        labels={"app": workload.name},
    )
    return Parts(
        owners=[(STATEFUL_SETS, document)],
        references={"": reference(STATEFUL_SETS, head)},
        labels=lambda pod: stateful_set_pod_labels(pod, workload.name, pod.index),
    )
