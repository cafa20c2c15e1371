"""The tally: live workloads counted by what they are usually counted by, kept exact by triggers.

It changes in the transaction that changes a workload, so a count is never older nor newer than the list. The
cluster is part of the key and every writer holds its cluster's row, so no two writers meet in one row of it.
Names can be too long for an index, hence the digest.
"""

from collections.abc import Iterator, Mapping, Sequence

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE workload_tally (
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
    workloads bigint NOT NULL,
    allocated_gpu bigint NOT NULL,
    measured_workloads bigint NOT NULL,
    measured_gpu bigint NOT NULL,
    idle_gpu bigint NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, digest)
) WITH (fillfactor = 70)
"""

KEY = (
    *("project_id", "department_id", "project_name", "department_name", "type", "phase"),
    *("category", "current_node_pools", "requested_node_pools"),
)
FIGURES = {
    "workloads": "1",
    "allocated_gpu": "w.allocated_gpu",
    "measured_workloads": "(w.idle_allocated_gpu IS NOT NULL AND w.allocated_gpu > 0)::int",
    "measured_gpu": "CASE WHEN w.idle_allocated_gpu IS NULL THEN 0 ELSE w.allocated_gpu END",
    "idle_gpu": "coalesce(w.idle_allocated_gpu, 0)",
}
"""What one live workload adds to each figure."""

# Event: what the trigger sees of it.
TRIGGERS = {
    "insert": "NEW TABLE AS came",
    "update": "OLD TABLE AS went NEW TABLE AS came",
    "delete": "OLD TABLE AS went",
}


def functions(
    figures: Mapping[str, str],
    key: Sequence[str],
    *,
    table: str = "workload_tally",
    state: str = "w.deleted_at IS NULL",
) -> Iterator[str]:
    """The triggers' functions and the one that counts anew, for these figures of the rows with one `key`.

    `state`: of which rows the table tells.
    """
    group = ", ".join(("tenant_id", "cluster_id", *key))

    def rows(sign: int, source: str) -> str:
        return (
            f"SELECT {sign} AS sign, "
            + ", ".join(f"w.{column}" for column in ("tenant_id", "cluster_id", *key))
            + "".join(f", {each} AS {figure}" for figure, each in figures.items())
            + f" FROM {source} w WHERE {state}"
        )

    def add(moved: str) -> str:
        return f"""
    INSERT INTO {table} AS t (digest, {group}, {", ".join(figures)})
    SELECT sha256(convert_to(ROW({", ".join(key)})::text, 'UTF8')), {group},
        {", ".join(f"sum(sign * {figure})" for figure in figures)}
    FROM ({moved}) AS moved GROUP BY {group}
    HAVING {" OR ".join(f"sum(sign * {figure}) <> 0" for figure in figures)}
    ON CONFLICT (tenant_id, cluster_id, digest) DO UPDATE SET
        {", ".join(f"{figure} = t.{figure} + excluded.{figure}" for figure in figures)};
"""

    came, went = rows(1, "came"), rows(-1, "went")
    moved = {"insert": came, "update": f"{came} UNION ALL {went}", "delete": went}
    for event, changed in moved.items():
        yield (
            f"CREATE OR REPLACE FUNCTION {table}_{event}() RETURNS trigger "
            f"LANGUAGE plpgsql AS $$ BEGIN {add(changed)} RETURN NULL; END $$"
        )
    yield f"""
CREATE OR REPLACE FUNCTION {table}_rebuild() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE workload IN SHARE MODE;
    DELETE FROM {table};
    {add(rows(1, "workload"))}
END $$
"""


FILL = """
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        PERFORM workload_tally_rebuild();
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE workload_tally ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE workload_tally FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON workload_tally USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON workload_tally TO {APP_ROLE}")
    for function in functions(FIGURES, KEY):
        op.execute(function)
    for event, seen in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER tally_{event} AFTER {event} ON workload REFERENCING {seen} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION workload_tally_{event}()"
        )
    op.execute(FILL)


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
