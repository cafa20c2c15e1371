"""Why a workload waits, in the words of its schedulers and in plain ones."""

from typing import Any

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import (
    JSON,
    at,
    condition,
    deployment,
    derived,
    gpus,
    job,
    pod,
    pod_group,
    pytorch,
    queue,
    uid,
    workload,
)
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.kinds.objects.pod import POD_GROUP_ANNOTATION

QUEUES = {
    "team-a": queue("team-a", "dept-a", displayName="Vision"),
    "dept-a": queue("dept-a", displayName="Research"),
}
CLUSTER = ClusterObjects(queues=QUEUES)
GPU = "nvidia.com/gpu"


def scheduling(reason: str, message: str = "said", **more: Any) -> JSON:
    details = more.pop("details", {})
    return {
        "type": "UnschedulableOnNodePool",
        "nodePool": "a100",
        "status": "True",
        "message": message,
        "transitionID": "1",
        "lastTransitionTime": at(2),
        "reasons": [
            {"reason": reason, "message": message, "details": {"queueDetails": details}},
        ],
    } | more


def waiting(number: int = 1, message: str | None = None, **more: Any) -> JSON:
    result = pod(number, "waiting", meta_annotations={POD_GROUP_ANNOTATION: "pg-w"}, **more)
    if message is not None:
        result["status"] = {
            "phase": "Pending",
            "conditions": [
                condition(
                    "PodScheduled",
                    "False",
                    reason="Unschedulable",
                    message=message,
                    lastTransitionTime=at(1),
                )
            ],
        }
    return result


def silent(number: int = 1) -> JSON:
    result = waiting(number)
    return result | {"status": {"phase": "Pending"}}


def reasons(*conditions: JSON, pods: list[JSON] | None = None, **more: Any) -> list[JSON]:
    group = pod_group(status={"schedulingConditions": list(conditions)})
    result = workload(
        pytorch(workers=0),
        pods if pods is not None else [silent()],
        pod_groups=[group],
        cluster=CLUSTER,
        **more,
    )
    assert result.phase.value == "Pending"
    listed: list[JSON] = result.additional_fields.get("pendingReasons", [])
    assert result.phase_message == (listed[0]["userMessage"] if listed else result.phase_message)
    return listed


@pytest.mark.parametrize(
    ("reason", "details", "sentence"),
    [
        (
            "OverLimit",
            {
                "name": "dept-a",
                "podGroupRequestedResources": {GPU: "6"},
                "queueAllocatedResources": {GPU: "14"},
                "queueResourceLimits": {GPU: "16"},
            },
            "Department Research is at its limit of GPUs – 6 requested, 2 of 16 free"
            " – free 4 more in the department or raise its limit.",
        ),
        (
            "NonPreemptibleOverQuota",
            {
                "name": "team-a",
                "podGroupRequestedResources": {GPU: "8", "cpu": "1"},
                "queueAllocatedNonPreemptibleResources": {GPU: "20"},
                "queueDeservedResources": {GPU: "24"},
            },
            "Project Vision has too little quota of GPUs left for non-preemptible work"
            " – 8 requested, 4 of 24 free"
            " – make the workload preemptible, free 4 more in the project, or raise its quota.",
        ),
        (
            "OverLimit",
            {
                "name": "team-a",
                "podGroupRequestedResources": {"memory": "64Gi", GPU: "1"},
                "queueAllocatedResources": {"memory": "128Gi"},
                "queueResourceLimits": {"memory": "160Gi", GPU: "-1"},
            },
            "Project Vision is at its limit of memory – 64 GiB requested, 32 GiB of 160 GiB free"
            " – free 32 GiB more in the project or raise its limit.",
        ),
        (
            "OverLimit",
            {},
            "Project Vision is at its limit of resources – amount unknown"
            " – free resources in the project or raise its limit.",
        ),
        (
            "QueueDoesNotExist",
            {},
            "Queue team-a does not exist – no pod can be scheduled"
            " – create it or name another queue.",
        ),
        (
            "Not enough resources for the workload",
            {},
            "Node pool a100: said – 1 pod waits – wait, request less, or add nodes.",
        ),
    ],
)
def test_kai_in_plain_words(reason: str, details: JSON, sentence: str) -> None:
    [result] = reasons(scheduling(reason, details=details))
    assert (result["source"], result["nodePool"], result["reason"]) == ("kai", "a100", reason)
    assert result["userMessage"] == sentence
    assert result["since"] == at(2)


