"""One kind that is refused or hangs, on the simulated API server: the others go on as if nothing were."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from simulator.apiserver.protocol import SimulatedCluster
from simulator.resources import (
    CRON_JOBS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    custom,
)
from tests.fixtures.agents import until
from tests.fixtures.kubernetes.replay import serving
from tests.fixtures.measured import pod, uid
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver
from tests.sync.test_kubernetes_client import client
from tests.sync.test_reflector import keeping
from tests.sync.test_reflector import pod as pod_named
from watchbill.agent.cache import watch_manager
from watchbill.agent.kubernetes import client as kube
from watchbill.agent.kubernetes import reflector
from watchbill.agent.kubernetes.backoff import Backoff
from watchbill.agent.kubernetes.discovery import discover
from watchbill.agent.run import run_agent
from watchbill.agent.stream import stream
from watchbill.kinds.objects.objects import GroupKind
from watchbill.protocol import KindState
from watchbill.settings.agent import AgentSettings
from watchbill.workload import Phase


@dataclass
class Watched:
    server: Receiver
    simulated: SimulatedCluster

    def state(self, kind: str) -> KindState | None:
        kinds = self.server.beats[-1].kinds if self.server.beats else ()
        return next((state for state in kinds if state.kind == kind), None)

    def phase(self, number: int) -> Phase | None:
        rows = {str(key): row for key, row in self.server.live().items()}
        row = rows.get(uid(number))
        return row.record.workload.phase if row else None

    def lists(self, path: str) -> int:
        return sum(path in r and "watch=" not in r for r in self.simulated.requests)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(reflector, "FORBIDDEN_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(stream, "INVENTORY_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(watch_manager, "OTHER_KINDS_SECONDS", 0.5)


def job(number: int) -> dict[str, Any]:
    metadata = {"name": f"job-{number}", "namespace": "team", "uid": uid(number)}
    spec = {"template": {"spec": {"containers": [{"name": "main", "image": "i"}]}}}
    return {"metadata": metadata, "spec": spec, "status": {}}


@asynccontextmanager
async def simulated_cluster() -> AsyncIterator[SimulatedCluster]:
    simulated = SimulatedCluster()
    simulated.store.put(NAMESPACES, {"metadata": {"name": "team", "uid": "ns"}})
    simulated.store.put(PODS, pod(1, "one"))
    await simulated.start()
    yield simulated
    simulated.faults.hanging.clear()
    await simulated.stop()


@asynccontextmanager
async def watched(folder: Path, simulated: SimulatedCluster) -> AsyncIterator[Watched]:
    stop = asyncio.Event()
    async with receiver() as server:
        settings = AgentSettings(
            server_url=server.url,
            credential=CREDENTIAL,
            kubeconfig=simulated.kubeconfig(folder / "kubeconfig"),
            debounce_seconds=0.02,
            scrape_seconds=0.0,
        )
        task = asyncio.create_task(run_agent(settings, stop=stop))
        try:
            yield Watched(server, simulated)
        finally:
            stop.set()
            await asyncio.wait_for(task, 120)


async def test_a_kind_that_may_be_listed_but_not_watched_delays_nothing(tmp_path: Path) -> None:
    async with simulated_cluster() as simulated:
        simulated.store.put(JOBS, job(20))
        simulated.faults.forbid(JOBS, "watch")
        async with watched(tmp_path, simulated) as watching:
            await until(lambda: watching.phase(1) is Phase.RUNNING and watching.phase(20))
            await until(lambda: (state := watching.state("Job")) and state.message)
            state = watching.state("Job")
            assert state is not None
            assert state.state == "complete"
            assert "cannot be watched, listed every 60 s" in (state.message or "")
            lists, inventories = (
                watching.lists("/apis/batch/v1/jobs"),
                len(watching.server.inventories),
            )
            assert lists <= reflector.FORBIDDEN_ATTEMPTS
            simulated.store.put(PODS, pod(1, "one", phase="Failed"))
            await until(lambda: watching.phase(1) is Phase.FAILED)
            beats = len(watching.server.beats)
            await until(lambda: len(watching.server.beats) > beats + 2)
            assert watching.lists("/apis/batch/v1/jobs") == lists
            assert len(watching.server.inventories) <= inventories + 1


async def test_a_polled_kind_is_kept_in_sync_without_inventories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "POLL_SECONDS", 0.05)
    async with simulated_cluster() as simulated:
        simulated.faults.forbid(JOBS, "watch")
        async with watched(tmp_path, simulated) as watching:
            await until(lambda: (state := watching.state("Job")) and state.message)
            await until(lambda: watching.server.commits)
            simulated.store.put(JOBS, job(20))
            await until(lambda: watching.phase(20))
            before, lists = len(watching.server.inventories), watching.lists("/apis/batch/v1/jobs")
            await until(lambda: watching.lists("/apis/batch/v1/jobs") > lists + 20)
            assert len(watching.server.inventories) <= before + 1
            simulated.store.delete(JOBS, "team", "job-20")
            await until(lambda: watching.phase(20) is None)
            simulated.faults.allow(JOBS)
            await until(lambda: (state := watching.state("Job")) and not state.message)


async def test_kinds_that_hang_do_not_hold_up_the_first_records(tmp_path: Path) -> None:
    async with simulated_cluster() as simulated:
        sick = (JOBS, CRON_JOBS, STATEFUL_SETS, SERVICES)
        for resource in sick:
            simulated.faults.hang(resource)
        async with watched(tmp_path, simulated) as watching:
            await until(lambda: watching.phase(1) is Phase.RUNNING)
            simulated.store.put(PODS, pod(1, "one", phase="Failed"))
            await until(lambda: watching.phase(1) is Phase.FAILED)
            for resource in sick:
                simulated.faults.resume(resource)
            await until(lambda: (state := watching.state("CronJob")) and state.state == "complete")


async def test_an_object_that_nobody_foresaw_does_not_stop_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchbill.agent.cache.cache import Cache

    original = Cache.put_pod

    def put_pod(cache: Cache, meta: Any, *decoded: Any) -> None:
        if meta.name == "odd":
            raise ZeroDivisionError
        original(cache, meta, *decoded)

    monkeypatch.setattr(Cache, "put_pod", put_pod)
    async with simulated_cluster() as simulated:
        simulated.store.put(PODS, pod(2, "odd"))
        async with watched(tmp_path, simulated) as watching:
            await until(lambda: watching.phase(1) is Phase.RUNNING)
            await until(lambda: (state := watching.state("Pod")) and state.state == "failing")
            simulated.store.put(PODS, pod(1, "one", phase="Failed"))
            await until(lambda: watching.phase(1) is Phase.FAILED)


def pod_of(number: int, parent: int) -> dict[str, Any]:
    result = pod(number, f"pod-{number}")
    result["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": f"job-{parent}",
            "uid": uid(parent),
            "controller": True,
        }
    ]
    return result


async def test_a_right_that_is_taken_for_a_while_makes_no_workloads_of_pods(
    tmp_path: Path,
) -> None:
    """Not those of Jobs that were known, nor those of Jobs that came meanwhile; and none is left behind."""
    workloads = {uid(1), uid(20), uid(21)}
    async with simulated_cluster() as simulated:
        simulated.store.put(JOBS, job(20))
        simulated.store.put(PODS, pod_of(200, 20))
        async with watched(tmp_path, simulated) as watching:
            await until(lambda: watching.phase(20) and watching.phase(1))
            simulated.faults.forbid(JOBS)
            simulated.store.put(JOBS, job(21))
            for number in (201, 210, 211):
                simulated.store.put(PODS, pod_of(number, number // 10))
            await until(lambda: watching.phase(21) is Phase.RUNNING)
            await until(lambda: (state := watching.state("Job")) and state.state == "forbidden")
            assert {str(key) for key in watching.server.live()} == workloads
            simulated.faults.allow(JOBS)
            simulated.store.put(JOBS, job(22))
            await until(lambda: watching.phase(22))
            assert {str(key) for key in watching.server.rows} == {*workloads, uid(22)}


DEVICES = "resource.k8s.io"
CLAIMS = custom(DEVICES, "v1beta1", "ResourceClaim", "resourceclaims")
CLASSES = custom(DEVICES, "v1beta1", "DeviceClass", "deviceclasses", is_namespaced=False)
SLICES = custom(DEVICES, "v1beta1", "ResourceSlice", "resourceslices", is_namespaced=False)


def cluster_with_devices(simulated: SimulatedCluster) -> None:
    """A pod that waits for two GPUs of a class whose name tells nothing, and the node that has them."""
    store = simulated.store
    for resource in (CLAIMS, CLASSES, SLICES):
        store.add_resource(resource)
        simulated.faults.forbid(resource)
    waits = pod(5, "five", phase="Pending")
    waits["spec"]["resourceClaims"] = [{"name": "gpus", "resourceClaimName": "two"}]
    del waits["spec"]["nodeName"]
    store.put(PODS, waits)
    asked = {"name": "gpus", "deviceClassName": "h100", "count": 2}
    metadata = {"name": "two", "namespace": "team", "uid": "claim"}
    store.put(CLAIMS, {"metadata": metadata, "spec": {"devices": {"requests": [asked]}}})
    cel = {"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}
    store.put(CLASSES, {"metadata": {"name": "h100", "uid": "c"}, "spec": {"selectors": [cel]}})
    labels = {"nvidia.com/gpu.present": "true"}
    store.put(NODES, {"metadata": {"name": "n9", "uid": uid(9), "labels": labels}, "status": {}})
    basic = {"attributes": {"uuid": {"string": "GPU-0"}, "type": {"string": "gpu"}}}
    spec = {"driver": "gpu.nvidia.com", "nodeName": "n9", "pool": {"name": "n9"}}
    spec["devices"] = [{"name": "gpu-0", "basic": basic}]
    store.put(SLICES, {"metadata": {"name": "n9", "uid": "s"}, "spec": spec})


async def test_devices_are_unknown_without_the_rights_to_them_and_right_once_they_are_given(
    tmp_path: Path,
) -> None:
    """As with the ClusterRole of a version before; what was read stays when a right is taken again."""
    async with simulated_cluster() as simulated:
        cluster_with_devices(simulated)
        async with watched(tmp_path, simulated) as watching:

            def asked() -> float | None:
                row = watching.server.live().get(UUID(uid(5)))
                gpu = row.record.workload.pods_requested_resources.gpu if row else None
                return gpu.request if gpu else None

            def present() -> list[float | None]:
                return [pool.gpus for pool in watching.server.beats[-1].node_pools or ()]

            await until(lambda: (state := watching.state("DeviceClass")) and state.message)
            await until(lambda: watching.phase(5) and present() == [None])
            assert asked() is None
            simulated.faults.allow(CLAIMS)
            await until(lambda: (s := watching.state("ResourceClaim")) and s.state == "complete")
            assert asked() is None
            simulated.faults.allow(CLASSES)
            simulated.faults.allow(SLICES)
            await until(lambda: asked() == 2 and present() == [1])
            for resource in (CLAIMS, CLASSES, SLICES):
                simulated.faults.forbid(resource)
            simulated.faults.end_watches()
            await until(lambda: (s := watching.state("DeviceClass")) and s.state == "forbidden")
            assert (asked(), present()) == (2, [1])


@pytest.mark.parametrize("status", [410, 500])
async def test_who_lists_but_cannot_watch_lists_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Else the whole list is read every second for ever, and each time counts as a success."""
    quick = partial(Backoff, draw=lambda: 1.0)
    monkeypatch.setattr(reflector, "Backoff", lambda **_: quick(first_seconds=0.005))
    began = []
    async with keeping(tmp_path, names=("a",)) as kept:

        def refuse(request: web.Request) -> web.StreamResponse | None:
            if "watch" in request.query:
                return web.Response(status=status)
            began.append(asyncio.get_running_loop().time())
            return None

        kept.api.fault = refuse
        kept.api.end_watches()
        await until(lambda: len(began) > 6)
        pauses = [after - before for before, after in pairwise(began)]
        assert all(pause >= 0.005 * 2**number for number, pause in enumerate(pauses[1:])), pauses


