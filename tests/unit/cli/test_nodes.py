"""`nodes`: the list, one node with its workloads, and the formats for programs."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.command_line import CLUSTER_ID, FakeServer, cluster
from tests.fixtures.records import START, node
from watchbill.cluster_node import (
    DeviceWorkload,
    GpuInfo,
    NodeCondition,
    NodeDevice,
    NodeResources,
    NodeTaint,
)
from watchbill.responses.nodes import NodeResponse, NodeWorkload

HOLDER = NodeWorkload(id=UUID(int=1), name="llama-sft", project_name="vision", pods=2, gpus=6.0)


def answered(name: str = "node-1", **members: Any) -> dict[str, Any]:
    """What the API answers for this node: six of its eight GPUs are allocated, two of them idle."""
    reported = {
        "cluster_uuid": CLUSTER_ID,
        "updated_at": START,
        "allocated": NodeResources(gpus=6.0, cpu_cores=24.0, cpu_memory_bytes=2**38),
        "idle_allocated_gpus": 2.0,
        "workloads": (HOLDER,),
        "workloads_total": 1,
        "is_partial": False,
    } | members
    own = {key: value for key, value in reported.items() if key in node().__struct_fields__}
    made = node(name, **own)
    response = NodeResponse(**(msgspec.structs.asdict(made) | reported))
    document: dict[str, Any] = json.loads(msgspec.json.encode(response))
    return document


DOWN = answered(
    "node-2",
    status="NotReady",
    conditions=(
        NodeCondition(
            type="Ready", status="Unknown", reason="NodeStatusUnknown", message="Kubelet stopped."
        ),
    ),
)


async def test_the_list_by_hand() -> None:
    cordoned = answered("node-3", is_cordoned=True)
    plain = answered("node-4", gpu_info=None, capacity=NodeResources(gpus=0.0))
    async with FakeServer(nodes=[answered(), DOWN, cordoned, plain]).running() as watchbill:
        outcome = await watchbill("nodes")
        on_terminal = await watchbill("nodes", is_terminal=True, environ={"COLUMNS": "80"})
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["NAME", "STATUS", "NODE-POOL", "GPU-TYPE", "GPUS", "ALLOCATED", "IDLE", "FREE"],
        ["node-1", "Ready", "a100", "A100-SXM4-80GB", "8", "6", "2", "2"],
        ["node-2", "NotReady", "a100", "A100-SXM4-80GB", "8", "6", "2", "0"],
        ["node-3", "Ready,Cordoned", "a100", "A100-SXM4-80GB", "8", "6", "2", "0"],
        ["node-4", "Ready", "a100", "-", "-", "-", "-", "-"],
    ]
    assert "…" not in on_terminal.out


async def test_a_node_that_is_not_ready_names_what_it_takes_with_it() -> None:
    async with FakeServer(nodes=[answered(), DOWN]).running() as watchbill:
        outcome = await watchbill("nodes", "node-2")
        missing = await watchbill("nodes", "node-9")
        empty = await watchbill("nodes", "")
    lines = outcome.out.splitlines()
    assert "GPUs:      8 A100-SXM4-80GB: 6 allocated, 2 of them idle, 0 free" in lines
    assert "Ready is Unknown (NodeStatusUnknown): Kubelet stopped." in lines
    start = lines.index("Not Ready, so 1 workload may be lost with it:")
    assert lines[start + 2].split() == ["llama-sft", "vision", "2", "6"]
    assert missing.code != 0
    assert "There is no node node-9." in missing.err
    assert (empty.code, empty.err) == (2, "error: An empty name matches nothing.\n")


async def test_one_node_names_who_holds_each_gpu() -> None:
    llama, qwen = (
        DeviceWorkload(id=UUID(int=number), name=name, project_name="vision")
        for number, name in ((1, "llama"), (2, "qwen"))
    )
    devices = (
        NodeDevice(id="GPU-a", index="0", is_idle=True, workloads=(llama,)),
        NodeDevice(id="GPU-b/7", index="1", profile="1g.10gb", workloads=(llama, qwen)),
        NodeDevice(id="GPU-c", index="2"),
    )
    holds_two = NodeResources(gpus=1.14)
    async with FakeServer(
        nodes=[answered(devices=devices, allocated=holds_two)]
    ).running() as watchbill:
        lines = (await watchbill("nodes", "node-1")).out.splitlines()
    async with FakeServer(nodes=[answered(devices=devices)]).running() as watchbill:
        of_six = (await watchbill("nodes", "node-1")).out.splitlines()
    whole = (devices[0], msgspec.structs.replace(devices[2], index="1"))
    two = NodeResources(gpus=2.0)
    async with FakeServer(
        nodes=[answered(devices=whole, capacity=two, allocated=two)]
    ).running() as watchbill:
        full = (await watchbill("nodes", "node-1")).out.splitlines()
    start = lines.index("")
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["GPU", "ID", "SLICE", "STATE", "WORKLOAD"],
        ["0", "GPU-a", "-", "idle", "llama", "(vision)"],
        ["1", "GPU-b/7", "1g.10gb", "allocated", "llama", "(vision),", "qwen", "(vision)"],
        ["2", "GPU-c", "-", "free", "-"],
    ]
    assert of_six[start + 4].split()[3:5] == ["not", "known"], (
        "its pods hold more than exporters say"
    )
    assert full[full.index("") + 3].split() == ["1", "GPU-c", "-", "allocated", "-"], (
        "none is left, whoever holds it"
    )


async def test_nodes_of_a_pool_and_a_model() -> None:
    async with FakeServer(nodes=[answered()]).running() as watchbill:
        for option in ("--node-pool", "--pool"):
            await watchbill("nodes", option, "a100", "--gpu-type", "A100")
        asked = watchbill.asked("/api/v1/nodes")
    assert [request.query.getall("filterBy") for request in asked] == [
        ['["nodePool==a100"]', '["gpuType=@A100"]']
    ] * 2


async def test_what_a_part_of_a_cluster_does_not_tell() -> None:
    part = answered(is_partial=True, idle_allocated_gpus=None)
    async with FakeServer(nodes=[part]).running() as watchbill:
        row = (await watchbill("nodes", "--no-headers")).out.split()
    assert row[-4:] == ["8", "6", "?", "?"]


async def test_formats_for_programs() -> None:
    tainted = answered(taints=(NodeTaint(key="=cmd", effect="NoSchedule"),))
    async with FakeServer(nodes=[tainted]).running() as watchbill:
        as_json = json.loads((await watchbill("nodes", "-o", "json")).out)
        as_csv = (await watchbill("nodes", "-o", "csv")).out
        wide = (await watchbill("nodes", "-o", "wide")).out.splitlines()
    assert as_json["nodes"][0]["taints"] == [{"key": "=cmd", "effect": "NoSchedule"}]
    (row,) = csv.DictReader(io.StringIO(as_csv))
    assert (row["name"], row["allocatedGpus"], row["freeGpus"]) == ("node-1", "6.0", "2.0")
    assert wide[1].split()[8:10] == ["24/96", "256"]


@pytest.mark.parametrize(
    "arguments",
    [["nodes"], ["nodes", "node-1"], ["capacity"], ["capacity", "--by", "gpu-type"]],
)
async def test_a_silent_cluster_is_reported_beside_its_nodes(arguments: list[str]) -> None:
    at = (datetime.now(UTC) - timedelta(days=3, hours=4, minutes=30)).isoformat()
    silent = cluster(state="disconnected", lastContactAt=at)
    async with FakeServer(nodes=[answered()], clusters=[silent]).running() as watchbill:
        outcome = await watchbill(*arguments)
    assert outcome.err == (
        "note: cluster west is disconnected: not observed for 3d 4h, "
        "its nodes are shown as last reported\n"
    )


async def test_what_pods_hold_of_a_cordoned_node_takes_nothing_from_what_is_free() -> None:
    """The pool offers the GPUs of its other node alone, of which two are free."""
    listed = [answered(), answered("node-2", is_cordoned=True)]
    pool = {"nodePool": "a100", "nodes": 2, "gpus": 8.0}
    async with FakeServer(
        nodes=listed, clusters=[cluster(nodePools=[pool])]
    ).running() as watchbill:
        (row,) = json.loads((await watchbill("capacity", "-o", "json")).out)["nodePools"]
    assert (row["gpus"], row["freeGpus"]) == (8.0, 2.0)


async def test_capacity_by_gpu_type_sums_up_the_nodes() -> None:
    h100 = GpuInfo(gpu_type="NVIDIA-H100-80GB-HBM3", gpu_count=8)
    listed = [
        answered(),
        answered("node-2", is_cordoned=True),
        answered("node-3", gpu_info=h100, gpu_memory_bytes=80 * 2**30),
        answered("node-4", gpu_info=None, capacity=NodeResources(gpus=0.0)),
        answered("node-5", gpu_info=h100, node_pool="b", is_partial=True, idle_allocated_gpus=None),
    ]
    async with FakeServer(nodes=listed).running() as watchbill:
        by_type = await watchbill("capacity", "--by", "gpu-type")
        by_both = await watchbill("capacity", "--by", "nodepool,gpu-type", "--no-headers")
        documents = json.loads((await watchbill("capacity", "--by", "gpu-type", "-o", "json")).out)
        as_csv = (await watchbill("capacity", "--by", "gpu-type", "-o", "csv")).out
    named = [set(row) for row in csv.DictReader(io.StringIO(as_csv))]
    assert named == [set(each) for each in documents["gpuTypes"]]
    assert [line.split()[:7] for line in by_type.out.splitlines()] == [
        ["CLUSTER", "GPU-TYPE", "NODES", "GPUS", "ALLOCATED", "IDLE", "FREE"],
        ["west", "A100-SXM4-80GB", "2", "16", "12", "4", "2"],
        ["west", "H100-80GB-HBM3", "2", "16", "12", "?", "?"],
    ]
    assert sorted(line.split()[1:5] for line in by_both.out.splitlines()) == [
        ["a100", "A100-SXM4-80GB", "2", "16"],
        ["a100", "H100-80GB-HBM3", "1", "8"],
        ["b", "H100-80GB-HBM3", "1", "8"],
    ]
    assert [each["gpuType"] for each in documents["gpuTypes"]] == [
        "NVIDIA-A100-SXM4-80GB",
        "NVIDIA-H100-80GB-HBM3",
    ]
