"""A JobSet and the Jobs below it."""

from watchbill.demo.anatomy import JOB_SET_PARALLELISM
from watchbill.demo.model import Pod, Workload
from watchbill.demo.objects import Document, child_metadata, pod_template, root_metadata
from watchbill.demo.owners_jobs import job_labels, job_spec, job_status
from watchbill.demo.parts import (
    Parts,
    condition,
    moment,
    reference,
    tally,
)
from watchbill.demo.resources import (
    JOB_SETS,
    JOBS,
    Resource,
)
from watchbill.demo.slot import child_uid


def job_set_parts(workload: Workload) -> Parts:
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
    owners: list[tuple[Resource, Document]] = [(JOB_SETS, document)]
    references = {"": root}
    for key in sorted(workload.children):
        job = _job_of_set(workload, key, root)
        owners.append((JOBS, job))
        references[key] = reference(JOBS, job["metadata"])

    def labels(pod: Pod) -> dict[str, str]:
        name = f"{workload.name}-{pod.owner}"
        return job_labels(name, child_uid(workload, pod.owner)) | _set_labels(workload, pod.owner)

    return Parts(owners=owners, references=references, labels=labels, restart="OnFailure")


def _set_labels(workload: Workload, key: str) -> dict[str, str]:
    role, _, index = key.rpartition("-")
    return {
        "jobset.sigs.k8s.io/jobset-name": workload.name,
        "jobset.sigs.k8s.io/jobset-uid": workload.uid,
        "jobset.sigs.k8s.io/replicatedjob-name": role,
        "jobset.sigs.k8s.io/replicatedjob-replicas": str(workload.replicas(role)),
        "jobset.sigs.k8s.io/job-index": index,
        "jobset.sigs.k8s.io/restart-attempt": str(workload.restarts),
    }


def _job_of_set(workload: Workload, key: str, root: Document) -> Document:
    role = key.rpartition("-")[0]
    name, uid = f"{workload.name}-{key}", child_uid(workload, key)
    pods = [pod for pod in workload.pods if pod.owner == key]
    labels = _set_labels(workload, key)
    return {
        "metadata": child_metadata(workload, key, name, labels, root),
        "spec": job_spec(workload, role, JOB_SET_PARALLELISM[role], name, uid),
        "status": job_status(workload, pods, started_at=workload.children[key]),
    }


def _job_set_status(workload: Workload) -> Document:
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
