"""Drivers' records: recent offers with their weights instead of counts for ever, and since when a driver is free.

The counts are not carried over: they held every offer against a driver that another driver had taken first.
"""

from __future__ import annotations

from alembic import op

revision = "m0002"
down_revision = "m0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Records begin anew; whoever is online is free since the last change, as far as is known."""
    op.execute(
        """
        ALTER TABLE matching.drivers
            DROP COLUMN offers_shown,
            DROP COLUMN offers_accepted,
            ADD COLUMN shown_milli bigint NOT NULL DEFAULT 0,
            ADD COLUMN accepted_milli bigint NOT NULL DEFAULT 0,
            ADD COLUMN free_since_ms bigint NOT NULL DEFAULT 0
        """
    )
    op.execute("UPDATE matching.drivers SET free_since_ms = updated_at_ms")


def downgrade() -> None:
    """Counts begin anew."""
    op.execute(
        """
        ALTER TABLE matching.drivers
            DROP COLUMN shown_milli,
            DROP COLUMN accepted_milli,
            DROP COLUMN free_since_ms,
            ADD COLUMN offers_shown bigint NOT NULL DEFAULT 0,
            ADD COLUMN offers_accepted bigint NOT NULL DEFAULT 0
        """
    )
