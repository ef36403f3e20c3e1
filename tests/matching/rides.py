"""Rides to decide upon."""

from __future__ import annotations

from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId, DriverId, OfferId, QuoteId, RideId, RiderId
from matching.model import OffersPlanned, PlannedOffer, QuoteFacts, Ride, Stop
from matching.offers import OfferParams, begin, decide

NOW_MS = 1_357_017_600_000
QUOTE = QuoteFacts(QuoteId("gridport-q"), 1_150, "USD", 1_000, 1, 1_000, 120)


def searching() -> Ride:
    """A ride that has just been requested."""
    wanted = Ride(
        ride_id=RideId("gridport-r"),
        city_id=CityId("gridport"),
        rider_id=RiderId("r1"),
        product="economy",
        stops=(Stop(Place(40.5, -74.0)), Stop(Place(40.51, -74.0))),
        quote=QUOTE,
        requested_at_ms=NOW_MS,
    )
    return begin(wanted, NOW_MS).ride


def plan(ride: Ride, *driver_ids: str) -> OffersPlanned:
    """Offers of the ride's next phase to these drivers; each offer's id is its driver's with an o before."""
    planned = tuple(PlannedOffer(OfferId(f"o-{d}"), DriverId(d), 60, 500) for d in driver_ids)
    return OffersPlanned(ride.phase + 1, planned)


def offered(*driver_ids: str, params: OfferParams | None = None) -> Ride:
    """A ride in its first phase, offered to these drivers."""
    ride = searching()
    return decide(ride, plan(ride, *driver_ids), NOW_MS, params or OfferParams()).ride
