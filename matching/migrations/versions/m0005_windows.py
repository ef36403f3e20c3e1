"""The windows of batched cities, numbered for the event log."""

from __future__ import annotations

from alembic import op

revision = "m0005"
down_revision = "m0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the numbers."""
    op.execute("CREATE TABLE matching.windows (city_id text PRIMARY KEY, number bigint NOT NULL)")


def downgrade() -> None:
    """Takes them away."""
    op.execute("DROP TABLE matching.windows")
