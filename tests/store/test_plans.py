"""The plans of what is asked for often: a first page is read from an index, whatever it is sorted by."""

import random
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from bench.rows import fill_million
from tests.conftest import Engine, fresh_database
from tests.fixtures.records import START
from watchbill.query import (
    POD_FIELDS,
    PendingBuckets,
    PodQuery,
    Scope,
    TelemetryQuery,
    WorkloadQuery,
    parse_filters,
    parse_pod_filters,
)
from watchbill.store.fleet.fleet import _RECORD_CLUSTERS, AT_INSTANTS, COUNTS, MEDIAN_PENDING
from watchbill.store.usage.accounting import _PHASES, _STEPS
from watchbill.store.workloads.idle import idle_statement
from watchbill.store.workloads.page import page_of_all, page_statement
from watchbill.store.workloads.pods import pod_count_statement, pod_page_statement
from watchbill.store.workloads.row import MAX_TEXT_LENGTH
from watchbill.store.workloads.search import trigrams
from watchbill.store.workloads.tally import counting
from watchbill.store.workloads.telemetry import pending_times_statement
from watchbill.workload import Phase
from watchbill.workload_fields import SORT_FIELDS

SCOPE = Scope(1, is_whole_tenant=True)
RUNNING_ON = {"totalPendingTimeSeconds", "totalRunningTimeSeconds"}
ORDERS = [
    (field, is_deleted)
    for is_deleted in (False, True)
    for field in sorted(SORT_FIELDS)
    if is_deleted or field not in RUNNING_ON
]
PODS = """
INSERT INTO workload_pod (tenant_id, workload_id, id, name, node_name, current_node_pool, k8s_phase,
    k8s_phase_updated_at, created_at, completed_at, updated_at, deleted_at, document)
SELECT 1, w.id, md5(w.id::text || n)::uuid, w.name || '-' || n,
    CASE WHEN n % 7 > 0 THEN 'node-' || abs(hashtext(w.id::text || n)) % 500 END,
    CASE WHEN n % 7 > 0 THEN 'pool-' || n % 5 END, 'Running',
    w.created_at, w.created_at + n * interval '1 second',
    CASE WHEN n % 3 = 0 THEN w.created_at + n * interval '1 hour' END,
    w.created_at, CASE WHEN n > 2 THEN w.created_at + n * interval '2 hours' END,
    convert_to(repeat('x', 700), 'UTF8')
FROM (SELECT * FROM workload WHERE deleted_at IS NULL ORDER BY id LIMIT 2000) w,
    generate_series(1, 10) n
"""
"""Two pods of each workload live, eight are gone."""
POD_ORDERS = [(field, is_deleted) for is_deleted in (False, True) for field in sorted(POD_FIELDS)]


