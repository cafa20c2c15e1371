"""Projects and departments: quotas as queues state them, sums as their workloads hold them, by who asks."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, record, upsert, workload
from tests.fixtures.serving import kai_queue
from watchbill.metrics.cluster import cluster_outcomes
from watchbill.metrics.source import Measurement, MetricsQuery
from watchbill.protocol import HostResources, Upsert
from watchbill.query import Scope, UnitQuery, parse_unit_filters
from watchbill.responses.organisation import (
    DepartmentResponse,
    ProjectResponse,
    Quantities,
    TotalResources,
)
from watchbill.scheduler_queue import UNLIMITED, OrganisationUnit, SchedulerQueue
from watchbill.store.fleet.fleet import fleet_record, last_instant
from watchbill.store.organisation import queue_write
from watchbill.store.organisation.series import unit_series
from watchbill.store.organisation.telemetry import UnitTelemetryQuery, unit_telemetry
from watchbill.store.organisation.units import department_list, project_list, unit_count
from watchbill.store.postgres.database import Database, Session
from watchbill.workload import AllocatedResources, Phase

ALL = Scope(1, is_whole_tenant=True)
NOW = START + timedelta(hours=2)
QUEUES = (
    kai_queue("department", "research", gpus=32),
    kai_queue("project", "vision", "research"),
    kai_queue("project", "speech", "research", gpus=4),
)


@pytest.fixture
async def agent(db: Database) -> Agent:
    agent = await connected_agent(db, START)
    await agent.beat(START, queues=QUEUES)
    return agent


def holding(number: int, project: str = "vision", **members: Any) -> Upsert:
    """A workload that asks for 4 cores and 16 GB and holds 2 cores and 8 GB."""
    made = workload(number, project_name=project, **members)
    host = HostResources(
        requested_cpu_millicores=4_000,
        requested_memory_bytes=16_000_000_000,
        allocated_cpu_millicores=2_000,
        allocated_memory_bytes=8_000_000_000,
    )
    return upsert(record(made, host_resources=host))


async def projects(db: Database, scope: Scope = ALL, **members: Any) -> dict[str, ProjectResponse]:
    page = await project_list(db, scope, UnitQuery(**members), NOW)
    return {project.name: project for project in page.projects}


async def departments(
    db: Database, scope: Scope = ALL, **members: Any
) -> dict[str, DepartmentResponse]:
    page = await department_list(db, scope, UnitQuery(**members), NOW, with_status=True)
    return {department.name: department for department in page.departments}


async def names(db: Database, unit: OrganisationUnit, *filters: str, **members: Any) -> list[str]:
    query = UnitQuery(predicates=parse_unit_filters(unit, filters), **members)
    if unit == "project":
        rows: list[Any] = (await project_list(db, ALL, query, NOW)).projects
    else:
        rows = (await department_list(db, ALL, query, NOW, with_status=False)).departments
    assert await unit_count(db, ALL, unit, query, NOW) == len(rows)
    return [each.name for each in rows]


async def test_quotas_are_the_queues(db: Database, agent: Agent) -> None:
    vision = (await projects(db))["vision"]
    (resources,) = vision.resources
    assert resources.node_pool is not None
    assert (resources.node_pool.name, resources.priority) == ("a100", "100")
    assert (resources.gpu.deserved, resources.gpu.limit) == (8, UNLIMITED)
    assert resources.gpu.over_quota_weight == 2
    assert vision.total_resources == TotalResources(
        gpu_quota=8, cpu_quota=64_000, memory_quota=1_000_000
    )
    assert (vision.status.phase, vision.scheduler) == ("Ready", "KAI")
    assert vision.parent is not None
    research = (await departments(db))["research"]
    assert (vision.parent.id.int, vision.parent.name) == (int(research.id), "research")
    assert vision.parent_id == research.id
    assert [child.name for child in research.children] == ["speech", "vision"]
    department = (await departments(db, number=int(research.id)))["research"]
    (sums,) = department.projects_aggregated_resources
    assert sums.gpu.deserved == 8 + 4


async def test_what_is_held_is_the_sum_of_the_live_workloads(db: Database, agent: Agent) -> None:
    await agent.send(
        holding(1, gpus=2, preemptible=False),
        holding(2, gpus=1, preemptible=True),
        holding(3, gpus=4, phase=Phase.PENDING, preemptible=True, allocated_resources=NOTHING),
        holding(4, "speech", gpus=3, preemptible=False),
        holding(5, gpus=8, phase=Phase.COMPLETED, preemptible=True, allocated_resources=NOTHING),
        now=NOW,
    )
    vision = (await projects(db))["vision"]
    status = vision.status.quota_status
    assert status.allocated == Quantities(gpu=3, cpu=8_000, memory=32_000)
    assert status.allocated_non_preemptible == Quantities(gpu=2, cpu=2_000, memory=8_000)
    assert status.requested == Quantities(gpu=7, cpu=12_000, memory=48_000)
    assert (vision.workloads.total, vision.workloads.running, vision.workloads.pending) == (4, 2, 1)
    assert (vision.workloads.pending_gpus, vision.workloads.idle_gpus) == (4, None)
    (pool,) = vision.status.node_pool_quota_statuses
    assert (pool.node_pool_name, pool.allocated.gpu) == ("a100", 3)
    research = (await departments(db))["research"]
    assert research.status is not None
    assert research.status.quota_status.allocated == Quantities(gpu=6, cpu=10_000, memory=40_000)


NOTHING = AllocatedResources(gpu=0.0, extended_resources=())


async def test_what_one_workload_does_not_tell_is_not_known_of_all(
    db: Database, agent: Agent
) -> None:
    unsure = holding(1, preemptible=None)
    await agent.send(unsure, holding(2, preemptible=False), now=NOW)
    status = (await projects(db))["vision"].status.quota_status
    assert status.allocated == Quantities(gpu=4, cpu=4_000, memory=16_000)
    assert status.allocated_non_preemptible == Quantities()
    old = upsert(record(workload(1), host_resources=None))
    await agent.send(replace(old, observed_at=NOW), now=NOW)
    status = (await projects(db))["vision"].status.quota_status
    assert status.allocated == Quantities(gpu=4)
    assert status.requested == Quantities(gpu=4)


async def test_gpus_of_two_node_pools_are_distinguished(db: Database, agent: Agent) -> None:
    await agent.send(
        holding(1, gpus=3, current_node_pools=("a100", "h100")), holding(2, gpus=1), now=NOW
    )
    a100, h100 = (await projects(db))["vision"].status.node_pool_quota_statuses
    assert (a100.allocated.gpu, h100.allocated.gpu) == (2.5, 1.5)
    assert (a100.allocated.cpu, h100.allocated.cpu) == (None, None)


async def test_namespaces_are_projects_without_a_quota(db: Database, agent: Agent) -> None:
    await agent.send(upsert(record(workload(1, project_name="lab", department_name=""))), now=NOW)
    lab = (await projects(db))["lab"]
    assert (lab.resources, lab.total_resources, lab.scheduler) == ((), TotalResources(), None)
    assert (lab.parent, lab.parent_id, lab.status.phase) == (None, "", "Unknown")


async def test_a_queue_that_is_gone_takes_its_empty_project_along(
    db: Database, agent: Agent
) -> None:
    await agent.send(holding(1, "speech"), now=NOW)
    before = await projects(db)
    await agent.beat(NOW, queues=QUEUES[:1])
    after = await projects(db)
    assert (set(before), set(after)) == ({"vision", "speech"}, {"speech"})
    assert after["speech"].resources == ()
    assert after["speech"].id == before["speech"].id
    await agent.beat(NOW, queues=None)
    assert await names(db, "department") == ["research"]
    await agent.beat(NOW, queues=QUEUES)
    assert (await projects(db))["vision"].id == before["vision"].id


async def test_filters_sorting_and_search(db: Database, agent: Agent) -> None:
    await agent.send(holding(1, "speech", gpus=3), holding(2, "lab", gpus=1), now=NOW)
    assert await names(db, "project") == ["lab", "speech", "vision"]
    assert await names(db, "project", sort_by="totalGpuQuota") == ["speech", "vision", "lab"]
    assert await names(db, "project", sort_by="gpuAllocated", is_descending=True) == [
        "speech",
        "lab",
        "vision",
    ]
    assert await names(db, "project", "gpuAllocated>=1") == ["lab", "speech"]
    assert await names(db, "project", "totalGpuQuota>=4", "name!=vision") == ["speech"]
    assert await names(db, "project", "phase==Ready") == ["speech", "vision"]
    assert await names(db, "project", "avgGpuUtilization24h>=0") == []
    assert await names(db, "project", search="RESEARCH") == ["lab", "speech", "vision"]
    assert await names(db, "project", search="spee") == ["speech"]
    above = (await departments(db))["research"].id
    assert await names(db, "project", f"parentId=={above}", "parentName==research", limit=500) == [
        "lab",
        "speech",
        "vision",
    ]
    as_uuid = f"departmentId==00000000-0000-0000-0000-{int(above):012x}"
    assert await names(db, "project", as_uuid, "name=^v") == ["vision"]
    assert await names(db, "department", "totalGpuQuota<=32") == ["research"]
    assert await names(db, "department", "name=@x") == []


async def test_pages_follow_each_other(db: Database, agent: Agent) -> None:
    first = await project_list(db, ALL, UnitQuery(limit=1), NOW)
    second = await project_list(db, ALL, UnitQuery(limit=1, offset=first.next_offset or 0), NOW)
    assert [first.projects[0].name, second.projects[0].name] == ["speech", "vision"]
    assert (first.next_offset, second.next_offset) == (1, None)


async def test_averages_are_means_of_the_recorded_instants(db: Database, agent: Agent) -> None:
    at = last_instant(NOW)
    for minute in range(0, 121, 4):
        await agent.beat(START + timedelta(minutes=minute))
    await agent.send(holding(1, gpus=4), now=NOW)
    await fleet_record(db, 1, at)
    await agent.send(replace(holding(1, gpus=2), observed_at=NOW), now=NOW)
    await fleet_record(db, 1, at - timedelta(seconds=1_500))
    vision = (await projects(db))["vision"]
    assert vision.overtime_data.range24h_data is not None
    assert vision.overtime_data.range24h_data.average_gpu_allocation == 3
    assert await names(db, "project", "avgGpuAllocation24h==3") == ["vision"]
    assert await names(db, "project", sort_by="avgGpuAllocation7d", is_descending=True) == [
        "vision",
        "speech",
    ]


async def test_averages_leave_out_the_times_when_the_cluster_was_disconnected(
    db: Database, agent: Agent
) -> None:
    """What was reported last stands in the series; it says nothing of what was held meanwhile."""
    await agent.send(holding(1, gpus=4), now=START)
    silent_at = last_instant(NOW) - timedelta(seconds=1_500)
    for at in (silent_at, silent_at + timedelta(seconds=1_500)):
        await fleet_record(db, 1, at)
    vision = (await projects(db))["vision"]
    assert (vision.cluster_state, vision.data_as_of) == ("disconnected", START)
    assert vision.overtime_data.range24h_data is None
    await agent.send(replace(holding(1, gpus=2), observed_at=NOW), now=NOW)
    await fleet_record(db, 1, last_instant(NOW) - timedelta(seconds=3_000))
    vision = (await projects(db))["vision"]
    assert (vision.cluster_state, vision.data_as_of) == ("connected", NOW)
    research = (await departments(db))["research"]
    assert (research.cluster_state, research.data_as_of) == ("connected", NOW)
    assert await names(db, "project", "avgGpuAllocation24h>=0") == [], (
        "all of them lie in the silence"
    )


async def test_who_sees_one_project_sees_the_name_of_its_department(
    db: Database, agent: Agent
) -> None:
    await agent.send(holding(1), holding(2, "speech"), now=NOW)
    everything = await projects(db)
    department = int(everything["vision"].parent_id)
    one_project = Scope(1, project_ids=frozenset({int(everything["vision"].id)}))
    assert set(await projects(db, one_project)) == {"vision"}
    (seen,) = (await departments(db, one_project)).values()
    assert (seen.name, [child.name for child in seen.children]) == ("research", ["vision"])
    assert (seen.status, seen.workloads, seen.overtime_data) == (None, None, None)
    assert (seen.total_resources, seen.resources) == (TotalResources(), ())
    by_sum = UnitQuery(predicates=parse_unit_filters("department", ["totalGpuQuota>=1"]))
    assert await unit_count(db, one_project, "department", by_sum, NOW) == 0
    whole = Scope(1, department_ids=frozenset({department}))
    assert set(await projects(db, whole)) == {"vision", "speech"}
    assert (await departments(db, whole)) == await departments(db)
    for nobody in (
        Scope(1),
        Scope(1, project_ids=frozenset({999})),
        Scope(2, is_whole_tenant=True),
    ):
        assert await projects(db, nobody) == {}
        assert await departments(db, nobody) == {}


async def test_a_department_sums_those_below_it(db: Database, agent: Agent) -> None:
    tree = (
        kai_queue("department", "company"),
        kai_queue("department", "research", "company"),
        kai_queue("project", "vision", "research"),
    )
    await agent.beat(NOW, queues=tree)
    await agent.send(holding(1, gpus=3), now=NOW)
    rows = await departments(db)
    for name in ("company", "research"):
        status = rows[name].status
        assert status is not None
        assert status.quota_status.allocated.gpu == 3
    assert rows["research"].parent is not None
    assert rows["research"].parent.name == "company"


async def test_departments_in_a_ring_end(db: Database, agent: Agent) -> None:
    ring = (kai_queue("department", "a", "b"), kai_queue("department", "b", "a"))
    await agent.beat(NOW, queues=ring)
    assert await names(db, "department") == ["a", "b"]


async def test_hostile_names_and_too_many_queues(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_write, "MAX_PROJECTS", 5)
    hostile = ("\0", "'; DROP TABLE project; --", "š" * 507, "z")
    queues: tuple[SchedulerQueue, ...] = tuple(kai_queue("project", name) for name in hostile)
    await agent.beat(NOW, queues=queues)
    assert await names(db, "project") == ["'; DROP TABLE project; --", "z", "š" * 507]
    monkeypatch.setattr(queue_write, "MAX_PROJECTS", 6)
    await agent.beat(NOW, queues=queues[:1])
    assert await names(db, "project") == ["\ufffd"]


async def test_numbers_of_many_queues_take_no_statement_each(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other clusters wait for the tenant's next number meanwhile."""
    statements: list[str] = []
    execute, fetchval = Session.execute, Session.fetchval

    async def counted_execute(self: Session, query: str, *args: Any, **options: Any) -> str:
        statements.append(query)
        return await execute(self, query, *args, **options)

    async def counted_fetchval(self: Session, query: str, *args: Any, **options: Any) -> Any:
        statements.append(query)
        return await fetchval(self, query, *args, **options)

    monkeypatch.setattr(Session, "execute", counted_execute)
    monkeypatch.setattr(Session, "fetchval", counted_fetchval)
    await agent.beat(NOW)
    counts = []
    for name in ("one", "other"):  # new names, then other names of the same keys
        for many in (5, 50):
            statements.clear()
            made = (kai_queue("project", f"{many}-{each}") for each in range(many))
            queues = tuple(replace(queue, name=f"{name} {queue.key}") for queue in made)
            await agent.beat(NOW, queues=queues)
            counts.append(len(statements))
    assert (counts[0], counts[2]) == (counts[1], counts[3])
    page = await project_list(db, ALL, UnitQuery(limit=100), NOW)
    assert len({project.id for project in page.projects}) == 50
    assert {project.name for project in page.projects} == {f"other 50-{n}" for n in range(50)}


