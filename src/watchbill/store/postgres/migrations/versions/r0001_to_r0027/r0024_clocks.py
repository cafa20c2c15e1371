"""How far the clocks of a cluster's agent and of its API server are ahead of the server's, in seconds."""

from alembic import op

revision = "0024"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE cluster ADD COLUMN agent_clock_ahead_seconds double precision, "
        "ADD COLUMN cluster_clock_ahead_seconds double precision"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE cluster DROP COLUMN agent_clock_ahead_seconds, "
        "DROP COLUMN cluster_clock_ahead_seconds"
    )
