"""Reads of workloads: list, count, get, facets, history, elements, endpoints, export.

Every read takes the caller's scope; one `now` per request feeds conditions, order and the totals in a reply.
What a search finds is counted in parts that share no row: the phases that the text names, which are counted
like any other; of other phases the rows whose text holds it, by the index of trigrams; of the rest the ids
that begin with it.
"""

from collections.abc import AsyncGenerator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.protocol import DEGRADED_AFTER_SECONDS
from watchbill.query import Scope, WorkloadQuery, ascii_lower
from watchbill.responses.contract import QueuePosition
from watchbill.responses.workloads import PhaseInterval
from watchbill.scheduler_queue import AdmissionOrder
from watchbill.store.postgres.database import (
    Connection,
    Database,
    Row,
    allow_seconds,
    fetch_only_row,
)
from watchbill.store.workloads.document import (
    PAGE_BYTES,
    DocumentCache,
    Pieces,
    document_list,
    finish_document,
    finished_pieces,
    fitting,
    with_additional_field,
)
from watchbill.store.workloads.gone_count import GoneCounting, GoneCounts, Selection
from watchbill.store.workloads.page import (
    PageStatement,
    narrow,
    page_among_first,
    page_of_all,
    page_statement,
)
from watchbill.store.workloads.search import (
    candidate_ids,
    looks_into_text,
    text_arguments,
    trigrams,
)
from watchbill.store.workloads.select import (
    CLUSTER_JOIN,
    COLUMNS,
    LIVE,
    PENDING_SECONDS,
    RUNNING_SECONDS,
    SEARCH,
    SEPARATOR,
    TALLIES,
    WORKLOAD,
    Statement,
    add_conditions,
    conditions,
    escape_like,
    id_bounds,
    in_scope,
    one_workload,
    phases_containing,
    sorted_statement,
)
from watchbill.store.workloads.tally import IN_SEARCH_TABLE, count_table, counting
from watchbill.workload import Phase, Wire
from watchbill.workload_fields import QUERY_FIELDS, FieldKind


def search_count_sql(
    scope: Scope, query: WorkloadQuery, now: datetime
) -> tuple[str, list[object]] | None:
    """One statement with its parameters. None where the text is none that the index knows, or where a filter
    asks for what the search table does not have."""
    text = ascii_lower(query.search or "")
    is_narrow = {predicate.field for predicate in query.predicates} <= IN_SEARCH_TABLE
    if not (is_narrow and trigrams([text])) or "\0" in text or SEPARATOR in text:
        return None
    rest = replace(query, search=None)
    statement = Statement(now)
    phases = statement.bind(phases_containing(text), "::text[]")
    named, other = f"w.phase = ANY({phases})", f"w.phase <> ALL({phases})"
    parts = [_part(statement, count_table(rest), named)] if phases_containing(text) else []
    arguments = text_arguments(statement, [text], is_deleted=query.is_deleted)
    is_counted = scope.is_whole_tenant and not query.predicates
    if not is_counted:
        parts.append(_part(statement, f"workload_search_rows({arguments})", other))
    if bounds := id_bounds(text):
        first, last = (statement.bind(bound, "::uuid") for bound in bounds)
        pattern = statement.bind(f"%{escape_like(text)}%", "::text")
        begins = f"w.id BETWEEN {first} AND {last} AND w.search NOT LIKE {pattern}"
        parts.append(_part(statement, SEARCH, f"{begins} AND {other}"))
    for part in parts:
        add_conditions(part, scope, rest)
    counts = [f"(SELECT {part.count} FROM {part.source} WHERE {part.where})" for part in parts]
    if is_counted:
        counts.append(f"workload_search_count({arguments}, {phases})")
    return f"SELECT {' + '.join(counts)} WHERE $1::timestamptz IS NOT NULL", statement.parameters


