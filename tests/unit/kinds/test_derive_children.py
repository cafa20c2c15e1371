"""What runs, what has ended and what is still to come are distinguished, below whatever owner."""

from typing import Any

import pytest

from tests.fixtures.makers import (
    JSON,
    at,
    condition,
    deployment,
    gpus,
    meta,
    pod,
    root,
    template,
    uid,
    workload,
)
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation import done

UNKNOWN = {"apiVersion": "x.example/v1", "kind": "Sweep", "metadata": meta("w", 1)}
"""As an agent has an owner of a kind that no definition describes: its metadata alone."""
COMPLETE = {"succeeded": 1, "completionTime": at(30), "conditions": [condition("Complete")]}
FAILED = {"failed": 1, "conditions": [condition("Failed", message="too often")]}
ACTIVE = {"active": 1, "ready": 1}


def child(number: int, status: JSON, *, kind: str = "Job", above: int = 1, **spec: Any) -> JSON:
    owner = {"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": uid(above), "controller": True}
    group = {"Job": "batch/v1", "StatefulSet": "apps/v1"}.get(kind, "leaderworkerset.x-k8s.io/v1")
    return {
        "apiVersion": group,
        "kind": kind,
        "metadata": meta(f"c-{number}", number, creationTimestamp=at(number))
        | {"ownerReferences": [owner]},
        "spec": {"template": template(resources=gpus(1))} | spec,
        "status": status,
    }


def pod_of(number: int, owner: int, state: str = "ready") -> JSON:
    reference = {
        "apiVersion": "x/v1",
        "kind": "X",
        "name": "x",
        "uid": uid(owner),
        "controller": True,
    }
    return pod(
        number,
        state,
        meta_ownerReferences=[reference],
        spec_containers=[{"name": "main", "image": "x", "resources": gpus(1)}],
    )


@pytest.mark.parametrize(
    ("statuses", "pods", "phase", "number"),
    [
        ([COMPLETE], [(1, "succeeded")], "Completed", 1),
        ([FAILED], [(1, "failed")], "Failed", 1),
        ([FAILED, COMPLETE], [(1, "failed"), (2, "succeeded")], "Completed", 2),
        ([COMPLETE, COMPLETE, ACTIVE], [(1, "succeeded"), (2, "succeeded"), (3, "ready")], "Running", 1),
        ([FAILED, ACTIVE, ACTIVE], [(1, "failed"), (2, "ready"), (3, "ready")], "Running", 2),
        ([COMPLETE, {"active": 1}], [(1, "succeeded"), (2, "waiting")], "Pending", 1),
    ],
)  # fmt: skip
def test_an_owner_that_says_nothing_is_where_its_jobs_are(
    statuses: list[JSON], pods: list[tuple[int, str]], phase: str, number: int
) -> None:
    jobs = [child(10 + n, status) for n, status in enumerate(statuses, 1)]
    result = workload(UNKNOWN, [pod_of(n, 10 + n, state) for n, state in pods], children=jobs)
    assert (result.phase, result.requested_pods.number) == (phase, number)
    assert (result.completed_at is None) == (phase not in ("Completed", "Failed"))


def test_workers_that_belong_to_the_leading_pod_count_once() -> None:
    group = child(
        11,
        {"conditions": [condition("Available")]},
        kind="LeaderWorkerSet",
        replicas=1,
        leaderWorkerTemplate={"size": 3, "workerTemplate": template(resources=gpus(1))},
    )
    leaders = child(12, {}, kind="StatefulSet", above=11, replicas=1)
    leader = pod_of(1, 12)
    workers = child(13, {}, kind="StatefulSet", above=101, replicas=2)
    result = workload(
        UNKNOWN,
        [leader, pod_of(2, 13), pod_of(3, 13)],
        children=[group, leaders, workers],
    )
    assert result.requested_pods.number == 3
    assert result.workload_requested_resources.gpu is not None
    assert result.workload_requested_resources.gpu.request == 3
    assert result.phase == "Running"


def test_an_older_run_that_goes_on_counts_more_than_a_newer_that_failed() -> None:
    schedule = root(
        "batch/v1", "CronJob", spec={"schedule": "0 * * * *", "jobTemplate": {"spec": {"template": template()}}}
    )  # fmt: skip
    runs = [child(11, ACTIVE), child(12, FAILED)]
    result = workload(schedule, [pod_of(1, 11), pod_of(2, 12, "failed")], children=runs)
    assert (result.phase, result.completed_at) == ("Running", None)


def test_stages_to_come_are_not_missing() -> None:
    stage = {"template": {"spec": {"parallelism": 2, "completions": 2, "template": template()}}}
    jobs = [
        {"name": "prepare", **stage},
        {"name": "train", "dependsOn": [{"name": "prepare", "status": "Complete"}], **stage},
    ]
    counts = {"ready": 0, "active": 0, "succeeded": 0, "failed": 0, "suspended": 0}
    status = {
        "replicatedJobsStatus": [
            {"name": "prepare"} | counts | {"active": 1},
            {"name": "train"} | counts,
        ]
    }
    root_object = root(
        "jobset.x-k8s.io/v1alpha2", "JobSet", spec={"replicatedJobs": jobs}, status=status
    )
    assert workload(root_object, [pod(1), pod(2)]).phase == "Running"
    assert workload(root_object, [pod(1), pod(2, "starting")]).phase == "Initializing"


