"""Somebody who may create any objects in one namespace changes nothing about the workloads of another."""

import asyncio
import copy
import gc
import json
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.kubernetes.agent_objects import made, pod
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.work import Calls
from tests.unit.agent.foreign_objects import (
    _GPUS,
    KINDS,
    OWN,
    VICTIMS,
    Json,
    attacks,
    filled_with,
    records,
)
from tests.unit.agent.test_cache import DEFINITIONS, Filled
from watchbill.agent.cache.event_log import EventLog
from watchbill.agent.cache.node_pools import NodePools
from watchbill.agent.cache.nodes import NodeReports
from watchbill.agent.cache.queues import scheduler_queues
from watchbill.agent.cache.targets import ScrapeTarget
from watchbill.agent.cache.watched_kinds import WatchRole, watched_kinds
from watchbill.agent.kubernetes.client import CountBytes
from watchbill.agent.metrics.exposition import ScrapeLimits
from watchbill.agent.metrics.idle import IdleSettings
from watchbill.agent.metrics.scrape import Scraper, ScrapeSettings
from watchbill.agent.stream.additions import SampleQueue
from watchbill.kinds.derivation.elements import element_id
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import GroupKind
from watchbill.protocol import Scrape
from watchbill.workload import WorkloadEvent

ALONE = {own: records(filled_with(objects), own) for own, objects in VICTIMS.items()}


def test_the_workloads_are_all_there() -> None:
    assert {len(messages) for messages in ALONE.values()} == {5}
    for own, messages in ALONE.items():
        output = b"".join(messages.values()).decode()
        assert "http://own.example.com" in output, "by the route through its own gateway"
        assert f'"{own}"' in output


def test_every_kind_that_the_agent_reads_of_a_namespace_is_made_there() -> None:
    of_the_cluster = {
        *(WatchRole.KIND, WatchRole.NODE, WatchRole.NAMESPACE, WatchRole.PRIORITY_CLASS),
        *(WatchRole.TOPOLOGY, WatchRole.SHARD, WatchRole.DEVICE_SLICE),
        *(WatchRole.DEVICE_CLASS, WatchRole.DEVICE_TAINT_RULE),
        *(WatchRole.QUEUE, WatchRole.CLUSTER_QUEUE, WatchRole.VOLCANO_QUEUE),
    }
    related = {
        watched.key
        for watched in watched_kinds(DEFINITIONS)
        if watched.role not in of_the_cluster | {WatchRole.OWNER}
    }
    groups = ((version.rpartition("/")[0], kind) for version, kind in KINDS)
    assert related <= {GroupKind(group, kind) for group, kind in groups}


