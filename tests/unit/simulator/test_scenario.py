"""The simulated world: the same by seed, within its machines and quotas, and truthful about who waits."""

import asyncio
import json
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from simulator.apiserver.store import Store
from simulator.manifests.shared_objects import EXPORTERS_NAMESPACE, RESERVATIONS
from simulator.model.framework import FRAMEWORKS, SERVED
from simulator.model.hardware import ONE_GPU
from simulator.model.lifecycles import StageIndex
from simulator.model.mixture import KINDS
from simulator.model.model import SimulatedWorkload
from simulator.model.pod_layout import slots
from simulator.model.scheduler import KAI, hundredths, is_fixed
from simulator.resources import PODS
from simulator.simulation.scenario import Scenario
from simulator.simulation.world import World
from tests.fixtures.kubernetes.replay import RECORDINGS

NOW = 1_790_000_000.0
STEP_SECONDS = 0.7
ATTENDED = (RESERVATIONS, EXPORTERS_NAMESPACE)
"""Namespaces of the cluster's own pods."""
Json = dict[str, Any]


def new_store() -> Store:
    store = Store()
    for resource in SERVED:
        store.add_resource(resource)
    return store


def begin(*, seed: int = 7, workloads: int = 120) -> Scenario:
    return Scenario.create(new_store(), seed=seed, prefix="t", workloads=workloads, now=NOW)


def run(scenario: Scenario, steps: int, *, start: float = NOW) -> float:
    now = start
    for _ in range(steps):
        now += STEP_SECONDS
        scenario.step(now)
    return now


def objects(store: Store) -> dict[tuple[str, str, str], Json]:
    """Everything in the store by group, plural and path."""
    return {
        (table.resource.group, table.resource.plural, path): stored.decode()
        for table in store.tables()
        for path, stored in table.objects.items()
    }


def pods(store: Store) -> list[Json]:
    return [
        document
        for (group, plural, path), document in objects(store).items()
        if (group, plural) == ("", "pods") and path.partition("/")[0] not in ATTENDED
    ]


# The same by seed


def test_one_seed_makes_one_world() -> None:
    first, second, other = begin(), begin(), begin(seed=8)
    for scenario in (first, second, other):
        run(scenario, 400)
    assert objects(first.world.store) == objects(second.world.store)
    assert first.world.store.revision == second.world.store.revision
    uids = [{w.uid for w in s.world.workloads.values()} for s in (first, other)]
    assert not uids[0] & uids[1]


# Within its means


def check_machines(world: World) -> None:
    """What nodes and queues think they gave out is what the pods hold, and no more than there is."""
    held: dict[str, list[Any]] = {name: [] for name in world.nodes}
    allocated: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for workload in world.workloads.values():
        for pod in workload.pods:
            if not pod.holds_resources:
                continue
            shape = workload.shape(pod.role)
            held[pod.node].append(shape)
            if workload.scheduler == KAI:
                pool = world.nodes[pod.node].pool.name
                weight = hundredths(shape, pool)
                allocated[workload.project] += weight
                fixed[workload.project] += weight if is_fixed(workload) else 0
    for name, node in world.nodes.items():
        shapes = held[name]
        assert node.cpu_millis == node.pool.cpu_millis - sum(s.cpu_millis for s in shapes) >= 0
        assert node.memory_mib == node.pool.memory_mib - sum(s.memory_mib for s in shapes) >= 0
        assert all(0 <= free <= ONE_GPU for free in node.devices)
        used = sum(s.gpus * ONE_GPU + node.gpu_share(s) for s in shapes if not s.mig)
        assert sum(node.devices) == len(node.devices) * ONE_GPU - used
        migs = Counter(s.mig for s in shapes if s.mig)
        assert {p: len(free) for p, free in node.free_migs.items()} == {
            p: count - migs[p] for p, count in node.pool.mig
        }
    check_queues(world, allocated, fixed)


def check_queues(world: World, allocated: Counter[str], fixed: Counter[str]) -> None:
    for queue in world.scheduler.queues.values():
        leaves = [q.name for q in world.scheduler.queues.values() if q.parent is queue]
        names = leaves or [queue.name]
        assert queue.allocated == sum(allocated[name] for name in names)
        assert queue.allocated_fixed == sum(fixed[name] for name in names)
        assert queue.allocated_fixed <= queue.quota
        assert queue.limit < 0 or queue.allocated <= queue.limit
        assert queue.limit < 0 or queue.limit >= queue.quota


