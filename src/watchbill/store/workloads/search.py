"""Texts and names of workloads: which rows may match, from their indexes, where these are few.

Whatever contains a text contains its trigrams. What an index yields are only candidates: the query's own
conditions, the scope among them, decide over each.
"""

from datetime import datetime
from uuid import UUID

from watchbill.query import Predicate, Scope, WorkloadQuery, ascii_lower
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.select import (
    SEARCH,
    WORKLOAD,
    Statement,
    add_conditions,
    alternatives_key,
    escape_like,
    search_beyond_column,
    state_condition,
)
from watchbill.workload_fields import QUERY_FIELDS, FieldKind

MAX_CANDIDATES = 10_000
"""With more, a page is sooner found among the first rows of the wanted order."""

SEARCHED_FIELDS = frozenset(
    {"name", "type", "projectName", "departmentName", "submittedBy", "nodepool"}
)
"""The search column holds all of each."""
INDEXED_NAMES = ("label", "node", "image", "gpuModel")
"""Fields of many names each, the most telling first; the index has each name as `FIELD=NAME`."""
_CONTAINING = frozenset({"=@", "=^", "=$"})
_TEXT_OPERATORS = _CONTAINING | {"!@"}


def looks_into_text(query: WorkloadQuery) -> bool:
    """Whether nothing but reading can tell how many rows match."""
    return bool(query.search) or any(
        p.operator in _TEXT_OPERATORS or _is_in_names(p) for p in query.predicates
    )


def _is_in_names(predicate: Predicate) -> bool:
    """Whether the index of names tells all rows for which the predicate is true."""
    return predicate.field in INDEXED_NAMES and predicate.operator == "=="


def trigrams(texts: list[str]) -> list[int]:
    """The runs of three bytes of their UTF-8, as the database's `text_trigrams` numbers them."""
    encoded = [text.encode() for text in texts]
    return sorted(
        {int.from_bytes(data[at : at + 3]) for data in encoded for at in range(len(data) - 2)}
    )


def _is_in_search_column(predicate: Predicate) -> bool:
    """Whether the column must hold the predicate's text where it is true."""
    return predicate.field in SEARCHED_FIELDS and predicate.operator in _CONTAINING


def text_arguments(statement: Statement, texts: list[str], *, is_deleted: bool) -> str:
    """What the functions over the index of trigrams take: of which state, and which texts."""
    numbers = statement.bind(trigrams(texts), "::int[]")
    patterns = statement.bind([f"%{escape_like(text)}%" for text in texts], "::text[]")
    return f"{str(is_deleted).lower()}, {numbers}, {patterns}"


def _in_search_column(statement: Statement, texts: list[str], *, is_deleted: bool) -> str:
    arguments = text_arguments(statement, texts, is_deleted=is_deleted)
    return f"SELECT n AS id FROM workload_search_ids({arguments}, {MAX_CANDIDATES + 1}) AS n"


def _in_names(statement: Statement, query: WorkloadQuery) -> str | None:
    """Rows for which one of the alternatives on one field is true; None where no field has any."""
    wanted = {p.field: p for p in query.predicates if _is_in_names(p)}
    field = next((field for field in INDEXED_NAMES if field in wanted), None)
    if field is None:
        return None
    key = alternatives_key(wanted[field])
    names = [
        f"{field}={p.value}"
        for p in query.predicates
        if _is_in_names(p) and alternatives_key(p) == key and "\0" not in str(p.value)
    ]
    state = str(query.is_deleted).lower()
    return (
        f"SELECT n AS id FROM workload_named_ids({state}, {statement.bind(names, '::text[]')}, "
        f"{MAX_CANDIDATES + 1}) AS n"
    )


def _read_alone(statement: Statement, scope: Scope, query: WorkloadQuery) -> str | None:
    """Rows for which one predicate on a part of a text is true, by the narrow rows of the search or the index
    of its field's order; None where neither can tell."""
    wanted = next((p for p in query.predicates if _is_read_alone(p)), None)
    if wanted is None:
        return None
    part = statement.shared()
    part.table = SEARCH if wanted.field in INDEXED_NAMES else WORKLOAD
    add_conditions(part, scope, WorkloadQuery(is_deleted=query.is_deleted, predicates=(wanted,)))
    return f"SELECT w.id FROM {part.source} WHERE {part.where}"


def _is_read_alone(predicate: Predicate) -> bool:
    is_text = QUERY_FIELDS[predicate.field].kind is FieldKind.TEXT
    return predicate.operator in _CONTAINING and (predicate.field in INDEXED_NAMES or is_text)


async def candidate_ids(
    connection: Connection, scope: Scope, query: WorkloadQuery, now: datetime
) -> list[UUID] | None:
    """Ids among which all matches are; None where there may be more than `MAX_CANDIDATES`."""
    enough = f"LIMIT {MAX_CANDIDATES + 1}"
    statement = Statement(now)
    texts = [ascii_lower(str(p.value)) for p in query.predicates if _is_in_search_column(p)]
    beyond = search_beyond_column(statement, query.search) if query.search and not texts else []
    if query.search and not texts:
        texts = [ascii_lower(query.search)]
    if any("\0" in text for text in texts):
        return []
    if texts:
        parts = [_in_search_column(statement, texts, is_deleted=query.is_deleted)]
    elif named := _in_names(statement, query):
        parts = [named]
    elif alone := _read_alone(statement, scope, query):
        parts = [alone]
    else:
        return None
    if beyond:
        tenant = f"w.tenant_id = {statement.bind(scope.tenant_id, '::int')}"
        parts += [
            f"(SELECT w.id FROM workload w WHERE {tenant} AND {state_condition(query)} "
            f"AND {condition} {enough})"
            for condition in beyond
        ]
    rows = await connection.fetch(
        f"SELECT id FROM ({' UNION '.join(parts)}) AS candidate WHERE {statement.where} {enough}",
        *statement.parameters,
    )
    return [row["id"] for row in rows] if len(rows) <= MAX_CANDIDATES else None