@given(attacks(), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_change_no_record(attack: tuple[str, list[Json]], are_first: bool) -> None:
    own, objects = attack
    filled = filled_with([*objects, *VICTIMS[own]] if are_first else VICTIMS[own])
    if not are_first:
        filled.put(*copy.deepcopy(objects))
    assert records(filled, own) == ALONE[own]
    for obj in objects:
        filled.remove(obj)
    assert records(filled, own) == ALONE[own]
    assert not set(filled.listener.deleted) & set(ALONE[own])


@given(attacks())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_keep_nothing_alive(attack: tuple[str, list[Json]]) -> None:
    own, objects = attack
    filled = filled_with([*VICTIMS[own], *objects])
    for obj in VICTIMS[own]:
        filled.remove(obj)
    assert not records(filled, own)
    assert set(ALONE[own]) <= set(filled.listener.deleted)


# Figures

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NO_LIMITS = 10**9


def _exporters() -> list[Json]:
    """A trusted exporter, and a pod that reserves a device for those that share it."""
    exporter = pod("dcgm", namespace="gpu-operator")
    exporter["metadata"]["labels"] = {"app": "nvidia-dcgm-exporter"}
    exporter["status"]["podIP"] = "192.0.2.2"
    reservation = pod("reservation", namespace="runai-reservation")
    reservation["metadata"] |= {
        "labels": {"runai-gpu-group": "shared"},
        "annotations": {"run.ai/reserve_for_gpu_index": "GPU-2"},
    }
    return [exporter, reservation]


EXPORTERS = _exporters()


def _pretenders(foreign: str) -> list[Json]:
    """A pod that calls itself an exporter, a reservation and a sharer of the device, and one like the victim."""  # noqa: E501
    pretender, namesake = pod("dcgm", namespace=foreign), pod("web-1-a", namespace=foreign)
    pretender["metadata"] |= {
        "labels": {"app": "nvidia-dcgm-exporter", "runai-gpu-group": "shared"},
        "annotations": {"run.ai/reserve_for_gpu_index": "GPU-1"},
    }
    for each in (pretender, namesake):
        each["status"]["podIP"] = "192.0.2.9"
        each["spec"]["containers"][0] |= {"image": "x/vllm:1", **_GPUS}
    return [pretender, namesake]


class Pages:
    """What exporters, kubelets and servers answer: of the namespace what is true, of another one whatever."""

    def __init__(self, own: str, foreign: Sequence[Json]) -> None:
        self.own = own
        self.foreign = [obj["metadata"] for obj in foreign if obj["kind"] == "Pod"]

    async def node(self, name: str, path: str, limits: ScrapeLimits, count: CountBytes) -> bytes:
        lines = [
            f'container_cpu_usage_seconds_total{{namespace="{self.own}",pod="{pod}",container="main"}} 5'
            for pod in ("web-1-a", "gang-a", "alone")
        ]
        lines += [
            f'container_memory_working_set_bytes{{namespace="{meta["namespace"]}",pod="{meta["name"]}",'
            'container="main"} 1e18'
            for meta in self.foreign
        ]
        return "\n".join(lines).encode()

    async def pod(
        self, target: ScrapeTarget, path: str, limits: ScrapeLimits, count: CountBytes
    ) -> bytes:
        if target.namespace == self.own:
            return b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n"
        if target.namespace != "gpu-operator":
            return (
                b"vllm:num_requests_running 1e308\nvllm:num_requests_running 1e308\n"
                b'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",pod="web-1-a",namespace="%b"} 100\n'
                % self.own.encode()
            )
        lines = [
            f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-1",namespace="{self.own}",pod="web-1-a"}} 0',
            'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-2",namespace="runai-reservation",pod="reservation"} 40',
            'DCGM_FI_DEV_FB_USED{UUID="GPU-2",namespace="runai-reservation",pod="reservation"} 9',
        ]
        lines += [
            f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-9",namespace="{meta["namespace"]}",pod="{meta["name"]}"}} 99'
            for meta in self.foreign
        ]
        return "\n".join(lines).encode()


async def scraped(
    filled: Filled, own: str, foreign: Sequence[Json]
) -> tuple[Scraper, list[Scrape]]:
    """Four rounds over all exporters, kubelets and servers."""
    cache, samples = filled.cache, SampleQueue()
    idle = IdleSettings(window=timedelta(seconds=60), threshold_percent=1, gap=timedelta(hours=1))
    times = iter(NOW + timedelta(seconds=30 * step) for step in range(10))
    scraper = Scraper(
        ScrapeSettings(interval_seconds=30, idle=idle, gpu_resources=SETTINGS.gpu_resources),
        fetch=Pages(own, foreign),  # type: ignore[arg-type]
        targets=cache.targets,
        cache=cache,
        samples=samples,
        changed=lambda _: None,
        clock=lambda: next(times),
    )
    for _ in range(4):
        await scraper.round()
    return scraper, list(samples.take(NO_LIMITS))


async def _measured(filled: Filled, own: str, foreign: Sequence[Json]) -> Json:
    scraper, scrapes = await scraped(filled, own, foreign)
    roots = filled.cache.owner_tree.in_namespace(own)
    return {
        "readings": [
            (str(measured.id), reading.type, reading.label, reading.value)
            for scrape in scrapes
            for measured in scrape.workloads
            if str(measured.id) in roots
            for reading in measured.readings
        ],
        "idle": {root: idle for root, idle in scraper.idle.by_workload.items() if root in roots},
    }


def measured_alone(own: str) -> Json:
    return asyncio.run(_measured(filled_with([*EXPORTERS, *VICTIMS[own]]), own, ()))


MEASURED = {own: measured_alone(own) for own in OWN}


def test_the_workloads_are_measured() -> None:
    for reported in MEASURED.values():
        types = {kind for _, kind, _, _ in reported["readings"]}
        assert {"GPU_UTILIZATION", "CPU_USAGE_CORES", "NIM_NUM_REQUESTS_RUNNING"} <= types
        assert reported["idle"]


@given(attacks())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_change_no_figure(attack: tuple[str, list[Json]]) -> None:
    own, objects = attack
    objects = [*objects, *_pretenders(objects[0]["metadata"]["namespace"])]
    filled = filled_with([*EXPORTERS, *VICTIMS[own], *objects])
    assert asyncio.run(_measured(filled, own, objects)) == MEASURED[own]


@given(attacks())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_cause_no_work(attack: tuple[str, list[Json]]) -> None:
    """No workload of the namespace is derived again, whatever comes, changes or goes elsewhere."""
    own, objects = attack
    filled = filled_with(VICTIMS[own])
    filled.listener.changed.clear()
    filled.put(*copy.deepcopy(objects))
    filled.put(*json.loads(json.dumps(objects).replace("a claim", "another")))
    for obj in objects:
        filled.remove(obj)
    assert not set(filled.listener.changed) & set(ALONE[own])


# Nodes and queues


def _nodes_and_queues(filled: Filled, own: str) -> Json:
    """As they are sent: all nodes and pools, and the queues that are not the other namespace's own."""
    cluster = filled.cache.cluster
    reported = scheduler_queues(cluster, SETTINGS)
    return {
        "pools": NodePools(cluster, SETTINGS).capacities(),
        "nodes": dict(NodeReports(cluster, SETTINGS).current()),
        "queues": {each for each in reported.queues if each.namespace in ("", own)},
        "left out": reported.left_out,
    }


def _node() -> Json:
    node = made("Node", "node-1", namespace="")
    offered = {"nvidia.com/gpu": "8", "cpu": "96", "memory": "1Ti"}
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "x"}]
    node["status"] = {"capacity": offered, "allocatable": offered, "conditions": ready}
    return node


