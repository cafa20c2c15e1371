"""Steps of usage count in what a cluster has stored: an agent that was taken over tells them without end."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0020_stored_bytes import (
    ADD,
    EVENTS,
    fill,
)

revision = "0048"
down_revision = "0046"
branch_labels = None
depends_on = None

_ROW_BYTES = 150
"""Of a row and its place in the index, besides its texts."""
_OF_WORKLOAD = (
    "SELECT w.tenant_id, w.cluster_id, {{sign}} ({size}) AS bytes FROM {{rows}} c "
    "JOIN workload w ON w.tenant_id = c.tenant_id AND w.id = c.workload_id"
)
SIZES = {
    "usage_step": f"{_ROW_BYTES} + octet_length(c.gpu_by_model::text)",
    "usage_sample": str(_ROW_BYTES),
}
"""What a row of each table counts for."""


def upgrade() -> None:
    counted = {table: _OF_WORKLOAD.format(size=size) for table, size in SIZES.items()}
    for table, each in counted.items():
        for event, (seen, parts) in EVENTS.items():
            rows = " UNION ALL ".join(each.format(sign=sign, rows=rows) for sign, rows in parts)
            op.execute(
                f"CREATE FUNCTION stored_bytes_{table}_{event}() RETURNS trigger LANGUAGE plpgsql "
                f"AS $$ BEGIN {ADD.format(rows=rows)} RETURN NULL; END $$"
            )
            op.execute(
                f"CREATE TRIGGER stored_bytes_{event} AFTER {event} ON {table} REFERENCING {seen} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION stored_bytes_{table}_{event}()"
            )
    stored = " UNION ALL ".join(
        each.format(sign="+", rows=table) for table, each in counted.items()
    )
    op.execute(fill(ADD.format(rows=stored)))


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
