"""Devices out of exporters' series, and who holds which part of them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fixtures.measured import GPU, MIG, device, pod, uid
from watchbill.agent.cache.targets import Reservation, ScrapeTargets, device_id
from watchbill.agent.metrics.devices import (
    Device,
    DeviceShare,
    device_shares,
    node_devices,
    read_devices,
)
from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.agent.metrics.figures import gpu_figures, node_gpu_figures, pod_gpu_figures
from watchbill.agent.metrics.idle import IdleTimes
from watchbill.kinds.objects.pod import read_pod

UTIL, ACTIVE, USED = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_DEV_FB_USED",
)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def series(name: str, number: int, value: float, pod: str = "", **labels: str) -> ParsedSample:
    own = {"UUID": device(number)} | ({"pod": pod, "namespace": "team"} if pod else {})
    return ParsedSample(name, own | labels, value)


def held(
    samples: list[ParsedSample], *pods: dict[str, Any], **more: Any
) -> dict[str, list[DeviceShare]]:
    known = {
        (pod["metadata"]["namespace"], pod["metadata"]["name"]): (
            pod["metadata"]["uid"],
            read_pod(pod),
        )
        for pod in pods
    }
    options: dict[str, Any] = {"nodes": {}, "gpu_resources": (GPU,), "reservations": ()}
    return device_shares(read_devices(samples), known, **(options | more))


def shares(shares_by_pod: dict[str, list[DeviceShare]]) -> dict[str, list[float]]:
    return {root: [round(part.share, 6) for part in parts] for root, parts in shares_by_pod.items()}


@pytest.mark.parametrize(
    ("values", "percent"),
    [((42,), 42), ((118,), 100), ((9.3e18,), None), ((-1,), None), ((3, 7), 7)],
)
def test_utilisation_is_the_largest_that_can_be(
    values: tuple[float, ...], percent: float | None
) -> None:
    result = read_devices([series(UTIL, 1, value, f"p{value}") for value in values])
    assert [device.utilization for device in result.values()] == (
        [] if percent is None else [percent]
    )


def test_an_instance_tells_its_engines_activity() -> None:
    (result,) = read_devices([series(ACTIVE, 1, 0.25, GPU_I_ID="3")]).values()
    assert result.utilization == 25
    assert result.name == f"{device(1)}/3"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (device(1), device(1)),
        (f"k8s.device-plugin.nvidia.com/gpu={device(1)}", device(1)),
        ("MIG-0f1e", "MIG-0f1e"),
        ("3", ""),
        ("", ""),
    ],
)
def test_ids_lose_what_a_runtime_puts_before_them(name: str, expected: str) -> None:
    assert device_id(name) == expected


def test_whole_devices_go_by_the_pods_name_whichever_label_holds_it() -> None:
    exported = {"exported_pod": "a", "exported_namespace": "team"}
    samples = [
        series(UTIL, 1, 5, "a"),
        ParsedSample(UTIL, {"UUID": device(2), "pod": "dcgm", "namespace": "x"} | exported, 6),
        series(UTIL, 3, 7),
        series(UTIL, 4, 7, "unknown"),
    ]
    result = held(samples, pod(1, "a", limits={GPU: "2"}))
    assert shares(result) == {uid(1): [1.0, 1.0]}


def test_a_dead_pods_name_beside_the_living_one_changes_nothing() -> None:
    samples = [series(UTIL, 1, 5, "a"), series(UTIL, 1, 0, "ghost")]
    result = held(samples, pod(1, "a", limits={GPU: "1"}))
    assert shares(result) == {uid(1): [1.0]}
    assert result[uid(1)][0].is_alone
    assert result[uid(1)][0].device.utilization == 5


@pytest.mark.parametrize("by_uuid", [True, False])
def test_shared_devices_go_by_their_reservation(by_uuid: bool) -> None:
    reservation = Reservation(
        "kai-resource-reservation", "r", frozenset({"g"}), device(1) if by_uuid else ""
    )
    labels = {} if by_uuid else {"pod": "r", "namespace": "kai-resource-reservation"}
    result = held(
        [ParsedSample(UTIL, {"UUID": device(1)} | labels, 9)],
        pod(1, "a", annotations={"gpu-fraction": "0.5"}, labels={"runai-gpu-group": "g"}),
        pod(2, "b", annotations={"gpu-fraction": "0.25"}, labels={"runai-gpu-group/g": "g"}),
        pod(3, "c", annotations={"gpu-fraction": "0.5"}, labels={"runai-gpu-group": "h"}),
        reservations=[reservation],
    )
    assert shares(result) == {uid(1): [0.5], uid(2): [0.25]}
    assert not result[uid(1)][0].is_alone
    assert ("GPU_MEMORY_USAGE_BYTES", "") not in gpu_figures(result[uid(1)])


def test_whoever_labels_a_pod_as_sharing_a_device_changes_no_figure_of_the_others() -> None:
    reservation = Reservation("kai-resource-reservation", "r", frozenset({"g"}), device(1))
    samples = [series(UTIL, 1, 9), series(USED, 1, 10)]
    labels = {"runai-gpu-group": "g"}
    own = pod(1, "a", annotations={"gpu-fraction": "0.5"}, labels=labels)
    claiming = pod(2, "b", namespace="other", labels=labels, limits={GPU: "8"})
    alone = held(samples, own, reservations=[reservation])
    both = held(samples, own, claiming, reservations=[reservation])
    assert both[uid(1)] == alone[uid(1)]
    assert gpu_figures(both[uid(1)]) == gpu_figures(alone[uid(1)])


def test_instances_weigh_what_their_profile_says() -> None:
    samples = [
        series(ACTIVE, 1, 0.1, "a", GPU_I_ID=str(number), GPU_I_PROFILE="3g.40gb")
        for number in (1, 2)
    ]
    result = held(samples, pod(1, "a", limits={MIG: "2"}))
    assert shares(result) == {uid(1): [0.428571, 0.428571]}


def test_a_slice_of_an_unknown_size_is_a_slice_and_held_alone() -> None:
    samples = [series(UTIL, 1, 80, "a"), series(ACTIVE, 1, 0.5, "a")]
    for profile in ("1g.24gb", "3g.40gb"):
        (part,) = held(samples, pod(1, "a", limits={f"nvidia.com/mig-{profile}": "1"}))[uid(1)]
        assert (part.device.is_cut, part.device.utilization, part.is_alone) == (True, 50, True)


def test_the_nodes_product_sizes_an_instance_held_by_a_claim() -> None:
    samples = [series(ACTIVE, 1, 0.1, "a", GPU_I_ID="1", GPU_I_PROFILE="1g.24gb")]
    made = pod(1, "a")
    labels = {"nvidia.com/gpu.product": "NVIDIA-GH200-480GB"}
    (known,) = held(samples, made, nodes={made["spec"]["nodeName"]: labels})[uid(1)]
    (unknown,) = held(samples, made)[uid(1)]
    assert (round(known.share or 0, 6), unknown.share) == (0.142857, None)


def test_a_binders_word_counts_above_the_request() -> None:
    notes = {"gpu-memory": "20480", "runai-allocated-gpus": "0.26"}
    reservation = Reservation("kai-resource-reservation", "r", frozenset({"g"}), device(1))
    made = pod(1, "a", annotations=notes, labels={"runai-gpu-group": "g"})
    assert shares(held([series(UTIL, 1, 1)], made, reservations=[reservation])) == {uid(1): [0.26]}


def test_the_mean_is_over_devices_and_sums_need_all_of_them() -> None:
    samples = [series(UTIL, 1, 80, "a"), series(UTIL, 2, 40, "a"), series(USED, 1, 10, "a")]
    figures = gpu_figures(held(samples, pod(1, "a", limits={GPU: "2"}))[uid(1)])
    assert figures["GPU_UTILIZATION", ""] == 60
    assert figures["GPU_UTILIZATION", device(2)] == 40
    assert ("GPU_MEMORY_USAGE_BYTES", "") not in figures


@pytest.mark.parametrize(("devices", "reported"), [(1, 0), (17, 17), (512, 512), (513, 0)])
def test_each_device_of_a_large_workload_is_reported(devices: int, reported: int) -> None:
    samples = [series(UTIL, number, 50, "a") for number in range(devices)]
    figures = gpu_figures(held(samples, pod(1, "a", limits={GPU: str(devices)}))[uid(1)])
    assert figures["GPU_UTILIZATION", ""] == 50
    assert (
        len([label for kind, label in figures if kind == "GPU_UTILIZATION" and label]) == reported
    )


def test_exporters_are_believed_by_namespace() -> None:
    targets = ScrapeTargets(frozenset({"gpu-operator"}))
    labels = {"app": "nvidia-dcgm-exporter"}
    targets.put(pod(1, "own", namespace="gpu-operator", labels=labels, port=9400))
    targets.put(pod(2, "foreign", namespace="team", labels=labels, port=9400))
    targets.put(pod(3, "server", image="nim/llm:1.8", port=8000))
    targets.put(pod(4, "vllm", image="vllm/vllm-openai:v1"))
    targets.put(pod(5, "other", image="minimal/app:1"))
    assert [target.pod for target in targets.exporters.values()] == ["own"]
    assert [target.pod for target in targets.untrusted_exporters.values()] == ["foreign"]
    assert sorted((t.pod, t.port) for t in targets.inference.values()) == [
        ("server", 8000),
        ("vllm", 8000),
    ]
    targets.remove(uid(1))
    assert not targets.exporters


def test_an_instance_goes_by_its_engine_whatever_its_utilization_says() -> None:
    busy = {"GPU_I_ID": "1", "GPU_I_PROFILE": "3g.20gb"}
    samples = [series(UTIL, 1, 0, "a", **busy), series(ACTIVE, 1, 0.93, "a", **busy)]
    # The series of the GPU around it name its pod as well.
    samples += [series(UTIL, 1, 0, "a")]
    result = held(samples, pod(1, "a", limits={"nvidia.com/mig-3g.20gb": "1"}))
    assert shares(result) == {uid(1): [round(3 / 7, 6)]}
    assert [part.device.utilization for part in result[uid(1)]] == [pytest.approx(93)]


@pytest.mark.parametrize("blank", [2.0**47, 2.0**47 + 2, 2147483632.0, 2147483633.0, 9.3e18])
def test_a_blank_figure_is_not_known(blank: float) -> None:
    instance = {"GPU_I_ID": "1", "GPU_I_PROFILE": "3g.20gb"}
    samples = [series(UTIL, 1, 0, "a", **instance), series(ACTIVE, 1, blank, "a", **instance)]
    (result,) = read_devices(samples).values()
    assert result.utilization is None


def test_an_a30_slice_is_half_of_it() -> None:
    labels = {"GPU_I_ID": "1", "GPU_I_PROFILE": "2g.12gb"}
    result = held(
        [series(ACTIVE, 1, 0, "a", **labels)], pod(1, "a", limits={"nvidia.com/mig-2g.12gb": "1"})
    )
    assert shares(result) == {uid(1): [0.5]}


def test_pods_by_turns_on_one_gpu_hold_their_parts_and_no_busy_one_is_idle() -> None:
    node = {"n1": {f"{GPU}.replicas": "4", f"{GPU}.sharing-strategy": "time-slicing"}}
    samples = [series(UTIL, 1, 99, "a"), series(UTIL, 1, 99, "b"), series(ACTIVE, 1, 0, "a")]
    pods = [pod(number, name, limits={GPU: "1"}) for number, name in ((1, "a"), (2, "b"))]
    result = held(samples, *pods, nodes=node)
    assert shares(result) == {uid(1): [0.25], uid(2): [0.25]}
    assert not result[uid(1)][0].is_alone
    assert result[uid(1)][0].device.utilization == 99


def test_a_slice_by_the_single_strategy_is_not_judged_by_its_card() -> None:
    node = {"n1": {f"{GPU}.product": "NVIDIA-H100-NVL-MIG-1g.12gb"}}
    result = held([series(UTIL, 1, 0, "a")], pod(1, "a", limits={GPU: "1"}), nodes=node)
    assert result[uid(1)][0].device.utilization is None


def test_a_node_is_all_of_its_physical_gpus_whoever_holds_them() -> None:
    """A GPU that is cut counts as one device, and those whose node is not known not at all."""
    gibibyte = 1024**3
    samples = [
        ParsedSample("DCGM_FI_DEV_GPU_UTIL", {"UUID": device(1)}, 40.0),
        ParsedSample("DCGM_FI_DEV_FB_USED", {"UUID": device(1)}, 1024.0),
        ParsedSample("DCGM_FI_DEV_GPU_UTIL", {"UUID": device(2)}, 0.0),
        ParsedSample("DCGM_FI_DEV_FB_USED", {"UUID": device(2)}, 2048.0),
        ParsedSample("DCGM_FI_DEV_FB_USED", {"UUID": device(2), "GPU_I_ID": "3"}, 512.0),
        ParsedSample("DCGM_FI_DEV_GPU_UTIL", {"UUID": device(3)}, 90.0),
    ]
    devices = read_devices(samples)
    figures = node_gpu_figures(devices[key] for key in devices if key[0] != device(3))
    assert figures == {
        ("GPU_UTILIZATION", ""): 40.0,
        ("GPU_MEMORY_USAGE_BYTES", ""): 3 * gibibyte,
        ("GPU_MEMORY_USAGE_BYTES", device(1)): gibibyte,
        ("GPU_MEMORY_USAGE_BYTES", device(2)): 2 * gibibyte,
    }


def test_profiling_is_reported_in_percent_and_of_devices_that_a_pod_has_alone() -> None:
    """DCGM tells activity as a share from 0 to 1 and traffic in bytes a second."""
    samples = [
        series("DCGM_FI_PROF_SM_ACTIVE", 1, 0.25, "a"),
        series("DCGM_FI_PROF_PCIE_TX_BYTES", 1, 3e9, "a"),
        series("DCGM_FI_PROF_PCIE_RX_BYTES", 1, 2.0**47, "a"),
        series("DCGM_FI_PROF_SM_ACTIVE", 2, 0.5, "a"),
        series("DCGM_FI_PROF_SM_ACTIVE", 2, 0.5, "b"),
    ]
    pods = [pod(1, "a", limits={GPU: "2"}), pod(2, "b", limits={GPU: "1"})]
    figures = pod_gpu_figures(held(samples, *pods)[uid(1)])
    assert figures == {
        ("GPU_SM_ACTIVITY_PER_GPU", device(1)): 25.0,
        ("GPU_PCIE_TRANSMITTED_BANDWIDTH_PER_GPU", device(1)): 3e9,
    }


def test_a_node_names_who_holds_each_device() -> None:
    """A partitioned GPU is reported as its MIG instances; what nobody holds has no workloads."""
    cut = {"GPU_I_ID": "7", "GPU_I_PROFILE": "1g.10gb"}
    samples = [
        series(UTIL, 1, 0, "a", gpu="1"),
        series(UTIL, 2, 50, "a", gpu="0"),
        series(UTIL, 2, 50, "b", gpu="0"),
        ParsedSample(UTIL, {"UUID": device(3), "gpu": "2"}, 0.0),
        series(ACTIVE, 4, 0.5, "b", gpu="3", **cut),
        ParsedSample(UTIL, {"UUID": device(4), "gpu": "3"}, 0.0),
    ]
    pods = [pod(1, "a", limits={GPU: "2"}), pod(2, "b", limits={GPU: "1"})]
    devices, shares = read_devices(samples), held(samples, *pods)
    presented = node_devices({"n1": devices.values()}, shares, {(device(1), ""): True})["n1"]
    holders = {uid(1): "a", uid(2): "b"}
    assert [
        (each.id, each.index, each.profile, [holders[str(holder.id)] for holder in each.workloads])
        for each in presented
    ] == [
        (device(2), "0", None, ["a", "b"]),
        (device(1), "1", None, ["a"]),
        (device(3), "2", None, []),
        (f"{device(4)}/7", "3", "1g.10gb", ["b"]),
    ]
    assert [each.is_idle for each in presented] == [None, True, None, None]


def test_how_long_a_device_did_nothing_is_counted_while_it_is_seen() -> None:
    times = IdleTimes()
    at = [datetime(2026, 11, 23, 12, minute, tzinfo=UTC) for minute in range(5)]
    seconds = []
    for moment, percent in zip(at, (0, 0, None, 0, 7), strict=True):
        seen = Device((device(1), ""), figures={} if percent is None else {UTIL: percent})
        seconds.append(times.observe([seen], moment).get(seen.key))
    assert seconds == [0, 60, None, 0, 0]
