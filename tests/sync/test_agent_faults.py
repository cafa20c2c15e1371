"""The whole agent while its cluster, its rights or its server misbehave: what is deleted, and what is not."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from tests.fixtures.agents import agent, until
from tests.fixtures.kube_api import KubeApi, kind, kube_api
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver
from watchbill.agent import run
from watchbill.agent.cache import owner_lookup
from watchbill.agent.kubernetes import reflector
from watchbill.agent.run import run_agent
from watchbill.agent.stream import stream
from watchbill.errors import Invalid, Unauthenticated
from watchbill.settings.agent import AgentSettings

ROLLOUT = kind("argoproj.io", "v1alpha1", "Rollout", "rollouts")
PYTORCH = kind("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(reflector, "FORBIDDEN_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(reflector, "SHORT_WATCH_SECONDS", 0.05)
    monkeypatch.setattr(run, "DISCOVERY_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(stream, "INVENTORY_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(owner_lookup, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(owner_lookup, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(owner_lookup, "RETRY_SECONDS", 0.1)


def made(
    kind: str, name: str, owner: dict[str, Any] | None = None, *, group: str = "", **more: Any
) -> dict[str, Any]:
    versions = {"": "v1", "apps": "apps/v1", "batch": "batch/v1"}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": more.pop("namespace", "team"),
        "uid": str(uuid4()),
        "creationTimestamp": "2026-11-23T12:00:00Z",
        "managedFields": [{"manager": "x" * 100}],
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
    return {"apiVersion": versions.get(group, group), "kind": kind, "metadata": metadata} | more


def pod(name: str, owner: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "i"}], "nodeName": "node-1"}
    status = {
        "phase": "Running",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "True",
                "lastTransitionTime": "2026-11-23T12:00:01Z",
            },
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T12:00:02Z"},
        ],
    }
    return made("Pod", name, owner, spec=spec, status=status, **more)


def deployment(name: str = "web", **more: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return made("Deployment", name, group="apps", spec=spec, status={}, **more)


def job(name: str, **more: Any) -> dict[str, Any]:
    spec = {"template": {"spec": {"containers": [{"name": "main"}]}}}
    return made("Job", name, group="batch", spec=spec, status={}, **more)


def chain(name: str = "web") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    root = deployment(name)
    middle = made("ReplicaSet", f"{name}-1", root, group="apps", spec={"replicas": 1})
    return root, middle, pod(f"{name}-1-a", middle)


def uid(obj: dict[str, Any]) -> UUID:
    return UUID(obj["metadata"]["uid"])


def refuse(api: KubeApi, status: int, *parts: str) -> None:
    def fault(request: web.Request) -> web.StreamResponse | None:
        if any(f"/{part}" in request.path for part in parts):
            return web.Response(status=status, text="no\n")
        return None

    api.fault = fault


async def told(server: Receiver, *objs: dict[str, Any]) -> None:
    await until(lambda: {uid(obj) for obj in objs} <= server.live().keys())


async def quiet(server: Receiver, *objs: dict[str, Any]) -> None:
    """These stay live, inventories included, for a while."""
    for _ in range(25):
        await asyncio.sleep(0.02)
        assert {uid(obj) for obj in objs} <= server.live().keys(), server.told()


async def test_restarted_agent_finds_what_went_meanwhile(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        objs = [*chain("stays"), *chain("goes")]
        for obj in objs:
            api.put(obj)
        async with agent(tmp_path, api, server):
            await told(server, objs[0], objs[3])
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
            await told(server, root)
            commits = server.commits
            gone = job("gone")
            api.put(gone)
            await told(server, gone)
            api.delete(gone, is_lost=True)
            born = job("born")
            api.put(born, is_lost=True)
            api.forget_past()
            await told(server, born)
            await until(lambda: server.rows[uid(gone)].deleted_at is not None)
            assert not server.rows[uid(gone)].is_inferred, "the list's difference tells of it"
            await until(lambda: server.commits > commits)
            await quiet(server, root, born)


@pytest.mark.parametrize("status", [403, 404, 500, 429])
async def test_a_kind_that_cannot_be_read_keeps_its_workloads(tmp_path: Path, status: int) -> None:
    async with kube_api() as api, receiver() as server:
        root, middle, member = chain()
        for obj in (root, middle, member, job("other")):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await told(server, root)
            commits = server.commits
            refuse(api, status, "deployments")
            api.forget_past()
            await until(lambda: server.commits > commits)
            state = {403: "forbidden", 404: "absent"}.get(status, "failing")
            await until(lambda: "Deployment" in _states(server, state))
            await quiet(server, root)
            covered = {found.kind for found in server.inventories[-1].coverage}
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
            await told(server, root, single)
        refuse(api, 403, "deployments", "jobs")
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await quiet(server, root, single)
            assert not {("apps", "Deployment"), ("batch", "Job")} & _covered(server)
            assert {row.split(":")[0] for row in server.told()} == {
                "Deployment/web",
                "Job/single",
            }, "what is below an owner that cannot be read is no workload of its own"
            api.fault = lambda _: None
            await until(lambda: {("apps", "Deployment"), ("batch", "Job")} <= _covered(server))
            await quiet(server, root, single)
            assert not any("gone" in row for row in server.told())


def _covered(server: Receiver) -> set[tuple[str, str]]:
    return {(found.group, found.kind) for found in server.inventories[-1].coverage}


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
            await told(server, train)
            api.withdraw(PYTORCH)
            api.end_watches()
            await until(lambda: "PyTorchJob" in _states(server, "absent"))
            await quiet(server, train)
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
        await told(server, train)


async def test_unknown_owners_are_looked_up_once_and_believed_by_uid(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.serve(ROLLOUT)
        rollout = made("Rollout", "canary", group="argoproj.io/v1alpha1")
        middle = made("ReplicaSet", "canary-1", rollout, group="apps", spec={"replicas": 2})
        pods = [pod(f"canary-1-{n}", middle) for n in "ab"]
        for obj in (rollout, middle, *pods):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await told(server, rollout)
            row = server.rows[uid(rollout)]
            assert (row.record.workload.type, row.record.witness.kind) == ("Rollout", "Pod")
            assert row.record.usage.pod_count == 2
            assert len(server.live()) == 1
            asked = [found for found in api.requests if "rollouts" in found.path]
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
            await told(server, second)
            await asyncio.sleep(0.3)
            assert server.told() == ["Rollout/canary: Running"]
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
            await told(server, middle)
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
            await told(server, rollout)
        refuse(api, 403, "rollouts")
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await quiet(server, rollout)


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
        for obj in (single, elsewhere, made("Namespace", "other", namespace="")):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await told(server, fleet, single, elsewhere)
        monkeypatch.setattr(run, "OWNER_WAIT_SECONDS", 0.2)
        refuse(api, 500, "rollouts")
        api.delete(single)
        api.delete(elsewhere)
        commits = server.commits
        async with agent(tmp_path, api, server):
            await until(lambda: server.commits > commits)
            await quiet(server, fleet, single)
            covered = {found.kind: found.namespaces for found in server.inventories[-1].coverage}
            assert covered["Pod"] == ("other",)
            assert server.rows[uid(elsewhere)].deleted_at is not None
            api.fault = lambda _: None
            await until(lambda: server.rows[uid(single)].deleted_at is not None)
            await quiet(server, fleet)


async def test_pods_of_a_node_are_their_own_workloads(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        node = made("Node", "node-1", namespace="")
        api.put(node)
        static = pod("static", node)
        api.put(static)
        async with agent(tmp_path, api, server):
            await told(server, static)
            assert server.rows[uid(static)].record.workload.type == "Pod"


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
            await told(server, seen)
            await asyncio.sleep(0.2)
            assert server.told() == ["Pod/seen: Running"]


async def test_a_short_life_is_told(tmp_path: Path) -> None:
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


async def test_what_was_seen_is_told_before_the_agent_stops(tmp_path: Path) -> None:
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
            await told(server, root)
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


async def test_capacity_and_kinds_are_told(tmp_path: Path) -> None:
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