def check_written(world: World) -> None:
    """The same, counted from the objects alone, as an agent could."""
    used: Counter[tuple[str, str]] = Counter()
    for pod in pods(world.store):
        if pod["status"]["phase"] in ("Succeeded", "Failed") or "nodeName" not in pod["spec"]:
            continue
        for container in pod["spec"]["containers"]:
            for name, amount in container["resources"]["limits"].items():
                if name.startswith("nvidia.com/"):
                    used[pod["spec"]["nodeName"], name] += int(amount)
    nodes = {
        path: document
        for (_, plural, path), document in objects(world.store).items()
        if plural == "nodes"
    }
    for (node, name), amount in used.items():
        assert amount <= int(nodes[node]["status"]["capacity"][name])


def check_waiting(scenario: Scenario) -> None:
    """Whatever is pending has a reason, and it is true."""
    world = scenario.world
    for workload in world.workloads.values():
        gangs: dict[str, list[Any]] = {}
        for pod in workload.present_pods():
            if not pod.node:
                gangs.setdefault(pod.gang, []).append(pod)
        if workload.stage != "pending":
            continue
        for name, gang in gangs.items():
            reported = workload.refusals[name]
            truth = world.scheduler.explain(workload, gang)
            assert truth is not None, (workload.name, reported)
            assert (reported.reason, reported.message) == (truth.reason, truth.message)


@pytest.mark.parametrize("seed", [1, 2])
def test_machines_and_quotas_hold_and_reasons_are_true(seed: int) -> None:
    scenario = begin(seed=seed)
    check_machines(scenario.world)
    check_written(scenario.world)
    check_waiting(scenario)
    now = NOW
    for number in range(1500):
        now += STEP_SECONDS
        scenario.step(now)
        if number % 10 == 0:
            check_machines(scenario.world)
            check_waiting(scenario)
        if number % 100 == 0:
            check_written(scenario.world)


def test_the_stage_index_agrees_with_the_workloads_after_thousands_of_changes() -> None:
    scenario = begin(workloads=60)
    run(scenario, 3000)
    world = scenario.world
    stages = Counter(workload.stage for workload in world.workloads.values())
    assert {stage: world.stages.count(stage) for stage in stages} == dict(stages)
    # Where one was asked to go in the very last step, the next brings another.
    assert sum(stages.values()) - stages["deleting"] in (59, 60)


# Everything occurs

STAGES = {
    "creating",
    "pending",
    "starting",
    "stuck",
    "running",
    "degraded",
    "updating",
    "scaling",
    "stopping",
    "stopped",
    "resuming",
    "evicting",
    "sleeping",
    "idle",
    "completing",
    "completed",
    "failing",
    "failed",
    "deleting",
}


def test_every_kind_and_every_stage_occurs() -> None:
    seen: set[tuple[str, str]] = set()
    for seed in (1, 2, 3):
        scenario = begin(seed=seed)
        now = NOW
        for _ in range(2000):
            now += STEP_SECONDS
            scenario.step(now)
            seen |= {(w.kind, w.stage) for w in scenario.world.workloads.values()}
    assert {kind for kind, _ in seen} == set(FRAMEWORKS)
    assert {stage for _, stage in seen} == STAGES
    for kind, framework in FRAMEWORKS.items():
        is_finite = framework.family == "finite"
        ending = {"completed", "failed"} if is_finite else {"running", "deleting"}
        # Of rare kinds there are too few for everything to happen to them in so short a time.
        due = ending if framework.weight > 1 else {"running"}
        assert due <= {stage for seen_kind, stage in seen if seen_kind == kind}, kind


def test_every_reason_to_wait_and_every_way_to_ask_for_gpus_occurs() -> None:
    reasons: set[str] = set()
    asks: set[str] = set()
    schedulers: set[str] = set()
    for seed in range(1, 7):
        scenario = begin(seed=seed)
        now = run(scenario, 300)
        for _ in range(200):
            now += STEP_SECONDS
            scenario.step(now)
            for workload in scenario.world.workloads.values():
                reasons |= {refusal.reason for refusal in workload.refusals.values()}
        for pod in pods(scenario.world.store):
            annotations = pod["metadata"].get("annotations", {})
            limits = pod["spec"]["containers"][0]["resources"]["limits"]
            asks |= {name for name in ("gpu-fraction", "gpu-memory") if name in annotations}
            asks |= {name for name in limits if name.startswith("nvidia.com")}
            schedulers.add(pod["spec"]["schedulerName"])
    assert reasons == {"NotEnoughResources", "OverLimit", "NonPreemptibleOverQuota"}
    assert {"gpu-fraction", "gpu-memory", "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"} <= asks
    assert schedulers == {"kai-scheduler", "default-scheduler"}


