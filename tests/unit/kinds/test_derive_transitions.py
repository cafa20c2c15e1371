"""The history that objects tell."""

from datetime import UTC, datetime

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.fixtures.makers import JSON, at, condition, deployment, derived, job, pod, pytorch
from tests.unit.kinds.cases.reading import cases
from watchbill.cli.kinds_input import collect_topmost
from watchbill.kinds.derive import derive
from watchbill.workload import Phase

START = datetime(2026, 5, 4, 10, tzinfo=UTC)


def phases(root: JSON, *pods: JSON, **more: object) -> list[tuple[str, int]]:
    """Each phase with the minutes after the start at which it began."""
    return [
        (entry.phase.value, int((entry.at - START).total_seconds() // 60))
        for entry in derived(root, pods, **more).transitions
    ]


def test_the_way_up() -> None:
    made = {"meta_creationTimestamp": at(1)}
    waiting, starting = pod(1, "waiting", **made), pod(1, "starting", **made)
    assert phases(deployment(1)) == [("Creating", 0)]
    assert phases(deployment(1), waiting) == [("Creating", 0), ("Pending", 1)]
    assert phases(deployment(1), starting) == [("Creating", 0), ("Pending", 1), ("Initializing", 1)]
    assert phases(deployment(1), pod(1, **made)) == [
        ("Creating", 0),
        ("Pending", 1),
        ("Initializing", 1),
        ("Running", 3),
    ]


def test_the_last_required_pod_decides() -> None:
    late = pod(2, meta_creationTimestamp=at(0))
    late["status"]["conditions"] = [
        condition("PodScheduled", lastTransitionTime=at(6)),
        condition("Ready", lastTransitionTime=at(11)),
    ]
    assert phases(deployment(2), pod(1), late)[2:] == [("Initializing", 6), ("Running", 11)]


def test_the_end() -> None:
    done = job({"conditions": [condition("Complete")], "completionTime": at(9)})
    assert phases(done, pod(1, "succeeded"))[-2:] == [("Running", 2), ("Completed", 9)]
    failed = job({"conditions": [condition("Failed", lastTransitionTime=at(8))]})
    assert phases(failed) == [("Creating", 0), ("Failed", 8)]


def test_suspended_and_deleted() -> None:
    held = job({"conditions": [condition("Suspended")]}, suspend=True)
    assert phases(held) == [("Creating", 0), ("Stopped", 5)]
    leaving = deployment(1)
    leaving["metadata"] |= {"deletionTimestamp": at(20)}
    assert phases(leaving, pod(1))[-2:] == [("Running", 3), ("Deleting", 20)]


def test_what_was_lost_dates_the_degradation() -> None:
    assert phases(deployment(2), pod(1), pod(2, "lost"))[-2:] == [("Running", 3), ("Degraded", 9)]


def test_a_gang_that_was_evicted_waits_since_its_new_pods() -> None:
    pods = [pod(number, "waiting", meta_creationTimestamp=at(40)) for number in range(3)]
    assert phases(pytorch(), *pods) == [("Creating", 0), ("Pending", 40)]


def test_kueue_s_waiting_begins_with_its_workload() -> None:
    workload = {
        "metadata": {"creationTimestamp": at(1)},
        "spec": {},
        "status": {"conditions": [condition("Evicted", lastTransitionTime=at(30))]},
    }
    assert phases(job(suspend=True), queue_workloads=[workload]) == [
        ("Creating", 0),
        ("Pending", 30),
    ]


@pytest.mark.parametrize("backwards", [at(0), "2020-01-01T00:00:00Z", "nonsense", None])
def test_time_never_runs_back(backwards: str | None) -> None:
    odd = pod(1, meta_creationTimestamp=backwards)
    odd["status"]["conditions"][1]["lastTransitionTime"] = backwards
    times = [entry.at for entry in derived(deployment(1), [odd]).transitions]
    assert times == sorted(times)
    assert times[0] == START


def test_the_message_stays_with_the_present_phase() -> None:
    result = derived(deployment(1), [pod(1, "pulling")]).transitions
    assert [entry.message is None for entry in result] == [True, True, False]


def test_a_schedule_runs_since_its_present_run_does() -> None:
    """The pods of the run before, which ended an hour ago, are still there."""
    case = next(
        case for case in cases() if case.id == "chains-cronjob-runs-beside-pods-of-an-old-run"
    )
    objects = collect_topmost(case.documents, definitions())
    last = derive(objects, definitions(), SETTINGS).transitions[-1]
    assert (last.phase, last.at) == (Phase.RUNNING, datetime(2026, 6, 1, 9, 2, tzinfo=UTC))