@pytest_asyncio.fixture(scope="module")
async def connection(engine: Engine) -> AsyncIterator[asyncpg.Connection]:
    url = await fresh_database(engine)
    await fill_million(url, total=12_000, live=6_000, seeds=400)
    connection = await asyncpg.connect(url)
    await connection.execute(PODS)
    await connection.execute("VACUUM ANALYZE workload_pod")
    await connection.execute("SET jit = off; SET ROLE watchbill_app")
    await connection.execute("SELECT set_config('watchbill.tenant_id', '1', false)")
    yield connection
    await connection.close()


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize(("field", "is_deleted"), ORDERS)
async def test_a_first_page_reads_no_whole_table(
    connection: asyncpg.Connection, field: str, is_descending: bool, is_deleted: bool
) -> None:
    query = WorkloadQuery(
        sort_by=field, is_descending=is_descending, is_deleted=is_deleted, limit=20
    )
    page = page_statement(SCOPE, query, START)
    plan = await connection.fetch(f"EXPLAIN {page.select('w.id')}", *page.statement.parameters)
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on workload" not in text, text
    assert "Bitmap" not in text, text


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("field", ["projectId", "departmentId"])
async def test_rows_before_a_far_page_are_not_read(
    connection: asyncpg.Connection, field: str, is_deleted: bool
) -> None:
    """By the number of an organisation's unit, which is sorted by as text."""
    query = WorkloadQuery(sort_by=field, is_deleted=is_deleted, offset=5_000, limit=20)
    page = page_statement(SCOPE, query, START)
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
        )
        plan = await explained(connection, page.select("w.id"), page.statement.parameters)
    assert re.search(rf"Index Only Scan using workload_\w*by_{field[:-2]}_id on", plan), plan


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize(("field", "is_deleted"), POD_ORDERS)
async def test_a_first_page_of_pods_is_read_from_an_index(
    connection: asyncpg.Connection, field: str, is_descending: bool, is_deleted: bool
) -> None:
    query = PodQuery(sort_by=field, is_descending=is_descending, is_deleted=is_deleted, limit=20)
    page = pod_page_statement(SCOPE, query, START)
    plan = await explained(connection, page.keys, page.parameters)
    assert "Seq Scan on workload_pod" not in plan, plan
    assert "Bitmap" not in plan, plan


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize(
    "filters",
    [
        ("nodeName==node-7",),
        ("nodeName==node-7", "createdAt>=2020-01-01T00:00:00Z"),
        ("workloadId==11111111-1111-4111-8111-111111111111",),
        ("createdAt>=2099-01-01T00:00:00Z",),
        ("completedAt>=2099-01-01T00:00:00Z",),
    ],
)
async def test_what_few_pods_match_is_found_by_an_index(
    connection: asyncpg.Connection, filters: tuple[str, ...], is_deleted: bool
) -> None:
    query = PodQuery(predicates=parse_pod_filters(filters), is_deleted=is_deleted, limit=20)
    page = pod_page_statement(SCOPE, query, START)
    for sql, parameters in (
        (page.keys, page.parameters),
        pod_count_statement(SCOPE, query, START),
    ):
        plan = await explained(connection, sql, parameters)
        assert "Seq Scan on workload_pod" not in plan, plan


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("search", [None, "node-1"])
async def test_pods_are_counted_without_reading_them(
    connection: asyncpg.Connection, search: str | None, is_deleted: bool
) -> None:
    query = PodQuery(is_deleted=is_deleted, search=search)
    plan = await explained(connection, *pod_count_statement(SCOPE, query, START))
    assert re.search(r"Index Only Scan using \w+ on workload_pod p", plan), plan
    assert "Heap Scan" not in plan, plan


SERIES = """
INSERT INTO fleet_cluster (tenant_id, at, cluster_id)
SELECT 1, $1::timestamptz + n * interval '5 minutes', md5(k::text)::uuid
FROM generate_series(1, 300) AS n, generate_series(1, 2) AS k
"""
SERIES_OF_PROJECTS = f"""
INSERT INTO fleet_project (tenant_id, at, cluster_id, project_id, department_id, failed_in_day,
    {", ".join(COUNTS)})
SELECT tenant_id, at, cluster_id, n, 1, 0{", 0" * len(COUNTS)}
FROM fleet_cluster, generate_series(1, 8) AS n
"""


async def test_an_instant_of_the_series_is_looked_up(connection: asyncpg.Connection) -> None:
    """Before the tables are analyzed: row security lets no condition into an index that it knows nothing of."""
    async with connection.transaction():
        await connection.execute(SERIES, START)
        await connection.execute(SERIES_OF_PROJECTS)
        await connection.execute(
            "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
        )
        instants = [START + number * timedelta(minutes=5) for number in range(1, 289)]
        sql = f"SELECT count(*) FROM {AT_INSTANTS} WHERE c.tenant_id = $1 AND c.at = ANY($2)"
        plan = await explained(connection, sql, [1, instants])
    condition = re.search(r"fleet_project w .*\n\s+Index Cond: .*", plan)
    assert condition is not None, plan
    assert "at = CASE" in condition.group(), plan


@pytest.mark.parametrize(("history", "begins"), [(_STEPS, "at >="), (_PHASES, "number >=")])
async def test_a_round_of_accounting_reads_no_more_of_a_life_than_is_new(
    connection: asyncpg.Connection, history: str, begins: str
) -> None:
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )
        plan = await explained(connection, history, [1, [UUID(int=1)], [START], [START], 100])
    conditions = re.findall(r"Index Cond: .*", plan)
    assert any(begins in each for each in conditions), plan


def statement_of(question: str) -> tuple[str, list[Any]]:
    """What is asked of very many live workloads, whole tenant."""
    match question:
        case "median":
            every = counting(SCOPE, WorkloadQuery(), START)
            return f"{MEDIAN_PENDING} AND {every.where}", every.parameters
        case "idle":
            return idle_statement(SCOPE, WorkloadQuery(limit=20), START)
        case "count":
            filters = ("type==PyTorchJob,phase==Running,allocatedGPU>=1,priority<=50",)
            few = counting(SCOPE, WorkloadQuery(predicates=parse_filters(filters)), START)
            return f"SELECT count(*) FROM {few.source} WHERE {few.where}", few.parameters
        case field if field in RUNNING_ON:
            page = page_of_all(SCOPE, WorkloadQuery(sort_by=field, limit=20), START)
            return page.select("w.id"), page.statement.parameters
    query = TelemetryQuery(
        telemetry_type="PENDING_TIME_DISTRIBUTION", group_by=(question,) if question else ()
    )
    return pending_times_statement(SCOPE, query, START, PendingBuckets())