# What the objects say


def test_owners_exist_and_pods_name_their_groups() -> None:
    scenario = begin(workloads=60)
    now = NOW
    for _ in range(60):
        now = run(scenario, 17, start=now)
        check_ownership(scenario.world)


def check_ownership(world: World) -> None:
    result = objects(world.store)
    uids = {document["metadata"]["uid"] for document in result.values()}
    leaving = {
        pod.uid
        for workload in world.workloads.values()
        if workload.is_root_gone
        for pod in workload.pods
    }
    groups = {path for (_, plural, path) in result if plural == "podgroups"}
    for (_, plural, path), document in result.items():
        head = document["metadata"]
        owners = head.get("ownerReferences", [])
        if head["uid"] not in leaving and plural != "events":
            assert all(owner["uid"] in uids for owner in owners), path
        assert sum(owner.get("controller", False) for owner in owners) <= 1
        if plural == "pods" and head["namespace"] not in ATTENDED:
            is_root = head["uid"] in world.workloads
            assert bool(owners) != is_root, path
        group = head.get("annotations", {}).get("pod-group-name")
        if plural == "pods" and group and "deletionTimestamp" not in head:
            assert f"{head['namespace']}/{group}" in groups


def test_every_workload_has_the_pods_that_its_stage_calls_for() -> None:
    scenario = begin()
    run(scenario, 1500)
    for workload in scenario.world.workloads.values():
        if workload.stage == "running":
            assert _complete(workload), workload.name
        if workload.stage in ("stopped", "creating"):
            assert not workload.pods


def _complete(workload: SimulatedWorkload) -> bool:
    present = [pod for pod in workload.present_pods() if not pod.is_over]
    return len(present) == len(slots(workload)) and all(pod.stage == "running" for pod in present)


def test_times_are_in_order_and_spread_over_days() -> None:
    scenario = begin()
    now = run(scenario, 800)
    ages = [now - w.created_at for w in scenario.world.workloads.values()]
    assert max(ages) > 2 * 86400
    assert min(ages) < 3600
    for workload in scenario.world.workloads.values():
        for pod in workload.pods:
            order = (
                workload.created_at,
                pod.created_at,
                pod.scheduled_at,
                pod.started_at,
                pod.finished_at,
            )
            known = [moment for moment in order if moment]
            assert known == sorted(known), (workload.kind, workload.name, order)
            assert max(known) <= now
    for document in objects(scenario.world.store).values():
        created = document["metadata"]["creationTimestamp"]
        assert datetime.fromisoformat(created).timestamp() <= now


@pytest.mark.parametrize(
    ("life", "moment", "plural", "kind"),
    [
        ("cr_pytorchjob_kai", "running", "pytorchjobs", "PyTorchJob"),
        ("cr_pytorchjob_kai", "running", "podgroups", "PyTorchJob"),
        ("cr_pytorchjob_kai", "running", "queues", "PyTorchJob"),
        ("cr_pytorchjob_kai", "running", "pods", "PyTorchJob"),
        ("cr_ray", "running", "rayclusters", "RayCluster"),
        ("cr_jobset", "running", "jobsets", "JobSet"),
        ("cr_jobset", "running", "jobs", "JobSet"),
        ("cr_leaderworkerset", "running", "leaderworkersets", "LeaderWorkerSet"),
        ("cr_leaderworkerset", "running", "statefulsets", "LeaderWorkerSet"),
        ("cr_knative", "running", "revisions", "KnativeService"),
        ("cr_knative", "running", "configurations", "KnativeService"),
        ("cr_nimservice", "running", "nimservices", "NIMService"),
        ("deployment", "running", "deployments", "Deployment"),
        ("deployment", "running", "replicasets", "Deployment"),
        ("deployment", "running", "pods", "Deployment"),
    ],
)
def test_objects_have_the_members_of_recorded_ones(
    life: str, moment: str, plural: str, kind: str
) -> None:
    """Where both have a member it is of the same type, and no status member is made up."""
    theirs = _recorded_object(life, moment, plural)
    scenario, names = where_one_runs(kind)
    ours = next(
        document
        for (_, result, path), document in objects(scenario.world.store).items()
        if result == plural
        and (plural == "queues" or any(name in path for name in names))
        and document.get("status")
    )
    for part in ("metadata", "spec", "status"):
        _same_types(ours.get(part, {}), theirs.get(part, {}), part)
    allowed = set(theirs.get("status") or {}) | _ALLOWED_STATUS.get(plural, set())
    assert set(ours["status"]) <= allowed


