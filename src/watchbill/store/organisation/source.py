"""Where projects and departments are read from: their rows, what their live workloads hold, and their averages.

Every source is called `w` and bears the columns that the one scope predicate names.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from watchbill.protocol import DISCONNECTED_AFTER_SECONDS
from watchbill.query import Scope
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.workloads.select import TALLY, Statement, in_scope

ENDED = "('Completed', 'Failed', 'Stopped', 'Stopping', 'Deleting', 'Terminating')"
"""Phases in which a workload asks for nothing any more."""
RESOURCES = ("gpu", "cpu", "memory")
_HELD = "(w.allocated_gpu > 0 OR w.allocated_cpu > 0 OR w.allocated_memory > 0)"
_UNKNOWN = {"gpu": "unknown_gpu", "cpu": "unknown_host", "memory": "unknown_host"}


def _figures() -> dict[str, str]:
    """Sums over rows of the tally. What is not known of one of the workloads is NULL of all of them."""
    figures = {
        "workloads": "sum(w.workloads)",
        "running": "coalesce(sum(w.workloads) FILTER (WHERE w.phase = 'Running'), 0)",
        "pending": "coalesce(sum(w.workloads) FILTER (WHERE w.phase = 'Pending'), 0)",
        "pending_gpu": "coalesce(sum(w.requested_gpu) FILTER (WHERE w.phase = 'Pending'), 0)",
        "idle_gpu": "CASE WHEN sum(w.measured_workloads) > 0 OR sum(w.allocated_gpu) = 0 "
        "THEN sum(w.idle_gpu) END",
    }
    for name in RESOURCES:
        known = f"sum(w.{_UNKNOWN[name]}) = 0"
        figures[f"allocated_{name}"] = f"CASE WHEN {known} THEN sum(w.allocated_{name}) END"
        figures[f"requested_{name}"] = (
            f"CASE WHEN {'true' if name == 'gpu' else known} THEN coalesce(sum(w.requested_{name}) "
            f"FILTER (WHERE w.phase NOT IN {ENDED}), 0) END"
        )
        figures[f"fixed_{name}"] = (
            f"CASE WHEN {known} AND coalesce(sum(w.workloads) FILTER (WHERE w.preemptible IS NULL "
            f"AND {_HELD}), 0) = 0 THEN coalesce(sum(w.allocated_{name}) "
            "FILTER (WHERE NOT w.preemptible), 0) END"
        )
    return figures


FIGURES = _figures()
"""`fixed_`: held by workloads that cannot be preempted."""
_FIGURES_SQL = ", ".join(f"{sql} AS {name}" for name, sql in FIGURES.items())

PROJECTS = (
    "(SELECT p.tenant_id, p.cluster_id, p.id AS project_id, p.department_id, p.id, p.key, p.name, p.queue, "
    "p.gpu_quota, p.cpu_quota, p.memory_quota, p.created_at, p.updated_at, p.department_id AS above, "
    "d.name AS above_name FROM project p LEFT JOIN department d ON d.tenant_id = p.tenant_id "
    "AND d.id = p.department_id) AS w"
)
DEPARTMENTS = (
    "(SELECT d.tenant_id, d.cluster_id, NULL::int AS project_id, d.id AS department_id, d.id, d.key, d.name, "
    "d.queue, d.gpu_quota, d.cpu_quota, d.memory_quota, d.created_at, d.updated_at, d.parent_id AS above, "
    "a.name AS above_name FROM department d LEFT JOIN department a ON a.tenant_id = d.tenant_id "
    "AND a.id = d.parent_id) AS w"
)
BELOW = (
    "(WITH RECURSIVE tree(top, id, depth) AS (SELECT id, id, 0 FROM department WHERE tenant_id = {tenant} "
    "UNION SELECT t.top, d.id, t.depth + 1 FROM tree t JOIN department d ON d.tenant_id = {tenant} "
    "AND d.parent_id = t.id WHERE t.depth < 16) SELECT DISTINCT top, id FROM tree)"
)
"""Departments with themselves and those below them."""
_HAS_PROJECTS = (
    "EXISTS (SELECT FROM project p WHERE p.tenant_id = w.tenant_id AND p.department_id = w.id "
    "AND p.queue IS NOT NULL)"
)


def unit_source(statement: Statement, scope: Scope, unit: OrganisationUnit) -> str:
    """Projects or departments `w` of clusters that are there, with the sums `s` of what is in scope."""
    sums = statement.shared()
    in_scope(sums, scope)
    table = PROJECTS if unit == "project" else DEPARTMENTS
    counted = f"{TALLY} w"
    key = "w.project_id"
    if unit == "department":
        below = BELOW.format(tenant=statement.bind(scope.tenant_id, "::int"))
        counted, key = f"{TALLY} w JOIN {below} AS b ON b.id = w.department_id", "b.top"
    return (
        f"{table} JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
        f"AND c.removed_at IS NULL LEFT JOIN (SELECT {key} AS id, {_FIGURES_SQL} FROM {counted} "
        f"WHERE {sums.where} GROUP BY 1) AS s ON s.id = w.id"
    )


def exists_condition(unit: OrganisationUnit) -> str:
    """It has a queue or live workloads; one that only an access rule or the past names is not listed."""
    alive = "w.queue IS NOT NULL OR s.workloads > 0"
    return f"({alive})" if unit == "project" else f"({alive} OR {_HAS_PROJECTS})"


def whole_condition(statement: Statement, scope: Scope) -> str:
    """Whether a department is in scope as a whole."""
    if scope.is_whole_tenant:
        return "true"
    clusters = statement.bind(sorted(scope.cluster_ids), "::uuid[]")
    departments = statement.bind(sorted(scope.department_ids), "::int[]")
    return f"(w.cluster_id = ANY({clusters}) OR w.id = ANY({departments}))"


def top_condition(statement: Statement, scope: Scope) -> str:
    """Whether no department above is in scope as a whole: its sums would hold this one's."""
    if scope.is_whole_tenant:
        return "w.above IS NULL"
    clusters = statement.bind(sorted(scope.cluster_ids), "::uuid[]")
    departments = statement.bind(sorted(scope.department_ids), "::int[]")
    return (
        f"(w.above IS NULL OR NOT (w.cluster_id = ANY({clusters}) OR w.above = ANY({departments})))"
    )