NODE = _node()


@given(attacks())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_change_no_node_and_no_queue(attack: tuple[str, list[Json]]) -> None:
    own, objects = attack
    alone = _nodes_and_queues(filled_with([NODE, *VICTIMS[own]]), own)
    assert len(alone["nodes"]) == 1
    assert len(alone["queues"]) > 5
    foreign = [*objects, *_pretenders(objects[0]["metadata"]["namespace"])]
    assert _nodes_and_queues(filled_with([NODE, *VICTIMS[own], *foreign]), own) == alone


# Events


def taken_events(filled: Filled) -> list[WorkloadEvent]:
    assert filled.cache.events is not None
    taken: list[WorkloadEvent] = []
    while events := filled.cache.events.take(lambda root: True):
        taken += events
    return taken


def _events_of(filled: Filled, own: str) -> list[WorkloadEvent]:
    ids = {element_id(root, SETTINGS.cluster_id) for root in ALONE[own]}
    return [event for event in taken_events(filled) if event.workload_id in ids]


def filled_with_events(objects: Sequence[Json]) -> Filled:
    filled = Filled()
    filled.cache.events = EventLog(filled.cache.owner_tree, SETTINGS, lambda: 0.0)
    filled.put(*copy.deepcopy(list(objects)))
    return filled


EVENTS = {own: _events_of(filled_with_events(objects), own) for own, objects in VICTIMS.items()}


def test_the_events_are_reported() -> None:
    assert {len(events) for events in EVENTS.values()} == {1}


