"""What is the surge now? The newest values of each city in this process, and a way to wait for newer ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.kernel.ids import CityId
    from pricing.model import Surge


class Board:
    """Holds one surge per city: whoever is slow to read gets the newest, never a backlog."""

    def __init__(self, max_age_s: Mapping[CityId, float]) -> None:
        self._max_age_s = max_age_s
        self._latest: dict[CityId, Surge] = {}
        self._newer = {city_id: asyncio.Event() for city_id in max_age_s}

    def latest(self, city_id: CityId) -> Surge | None:
        """The newest values, however old; None where none were ever known."""
        return self._latest.get(city_id)

    def current(self, city_id: CityId, now_ms: int) -> Surge:
        """The values to price with. Raises SURGE_UNKNOWN where none were ever known, or the last good ones are too old."""
        surge = self._latest.get(city_id)
        if surge is None:
            raise DomainError(Reason.SURGE_UNKNOWN, f"the surge of {city_id} is not known yet", city_id=city_id)
        if now_ms - surge.as_of_ms > self._max_age_s[city_id] * MS_PER_S:
            raise DomainError(
                Reason.SURGE_UNKNOWN,
                f"the last good surge of {city_id} is too old to price with",
                city_id=city_id,
                as_of_ms=surge.as_of_ms,
            )
        return surge

    def put(self, city_id: CityId, surge: Surge) -> None:
        """Takes values that replace what is here, and wakes whoever waits; others are passed over."""
        if surge.replaces(self._latest.get(city_id)):
            self._latest[city_id] = surge
            waited_for, self._newer[city_id] = self._newer[city_id], asyncio.Event()
            waited_for.set()

    def mark_stale(self, city_id: CityId) -> None:
        """Newer inputs cannot be had: marks the values."""
        surge = self._latest.get(city_id)
        if surge is not None:
            self.put(city_id, surge.as_stale())

    async def other_than(self, city_id: CityId, seen: Surge | None) -> Surge:
        """The newest values, as soon as they are others than `seen`."""
        while True:
            surge = self._latest.get(city_id)
            if surge is not None and surge is not seen:
                return surge
            await self._newer[city_id].wait()
