"""Random but legal histories of every kind, played by the simulator and seen by an agent's cache.

After each step every record says what is so. `make histories` plays more of them."""

import copy
import functools
import itertools
import json
import os
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulator.apiserver.store import Store
from simulator.model.framework import SERVED
from simulator.model.mixture import KINDS, UNKNOWN
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import KAI
from simulator.resources import NODES, PODS
from simulator.simulation.scenario import Scenario
from simulator.simulation.transitions import clear_pods, suspend
from tests.fixtures.kubernetes.cut_nodes import CUTS, asks_in_parts, held_by, units_of, with_cut
from tests.fixtures.kubernetes.observed_world import ObservedWorld
from tests.fixtures.kubernetes.resource_claims import (
    ALLOCATIONS,
    CLAIMS,
    claim_of,
    claimed,
    resource_claim,
    with_claim,
)
from tests.fixtures.kubernetes.scheduler_groups import (
    KUEUE_WORKLOADS,
    PENDING,
    PREEMPTED,
    REFUSED,
    VOLCANO_GROUPS,
    kueue_workload,
    volcano_group,
)
from tests.fixtures.kubernetes.stages import can_be_seen, is_reported_phase_right
from tests.unit.agent.test_cache import DEFINITIONS
from watchbill.kinds.definition.facts import FactsCache
from watchbill.kinds.derive import Derived
from watchbill.protocol import record_hash
from watchbill.workload import TERMINAL_PHASES, Phase, Workload

EXAMPLES = int(os.environ.get("WATCHBILL_HISTORIES", "8"))
STEPS = 20
WORKLOADS = 7
NOW = 1_790_000_000.0
QUEUED_KINDS = frozenset(
    {"AppWrapper", "Job", "JobSet", "PyTorchJob", "RayCluster", "RayJob", "TrainJob"}
)
"""Those that Kueue suspends and resumes."""
Json = dict[str, Any]