def _part(statement: Statement, table: str, condition: str) -> Statement:
    """Over a table of its own, with the parameters of the whole."""
    part = copy(statement)
    part.table, part.conditions = table, [condition]
    return part


EXPORT_BATCH = 100
MAX_FACET_VALUES = 1_000
EXPORT_TIMEOUT_SECONDS = 300

_ADMISSION_ORDER = msgspec.json.Decoder(AdmissionOrder)
_TOTALS = (
    f"{PENDING_SECONDS} AS pending, {RUNNING_SECONDS} AS running, "
    "CASE WHEN w.deleted_at IS NULL AND c.last_contact_at <= "
    f"$1::timestamptz - interval '{DEGRADED_AFTER_SECONDS} s' THEN c.last_contact_at END AS observed"
)
"""What is added to a document: the running totals; until when it was observed, where that is too long ago."""

_COLUMNS = (
    "SELECT coalesce(array_agg(id), '{{}}') AS ids, coalesce(array_agg(revision), '{{}}') AS revisions, "
    "coalesce(array_agg(pending), '{{}}') AS pending, coalesce(array_agg(running), '{{}}') AS running, "
    "CASE WHEN count(observed) > 0 THEN array_agg(observed) END AS observed, "
    "coalesce(array_agg(size), '{{}}') AS sizes FROM ({rows}) AS page"
)


@dataclass(frozen=True, slots=True)
class WorkloadPage:
    """Finished documents in the query's order; `next_offset` None = there is no more."""

    documents: list[Pieces]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class ElementPage:
    """Stored elements, upper levels first; `next_offset` None = there is no more."""

    documents: list[bytes]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class PhasePage:
    """Phase intervals, oldest first; `next_offset` None = there is no more."""

    intervals: list[PhaseInterval]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """Values with counts, most first; `is_partial`: there are more than `MAX_FACET_VALUES`."""

    values: list[tuple[str, int]]
    is_partial: bool


@dataclass(frozen=True, slots=True)
class WorkloadReply:
    """One workload's JSON; `etag` only where neither total is running."""

    body: bytes
    etag: str | None


async def workload_list(
    db: Database, cache: DocumentCache, scope: Scope, query: WorkloadQuery, now: datetime
) -> WorkloadPage:
    """One page: ids by index first, then the documents that the cache does not hold."""
    async with db.acquire(scope.tenant_id) as connection:
        page = await _page_columns(connection, scope, query, now)
        count = fitting(page["sizes"][: query.limit])
        documents = await document_list(
            connection, cache, scope.tenant_id, page["ids"][:count], page["revisions"][:count]
        )
    return WorkloadPage(
        documents=finished_pieces(documents, page["pending"], page["running"], page["observed"]),
        next_offset=query.offset + count if len(page["ids"]) > count else None,
    )


async def _page_columns(
    connection: Connection, scope: Scope, query: WorkloadQuery, now: datetime
) -> Row:
    """Of a page and one more, column by column: ids, revisions, totals and the documents' sizes.

    The planner does not know whether what matches is spread evenly over the wanted order, and of texts not even
    how much matches. So of a text's few matches the ids come from the index of trigrams. Else the page is
    sought among the first rows of the order, and where these do not fill it, all matches are gathered.
    """
    if scope.is_whole_tenant and not query.predicates and not query.search:
        return await _columns(connection, page_statement(scope, query, now))
    if looks_into_text(query):
        ids = await candidate_ids(connection, scope, query, now)
        if ids is not None:
            return await _columns(connection, page_of_all(scope, query, now, ids))
    if first := page_among_first(scope, query, now):
        columns = await _columns(connection, first)
        if len(columns["ids"]) > query.limit:
            return columns
    return await _columns(connection, page_of_all(scope, query, now))


async def _columns(connection: Connection, page: PageStatement) -> Row:
    """One row of arrays: five hundred rows would take Python longer than all the rest."""
    rows = page.select(f"w.id, w.revision, {_TOTALS}, octet_length(w.document) AS size")
    return await fetch_only_row(connection, _COLUMNS.format(rows=rows), *page.statement.parameters)


