"""What ended or stops a container is said, whatever it hides behind."""

from tests.fixtures.makers import JSON, at, condition, job, meta, pod, root, template, workload
from watchbill.kinds.objects.objects import ClusterObjects

KILLED = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at(8)}


def _status(state: JSON, **more: object) -> list[JSON]:
    return [{"name": "main", "ready": False, "restartCount": 7, "state": state, **more}]


def test_a_crash_loop_says_what_ended_the_container() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
    crashing = pod(
        1, "crashing", status_containerStatuses=_status(waiting, lastState={"terminated": KILLED})
    )
    assert "OOMKilled" in (workload(job(), [crashing]).phase_message or "")


def test_a_process_killed_for_memory_is_reported_though_the_container_exits_with_0() -> None:
    ended = {"terminated": KILLED | {"exitCode": 0}}
    succeeded = pod(1, "succeeded", status_containerStatuses=_status(ended))
    result = workload(job({"succeeded": 1, "conditions": [condition("Complete")]}), [succeeded])
    assert (result.phase, "OOMKilled" in (result.phase_message or "")) == ("Completed", True)


def test_a_reason_is_shown_whatever_the_pod_s_name_looks_like() -> None:
    ended = {"terminated": KILLED | {"exitCode": 0}}
    succeeded = pod(1, "succeeded", status_containerStatuses=_status(ended))
    succeeded["metadata"]["name"] = "prep-tokens-abcde"
    result = workload(job({"succeeded": 1, "conditions": [condition("Complete")]}), [succeeded])
    assert result.phase_message == (
        "Container main of pod prep-tokens-abcde – OOMKilled (exit code 0)."
    )


def test_restarts_and_the_last_exit_are_reported_of_a_pod_that_is_ready_again() -> None:
    state = {"running": {"startedAt": at(9)}}
    status = _status(state, lastState={"terminated": KILLED})
    result = workload(job({"ready": 1}), [pod(1, "ready", status_containerStatuses=status)])
    assert result.phase == "Running"
    assert result.phase_message == (
        "Pod w-1 restarted 7 times; container main last ended with OOMKilled (exit code 137),"
        f" at {at(8)[:16].replace('T', ' ')} UTC."
    )


def test_a_first_life_has_no_restart_to_tell() -> None:
    assert workload(job({"ready": 1}), [pod(1, "ready")]).phase_message is None


def test_whoever_removes_a_pod_is_named() -> None:
    gone = condition("DisruptionTarget", reason="PreemptionByScheduler", message="by vision/high")
    leaving = pod(1, "ready")
    leaving["metadata"] |= {"deletionTimestamp": at(9), "deletionGracePeriodSeconds": 0}
    leaving["status"]["conditions"] = [*leaving["status"]["conditions"], gone]
    result = workload(job(), [leaving])
    assert result.phase_message == ("Pod w-1 is removed (PreemptionByScheduler): by vision/high")


def _event(reason: str, message: str, minute: int) -> JSON:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": meta(f"e-{minute}", minute),
        "involvedObject": {"kind": "Pod", "uid": pod(1)["metadata"]["uid"]},
        "reason": reason,
        "message": message,
        "lastTimestamp": at(minute),
    }


def _kai_pod() -> JSON:
    waiting = pod(1, "waiting", spec_schedulerName="kai-scheduler")
    waiting["metadata"]["labels"] = {"kai.scheduler/queue": "top"}
    waiting["status"].pop("conditions", None)
    return waiting


SAYS_NOTHING = _event("Unschedulable", "Unable to schedule pod", 20)


def test_a_scheduler_that_says_nothing_gives_no_reason() -> None:
    result = workload(job(), [_kai_pod()], scheduling_events=[SAYS_NOTHING])
    assert result.phase_message is not None
    assert "says no reason" in result.phase_message
    assert "capacity" not in result.phase_message


def test_kai_s_grouper_explains_what_its_scheduler_does_not() -> None:
    grouper = _event("PodGrouperWarning", "owner not found", 10)
    result = workload(job(), [_kai_pod()], scheduling_events=[grouper, SAYS_NOTHING])
    assert result.phase_message == (
        "KAI cannot group its pods, so they are not scheduled – owner not found"
        " – check its owner and whether queue top exists."
    )


def test_a_queue_that_kai_does_not_have_is_reported() -> None:
    cluster = ClusterObjects(queues={"other": {"spec": {}}})
    result = workload(job(), [_kai_pod()], scheduling_events=[SAYS_NOTHING], cluster=cluster)
    assert result.phase_message is not None
    assert result.phase_message.startswith("Queue top does not exist")


def test_what_volcano_refused_before_it_scheduled_the_gang_is_no_reason() -> None:
    refused = condition(
        "Unschedulable", reason="NotEnoughResources", message="3/3 tasks in gang unschedulable"
    )
    spec = {"minAvailable": 3, "tasks": [{"name": "w", "replicas": 3, "template": template()}]}
    root_object = root("batch.volcano.sh/v1alpha1", "Job", spec=spec)
    owner = {"kind": "Job", "name": "w", "uid": root_object["metadata"]["uid"], "controller": True}

    def reasons(*conditions: JSON) -> list[str]:
        group = {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "kind": "PodGroup",
            "metadata": meta(
                "g", 60, ownerReferences=[owner | {"apiVersion": "batch.volcano.sh/v1alpha1"}]
            ),
            "spec": {"queue": "default"},
            "status": {"conditions": list(conditions)},
        }
        shown = workload(root_object, [pod(1, "waiting")], pod_groups=[group])
        return [reason["source"] for reason in shown.additional_fields.get("pendingReasons", [])]

    later = condition("Scheduled") | {"lastTransitionTime": at(6)}
    assert "volcano" in reasons(refused)
    assert "volcano" not in reasons(refused, later)