async def test_a_watch_that_breaks_while_it_is_late_has_not_told_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still, told of a change that came meanwhile, and broke before it told of a deletion."""
    monkeypatch.setattr(reflector, "BOOKMARK_OVERDUE_SECONDS", 0.0)
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        before = datetime.now(UTC)
        kept.api.put(pod_named("c"))
        await until(kept.holds("a", "b", "c"))
        kept.api.delete(pod_named("a"), is_lost=True)
        kept.api.forget_past()
        kept.api.end_watches(is_cut=True)
        await until(kept.holds("b", "c"))
        (since,) = kept.seen.intervals
        assert since is not None
        assert since <= before


async def test_lists_that_expire_every_time_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind that is being listed for ever looks as if it came soon, and the first inventory waited for it."""
    monkeypatch.setattr(reflector, "FIRST_RETRY_SECONDS", 0.02)
    async with keeping(tmp_path, names=("a",)) as kept:
        kept.api.fault = lambda _: web.json_response(
            {"kind": "Status", "message": "the continue token is too old"}, status=410
        )
        await until(kept.reflector.ready.is_set)
        state = kept.reflector.state
        assert (state.state, "too old" in str(state.message)) == ("failing", True)
        kept.api.fault = lambda _: None
        await until(kept.holds("a"))
        assert kept.reflector.state.state == "complete"


