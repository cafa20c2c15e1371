"""How large each table was, once a day: what grows, and by how much, is told before a disk is full."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0047"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE table_size (name text NOT NULL, day date NOT NULL, "
        "measured_at timestamptz NOT NULL, size_bytes bigint NOT NULL, PRIMARY KEY (name, day))"
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON table_size TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP TABLE table_size")
