"""Who has asked for a price lately? Told to the store at once, and again if the store was away or has lost it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from hexhail.kernel.errors import DomainError

if TYPE_CHECKING:
    from hexhail.cities import City
    from pricing.store import PricingStore

log = structlog.get_logger(__name__)

MAX_REMEMBERED: Final = 100_000
"""More than a city's riders ask for within a window; beyond it the oldest are forgotten here (the store has them)."""


class QuoteRecorder:
    """The recent quotes that this process gave in one city.

    A quote is not refused because its demand could not be written down: it is kept here, and written when the store answers.
    """

    def __init__(self, city: City, store: PricingStore, window_ms: int) -> None:
        self._city = city
        self._store = store
        self._window_ms = window_ms
        self._recent: dict[tuple[int, str], int] = {}
        self._behind = False

    async def record(self, cell: int, rider_id: str, now_ms: int) -> None:
        """Counts a quote as demand in its pickup's cell. Never raises."""
        self._recent.pop((cell, rider_id), None)
        self._recent[cell, rider_id] = now_ms
        if len(self._recent) > MAX_REMEMBERED:
            del self._recent[next(iter(self._recent))]
        if self._behind:
            return
        try:
            await self._store.record_quotes(self._city, {(cell, rider_id): now_ms}, self._window_ms, now_ms)
        except DomainError as error:
            self._behind = True
            log.warning("a quote is not counted as demand yet", city_id=self._city.city_id, error=str(error))

    async def catch_up(self, now_ms: int) -> None:
        """Writes everything again where the store was away or has lost it. Raises STORE_UNAVAILABLE."""
        oldest = now_ms - self._window_ms
        self._recent = {quote: at_ms for quote, at_ms in self._recent.items() if at_ms > oldest}
        if not self._recent:
            self._behind = False
            return
        newest = next(reversed(self._recent))
        if self._behind or not await self._store.holds_quote(self._city, *newest):
            await self._store.record_quotes(self._city, self._recent, self._window_ms, now_ms)
            self._behind = False
