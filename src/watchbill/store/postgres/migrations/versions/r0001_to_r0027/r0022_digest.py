"""The comparison of what agent and server hold, as the heartbeat's digest allows it.

`digest_difference` is what the first comparison after an inventory left: rows of which the agent cannot know,
such as those of a kind that it may not read. NULL = nothing was compared since.
"""

from alembic import op

revision = "0022"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE cluster ADD COLUMN digest_difference bytea, "
        "ADD COLUMN digest_mismatches int NOT NULL DEFAULT 0, "
        "ADD COLUMN digest_compared_at timestamptz"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE cluster DROP COLUMN digest_difference, DROP COLUMN digest_mismatches, "
        "DROP COLUMN digest_compared_at"
    )
