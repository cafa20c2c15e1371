"""One precedence over every kind: the cases that look alike and are not."""

from typing import Any

import pytest

from tests.fixtures.makers import (
    JSON,
    at,
    condition,
    deployment,
    job,
    pod,
    pytorch,
    root,
    template,
    uid,
    workload,
)

RAY_SPEC = {
    "headGroupSpec": {"template": template()},
    "workerGroupSpecs": [{"groupName": "g", "replicas": 1, "template": template()}],
}


def ray_job(job_status: str, deployment_status: str, **spec: Any) -> JSON:
    return root(
        "ray.io/v1",
        "RayJob",
        spec={"rayClusterSpec": RAY_SPEC} | spec,
        status={
            "jobStatus": job_status,
            "jobDeploymentStatus": deployment_status,
            "message": "said",
        },
    )


def knative(status: str | None, created: str = "r1", ready: str | None = "r1") -> JSON:
    conditions = [] if status is None else [condition("Ready", status, message="because")]
    return root(
        "serving.knative.dev/v1",
        "Service",
        spec={"template": template()},
        status={
            "conditions": conditions,
            "latestCreatedRevisionName": created,
            "latestReadyRevisionName": ready,
        },
    )


def stateful(replicas: int = 3, **status: Any) -> JSON:
    return root(
        "apps/v1", "StatefulSet", spec={"replicas": replicas, "template": template()}, status=status
    )


def ordinal(number: int, state: str) -> JSON:
    return pod(number, state, meta_name=f"w-{number}")


def kueue(*conditions: JSON, active: bool = True) -> JSON:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "w", "uid": uid(1)}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"name": "k", "ownerReferences": [owner], "creationTimestamp": at(0)},
        "spec": {"active": active, "queueName": "q"},
        "status": {"conditions": list(conditions)},
    }


SUSPENDED_JOB = job({"conditions": [condition("Suspended")]}, suspend=True)
COMPLETE_JOB = job({"conditions": [condition("Complete")]})
ROLLED_OUT = {
    "conditions": [condition("Progressing", reason="NewReplicaSetAvailable")],
    "replicas": 2,
    "updatedReplicas": 2,
}
LATE = condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="too late")
DELETED = {"deletionTimestamp": at(20)}

