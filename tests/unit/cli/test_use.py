"""`top NAME` GPU by GPU, what `describe` asks for besides, and the progress of an export."""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

from tests.fixtures.command_line import CLUSTER_ID, FakeServer, Screen, aged, cluster, document
from tests.unit.cli.test_pods import answered
from watchbill.cli.output.humanize import format_bytes
from watchbill.cli.output.terminal import Terminal

NOW = datetime.now(UTC)
GIB = 2**30


def measured(metric: str, value: float, gpu: str = "") -> dict[str, Any]:
    """Half an hour of one value."""
    times = [NOW - timedelta(minutes=minutes) for minutes in range(30, 0, -1)]
    result = {
        "type": metric,
        "values": [{"timestamp": at.isoformat(), "value": str(value)} for at in times],
    }
    return result | ({"labels": {"gpu": gpu}} if gpu else {})


async def test_top_of_one_workload_shows_its_gpus_the_least_used_first() -> None:
    server = FakeServer(
        live=[document(aged(1, gpus=2))],
        measurements=[
            measured("GPU_UTILIZATION", 45.0),
            measured("GPU_UTILIZATION", 90.0, "GPU-a"),
            measured("GPU_UTILIZATION", 0.0, "GPU-b\x1b[2J"),
            measured("GPU_MEMORY_USAGE_BYTES", 70 * GIB, "GPU-a"),
            measured("CPU_USAGE_CORES", 3.5),
            measured("CPU_REQUEST_CORES", 4),
        ],
    )
    async with server.running() as watchbill:
        outcome = await watchbill("top", "llama-sft-1")
        data = await watchbill("top", "llama-sft-1", "-o", "json")
    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (0, "")
    assert lines[0] == (
        "llama-sft-1 (PyTorchJob, Running, project vision): 2 GPUs, ? of them idle, 1 running pod"
    )
    assert [line.split()[:-1] for line in lines[3:5]] == [
        ["GPU", "use", "45%", "-"],
        ["CPU", "cores", "3.5", "4"],
    ]
    assert lines[6].split() == ["GPU", "GPU-USE", "GPU-MEMORY", "NVLINK", "LAST-HOUR"]
    assert lines[7].split()[:4] == ["GPU-b\\x1b[2J", "0%", "?", "?"]
    assert lines[8].split()[:5] == ["GPU-a", "90%", "70", "GiB", "?"]
    assert set(lines[8].split()[5]) == {"·", "▇"}
    metrics = json.loads(data.out)["metrics"]
    assert metrics[:2] == [
        {"type": "GPU_UTILIZATION", "value": 45.0},
        {"type": "GPU_UTILIZATION", "gpu": "GPU-a", "value": 90.0},
    ]


async def test_more_gpus_than_rows_are_a_heat_map() -> None:
    """A hundred, of which three do nothing: each is a character, none is left out."""
    gpus = [measured("GPU_UTILIZATION", 0.0 if n < 3 else 100.0, f"GPU-{n:03}") for n in range(100)]
    server = FakeServer(live=[document(aged(1, gpus=100))], measurements=gpus)
    async with server.running() as watchbill:
        lines = (await watchbill("top", "llama-sft-1")).out.splitlines()
    at = lines.index("All 100 GPUs by their use now, the least used first; 3 at 0%:")
    assert lines[at + 1 :] == ["▁▁▁" + "█" * 61, "█" * 36]


async def test_top_of_one_pod_asks_for_its_own_series() -> None:
    server = FakeServer(
        live=[document(aged(1, gpus=4))],
        pods=[answered(7, name="llama-0")],
        measurements=[
            measured("GPU_UTILIZATION", 45.0),
            measured("GPU_UTILIZATION_PER_GPU", 90.0, "GPU-a"),
            measured("GPU_UTILIZATION_PER_GPU", 0.0, "GPU-b"),
        ],
    )
    async with server.running() as watchbill:
        outcome = await watchbill("top", "llama-sft-1", "--pod", "llama-0")
        absent = await watchbill("top", "llama-sft-1", "--pod", "llama-9")
        unnamed = await watchbill("top", "--pod", "llama-0")
    path = f"/api/v1/workloads/{UUID(int=1)}/pods/{UUID(int=7)}/metrics"
    assert len(server.asked(path)) == 1
    lines = outcome.out.splitlines()
    assert lines[0] == "llama-0 (pod, Running, on node-1): 2 GPUs"
    assert [line.split()[:2] for line in lines[-2:]] == [["GPU-b", "0%"], ["GPU-a", "90%"]]
    assert "llama-sft-1 has no pod llama-9." in absent.err
    assert unnamed.code == 2