async def workload_count(
    db: Database,
    scope: Scope,
    query: WorkloadQuery,
    now: datetime,
    counts: GoneCounts | None = None,
) -> int:
    """`counts`: what is remembered of counts of what is gone, where that is wanted."""
    if counts is not None and query.is_deleted and count_table(query) not in TALLIES:

        async def select(_: Connection) -> Selection:
            statement = conditions(scope, query, now)
            return statement.source, statement

        async def count_all(connection: Connection) -> int:
            return await _count(connection, scope, query, now)

        gone = GoneCounting(db, counts, scope, query, WORKLOAD, "w", select, count_all)
        return await gone.count(now)
    async with db.acquire(scope.tenant_id) as connection:
        return await _count(connection, scope, query, now)


async def _count(connection: Connection, scope: Scope, query: WorkloadQuery, now: datetime) -> int:
    if in_parts := search_count_sql(scope, query, now):
        sql, parameters = in_parts
    else:
        statement = counting(scope, query, now)
        if looks_into_text(query) and statement.table not in TALLIES:
            narrow(statement, await candidate_ids(connection, scope, query, now))
        parameters = statement.parameters
        sql = f"SELECT {statement.count} FROM {statement.source} WHERE {statement.where}"
    count: int = (await fetch_only_row(connection, sql, *parameters))[0]
    return count