@pytest.mark.parametrize(
    ("index", "questions", "times"),
    [
        ("workload_live", ["count", *sorted(RUNNING_ON)], 1),
        (
            r"workload_pending\w*",
            ["median", "", "ProjectId", "DepartmentId", "ClusterId", "Type", "Phase"],
            1,
        ),
        ("workload_pending_category", ["Category"], 1),
        ("workload_idle", ["idle"], 2),
    ],
)
async def test_what_concerns_very_many_is_read_from_a_narrow_index_alone(
    connection: asyncpg.Connection, index: str, questions: list[str], times: int
) -> None:
    """Where several processes may read: in a small table one is enough, which a setting forbids here."""
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; "
            "SET LOCAL min_parallel_index_scan_size = 0; SET LOCAL parallel_setup_cost = 0; "
            "SET LOCAL parallel_tuple_cost = 0"
        )
        for question in questions:
            plan = await explained(connection, *statement_of(question))
            reads = re.findall(rf"Parallel Index Only Scan using {index} on workload w", plan)
            assert len(reads) == times, (question, plan)


async def test_the_longest_texts_fit_into_every_index(connection: asyncpg.Connection) -> None:
    """600 characters of four bytes, which nothing compresses."""
    rng = random.Random(7)
    longest = "".join(chr(rng.randrange(0x20000, 0x2A6D0)) for _ in range(MAX_TEXT_LENGTH))
    texts = (
        "type",
        "category",
        "submitted_by",
        "project_name",
        "department_name",
        "priority_class_name",
    )
    transaction = connection.transaction()
    await transaction.start()
    for phase in Phase:
        changed = await connection.fetchval(
            f"UPDATE workload SET {', '.join(f'{text} = $1' for text in texts)}, phase = $2, priority = -1, "
            "allocated_gpu = 1, idle_allocated_gpu = 1, idle_gpu_hours = 1, idle_mean_since = now(), "
            "pending_since = now(), running_since = now(), department_id = 1 WHERE id = "
            "(SELECT id FROM workload WHERE deleted_at IS NULL LIMIT 1) RETURNING phase",
            longest,
            phase.value,
        )
        assert changed == phase.value
    await transaction.rollback()


async def test_recording_an_instant_reads_no_others(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )
        parameters = [1, START, [UUID(int=1)], [0], [START]]
        plan = await explained(connection, _RECORD_CLUSTERS, parameters)
    condition = re.search(r"fleet_project w.*\n\s+Index Cond: .*", plan)
    assert condition is not None, plan
    assert "at =" in condition[0], plan


async def explained(connection: asyncpg.Connection, sql: str, parameters: list[Any]) -> str:
    return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}", *parameters))


@pytest.mark.parametrize(("state", "is_deleted"), [("live", False), ("deleted", True)])
async def test_a_rare_text_is_found_by_its_trigrams(
    connection: asyncpg.Connection, state: str, is_deleted: bool
) -> None:
    index = f"workload_search_{state}"
    before = await scans(connection, index)
    await connection.fetch(
        "SELECT workload_search_ids($1, $2, $3, 100)",
        *(is_deleted, trigrams(["project-77"]), ["%project-77%"]),
    )
    assert await scans(connection, index) > before


@pytest.mark.parametrize(("state", "is_deleted"), [("live", False), ("deleted", True)])
async def test_a_label_is_found_by_the_index_of_names(
    connection: asyncpg.Connection, state: str, is_deleted: bool
) -> None:
    index = f"workload_search_names_{state}"
    before = await scans(connection, index)
    await connection.fetch(
        "SELECT workload_named_ids($1, $2, 100)", is_deleted, ["label=team=vision"]
    )
    assert await scans(connection, index) > before


async def test_a_text_of_pods_that_are_gone_is_found_by_its_trigrams(
    connection: asyncpg.Connection,
) -> None:
    before = await scans(connection, "workload_pod_gone_text")
    await connection.fetch(
        "SELECT workload_pod_gone_ids($1, $2, 100)", trigrams(["node-77"]), "%node-77%"
    )
    assert await scans(connection, "workload_pod_gone_text") > before


async def scans(connection: asyncpg.Connection, index: str) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    counted: int = await connection.fetchval(
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1", index
    )
    return counted
