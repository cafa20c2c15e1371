"""The real agent on a simulated cluster: what it tells is what the scenario knows to be so."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from simulator.apiserver.protocol import SimulatedCluster, read_path
from simulator.model.framework import FRAMEWORKS
from simulator.model.mixture import UNKNOWN
from simulator.model.model import SimulatedWorkload
from simulator.resources import JOB_SETS, PODS
from simulator.simulation.scenario import Scenario
from tests.fixtures.agents import until
from tests.fixtures.kubernetes.stages import can_be_seen, is_reported_phase_right
from tests.fixtures.receiver import CREDENTIAL, Receiver
from tests.fixtures.receiver import receiver as receiving
from watchbill.agent.manifest import permitted_resources
from watchbill.agent.run import run_agent
from watchbill.kinds.definition.loader import load_definitions
from watchbill.settings.agent import AgentSettings


async def settled(receiver: Receiver, scenario: Scenario) -> None:
    """Every workload is reported, and nothing more comes."""
    expected = {uid for uid, w in scenario.world.workloads.items() if can_be_seen(w)}

    def is_acknowledged() -> bool:
        return expected <= {str(uid) for uid in receiver.live()}

    await until(is_acknowledged, seconds=180)
    seq = -1
    while seq != receiver.seq:
        seq = receiver.seq
        await asyncio.sleep(1.5)


@pytest.mark.parametrize("seed", [5, 6])
async def test_the_agent_tells_what_the_scenario_knows(tmp_path: Path, seed: int) -> None:
    cluster = SimulatedCluster(seed=seed)
    now = time.time()
    past = now - 1800
    scenario = Scenario.create(cluster.store, seed=seed, prefix="t", workloads=150, now=past)
    for _ in range(600):
        past += 1.5
        scenario.step(past)
    while {w.kind for w in scenario.world.workloads.values() if can_be_seen(w)} != set(FRAMEWORKS):
        past += 1.5
        assert past < now
        scenario.step(past)
    await cluster.start()
    stop = asyncio.Event()
    async with receiving() as receiver:
        settings = AgentSettings(
            server_url=receiver.url,
            credential=CREDENTIAL,
            kubeconfig=cluster.kubeconfig(tmp_path / "kubeconfig"),
            debounce_seconds=0.05,
        )
        agent = asyncio.create_task(run_agent(settings, stop=stop))
        try:
            await agreed(receiver, scenario)
            check_kinds(receiver)
            check_permissions(cluster)
            await live(scenario, seconds=8)
            cluster.faults.end_watches()
            await live(scenario, seconds=8)
            await agreed(receiver, scenario)
        finally:
            stop.set()
            await asyncio.wait_for(agent, 120)
            await cluster.stop()


def check_permissions(cluster: SimulatedCluster) -> None:
    """The printed role has every kind that is listed; owners of other kinds are looked up by name."""
    permitted = permitted_resources(load_definitions())
    targets = [read_path(request.partition("?")[0]) for request in cluster.requests]
    asked = [target for target in targets if target is not None and target.plural]
    listed = {(target.group, target.plural) for target in asked if target.name is None}
    assert len(listed) > 20
    assert {
        (group, target) for group, target in listed if target not in permitted.get(group, ())
    } == set()
    assert {target.subresource for target in asked} <= {None, "proxy"}


def check_kinds(receiver: Receiver) -> None:
    """Every kind that has a definition is played; the unknown one is recognized by its pods."""
    reported = {row.record.witness for row in receiver.live().values()}
    shown = {(witness.group, witness.kind) for witness in reported}
    assert shown == {
        (kind.group, kind.kind) for kind in load_definitions().watched() if kind.is_whole
    } | {("", "Pod")}
    types = {row.record.workload.type for row in receiver.live().values()}
    assert types == {kind for _, kind in shown} | {UNKNOWN}


async def live(scenario: Scenario, *, seconds: float) -> None:
    """In real time, for the agent stamps what it sees with its own clock."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await scenario.run(12.0, stop)