class Histories(RuleBasedStateMachine):
    """A small cluster and the agent that observes it. `disturbed`: workloads that something befell which the
    simulator knows nothing of; what it says of them is not the truth until it moves them again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.skew = timedelta(0)
        self.disturbed: dict[str, str] = {}
        self.queued: dict[str, Json] = {}
        self.refused: dict[str, Json] = {}
        self.sent: dict[str, str] = {}
        """By workload the hash of the record that was derived when something of it changed last."""
        self.unsent: set[str] = set()
        self.claim_of_pod: dict[tuple[str, str, str], str] = {}
        """By namespace, name and UID of a pod the claim that it uses."""
        self.allocations: dict[str, str] = {}
        self.scenario: Scenario
        self.observed: ObservedWorld

    @initialize(
        seed=st.integers(0, 2**20), skew_seconds=st.sampled_from([0, 0, -90, -5, 5, 90, 7200])
    )
    def begin(self, seed: int, skew_seconds: int) -> None:
        store = Store()
        for resource in SERVED:
            store.add_resource(resource)
        store.add_resource(KUEUE_WORKLOADS)
        store.add_resource(VOLCANO_GROUPS)
        store.add_resource(CLAIMS)
        self.scenario = Scenario.create(
            store,
            seed=seed,
            prefix="h",
            workloads=WORKLOADS,
            now=self.now,
            first=random.Random(seed).sample(KINDS, WORKLOADS),
        )
        self.observed = ObservedWorld(store)
        self.skew = timedelta(seconds=skew_seconds)

    @rule(changes=st.integers(1, 10), pause_seconds=st.sampled_from([0.2, 1.0, 5.0, 60.0]))
    def time_passes(self, changes: int, pause_seconds: float) -> None:
        """Pods are placed and start, fail, restart and end; owners are stopped, scaled, updated, deleted."""
        self.schedulers_agree()
        for _ in range(changes):
            self.now += pause_seconds
            self.scenario.step(self.now)

    @rule(choice=st.randoms(use_true_random=False))
    def an_ended_pod_is_collected(self, choice: Any) -> None:
        """Its owner has counted it already."""
        ended = [
            (workload, pod)
            for workload in self.workloads()
            for pod in workload.pods
            if workload.stage in ("completed", "failed") and pod.is_over and workload.kind != "Pod"
        ]
        if ended:
            workload, pod = choice.choice(ended)
            self.scenario.world.remove_pods(workload, [pod])
            self.scenario.world.sync(workload)

    @rule(choice=st.randoms(use_true_random=False))
    def a_node_is_lost(self, choice: Any) -> None:
        """Its pods are not ready any more, and are to be deleted, as the control plane does after a while."""
        placed = [
            (workload, pod)
            for workload in self.workloads()
            for pod in workload.pods
            if pod.holds_resources and pod.started_at and not pod.deleted_at
        ]
        if not placed:
            return
        node = choice.choice(placed)[1].node
        for workload, pod in placed:
            if pod.node == node:
                self.disturbed[workload.uid] = workload.stage
                self.put_lost(workload, pod)

    @rule(choice=st.randoms(use_true_random=False), cut=st.sampled_from(sorted(CUTS)))
    def a_node_is_cut(self, choice: Any, cut: str) -> None:
        """Its GPUs are shared or cut in another way, and its pods hold another part of them."""
        store = self.scenario.world.store
        nodes = [
            node for node in self.nodes().values() if "nvidia.com/gpu" in node["status"]["capacity"]
        ]
        if nodes:
            node = with_cut(choice.choice(nodes), cut)
            name = node["metadata"]["name"]
            is_new = self.nodes()[name] != node
            store.put(NODES, node)
            changed = self.look()
            for root in self.observed.roots:
                placed = {
                    pod["spec"].get("nodeName") for pod in self.pods_of(root) if units_of(pod)
                }
                assert root in changed or not is_new or name not in placed, (root, name)
                self.check_record(root, self.observed.derive(root))

    @rule(choice=st.randoms(use_true_random=False), is_preempted=st.booleans())
    def a_queue_holds_work_back(self, choice: Any, is_preempted: bool) -> None:
        """Kueue suspends it, or it was, and it waits for quota until the next step."""
        queued = [
            workload
            for workload in self.workloads()
            if workload.kind in QUEUED_KINDS
            and workload.stage in ("running", "degraded", "stopped")
        ]
        if not queued:
            return
        workload, world = choice.choice(queued), self.scenario.world
        if workload.stage != "stopped":
            for transition in (suspend, clear_pods):
                transition(world, workload, self.now)
                world.sync_if_present(workload)
        root = self.root_of(workload)
        self.queued[workload.uid] = root
        self.put_queued(root, admitted=False, preempted=is_preempted)

    @rule(choice=st.randoms(use_true_random=False))
    def a_gang_is_refused(self, choice: Any) -> None:
        """Volcano had no room for it when it looked last; some of it may run all the same."""
        others = [
            workload
            for workload in self.workloads()
            if workload.scheduler != KAI
            and workload.kind not in ("Pod", UNKNOWN)
            and not workload.is_root_gone
        ]
        if others:
            root = self.root_of(choice.choice(others))
            self.refused[root["metadata"]["uid"]] = root
            group = volcano_group(root, at=self.stamp(), scheduled=False)
            self.scenario.world.store.put(VOLCANO_GROUPS, group)

    @rule(
        choice=st.randoms(use_true_random=False),
        allocation=st.sampled_from(sorted(ALLOCATIONS)),
        is_shared=st.booleans(),
    )
    def pods_get_devices_by_a_claim(self, choice: Any, allocation: str, is_shared: bool) -> None:
        """One pod, or two of a workload that share it."""
        placed = [
            pods
            for workload in self.workloads()
            if (pods := [pod for pod in self.pods_of_source(workload) if may_claim(pod)])
        ]
        if not placed:
            return
        pods = choice.choice(placed)[: 2 if is_shared else 1]
        name = f"claim-{len(self.allocations)}"
        self.allocations[name] = allocation
        self.scenario.world.store.put(CLAIMS, resource_claim(name, allocation, pods))
        for pod in pods:
            meta = pod["metadata"]
            self.claim_of_pod[(meta["namespace"], meta["name"], meta["uid"])] = name

    def keep_claims(self) -> None:
        """What a pod uses never changes; the simulator writes its pods without their claims."""
        for (namespace, pod_name, uid), name in self.claim_of_pod.items():
            stored = self.scenario.world.store.get(PODS, namespace, pod_name)
            pod = stored.decode() if stored is not None else None
            if pod and pod["metadata"]["uid"] == uid and claim_of(pod) is None:
                self.scenario.world.store.put(PODS, with_claim(pod, name))

    @rule()
    def the_agent_starts_anew(self) -> None:
        """It sees the same: no record depends on the order in which objects came, on what was remembered of
        earlier ones, or on a change that was passed over."""
        self.look()
        for root in self.unsent & self.observed.roots:
            self.note_sent(root, self.observed.derive(root))
        fresh = ObservedWorld(self.scenario.world.store)
        fresh.look()
        # Owners that are gone are known only to who saw them.
        lasting = {root for root in self.observed.roots if not self.is_root_gone(root)}
        assert lasting <= fresh.roots
        forget_all()
        for root in lasting:
            derived = fresh.derive(root)
            assert self.sent[root] == record_hash(derived.record), derived.record.workload

    @invariant()
    def every_record_is_right(self) -> None:
        if not hasattr(self, "observed"):
            return
        self.keep_claims()
        changed = self.look()
        expected = {workload.uid for workload in self.workloads() if can_be_seen(workload)}
        missing = expected - self.observed.roots
        assert not missing, [workload for workload in self.workloads() if workload.uid in missing]
        for root in changed:
            derived = self.observed.derive(root)
            self.note_sent(root, derived)
            self.check_record(root, derived)
            self.check_history(root, derived)

    def check_record(self, root: str, derived: Derived) -> None:
        workload = derived.record.workload
        pods = self.pods_of(root)
        ready = [pod for pod in pods if is_ready(pod)]
        title = (workload.type, workload.name, workload.phase, workload.phase_message)
        active = [pod for pod in pods if is_active(pod)]
        asked = sum(units_of(pod) for pod in active) + float(claimed(active, self.allocations))
        requested = workload.workload_requested_resources.gpu
        assert asked <= ((requested and requested.request) or 0) + 1e-5, title
        if workload.phase in TERMINAL_PHASES:
            assert not ready, title
            assert workload.completed_at is not None, title
        else:
            assert workload.completed_at is None, title
        if workload.phase is Phase.RUNNING and workload.requested_pods.min is None:
            assert ready or not any(is_active(pod) for pod in pods) or self.may_run(root), title
        check_reasons(workload, json.dumps(self.evidence()))
        if not any(asks_in_parts(pod) for pod in pods):
            held = held_by(pods, self.nodes())
            if held is not None:
                held += claimed([pod for pod in pods if holds(pod)], self.allocations)
            reported = workload.allocated_resources.gpu
            assert (held is None) is (reported is None), title
            assert held is None or reported is None or abs(float(held) - reported) < 1e-5, (
                held,
                reported,
                *title,
            )
        if workload.allocated_resources.gpu:
            assert workload.idle_allocated_gpus is None, title
        else:
            assert not workload.idle_allocated_gpus, title
        source = self.scenario.world.workloads.get(root)
        if source is not None and source.stage == "stopped" and root in self.queued:
            assert workload.phase is Phase.PENDING, title
            assert {PENDING, PREEMPTED} & set(messages_of(workload)), title
            return
        if root in self.refused and workload.phase is Phase.PENDING:
            assert REFUSED in messages_of(workload), title
        if source is not None and self.disturbed.get(root) != source.stage:
            self.disturbed.pop(root, None)
            assert is_reported_phase_right(source, workload.phase.value), (source.stage, *title)

    def check_history(self, root: str, derived: Derived) -> None:
        observed_at = datetime.fromtimestamp(self.now, UTC) + self.skew
        before = list(self.observed.transitions.get(root, []))
        added = self.observed.report(root, derived, observed_at)
        reported = self.observed.transitions[root]
        assert reported[-1].phase is derived.record.workload.phase
        for earlier, later in itertools.pairwise(reported):
            assert earlier.at <= later.at, (earlier, later)
            assert earlier.phase is not later.phase, (earlier, later)
        assert self.observed.report(root, derived, observed_at) == []
        if before and before[-1].phase is derived.record.workload.phase:
            assert len({(pod.phase, pod.at) for pod in added} & set(keys(before))) == 0

    def schedulers_agree(self) -> None:
        """What waited may go on, and what is gone takes its objects along."""
        store = self.scenario.world.store
        for root in self.queued.values():
            self.put_queued(root, admitted=True)
        for root in self.refused.values():
            store.put(VOLCANO_GROUPS, volcano_group(root, at=self.stamp(), scheduled=True))
        self.queued.clear()
        self.refused.clear()

    def put_queued(self, root: Json, *, admitted: bool, preempted: bool = False) -> None:
        made = kueue_workload(root, at=self.stamp(), admitted=admitted, preempted=preempted)
        self.scenario.world.store.put(KUEUE_WORKLOADS, made)

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def look(self) -> set[str]:
        """The workloads that may have changed, as the agent's cache says."""
        changed = self.observed.look()
        self.unsent |= changed
        return changed

    def note_sent(self, root: str, derived: Derived) -> None:
        self.sent[root] = record_hash(derived.record)
        self.unsent.discard(root)

    # What the cluster holds

    def root_of(self, workload: SimulatedWorkload) -> Json:
        self.look()
        return dict(self.observed.filled.cache.gather(workload.uid).root)

    def nodes(self) -> dict[str, Json]:
        table = next(t for t in self.scenario.world.store.tables() if t.resource == NODES)
        result = [stored.decode() for stored in table.objects.values()]
        return {node["metadata"]["name"]: node for node in result}

    def workloads(self) -> list[SimulatedWorkload]:
        return list(self.scenario.world.workloads.values())

    def is_root_gone(self, root: str) -> bool:
        return self.observed.filled.cache.owner_tree.groups[root].is_root_gone

    def may_run(self, root: str) -> bool:
        """Between two runs, steps or requests some kinds run without a pod that does."""
        source = self.scenario.world.workloads.get(root)
        return source is not None and is_reported_phase_right(source, Phase.RUNNING.value)

    def pods_of(self, root: str) -> list[Json]:
        names = {
            (pod.namespace, pod.name) for pod in self.observed.filled.cache.owner_tree.pods(root)
        }
        return [self.pod(namespace, name) for namespace, name in names]

    def pods_of_source(self, workload: SimulatedWorkload) -> list[Json]:
        stored = (
            self.scenario.world.store.get(PODS, workload.namespace, pod.name)
            for pod in workload.pods
        )
        return [pod.decode() for pod in stored if pod is not None]

    def pod(self, namespace: str, name: str) -> Json:
        stored = self.scenario.world.store.get(PODS, namespace, name)
        assert stored is not None
        return stored.decode()

    def put_lost(self, workload: SimulatedWorkload, pod: SimulatedPod) -> None:
        lost = copy.deepcopy(self.pod(workload.namespace, pod.name))
        at = datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for condition in lost["status"]["conditions"]:
            if condition["type"] in ("Ready", "ContainersReady"):
                condition |= {"status": "False", "lastTransitionTime": at}
        lost["status"] |= {"reason": "NodeLost"}
        lost["metadata"] |= {"deletionTimestamp": at, "deletionGracePeriodSeconds": 0}
        self.scenario.world.store.put(PODS, lost)

    def evidence(self) -> list[Json]:
        """All that schedulers and controllers say."""
        return [
            stored.decode()
            for table in self.scenario.world.store.tables()
            if table.resource.plural
            in ("pods", "podgroups", "volcanogroups", "events", "workloads")
            for stored in table.objects.values()
        ]


