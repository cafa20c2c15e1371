"""Whether anything changed among what is gone, by the hour of deletion: for counts that are remembered.

Every statement that adds, changes or removes a deleted workload, or a pod that is gone, gives the segments it
lies in another version, in its own transaction. A change of where a live or deleted workload belongs, or of its
name, counts for its pods, which are in scope and are searched by it. Each backend has rows of its own, so no
two writers meet in one: a segment's version is the sum of them.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0006_tally import TRIGGERS

revision = "0064"
down_revision = "0063"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE gone_segment (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    source text NOT NULL COLLATE "C" CHECK (source IN ('workload', 'workload_pod')),
    begins_at timestamptz NOT NULL,
    backend int NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant_id, source, begins_at, backend)
) WITH (fillfactor = 70)
"""
BEGINS = """
CREATE FUNCTION gone_segment_begins(at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT date_bin(interval '1 hour', at, timestamptz '2000-01-01 00:00:00+00')
$$
"""
CHANGED = {
    "insert": "SELECT tenant_id, deleted_at FROM came",
    "update": "SELECT tenant_id, deleted_at FROM came UNION ALL SELECT tenant_id, deleted_at FROM went",
    "delete": "SELECT tenant_id, deleted_at FROM went",
}
SOURCES = ("workload", "workload_pod")
PODS_OF_MOVED = """
    moved := ARRAY(
        SELECT n.id FROM came n JOIN went o ON o.tenant_id = n.tenant_id AND o.id = n.id
        WHERE (o.cluster_id, o.project_id, o.department_id, o.name)
            IS DISTINCT FROM (n.cluster_id, n.project_id, n.department_id, n.name)
    );
    IF cardinality(moved) > 0 THEN
        {mark}
    END IF;
"""


def _mark(source: str, changed: str) -> str:
    """A new version, by chance no earlier one, for the segments that rows of `changed` were deleted in."""
    return f"""
    INSERT INTO gone_segment (tenant_id, source, begins_at, backend, version)
    SELECT tenant_id, '{source}', begins_at, pg_backend_pid(),
        hashtextextended(gen_random_uuid()::text, 0)
    FROM (SELECT DISTINCT tenant_id, gone_segment_begins(deleted_at) AS begins_at
        FROM ({changed}) AS c WHERE deleted_at IS NOT NULL) AS segment
    ON CONFLICT (tenant_id, source, begins_at, backend) DO UPDATE SET version = excluded.version;
"""


def _function(source: str, event: str) -> str:
    body = _mark(source, CHANGED[event])
    if (source, event) == ("workload", "update"):
        pods = (
            "SELECT tenant_id, deleted_at FROM workload_pod "
            "WHERE tenant_id IN (SELECT tenant_id FROM came) AND workload_id = ANY(moved)"
        )
        body += PODS_OF_MOVED.format(mark=_mark("workload_pod", pods))
    return (
        f"CREATE FUNCTION gone_segment_{source}_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"DECLARE moved uuid[]; BEGIN {body} RETURN NULL; END $$"
    )


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE gone_segment ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE gone_segment FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON gone_segment USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON gone_segment TO {APP_ROLE}")
    op.execute(BEGINS)
    for source in SOURCES:
        for event, seen in TRIGGERS.items():
            op.execute(_function(source, event))
            op.execute(
                f"CREATE TRIGGER gone_segment_{event} AFTER {event} ON {source} REFERENCING {seen} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION gone_segment_{source}_{event}()"
            )


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