def visible_departments(statement: Statement, scope: Scope) -> str:
    """Those in scope as a whole, and those of which a project is."""
    whole = whole_condition(statement, scope)
    projects = statement.bind(sorted(scope.project_ids), "::int[]")
    return (
        f"({whole} OR EXISTS (SELECT FROM project p WHERE p.tenant_id = w.tenant_id "
        f"AND p.department_id = w.id AND p.id = ANY({projects})))"
    )


STEP_SECONDS = 300
RANGES = {
    "24h": (timedelta(hours=24), 1_500),
    "7d": (timedelta(days=7), 10_500),
    "30d": (timedelta(days=30), 39_900),
}
"""The step between the instants of an average, seconds: some sixty of them, and at no two the same hour."""


def range_instants(name: str, now: datetime) -> list[datetime]:
    length, step = RANGES[name]
    last = math.floor(now.timestamp() / STEP_SECONDS) * STEP_SECONDS
    count = int(length.total_seconds() // step)
    return [datetime.fromtimestamp(last - number * step, UTC) for number in range(count)]


_DISCONNECTED = f"interval '{DISCONNECTED_AFTER_SECONDS} seconds'"
"""After so long without contact the last figures say nothing of an instant."""


def averages(
    statement: Statement,
    tenant_id: int,
    unit: OrganisationUnit,
    ranges: Iterable[str],
    *,
    ids: Sequence[int] | None = None,
) -> str:
    """Rows (id, range, millionths of GPUs held in the mean), since the unit was there and without the times
    when its cluster was disconnected; `ids` None = of all.

    The instants come first and each looks up its own rows, whatever the planner thinks of a table that has
    just been filled: joined in another order every row of the series is read for every instant.
    """
    wanted = [(name, at) for name in ranges for at in range_instants(name, statement.now)]
    tenant = statement.bind(tenant_id, "::int")
    names = statement.bind([name for name, _ in wanted], "::text[]")
    instants = statement.bind([at for _, at in wanted], "::timestamptz[]")
    chosen = "true" if ids is None else f"u.id = ANY({statement.bind(list(ids), '::int[]')})"
    return (
        "WITH instant AS MATERIALIZED (SELECT n.range, c.at, c.cluster_id, "
        f"coalesce(c.counted_at, c.at) AS counted_at FROM unnest({names}, {instants}) AS n(range, at) "
        f"JOIN fleet_cluster c ON c.tenant_id = {tenant} AND c.at = n.at "
        f"JOIN cluster k ON k.tenant_id = {tenant} AND k.id = c.cluster_id "
        f"AND c.at < k.last_contact_at + {_DISCONNECTED} WHERE NOT EXISTS (SELECT FROM cluster_gap g "
        f"WHERE g.tenant_id = {tenant} AND g.cluster_id = c.cluster_id AND g.is_silence "
        f"AND c.at >= g.from_at + {_DISCONNECTED} AND c.at <= g.to_at)), "
        f"unit AS MATERIALIZED (SELECT u.id, u.cluster_id, u.created_at FROM {unit} u "
        f"WHERE u.tenant_id = {tenant} AND {chosen}), "
        "held AS MATERIALIZED (SELECT u.id, i.range, sum(f.allocated_gpu) AS gpu FROM instant i "
        f"CROSS JOIN LATERAL (SELECT p.{unit}_id AS id, p.allocated_gpu FROM fleet_project p "
        f"WHERE p.tenant_id = {tenant} AND p.at = i.counted_at AND p.cluster_id = i.cluster_id "
        "OFFSET 0) AS f JOIN unit u ON u.id = f.id AND u.created_at <= i.at GROUP BY 1, 2) "
        "SELECT u.id, i.range, coalesce(h.gpu, 0) / count(DISTINCT i.at) AS gpu FROM instant i "
        "JOIN unit u ON u.cluster_id = i.cluster_id AND u.created_at <= i.at "
        "LEFT JOIN held h ON h.id = u.id AND h.range = i.range GROUP BY u.id, i.range, h.gpu"
    )


def unit_number(text: str) -> int | None:
    """A project's or department's number, which may be written as a UUID; None for any other text."""
    if text.isascii() and text.isdigit():
        number = int(text[:12])
        return number if 0 < number < 2**31 and len(text) <= 10 else None
    try:
        number = UUID(text).int
    except ValueError:
        return None
    return number if 0 < number < 2**31 else None
