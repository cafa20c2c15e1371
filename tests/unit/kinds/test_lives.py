"""What real API servers held, moment by moment, comes out as the right records."""

import itertools
import json

import jsonschema_rs
import msgspec
import pytest

from tests.fixtures.kubernetes.lives import CLUSTER_ID, all_lives, derived, moments
from watchbill.kinds.derivation.elements import MAX_ELEMENTS
from watchbill.protocol import Record, canonical_bytes
from watchbill.workload import Phase

BOTH = ("1.20", "1.36")
NEW = ("1.36",)

# Life, versions, moment, workload → type, phase, pods requested, pods running, GPUs requested, GPUs held.
LIVES: list[tuple[str, tuple[str, ...], str, str, tuple[object, ...]]] = [
    ("cronjob", BOTH, "created", "tick", ("CronJob", "Creating", 0, 0, 0, 0)),
    ("cronjob", BOTH, "first run active", "tick", ("CronJob", "Running", 1, 1, 0, 0)),
    ("cronjob", BOTH, "between runs", "tick", ("CronJob", "Completed", 0, 0, 0, 0)),
    ("cronjob", BOTH, "second run active", "tick", ("CronJob", "Running", 1, 1, 0, 0)),
    ("cronjob", BOTH, "suspended, run ended", "tick", ("CronJob", "Stopped", 0, 0, 0, 0)),
    ("daemonset", BOTH, "created", "agent", ("DaemonSet", "Running", 0, 0, 0, 0)),
    ("daemonset", BOTH, "running", "agent", ("DaemonSet", "Running", 2, 2, 0, 0)),
    ("daemonset", BOTH, "rolling update", "agent", ("DaemonSet", "Updating", 2, 1, 0, 0)),
    ("daemonset", BOTH, "one node taken out", "agent", ("DaemonSet", "Running", 1, 1, 0, 0)),
    ("deployment", BOTH, "initialising", "web", ("Deployment", "Initializing", 3, 3, 0, 0)),
    ("deployment", BOTH, "running", "web", ("Deployment", "Running", 3, 3, 0, 0)),
    ("deployment", BOTH, "degraded", "web", ("Deployment", "Degraded", 3, 3, 0, 0)),
    (
        "deployment",
        BOTH,
        "rolling update, under way",
        "web",
        ("Deployment", "Updating", 3, 3, 0, 0),
    ),
    ("deployment", BOTH, "rolling update, done", "web", ("Deployment", "Running", 3, 3, 0, 0)),
    ("deployment", BOTH, "update stuck", "web", ("Deployment", "Degraded", 3, 3, 0, 0)),
    ("deployment", BOTH, "rolled back", "web", ("Deployment", "Running", 3, 3, 0, 0)),
    ("deployment", BOTH, "scaling to zero", "web", ("Deployment", "Stopping", 0, 0, 0, 0)),
    ("deployment", BOTH, "scaled to zero", "web", ("Deployment", "Stopped", 0, 0, 0, 0)),
    ("deployment", BOTH, "scaled up, then paused", "web", ("Deployment", "Running", 2, 2, 0, 0)),
    ("job_fails", BOTH, "after the first failure", "bad", ("Job", "Initializing", 1, 0, 0, 0)),
    ("job_fails", BOTH, "deadline exceeded", "late", ("Job", "Failed", 1, 0, 0, 0)),
    ("job_fails", BOTH, "failed", "bad", ("Job", "Failed", 1, 0, 0, 0)),
    ("job_fails", BOTH, "failed", "inpod", ("Job", "Failed", 1, 0, 0, 0)),
    ("job_succeeds", BOTH, "created", "ok", ("Job", "Initializing", 2, 0, 0, 0)),
    ("job_succeeds", BOTH, "running", "ok", ("Job", "Running", 2, 2, 0, 0)),
    ("job_succeeds", BOTH, "partly done", "ok", ("Job", "Running", 2, 0, 0, 0)),
    ("job_succeeds", BOTH, "completed", "ok", ("Job", "Completed", 2, 0, 0, 0)),
    ("job_indexed", NEW, "partly done", "idx", ("Job", "Running", 3, 0, 0, 0)),
    ("job_indexed", NEW, "ended", "idx", ("Job", "Failed", 3, 0, 0, 0)),
    ("job_suspended", NEW, "suspended from the start", "sus", ("Job", "Stopped", 2, 0, 0, 0)),
    ("job_suspended", NEW, "resumed, running", "sus", ("Job", "Running", 2, 2, 0, 0)),
    ("job_suspended", NEW, "suspending", "sus", ("Job", "Stopping", 2, 0, 0, 0)),
    ("job_suspended", NEW, "suspended", "sus", ("Job", "Stopped", 2, 0, 0, 0)),
    ("job_suspended", NEW, "completed", "sus", ("Job", "Completed", 2, 0, 0, 0)),
    ("namespace_deletion", BOTH, "terminating", "web", ("Deployment", "Running", 2, 2, 0, 0)),
    ("node_failure", BOTH, "running", "sts", ("StatefulSet", "Running", 2, 2, 0, 0)),
    ("node_failure", BOTH, "node NotReady", "sts", ("StatefulSet", "Degraded", 2, 2, 0, 0)),
    ("node_failure", BOTH, "node NotReady", "dep", ("Deployment", "Degraded", 2, 2, 0, 0)),
    (
        "node_failure",
        BOTH,
        "pods Terminating, replacement running",
        "sts",
        ("StatefulSet", "Degraded", 2, 1, 0, 0),
    ),
    (
        "node_failure",
        BOTH,
        "pods Terminating, replacement running",
        "dep",
        ("Deployment", "Running", 2, 2, 0, 0),
    ),
    ("node_failure", BOTH, "pods collected", "sts", ("StatefulSet", "Running", 2, 2, 0, 0)),
    ("pods_odd", BOTH, "after 4 s", "oom", ("Pod", "Failed", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 4 s", "flap", ("Pod", "Degraded", 1, 1, 0, 0)),
    ("pods_odd", BOTH, "after 4 s", "crash", ("Pod", "Initializing", 1, 1, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "evicted", ("Pod", "Failed", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "plain", ("Pod", "Completed", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "unschedulable", ("Pod", "Pending", 1, 0, 16, 0)),
    ("pods_odd", BOTH, "after 8 s", "pull", ("Pod", "Initializing", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "pvc", ("Pod", "Pending", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "badselector", ("Pod", "Pending", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "after 8 s", "init", ("Pod", "Running", 1, 1, 0, 0)),
    ("pods_odd", NEW, "after 8 s", "gated", ("Pod", "Pending", 1, 0, 0, 0)),
    ("pods_odd", BOTH, "healed", "pull", ("Pod", "Running", 1, 1, 0, 0)),
    ("pods_odd", NEW, "healed", "gated", ("Pod", "Running", 1, 1, 0, 0)),
    ("pods_odd", BOTH, "deleting", "crash", ("Pod", "Deleting", 1, 0, 0, 0)),
    ("quota_replicafailure", BOTH, "over quota", "web", ("Deployment", "Degraded", 4, 2, 0, 0)),
    ("quota_replicafailure", BOTH, "over quota", "late", ("Job", "Creating", 1, 0, 0, 0)),
    (
        "statefulset",
        BOTH,
        "one ready, one starting",
        "db",
        ("StatefulSet", "Initializing", 3, 1, 0, 0),
    ),
    ("statefulset", BOTH, "running", "db", ("StatefulSet", "Running", 3, 3, 0, 0)),
    ("statefulset", BOTH, "rolling update", "db", ("StatefulSet", "Updating", 3, 2, 0, 0)),
    ("statefulset", BOTH, "updated", "db", ("StatefulSet", "Running", 3, 3, 0, 0)),
    ("statefulset", BOTH, "one pod deleted", "db", ("StatefulSet", "Degraded", 3, 2, 0, 0)),
    ("statefulset", BOTH, "scaled to zero", "db", ("StatefulSet", "Stopped", 0, 0, 0, 0)),
    (
        "delete_foreground_orphan",
        NEW,
        "foreground deletion under way",
        "fg",
        ("Deployment", "Deleting", 1, 0, 0, 0),
    ),
    (
        "delete_foreground_orphan",
        NEW,
        "orphaned",
        "orphan-85c7c8645d",
        ("ReplicaSet", "Running", 1, 1, 0, 0),
    ),
    ("priority_preemption", NEW, "full", "low", ("Deployment", "Running", 4, 4, 8, 8)),
    ("priority_preemption", NEW, "preempting", "high", ("Pod", "Pending", 1, 0, 2, 0)),
    ("priority_preemption", NEW, "preempting", "low", ("Deployment", "Degraded", 4, 3, 8, 8)),
    ("priority_preemption", NEW, "preempted", "low", ("Deployment", "Degraded", 4, 3, 8, 6)),
    ("cr_jobset", NEW, "created", "js", ("JobSet", "Creating", 5, 0, 0, 0)),
    ("cr_jobset", NEW, "running", "js", ("JobSet", "Running", 5, 5, 0, 0)),
    ("cr_jobset", NEW, "one child Job failed", "js", ("JobSet", "Degraded", 5, 3, 0, 0)),
    ("cr_jobset", NEW, "restarting", "js", ("JobSet", "Initializing", 5, 0, 0, 0)),
    ("cr_jobset", NEW, "running again", "js", ("JobSet", "Running", 5, 5, 0, 0)),
    ("cr_jobset", NEW, "completed", "js", ("JobSet", "Completed", 5, 0, 0, 0)),
    ("cr_jobset", NEW, "suspended", "js2", ("JobSet", "Stopped", 1, 0, 0, 0)),
    ("cr_knative", NEW, "created", "hello", ("Service", "Creating", None, 0, 0, 0)),
    ("cr_knative", NEW, "initialising", "hello", ("Service", "Initializing", None, 0, 0, 0)),
    ("cr_knative", NEW, "running", "hello", ("Service", "Running", None, 1, 0, 0)),
    ("cr_knative", NEW, "idle", "hello", ("Service", "Running", None, 0, 0, 0)),
    ("cr_knative", NEW, "new revision failed", "hello", ("Service", "Degraded", None, 0, 0, 0)),
    ("cr_knative", NEW, "deleting", "hello", ("Service", "Deleting", None, 0, 0, 0)),
    ("cr_kueue", NEW, "pending", "kj", ("Job", "Pending", 2, 0, 0, 0)),
    ("cr_kueue", NEW, "admitted", "kj", ("Job", "Initializing", 2, 0, 0, 0)),
    ("cr_kueue", NEW, "running", "kj", ("Job", "Running", 2, 2, 0, 0)),
    ("cr_kueue", NEW, "evicted", "kj", ("Job", "Pending", 2, 0, 0, 0)),
    ("cr_kueue", NEW, "completed", "kj", ("Job", "Completed", 2, 0, 0, 0)),
    ("cr_leaderworkerset", NEW, "created", "vllm", ("LeaderWorkerSet", "Creating", 6, 0, 4, 0)),
    (
        "cr_leaderworkerset",
        NEW,
        "initialising",
        "vllm",
        ("LeaderWorkerSet", "Initializing", 6, 0, 4, 4),
    ),
    ("cr_leaderworkerset", NEW, "running", "vllm", ("LeaderWorkerSet", "Running", 6, 6, 4, 4)),
    ("cr_leaderworkerset", NEW, "degraded", "vllm", ("LeaderWorkerSet", "Degraded", 6, 5, 4, 4)),
    (
        "cr_leaderworkerset",
        NEW,
        "scaled to zero",
        "vllm",
        ("LeaderWorkerSet", "Stopped", 0, 0, 0, 0),
    ),
    ("cr_nimservice", NEW, "created", "llama", ("NIMService", "Creating", 1, 0, 1, 0)),
    ("cr_nimservice", NEW, "pending", "llama", ("NIMService", "Initializing", 1, 0, 1, 1)),
    ("cr_nimservice", NEW, "running", "llama", ("NIMService", "Running", 1, 1, 1, 1)),
    ("cr_nimservice", NEW, "failed", "llama", ("NIMService", "Degraded", 1, 1, 1, 1)),
    ("cr_nimservice", NEW, "scaled to zero", "llama", ("NIMService", "Stopped", 0, 0, 0, 0)),
    ("cr_pytorchjob_kai", NEW, "created", "bert", ("PyTorchJob", "Creating", 3, 0, 6, 0)),
    ("cr_pytorchjob_kai", NEW, "pending", "bert", ("PyTorchJob", "Pending", 3, 0, 6, 0)),
    ("cr_pytorchjob_kai", NEW, "running", "bert", ("PyTorchJob", "Running", 3, 3, 6, 6)),
    ("cr_pytorchjob_kai", NEW, "degraded", "bert", ("PyTorchJob", "Degraded", 3, 2, 6, 6)),
    ("cr_pytorchjob_kai", NEW, "completed", "bert", ("PyTorchJob", "Completed", 3, 0, 6, 0)),
    ("cr_pytorchjob_kai", NEW, "failed", "bad", ("PyTorchJob", "Degraded", 3, 3, 6, 6)),
    ("cr_pytorchjob_kai", NEW, "suspended", "held", ("PyTorchJob", "Stopped", 3, 0, 6, 0)),
    ("cr_ray", NEW, "created", "rc", ("RayCluster", "Creating", 3, 0, 2, 0)),
    ("cr_ray", NEW, "initialising", "rc", ("RayCluster", "Initializing", 3, 0, 2, 2)),
    ("cr_ray", NEW, "running", "rc", ("RayCluster", "Running", 3, 3, 2, 2)),
    ("cr_ray", NEW, "degraded", "rc", ("RayCluster", "Degraded", 3, 2, 2, 1)),
    ("cr_ray", NEW, "suspending", "rc", ("RayCluster", "Stopping", 3, 0, 2, 1)),
    ("cr_ray", NEW, "suspended", "rc", ("RayCluster", "Stopped", 3, 0, 2, 0)),
    ("cr_ray", NEW, "RayJob initialising", "rj", ("RayJob", "Initializing", 4, 0, 2, 2)),
    ("cr_ray", NEW, "RayJob running", "rj", ("RayJob", "Running", 4, 4, 2, 2)),
    ("cr_ray", NEW, "RayJob completed", "rj", ("RayJob", "Completed", 4, 0, 2, 0)),
    ("cr_ray", NEW, "RayJob failed", "rf", ("RayJob", "Failed", 4, 0, 2, 0)),
]
CASES = [
    pytest.param(version, life, moment, name, expected, id=f"{version}-{life}-{moment}-{name}")
    for life, versions, moment, name, expected in LIVES
    for version in versions
]


@pytest.mark.parametrize(("version", "life", "moment", "name", "expected"), CASES)
def test_record(
    version: str, life: str, moment: str, name: str, expected: tuple[object, ...]
) -> None:
    record_ = derived(version, life, moment)[name].record.workload
    gpu = record_.workload_requested_resources.gpu
    assert (
        record_.type,
        record_.phase.value,
        record_.requested_pods.number,
        record_.running_pods,
        gpu.request if gpu else 0,
        record_.allocated_resources.gpu,
    ) == expected


@pytest.mark.parametrize(("version", "life"), all_lives())
def test_every_moment_holds_together(version: str, life: str) -> None:
    """Whatever a moment holds: records encode, histories run forward, sums agree."""
    for moment in moments(version, life):
        for record_ in derived(version, life, moment).values():
            record = record_.record
            encoded = canonical_bytes(record)
            assert msgspec.json.decode(encoded, type=Record) == record
            phases = [entry.phase for entry in record_.transitions]
            times = [entry.at for entry in record_.transitions]
            assert phases[-1] is record.workload.phase
            assert times == sorted(times)
            assert all(phase is not next_ for phase, next_ in itertools.pairwise(phases))
            by_pool = record.gpu_millionths_by_node_pool
            assert sum(by_pool.values()) == record.usage.gpu_millionths
            assert record.workload.allocated_resources.gpu * 1_000_000 == pytest.approx(
                record.usage.gpu_millionths
            )
            assert len(record.elements) == min(record.elements_total, MAX_ELEMENTS)
            known = {element.id for element in record.elements}
            assert {element.parent_id for element in record.elements} <= known | {None}


def test_the_pytorch_job_is_waited_for_as_kai_says() -> None:
    record = derived("1.36", "cr_pytorchjob_kai", "pending")["bert"].record
    actual = record.workload
    assert (actual.project_name, actual.department_name) == ("team-a", "dept-a")
    assert (actual.priority_class_name, actual.preemptible) == ("train", True)
    assert actual.submitted_by == "alice"
    assert actual.phase_reason == "OverLimit"
    assert actual.phase_message == (
        "Department dept-a is at its limit of GPUs – 6 requested, 0 of 16 free"
        " – free 6 more in the department or raise its limit."
    )
    [message] = record.pending_scheduling_messages
    assert (message.org_type, message.node_pool) == ("DEPARTMENT", "gpu")
    reasons = actual.additional_fields["pendingReasons"]
    assert [reason["source"] for reason in reasons] == ["kai", "kai"]
    assert actual.requested_node_pools == ("gpu",)
    assert actual.current_node_pools == ()
    assert actual.topology is not None
    assert actual.topology.preferred_placement == "topology.example/rack"


def test_a_stale_condition_says_nothing_once_pods_run() -> None:
    for moment in ("running", "degraded", "completed"):
        record = derived("1.36", "cr_pytorchjob_kai", moment)["bert"].record
        assert record.pending_scheduling_messages == ()
        assert "pendingReasons" not in record.workload.additional_fields
        assert record.workload.phase_reason is None


def test_kueue_holds_a_job_that_nobody_stopped() -> None:
    actual = derived("1.36", "cr_kueue", "pending")["kj"].record.workload
    [reason] = actual.additional_fields["pendingReasons"]
    assert reason["source"] == "kueue"
    assert (
        "quota of CPU cores in flavor default – 0.2 requested, 1 more needed"
        in reason["userMessage"]
    )
    assert (actual.project_name, actual.department_name) == ("team-a", "cq-a")
    evicted = derived("1.36", "cr_kueue", "evicted")["kj"].record.workload
    assert evicted.phase_message is not None
    assert evicted.phase_message.startswith("It was preempted")


def elements(life: str, moment: str, name: str) -> list[tuple[int, str, str | None, str]]:
    """Level, name, parent's name and the kind behind each element."""
    result = derived("1.36", life, moment)[name].record.elements
    names = {element.id: element.name for element in result}
    return [
        (
            element.hierarchy_level,
            element.name,
            names.get(element.parent_id) if element.parent_id else None,
            element.kubernetes_ref.gvk.kind if element.kubernetes_ref else "",
        )
        for element in result
    ]


def test_elements_of_a_leader_worker_set() -> None:
    assert elements("cr_leaderworkerset", "running", "vllm") == [
        (1, "group 0", None, ""),
        (1, "group 1", None, ""),
        (2, "leader", "group 0", ""),
        (2, "workers", "group 0", ""),
        (2, "leader", "group 1", ""),
        (2, "workers", "group 1", ""),
    ]


def test_elements_of_a_job_set() -> None:
    assert elements("cr_jobset", "running", "js") == [
        (1, "leader", None, ""),
        (1, "workers", None, ""),
        (2, "js-leader-0", "leader", "Job"),
        (2, "js-workers-0", "workers", "Job"),
        (2, "js-workers-1", "workers", "Job"),
    ]


def test_elements_of_a_ray_job() -> None:
    result = elements("cr_ray", "RayJob running", "rj")
    assert result[:2] == [(1, "rj-abcde", None, "RayCluster"), (1, "rj", None, "Job")]
    assert {(level, parent) for level, _, parent, _ in result[2:]} == {(2, "rj-abcde")}


def test_the_elements_of_a_life_keep_their_ids() -> None:
    first = derived("1.36", "cr_pytorchjob_kai", "pending")["bert"].record.elements
    later = derived("1.36", "cr_pytorchjob_kai", "completed")["bert"].record.elements
    assert [element.id for element in first] == [element.id for element in later]
    assert CLUSTER_ID not in {element.id for element in first}


def test_a_job_of_every_length_has_its_history() -> None:
    result = derived("1.36", "job_suspended", "completed")["sus"].transitions
    assert [entry.phase for entry in result] == [
        Phase.CREATING,
        Phase.RESUMING,
        Phase.PENDING,
        Phase.INITIALIZING,
        Phase.RUNNING,
        Phase.COMPLETED,
    ]


def test_knative_answers_where_its_status_says() -> None:
    actual = derived("1.36", "cr_knative", "idle")["hello"].record.workload
    assert actual.urls
    assert actual.urls[0].startswith("http")


def test_workloads_satisfy_the_contract(contract_document: bytes) -> None:
    """With what the server adds, every recorded workload is the contract's Workload."""
    schema = json.loads(contract_document)
    validator = jsonschema_rs.validator_for(
        {"$ref": "#/components/schemas/Workload", "components": schema["components"]}
        | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    )
    added = {
        "tenantId": 1,
        "clusterId": str(CLUSTER_ID),
        "projectId": "1",
        "departmentId": "",
        "updatedAt": "2026-11-23T16:32:12Z",
        "phaseUpdatedAt": "2026-11-23T16:32:12Z",
        "k8sPhaseUpdatedAt": "2026-11-23T16:32:12Z",
        "deletedAt": "2026-11-23T16:32:12Z",
    }
    for version, life in all_lives():
        for moment in moments(version, life):
            for record_ in derived(version, life, moment).values():
                document = msgspec.json.decode(msgspec.json.encode(record_.record.workload))
                # OpenAPI 3.0's `nullable` is no JSON Schema; null members are checked elsewhere.
                shown = {key: value for key, value in document.items() if value is not None}
                validator.validate({"priority": 0} | shown | added)


@pytest.fixture(scope="module")
def contract_document() -> bytes:
    from pathlib import Path

    return (Path(__file__).parents[3] / "contract" / "openapi.json").read_bytes()
