"""Usage by GPU model: steps tell how the allocation is divided, and days and months count each model apart."""

from alembic import op

from watchbill.accounting import SUMS
from watchbill.store.postgres.migrations.versions.r0010_usage import MONTHS

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_KEY = "tenant_id, workload_id, cluster_id, project_id, department_id, gpu_model"
_ADD = f"""
    INSERT INTO usage_month AS m ({_KEY}, month, {", ".join(SUMS)})
    SELECT {_KEY}, date_trunc('month', day::timestamp)::date,
        {", ".join(f"sum(sign * {name})" for name in SUMS)}
    FROM ({{rows}}) AS moved GROUP BY {_KEY}, date_trunc('month', day::timestamp)
    ON CONFLICT (tenant_id, workload_id, month, project_id, department_id, gpu_model) DO UPDATE SET
        {", ".join(f"{name} = m.{name} + excluded.{name}" for name in SUMS)};
"""
_DROP_UNIQUE = """
DO $$
BEGIN
    EXECUTE (SELECT 'ALTER TABLE {table} DROP CONSTRAINT ' || quote_ident(conname) FROM pg_constraint
        WHERE conrelid = '{table}'::regclass AND contype = 'u');
END $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE usage_step ADD COLUMN gpu_by_model jsonb NOT NULL DEFAULT '{}'")
    for period in ("day", "month"):
        table = f"usage_{period}"
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN gpu_model text NOT NULL DEFAULT '' COLLATE \"C\""
        )
        op.execute(_DROP_UNIQUE.format(table=table))
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_key UNIQUE NULLS NOT DISTINCT "
            f"(tenant_id, workload_id, {period}, project_id, department_id, gpu_model)"
        )
    for event, (_, rows) in MONTHS.items():
        moved = rows.replace("department_id,", "department_id, gpu_model,")
        op.execute(
            f"CREATE OR REPLACE FUNCTION usage_month_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"BEGIN {_ADD.format(rows=moved)} RETURN NULL; END $$"
        )


def downgrade() -> None:
    raise NotImplementedError("the accounts would be lost")
