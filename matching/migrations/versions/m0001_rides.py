"""Drivers, rides, offers, assignments, requests and the outbox."""

from __future__ import annotations

from alembic import op

revision = "m0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE matching.drivers (
        city_id text NOT NULL,
        driver_id text NOT NULL,
        version bigint NOT NULL,
        capabilities text[] NOT NULL,
        rating_milli integer NOT NULL CHECK (rating_milli BETWEEN 0 AND 5000),
        online boolean NOT NULL DEFAULT false,
        suspended boolean NOT NULL DEFAULT false,
        offers_shown bigint NOT NULL DEFAULT 0,
        offers_accepted bigint NOT NULL DEFAULT 0,
        updated_at_ms bigint NOT NULL,
        PRIMARY KEY (city_id, driver_id)
    )
    """,
    """
    CREATE TABLE matching.rides (
        ride_id text PRIMARY KEY,
        city_id text NOT NULL,
        rider_id text NOT NULL,
        quote_id text NOT NULL,
        state text NOT NULL,
        version bigint NOT NULL,
        pickup_lat double precision NOT NULL,
        pickup_lng double precision NOT NULL,
        requested_at_ms bigint NOT NULL,
        updated_at_ms bigint NOT NULL,
        next_deadline_ms bigint,
        leased_until_ms bigint NOT NULL DEFAULT 0,
        body jsonb NOT NULL
    )
    """,
    # A rider sits in one car at a time, in whichever city.
    """
    CREATE UNIQUE INDEX rides_one_active_per_rider ON matching.rides (rider_id)
        WHERE state IN ('SEARCHING', 'OFFERED', 'ACCEPTED', 'ARRIVED', 'IN_PROGRESS')
    """,
    # A quote buys one ride, as long as that ride lives or was ridden.
    """
    CREATE UNIQUE INDEX rides_quote_used_once ON matching.rides (quote_id)
        WHERE state NOT IN ('CANCELLED_BY_RIDER', 'CANCELLED_BY_SYSTEM', 'EXPIRED')
    """,
    "CREATE INDEX rides_due ON matching.rides (next_deadline_ms) WHERE next_deadline_ms IS NOT NULL",
    "CREATE INDEX rides_of_rider ON matching.rides (city_id, rider_id, ride_id DESC)",
    "CREATE INDEX rides_open ON matching.rides (city_id) WHERE state IN ('SEARCHING', 'OFFERED')",
    """
    CREATE TABLE matching.offers (
        offer_id text PRIMARY KEY,
        ride_id text NOT NULL REFERENCES matching.rides,
        city_id text NOT NULL,
        driver_id text NOT NULL,
        phase integer NOT NULL,
        state text NOT NULL,
        made_at_ms bigint NOT NULL,
        expires_at_ms bigint NOT NULL,
        shown_at_ms bigint NOT NULL,
        pickup_eta_s integer NOT NULL,
        pickup_distance_m integer NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX offers_one_live_per_driver ON matching.offers (driver_id) WHERE state = 'LIVE'",
    "CREATE INDEX offers_of_ride ON matching.offers (ride_id)",
    """
    CREATE TABLE matching.assignments (
        city_id text NOT NULL,
        driver_id text NOT NULL,
        slot integer NOT NULL DEFAULT 0,
        ride_id text NOT NULL REFERENCES matching.rides,
        accepted_at_ms bigint NOT NULL,
        released_at_ms bigint,
        release_reason text
    )
    """,
    # The fence: one rider in one car, whatever happened to any lock.
    """
    CREATE UNIQUE INDEX assignments_one_active_per_slot ON matching.assignments (driver_id, slot)
        WHERE released_at_ms IS NULL
    """,
    "CREATE UNIQUE INDEX assignments_one_active_per_ride ON matching.assignments (ride_id) WHERE released_at_ms IS NULL",
    """
    CREATE TABLE matching.requests (
        city_id text NOT NULL,
        actor text NOT NULL,
        request_id text NOT NULL,
        body_digest bytea NOT NULL,
        answer bytea NOT NULL,
        answered_at_ms bigint NOT NULL,
        PRIMARY KEY (city_id, actor, request_id)
    )
    """,
    "CREATE INDEX requests_old ON matching.requests (answered_at_ms)",
    # The event log. One partition a day; the default one only catches what no day was made for.
    """
    CREATE TABLE matching.outbox (
        position bigint NOT NULL DEFAULT 0,
        city_id text NOT NULL,
        aggregate_id text NOT NULL,
        version bigint NOT NULL,
        index integer NOT NULL,
        at_ms bigint NOT NULL,
        kind text NOT NULL,
        envelope bytea NOT NULL,
        PRIMARY KEY (at_ms, aggregate_id, version, index)
    ) PARTITION BY RANGE (at_ms)
    """,
    "CREATE SEQUENCE matching.outbox_position OWNED BY matching.outbox.position",
    "ALTER TABLE matching.outbox ALTER COLUMN position SET DEFAULT nextval('matching.outbox_position')",
    "CREATE TABLE matching.outbox_default PARTITION OF matching.outbox DEFAULT",
    "CREATE INDEX outbox_of_aggregate ON matching.outbox (aggregate_id, version, index)",
)


def upgrade() -> None:
    """Makes the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, and all that they hold."""
    op.execute("DROP SCHEMA matching CASCADE")
