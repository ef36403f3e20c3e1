"""The relay: which transaction wrote an event, who has which duty, and how far each city's log has been told.

Events from before this have the number of the first transaction of all.
"""

from __future__ import annotations

from alembic import op

revision = "m0004"
down_revision = "m0003"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # 64 bits: these numbers never begin again, unlike the 32 that rows carry.
    "ALTER TABLE matching.outbox ADD COLUMN transaction_id xid8 NOT NULL DEFAULT '3'",
    "ALTER TABLE matching.outbox ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id()",
    "CREATE INDEX outbox_by_transaction ON matching.outbox (city_id, transaction_id)",
    "CREATE INDEX outbox_by_position ON matching.outbox (city_id, position)",
    """
    CREATE TABLE matching.leases (
        duty text PRIMARY KEY,
        owner text NOT NULL,
        term bigint NOT NULL,
        until_ms bigint NOT NULL
    )
    """,
    """
    CREATE TABLE matching.relays (
        city_id text PRIMARY KEY,
        term bigint NOT NULL,
        epoch text NOT NULL,
        from_at_ms bigint NOT NULL,
        seen text NOT NULL,
        seeing text NOT NULL,
        position bigint NOT NULL,
        entry_id text NOT NULL
    )
    """,
    # Nothing is in it, as long as nothing is wrong.
    """
    CREATE INDEX rides_without_deadline ON matching.rides (city_id)
        WHERE next_deadline_ms IS NULL AND state IN ('SCHEDULED', 'SEARCHING', 'OFFERED', 'ACCEPTED', 'ARRIVED', 'IN_PROGRESS')
    """,
)


def upgrade() -> None:
    """Adds them."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Takes them away; the events stay."""
    op.execute("DROP TABLE matching.relays, matching.leases")
    op.execute("DROP INDEX matching.rides_without_deadline")
    op.execute("ALTER TABLE matching.outbox DROP COLUMN transaction_id")
    op.execute("DROP INDEX matching.outbox_by_position")
