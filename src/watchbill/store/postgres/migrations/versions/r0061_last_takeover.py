"""When another agent last took over a cluster's stream: a count alone does not tell whether two run now."""

from alembic import op

revision = "0061"
down_revision = "0060"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE cluster ADD COLUMN last_takeover_at timestamptz")
