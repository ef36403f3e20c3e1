"""What pricing asks of its store. Every method raises STORE_UNAVAILABLE where the store does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from hexhail.cities import City
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Cells, Ints
    from pricing.model import Surge


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What the store holds as a city's surge. `header` names the publication; empty where there is none.

    `surge` is None where there is none, or none that can be read.
    """

    header: bytes
    surge: Surge | None


class PricingStore(Protocol):
    """Recent quotes, the published surge, and who recomputes it."""

    async def record_quotes(self, city: City, quotes: Mapping[tuple[int, str], int], window_ms: int, now_ms: int) -> None:
        """Keeps when each (cell, rider) last had a quote, ms, and forgets those older than the window."""
        ...

    async def holds_quote(self, city: City, cell: int, rider_id: str) -> bool:
        """Is this quote recorded? A store that was wiped has none."""
        ...

    async def count_quotes(self, city: City, window_ms: int, now_ms: int) -> tuple[Cells, Ints]:
        """In which cells were quotes given within the window, and to how many riders? uint64[n], int64[n]."""
        ...

    async def take_lease(self, city: City, owner: str, lease_ms: int, now_ms: int) -> bool:
        """Takes or renews the lease on recomputing. False where another holds it."""
        ...

    async def drop_lease(self, city: City, owner: str) -> None:
        """Gives the lease back, if `owner` has it."""
        ...

    async def published(self, city: City) -> Published:
        """What is published?"""
        ...

    async def publish(self, city: City, surge: Surge, instead_of: bytes, lifetime_ms: int) -> bool:
        """Publishes and announces, unless something else than the publication `instead_of` is there: then False."""
        ...

    def publications(self, city_ids: list[CityId]) -> AsyncIterator[CityId]:
        """Yields a city for each of its publications from now on; announcements may get lost, never the publication."""
        ...
