"""The simulated exporters: pages that the real readers understand, true to what the pods hold."""

from collections import Counter

import pytest

from simulator.manifests.shared_objects import EXPORTERS_NAMESPACE, RESERVATIONS, exporter_name
from simulator.model.hardware import Node
from simulator.simulation.exporters import Exporters, utilization, work_done
from simulator.simulation.scenario import Scenario
from tests.fixtures.kubernetes.demo_cluster import calling
from tests.unit.simulator.test_scenario import NOW, begin, objects, run
from watchbill.agent.metrics.devices import DCGM_METRICS, read_devices
from watchbill.agent.metrics.exposition import INFRASTRUCTURE, ExpositionParser, ParsedSample
from watchbill.agent.metrics.figures import INFERENCE_METRICS, read_server

KUBELET_METRICS = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")


def read(page: bytes | None, metrics: tuple[str, ...]) -> list[ParsedSample]:
    assert page is not None
    return list(ExpositionParser(metrics).samples(page, INFRASTRUCTURE))


def exporters(scenario: Scenario, now: float) -> Exporters:
    return Exporters(scenario.world, clock=lambda: now)


def dcgm_page(source: Exporters, node: Node) -> bytes | None:
    return source.pod_page(EXPORTERS_NAMESPACE, exporter_name(node), 9400, "metrics")


def test_every_device_is_reported_once_with_whoever_holds_it() -> None:
    scenario = begin()
    now = run(scenario, 200)
    exporters_ = exporters(scenario, now)
    pods = {
        (workload.namespace, pod.name): (workload, pod)
        for workload in scenario.world.workloads.values()
        for pod in workload.pods
        if pod.holds_resources
    }
    named: Counter[tuple[str, str]] = Counter()
    for node in scenario.world.nodes.values():
        page = dcgm_page(exporters_, node)
        if not node.pool.gpus:
            assert page is None
            continue
        devices = read_devices(read(page, DCGM_METRICS))
        wholes = node.pool.gpus if not node.pool.mig else sum(count for _, count in node.pool.mig)
        assert len(devices) == wholes
        for device in devices.values():
            assert device.utilization is not None
            assert 0 <= device.utilization <= 100
            assert len(device.pods) <= 1
            named.update(device.pods)
    expected: Counter[tuple[str, str]] = Counter()
    for name, (workload, pod) in pods.items():
        shape = workload.shape(pod.role)
        expected[name] = shape.gpus + bool(shape.mig)
    reported = {name: count for name, count in named.items() if name[0] != RESERVATIONS}
    assert reported == {name: count for name, count in expected.items() if count}


def test_shared_devices_carry_their_reservation_whose_pod_names_the_device() -> None:
    scenario = begin()
    now = run(scenario, 200)
    exporters_ = exporters(scenario, now)
    reservations = {
        path.partition("/")[2]: document["metadata"]
        for (_, plural, path), document in objects(scenario.world.store).items()
        if plural == "pods" and path.startswith(RESERVATIONS)
    }
    shared = 0
    for node in scenario.world.nodes.values():
        if not node.groups:
            continue
        for device in read_devices(read(dcgm_page(exporters_, node), DCGM_METRICS)).values():
            for namespace, name in device.pods:
                if namespace == RESERVATIONS:
                    shared += 1
                    head = reservations[name]
                    assert head["annotations"]["run.ai/reserve_for_gpu_index"] == device.name
                    assert head["labels"]["runai-gpu-group"] in node.groups
    assert shared == len(reservations) > 0
    assert shared == sum(len(node.groups) for node in scenario.world.nodes.values())


def test_kubelets_tell_of_every_running_container_and_counters_only_grow() -> None:
    scenario = begin()
    now = run(scenario, 50)
    before: dict[str, float] = {}
    for later in (0, 30, 3000):
        exporters_ = exporters(scenario, now + later)
        seen = set()
        for node in scenario.world.nodes:
            for sample in read(exporters_.node_page(node, "metrics/resource"), KUBELET_METRICS):
                key = sample.labels["namespace"] + "/" + sample.labels["pod"]
                if sample.name == KUBELET_METRICS[0]:
                    seen.add(key)
                    assert sample.value >= before.get(key, 0.0)
                    before[key] = sample.value
                else:
                    assert sample.value > 0
        running = {
            f"{workload.namespace}/{pod.name}"
            for workload in scenario.world.workloads.values()
            for pod in workload.pods
            if pod.holds_resources and pod.started_at
        }
        assert seen == running


def test_inference_servers_tell_what_their_metric_types_need() -> None:
    scenario = begin()
    exporters_ = exporters(scenario, NOW)
    reported: set[str] = set()
    for workload in scenario.world.workloads.values():
        for pod in workload.pods:
            is_server = workload.shape(pod.role).image in ("nim", "serve")
            page = exporters_.pod_page(workload.namespace, pod.name, 8000, "v1/metrics")
            if not is_server or pod.stage != "running":
                assert page is None
                continue
            server = read_server(read(page, INFERENCE_METRICS))
            reported |= set(server.figures) | {bucket.type for bucket in server.buckets}
            counts = [b.count for b in server.buckets if "E2E" in b.type]
            assert counts == sorted(counts)
    assert len(reported) == 8


def test_some_hold_gpus_and_do_nothing_and_most_work() -> None:
    scenario = begin()
    busy, idle = 0, 0
    for workload in scenario.world.workloads.values():
        for pod in workload.pods:
            if pod.stage != "running" or not workload.shape(pod.role).wants_gpu:
                continue
            moments = [utilization(workload, pod, NOW + 60 * minute) for minute in range(10)]
            if any(moments):
                busy += 1
                assert all(moments), "whoever works never falls to exactly 0"
            else:
                idle += 1
    assert busy > idle > 3


def test_work_done_is_the_sum_of_utilization() -> None:
    scenario = begin()
    for workload in list(scenario.world.workloads.values())[:40]:
        for pod in workload.pods:
            if pod.stage != "running" or not utilization(workload, pod, NOW):
                continue
            steps = [utilization(workload, pod, NOW + second) for second in range(600)]
            done = work_done(workload, pod, NOW + 600) - work_done(workload, pod, NOW)
            assert done == pytest.approx(sum(steps), rel=0.05)


async def test_pages_stand_behind_the_api_servers_proxies() -> None:
    scenario = begin(workloads=30)
    node = next(n for n in scenario.world.nodes.values() if n.pool.gpus)
    async with calling() as caller:
        exporter = f"/api/v1/namespaces/{EXPORTERS_NAMESPACE}/pods/{exporter_name(node)}"
        kubelet = f"/api/v1/nodes/{node.name}/proxy/metrics/resource"
        none = await caller.get(f"{exporter}:9400/proxy/metrics")
        caller.cluster.exporters = exporters(scenario, NOW)
        pages = [await caller.get(p) for p in (f"{exporter}:9400/proxy/metrics", kubelet)]
        other_port = await caller.get(f"{exporter}:9401/proxy/metrics")
        caller.cluster.users["theirs"] = "nobody"
        refused = await caller.get(kubelet, token="theirs")
    assert [page.status for page in pages] == [200, 200]
    assert pages[0].headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"DCGM_FI_DEV_GPU_UTIL" in pages[0].body or b"GR_ENGINE_ACTIVE" in pages[0].body
    assert (none.status, other_port.status, refused.status) == (404, 404, 403)