@pytest.mark.parametrize(
    ("name", "org_type"), [("team-a", "PROJECT"), ("dept-a", "DEPARTMENT"), ("", None)]
)
def test_the_contract_s_message_names_who_blocks(name: str, org_type: str | None) -> None:
    group = pod_group(
        status={"schedulingConditions": [scheduling("OverLimit", details={"name": name})]}
    )
    record = derived(pytorch(workers=0), [silent()], pod_groups=[group], cluster=CLUSTER).record
    [message] = record.pending_scheduling_messages
    assert (message.phase_reason, message.org_type) == ("OverLimit", org_type)
    assert record.workload.phase_reason == "OverLimit"


@pytest.mark.parametrize("reason", ["QueueDoesNotExist", "PreemptionDelayNotElapsed", "Whatever"])
def test_other_reasons_are_no_phase_reason(reason: str) -> None:
    group = pod_group(status={"schedulingConditions": [scheduling(reason)]})
    record = derived(pytorch(workers=0), [silent()], pod_groups=[group], cluster=CLUSTER).record
    assert record.pending_scheduling_messages == ()
    assert record.workload.phase_reason is None
    assert len(record.workload.additional_fields["pendingReasons"]) == 1


def test_a_condition_older_than_the_waiting_is_stale() -> None:
    late = silent() | {"metadata": silent()["metadata"] | {"creationTimestamp": at(30)}}
    assert reasons(scheduling("OverLimit"), pods=[late]) == []
    assert len(reasons(scheduling("OverLimit", lastTransitionTime=at(31)), pods=[late])) == 1


def test_a_pod_that_is_made_again_does_not_make_the_group_s_word_stale() -> None:
    late = silent(2) | {"metadata": silent(2)["metadata"] | {"creationTimestamp": at(30)}}
    assert len(reasons(scheduling("OverLimit"), pods=[silent(1), late])) == 1


def test_of_one_node_pool_the_newest_transition_counts() -> None:
    result = reasons(
        scheduling("Old", transitionID="9"),
        scheduling("New", transitionID="10"),
        scheduling("Elsewhere", "other", nodePool="h100", transitionID="2"),
    )
    assert {reason["reason"] for reason in result} == {"New", "Elsewhere"}


def test_quota_comes_before_the_newer_lack_of_nodes() -> None:
    result = reasons(
        scheduling("Unschedulable", "no nodes", lastTransitionTime=at(9)),
        scheduling("OverLimit", nodePool="h100"),
    )
    assert [reason["reason"] for reason in result] == ["OverLimit", "Unschedulable"]


