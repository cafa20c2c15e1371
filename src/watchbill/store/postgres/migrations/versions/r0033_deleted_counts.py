"""Deleted workloads counted like live ones, and an index for each of their orders that had none.

The tally of deleted workloads is a table of its own, so that a server of an earlier version, which knows no
deleted rows in the tally, counts right beside this one.

Node pools are sorted by as one text: names in their order, a character between them that none contains, cut to
what an index can hold. The total pending and running times of what is deleted do not change any more.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import (
    r0006_tally,
    r0025_workload_class,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0033"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE workload_deleted_tally (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    digest bytea NOT NULL,
    project_id int NOT NULL,
    department_id int,
    project_name text NOT NULL COLLATE "C",
    department_name text COLLATE "C",
    type text NOT NULL COLLATE "C",
    phase text NOT NULL COLLATE "C",
    category text COLLATE "C",
    current_node_pools text[] COLLATE "C",
    requested_node_pools text[] COLLATE "C",
    workload_class text COLLATE "C",
    workloads bigint NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, digest)
) WITH (fillfactor = 70)
"""
NAME = "workload_deleted_tally"
FIGURES = {"workloads": "1"}
NODE_POOLS_ORDER = """
CREATE FUNCTION names_order(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT left(array_to_string(names, E'\\x01'), 600)
$$
"""
INDEXES = {
    "workload_by_node_pools": ("names_order(current_node_pools)", "deleted_at IS NULL"),
    "workload_deleted_by_node_pools": ("names_order(current_node_pools)", "deleted_at IS NOT NULL"),
    "workload_deleted_by_pending": ("(pending_ms / 1000)", "deleted_at IS NOT NULL"),
    "workload_deleted_by_running": ("(running_ms / 1000)", "deleted_at IS NOT NULL"),
}


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(f"ALTER TABLE {NAME} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {NAME} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {NAME} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {NAME} TO {APP_ROLE}")
    for function in r0006_tally.functions(
        FIGURES, r0025_workload_class.KEY, table=NAME, state="w.deleted_at IS NOT NULL"
    ):
        op.execute(function)
    for event, seen in r0006_tally.TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER deleted_tally_{event} AFTER {event} ON workload REFERENCING {seen} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {NAME}_{event}()"
        )
    op.execute(r0006_tally.FILL.replace("workload_tally_rebuild", f"{NAME}_rebuild"))
    op.execute(NODE_POOLS_ORDER)
    for name, (expression, condition) in INDEXES.items():
        op.execute(
            f"CREATE INDEX {name} ON workload (tenant_id, {expression}, id) WHERE {condition}"
        )


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
