"""Sentences about waiting, as a tired person reads them: no quantities, nothing said twice, something to do."""

from fractions import Fraction

import pytest

from tests.fixtures.makers import JSON, condition, container, deployment, gpus, job, uid, workload
from tests.unit.kinds.pending.test_derive_pending import (
    GPU,
    kueue,
    reasons,
    scheduling,
    silent,
    waiting,
)
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.kinds.pending.no_capacity import (
    amount_with_word,
    format_amount,
    format_decimal,
    quota_message,
)
from watchbill.quantity import Amount

NO_NODES = "no nodes with enough resources were found"


@pytest.mark.parametrize(
    ("amount", "up", "down"),
    [
        (0, "0", "0"),
        (16, "16", "16"),
        (100, "100", "100"),
        (Fraction(1, 2), "0.5", "0.5"),
        (Fraction(281, 100), "2.81", "2.81"),
        (Fraction(2805, 1000), "2.81", "2.8"),
        (Fraction(1, 1000), "0.01", "0"),
        (Fraction(1, 7), "0.15", "0.14"),
        (1234567, "1234567", "1234567"),
    ],
)
def test_figures_have_two_digits_at_most_and_never_promise_room(
    amount: Amount, up: str, down: str
) -> None:
    assert (format_decimal(amount), format_decimal(amount, rounds_up=False)) == (up, down)


@pytest.mark.parametrize(
    ("resource", "amount", "message"),
    [
        ("memory", 64 * 1024**3, "64 GiB of memory"),
        ("memory", 1536 * 1024**2, "1.5 GiB of memory"),
        ("memory", 64_000_000, "61.04 MiB of memory"),
        ("memory", 0, "0 bytes of memory"),
        ("hugepages-2Mi", 2 * 1024**2, "2 MiB of hugepages-2Mi"),
        (GPU, 1, "1 GPU"),
        (GPU, 8, "8 GPUs"),
        ("cpu", Fraction(1, 2), "0.5 CPU cores"),
        ("cpu", 1, "1 CPU core"),
        ("nvidia.com/mig-1g.10gb", 2, "2 nvidia.com/mig-1g.10gb"),
    ],
)
def test_amounts_with_their_words(resource: str, amount: Amount, message: str) -> None:
    assert amount_with_word(resource, amount) == message


def test_what_is_free_is_rounded_down() -> None:
    assert format_amount("memory", 1999 * 1024**2, rounds_up=False) == "1.95 GiB"


def limits(asked: str, used: str, bound: str) -> JSON:
    return {
        "name": "team-a",
        "podGroupRequestedResources": {GPU: asked},
        "queueAllocatedResources": {GPU: used},
        "queueResourceLimits": {GPU: bound},
    }


@pytest.mark.parametrize(
    ("asked", "used", "bound", "message"),
    [
        ("16", "59190m", "62", "16 requested, 2.81 of 62 free – free 13.19 more in the project"),
        ("500m", "15750m", "16", "0.5 requested, 0.25 of 16 free – free 0.25 more in the project"),
        ("4", "20", "16", "4 requested, 0 of 16 free – free 4 more in the project"),
        ("80", "0", "62", "80 requested, 62 of 62 free – request at most 62"),
    ],
)
def test_gpus_are_decimals(asked: str, used: str, bound: str, message: str) -> None:
    [result] = reasons(scheduling("OverLimit", details=limits(asked, used, bound)))
    assert result["userMessage"] == (
        f"Project Vision is at its limit of GPUs – {message} or raise its limit."
    )


def test_what_is_beyond_the_whole_quota_need_not_wait() -> None:
    details = {
        "name": "team-a",
        "podGroupRequestedResources": {GPU: "8"},
        "queueAllocatedNonPreemptibleResources": {GPU: "2"},
        "queueDeservedResources": {GPU: "5"},
    }
    [result] = reasons(scheduling("NonPreemptibleOverQuota", details=details))
    assert result["userMessage"] == (
        "Project Vision has too little quota of GPUs left for non-preemptible work"
        " – 8 requested, 3 of 5 free"
        " – make the workload preemptible, request at most 5, or raise its quota."
    )