@given(attacks(), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_tell_no_event_and_silence_none(
    attack: tuple[str, list[Json]], are_first: bool
) -> None:
    own, objects = attack
    filled = filled_with_events([*objects, *VICTIMS[own]] if are_first else VICTIMS[own])
    if not are_first:
        filled.put(*copy.deepcopy(objects))
    for obj in objects:
        filled.remove(obj)
    assert _events_of(filled, own) == EVENTS[own]


# Work: calls of functions, which no other process and no slow machine changes


def _copies(objects: Sequence[Json], count: int) -> list[Json]:
    """So many of each, with names and UIDs of their own that lead to one another as the first ones do."""
    copies = []
    for number in range(count):
        for obj in copy.deepcopy(list(objects)):
            meta = obj["metadata"]
            meta["name"] = f"{meta['name']}-{number}"
            meta["uid"] = f"{number:08x}{meta['uid'][8:]}"
            copies.append(obj)
    return copies


def _work(own: str, foreign: Sequence[Json]) -> int:
    """What an agent does for the objects: takes them in, derives all that they are part of, lets them go."""
    filled = filled_with(VICTIMS[own])
    filled.listener.changed.clear()
    with Calls() as calls:
        filled.put(*foreign)
        for root in set(filled.listener.changed):
            if filled.cache.is_alive(root):
                derive(filled.cache.gather(root), DEFINITIONS, SETTINGS)
        for obj in foreign:
            filled.remove(obj)
    return calls.count


ROUTING = {
    *("Service", "HTTPRoute", "GRPCRoute", "InferencePool", "Route", "VirtualService", "Ingress"),
    *("Gateway", "ReferenceGrant", "HorizontalPodAutoscaler", "ScaledObject"),
}
"""Each workload is looked for in those of its namespace: pairs, within it alone."""


@given(attacks())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_four_times_the_objects_are_four_times_the_work(attack: tuple[str, list[Json]]) -> None:
    own, objects = attack
    one_by_one = [obj for obj in objects if obj["kind"] not in ROUTING]
    few, many = (_work(own, _copies(one_by_one, count)) for count in (3, 12))
    assert many <= 4.4 * few + 100
    few, many = (_work(own, _copies(objects, count)) for count in (3, 12))
    assert many <= 16 * few


@given(attacks())
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_deriving_costs_does_not_depend_on_other_namespaces(
    attack: tuple[str, list[Json]],
) -> None:
    """Whatever is there besides, the namespace's workloads are gathered and derived in as many calls."""
    own, objects = attack
    alone, beside = (
        _derivation(filled_with([*VICTIMS[own], *more]), own) for more in ([], objects)
    )
    assert beside <= 1.02 * alone + 20


def _derivation(filled: Filled, own: str) -> int:
    """Calls, once everything that is remembered of kinds and expressions is."""
    for _ in range(2):
        with Calls() as calls:
            records(filled, own)
    return calls.count


# Memory: what Python holds, which no other process changes


def _held_bytes(own: str, foreign: Sequence[Json]) -> tuple[int, int]:
    """What the agent holds once it has the objects, and once they are gone."""
    filled = filled_with(VICTIMS[own])
    for root in filled.cache.owner_tree.in_namespace(own):
        derive(filled.cache.gather(root), DEFINITIONS, SETTINGS)
    held = []
    tracemalloc.start()
    try:
        for steps in (lambda: filled.put(*foreign), lambda: list(map(filled.remove, foreign))):
            steps()
            filled.listener.changed.clear()
            filled.listener.deleted.clear()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return held[0], held[1]


@given(attacks())
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_four_times_the_objects_take_four_times_the_memory_and_give_it_back(
    attack: tuple[str, list[Json]],
) -> None:
    own, objects = attack
    few, many = (_held_bytes(own, _copies(objects, count)) for count in (2, 8))
    assert many[0] <= 4.4 * few[0] + 100_000
    assert many[1] <= 0.2 * many[0] + 100_000
