"""Pods without owners that name one pod group are one workload, in whatever order they come and go."""

import copy
import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.kubernetes.agent_objects import pod
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.unit.agent.test_cache import DEFINITIONS, Filled, root_uid
from watchbill.agent.cache.watched_kinds import POD
from watchbill.kinds.derive import derive
from watchbill.protocol import PodGroupRoot
from watchbill.workload import Phase, Workload

MARKS = {
    "Kueue": ("labels", "kueue.x-k8s.io/pod-group-name"),
    "coscheduling": ("labels", "scheduling.x-k8s.io/pod-group"),
    "Volcano": ("annotations", "scheduling.k8s.io/group-name"),
    "KAI": ("annotations", "pod-group-name"),
    "Kubernetes": ("schedulingGroup", "podGroupName"),
}


def member(number: int, mark: str = "Kueue", *, group: str = "train", **status: Any) -> Any:
    place, key = MARKS[mark]
    made = pod(f"train-{number}")
    made["metadata"] |= {
        "uid": f"00000000-0000-4000-8000-{number:012}",
        "creationTimestamp": f"2026-11-23T11:00:{number:02}Z",
    }
    made["spec" if mark == "Kubernetes" else "metadata"][place] = {key: group}
    limits = {"limits": {"nvidia.com/gpu": "2"}}
    made["spec"]["containers"] = [{"name": "main", "image": "train:1", "resources": limits}]
    made["status"] |= status
    return made


def listed() -> Filled:
    filled = Filled()
    filled.cache.mark_listed(POD)
    return filled


def the_workload(filled: Filled) -> Workload:
    [root] = filled.cache.owner_tree.groups
    return derive(filled.cache.gather(root), DEFINITIONS, SETTINGS).record.workload


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("seed", range(4))
def test_the_oldest_stands_for_all_whatever_the_order(mark: str, seed: int) -> None:
    pods = [member(number, mark) for number in range(4)]
    shuffled = random.Random(seed).sample(pods, k=4)
    before, live = Filled(), listed()
    before.put(*shuffled)
    before.cache.mark_listed(POD)
    live.put(*shuffled)
    for filled in (before, live):
        workload_ = the_workload(filled)
        assert str(workload_.id) == root_uid(pods[0])
        assert (workload_.requested_pods.number, workload_.phase) == (4, Phase.RUNNING)
        requested = workload_.workload_requested_resources.gpu
        assert requested is not None
        assert requested.request == 8.0
        assert "requestedBeyondTemplates" not in workload_.additional_fields


def test_what_looked_like_a_workload_is_withdrawn_and_not_deleted() -> None:
    filled = listed()
    filled.put(member(2), member(1))
    assert filled.listener.withdrawn == [root_uid(member(2))]
    assert filled.listener.deleted == []


@pytest.mark.parametrize("late", [0, 3])
def test_who_joins_late_takes_over_nothing_and_erases_nothing(late: int) -> None:
    """Labels can be changed: what ran for long stays on record, as the group's workload or as a deleted one."""
    filled, alone = listed(), member(late)
    del alone["metadata"]["labels"]
    filled.put(alone, member(1), member(2))
    filled.put(member(late))
    assert list(filled.cache.owner_tree.groups) == [root_uid(member(1))]
    assert len(filled.cache.gather(root_uid(member(1))).pods) == 3
    assert filled.listener.withdrawn == []
    assert filled.listener.deleted == [root_uid(alone)]


def test_who_is_grouped_right_after_its_creation_was_never_alone() -> None:
    filled, young = listed(), member(3)
    young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    alone = copy.deepcopy(young)
    del alone["metadata"]["labels"]
    filled.put(member(1), alone)
    filled.put(young)
    assert filled.listener.withdrawn == [root_uid(young)]
    assert filled.listener.deleted == []


def test_the_workload_outlives_its_first_pod() -> None:
    filled = listed()
    pods = [member(number) for number in range(3)]
    filled.put(*pods)
    filled.remove(pods[0])
    filled.put(member(3))
    workload_ = the_workload(filled)
    assert (str(workload_.id), workload_.phase) == (root_uid(pods[0]), Phase.RUNNING)
    assert workload_.requested_pods.number == 3
    for gone in (*pods[1:], member(3)):
        assert filled.listener.deleted == []
        filled.remove(gone)
    assert filled.listener.deleted == [root_uid(pods[0])]
    assert not filled.cache.owner_tree.entries
    assert not filled.cache._plain_pods._groups