async def figures(
    db: Database, kind: str, *groups: str, scope: Scope = ALL, **members: Any
) -> dict[tuple[str | None, ...], str]:
    """By the names of the groups."""
    unit = members.pop("unit", "project")
    query = UnitTelemetryQuery(unit=unit, telemetry_type=kind, groups=groups, **members)
    values = await unit_telemetry(db, scope, query, NOW)
    return {tuple(group.name for group in value.groups): value.value for value in values}


async def test_telemetry_sums_projects(db: Database, agent: Agent) -> None:
    await agent.send(
        holding(1, gpus=2, preemptible=False),
        holding(2, "speech", gpus=1, preemptible=True),
        holding(3, "lab", gpus=0.5, department_name="", preemptible=True),
        now=NOW,
    )
    assert await figures(db, "GPU_QUOTA") == {(): "12"}
    assert await figures(db, "MEMORY_QUOTA", "ParentId") == {("research",): "2000000", (None,): "0"}
    assert await figures(db, "GPU_QUOTA", "NodepoolId") == {("a100",): "12"}
    assert await figures(db, "GPU_ALLOCATION", "ParentId") == {("research",): "3", (None,): "0.5"}
    assert await figures(db, "GPU_ALLOCATION", "ClusterId", "NodepoolId") == {
        ("cluster-1", "a100"): "3.5"
    }
    assert await figures(db, "CPU_ALLOCATION") == {(): "6000"}
    assert await figures(db, "MEMORY_ALLOCATION") == {(): "24000"}
    assert await figures(db, "GPU_ALLOCATION_NON_PREEMPTIBLE") == {(): "2"}
    assert await figures(db, "GPU_ALLOCATION_NON_PREEMPTIBLE", "NodepoolId") == {("a100",): "2"}
    assert await figures(db, "GPU_ALLOCATION", node_pool="h100") == {(): "0"}
    department = (await projects(db))["vision"].parent_id
    assert await figures(db, "GPU_ALLOCATION", department_id=department) == {(): "3"}
    assert await figures(db, "GPU_ALLOCATION", department_id="x") == {(): "0"}
    assert await figures(db, "GPU_ALLOCATION", scope=Scope(1)) == {(): "0"}


