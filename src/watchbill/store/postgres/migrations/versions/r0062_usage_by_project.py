"""Usage of projects by month: what answers reports over many months that name no workload.

A row for each month, cluster, project, department, GPU model and set of attributes, kept by the database in the
transaction that changes a workload's day, as months of workloads and days of clusters are.
"""

from alembic import op

from watchbill.accounting import SUMS
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0010_usage import MONTH_TRIGGERS

revision = "0062"
down_revision = "0061"
branch_labels = None
depends_on = None

TABLE = "usage_project_month"
_OWN = "cluster_id, project_id, department_id, gpu_model"
KEY = f"tenant_id, month, {_OWN}, attributes_id"
_NAMES = ", ".join(SUMS)
_SELECTED = (
    f"tenant_id, date_trunc('month', day::timestamp)::date AS month, {_OWN}, "
    "coalesce(attributes_id, workload_id) AS attributes_id"
)
DEFINITION = f"""
CREATE TABLE {TABLE} (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    month date NOT NULL,
    cluster_id uuid NOT NULL,
    project_id int NOT NULL,
    department_id int,
    gpu_model text NOT NULL COLLATE "C",
    attributes_id uuid NOT NULL,
    {" ".join(f"{name} numeric NOT NULL," for name in SUMS)}
    UNIQUE NULLS NOT DISTINCT ({KEY})
)
"""
# A superuser sees every tenant's rows, whatever tenant is set: each statement names its own.
FILL = f"""
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        INSERT INTO {TABLE} ({KEY}, {_NAMES})
        SELECT {KEY}, {", ".join(f"sum({name})" for name in SUMS)}
        FROM (SELECT {_SELECTED}, {_NAMES} FROM usage_day WHERE tenant_id = tenant_number) AS d
        GROUP BY {KEY};
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""
_CAME, _WENT = (
    f"SELECT {sign} AS sign, {_SELECTED}, {_NAMES} FROM {table}"
    for sign, table in ((1, "came"), (-1, "went"))
)
MOVED = {"insert": _CAME, "update": f"{_CAME} UNION ALL {_WENT}", "delete": _WENT}


def upgrade() -> None:
    op.execute(DEFINITION)
    op.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {TABLE} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO {APP_ROLE}")
    op.execute(FILL)
    op.execute(f"GRANT DELETE ON upkeep TO {APP_ROLE}")  # where all is to be accounted anew
    for event, moved in MOVED.items():
        op.execute(
            f"CREATE FUNCTION {TABLE}_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO {TABLE} AS m ({KEY}, {_NAMES}) "
            f"SELECT {KEY}, {', '.join(f'sum(sign * {name})' for name in SUMS)} "
            f"FROM ({moved}) AS moved GROUP BY {KEY} ORDER BY {KEY} ON CONFLICT ({KEY}) DO UPDATE SET "
            f"{', '.join(f'{name} = m.{name} + excluded.{name}' for name in SUMS)}; "
            "RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER project_month_{event} AFTER {event} ON usage_day "
            f"REFERENCING {MONTH_TRIGGERS[event]} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {TABLE}_{event}()"
        )


def downgrade() -> None:
    raise NotImplementedError("servers of this version read it")
