"""What happened to one ride, or to one driver? The event log in PostgreSQL, read by whom it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matching.explanation import Bound
from matching.postgres_store import postgres_errors

if TYPE_CHECKING:
    import asyncpg

    from hexhail.kernel.ids import CityId
    from matching.model import Ride

_OF_RIDE = """
SELECT envelope FROM matching.outbox
 WHERE aggregate_id = $1 AND at_ms >= $2 AND version <= $3
 ORDER BY version, index
"""
_OF_DRIVER = """
SELECT envelope FROM matching.outbox
 WHERE aggregate_id = $1 AND city_id = $2 AND at_ms <= $3
 ORDER BY version DESC, index DESC LIMIT $4
"""
_BOUND = """
SELECT ride_id, accepted_at_ms, released_at_ms FROM matching.assignments
 WHERE city_id = $1 AND driver_id = $2 AND accepted_at_ms <= $4 AND (released_at_ms IS NULL OR released_at_ms > $3)
 ORDER BY accepted_at_ms
"""
MOST_DRIVER_EVENTS = 1_000


class PostgresHistory:
    """What happened. Each call raises STORE_UNAVAILABLE."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def of_ride(self, ride: Ride) -> list[bytes]:
        """The envelopes of all versions of a ride as far as this one, in order; without those that are no longer kept."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(_OF_RIDE, ride.ride_id, ride.requested_at_ms, ride.version)
        return [row["envelope"] for row in rows]

    async def of_driver(self, city_id: CityId, driver_id: str, until_ms: int) -> list[bytes]:
        """The latest envelopes of a driver until then, oldest first."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(_OF_DRIVER, driver_id, city_id, until_ms, MOST_DRIVER_EVENTS)
        return [row["envelope"] for row in reversed(rows)]

    async def bound(self, city_id: CityId, driver_id: str, from_ms: int, until_ms: int) -> list[Bound]:
        """Which rides was a driver on at some moment of this time?"""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(_BOUND, city_id, driver_id, from_ms, until_ms)
        return [Bound(row["ride_id"], row["accepted_at_ms"], row["released_at_ms"]) for row in rows]
