"""The whole agent while its cluster, its rights or its server misbehave: what is deleted, and what is not."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.fixtures.agents import agent, until
from tests.fixtures.kubernetes.agent_objects import (
    PYTORCH,
    chain,
    check_stays_live,
    job,
    made,
    pod,
    refuse,
    uid,
    until_reported,
)
from tests.fixtures.kubernetes.agent_objects import short_waits as short_waits
from tests.fixtures.kubernetes.kube_api import kube_api
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver
from watchbill.agent.run import run_agent
from watchbill.errors import Invalid, Unauthenticated
from watchbill.settings.agent import AgentSettings


async def test_restarted_agent_finds_what_went_meanwhile(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        objs = [*chain("stays"), *chain("goes")]
        for obj in objs:
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, objs[0], objs[3])
        for obj in objs[3:]:
            api.delete(obj)
        async with agent(tmp_path, api, server):
            await until(lambda: server.rows[uid(objs[3])].deleted_at is not None)
            assert server.rows[uid(objs[3])].is_inferred
            assert server.rows[uid(objs[0])].changes == 1, "what is equal is not sent again"


async def test_an_api_server_that_restarts_costs_no_workload(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, member = chain()
        for obj in (root, middle, member):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, root)
            commits = server.commits
            gone = job("gone")
            api.put(gone)
            await until_reported(server, gone)
            api.delete(gone, is_lost=True)
            born = job("born")
            api.put(born, is_lost=True)
            api.forget_past()
            await until_reported(server, born)
            await until(lambda: server.rows[uid(gone)].deleted_at is not None)
            assert not server.rows[uid(gone)].is_inferred, "the list's difference tells of it"
            await until(lambda: server.commits > commits)
            await check_stays_live(server, root, born)


@pytest.mark.parametrize("status", [403, 404, 500, 429])
async def test_a_kind_that_cannot_be_read_keeps_its_workloads(tmp_path: Path, status: int) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, member = chain()
        for obj in (root, middle, member, job("other")):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, root)
            commits = server.commits
            refuse(api, status, "deployments")
            api.forget_past()
            await until(lambda: server.commits > commits)
            state = {403: "forbidden", 404: "absent"}.get(status, "failing")
            await until(lambda: "Deployment" in _states(server, state))
            await check_stays_live(server, root)
            covered = {kind.kind for kind in server.inventories[-1].coverage}
            assert "Deployment" not in covered


async def test_a_restarted_agent_without_rights_deletes_nothing_of_that_kind(
    tmp_path: Path,
) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, member = chain()
        single = job("single")
        for obj in (root, middle, member, single):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, root, single)
        refuse(api, 403, "deployments", "jobs")
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await check_stays_live(server, root, single)
            assert not {("apps", "Deployment"), ("batch", "Job")} & _covered(server)
            assert {row.split(":")[0] for row in server.summary()} == {
                "Deployment/web",
                "Job/single",
            }, "what is below an owner that cannot be read is no workload of its own"
            api.fault = lambda _: None
            await until(lambda: {("apps", "Deployment"), ("batch", "Job")} <= _covered(server))
            await check_stays_live(server, root, single)
            assert not any("gone" in row for row in server.summary())


def _covered(server: Receiver) -> set[tuple[str, str]]:
    return {(kind.group, kind.kind) for kind in server.inventories[-1].coverage}


def _states(server: Receiver, state: str) -> set[str]:
    return (
        {kind.kind for kind in server.beats[-1].kinds if kind.state == state}
        if server.beats
        else set()
    )


async def test_a_kind_removed_from_the_cluster_ends_its_workloads(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(PYTORCH)
        crd = made(
            "CustomResourceDefinition", "pytorchjobs.kubeflow.org", group="apiextensions.k8s.io/v1"
        )
        train = made("PyTorchJob", "train", group="kubeflow.org/v1", spec={}, status={})
        api.put(crd)
        api.put(train)
        async with agent(tmp_path, api, server):
            await until_reported(server, train)
            api.withdraw(PYTORCH)
            api.end_watches()
            await until(lambda: "PyTorchJob" in _states(server, "absent"))
            await check_stays_live(server, train)
            api.delete(crd)
            await until(lambda: server.rows[uid(train)].deleted_at is not None)


async def test_a_kind_that_appears_is_watched(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server, agent(tmp_path, api, server):
        await until(lambda: server.commits)
        await until(lambda: "PyTorchJob" in _states(server, "absent"))
        crd = made(
            "CustomResourceDefinition",
            "pytorchjobs.kubeflow.org",
            group="apiextensions.k8s.io/v1",
        )
        api.serve(PYTORCH)
        api.put(crd)
        train = made("PyTorchJob", "train", group="kubeflow.org/v1", spec={}, status={})
        api.put(train)
        await until_reported(server, train)


async def test_excluded_namespaces_and_reservation_pods_never_leave_the_cluster(
    tmp_path: Path,
) -> None:
    async with kube_api() as api, receiver() as server:
        hidden = pod("hidden", namespace="kube-system")
        reserving = pod("reserving", namespace="kai-resource-reservation")
        reserving["metadata"]["annotations"] = {"run.ai/reserve_for_gpu_index": "GPU-1"}
        seen = pod("seen")
        for obj in (hidden, reserving, seen):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until_reported(server, seen)
            await asyncio.sleep(0.2)
            assert server.summary() == ["Pod/seen: Running"]


async def test_a_short_life_is_reported(tmp_path: Path) -> None:
    async with (
        kube_api() as api,
        receiver() as server,
        agent(tmp_path, api, server, debounce_seconds=0.5),
    ):
        await until(lambda: server.commits)
        short = job("short")
        api.put(short)
        api.delete(short)
        await until(lambda: uid(short) in server.rows)
        row = server.rows[uid(short)]
        await until(lambda: row.deleted_at is not None)
        assert not row.is_inferred


async def test_what_was_seen_is_reported_before_the_agent_stops(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        late = job("late")
        async with agent(tmp_path, api, server, debounce_seconds=60.0) as running:
            await until(lambda: server.commits)
            api.put(late)
            await asyncio.sleep(0.3)
            assert uid(late) not in server.rows
            running.stop.set()
            await asyncio.wait_for(running.task, 120)
        assert uid(late) in server.rows


async def test_a_burst_of_events_is_one_record(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, _ = chain()
        api.put(root)
        api.put(middle)
        async with agent(tmp_path, api, server, debounce_seconds=0.5):
            await until_reported(server, root)
            changes = server.rows[uid(root)].changes
            for number in range(50):
                api.put(pod(f"p{number}", middle))
            await until(lambda: server.rows[uid(root)].record.usage.pod_count == 50)
            assert server.rows[uid(root)].changes - changes <= 3


async def test_two_agents_with_one_credential_never_delete_each_others_work(
    tmp_path: Path,
) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, member = chain()
        for obj in (root, middle, member):
            api.put(obj)
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with agent(tmp_path / "a", api, server), agent(tmp_path / "b", api, server):
            await until(lambda: len(server.streams) >= 4)
            assert server.rows[uid(root)].deletions == 0


async def test_chunks_of_any_size_give_the_same_records(tmp_path: Path) -> None:
    hashes = set()
    objs = chain()
    for size in (3, 1000, 0):
        async with kube_api() as api, receiver() as server:
            api.cluster.faults.torn_bytes = size
            async with agent(tmp_path, api, server):
                await until(lambda s=server: s.commits)
                for obj in objs:
                    api.put(json.loads(json.dumps(obj)))
                await until(lambda s=server: s.live() and _pods(s) == 1)
                hashes |= {row.hash for row in server.rows.values()}
    assert len(hashes) == 1


def _pods(server: Receiver) -> int:
    return sum(row.record.usage.pod_count for row in server.live().values())


async def test_capacity_and_kinds_are_reported(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        node = made("Node", "gpu-1", namespace="", status={"allocatable": {"nvidia.com/gpu": "8"}})
        node["metadata"]["labels"] = {
            "kai.scheduler/node-pool": "a100",
            "nvidia.com/gpu.memory": "81920",
        }
        api.put(node)
        async with agent(tmp_path, api, server):
            await until(lambda: server.beats and server.beats[-1].node_pools)
            (pool,) = server.beats[-1].node_pools
            assert (pool.node_pool, pool.nodes, pool.gpus) == ("a100", 1, 8.0)
            assert pool.gpu_memory_bytes == 8 * 81920 * 1024 * 1024
            await until(lambda: "Pod" in _states(server, "complete"))


@pytest.mark.parametrize(
    "credential", ["", "secret", "wba.nothing.x", "wba.", f"{CREDENTIAL[:10]}"]
)
async def test_a_credential_that_is_none_says_where_to_get_one(credential: str) -> None:
    settings = AgentSettings(server_url="http://127.0.0.1:1", credential=credential)
    with pytest.raises(Invalid) as caught:
        await run_agent(settings, stop=asyncio.Event())
    assert "watchbill admin cluster create" in (caught.value.details or "")
    assert credential == "" or credential not in str(caught.value)


async def test_a_credential_unknown_to_the_server_ends_the_run(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        with pytest.raises(Unauthenticated):
            async with agent(tmp_path, api, server, credential=CREDENTIAL + "x") as running:
                await asyncio.wait_for(running.task, 120)


async def test_an_unreachable_cluster_is_waited_for_and_shown(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.fault = lambda _: web.Response(status=503, text="starting")
        api.put(job("early"))
        async with agent(tmp_path, api, server):
            await until(lambda: "Pod" in _states(server, "failing"))
            assert not server.inventories
            api.fault = lambda _: None
            await until(lambda: server.live())


async def test_no_secret_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with kube_api() as api, receiver() as server:
        api.put(job("j"))
        refuse(api, 403, "deployments")
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits)
            server.fault = lambda *_: web.json_response({"code": 401, "message": "no"}, status=401)
            await asyncio.sleep(0.2)
            server.fault = lambda *_: None
    written = capsys.readouterr()
    for secret in (CREDENTIAL, "s3cret", "t0ken"):
        assert secret not in written.out + written.err
