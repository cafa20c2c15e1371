"""Usage of whole clusters by day: what answers reports that name no project and no workload.

A row for each day, cluster, department and GPU model, kept by the database in the transaction that changes a
workload's day, as months are.
"""

from alembic import op

from watchbill.accounting import SUMS
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0010_usage import MONTH_TRIGGERS

revision = "0037"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLE = "usage_cluster_day"
KEY = "tenant_id, day, cluster_id, department_id, gpu_model"
_NAMES = ", ".join(SUMS)
DEFINITION = f"""
CREATE TABLE {TABLE} (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    day date NOT NULL,
    cluster_id uuid NOT NULL,
    department_id int,
    gpu_model text NOT NULL COLLATE "C",
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
        SELECT {KEY}, {", ".join(f"sum({name})" for name in SUMS)} FROM usage_day
        WHERE tenant_id = tenant_number GROUP BY {KEY};
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""
_CAME, _WENT = (
    f"SELECT {sign} AS sign, {KEY}, {_NAMES} FROM {table}"
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
    for event, moved in MOVED.items():
        op.execute(
            f"CREATE FUNCTION {TABLE}_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO {TABLE} AS d ({KEY}, {_NAMES}) "
            f"SELECT {KEY}, {', '.join(f'sum(sign * {name})' for name in SUMS)} "
            f"FROM ({moved}) AS moved GROUP BY {KEY} ON CONFLICT ({KEY}) DO UPDATE SET "
            f"{', '.join(f'{name} = d.{name} + excluded.{name}' for name in SUMS)}; "
            "RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER cluster_day_{event} AFTER {event} ON usage_day "
            f"REFERENCING {MONTH_TRIGGERS[event]} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {TABLE}_{event}()"
        )


def downgrade() -> None:
    raise NotImplementedError("servers of this version read it")
