"""Queues as the agent tells them: which are projects, which departments, and what they may have."""

from typing import Any
from uuid import UUID

import msgspec

from tests.unit.agent.test_cache import Filled, made
from watchbill.agent.cache.queues import MOST_BYTES, scheduler_queues
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.scheduler_queue import (
    UNLIMITED,
    NodePoolQuota,
    ResourceQuota,
    SchedulerQueue,
    total_quota,
)

SETTINGS = DeriveSettings(cluster_id=UUID(int=1))


def reported_queues(*objects: tuple[str, dict[str, Any]]) -> dict[tuple[str, str], SchedulerQueue]:
    """By unit and key."""
    filled = Filled()
    view = filled.cache.cluster
    for kind, obj in objects:
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
        maps: dict[str, dict[Any, Any]] = {
            "kai": view.queues,
            "volcano": view.volcano_queues,
            "cluster": view.cluster_queues,
            "local": view.local_queues,
        }
        maps[kind][(namespace, name) if kind == "local" else name] = obj
    return {(each.unit, each.key): each for each in scheduler_queues(view, SETTINGS).queues}


def queue(name: str, namespace: str = "", **parts: Any) -> dict[str, Any]:
    obj = made("Queue", name, namespace=namespace, status=parts.pop("status", {}))
    obj["metadata"] |= parts.pop("metadata", {})
    return obj | {"spec": parts}


def test_kai_leaves_are_projects_and_their_parents_departments() -> None:
    resources = {
        "gpu": {"quota": 8, "limit": -1, "overQuotaWeight": 2},
        "cpu": {"quota": -1},
        "memory": {"quota": 500_000, "limit": 1_000_000},
    }
    pool = {"metadata": {"labels": {"kai.scheduler/node-pool": "h100"}}}
    queues = reported_queues(
        ("kai", queue("top")),
        ("kai", queue("research", parentQueue="top")),
        (
            "kai",
            queue(
                "team-a",
                parentQueue="research",
                displayName="Team A",
                priority=7,
                resources=resources,
                **pool,
            ),
        ),
    )
    assert set(queues) == {("department", "top"), ("department", "research"), ("project", "team-a")}
    team = queues["project", "team-a"]
    assert (team.name, team.department_key, team.priority) == ("Team A", "research", 7)
    assert team.quotas == (
        NodePoolQuota(
            node_pool="h100",
            gpu=ResourceQuota(quota=8, limit=UNLIMITED, over_quota_weight=2),
            cpu=ResourceQuota(quota=UNLIMITED, limit=UNLIMITED),
            memory=ResourceQuota(quota=500_000, limit=1_000_000),
        ),
    )
    assert (total_quota(team, "gpu"), total_quota(team, "cpu")) == (8, None)
    assert queues["department", "research"].department_key == "top"
    assert queues["department", "top"].quotas == ()


def test_kueue_cohorts_are_departments_with_the_quotas_of_their_queues() -> None:
    def flavors(gpus: str) -> list[dict[str, Any]]:
        stated = [
            {"name": "nvidia.com/gpu", "nominalQuota": gpus},
            {"name": "cpu", "nominalQuota": "1500m"},
            {"name": "memory", "nominalQuota": "1Gi"},
        ]
        return [{"flavors": [{"name": "a", "resources": stated}]}]

    queues = reported_queues(
        ("cluster", queue("one", cohort="research", resourceGroups=flavors("4"))),
        ("cluster", queue("two", cohortName="research", resourceGroups=flavors("2"))),
        ("cluster", queue("alone", stopPolicy="Hold", resourceGroups=flavors("1"))),
        ("local", queue("lq", "team-a", clusterQueue="two")),
        ("local", queue("lq", "team-b", clusterQueue="alone")),
    )
    (quota,) = queues["department", "research"].quotas
    assert (quota.node_pool, quota.gpu.quota, quota.cpu.quota) == (None, 6, 3_000)
    assert quota.memory.quota == 2 * 2**30 / 1_000_000
    first, second = queues["project", "team-a/lq"], queues["project", "team-b/lq"]
    assert (first.name, first.namespace, first.department_key) == ("lq", "team-a", "research")
    assert (first.quotas, second.department_key) == ((), "alone")
    assert queues["department", "alone"].not_ready_message == "The queue is stopped: Hold."


def test_volcano_deserves_are_quotas_and_capabilities_limits() -> None:
    queues = reported_queues(
        ("volcano", queue("root")),
        ("volcano", queue("research", parent="root")),
        (
            "volcano",
            queue(
                "team-a",
                parent="research",
                weight=3,
                deserved={"nvidia.com/gpu": "4", "cpu": "8"},
                capability={"nvidia.com/gpu": 8},
                status={"state": "Closed"},
            ),
        ),
    )
    assert set(queues) == {("department", "research"), ("project", "team-a")}
    team = queues["project", "team-a"]
    (quota,) = team.quotas
    assert quota.gpu == ResourceQuota(quota=4, limit=8, over_quota_weight=3)
    assert quota.cpu == ResourceQuota(quota=8_000, limit=UNLIMITED, over_quota_weight=3)
    assert team.not_ready_message == "The queue is Closed."
    assert queues["department", "research"].department_key == ""


def test_gpus_in_parts_of_an_unknown_size_leave_no_quota() -> None:
    stated = {"nvidia.com/mig-1g.5gb": "7", "cpu": "8"}
    assert reported_queues(("volcano", queue("q", deserved=stated)))["project", "q"].quotas == ()


def test_values_of_any_shape_are_read() -> None:
    queues = reported_queues(
        (
            "kai",
            queue("a", parentQueue=["x"], priority="high", resources={"gpu": {"quota": "many"}}),
        ),
        ("kai", queue("b", resources=[1])),
        ("volcano", queue("c", weight={}, deserved={"cpu": "much"}, parent=7)),
        ("cluster", queue("d", resourceGroups={"flavors": 1})),
        ("local", queue("e", "n", clusterQueue=None)),
    )
    assert len(queues) == 5
    assert queues["project", "a"].quotas[0].gpu == ResourceQuota(quota=0, limit=UNLIMITED)


def test_all_queues_together_fit_into_one_heartbeat() -> None:
    """A server refuses a larger one, and with it all that its cluster says."""
    inactive = {"conditions": [{"type": "Active", "status": "False", "message": "x" * 1_000}]}
    view = Filled().cache.cluster
    for n in range(3_000):
        view.local_queues["team", f"q{n:04}"] = queue("q", "team", status=inactive)
    view.cluster_queues["c"] = queue("c")
    reported, left_out = scheduler_queues(view, SETTINGS)
    assert len(msgspec.json.encode(reported)) <= MOST_BYTES + len(reported) + 2
    assert len(reported) > 1_000, "the first ones are reported"
    [(kind, sentence)] = left_out.items()
    assert kind == ("kueue.x-k8s.io", "LocalQueue")
    assert sentence.startswith(f"{3_001 - len(reported)} queues are left out: ")
    assert scheduler_queues(Filled().cache.cluster, SETTINGS).left_out == {}
