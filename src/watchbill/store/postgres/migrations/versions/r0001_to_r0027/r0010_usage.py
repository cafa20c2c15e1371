"""Usage by day: the steps it is accounted from, the sums, and how far each workload is accounted.

`usage_step` holds a row only where something that counts changes. What is late (a step or a deletion before the
moment up to which a workload is accounted) sets `rewind_at`, and its days are accounted anew.
"""

from collections.abc import Iterator, Sequence

from alembic import op

from watchbill.accounting import SUMS
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = {
    "usage_step": """
    workload_id uuid NOT NULL,
    at timestamptz NOT NULL,
    project_id int NOT NULL,
    department_id int,
    requested_gpu bigint NOT NULL,
    allocated_gpu bigint NOT NULL,
    idle_gpu bigint,
    idle_hours double precision NOT NULL,
    idle_mean_since timestamptz,
    cpu_cores double precision NOT NULL,
    memory_bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, workload_id, at)
""",
    "usage_state": """
    workload_id uuid NOT NULL,
    until timestamptz NOT NULL,
    rewind_at timestamptz,
    PRIMARY KEY (tenant_id, workload_id)
""",
    # Of workloads that used anything: what a report may group by, for as long as the sums are kept.
    "usage_workload": """
    workload_id uuid NOT NULL,
    cluster_id uuid NOT NULL,
    name text NOT NULL COLLATE "C",
    namespace text NOT NULL COLLATE "C",
    type text NOT NULL COLLATE "C",
    category text COLLATE "C",
    submitted_by text COLLATE "C",
    priority_class_name text COLLATE "C",
    node_pool text COLLATE "C",
    PRIMARY KEY (tenant_id, workload_id)
""",
    "usage_day": f"""
    day date NOT NULL,
    workload_id uuid NOT NULL,
    cluster_id uuid NOT NULL,
    project_id int NOT NULL,
    department_id int,
    {" ".join(f"{name} bigint NOT NULL," for name in SUMS)}
    UNIQUE NULLS NOT DISTINCT (tenant_id, workload_id, day, project_id, department_id)
""",
}
TABLES["usage_month"] = TABLES["usage_day"].replace("day", "month").replace("bigint", "numeric")
INDEXES = (
    "CREATE INDEX usage_state_rewind ON usage_state (tenant_id, workload_id) "
    "WHERE rewind_at IS NOT NULL",
    "CREATE INDEX usage_day_day ON usage_day (tenant_id, day)",
    "CREATE INDEX usage_month_month ON usage_month (tenant_id, month)",
)
SEED = """
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        INSERT INTO usage_step SELECT u.tenant_id, u.workload_id, u.at, w.project_id, w.department_id,
            u.gpu_millionths, u.gpu_millionths, NULL, 0, NULL, coalesce(u.cpu_request_cores, 0),
            coalesce(u.cpu_memory_request_bytes, 0)
        FROM usage_sample u JOIN workload w ON w.tenant_id = u.tenant_id AND w.id = u.workload_id
        WHERE u.tenant_id = tenant_number;
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""
KEY = ("tenant_id", "workload_id", "cluster_id", "project_id", "department_id")
"""What the sums of a workload's days and months are kept by."""
MONTH_TRIGGERS = {
    "insert": "NEW TABLE AS came",
    "update": "OLD TABLE AS went NEW TABLE AS came",
    "delete": "OLD TABLE AS went",
}
"""Event: what the trigger sees of it."""
LATE = """
CREATE FUNCTION usage_step_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_state s SET rewind_at = least(s.rewind_at, n.at)
    FROM (SELECT tenant_id, workload_id, min(at) AS at FROM came GROUP BY 1, 2) AS n
    WHERE s.tenant_id = n.tenant_id AND s.workload_id = n.workload_id AND n.at < s.until;
    RETURN NULL;
END $$
"""


def month_functions(key: Sequence[str]) -> Iterator[str]:
    """The triggers' functions: a month is the sum of its days, in the transaction that changes one."""
    group = ", ".join(key)
    same = ", ".join(column for column in (*key, "month") if column != "cluster_id")

    def rows(sign: int, table: str) -> str:
        return f"SELECT {sign} AS sign, day, {group}, {', '.join(SUMS)} FROM {table}"

    came, went = rows(1, "came"), rows(-1, "went")
    for event, moved in {
        "insert": came,
        "update": f"{came} UNION ALL {went}",
        "delete": went,
    }.items():
        yield f"""
CREATE OR REPLACE FUNCTION usage_month_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO usage_month AS m ({group}, month, {", ".join(SUMS)})
    SELECT {group}, date_trunc('month', day::timestamp)::date,
        {", ".join(f"sum(sign * {name})" for name in SUMS)}
    FROM ({moved}) AS moved GROUP BY {group}, date_trunc('month', day::timestamp)
    ON CONFLICT ({same}) DO UPDATE SET
        {", ".join(f"{name} = m.{name} + excluded.{name}" for name in SUMS)};
    RETURN NULL; END $$
"""


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(
            f"CREATE TABLE {table} (tenant_id int NOT NULL CHECK (tenant_id > 0), {columns})"
        )
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP_ROLE}")
    for statement in INDEXES:
        op.execute(statement)
    op.execute(SEED)
    op.execute(LATE)
    for function in month_functions(KEY):
        op.execute(function)
    for event, seen in MONTH_TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER month_{event} AFTER {event} ON usage_day REFERENCING {seen} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION usage_month_{event}()"
        )
    op.execute(
        "CREATE TRIGGER late AFTER INSERT ON usage_step REFERENCING NEW TABLE AS came "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_step_late()"
    )


def downgrade() -> None:
    raise NotImplementedError("the accounts would be lost")