async def test_telemetry_counts_no_department_twice(db: Database, agent: Agent) -> None:
    tree = (
        kai_queue("department", "company", gpus=64),
        kai_queue("department", "research", "company", gpus=32),
        kai_queue("project", "vision", "research"),
    )
    await agent.beat(NOW, queues=tree)
    await agent.send(holding(1, gpus=3), now=NOW)
    assert await figures(db, "GPU_QUOTA", unit="department") == {(): "64"}
    assert await figures(db, "GPU_ALLOCATION", "CLUSTER_ID", unit="department") == {
        ("cluster-1",): "3"
    }
    below = int((await departments(db))["research"].id)
    part = Scope(1, department_ids=frozenset({below}))
    assert await figures(db, "GPU_QUOTA", unit="department", scope=part) == {(): "32"}


async def test_what_is_not_known_of_a_part_is_not_summed(db: Database, agent: Agent) -> None:
    await agent.send(holding(1, gpus=2, preemptible=None), holding(2, "speech"), now=NOW)
    assert await figures(db, "GPU_ALLOCATION_NON_PREEMPTIBLE") == {}
    assert await figures(db, "GPU_ALLOCATION") == {(): "4"}


async def test_a_clusters_projects_and_departments_have_the_quota_of_each_instant(
    db: Database, agent: Agent
) -> None:
    first, second = last_instant(NOW) - timedelta(seconds=300), last_instant(NOW)
    await agent.send(holding(1, gpus=2), now=START)
    await fleet_record(db, 1, first)
    await agent.beat(
        START, queues=(*QUEUES[:1], kai_queue("project", "vision", "research", gpus=6))
    )
    await fleet_record(db, 1, second)
    query = MetricsQuery(types=("GPU_QUOTA",), start=first, end=second, number_of_samples=2)
    vision = (await projects(db))["vision"]
    for group_by, number, expected in (
        ("Project", vision.id, ["8", "6"]),
        ("Department", vision.parent_id, ["32", "32"]),
    ):
        (outcome,) = await cluster_outcomes(
            db, 1, agent.identity.cluster_id, query, NOW, group_by=group_by
        )
        assert isinstance(outcome, Measurement)
        assert outcome.groups == ((group_by, number),)
        assert [point.value for point in outcome.samples] == expected


