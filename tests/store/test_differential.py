"""The SQL against a naive reading of the rules: the same ids in the same order, over thousands of queries."""

import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, random_transitions, random_workload, upsert
from watchbill.protocol import Delete
from watchbill.query import Predicate, Scope, WorkloadQuery
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.postgres.database import Database
from watchbill.store.workloads import page as pages
from watchbill.store.workloads import search as searching
from watchbill.store.workloads.document import DocumentCache, Pieces
from watchbill.store.workloads.workloads import workload_count, workload_facets, workload_list
from watchbill.workload import LEAVING_PHASES, Phase, Workload
from watchbill.workload_fields import QUERY_FIELDS, SORT_FIELDS, FieldKind

NOW = START + timedelta(days=2)
LAST_CONTACT = NOW - timedelta(hours=1)
SCOPE = Scope(1, is_whole_tenant=True)
ROWS = 300
QUERIES = 20_000 if "WATCHBILL_HISTORIES" in os.environ else 1_000


@dataclass(frozen=True)
class Row:
    """What the rules say a row is: plain values by field name."""

    id: UUID
    is_deleted: bool
    values: dict[str, Any]


def naive_totals(steps: list[tuple[Phase, datetime]], end: datetime) -> dict[str, int]:
    totals = {}
    times = [at for _, at in steps] + [end]
    for phase, field in (
        (Phase.PENDING, "totalPendingTimeSeconds"),
        (Phase.RUNNING, "totalRunningTimeSeconds"),
    ):
        intervals = (
            (times[index + 1] - at) / timedelta(milliseconds=1)
            for index, (entered, at) in enumerate(steps)
            if entered is phase
        )
        totals[field] = sum(max(0, round(interval)) for interval in intervals) // 1000
    return totals


def naive_row(
    made: Workload,
    steps: list[tuple[Phase, datetime]],
    *,
    cluster_id: UUID,
    deleted_at: datetime | None,
) -> Row:
    shown = steps
    if deleted_at is not None:
        resting = [step for step in steps if step[0] not in LEAVING_PHASES]
        shown = resting or steps
        steps = (
            [*steps, (Phase.DELETING, deleted_at)] if steps[-1][0] is not Phase.DELETING else steps
        )
    stated = msgspec.to_builtins(made, builtin_types=(datetime,))
    values = (
        {
            field.name: stated.get(field.name)
            for field in QUERY_FIELDS.values()
            if not (field.is_server_owned or field.path)
        }
        | {
            field.name: made.additional_fields.get(field.json_path[-1])
            for field in QUERY_FIELDS.values()
            if field.is_beyond_contract
        }
        | {
            "clusterId": str(cluster_id),
            "deletedAt": deleted_at,
            "phase": shown[-1][0].value,
            "nodepool": sorted(made.current_node_pools),
            "image": sorted(made.images),
            "node": sorted(made.additional_fields["nodes"]),
            "gpuModel": sorted(made.additional_fields["gpuModels"]),
            "label": sorted(f"{k}={v}" for k, v in made.additional_fields["labels"].items()),
            "allocatedGPU": Fraction(round(made.allocated_resources.gpu * 10**6), 10**6),
            "idleAllocatedGpus": None
            if made.idle_allocated_gpus is None
            else Fraction(round(made.idle_allocated_gpus * 10**6), 10**6),
            "phaseUpdatedAt": shown[-1][1],
        }
        | naive_totals(steps, deleted_at or LAST_CONTACT)
    )
    return Row(
        made.id,
        deleted_at is not None,
        {k: None if v in ("", []) else v for k, v in values.items()},
    )