def served_kind(plural: str, kind: str) -> dict[str, object]:
    return {"name": plural, "kind": kind, "namespaced": True, "verbs": ["get", "list", "watch"]}


HOSTILE = {
    "nothing": web.json_response([1, 2]),
    "text": web.Response(text="{" * 100_000),
    "levels": web.Response(text='{"resources":' + "[" * 100_000),
    "unauthorized": web.json_response({}, status=401),
    "endless": web.Response(body=b" " * 3_000),
    "silent": None,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_group_that_answers_anything_keeps_no_other_from_being_discovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("watchbill.agent.kubernetes.discovery.GROUP_SECONDS", 0.3)
    monkeypatch.setattr(kube, "PAGE_BYTES", 2_000 if name == "endless" else kube.PAGE_BYTES)
    groups = [{"name": group, "versions": [{"version": "v1"}]} for group in ("batch", "ray.io")]
    answers = {
        "/version": {"gitVersion": "v1.20.2"},
        "/api": {"versions": ["v1"]},
        "/apis": {"groups": groups},
        "/api/v1": {"resources": [served_kind("pods", "Pod")]},
        "/apis/batch/v1": {"resources": [served_kind("jobs", "Job")]},
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path in answers:
            return web.json_response(answers[request.path])
        hostile = HOSTILE[name]
        if hostile is None:
            await asyncio.Event().wait()
        return web.json_response({}) if hostile is None else hostile

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        served = await discover(kubernetes, frozenset({"", "batch", "ray.io"}))
    assert served.resources.keys() == {GroupKind("", "Pod"), GroupKind("batch", "Job")}
    assert served.unknown_groups == {"ray.io"}, "unknown is not absent"
