"""Owners that are unknown, unreadable, elsewhere or only named alike: what the agent takes as the workload."""

import asyncio
from pathlib import Path

import pytest

from tests.fixtures.agents import agent, until
from tests.fixtures.kubernetes.agent_objects import (
    ROLLOUT,
    check_stays_live,
    made,
    pod,
    refuse,
    uid,
    until_reported,
)
from tests.fixtures.kubernetes.agent_objects import short_waits as short_waits
from tests.fixtures.kubernetes.kube_api import kind, kube_api
from tests.fixtures.receiver import receiver
from watchbill.agent import run
from watchbill.agent.cache import owner_lookup


async def test_unknown_owners_are_looked_up_once_and_believed_by_uid(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        rollout = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        middle = made("ReplicaSet", "canary-1", rollout, group="apps", spec={"replicas": 2})
        pods = [pod(f"canary-1-{n}", middle) for n in "ab"]
        for obj in (rollout, middle, *pods):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, rollout)
            row = server.rows[uid(rollout)]
            assert (row.record.workload.type, row.record.witness.kind) == ("Rollout", "Pod")
            assert row.record.usage.pod_count == 2
            assert len(server.live()) == 1
            asked = [request for request in api.requests if "rollouts" in request.path]
            assert len(asked) == 1


async def test_an_owner_of_the_same_name_is_not_the_owner(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        first = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        second = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        left = pod("left", first)
        api.put(second)
        api.put(left)
        api.put(pod("new", second))
        async with agent(tmp_path, api, server):
            await until_reported(server, second)
            await asyncio.sleep(0.3)
            assert server.summary() == ["Rollout/canary: Running"]
            assert server.rows[uid(second)].record.usage.pod_count == 1


async def test_an_unreadable_owner_flags_the_workload_below(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        rollout = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        middle = made("ReplicaSet", "canary-1", rollout, group="apps", spec={"replicas": 1})
        for obj in (rollout, middle, pod("canary-1-a", middle)):
            api.put(obj)
        refuse(api, 403, "rollouts")
        async with agent(tmp_path, api, server):
            await until_reported(server, middle)
            row = server.rows[uid(middle)]
            assert row.record.workload.additional_fields["isOwnerUnreadable"] is True


async def test_a_rollouts_owner_unreadable_after_a_restart_is_not_deleted(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        rollout = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        member = pod("canary-a", rollout)
        for obj in (rollout, member):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, rollout)
        refuse(api, 403, "rollouts")
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await check_stays_live(server, rollout)


async def test_while_an_owner_cannot_be_asked_for_pods_prove_nothing_in_its_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        api.serve(kind("example.com", "v1", "Fleet", "fleets"))
        fleet = made("Fleet", "top", group="example.com/v1")
        rollout = made("Rollout", "middle", fleet, group="argoproj.io/v1alpha1")
        for obj in (fleet, rollout, pod("member", rollout)):
            api.put(obj)
        single, elsewhere = pod("single"), pod("elsewhere", namespace="other")
        abandoned = pod("abandoned", namespace="deleted")
        for obj in (single, elsewhere, abandoned, made("Namespace", "other", namespace="")):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, fleet, single, elsewhere, abandoned)
        monkeypatch.setattr(run, "OWNER_WAIT_SECONDS", 0.2)
        refuse(api, 500, "rollouts")
        api.delete(single)
        api.delete(elsewhere)
        api.delete(abandoned)
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await check_stays_live(server, fleet, single)
            covered = {kind.kind: kind for kind in server.inventories[-1].coverage}
            assert covered["Pod"].all_but == ("team",)
            assert covered["Pod"].namespaces == ("other",), "for a server that knows no more"
            assert server.rows[uid(elsewhere)].deleted_at is not None
            assert server.rows[uid(abandoned)].deleted_at is not None, "its namespace went with it"
            api.fault = lambda _: None
            await until(lambda: server.rows[uid(single)].deleted_at is not None)
            await check_stays_live(server, fleet)


async def test_pods_of_a_node_are_their_own_workloads(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        node = made("Node", "node-1", namespace="")
        api.put(node)
        static = pod("static", node)
        api.put(static)
        async with agent(tmp_path, api, server):
            await until_reported(server, static)
            assert server.rows[uid(static)].record.workload.type == "Pod"


async def test_pods_of_a_kind_that_is_no_longer_served_stay_together(tmp_path: Path) -> None:
    """Its definition is gone, what it owned is not, and somebody still makes pods in its name."""
    async with kube_api() as api, receiver() as server:
        job = made("PyTorchJob", "train", group="kubeflow.org/v1")
        for name in ("train-a", "train-b"):
            api.put(pod(name, job))
        async with agent(tmp_path, api, server):
            await until_reported(server, job)
            await until(lambda: server.rows[uid(job)].record.usage.pod_count == 2)
            api.put(pod("train-c", job))
            await until(lambda: server.rows[uid(job)].record.usage.pod_count == 3)
            assert server.summary() == ["PyTorchJob/train: Running"]
            row = server.rows[uid(job)]
            assert row.record.workload.additional_fields["isOwnerUnreadable"] is True


async def test_a_pod_that_outlives_its_owner_is_reported_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_lookup, "GONE_RECHECK_SECONDS", 0.1)
    monkeypatch.setattr(owner_lookup, "ABANDONED_SECONDS", 0.2)
    async with kube_api() as api, receiver() as server:
        left = pod("left", made("Job", "gone", group="batch"))
        api.put(left)
        async with agent(tmp_path, api, server):
            await until_reported(server, left)
            assert server.summary() == ["Pod/left: Running"]
