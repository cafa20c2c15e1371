"""`projects` and `departments`: the list, one project, and the formats for programs."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from tests.fixtures.command_line import CLUSTER_ID, FakeServer, cluster
from tests.fixtures.records import START
from watchbill.responses.organisation import (
    DepartmentResponse,
    DepartmentStatus,
    Effective,
    LiveWorkloads,
    MemoryQuota,
    NodePoolName,
    NodePoolQuotaStatus,
    OvertimeData,
    ProjectResponse,
    ProjectStatus,
    Quantities,
    QuotaResponse,
    QuotaStatus,
    TotalResources,
    UnitName,
    UnitResources,
)

RESEARCH = UnitName(id=UUID(int=1), name="research")
QUOTA = UnitResources(
    node_pool=NodePoolName(id="1", name="a100"),
    gpu=QuotaResponse(deserved=8, limit=-1, over_quota_weight=2),
    cpu=QuotaResponse(deserved=64_000),
    memory=MemoryQuota(deserved=1_000_000),
)
ALLOCATED = QuotaStatus(
    allocated=Quantities(gpu=6, cpu=24_000, memory=64_000),
    allocated_non_preemptible=Quantities(),
    requested=Quantities(gpu=9),
)


def answered(name: str = "vision", **members: Any) -> dict[str, Any]:
    """What the API answers for this project: six of its eight GPUs are allocated."""
    plain = {
        "id": "3",
        "name": name,
        "cluster_id": CLUSTER_ID,
        "parent_id": "1",
        "parent": RESEARCH,
        "description": "",
        "enforce_runai_scheduler": False,
        "created_at": START,
        "updated_at": START,
        "total_resources": TotalResources(gpu_quota=8),
        "resources": (QUOTA,),
        "effective": Effective(),
        "status": ProjectStatus(
            phase="Ready",
            quota_status=ALLOCATED,
            node_pool_quota_statuses=(
                NodePoolQuotaStatus(
                    node_pool_name="a100", node_pool_id="1", allocated=Quantities(gpu=6)
                ),
            ),
        ),
        "workloads": LiveWorkloads(total=5, running=3, pending=2, idle_gpus=1.5),
        "overtime_data": OvertimeData(),
        "scheduler": "KAI",
    }
    document: dict[str, Any] = json.loads(msgspec.json.encode(ProjectResponse(**(plain | members))))
    return document


def department(**members: Any) -> dict[str, Any]:
    plain = {
        "id": "1",
        "name": "research",
        "cluster_id": CLUSTER_ID,
        "description": "",
        "created_at": START,
        "updated_at": START,
        "total_resources": TotalResources(),
        "resources": (),
    }
    document: dict[str, Any] = json.loads(
        msgspec.json.encode(DepartmentResponse(**(plain | members)))
    )
    return document


async def test_the_list_by_hand() -> None:
    namespace = answered(
        "lab",
        parent=None,
        total_resources=TotalResources(),
        resources=(),
        workloads=LiveWorkloads(total=0, running=0, pending=0),
    )
    async with FakeServer(projects=[answered(), namespace]).running() as watchbill:
        outcome = await watchbill("projects")
    assert [line.split() for line in outcome.out.splitlines()] == [
        [
            *("NAME", "DEPARTMENT", "QUOTA", "ALLOCATED", "REQUESTED", "RUNNING", "PENDING"),
            "IDLE",
        ],
        ["vision", "research", "8", "6", "9", "3", "2", "1.5"],
        ["lab", "-", "-", "6", "9", "0", "0", "?"],
    ]
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


async def test_only_a_queue_that_says_so_is_without_a_bound() -> None:
    def of(name: str, gpu: QuotaResponse) -> dict[str, Any]:
        quota = UnitResources(gpu=gpu, cpu=QuotaResponse(deserved=64_000), memory=MemoryQuota())
        return answered(name, total_resources=TotalResources(), resources=(quota,))

    listed = [of("open", QuotaResponse(deserved=-1)), of("silent", QuotaResponse())]
    async with FakeServer(projects=listed).running() as watchbill:
        outcome = await watchbill("projects", "--no-headers")
    assert [line.split()[2] for line in outcome.out.splitlines()] == ["unlimited", "-"]


async def test_one_project_with_its_node_pools() -> None:
    async with FakeServer(projects=[answered()]).running() as watchbill:
        outcome = await watchbill("projects", "vision")
        missing = await watchbill("projects", "nothing")
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert "GPUs:       6 allocated (? not preemptible, 1.5 idle), 9 requested, quota 8" in lines
    assert (
        "Node pool a100: 6 GPUs allocated, quota 8, limit unlimited, over-quota weight 2" in lines
    )
    assert missing.code != 0
    assert "There is no project nothing." in missing.err


async def test_a_department_seen_in_part_shows_its_name() -> None:
    whole = department(
        total_resources=TotalResources(gpu_quota=32),
        status=DepartmentStatus(quota_status=ALLOCATED),
        workloads=LiveWorkloads(total=5, running=3, pending=2, idle_gpus=0.0),
    )
    part = department(id="2", name="products")
    async with FakeServer(departments=[whole, part]).running() as watchbill:
        outcome = await watchbill("departments", "--no-headers")
        as_json = json.loads((await watchbill("departments", "-o", "json")).out)
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["research", "-", "32", "6", "9", "3", "2", "0"],
        ["products", "-", "-", "-", "-", "-", "-", "-"],
    ]
    assert as_json["departments"][1]["name"] == "products"


async def test_projects_of_several_clusters_say_which() -> None:
    east = UUID(int=0xE0)
    server = FakeServer(
        projects=[answered(), answered(cluster_id=east)],
        clusters=[cluster(), cluster(id=str(east), uuid=str(east), name="east")],
    )
    async with server.running() as watchbill:
        outcome = await watchbill("projects")
    assert [line.split()[:3] for line in outcome.out.splitlines()] == [
        ["NAME", "CLUSTER", "DEPARTMENT"],
        ["vision", "west", "research"],
        ["vision", "east", "research"],
    ]


async def test_formats_for_programs() -> None:
    async with FakeServer(projects=[answered()]).running() as watchbill:
        as_json = json.loads((await watchbill("projects", "-o", "json")).out)
        as_csv = (await watchbill("projects", "-o", "csv")).out
        wide = (await watchbill("projects", "-o", "wide")).out.splitlines()
    assert as_json["projects"][0]["resources"][0]["gpu"]["limit"] == -1
    (row,) = csv.DictReader(io.StringIO(as_csv))
    assert (row["name"], row["gpuQuota"], row["allocatedGpus"]) == ("vision", "8.0", "6.0")
    assert wide[1].split()[8:11] == ["unlimited", "2", "24"]


async def test_a_silent_cluster_is_reported_beside_its_projects() -> None:
    at = (datetime.now(UTC) - timedelta(days=3, hours=4, minutes=30)).isoformat()
    silent = cluster(state="disconnected", lastContactAt=at)
    async with FakeServer(projects=[answered()], clusters=[silent]).running() as watchbill:
        listed, single = await watchbill("projects"), await watchbill("projects", "vision")
    note = (
        "note: cluster west is disconnected: not observed for 3d 4h, "
        "its figures are shown as last reported\n"
    )
    assert (listed.err, single.err) == (note, note)
