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
from watchbill.store.workloads.tally import IN_SEARCH_TABLE, count_table


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
    parts = []
    phases = phases_containing(text)
    named = f"w.phase = ANY({statement.bind(phases, '::text[]')})" if phases else "false"
    if phases:
        parts.append(_part(statement, count_table(rest), named))
    arguments = text_arguments(statement, [text], is_deleted=query.is_deleted)
    parts.append(_part(statement, f"workload_search_rows({arguments})", f"NOT {named}"))
    if bounds := id_bounds(text):
        first, last = (statement.bind(bound, "::uuid") for bound in bounds)
        pattern = statement.bind(f"%{escape_like(text)}%", "::text")
        begins = f"w.id BETWEEN {first} AND {last} AND w.search NOT LIKE {pattern}"
        parts.append(_part(statement, SEARCH, f"{begins} AND NOT {named}"))
    for part in parts:
        add_conditions(part, scope, rest)
    counts = [f"(SELECT {part.count} FROM {part.source} WHERE {part.where})" for part in parts]
    return f"SELECT {' + '.join(counts)}", statement.parameters


def _part(statement: Statement, table: str, condition: str) -> Statement:
    """Over a table of its own, with the parameters of the whole."""
    part = copy(statement)
    part.table, part.conditions = table, [condition]
    return part
