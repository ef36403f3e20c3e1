"""What is remembered of a driver on a ride from check to check."""

from __future__ import annotations

from alembic import op

revision = "m0003"
down_revision = "m0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. No index: the partial one on active assignments leaves few rows to look at."""
    op.execute("ALTER TABLE matching.assignments ADD COLUMN checked_at_ms bigint NOT NULL DEFAULT 0, ADD COLUMN watch jsonb")


def downgrade() -> None:
    """Drops them: every check begins anew."""
    op.execute("ALTER TABLE matching.assignments DROP COLUMN checked_at_ms, DROP COLUMN watch")
