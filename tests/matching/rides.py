"""Rides to decide upon, and drivers to consider for them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId, DriverId, OfferId, QuoteId, RideId, RiderId
from matching.candidates import DriverFacts
from matching.model import OffersPlanned, PlannedOffer, QuoteFacts, Ride, Stop
from matching.offers import OfferParams, begin, decide
from matching.ranking import Candidates, RankingParams

NOW_MS = 1_357_017_600_000
QUOTE = QuoteFacts(QuoteId("gridport-q"), 1_150, "USD", 1_000, 1, 1_000, 120, "of-the-quote")
NEAREST_FIRST = RankingParams(policy="eta")
GOOD = {"known": True, "online": True, "suspended": False, "busy": False, "has_live_offer": False, "has_session": True}


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


def candidates(*driver_ids: str, **columns: Any) -> Candidates:
    """Drivers that need a minute more each, the first one minute."""
    n = len(driver_ids)
    made: dict[str, Any] = {
        "driver_ids": driver_ids,
        "distance_m": np.arange(1, n + 1) * 500.0,
        "pickup_eta_s": np.arange(1, n + 1) * 60.0,
        "rating_milli": np.full(n, 4_500),
        "acceptance_milli": np.full(n, 900),
        "heading_deg": np.full(n, np.nan),
        "bearing_deg": np.zeros(n),
        "idle_s": np.zeros(n),
    }
    return Candidates(**{**made, **columns})


def facts(*drivers: dict[str, bool]) -> DriverFacts:
    """Facts of drivers, each a good one but for what its table says."""
    rows = [{**GOOD, **driver} for driver in drivers]
    return DriverFacts(**{f.name: np.array([row[f.name] for row in rows], np.bool_) for f in fields(DriverFacts)})
