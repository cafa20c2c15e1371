"""How many workloads a search finds, in parts that share no row.

The phases that the text names, which are counted like any other; of other phases the rows whose text holds it,
by the index of trigrams; of the rest the ids that begin with it.
"""

from copy import copy
from dataclasses import replace
from datetime import datetime

from watchbill.query import Scope, WorkloadQuery, ascii_lower
from watchbill.store.workloads.search import text_arguments, trigrams
from watchbill.store.workloads.select import (
    SEARCH,
    SEPARATOR,
    Statement,
    add_conditions,
    escape_like,
    id_bounds,
    phases_containing,
)
from watchbill.store.workloads.tally import IN_SEARCH_TABLE, counting


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
    statement = counting(scope, rest, now)
    counts = []
    phases = phases_containing(text)
    named = f"w.phase = ANY({statement.bind(phases, '::text[]')})" if phases else "false"
    if phases:
        statement.conditions.append(named)
        counts.append(_count(statement))
    arguments = text_arguments(statement, [text], is_deleted=query.is_deleted)
    held = _part(statement, f"workload_search_rows({arguments})", scope, rest)
    held.conditions.append(f"NOT {named}")
    counts.append(_count(held))
    if bounds := id_bounds(text):
        begins = _part(statement, SEARCH, scope, rest)
        first, last = (begins.bind(bound, "::uuid") for bound in bounds)
        pattern = begins.bind(f"%{escape_like(text)}%", "::text")
        begins.conditions += [
            f"w.id BETWEEN {first} AND {last}",
            f"w.search NOT LIKE {pattern}",
            f"NOT {named}",
        ]
        counts.append(_count(begins))
    return f"SELECT {' + '.join(counts)}", statement.parameters


def _part(statement: Statement, table: str, scope: Scope, query: WorkloadQuery) -> Statement:
    """Over another table, with the same parameters."""
    part = copy(statement)
    part.table, part.conditions, part.needs_cluster = table, [], False
    add_conditions(part, scope, query)
    return part


def _count(part: Statement) -> str:
    return f"(SELECT {part.count} FROM {part.source} WHERE {part.where})"
