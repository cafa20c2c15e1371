"""Owners that keep replicas: Deployment with its ReplicaSets, and StatefulSet.

A JobSet and the Jobs below it.
"""

from simulator.apiserver.resources import (
    DEPLOYMENTS,
    JOB_SETS,
    JOBS,
    REPLICA_SETS,
    STATEFUL_SETS,
    ResourceType,
)
from simulator.manifests.objects import Document, child_metadata, pod_template, root_metadata
from simulator.manifests.owners_training import job_labels, job_spec, job_status
from simulator.manifests.parts import (
    Parts,
    condition,
    moment,
    reference,
    some,
    tally,
    with_update_time,
)
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import JOB_SET_PARALLELISM, replica_set_name
from simulator.model.slot import child_uid, template_hash


def deployment_document(
    workload: SimulatedWorkload,
    head: Document,
    revision: int,
    *,
    replicas: int,
    labels: dict[str, str],
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
    workload: SimulatedWorkload, pods: list[SimulatedPod], revision: int, replicas: int
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
    workload: SimulatedWorkload,
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


def replica_set_pod_labels(
    workload: SimulatedWorkload, labels: dict[str, str], pod: SimulatedPod
) -> dict[str, str]:
    return labels | {"pod-template-hash": template_hash(workload, int(pod.owner[3:]))}


def deployment_parts(workload: SimulatedWorkload) -> Parts:
    head = root_metadata(workload)
    labels = {"app": workload.name}
    replicas = 0 if workload.is_suspended else workload.replicas("main")
    document = deployment_document(
        workload, head, workload.revision, replicas=replicas, labels=labels
    )
    root = reference(DEPLOYMENTS, head)
    owners: list[tuple[ResourceType, Document]] = [(DEPLOYMENTS, document)]
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
    workload: SimulatedWorkload,
    head: Document,
    *,
    role: str,
    pods: list[SimulatedPod],
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


def stateful_set_pod_labels(pod: SimulatedPod, name: str, ordinal: int) -> dict[str, str]:
    return {
        "apps.kubernetes.io/pod-index": str(ordinal),
        "controller-revision-hash": f"{name}-{pod.revision}",
        "statefulset.kubernetes.io/pod-name": pod.name,
    }


def stateful_set_parts(workload: SimulatedWorkload) -> Parts:
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


def job_set_parts(workload: SimulatedWorkload) -> Parts:
    head = root_metadata(workload)
    root = reference(JOB_SETS, head)
    replicated = [
        {
            "name": role.shape.role,
            "replicas": role.replicas,
            "template": {
                "spec": {
                    "backoffLimit": 0,
                    "parallelism": JOB_SET_PARALLELISM[role.shape.role],
                    "completions": JOB_SET_PARALLELISM[role.shape.role],
                    "template": pod_template(workload, role.shape.role, restart="OnFailure"),
                }
            },
        }
        for role in workload.roles
    ]
    spec: Document = {
        "replicatedJobs": replicated,
        "failurePolicy": {"maxRestarts": 2},
        "network": {"enableDNSHostnames": True},
        "successPolicy": {"operator": "All"},
        "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
        "suspend": workload.is_suspended,
    }
    document: Document = {"metadata": head, "spec": spec}
    if workload.stage != "creating":
        document["status"] = _job_set_status(workload)
    owners: list[tuple[ResourceType, Document]] = [(JOB_SETS, document)]
    references = {"": root}
    for key in sorted(workload.children):
        job = _job_of_set(workload, key, root)
        owners.append((JOBS, job))
        references[key] = reference(JOBS, job["metadata"])

    def labels(pod: SimulatedPod) -> dict[str, str]:
        name = f"{workload.name}-{pod.owner}"
        return job_labels(name, child_uid(workload, pod.owner)) | _set_labels(workload, pod.owner)

    return Parts(owners=owners, references=references, labels=labels, restart="OnFailure")


def _set_labels(workload: SimulatedWorkload, key: str) -> dict[str, str]:
    role, _, index = key.rpartition("-")
    return {
        "jobset.sigs.k8s.io/jobset-name": workload.name,
        "jobset.sigs.k8s.io/jobset-uid": workload.uid,
        "jobset.sigs.k8s.io/replicatedjob-name": role,
        "jobset.sigs.k8s.io/replicatedjob-replicas": str(workload.replicas(role)),
        "jobset.sigs.k8s.io/job-index": index,
        "jobset.sigs.k8s.io/restart-attempt": str(workload.restarts),
    }


def _job_of_set(workload: SimulatedWorkload, key: str, root: Document) -> Document:
    role = key.rpartition("-")[0]
    name, uid = f"{workload.name}-{key}", child_uid(workload, key)
    pods = [pod for pod in workload.pods if pod.owner == key]
    labels = _set_labels(workload, key)
    return {
        "metadata": child_metadata(workload, key, name, labels, root),
        "spec": job_spec(workload, role, JOB_SET_PARALLELISM[role], name, uid),
        "status": job_status(workload, pods, started_at=workload.children[key]),
    }


def _job_set_status(workload: SimulatedWorkload) -> Document:
    replicated = []
    for role in workload.roles:
        name = role.shape.role
        found = tally(pod for pod in workload.pods if pod.role == name)
        size = JOB_SET_PARALLELISM[name]
        replicated.append(
            {
                "name": name,
                "ready": found.ready // size,
                "active": found.active // size,
                "succeeded": role.replicas if workload.stage == "completed" else 0,
                "failed": 1 if workload.stage == "failed" and name == "workers" else 0,
                "suspended": role.replicas if workload.is_suspended else 0,
            }
        )
    status: Document = {"restarts": workload.restarts, "replicatedJobsStatus": replicated}
    conditions = []
    if workload.is_suspended:
        since = moment(workload, workload.suspended_at)
        conditions.append(
            condition("Suspended", True, since, "SuspendedJobs", "jobset is suspended")
        )
    elif workload.resumed_at:
        message = "jobset is resumed"
        conditions.append(condition("Suspended", False, workload.resumed_at, "ResumeJobs", message))
    ended_at = moment(workload, workload.finished_at)
    if workload.stage == "completed":
        reason, message = "AllJobsCompleted", "jobset completed successfully"
        conditions.append(condition("Completed", True, ended_at, reason, message))
        status["terminalState"] = "Completed"
    if workload.stage == "failed":
        message = f"jobset failed due to job failure (job name: {workload.name}-workers-0)"
        conditions.append(condition("Failed", True, ended_at, "FailedJobs", message))
        status["terminalState"] = "Failed"
    if conditions:
        status["conditions"] = conditions
    return status