async def agreed(receiver: Receiver, scenario: Scenario) -> None:
    """What stands between two states, as a gang of which one pod is up, may be reported as either; what is
    wrong stays so."""
    await settled(receiver, scenario)
    wrong = check(receiver, scenario)
    for _ in range(3):
        if not wrong:
            return
        await live(scenario, seconds=4)
        await settled(receiver, scenario)
        wrong = dict(check(receiver, scenario).items() & wrong.items())
    assert not wrong, Counter(wrong.values())


def check(receiver: Receiver, scenario: Scenario) -> dict[str, tuple[str, str, str]]:
    """Returns kind, stage and phase of what is reported in another phase than it is in, or pending without a
    reason, by id."""
    reported = {str(uid): row.record.workload for uid, row in receiver.live().items()}
    known = scenario.world.workloads
    # The end of an owner whose kind nobody watches is noticed when it is looked at again.
    gone = [w for uid, w in reported.items() if w.type != UNKNOWN and uid not in known]
    assert not gone, [(w.type, w.name, w.phase) for w in gone]
    reported = {uid: workload for uid, workload in reported.items() if uid in known}
    missing = [w for uid, w in known.items() if uid not in reported and can_be_seen(w)]
    assert not missing, [(w.kind, w.name, w.stage) for w in missing]
    for uid, workload in reported.items():
        source = known[uid]
        assert (workload.project_name, workload.submitted_by) == (source.project, source.user)
    check_sums(reported, scenario)
    return {
        uid: (known[uid].kind, known[uid].stage, workload.phase.value)
        for uid, workload in reported.items()
        if not is_reported_phase_right(known[uid], workload.phase.value)
        or (is_waiting(known[uid]) and not workload.phase_message)
    }


def is_waiting(workload: SimulatedWorkload) -> bool:
    return workload.stage == "pending" and not any(pod.started_at for pod in workload.pods)


def check_sums(reported: object, scenario: Scenario) -> None:
    """GPUs that the agent counts as allocated are those that the machines gave out."""
    assert isinstance(reported, dict)
    for uid, workload in reported.items():
        source = scenario.world.workloads[uid]
        given = 0.0
        for pod in source.pods:
            if pod.holds_resources:
                shape = source.shape(pod.role)
                node = scenario.world.nodes[pod.node]
                given += shape.gpus + (0 if shape.mig else node.gpu_share(shape) / 100)
                given += int(shape.mig.partition("g")[0]) / 7 if shape.mig else 0
        assert workload.allocated_resources.gpu == pytest.approx(given, abs=0.02), source.name


async def test_a_kind_that_is_removed_takes_its_workloads_along(tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    now = time.time()
    scenario = Scenario.create(cluster.store, seed=9, prefix="t", workloads=40, now=now)
    await cluster.start()
    stop = asyncio.Event()
    async with receiving() as receiver:
        settings = AgentSettings(
            server_url=receiver.url,
            credential=CREDENTIAL,
            kubeconfig=cluster.kubeconfig(tmp_path / "kubeconfig"),
            debounce_seconds=0.05,
        )
        agent = asyncio.create_task(run_agent(settings, stop=stop))
        await settled(receiver, scenario)
        sets = {uid for uid, w in scenario.world.workloads.items() if w.kind == "JobSet"}
        assert sets
        for uid in sets:
            workload = scenario.world.workloads[uid]
            for job in ("jobs", "pods", "podgroups"):
                for table in scenario.world.store.tables():
                    if table.resource.plural == job:
                        for path in [p for p in table.objects if workload.name in p]:
                            namespace, _, name = path.partition("/")
                            cluster.store.delete(table.resource, namespace, name)
        await cluster.remove_kind(JOB_SETS)
        await until(
            lambda: not sets & {str(uid) for uid in receiver.live()},
            seconds=120,
        )
        assert cluster.store.table(PODS.group, PODS.plural) is not None
        stop.set()
        await asyncio.wait_for(agent, 120)
    await cluster.stop()
