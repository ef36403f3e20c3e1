"""The windows of batched cities in PostgreSQL: which rides wait for one, and the log of those that were decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matching import postgres_statements as sql
from matching.postgres_store import postgres_errors
from matching.rows import ride_of
from matching.window import windows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.ids import CityId
    from matching.model import Ride
    from matching.postgres_store import Pool
    from matching.window import WindowAssigned

KIND = "WINDOW_ASSIGNED"


class PostgresWindows:
    """Rides that wait for a window, and windows as events."""

    def __init__(self, pool: Pool, encode: Callable[[WindowAssigned, int], bytes]) -> None:
        self._pool = pool
        self._encode = encode

    async def searching(self, city_id: CityId, limit: int) -> list[Ride]:
        """Rides that nobody is asked about now, those that were requested first. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [ride_of(row) for row in await connection.fetch(sql.SEARCHING, city_id, limit)]

    async def log(self, event: WindowAssigned) -> int:
        """Keeps what a window was decided by; its number. Raises STORE_UNAVAILABLE."""
        window = event.window
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            number: int = await connection.fetchval(sql.NEXT_WINDOW, window.city_id)
            envelope = self._encode(event, number)
            values = (window.city_id, windows_of(window.city_id), number, 0, window.at_ms, KIND, envelope)
            await connection.execute(sql.INSERT_EVENT, *values)
        return number