WAIT = "wait, request less, or add nodes."
SAYS_NO_REASON = (
    " has not placed its pods and says no reason – 2 pods request 4 GPUs in total"
    " – see its events or the scheduler's log."
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "Not enough resources in node pool a100: 2 pods at once with 16 GPUs do not fit.",
            "Node pool a100 has no capacity – 2 pods at once with 16 GPUs do not fit – " + WAIT,
        ),
        (
            "Not enough resources within one rack of node pool a100: 4 pods at once with 32 GPUs"
            " do not fit.",
            "Node pool a100 has no capacity within one rack"
            " – 4 pods at once with 32 GPUs do not fit – " + WAIT,
        ),
        (
            f"Resources were not found for pod vision/w-1 due to: {NO_NODES}:"
            " 5 node(s) didn't have enough resources: GPUs. \n"
            "2 node(s) didn't have enough resources: memory.",
            "Node pool a100 has too few free GPUs"
            " – 2 pods request 4 GPUs in total, 5 nodes have too few – " + WAIT,
        ),
        (
            "Resources were found for 3 pods while 4 are required for gang scheduling. Additional"
            f" pods cannot be scheduled due to: {NO_NODES}:"
            " 1 node(s) didn't have enough resources: memory.",
            "Node pool a100 has too little free memory – 2 pods request 4 GPUs in total,"
            " only 3 of the 4 that must start together fit, 1 node has too little – " + WAIT,
        ),
        (
            f"{NO_NODES}: 3 node(s) didn't have enough of mig profile: nvidia.com/mig-3g.20gb.",
            "Node pool a100 has too few free nvidia.com/mig-3g.20gb"
            " – 2 pods request 4 GPUs in total, 3 nodes have too few – " + WAIT,
        ),
        (
            f"{NO_NODES}: 3 node(s) didn't match Pod's node affinity/selector.",
            "Node pool a100: no node fits its node selector or affinity"
            " – 2 pods request 4 GPUs in total, 3 nodes reject it"
            " – change the selector or label nodes.",
        ),
        (
            "Node dgx02 didn't have enough resources: GPUs, requested: 1, used: 7.5, capacity: 8",
            "Node pool a100 has too few free GPUs"
            " – 1 requested, 0.5 of 8 free on node dgx02 – " + WAIT,
        ),
        (
            "Not enough resources",
            "Node pool a100 has no capacity for it – 2 pods request 4 GPUs in total – " + WAIT,
        ),
        ("Unable to schedule podgroup", "Node pool a100: the scheduler" + SAYS_NO_REASON),
        ("", "Node pool a100: the scheduler" + SAYS_NO_REASON),
        (
            "node-pool a100 sleeps",
            "node-pool a100 sleeps – 2 pods request 4 GPUs in total – " + WAIT,
        ),
    ],
)
def test_no_room_in_a_node_pool(message: str, text: str) -> None:
    asking = [container(resources=gpus(2))]
    pods = [silent(1), silent(2)]
    for pod in pods:
        pod["spec"] = pod["spec"] | {"containers": asking}
    [result] = reasons(scheduling("Unschedulable", message), pods=pods)
    assert result["userMessage"] == text
    assert result["userMessage"].count("a100") == 1


def test_a_scheduler_that_names_no_pool() -> None:
    result = workload(
        deployment(1), [waiting(1, "Unable to schedule pod", spec_schedulerName="kai-scheduler")]
    )
    assert result.phase_message == (
        "The scheduler has not placed its pods and says no reason – 1 pod waits"
        " – see its events or the scheduler's log."
    )


def volcano(message: str, **more: object) -> str | None:
    group = {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": {"name": "g"},
        "spec": {"queue": "research"},
        "status": {"conditions": [condition("Unschedulable", message=message)]},
    }
    pods = [silent(1), silent(2)]
    for pod in pods:
        pod["spec"] = pod["spec"] | {"containers": [container(resources=gpus(4))]}
    return workload(deployment(2), pods, pod_groups=[group], **more).phase_message