async def test_series_are_what_was_recorded(db: Database, agent: Agent) -> None:
    first, second = last_instant(NOW) - timedelta(seconds=600), last_instant(NOW)
    await agent.send(holding(1, gpus=2), now=START)
    await fleet_record(db, 1, first)
    tree = (*QUEUES[:1], kai_queue("project", "vision", "research", gpus=6))
    await agent.beat(START, queues=tree)
    await agent.send(replace(holding(1, gpus=1), observed_at=NOW), now=NOW)
    await fleet_record(db, 1, second)
    number = int((await projects(db))["vision"].id)
    instants = [first - timedelta(seconds=400), first + timedelta(seconds=9), second]
    points = await unit_series(db, ALL, "project", number, instants=instants, now=NOW)
    assert points is not None
    assert [point.at for point in points] == instants[1:]
    assert [point.values["gpu_quota"] for point in points] == [8_000_000, 6_000_000]
    assert [point.values["allocated_gpu"] for point in points] == [2_000_000, 1_000_000]
    assert [point.values["allocated_cpu"] for point in points] == [2_000, 2_000]
    above = int((await projects(db))["vision"].parent_id)
    points = await unit_series(db, ALL, "department", above, instants=[second], now=NOW)
    assert points is not None
    assert points[0].values["allocated_memory"] == 8_000_000_000
    one_project = Scope(1, project_ids=frozenset({number}))
    assert (
        await unit_series(db, one_project, "department", above, instants=[second], now=NOW) is None
    )


async def test_the_series_of_a_department_holds_what_is_in_scope(
    db: Database, agent: Agent
) -> None:
    """As its present figures do: what a department below it holds is that one's to tell."""
    at = last_instant(NOW)
    below = (
        *(kai_queue("department", "company"), kai_queue("department", "research", "company")),
        kai_queue("project", "vision", "research"),
    )
    await agent.beat(START, queues=below)
    await agent.send(holding(1, gpus=3), now=START)
    await fleet_record(db, 1, at)
    tree = await departments(db)
    company, research = int(tree["company"].id), int(tree["research"].id)
    expected = (
        (ALL, 3_000_000),
        (Scope(1, department_ids=frozenset({company})), 0),
        (Scope(1, department_ids=frozenset({company, research})), 3_000_000),
    )
    for scope, gpus in expected:
        shown = (await departments(db, scope))["company"].status
        assert shown is not None
        assert shown.quota_status.allocated.gpu == gpus / 1_000_000
        points = await unit_series(db, scope, "department", company, instants=[at], now=NOW)
        assert points is not None
        assert [point.values["allocated_gpu"] for point in points] == [gpus]