def test_pods_that_ask_for_more_than_their_template_count() -> None:
    pods = [pod(1, spec_containers=[{"name": "main", "image": "x", "resources": gpus(2)}])]
    result = workload(deployment(1), pods)
    assert result.workload_requested_resources.gpu is not None
    assert result.workload_requested_resources.gpu.request == 2
    assert result.additional_fields["requestedBeyondTemplates"] == ["gpu"]


@pytest.mark.parametrize(
    ("kind", "status", "phase"),
    [("failed", FAILED, "Degraded"), ("completed", COMPLETE, "Running")],
)
def test_nothing_has_ended_beside_pods_that_are_ready(kind: str, status: JSON, phase: str) -> None:
    result = workload(
        root("batch/v1", "Job", spec={"template": template()}, status=status), [pod(1)]
    )
    assert (result.phase, result.completed_at) == (phase, None)
    assert result.phase_message


@pytest.mark.parametrize(
    ("condition_type", "message"),
    [
        ("FailureTarget", "over the deadline; its pods are ending."),
        ("SuccessCriteriaMet", "over the deadline; its pods are ending."),
    ],
)
def test_a_job_that_is_decided_ends_with_its_pods(condition_type: str, message: str) -> None:
    status = {"conditions": [condition(condition_type, message="over the deadline")]}
    ending = pod(1, meta_deletionTimestamp=at(40))
    result = workload(
        root("batch/v1", "Job", spec={"template": template()}, status=status), [ending]
    )
    assert (result.phase, result.phase_message) == ("Running", message)


def test_a_ray_job_that_tries_again_has_not_failed() -> None:
    status = {"jobStatus": "FAILED", "jobDeploymentStatus": "Retrying", "endTime": at(30)}
    result = workload(root("ray.io/v1", "RayJob", spec={}, status=status))
    assert (result.phase, result.completed_at) == ("Initializing", None)


def test_nothing_runs_while_a_pod_of_it_cannot_start() -> None:
    status = {"phase": "Running", "progress": "1/2"}
    root_object = root("argoproj.io/v1alpha1", "Workflow", spec={"templates": []}, status=status)
    stuck = workload(root_object, [pod(1, "succeeded"), pod(2, "pulling")])
    assert stuck.phase == "Initializing"
    assert "ImagePullBackOff" in (stuck.phase_message or "")
    assert workload(root_object, [pod(1, "succeeded"), pod(2, "starting")]).phase == "Running"


def test_the_main_role_s_command_is_the_workload_s() -> None:
    def role(name: str, command: str) -> JSON:
        pods = {
            "template": {
                "spec": {"containers": [{"name": "m", "image": "x", "command": [command]}]}
            }
        }
        return {"name": name, "template": {"spec": pods}}

    jobs = [role("dataset-initializer", "fetch"), role("node", "torchrun")]
    result = workload(root("jobset.x-k8s.io/v1alpha2", "JobSet", spec={"replicatedJobs": jobs}))
    assert result.command == "torchrun"


def test_placeholders_give_way_to_what_pods_run() -> None:
    container = {
        "image": "x/should-be-overridden-during-runtime",
        "command": ["should-be-overridden"],
    }
    step = {"name": "step", "container": container}
    node = {"type": "Pod", "templateName": "step", "phase": "Running"}
    status = {"phase": "Running", "nodes": {"a": node}}
    root_object = root(
        "argoproj.io/v1alpha1", "Workflow", spec={"templates": [step]}, status=status
    )
    shown = workload(root_object, [pod(1)])
    assert (shown.images, shown.command) == (("registry.example/train:1",), None)


def test_what_has_ended_is_looked_at_once_for_all_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes 256 roles made each of thousands of pods be looked at as often."""
    looks = 0
    owners_by_uid = done.owners_by_uid

    def counted(view: WorkloadView) -> dict[str, str]:
        nonlocal looks
        looks += 1
        return owners_by_uid(view)

    monkeypatch.setattr(done, "owners_by_uid", counted)
    number = 40
    jobs = [
        {"name": f"r{n}", "template": {"spec": {"template": template(resources=gpus(1))}}}
        for n in range(number)
    ]
    children = [child(10 + n, COMPLETE) for n in range(2)]
    for n, job in enumerate(children):
        job["metadata"]["labels"] = {"jobset.sigs.k8s.io/replicatedjob-name": f"r{n}"}
    job_set = root("jobset.x-k8s.io/v1alpha2", "JobSet", spec={"replicatedJobs": jobs}, status={})
    asked = workload(job_set, children=children).workload_requested_resources.gpu
    assert asked is not None
    assert asked.request == number - 2
    assert 1 <= looks <= 2
