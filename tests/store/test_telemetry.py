"""Telemetry's sums are the list's sums, whatever the grouping."""

import itertools
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, random_transitions, random_workload, upsert, workload
from watchbill.errors import Invalid
from watchbill.protocol import Delete
from watchbill.query import TELEMETRY_GROUPS, Scope, TelemetryQuery, WorkloadQuery
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.telemetry import TelemetryValue, telemetry_query
from watchbill.store.workloads.workloads import workload_list
from watchbill.workload import Phase

SCOPE = Scope(1, is_whole_tenant=True)
NOW = START + timedelta(days=2)
POOLS = {"CurrentNodepools": "currentNodePools", "RequestedNodepools": "requestedNodePools"}
MEMBERS = {
    "ClusterId": "clusterId",
    "DepartmentId": "departmentId",
    "ProjectId": "projectId",
    "Type": "type",
    "Phase": "phase",
    "Category": "category",
}
GROUPINGS = [
    (),
    *((group,) for group in TELEMETRY_GROUPS),
    *itertools.permutations(TELEMETRY_GROUPS, 2),
]


@pytest_asyncio.fixture(scope="module")
async def filled(engine: Engine) -> AsyncIterator[tuple[Database, list[dict[str, object]]]]:
    db = await Database.open(await fresh_database(engine), pool_size=2)
    rng = random.Random(3)
    agents = [await connected_agent(db, START, number=number) for number in (1, 2)]
    for number in range(150):
        made = random_workload(rng, rng.getrandbits(128))
        agent = agents[number % 2]
        await agent.send(upsert(made, *random_transitions(rng, made)), now=NOW)
        if number % 5 == 0:
            await agent.send(Delete(id=made.id, deleted_at=NOW), now=NOW)
    page = await workload_list(db, DocumentCache(0), SCOPE, WorkloadQuery(limit=500), NOW)
    yield db, [msgspec.json.decode(b"".join(document)) for document in page.documents]
    await db.close()


def total(values: list[TelemetryValue]) -> Decimal:
    return sum((Decimal(value.value) for value in values), Decimal())


async def ask(db: Database, telemetry_type: str, *group_by: str) -> list[TelemetryValue]:
    query = TelemetryQuery(telemetry_type=telemetry_type, group_by=group_by)
    return (await telemetry_query(db, SCOPE, query, NOW)).values


@pytest.mark.parametrize("group_by", GROUPINGS, ids="-".join)
async def test_counts_are_the_lists_counts(
    filled: tuple[Database, list[dict[str, object]]], group_by: tuple[str, ...]
) -> None:
    db, rows = filled
    expected: dict[tuple[str, ...], int] = {}
    for row in rows:
        keys = [
            (row[POOLS[group]] or [""]) if group in POOLS else [row[MEMBERS[group]]]
            for group in group_by
        ]
        for key in itertools.product(*keys):  # type: ignore[arg-type]
            expected[key] = expected.get(key, 0) + 1
    result = await ask(db, "WORKLOADS_COUNT", *group_by)
    assert {tuple(g.value for g in v.groups): int(v.value) for v in result} == expected
    assert all([g.key for g in value.groups] == list(group_by) for value in result)


@pytest.mark.parametrize("group_by", GROUPINGS, ids="-".join)
async def test_gpu_sums_agree_in_every_grouping(
    filled: tuple[Database, list[dict[str, object]]], group_by: tuple[str, ...]
) -> None:
    db, rows = filled
    held = sum(round(row["allocatedResources"]["gpu"] * 10**6) for row in rows)  # type: ignore[index]
    assert total(await ask(db, "GPU_ALLOCATION", *group_by)) == Decimal(held) / 10**6
    idle = sum(round((row["idleAllocatedGpus"] or 0) * 10**6) for row in rows)  # type: ignore[operator]
    result = total(await ask(db, "IDLE_ALLOCATED_GPUS", *group_by))
    assert abs(result - Decimal(idle) / 10**6) < Decimal("0.001")


@pytest.mark.parametrize("group", [None, *TELEMETRY_GROUPS])
async def test_pending_times_count_what_is_pending(
    filled: tuple[Database, list[dict[str, object]]], group: str | None
) -> None:
    db, rows = filled
    pending = [row for row in rows if row["phase"] == "Pending"]
    result = await ask(db, "PENDING_TIME_DISTRIBUTION", *([group] if group else []))
    labels = [value.groups[-1].value for value in result]
    assert labels == ["0-5m", "5m-1h", "1h-24h", "24h+"] * (len(labels) // 4)
    weights = [len(row[POOLS[group]] or [""]) if group in POOLS else 1 for row in pending]  # type: ignore[arg-type,index]
    assert total(result) == sum(weights)
    assert pending, "nothing pends: the test proves nothing"


async def test_pending_times_take_one_grouping(
    filled: tuple[Database, list[dict[str, object]]],
) -> None:
    with pytest.raises(Invalid):
        await ask(filled[0], "PENDING_TIME_DISTRIBUTION", "Type", "Phase")


async def test_nothing_measured_is_no_value_and_nothing_there_is_zero(db: Database) -> None:
    assert await ask(db, "IDLE_ALLOCATED_GPUS") == []
    assert [value.value for value in await ask(db, "WORKLOADS_COUNT")] == ["0"]
    assert [value.value for value in await ask(db, "GPU_ALLOCATION")] == ["0"]
    assert [value.value for value in await ask(db, "PENDING_TIME_DISTRIBUTION")] == ["0"] * 4


async def test_pending_time_stops_at_the_clusters_last_contact(db: Database) -> None:
    agent = await connected_agent(db, START)
    made = workload(phase=Phase.PENDING)
    await agent.send(upsert(made), now=START + timedelta(minutes=3))
    result = await ask(db, "PENDING_TIME_DISTRIBUTION")
    assert [value.value for value in result] == ["1", "0", "0", "0"]


@pytest.mark.parametrize(
    "narrowed",
    [
        {"node_pool": "no\0such"},
        {"node_pool": "absent"},
        {"department_id": "١"},
        {"department_id": "0"},
        {"phases": ("Updating",)},
    ],
)
async def test_what_is_not_there_reads_as_no_workloads(
    db: Database, narrowed: dict[str, object]
) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    query = TelemetryQuery(telemetry_type="WORKLOADS_COUNT", **narrowed)  # type: ignore[arg-type]
    result = (await telemetry_query(db, SCOPE, query, NOW)).values
    assert [value.value for value in result] == ["0"]
