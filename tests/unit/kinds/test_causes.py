"""What ended or stops a container is said, whatever it hides behind."""

from tests.fixtures.makers import JSON, at, condition, job, meta, pod, root, template, workload

KILLED = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at(8)}


def _status(state: JSON, **more: object) -> list[JSON]:
    return [{"name": "main", "ready": False, "restartCount": 7, "state": state, **more}]


def test_a_crash_loop_says_what_ended_the_container() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
    crashing = pod(
        1, "crashing", status_containerStatuses=_status(waiting, lastState={"terminated": KILLED})
    )
    assert "OOMKilled" in (workload(job(), [crashing]).phase_message or "")


def test_a_process_killed_for_memory_is_said_though_the_container_exits_with_0() -> None:
    ended = {"terminated": KILLED | {"exitCode": 0}}
    succeeded = pod(1, "succeeded", status_containerStatuses=_status(ended))
    found = workload(job({"succeeded": 1, "conditions": [condition("Complete")]}), [succeeded])
    assert (found.phase, "OOMKilled" in (found.phase_message or "")) == ("Completed", True)


def test_what_volcano_refused_before_it_scheduled_the_gang_is_no_reason() -> None:
    refused = condition(
        "Unschedulable", reason="NotEnoughResources", message="3/3 tasks in gang unschedulable"
    )
    spec = {"minAvailable": 3, "tasks": [{"name": "w", "replicas": 3, "template": template()}]}
    found = root("batch.volcano.sh/v1alpha1", "Job", spec=spec)
    owner = {"kind": "Job", "name": "w", "uid": found["metadata"]["uid"], "controller": True}

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
        shown = workload(found, [pod(1, "waiting")], pod_groups=[group])
        return [reason["source"] for reason in shown.additional_fields.get("pendingReasons", [])]

    later = condition("Scheduled") | {"lastTransitionTime": at(6)}
    assert "volcano" in reasons(refused)
    assert "volcano" not in reasons(refused, later)