def test_a_sentence_on_group_and_pods_is_written_once() -> None:
    pods = [waiting(number, "said", spec_schedulerName="kai-scheduler") for number in (1, 2)]
    result = reasons(scheduling("OverLimit"), pods=pods)
    assert [reason["message"] for reason in result] == ["said"]


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "0/7 nodes are available: 2 Insufficient nvidia.com/gpu, 5 node(s) didn't match Pod's"
            " node affinity/selector. preemption: 0/7 nodes are available: 7 Preemption is not"
            " helpful for scheduling.",
            "No node has enough free GPUs – 16 requested by one pod, 2 of 7 nodes have too few,"
            " the other 5 do not fit – wait, request less, or add nodes.",
        ),
        (
            "0/3 nodes are available: 3 Insufficient cpu.",
            "No node has enough free CPU cores – 4 requested by one pod, 3 of 3 nodes have too few"
            " – wait, request less, or add nodes.",
        ),
        (
            "0/7 nodes are available: 7 node(s) didn't match Pod's node affinity/selector.",
            "No node fits its node selector or affinity – 7 of 7 nodes reject it for this reason"
            " – change the selector or label nodes.",
        ),
        (
            "0/7 nodes are available: 7 node(s) had untolerated taint {nvidia.com/gpu: true}.",
            "Its pods do not tolerate the taints of nodes – 7 of 7 nodes reject it for this reason"
            " – tolerate the taint or free nodes.",
        ),
        (
            '0/7 nodes are available: persistentvolumeclaim "nope" not found. not found',
            "Volume claim nope does not exist – a pod uses it – create the claim.",
        ),
        (
            "0/3 nodes are available: request gpu: device class gpu.nvidia.com does not exist. no new"
            " claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful"
            " for scheduling.",
            "Device class gpu.nvidia.com does not exist – a resource claim of its pods names it"
            " – install the driver that brings it, or name another class.",
        ),
        (
            '0/3 nodes are available: could not find ResourceClaim "team-a/shared".',
            "Resource claim shared does not exist – a pod uses it – create the claim.",
        ),
        (
            'pod "team-a/p-1": ResourceClaim not created yet',
            "A resource claim of its pods is not there yet – Kubernetes makes it from the template"
            " that they name – check that the ResourceClaimTemplate exists.",
        ),
        (
            'waiting for dynamic resource controller to create the resourceclaim "p-gpu". no new'
            " claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful"
            " for scheduling.",
            "A resource claim of its pods is not there yet – Kubernetes makes it from the template"
            " that they name – check that the ResourceClaimTemplate exists.",
        ),
        (
            '0/3 nodes are available: resourceclaim "shared" is being deleted.',
            "Resource claim shared is being deleted – a pod uses it – end the pods that still hold"
            " it, and create it again.",
        ),
        (
            "0/3 nodes are available: 3 resourceclaim not available on the node.",
            "Its resource claims hold devices that these nodes do not reach – 3 of 3 nodes reject it"
            " for this reason – free the nodes that do, or use other claims.",
        ),
        (
            "something new",
            "something new – 1 pod requests 16 GPUs – wait, request less, or add nodes.",
        ),
        (
            "0/2 nodes are available: moon phase.",
            "No node fits – moon phase – wait, request less, or add nodes.",
        ),
    ],
)
def test_the_default_scheduler_in_plain_words(message: str, sentence: str) -> None:
    resources = {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": "16"}}
    containers = [{"name": "main", "resources": resources}]
    result = workload(deployment(1), [waiting(1, message, spec_containers=containers)])
    [reason] = result.additional_fields["pendingReasons"]
    assert (reason["source"], reason["message"]) == ("scheduler", message)
    assert reason["userMessage"] == result.phase_message == sentence


def test_pods_that_a_message_names_wait_for_the_same() -> None:
    pods = []
    for number in range(7):
        name = {"name": f"worker-{number}", "namespace": "team-a"}
        message = f'pod "team-a/worker-{number}": ResourceClaim not created yet'
        each = waiting(number, message)
        pods.append(each | {"metadata": each["metadata"] | name})
    [reason] = workload(deployment(7), pods).additional_fields["pendingReasons"]
    assert reason["message"] == 'pod "team-a/worker-0": ResourceClaim not created yet'


def test_more_gpus_than_any_node_has() -> None:
    containers = [{"name": "main", "resources": gpus(16)}]
    nodes = {f"n{number}": {"nvidia.com/gpu.count": "8"} for number in range(3)}
    result = workload(
        deployment(1),
        [waiting(1, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                 spec_containers=containers)],
        cluster=ClusterObjects(node_labels=nodes),
    )  # fmt: skip
    assert result.phase_message == (
        "No node has 16 GPUs – the largest has 8 – request at most 8 per pod, or add larger nodes."
    )


@pytest.mark.parametrize(
    ("gates", "beginning"),
    [
        ((), "A scheduling gate blocks its pods"),
        (("example.com/a",), "Scheduling gate example.com/a blocks its pods"),
        (("example.com/a", "b"), "Scheduling gates example.com/a, b block its pods"),
    ],
)
def test_a_scheduling_gate_blocks(gates: tuple[str, ...], beginning: str) -> None:
    gated = waiting(1)
    gated["spec"]["schedulingGates"] = [{"name": name} for name in gates]
    gated["status"]["conditions"][0] |= {"reason": "SchedulingGated", "message": "gated"}
    result = workload(deployment(1), [gated])
    assert result.phase.value == "Pending"
    assert result.phase_message is not None
    assert result.phase_message.startswith(f"{beginning} – no scheduler")


def kueue(*conditions: JSON, **more: Any) -> JSON:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "w", "uid": uid(1)}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"name": "k", "ownerReferences": [owner], "creationTimestamp": at(0)},
        "spec": {
            "queueName": "team-q",
            "podSets": [
                {"count": 4, "template": {"spec": {"containers": [{"resources": gpus(2)}]}}}
            ],
        },
        "status": {"conditions": list(conditions)} | more,
    }


