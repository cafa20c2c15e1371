"""Built-in owners that run to an end: Pod, Job, CronJob."""

from watchbill.demo.anatomy import run_name
from watchbill.demo.model import Pod, Workload
from watchbill.demo.objects import Document, child_metadata, pod_template, root_metadata, stamp
from watchbill.demo.parts import (
    Parts,
    Tally,
    condition,
    moment,
    reference,
    some,
    tally,
    with_probe_time,
)
from watchbill.demo.resources import (
    CRON_JOBS,
    JOBS,
    Resource,
)
from watchbill.demo.slot import child_uid


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
    document = {
        "metadata": head,
        "spec": _schedule(workload),
        "status": _schedule_status(workload),
    }
    owners: list[tuple[Resource, Document]] = [(CRON_JOBS, document)]
    references = {"": root}
    for key in sorted(workload.children, key=lambda key: int(key[4:])):
        job = _run(workload, int(key[4:]), key, root)
        owners.append((JOBS, job))
        references[key] = reference(JOBS, job["metadata"])

    def labels(pod: Pod) -> dict[str, str]:
        run = int(pod.owner[4:])
        return job_labels(run_name(workload, run), child_uid(workload, pod.owner))

    return Parts(owners=owners, references=references, labels=labels, restart="OnFailure")


def _schedule(workload: Workload) -> Document:
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


def _schedule_status(workload: Workload) -> Document:
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
