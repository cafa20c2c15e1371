"""AI work told from the rest: by a column, indexes to sort by, in the tally and in the search table.

What was reported before has no class until its agent reports it again."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import r0006_tally, r0018_search

revision = "0025"
down_revision = "0015"
branch_labels = None
depends_on = None

KEY = (*r0006_tally.KEY, "workload_class")
"""What the tally counts by."""
INDEXES = {
    "workload_by_class": "deleted_at IS NULL",
    "workload_deleted_by_class": "deleted_at IS NOT NULL",
}


def upgrade() -> None:
    for table in ("workload", "workload_tally", "workload_search"):
        op.execute(f'ALTER TABLE {table} ADD COLUMN workload_class text COLLATE "C"')
    for name, condition in INDEXES.items():
        op.execute(
            f"CREATE INDEX {name} ON workload (tenant_id, workload_class, id) WHERE {condition}"
        )
    for function in r0006_tally.functions(r0006_tally.FIGURES, KEY):
        op.execute(function)
    op.execute(r0006_tally.FILL)
    followed = (*r0018_search.FOLLOWED, "workload_class")
    for event, (body, fires) in r0018_search.triggers(followed).items():
        op.execute(
            f"CREATE OR REPLACE FUNCTION workload_search_{event}() RETURNS trigger LANGUAGE plpgsql "
            f"AS $$ BEGIN {body} END $$"
        )
        op.execute(f"DROP TRIGGER search_{event} ON workload")
        op.execute(
            f"CREATE TRIGGER search_{event} {fires} EXECUTE FUNCTION workload_search_{event}()"
        )


def downgrade() -> None:
    raise NotImplementedError("servers of this version filter by it")