async def workload_get(
    db: Database, scope: Scope, workload_id: UUID, now: datetime
) -> WorkloadReply | None:
    """One workload with its details, deleted ones included; None = not there or not in scope."""
    statement = one_workload(scope, workload_id, now)
    sql = (
        f"SELECT w.document, w.details, w.revision, {_TOTALS}, "
        "w.pending_since IS NULL AND w.running_since IS NULL AS is_still, "
        "w.id, w.project_id, w.project_name, w.priority, w.phase_updated_at, "
        f"w.phase = '{Phase.PENDING}' AND {LIVE} AS is_waiting "
        f"FROM workload w {CLUSTER_JOIN} WHERE {statement.where}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(sql, *statement.parameters)
        if row is None:
            return None
        position = await _queue_position(connection, scope, row, now) if row["is_waiting"] else None
    document = row["document"]
    if position is not None:
        document = with_additional_field(document, "queuePosition", position)
    body = finish_document(document, row["pending"], row["running"], row["observed"])
    messages = row["details"] or b"[]"
    body = body[:-1] + b',"pendingSchedulingMessages":' + messages + b"}"
    is_constant = row["is_still"] and row["observed"] is None
    return WorkloadReply(body, f'"{row["revision"].hex()}"' if is_constant else None)


async def _queue_position(
    connection: Connection, scope: Scope, workload: Row, now: datetime
) -> QueuePosition:
    """As its scheduler tells it, else where priority and age put it: who sees a workload sees all of its
    project, or less of it."""
    if reported := await _reported_position(connection, scope, workload):
        return reported
    statement = Statement(now)
    in_scope(statement, scope)
    own = {
        name: statement.bind(workload[name], cast)
        for name, cast in (
            ("project_name", "::text"),
            ("project_id", "::int"),
            ("id", "::uuid"),
            ("priority", "::bigint"),
            ("phase_updated_at", "::timestamptz"),
        )
    }
    ahead = (
        f"w.priority > {own['priority']} OR (w.priority < {own['priority']}) IS NOT TRUE "
        f"AND (w.phase_updated_at, w.id) < ({own['phase_updated_at']}, {own['id']})"
    )
    row = await connection.fetchrow(
        f"SELECT count(*) AS others, count(*) FILTER (WHERE {ahead}) AS ahead FROM workload w "
        f"WHERE {statement.where} AND {LIVE} AND w.phase = '{Phase.PENDING}' "
        f"AND w.project_name = {own['project_name']} AND w.project_id = {own['project_id']} "
        f"AND w.id <> {own['id']}",
        *statement.parameters,
    )
    assert row is not None
    return QueuePosition(ahead=row["ahead"], others=row["others"])


async def _reported_position(
    connection: Connection, scope: Scope, workload: Row
) -> QueuePosition | None:
    """None where its queue's scheduler tells no order, or it is not in it. Of others it gives numbers alone."""
    order = await connection.fetchval(
        "SELECT p.queue->>'admissionOrder' FROM project p "
        "JOIN workload w ON (w.tenant_id, w.cluster_id, w.project_id) = (p.tenant_id, p.cluster_id, p.id) "
        "WHERE w.tenant_id = $1 AND w.id = $2",
        scope.tenant_id,
        workload["id"],
    )
    if order is None:
        return None
    reported = _ADMISSION_ORDER.decode(order)
    ahead = next((place.ahead for place in reported.places if place.id == workload["id"]), None)
    if ahead is None:
        return None
    return QueuePosition(ahead=ahead, others=max(reported.waiting - 1, ahead), source="Kueue")


async def workload_facets(
    db: Database,
    scope: Scope,
    query: WorkloadQuery,
    fields: Sequence[str],
    now: datetime,
) -> dict[str, FacetCounts]:
    """Per field its values; a field's own filters are left out."""
    facets: dict[str, FacetCounts] = {}
    async with db.acquire(scope.tenant_id) as connection:
        for field in fields:
            others = tuple(p for p in query.predicates if p.field != field)
            narrowed = replace(query, predicates=others)
            statement = counting(scope, narrowed, now, by=field)
            if looks_into_text(narrowed) and statement.table not in TALLIES:
                narrow(statement, await candidate_ids(connection, scope, narrowed, now))
            value, source = COLUMNS[field].sql, statement.source
            if QUERY_FIELDS[field].kind is FieldKind.NAMES:  # of several names each counts
                value, source = "n.name", f"{source} LEFT JOIN unnest({value}) AS n(name) ON true"
            rows = await connection.fetch(
                f"SELECT {value}::text AS value, {statement.count} AS count "
                f"FROM {source} WHERE {statement.where} "
                f"GROUP BY 1 HAVING {statement.count} > 0 "
                f"ORDER BY count DESC, value LIMIT {MAX_FACET_VALUES + 1}",
                *statement.parameters,
            )
            facets[field] = FacetCounts(
                [(row["value"] or "", row["count"]) for row in rows[:MAX_FACET_VALUES]],
                len(rows) > MAX_FACET_VALUES,
            )
    return facets


async def priority_class_list(db: Database, scope: Scope, now: datetime) -> list[tuple[str, int]]:
    """The priority classes of live workloads with their values, by name; the highest where clusters differ."""
    statement = Statement(now)
    in_scope(statement, scope)
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT w.priority_class_name AS name, max(w.priority) AS value FROM workload w "
            f"WHERE {statement.where} AND {LIVE} AND w.priority_class_name <> '' "
            f"AND w.priority IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {MAX_FACET_VALUES}",
            *statement.parameters,
        )
    return [(row["name"], row["value"]) for row in rows]


_INTERVALS = (
    "SELECT phase, message, at, number, next_at FROM ("
    "SELECT t.*, lead(at) OVER later AS next_at, "
    f"sum(octet_length(coalesce(message, '')) + {PAGE_BYTES // 50_000}) OVER later AS bytes "
    "FROM (SELECT phase, message, at, number FROM phase_transition "
    "WHERE tenant_id = $1 AND workload_id = $2 AND number >= $3 ORDER BY number LIMIT $4) AS t "
    "WINDOW later AS (ORDER BY number)) AS page "
    f"WHERE bytes <= {PAGE_BYTES} OR number = $3 ORDER BY number"
)


