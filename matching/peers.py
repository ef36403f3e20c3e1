"""What matching asks of other services, in its own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Floats
    from matching.model import QuoteFacts
    from matching.store import Driver


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A driver near by whom location looked at and did not give, and why: "STALE" or "WRONG_CLASS"."""

    driver_id: str
    reason: str
    distance_m: float


@dataclass(frozen=True, slots=True)
class Nearby:
    """Fresh available drivers near a place, nearest first, as columns of one length.

    driver_ids : str[n]
    places : float64[n, 2], lat and lng, degrees
    distance_m : float64[n]
    heading_deg : float64[n], nan where unknown
    """

    driver_ids: tuple[str, ...]
    places: Floats
    distance_m: Floats
    heading_deg: Floats
    searched_radius_m: float
    complete: bool
    as_of_ms: int
    next_page_token: str
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class NearbyMany:
    """Fresh available drivers near any of several places, each once.

    driver_ids : str[n]
    places : float64[n, 2], lat and lng, degrees
    heading_deg : float64[n], nan where unknown
    searched_radius_m : float64[m], about each place nobody nearer than this was left out
    """

    driver_ids: tuple[str, ...]
    places: Floats
    heading_deg: Floats
    searched_radius_m: Floats
    complete: bool
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class DriverPosition:
    """Where a driver was when it last reported."""

    driver_id: str
    place: Place
    heading_deg: float | None
    age_ms: int


class Location(Protocol):
    """Where is everyone? Each call raises PEER_UNAVAILABLE, or the reason that location gives."""

    async def nearby(
        self, city_id: CityId, place: Place, max_drivers: int, radius_m: float, capabilities: Sequence[str], page_token: str
    ) -> Nearby:
        """The nearest fresh available drivers."""

    async def positions(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, DriverPosition]:
        """Those of them that reported lately."""

    async def epoch(self, city_id: CityId) -> tuple[str, bool]:
        """The epoch of the states that location holds, and whether all have been told in it."""

    async def tell(self, city_id: CityId, epoch: str, drivers: Sequence[Driver], completes_snapshot: bool) -> int:
        """Who is available; how many of them was news? Raises EPOCH_CHANGED."""


class Surroundings(Protocol):
    """Who is near many places? Raises PEER_UNAVAILABLE, or the reason that location gives."""

    async def nearby_many(
        self, city_id: CityId, places: Floats, max_drivers: int, radius_m: float, capabilities: Sequence[str]
    ) -> NearbyMany:
        """The nearest fresh available drivers of each of these places, float64[m, 2], taken together."""


class Pricing(Protocol):
    """At what price?"""

    async def verify_quote(
        self, city_id: CityId, quote_token: bytes, rider_id: str, product: str, places: Sequence[Place]
    ) -> QuoteFacts:
        """What the quote promised. Raises QUOTE_ALTERED, QUOTE_EXPIRED, NOT_YOURS, PEER_UNAVAILABLE."""
