"""Workloads found by image, node, GPU model and label: arrays of names, and one index over all four.

The index lies on the search table, whose owner reads it in a function that names the session's tenant itself,
as with the trigrams (see r0018): row security lets an index of arrays answer nobody else. What was reported
before has no such names until its agent reports it again.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import r0018_search
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0036"
down_revision = "0032"
branch_labels = None
depends_on = None

FIELDS = {"image": "images", "node": "nodes", "gpuModel": "gpu_models", "label": "labels"}
"""A field and its column."""
_PARTS = " || ".join(
    f"coalesce((SELECT array_agg('{field}=' || name) FROM unnest({column}) AS name), '{{}}')"
    for field, column in FIELDS.items()
)
_PARAMETERS = ", ".join(f"{column} text[]" for column in FIELDS.values())
_COLUMNS = ", ".join(FIELDS.values())
NAMES = f"""
CREATE FUNCTION workload_names({_PARAMETERS}) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {_PARTS} $$
"""
MATCHES = f"""
CREATE FUNCTION workload_named_ids(deleted boolean, alternatives text[], most bigint)
RETURNS SETOF uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT id FROM public.workload_search '
        'WHERE tenant_id = NULLIF(current_setting(''watchbill.tenant_id'', true), '''')::int '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || 'AND public.workload_names({_COLUMNS}) && $1 LIMIT $2'
    USING alternatives, most;
END $$
"""
FOLLOWED = (*r0018_search.FOLLOWED, "workload_class", *FIELDS.values())
"""What changes with the workload's own column in the search table."""


def upgrade() -> None:
    for table in ("workload", "workload_search"):
        added = ", ".join(f'ADD COLUMN {column} text[] COLLATE "C"' for column in FIELDS.values())
        op.execute(f"ALTER TABLE {table} {added}")
    op.execute(NAMES)
    op.execute(MATCHES)
    for name, condition in r0018_search.INDEXES.items():
        op.execute(
            f"CREATE INDEX workload_search_names_{name} ON workload_search USING gin "
            f"(workload_names({_COLUMNS})) WITH (gin_pending_list_limit = 512) WHERE {condition}"
        )
    op.execute("REVOKE ALL ON FUNCTION workload_named_ids FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION workload_named_ids TO {APP_ROLE}")
    for event, (body, fires) in r0018_search.triggers(FOLLOWED).items():
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