CASES: dict[str, tuple[str, JSON, list[JSON], JSON]] = {
    # Pods
    "pod without node": ("Pending", deployment(1), [pod(1, "waiting")], {}),
    "pod starts": ("Initializing", deployment(1), [pod(1, "starting")], {}),
    "image cannot be pulled": ("Initializing", deployment(1), [pod(1, "pulling")], {}),
    "crashes from the start": ("Initializing", deployment(1), [pod(1, "crashing")], {}),
    "lost readiness": ("Degraded", deployment(1), [pod(1, "lost")], {}),
    "no pod yet": ("Creating", deployment(1), [], {}),
    # Deployment
    "one of two starts": ("Initializing", deployment(2), [pod(1), pod(2, "starting")], {}),
    "one of two starts again": (
        "Degraded",
        deployment(2, ROLLED_OUT),
        [pod(1), pod(2, "starting")],
        {},
    ),
    "one of two waits": ("Pending", deployment(2), [pod(1), pod(2, "waiting")], {}),
    "one of two waits again": (
        "Degraded",
        deployment(2, ROLLED_OUT),
        [pod(1), pod(2, "waiting")],
        {},
    ),
    "rolls out beside the old": (
        "Updating",
        deployment(2, {"replicas": 3, "updatedReplicas": 1}),
        [pod(1), pod(2), pod(3, "starting")],
        {},
    ),
    "rolls out and nothing serves": (
        "Initializing",
        deployment(2, {"replicas": 3, "updatedReplicas": 1}),
        [pod(1, "starting"), pod(2, "starting")],
        {},
    ),
    "a paused rollout is none": (
        "Running",
        deployment(2, {"replicas": 2, "updatedReplicas": 0}, paused=True),
        [pod(1), pod(2)],
        {},
    ),
    "too late and nothing serves": ("Creating", deployment(1, {"conditions": [LATE]}), [], {}),
    "too late while the old serves": (
        "Degraded",
        deployment(1, {"conditions": [LATE], "availableReplicas": 1, "replicas": 2}),
        [pod(1), pod(2, "pulling")],
        {},
    ),
    "status of an older generation is not believed": (
        "Running",
        root(
            "apps/v1",
            "Deployment",
            spec={"replicas": 1, "template": template()},
            status={"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1},
            generation=2,
        ),
        [pod(1)],
        {},
    ),
    "scaled to zero": ("Stopped", deployment(0), [], {}),
    "scaling to zero": ("Stopping", deployment(0), [pod(1, meta_deletionTimestamp=at(9))], {}),
    "an autoscaler scaled to zero": (
        "Running",
        deployment(0),
        [],
        {
            "autoscalers": [
                {
                    "kind": "ScaledObject",
                    "spec": {"scaleTargetRef": {"name": "w"}, "maxReplicaCount": 5},
                }
            ]
        },
    ),
    # StatefulSet
    "starts in order": (
        "Initializing",
        stateful(),
        [ordinal(0, "ready"), ordinal(1, "starting")],
        {},
    ),
    "a hole in the order": (
        "Degraded",
        stateful(),
        [ordinal(0, "starting"), ordinal(1, "ready"), ordinal(2, "ready")],
        {},
    ),
    "updates from the top": (
        "Updating",
        stateful(currentRevision="a", updateRevision="b", updatedReplicas=1),
        [ordinal(0, "ready"), ordinal(1, "ready"), ordinal(2, "starting")],
        {},
    ),
    "a pod that leaves and is not replaced": (
        "Degraded",
        stateful(2),
        [ordinal(0, "ready"), pod(1, meta_name="w-1", meta_deletionTimestamp=at(9))],
        {},
    ),
    # Job: there is no Running condition
    "a job runs": ("Running", job({"active": 1, "ready": 1}), [pod(1)], {}),
    "a job of the old kind runs": ("Running", job({"active": 1}), [pod(1)], {}),
    "a job waits": ("Pending", job({"active": 1}), [pod(1, "waiting")], {}),
    "a job runs with one of its pods": (
        "Running",
        job({"active": 2, "ready": 1}, parallelism=2),
        [pod(1), pod(2, "waiting")],
        {},
    ),
    "a job needs them all where its group says so": (
        "Pending",
        root(
            "batch/v1",
            "Job",
            spec={"template": template(), "parallelism": 2},
            status={"active": 2, "ready": 1},
            annotations={"kai.scheduler/batch-min-member": "2"},
        ),
        [pod(1), pod(2, "waiting")],
        {},
    ),
    "a job between two tries": ("Initializing", job({"failed": 1}), [pod(1, "failed")], {}),
    "a job between two of its pods": (
        "Running",
        job({"succeeded": 1, "active": 1}, completions=3),
        [pod(1, "succeeded"), pod(2, "starting")],
        {},
    ),
    "a job completed": ("Completed", COMPLETE_JOB, [pod(1, "succeeded")], {}),
    "a job failed": (
        "Failed",
        job({"conditions": [condition("Failed", message="BackoffLimitExceeded")]}),
        [pod(1, "failed")],
        {},
    ),
    "a job about to fail": (
        "Running",
        job({"conditions": [condition("FailureTarget")], "ready": 1}),
        [pod(1)],
        {},
    ),
    "a condition that is False is no condition": (
        "Running",
        job({"conditions": [condition("Failed", "False")], "ready": 1}),
        [pod(1)],
        {},
    ),
    # Precedence
    "failed before completed": (
        "Failed",
        pytorch({"conditions": [condition("Succeeded"), condition("Failed")]}),
        [],
        {},
    ),
    "completed, then deleted": (
        "Completed",
        COMPLETE_JOB | {"metadata": COMPLETE_JOB["metadata"] | DELETED},
        [pod(1, "succeeded")],
        {},
    ),
    "suspended, then deleted": (
        "Deleting",
        SUSPENDED_JOB | {"metadata": SUSPENDED_JOB["metadata"] | DELETED},
        [],
        {},
    ),
    "gone but for its pods": ("Terminating", deployment(1), [pod(1)], {"is_root_gone": True}),
    # Suspension
    "suspended": ("Stopped", SUSPENDED_JOB, [], {}),
    "being suspended": ("Stopping", SUSPENDED_JOB, [pod(1, meta_deletionTimestamp=at(9))], {}),
    "held by kueue": (
        "Pending",
        SUSPENDED_JOB,
        [],
        {"queue_workloads": [kueue(condition("QuotaReserved", "False"))]},
    ),
    "held by kueue, not seen yet": (
        "Pending",
        SUSPENDED_JOB
        | {"metadata": SUSPENDED_JOB["metadata"] | {"labels": {"kueue.x-k8s.io/queue-name": "q"}}},
        [],
        {},
    ),
    "stopped in kueue": ("Stopped", SUSPENDED_JOB, [], {"queue_workloads": [kueue(active=False)]}),
    "resumed": (
        "Resuming",
        job({"conditions": [condition("Suspended", "False", reason="JobResumed")]}),
        [],
        {},
    ),
    "admitted by kueue is not resumed": (
        "Creating",
        job({"conditions": [condition("Suspended", "False", reason="JobResumed")]}),
        [],
        {"queue_workloads": [kueue(condition("Admitted"))]},
    ),
    # Gangs
    "a gang with one pod missing a node": (
        "Pending",
        pytorch(),
        [pod(1), pod(2), pod(3, "waiting")],
        {},
    ),
    "a gang that starts": (
        "Initializing",
        pytorch({"conditions": [condition("Running")]}),
        [pod(1), pod(2), pod(3, "starting")],
        {},
    ),
    "a gang that lost one": (
        "Degraded",
        pytorch({"conditions": [condition("Restarting")]}),
        [pod(1), pod(2), pod(3, "starting")],
        {},
    ),
    "an elastic gang runs with its least": (
        "Running",
        pytorch(spec={"elasticPolicy": {"minReplicas": 1, "maxReplicas": 4}}),
        [pod(1), pod(2), pod(3, "waiting")],
        {},
    ),
    "a worker that ended well counts": (
        "Running",
        pytorch(),
        [pod(1), pod(2), pod(3, "succeeded")],
        {},
    ),
    # Ray: the deployment status Complete comes with FAILED too
    "ray complete and succeeded": ("Completed", ray_job("SUCCEEDED", "Complete"), [], {}),
    "ray complete and failed": ("Failed", ray_job("FAILED", "Complete"), [], {}),
    "ray complete and stopped": ("Stopped", ray_job("STOPPED", "Complete"), [pod(1)], {}),
    "ray failed before it began": ("Failed", ray_job("", "Failed"), [], {}),
    "ray waits for its cluster": ("Initializing", ray_job("", "Initializing"), [pod(1)], {}),
    "ray tries again": ("Initializing", ray_job("PENDING", "Retrying"), [], {}),
    "ray runs": ("Running", ray_job("RUNNING", "Running"), [pod(1), pod(2)], {}),
    "ray suspended": ("Stopped", ray_job("", "Suspended", suspend=True), [], {}),
    # Knative: no pods is an ordinary state
    "knative is ready, with no pods": ("Running", knative("True"), [], {}),
    "knative is not ready yet": ("Initializing", knative("Unknown", ready=None), [pod(1)], {}),
    "knative was never ready": ("Creating", knative("False", ready=None), [], {}),
    "knative's new revision failed": ("Degraded", knative("False", created="r2"), [], {}),
    "knative takes up a revision": (
        "Updating",
        knative("Unknown", created="r2"),
        [pod(1), pod(2, "starting")],
        {},
    ),
    "knative without a word": ("Creating", knative(None, ready=None), [], {}),
    # Kinds that nobody defined
    "unknown with pods": ("Running", root("x.example/v1", "Thing"), [pod(1)], {}),
    "unknown without anything": ("Unknown", root("x.example/v1", "Thing"), [], {}),
    "unknown that says it is done": (
        "Completed",
        root("x.example/v1", "Thing", status={"conditions": [condition("Complete")]}),
        [],
        {},
    ),
    "unknown that says it failed": (
        "Failed",
        root("x.example/v1", "Thing", status={"phase": "Failed"}),
        [],
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_phase(case: str) -> None:
    expected, obj, pods, more = CASES[case]
    assert workload(obj, pods, **more).phase.value == expected


@pytest.mark.parametrize(
    ("obj", "pods", "k8s_phase"),
    [
        (deployment(1) | {"metadata": deployment(1)["metadata"] | DELETED}, [pod(1)], "Running"),
        (SUSPENDED_JOB, [pod(1, meta_deletionTimestamp=at(9))], "Running"),
        (deployment(1), [pod(1, "waiting")], "Pending"),
        (COMPLETE_JOB, [], "Completed"),
    ],
)
def test_the_cluster_s_own_phase_knows_no_deletion_and_no_suspension(
    obj: JSON, pods: list[JSON], k8s_phase: str
) -> None:
    assert workload(obj, pods).k8s_phase == k8s_phase


@pytest.mark.parametrize(
    ("obj", "pods", "more", "message"),
    [
        (deployment(1), [pod(1)], {}, None),
        (
            job({"conditions": [condition("Failed", message="Job was too slow")]}),
            [pod(1, "failed")],
            {},
            "Job was too slow. Container main of pod w-1 – OOMKilled (exit code 137).",
        ),
        (
            deployment(1),
            [pod(1, "pulling")],
            {},
            "Container main of pod w-1 – ImagePullBackOff: Back-off pulling image",
        ),
        (
            deployment(1),
            [pod(1, "crashing")],
            {},
            "Container main of pod w-1 – CrashLoopBackOff (last exit code 1): back-off 20s",
        ),
        (
            deployment(2, ROLLED_OUT),
            [pod(1), pod(2, "lost")],
            {},
            "1 of 2 pods is ready. Pod w-2 is no longer ready.",
        ),
        (deployment(0), [], {}, "Scaled to zero."),
        (
            COMPLETE_JOB,
            [
                pod(
                    1,
                    "succeeded",
                    status_reason="Terminated",
                    status_message="Pod was terminated in response to imminent node shutdown.",
                )
            ],
            {},
            "Pod w-1 was ended by the shutdown of its node:"
            " Pod was terminated in response to imminent node shutdown.",
        ),
        (
            deployment(1),
            [],
            {
                "scheduling_events": [
                    {"reason": "FailedCreate", "message": "exceeded quota", "lastTimestamp": at(1)}
                ]
            },
            "exceeded quota",
        ),
        (job({"failed": 1}), [pod(1, "failed")], {}, "A pod failed and will be retried. "
         "Container main of pod w-1 – OOMKilled (exit code 137)."),
    ],
)  # fmt: skip
def test_message(obj: JSON, pods: list[JSON], more: JSON, message: str | None) -> None:
    assert workload(obj, pods, **more).phase_message == message


def test_completion_is_dated() -> None:
    done = job({"conditions": [condition("Complete")], "completionTime": at(12)})
    result = workload(done, [pod(1, "succeeded")])
    assert result.completed_at is not None
    assert result.completed_at.isoformat() == "2026-05-04T10:12:00+00:00"
    assert workload(deployment(1), [pod(1)]).completed_at is None


def test_a_bare_pod_is_its_own_pod() -> None:
    result = workload(pod(1, "failed") | {"metadata": pod(1)["metadata"] | {"ownerReferences": []}})
    assert (result.type, result.phase.value, result.requested_pods.number) == ("Pod", "Failed", 1)