async def test_top_of_one_that_nothing_measures() -> None:
    async with FakeServer(live=[document(aged(1))]).running() as watchbill:
        outcome = await watchbill("top", "llama-sft-1")
        absent = await watchbill("top", "nobody")
    assert len(outcome.out.splitlines()) == 1
    assert outcome.err.startswith("No use of it was measured then; `watchbill doctor`")
    assert absent.code == 1


async def test_capacity_tells_what_each_node_pool_offers_and_what_is_held() -> None:
    groups = [
        {"key": "CurrentNodepools", "value": "a100"},
        {"key": "ClusterId", "value": str(CLUSTER_ID)},
    ]
    pool = {"nodePool": "a100", "nodes": 4, "gpus": 32.0, "gpuMemoryBytes": 32 * 80 * GIB}
    server = FakeServer(
        clusters=[cluster(nodePools=[pool])], allocated=[{"value": "20.5", "groups": groups}]
    )
    async with server.running() as watchbill:
        table = await watchbill("capacity", "--no-headers")
        data = await watchbill("capacity", "-o", "json")
        misspelt = await watchbill("capacity", "--cluster", "wset")
    assert table.out.split() == ["west", "a100", "4", "32", "20.5", "11.5", "80", "GiB"]
    (result,) = json.loads(data.out)["nodePools"]
    assert (result["allocatedGpus"], result["freeGpus"]) == (20.5, 11.5)
    assert (misspelt.code, misspelt.out) == (1, "")
    assert "There is no cluster 'wset'." in misspelt.err


async def test_top_by_owner_sums_what_each_holds() -> None:
    live = [
        document(aged(1, gpus=2, idle_allocated_gpus=1)),
        document(aged(2, gpus=4, idle_allocated_gpus=None)),
        document(aged(3, gpus=8, submitted_by="bob@example.com", idle_allocated_gpus=None)),
    ]
    async with FakeServer(live=live).running() as watchbill:
        outcome = await watchbill("top", "--by", "owner")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["OWNER", "WORKLOADS", "ALLOCATED", "IDLE"],
        ["bob@example.com", "1", "8", "?"],
        ["ada@example.com", "2", "6", "1"],
    ]


async def test_describe_shows_endpoints_phases_and_parts() -> None:
    intervals = [
        {"phase": "Pending", "startedAt": (NOW - timedelta(hours=n)).isoformat()}
        for n in range(10, 0, -1)
    ]
    server = FakeServer(
        live=[document(aged(1))],
        endpoints=[
            {"host": "a.example.com", "url": "http://a.example.com/\x1b[2J", "protocol": "HTTP"},
            {"host": "b.example.com"},
        ],
        history=intervals,
        elements=[
            {"id": str(UUID(int=n)), "name": f"part-{n}", "hierarchyLevel": 1} for n in range(30)
        ],
        elements_total=5000,
    )
    async with server.running() as watchbill:
        lines = (await watchbill("describe", "llama-sft-1")).out.splitlines()
        few = (await watchbill("workload", "describe", "llama-sft-1", "--pod-limit", "1")).out
    at = lines.index("Endpoints")
    assert lines[at + 1].split() == ["http://a.example.com/\\x1b[2J", "HTTP"]
    assert lines[at + 2].split() == ["b.example.com", "-"]
    at = lines.index("Phases")
    assert lines[at + 10].startswith("  (2 earlier: `watchbill history ")
    assert lines[-1].startswith("  (20 of 5,000: `watchbill tree ")
    assert few.splitlines()[-1].startswith("  (1 of 5,000: ")


def test_sizes_have_three_digits_that_count() -> None:
    shown = [format_bytes(value) for value in (0, 1023, 1024, 1.25 * 2**40, 1023.9 * GIB, 2**70)]
    assert shown == ["0 B", "1,023 B", "1 KiB", "1.25 TiB", "1 TiB", "1,048,576 PiB"]


def test_progress_is_shown_to_people_while_data_goes_elsewhere() -> None:
    def progress_on(*, out: bool, err: bool) -> str:
        screen = Screen(is_terminal=err)
        with (
            mock.patch.object(sys, "stdout", Screen(is_terminal=out)),
            mock.patch.object(sys, "stderr", screen),
            Terminal().progress("Exporting", 4) as done,
        ):
            done(1)
            done(3)
        return screen.text()

    assert progress_on(out=True, err=True) == progress_on(out=False, err=False) == ""
    assert "4/4" in progress_on(out=False, err=True)