@pytest.mark.parametrize(
    ("conditions", "reason", "sentence"),
    [
        (
            [
                condition(
                    "QuotaReserved",
                    "False",
                    reason="Pending",
                    message="couldn't assign flavors to pod set main: insufficient unused quota"
                    " for nvidia.com/gpu in flavor a100, 3 more needed",
                )
            ],
            "Pending",
            "Queue team-q has too little quota of GPUs in flavor a100"
            " – 8 requested, 3 more needed – wait, request less, or raise the quota.",
        ),
        (
            [
                condition(
                    "QuotaReserved",
                    "False",
                    reason="Inadmissible",
                    message="LocalQueue team-q doesn't exist",
                )
            ],
            "Inadmissible",
            "Its LocalQueue team-q does not exist – it waits in queue team-q"
            " – create it, or name another queue.",
        ),
        (
            [],
            "Pending",
            "Queue team-q has not admitted it yet – it waits in queue team-q"
            " – wait, or ask the administrator of the queue.",
        ),
        (
            [
                condition("QuotaReserved", "False", reason="Pending"),
                condition("Evicted", reason="Preempted"),
            ],
            "Preempted",
            "It was preempted by a workload of higher priority in queue team-q"
            " – it waits for quota again – wait, or raise its priority.",
        ),
        (
            [
                condition("QuotaReserved", "False", reason="Pending"),
                condition("Evicted", reason="PodsReadyTimeout"),
            ],
            "PodsReadyTimeout",
            "Its pods were not ready in time, so queue team-q took its quota back"
            " – it waits for quota again – wait, or find out why they were not ready.",
        ),
    ],
)
def test_kueue_in_plain_words(conditions: list[JSON], reason: str, sentence: str) -> None:
    result = workload(job(suspend=True), queue_workloads=[kueue(*conditions)])
    [listed] = result.additional_fields["pendingReasons"]
    assert (listed["source"], listed["reason"]) == ("kueue", reason)
    assert listed["userMessage"] == result.phase_message == sentence


def test_an_admission_check_holds_what_has_quota() -> None:
    held = kueue(
        condition("QuotaReserved"),
        admissionChecks=[{"name": "budget", "state": "Pending", "message": "not signed"}],
    )
    result = workload(job(suspend=True), queue_workloads=[held])
    [listed] = result.additional_fields["pendingReasons"]
    assert (listed["reason"], listed["message"]) == ("AdmissionCheck", "not signed")


def test_volcano_speaks_on_its_group() -> None:
    group = {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": {"name": "g"},
        "spec": {"queue": "default"},
        "status": {
            "conditions": [
                condition("Unschedulable", reason="NotEnoughResources", message="3/4 tasks wait")
            ]
        },
    }
    result = workload(pytorch(workers=0), [silent()], pod_groups=[group])
    [reason] = result.additional_fields["pendingReasons"]
    assert (reason["source"], reason["reason"]) == ("volcano", "NotEnoughResources")
    assert result.preemptible is None


def test_a_workload_that_runs_has_no_reason() -> None:
    result = workload(
        pytorch(workers=0),
        [pod(1)],
        pod_groups=[pod_group(status={"schedulingConditions": [scheduling("OverLimit")]})],
    )
    assert "pendingReasons" not in result.additional_fields
    assert result.phase_reason is None


def test_pods_that_no_scheduler_spoke_of_are_counted() -> None:
    result = workload(pytorch(), [silent(1), silent(2), pod(3)])
    assert result.phase_message == "2 of 3 pods wait for a node."
    assert SETTINGS.default_node_pool == "default"
