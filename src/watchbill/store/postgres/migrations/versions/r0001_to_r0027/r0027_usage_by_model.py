"""Usage by GPU model: steps tell how the allocation is divided, and days and months count each model apart."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import r0010_usage

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

KEY = (*r0010_usage.KEY, "gpu_model")
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
    for function in r0010_usage.month_functions(KEY):
        op.execute(function)


def downgrade() -> None:
    raise NotImplementedError("the accounts would be lost")