async def phase_interval_list(
    db: Database, scope: Scope, workload_id: UUID, *, offset: int, limit: int, now: datetime
) -> PhasePage | None:
    """A page of the recorded stays in a phase."""
    statement = one_workload(scope, workload_id, now)
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            f"SELECT w.deleted_at, w.transition_count FROM workload w WHERE {statement.where}",
            *statement.parameters,
        )
        if row is None:
            return None
        rows = await connection.fetch(_INTERVALS, scope.tenant_id, workload_id, offset, limit + 1)
    shown = rows[:limit]
    end = shown[-1]["number"] + 1 if shown else offset
    return PhasePage(
        [
            PhaseInterval(
                phase=transition["phase"],
                phase_message=transition["message"],
                started_at=transition["at"],
                ended_at=transition["next_at"] or row["deleted_at"],
            )
            for transition in shown
        ],
        end if shown and end < row["transition_count"] else None,
    )


async def element_list(
    db: Database, scope: Scope, workload_id: UUID, *, offset: int, limit: int, now: datetime
) -> ElementPage | None:
    """A page of the stored elements."""
    statement = one_workload(scope, workload_id, now)
    beyond = min(offset, 2**30)  # a slice's bounds are 32 bits wide, and no array is that long
    first = statement.bind(beyond + 1, "::int")
    last = statement.bind(beyond + limit, "::int")
    sql = (
        f"SELECT coalesce(e.elements[{first}:{last}], '{{}}') AS elements, "
        "coalesce(cardinality(e.elements), 0) AS stored FROM workload w "
        "LEFT JOIN workload_elements e ON e.tenant_id = w.tenant_id AND e.workload_id = w.id "
        f"WHERE {statement.where}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(sql, *statement.parameters)
    if row is None:
        return None
    more = offset + limit < row["stored"]
    return ElementPage(list(row["elements"]), offset + limit if more else None)


async def element_count(
    db: Database, scope: Scope, workload_id: UUID, now: datetime
) -> tuple[int, int] | None:
    """How many elements the cluster has, and how many of them are stored."""
    statement = one_workload(scope, workload_id, now)
    sql = (
        "SELECT coalesce(e.total, 0), coalesce(cardinality(e.elements), 0) FROM workload w "
        "LEFT JOIN workload_elements e ON e.tenant_id = w.tenant_id AND e.workload_id = w.id "
        f"WHERE {statement.where}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(sql, *statement.parameters)
    return None if row is None else (row[0], row[1])


class _Endpoints(Wire, frozen=True):
    endpoints: msgspec.Raw


_ENDPOINTS = msgspec.json.Decoder(_Endpoints)


async def endpoint_list(
    db: Database, scope: Scope, workload_id: UUID, now: datetime
) -> bytes | None:
    """The JSON array of a workload's endpoints, as its document holds it."""
    statement = one_workload(scope, workload_id, now)
    async with db.acquire(scope.tenant_id) as connection:
        document = await connection.fetchval(
            f"SELECT w.document FROM workload w WHERE {statement.where}",
            *statement.parameters,
        )
    return None if document is None else bytes(_ENDPOINTS.decode(document + b"}").endpoints)


async def workload_export(
    db: Database, scope: Scope, query: WorkloadQuery, now: datetime
) -> AsyncGenerator[list[bytes], None]:
    """All finished documents of one snapshot, some hundred at a time."""
    statement, order = sorted_statement(scope, query, now)
    sql = (
        f"SELECT w.document, {_TOTALS} FROM workload w {CLUSTER_JOIN} "
        f"WHERE {statement.where} ORDER BY {order}"
    )
    async with db.snapshot(scope.tenant_id) as connection:
        await allow_seconds(connection, EXPORT_TIMEOUT_SECONDS)
        cursor = await connection.cursor(sql, *statement.parameters)
        while rows := await cursor.fetch(EXPORT_BATCH):
            yield [finish_document(row[0], row[1], row[2], row[3]) for row in rows]
