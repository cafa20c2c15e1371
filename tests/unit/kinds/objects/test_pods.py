"""A workload's pods as they are reported: containers, what they hold, what is wrong with them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.fixtures.makers import JSON, at, container, derived, job, pod, uid
from watchbill.kinds.derivation import pods as module
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.workload_pod import WorkloadPod, pod_hash, pods_digest

NODES = ClusterObjects(node_labels={"n1": {"kai.scheduler/node-pool": "a100"}})


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def made(number: int = 1, *, spec: JSON | None = None, status: JSON | None = None) -> JSON:
    result = pod(number)
    result["spec"] |= spec or {}
    result["status"] |= status or {}
    return result


def reported_pods(*pods: JSON, **more: Any) -> tuple[WorkloadPod, ...]:
    return derived(job(), list(pods), **more).pods


RUNNING = {
    "phase": "Running",
    "startTime": "2026-11-20T08:00:05Z",
    "podIP": "10.1.2.3",
    "conditions": [{"type": "Ready", "status": "True"}],
    "initContainerStatuses": [
        {
            "name": "fetch",
            "restartCount": 0,
            "state": {
                "terminated": {
                    "exitCode": 0,
                    "reason": "Completed",
                    "startedAt": "2026-11-20T08:00:06Z",
                    "finishedAt": "2026-11-20T08:00:08Z",
                }
            },
        }
    ],
    "containerStatuses": [
        {
            "name": "main",
            "restartCount": 0,
            "state": {"running": {"startedAt": "2026-11-20T08:00:10Z"}},
        }
    ],
}


def test_a_running_pod() -> None:
    spec = {
        "nodeName": "n1",
        "priorityClassName": "train",
        "initContainers": [{"name": "fetch", "image": "registry.example.com/fetch:1"}],
        "containers": [
            {
                "name": "main",
                "image": "registry.example.com/train:1",
                "resources": {
                    "requests": {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "2"},
                    "limits": {"cpu": "3", "nvidia.com/gpu": "2"},
                },
            }
        ],
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"operator": "Exists", "tolerationSeconds": 300},
        ],
    }
    (result,) = reported_pods(made(spec=spec, status=RUNNING), cluster=NODES)
    assert (result.k8s_phase, result.is_ready, result.restarts) == ("Running", True, 0)
    assert result.k8s_phase_updated_at == instant("2026-11-20T08:00:10+00:00")
    assert (result.node_name, result.priority_class_name, result.ip) == ("n1", "train", "10.1.2.3")
    assert result.current_node_pool == "a100"
    assert [(each.name, each.is_init, each.state) for each in result.containers] == [
        ("fetch", True, "terminated"),
        ("main", False, "running"),
    ]
    assert result.containers[0].exit_code == 0
    assert result.containers[1].image == "registry.example.com/train:1"
    assert result.containers[1].started_at == instant("2026-11-20T08:00:10+00:00")
    requested, allocated = result.requested_resources, result.allocated_resources
    assert requested is not None
    assert requested.cpu is not None
    assert requested.gpu is not None
    assert (requested.cpu.request, requested.cpu.limit, requested.gpu.request) == (1.5, 3.0, 2.0)
    assert allocated is not None
    assert (allocated.gpu, allocated.cpu, allocated.cpu_memory) == (2.0, 1.5, "2Gi")
    assert [(each.key, each.toleration_seconds) for each in result.tolerations] == [
        ("gpu", None),
        (None, 300),
    ]
    assert (result.reason, result.message) == (None, None)


def test_node_affinity_as_the_spec_states_it() -> None:
    gpu = {"key": "gpu", "operator": "In", "values": ["h100", "h200"]}
    named = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
    odd = {"key": "gpu", "operator": "Near", "values": ["h100"]}
    zone = {"key": "zone", "operator": "Exists"}
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [gpu, odd]}, {"matchFields": [named]}]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 30, "preference": {"matchExpressions": [zone]}}
        ],
    }
    (result,) = reported_pods(made(spec={"affinity": {"nodeAffinity": affinity}}))
    assert json.loads(msgspec.json.encode(result.node_affinity)) == {
        "required": {"nodeSelectorTerms": [{"matchExpressions": [gpu]}, {"matchFields": [named]}]},
        "preferred": {
            "nodeSelectorTerms": [{"weight": 30, "preference": {"matchExpressions": [zone]}}]
        },
    }
    for nothing in ({}, {"podAffinity": {}}, {"nodeAffinity": {}}, {"nodeAffinity": "x"}):
        (result,) = reported_pods(made(spec={"affinity": nothing}))
        assert result.node_affinity is None


def statuses(state: JSON, *, last: JSON | None = None, restarts: int = 0) -> JSON:
    entry = {"name": "main", "restartCount": restarts, "state": state, "lastState": last or {}}
    return {"phase": "Running", "containerStatuses": [entry]}


KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("spec", "status", "reason", "message"),
    [
        (
            {"nodeName": "n1"},
            statuses({"waiting": {"reason": "CrashLoopBackOff"}}, last=KILLED, restarts=4),
            "CrashLoopBackOff",
            "Container main: CrashLoopBackOff after OOMKilled (exit code 137).",
        ),
        (
            {"nodeName": "n1"},
            {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            "Evicted",
            "low on memory",
        ),
        (
            {"nodeName": "n1"},
            {"phase": "Pending"}
            | {
                "containerStatuses": [
                    {
                        "name": "main",
                        "state": {
                            "waiting": {
                                "reason": "ImagePullBackOff",
                                "message": "no such image https://ada:secret@registry.example.com",
                            }
                        },
                    }
                ]
            },
            "ImagePullBackOff",
            "Container main: ImagePullBackOff: no such image https://***@registry.example.com",
        ),
        (
            {},
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ],
            },
            "Unschedulable",
            "0/3 nodes are available",
        ),
        ({"nodeName": "n1"}, statuses({"running": {}}, last=KILLED, restarts=1), None, None),
    ],
)
def test_what_is_wrong_is_written_once_and_without_secrets(
    spec: JSON, status: JSON, reason: str | None, message: str | None
) -> None:
    base = made()
    base["spec"].pop("nodeName", None)
    base["status"] = {}
    base["spec"] |= {"containers": [container()]} | spec
    base["status"] |= status
    (result,) = reported_pods(base)
    assert result.reason == reason
    assert result.message == message
    assert result.restarts == sum(each.restarts for each in result.containers)


def test_how_a_container_ended_before_is_reported_when_it_runs_again() -> None:
    status = statuses({"running": {"startedAt": "2026-11-20T09:00:00Z"}}, last=KILLED, restarts=1)
    base = made(spec={"containers": [container()]}, status=status)
    (result,) = reported_pods(base)
    (reported_container,) = result.containers
    assert (reported_container.last_reason, reported_container.last_exit_code) == ("OOMKilled", 137)


def test_a_pod_that_ended_holds_nothing() -> None:
    spec = {
        "nodeName": "n1",
        "containers": [container(resources={"limits": {"nvidia.com/gpu": "2"}})],
    }
    finished = {"terminated": {"exitCode": 0, "finishedAt": "2026-11-20T10:00:00Z"}}
    ended = statuses(finished) | {"phase": "Succeeded"}
    (result,) = reported_pods(made(spec=spec, status=ended))
    assert result.allocated_resources is None
    assert result.completed_at == instant("2026-11-20T10:00:00+00:00")
    assert result.k8s_phase_updated_at == result.completed_at


def test_of_too_many_the_running_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PODS", 3)
    pods = []
    for number in range(1, 7):
        single = made(number, status={"phase": "Succeeded" if number < 5 else "Running"})
        single["metadata"] |= {"name": f"w-{number}", "creationTimestamp": at(number)}
        pods.append(single)
    assert [result.name for result in reported_pods(*pods)] == ["w-4", "w-5", "w-6"]


def test_pods_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PODS_BYTES", 10_000)
    large = [container(image="x" * 1_000) for _ in range(3)]
    pods = [made(number, spec={"containers": large}) for number in range(1, 9)]
    assert len(reported_pods(*pods)) == 0
    small = [made(number) for number in range(1, 9)]
    assert len(reported_pods(*small)) == 8


def test_a_record_changes_with_its_pods_and_not_with_their_order() -> None:
    first, second = made(1, status=RUNNING), made(2, status=RUNNING)
    single = derived(job(), [first, second])
    other = derived(job(), [second, first])
    assert single.record == other.record
    assert single.record.pods_digest == pods_digest(
        (each.id, pod_hash(each)) for each in single.pods
    )
    moved = made(2, status=RUNNING | {"podIP": "10.9.9.9"})
    assert derived(job(), [first, moved]).record.pods_digest != single.record.pods_digest
    assert derived(job(), []).record.pods_digest == ""


def test_an_id_that_is_no_uuid_is_hashed() -> None:
    single = made()
    single["metadata"]["uid"] = "not-a-uuid"
    (result,) = reported_pods(single)
    assert str(result.id) != uid(1)