def where_one_runs(kind: str) -> tuple[Scenario, set[str]]:
    """A world in which the kind runs, and the names of those; rare kinds do not in every one."""
    for seed in range(7, 20):
        scenario = begin(seed=seed)
        workloads = scenario.world.workloads.values()
        names = {w.name for w in workloads if w.stage == "running" and w.kind == kind}
        if names:
            return scenario, names
    raise AssertionError(f"no {kind} runs anywhere")


_ALLOWED_STATUS = {
    "podgroups": {"schedulingConditions"},
    "queues": {"allocated", "allocatedNonPreemptible"},
    "configurations": {"latestCreatedRevisionName", "observedGeneration"},
    "jobs": {"conditions", "startTime", "succeeded", "failed", "completionTime"},
    "jobsets": {"conditions"},
}


def _recorded_object(life: str, moment: str, plural: str) -> Json:
    import gzip

    with gzip.open(RECORDINGS / "1.36" / "life" / f"{life}.jsonl.gz", "rt") as file:
        for line in map(json.loads, file):
            if line.get("moment") != moment:
                continue
            for path, listed in line["lists"].items():
                if path.endswith(f"/{plural}"):
                    result: Json = listed["items"][0]
                    return result
    raise LookupError((life, moment, plural))


def _same_types(ours: Any, theirs: Any, path: str) -> None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in set(ours) & set(theirs):
            _same_types(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if ours and theirs:
            _same_types(ours[0], theirs[0], f"{path}[]")
    elif ours is not None and theirs is not None:
        # Quantities and percentages are numbers or texts, as their author likes.
        assert isinstance(ours, bool) == isinstance(theirs, bool), path
        assert isinstance(ours, (dict, list)) == isinstance(theirs, (dict, list)), path


# Keeping and going on


def test_a_kept_world_goes_on_with_the_same_objects() -> None:
    scenario = begin()
    now = run(scenario, 500)
    before = objects(scenario.world.store)
    dump, kept = scenario.world.store.dump(), scenario.dump()
    store = new_store()
    store.restore(dump)
    again = Scenario.resume(store, kept, now=now + 60)
    after = objects(store)
    assert {k: _plain(d) for k, d in after.items()} == {k: _plain(d) for k, d in before.items()}
    check_machines(again.world)
    run(again, 800, start=now + 60)
    check_machines(again.world)
    check_waiting(again)
    check_ownership(again.world)
    known = {w.uid for w in scenario.world.workloads.values()}
    assert len(known & set(again.world.workloads)) > 10


def _plain(document: Json) -> Json:
    head = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
    return document | {"metadata": head}


async def test_it_makes_changes_until_stopped() -> None:
    scenario = begin(workloads=30)
    stop = asyncio.Event()
    running = asyncio.create_task(scenario.run(1000.0, stop))
    while scenario.changes < 5:
        await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(running, 120)
    changes = scenario.changes
    await asyncio.sleep(0.01)
    assert scenario.changes == changes


async def test_at_rate_zero_nothing_happens() -> None:
    scenario = begin(workloads=13)
    revision = scenario.world.store.revision
    stop = asyncio.Event()
    running = asyncio.create_task(scenario.run(0.0, stop))
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait_for(running, 120)
    assert scenario.world.store.revision == revision


def test_an_empty_stage_index_has_nothing_to_draw() -> None:
    import random

    assert StageIndex().draw_event(random.Random(1)) is None


def test_even_a_tiny_world_has_every_kind() -> None:
    scenario = begin(workloads=len(KINDS))
    kinds = {workload.kind for workload in scenario.world.workloads.values()}
    assert kinds == set(FRAMEWORKS)
    assert scenario.world.store.table(PODS.group, PODS.plural) is not None