def lower(text: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def holds_for_one(operator: str, value: Any, wanted: Any) -> bool:
    match operator:
        case "==":
            return bool(value == wanted)
        case "<=":
            return bool(value <= wanted)
        case ">=":
            return bool(value >= wanted)
        case "=@":
            return lower(wanted) in lower(value)
        case "=^":
            return lower(value).startswith(lower(wanted))
        case "=$":
            return lower(value).endswith(lower(wanted))
    raise AssertionError(operator)


def holds(predicate: Predicate, row: Row) -> bool:
    value = row.values[predicate.field]
    wanted = predicate.value
    if isinstance(wanted, float):
        wanted = Fraction(wanted).limit_denominator(10**6)
    if isinstance(wanted, str) and "\0" in wanted:  # matches nothing, whatever the operator
        return predicate.is_negative
    positive = {"!=": "==", "!@": "=@"}.get(predicate.operator, predicate.operator)
    values = [] if value is None else value if isinstance(value, list) else [value]
    result = any(holds_for_one(positive, item, wanted) for item in values)
    return not result if predicate.is_negative else result


def naive_matches(row: Row, query: WorkloadQuery) -> bool:
    if row.is_deleted is not query.is_deleted:
        return False
    wanted: dict[str, list[Predicate]] = {}
    for predicate in query.predicates:
        if predicate.operator == "==":
            key = str(predicate.value).split("=")[0] if predicate.field == "label" else ""
            wanted.setdefault(predicate.field + key, []).append(predicate)
        elif not holds(predicate, row):
            return False
    if not all(any(holds(p, row) for p in alternatives) for alternatives in wanted.values()):
        return False
    return not query.search or naive_search(row, query.search)


def naive_search(row: Row, text: str) -> bool:
    fields = ["name", "type", "projectName", "departmentName", "submittedBy", "phase"]
    texts = [row.values[field] or "" for field in fields] + (row.values["nodepool"] or [])
    return any(lower(text) in lower(t) for t in texts) or str(row.id).startswith(lower(text))


def naive_list(rows: list[Row], query: WorkloadQuery) -> list[UUID]:
    result = [row for row in rows if naive_matches(row, query)]
    having = [row for row in result if row.values[query.sort_by] is not None]
    missing = [row for row in result if row.values[query.sort_by] is None]
    having.sort(key=lambda row: (row.values[query.sort_by], row.id), reverse=query.is_descending)
    missing.sort(key=lambda row: row.id, reverse=query.is_descending)
    return [row.id for row in having + missing]


@pytest_asyncio.fixture(scope="module")
async def filled(engine: Engine) -> AsyncIterator[tuple[Database, list[Row]]]:
    """One database for the module, filled through the real ingest."""
    db = await Database.open(await fresh_database(engine), pool_size=2)
    rng = random.Random(7)
    rows: list[Row] = []
    agents = [await connected_agent(db, START, number=number) for number in (1, 2)]
    for number in range(1, ROWS + 1):
        agent = agents[number % 2]
        made = random_workload(rng, rng.getrandbits(128))
        steps = random_transitions(rng, made)
        await agent.send(upsert(made, *steps), now=NOW - timedelta(hours=2))
        deleted_at = None
        if number % 4 == 0:
            deleted_at = steps[-1][1] + timedelta(seconds=rng.randrange(5000))
            await agent.send(Delete(id=made.id, deleted_at=deleted_at), now=NOW)
        rows.append(
            naive_row(made, steps, cluster_id=agent.identity.cluster_id, deleted_at=deleted_at)
        )
    for agent in agents:
        await agent.send(now=LAST_CONTACT)
    yield db, await with_numbers(db, rows)
    await db.close()


async def with_numbers(db: Database, rows: list[Row]) -> list[Row]:
    """Adds the numbers that the server gave to projects and departments."""
    async with db.acquire(1) as connection:
        numbers = {
            row["id"]: row
            for row in await connection.fetch("SELECT id, project_id, department_id FROM workload")
        }
    for row in rows:
        result = numbers[row.id]
        department = result["department_id"]
        row.values["projectId"] = str(result["project_id"])
        row.values["departmentId"] = None if department is None else str(department)
    return rows


def random_predicate(rng: random.Random, rows: list[Row]) -> Predicate:
    field = rng.choice(list(QUERY_FIELDS))
    kind = QUERY_FIELDS[field].kind
    value = rng.choice(rows).values[field]
    if isinstance(value, list):
        value = rng.choice(value)
    if kind is FieldKind.NUMBER:
        number = (
            float(value) if value is not None else float(rng.choice((0, 1, 50, -1, 1e9, 0.3333333)))
        )
        return Predicate(field, rng.choice(("==", "!=", "<=", ">=")), number)
    if kind is FieldKind.INSTANT:
        at = value or START
        return Predicate(field, rng.choice(("==", "!=", "<=", ">=")), at.astimezone(UTC))
    text = value or "x"
    operator = rng.choice(("==", "!=", "<=", ">=", "=@", "!@", "=^", "=$"))
    if operator not in ("==", "!=") and len(text) > 1:
        start = rng.randrange(len(text))
        text = text[start : start + rng.randrange(1, 5)]
        text = rng.choice((text, text.upper(), text.lower()))
    if rng.random() < 0.05:
        text = rng.choice(("%", "_", "\\", "", "a\0b", "é")) or "%"
    return Predicate(field, operator, text)


def random_query(rng: random.Random, rows: list[Row]) -> WorkloadQuery:
    predicates = [random_predicate(rng, rows) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
    if predicates and rng.random() < 0.3:
        first = predicates[0]
        again = rng.choice(rows).values[first.field]
        again = again[0] if isinstance(again, list) else again
        if isinstance(again, str) and first.operator == "==":
            predicates.append(Predicate(first.field, "==", again))
    search = rng.choice(
        (None, None, None, "a", "LLA", "_", "%", "run", "a100", "no such", "vis\x1fres")
    )
    if rng.random() < 0.05:
        search = str(rng.choice(rows).id)[: rng.randrange(1, 12)]
    return WorkloadQuery(
        predicates=tuple(predicates),
        search=search,
        is_deleted=rng.random() < 0.25,
        sort_by=rng.choice(list(SORT_FIELDS)),
        is_descending=rng.random() < 0.5,
        offset=rng.choice((0, 0, 0, 3)),
        limit=rng.choice((500, 500, 7)),
    )


def ids_of(documents: list[Pieces]) -> list[UUID]:
    import msgspec

    return [UUID(msgspec.json.decode(b"".join(document))["id"]) for document in documents]


async def test_random_queries_agree(
    filled: tuple[Database, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way answers: of these few rows, some are taken for too many and for far down the order."""
    db, rows = filled
    cache = DocumentCache(10**8)
    rng = random.Random(42)
    sizes = set()
    for number in range(QUERIES):
        query = random_query(rng, rows)
        few, first = rng.choice(((10_000, 8_000), (9, 300), (9, 60)))
        expected = naive_list(rows, query)
        end = query.offset + query.limit
        monkeypatch.setattr(searching, "MAX_CANDIDATES", few)
        monkeypatch.setattr(pages, "FIRST_ROWS", first)
        page = await workload_list(db, cache, SCOPE, query, NOW)
        assert ids_of(page.documents) == expected[query.offset : end], (number, query)
        assert page.next_offset == (end if len(expected) > end else None), query
        if number % 5 == 0:
            assert await workload_count(db, SCOPE, query, NOW) == len(expected), query
        sizes.add(len(expected))
    assert len(sizes) > 50, "the queries are too alike to prove anything"


@pytest.mark.parametrize("field", SORT_FIELDS)
@pytest.mark.parametrize("is_descending", [False, True])
async def test_an_offset_walk_returns_every_row_once(
    filled: tuple[Database, list[Row]], field: str, is_descending: bool
) -> None:
    db, rows = filled
    cache = DocumentCache(0)
    walked: list[UUID] = []
    offset: int | None = 0
    while offset is not None:
        query = WorkloadQuery(sort_by=field, is_descending=is_descending, offset=offset, limit=17)
        page = await workload_list(db, cache, SCOPE, query, NOW)
        walked += ids_of(page.documents)
        offset = page.next_offset
    assert walked == naive_list(rows, WorkloadQuery(sort_by=field, is_descending=is_descending))


async def test_totals_in_documents_are_the_totals_that_filters_see(
    filled: tuple[Database, list[Row]],
) -> None:
    import msgspec

    db, rows = filled
    for is_deleted in (False, True):
        page = await workload_list(
            db, DocumentCache(0), SCOPE, WorkloadQuery(is_deleted=is_deleted, limit=500), NOW
        )
        by_id = {row.id: row for row in rows}
        for document in page.documents:
            shown = msgspec.json.decode(b"".join(document))
            values = by_id[UUID(shown["id"])].values
            for field in ("totalPendingTimeSeconds", "totalRunningTimeSeconds", "phase"):
                assert shown[field] == values[field]


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("text", [None, "a", "run", "llama"])
async def test_facets_count_what_the_list_returns(
    filled: tuple[Database, list[Row]], text: str | None, is_deleted: bool
) -> None:
    db, rows = filled
    query = WorkloadQuery(search=text, is_deleted=is_deleted)
    facets = await workload_facets(db, SCOPE, query, ["phase", "departmentName"], NOW)
    matching = [row for row in rows if naive_matches(row, query)]
    for field, values in facets.items():
        assert sum(count for _, count in values.values) == len(matching)
        for value, count in values.values:
            assert count == sum((row.values[field] or "") == value for row in matching)


async def test_the_clusters_counts_are_the_lists_counts(
    filled: tuple[Database, list[Row]],
) -> None:
    db, rows = filled
    clusters = await cluster_list(db, SCOPE, NOW)
    assert sum(cluster.workloads for cluster in clusters) == sum(not row.is_deleted for row in rows)