def test_volcano_s_words() -> None:
    gang = "1/2 tasks in gang unschedulable: pod group is not ready, 2 Pending, 2 minAvailable"
    assert volcano(gang) == (
        "Its pods are scheduled together or not at all, and 1 of 2 finds no node"
        f" – 2 pods request 8 GPUs in total in queue research – {WAIT}"
    )
    queues = {"research": {"spec": {"capability": {GPU: "4"}}}}
    assert volcano(
        "queue resource quota insufficient", cluster=ClusterObjects(volcano_queues=queues)
    ) == (
        "Queue research has too little capacity left for it"
        " – 2 pods request 8 GPUs in total, its capability is 4 GPUs"
        " – free some in the queue, request less, or raise its capability."
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in"
            " flavor a100, previously considered podsets requests (0) + current podset request (8)"
            " > maximum capacity (4)",
            "Queue team-q never has that many GPUs in flavor a100 – 8 requested, at most 4 available"
            " – request less, or raise the quota.",
        ),
        (
            "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in"
            " flavor a100, request > maximum capacity (8 > 4)",
            "Queue team-q never has that many GPUs in flavor a100 – 8 requested, at most 4 available"
            " – request less, or raise the quota.",
        ),
        # In one flavor it will never fit, in the other it may.
        (
            "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in"
            " flavor a100, request > maximum capacity (8 > 4), insufficient unused quota for"
            " nvidia.com/gpu in flavor h100, 2 more needed",
            "Queue team-q has too little quota of GPUs in flavor h100 – 8 requested, 2 more needed"
            " – wait, request less, or raise the quota.",
        ),
        # One set of pods has to wait, the other never fits.
        (
            "couldn't assign flavors to pod set master: insufficient unused quota for nvidia.com/gpu"
            " in flavor h100, 8 more needed; couldn't assign flavors to pod set worker:"
            " insufficient quota for nvidia.com/gpu in flavor a100, request > maximum capacity (16 > 8)",
            "Queue team-q never has that many GPUs in flavor a100 – 8 requested, at most 8 available"
            " – request less, or raise the quota.",
        ),
        (
            "insufficient unused quota for memory in flavor cpu, 1536Mi more needed",
            "Queue team-q has too little quota of memory in flavor cpu – 1.5 GiB more needed"
            " – wait, request less, or raise the quota.",
        ),
        (
            "ClusterQueue cq is inactive",
            "Its ClusterQueue cq is inactive (stopped, or something that it names is missing)"
            " – it waits in queue team-q – ask the administrator of the queue.",
        ),
        (
            "Workload namespace doesn't match ClusterQueue selector",
            "The cluster queue does not take work of its namespace – it waits in queue team-q"
            " – ask the administrator of the queue.",
        ),
    ],
)
def test_kueue_s_words(message: str, text: str) -> None:
    held = kueue(condition("QuotaReserved", "False", reason="Pending", message=message))
    assert workload(job(suspend=True), queue_workloads=[held]).phase_message == text


def failed_create(message: str, at: str = "2026-05-04T10:05:00Z") -> JSON:
    return {
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": at,
        "involvedObject": {"uid": uid(1)},
    }


def test_a_namespace_s_quota_keeps_pods_from_being_made() -> None:
    text = (
        'pods "w-1" is forbidden: exceeded quota: gpus, requested: cpu=1,requests.nvidia.com/gpu=8,'
        " used: cpu=2,requests.nvidia.com/gpu=12, limited: cpu=64,requests.nvidia.com/gpu=16"
    )
    result = workload(deployment(1), scheduling_events=[failed_create(text)])
    assert (result.phase.value, result.phase_message) == (
        "Creating",
        "Quota gpus of the namespace has too few GPUs left – 8 requested, 4 of 16 free"
        " – free GPUs in the namespace, request less, or raise the quota.",
    )
    assert quota_message("exceeded quota: q, requested: x, used: y, limited to: z") == ""
    other = workload(deployment(1), scheduling_events=[failed_create("the webhook refused")])
    assert other.phase_message == "the webhook refused"


def test_every_sentence_has_three_parts_and_ends() -> None:
    for reason in ("OverLimit", "NonPreemptibleOverQuota", "QueueDoesNotExist", "Else",
                   "PreemptionDelayNotElapsed"):  # fmt: skip
        [result] = reasons(scheduling(reason))
        assert result["userMessage"].count(" – ") == 2, result
        assert result["userMessage"].endswith(".")
        assert ".." not in result["userMessage"]
