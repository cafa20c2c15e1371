"""When history was last purged; room for updates in place, and vacuum that keeps up with them.

A workload's row is updated far more often than inserted. With free space in its page, an update that changes
no indexed column needs no new index entries (HOT); small scale factors keep dead rows few in large tables.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE upkeep (
    task text PRIMARY KEY,
    last_at timestamptz NOT NULL
)
"""
SETTINGS = {
    "workload": "fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, "
    "autovacuum_analyze_scale_factor = 0.05",
    "cluster": "fillfactor = 50, autovacuum_vacuum_threshold = 200",
    "workload_tally": "autovacuum_vacuum_scale_factor = 0.05",
    "workload_elements": "fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05",
    "phase_transition": "autovacuum_vacuum_insert_scale_factor = 0.05",
    "usage_sample": "autovacuum_vacuum_insert_scale_factor = 0.05",
    "inventory_entry": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000",
}


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON upkeep TO {APP_ROLE}")
    for table, settings in SETTINGS.items():
        op.execute(f"ALTER TABLE {table} SET ({settings})")


def downgrade() -> None:
    op.execute("DROP TABLE upkeep")
    for table, settings in SETTINGS.items():
        names = ", ".join(setting.split(" = ")[0] for setting in settings.split(", "))
        op.execute(f"ALTER TABLE {table} RESET ({names})")