def test_other_groups_namespaces_and_owned_pods_stay_apart() -> None:
    filled = listed()
    elsewhere = member(2)
    elsewhere["metadata"]["namespace"] = "other"
    filled.put(member(1), elsewhere, member(3, group="b"), member(4, "KAI"), pod("plain"))
    assert len(filled.cache.owner_tree.groups) == 5


def test_a_group_has_ended_when_all_its_pods_have() -> None:
    filled = listed()
    filled.put(member(0, phase="Succeeded"), member(1))
    assert the_workload(filled).phase is Phase.RUNNING
    filled.put(member(1, phase="Succeeded"))
    workload_ = the_workload(filled)
    assert workload_.phase is Phase.COMPLETED
    requested = workload_.workload_requested_resources.gpu
    assert requested is not None
    assert requested.request == 4.0
    filled.put(member(1, phase="Failed", message="lost"))
    assert the_workload(filled).phase is Phase.FAILED


def test_a_group_that_is_not_complete_yet_does_not_run() -> None:
    filled = listed()
    only = member(0)
    only["metadata"]["annotations"] = {"kueue.x-k8s.io/pod-group-total-count": "3"}
    filled.put(only)
    workload_ = the_workload(filled)
    assert workload_.requested_pods.number == 3
    assert workload_.phase is not Phase.RUNNING


def known(first: Any, *others: Any) -> PodGroupRoot:
    """What a server has of a group."""
    ids = tuple(UUID(root_uid(each)) for each in others)
    meta = first["metadata"]
    created_at = datetime.fromisoformat(meta["creationTimestamp"])
    return PodGroupRoot(UUID(root_uid(first)), meta["name"], created_at, ids)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_agent_that_starts_anew_knows_a_group_by_a_first_pod_that_is_gone(is_late: bool) -> None:
    """The server tells which it was, before all pods are listed or after."""
    pods = [member(number) for number in range(4)]
    filled = Filled()
    filled.put(pods[3], pods[1])
    if is_late:
        filled.cache.mark_listed(POD)
    filled.cache.restore_pod_groups([known(pods[0], pods[1], pods[2])])
    if not is_late:
        filled.cache.mark_listed(POD)
    filled.put(pods[2])
    workload_ = the_workload(filled)
    assert (str(workload_.id), workload_.name) == (root_uid(pods[0]), "train-0")
    assert (workload_.requested_pods.number, workload_.phase) == (3, Phase.RUNNING)
    assert workload_.created_at == datetime.fromisoformat(pods[0]["metadata"]["creationTimestamp"])
    assert filled.listener.deleted == []
    for gone in pods[1:]:
        filled.remove(gone)
    assert filled.listener.deleted == [root_uid(pods[0])]
    assert not filled.cache.owner_tree.entries


@pytest.mark.parametrize("is_late", [False, True])
def test_a_first_pod_that_is_there_stays_the_first_after_a_restart_though_it_is_not_the_oldest(
    is_late: bool,
) -> None:
    filled = listed() if is_late else Filled()
    if not is_late:
        filled.cache.restore_pod_groups([known(member(1), member(0), member(2))])
    filled.put(member(0), member(1), member(2))
    if is_late:
        filled.cache.restore_pod_groups([known(member(1), member(0), member(2))])
    filled.cache.mark_listed(POD)
    assert list(filled.cache.owner_tree.groups) == [root_uid(member(1))]


def test_a_first_pod_that_went_before_the_server_could_be_reached_stays_the_first() -> None:
    filled = listed()
    filled.put(*(member(number) for number in range(3)))
    filled.remove(member(0))
    filled.cache.restore_pod_groups([])
    filled.put(member(1, reason="Seen again"))
    assert list(filled.cache.owner_tree.groups) == [root_uid(member(0))]
    assert filled.listener.deleted == []
    filled.cache.restore_pod_groups([known(member(5), member(1))])
    assert list(filled.cache.owner_tree.groups) == [root_uid(member(5))], "the server knows better"


def test_a_first_pod_stands_for_one_group_and_for_none_that_it_has_left() -> None:
    filled = Filled()
    filled.cache.restore_pod_groups(
        [known(member(0), member(1), member(2), member(3)), known(member(5), member(6))]
    )
    alone = member(5)
    del alone["metadata"]["labels"]
    filled.put(member(1), member(2), member(3, group="b"), member(6, group="c"), alone)
    filled.cache.mark_listed(POD)
    assert set(filled.cache.owner_tree.groups) == {
        root_uid(each) for each in (member(0), member(3), member(6), alone)
    }
