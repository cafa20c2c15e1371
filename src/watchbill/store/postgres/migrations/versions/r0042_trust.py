"""Nodes and queues count in what a cluster has stored; which of them could not be taken is kept, with why.
Samples know which cluster told them, and whether of a node: both NULL for those of earlier versions.

`cluster.left_out`: by kind, since when and the reasons by name, as JSON; NULL where all could be taken.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0020_stored_bytes import (
    ADD,
    EVENTS,
    fill,
)

revision = "0042"
down_revision = "0043"
branch_labels = None
depends_on = None

_ROW_BYTES = 200
"""Of a row and its places in indexes, besides its texts."""
_QUEUE = "SELECT tenant_id, cluster_id, {sign} coalesce(octet_length(queue::text), 0) AS bytes FROM {rows}"
SOURCES = {
    "cluster_node": "SELECT tenant_id, cluster_id, "
    f"{{sign}} ({_ROW_BYTES} + octet_length(document)) AS bytes FROM {{rows}}",
    "project": _QUEUE,
    "department": _QUEUE,
}
"""What a row of each table counts for."""


def upgrade() -> None:
    op.execute("ALTER TABLE cluster ADD COLUMN left_out bytea")
    op.execute(
        "ALTER TABLE measured_sample ADD COLUMN cluster_id uuid, ADD COLUMN is_of_node boolean"
    )
    for table, each in SOURCES.items():
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
        each.format(sign="+", rows=table) for table, each in SOURCES.items()
    )
    op.execute(fill(ADD.format(rows=stored)))


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