def forget_all() -> None:
    """What derivation remembers from one workload to the next."""
    for name, module in list(sys.modules.items()):
        if name.startswith("watchbill.kinds."):
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper) and value.cache_info().maxsize:
                    value.cache_clear()
    DEFINITIONS._facts_cache = FactsCache()


def check_reasons(workload: Workload, evidence: str) -> None:
    """Reasons are given only while it waits, and each is somebody's own words."""
    reasons = workload.additional_fields.get("pendingReasons", [])
    assert not reasons or workload.phase is Phase.PENDING
    for reason in reasons:
        assert json.dumps(reason["message"])[1:-1] in evidence, reason


def keys(transitions: list[Any]) -> list[tuple[Phase, datetime]]:
    return [(transition.phase, transition.at) for transition in transitions]


def is_active(pod: Json) -> bool:
    is_over = pod["status"]["phase"] in ("Succeeded", "Failed")
    return not is_over and "deletionTimestamp" not in pod["metadata"]


def holds(pod: Json) -> bool:
    """It is on a node and has not ended."""
    is_over = pod["status"]["phase"] in ("Succeeded", "Failed")
    return bool(pod["spec"].get("nodeName")) and not is_over


def may_claim(pod: Json) -> bool:
    return holds(pod) and claim_of(pod) is None and not asks_in_parts(pod)


def is_ready(pod: Json) -> bool:
    conditions = {
        condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])
    }
    return is_active(pod) and conditions.get("Ready") == "True"


def messages_of(workload: Workload) -> list[str]:
    return [reason["message"] for reason in workload.additional_fields.get("pendingReasons", [])]


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="WATCHBILL_HISTORIES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
