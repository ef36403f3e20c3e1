"""Protobuf to model and back, and every check of a request. What passes here cannot crash what is behind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.api.common.v1 import geo_pb2, money_pb2
from hexhail.api.matching.v1 import driver_pb2, offer_pb2, ride_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.kernel import ids
from hexhail.kernel.errors import invalid
from hexhail.kernel.geo import Place, bearings_deg, cells_of
from hexhail.kernel.ids import RideId, RiderId
from hexhail.kernel.limits import MAX_CAPABILITIES, MAX_QUOTE_TOKEN_BYTES, MAX_RATING_MILLI, MAX_STOPS, MIN_STOPS
from matching.model import OfferState, Ride, RideState, Stop
from matching.records import acceptance_milli
from matching.store import Driver, RequestKey, Stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from hexhail.cities import Cities, City
    from hexhail.rpc.tokens import Principal
    from matching.model import Offer
    from matching.tracker import Track

MAX_LABEL, MAX_NOTES, MAX_REASON = 200, 500, 200
DEFAULT_PAGE, MAX_PAGE = 50, 200


@dataclass(frozen=True, slots=True)
class RideWish:
    """A checked RequestRide."""

    city: City
    product: str
    stops: tuple[Stop, ...]
    quote_token: bytes
    notes: str
    pickup_at_ms: int


def read_request_key(city_id: str, caller: Principal, request_id: str, message: Message) -> RequestKey:
    """Who asks what, for telling repeats. Raises INVALID_FIELD."""
    ids.check_name("request_id", request_id)
    body = type(message).DESCRIPTOR.full_name.encode() + b"\0" + message.SerializeToString(deterministic=True)
    return RequestKey(ids.CityId(city_id), str(caller), request_id, hashlib.sha256(body).digest())


def read_ride_wish(request: pb.RequestRideRequest, cities: Cities) -> RideWish:
    """Raises INVALID_FIELD, UNKNOWN_CITY, UNKNOWN_PRODUCT, OUTSIDE_SERVICE_AREA."""
    city = cities[request.city_id]
    city.product(request.product)
    if not MIN_STOPS <= len(request.stops) <= MAX_STOPS:
        raise invalid("stops", f"must be {MIN_STOPS} to {MAX_STOPS} places", count=len(request.stops))
    stops = []
    for index, stop in enumerate(request.stops):
        if not stop.HasField("position"):
            raise invalid(f"stops[{index}].position", "is missing")
        place = Place(stop.position.lat, stop.position.lng)
        city.check_stop(f"stops[{index}].position", place)
        _check_text(f"stops[{index}].label", stop.label, MAX_LABEL)
        stops.append(Stop(place, stop.label))
    if not request.quote_token:
        raise invalid("quote_token", "is empty: ask GetQuotes first")
    if len(request.quote_token) > MAX_QUOTE_TOKEN_BYTES:
        raise invalid("quote_token", f"is longer than {MAX_QUOTE_TOKEN_BYTES} bytes")
    _check_text("notes", request.notes, MAX_NOTES)
    if request.pickup_at_ms < 0:
        raise invalid("pickup_at_ms", "is negative")
    return RideWish(city, request.product, tuple(stops), request.quote_token, request.notes, request.pickup_at_ms)


def read_ride_id(ride_id: str, cities: Cities) -> RideId:
    """Raises INVALID_FIELD, UNKNOWN_CITY."""
    cities.named_in("ride_id", ride_id)
    return RideId(ride_id)


def read_offer_id(offer_id: str, cities: Cities) -> str:
    """Raises INVALID_FIELD, UNKNOWN_CITY."""
    cities.named_in("offer_id", offer_id)
    return offer_id


def read_page(request: pb.ListRidesRequest, cities: Cities) -> tuple[str, int]:
    """The id to go on before (empty: from the newest), and how many. Raises INVALID_FIELD, UNKNOWN_CITY."""
    if not 0 <= request.page_size <= MAX_PAGE:
        raise invalid("page_size", f"must be 0 to {MAX_PAGE}")
    if request.page_token:
        cities.named_in("page_token", request.page_token)
    return request.page_token, request.page_size or DEFAULT_PAGE


def read_rider_id(rider_id: str) -> RiderId:
    """Raises INVALID_FIELD."""
    return RiderId(ids.check_name("rider_id", rider_id))


def read_reason(reason: str) -> str:
    """Raises INVALID_FIELD."""
    return _check_text("reason", reason, MAX_REASON)


def read_driver(request: pb.UpsertDriverRequest, cities: Cities) -> tuple[City, str, tuple[str, ...], int]:
    """City, id, capabilities and rating. Raises INVALID_FIELD, UNKNOWN_CITY."""
    city = cities[request.city_id]
    ids.check_name("driver_id", request.driver_id)
    if len(request.capabilities) > MAX_CAPABILITIES:
        raise invalid("capabilities", f"are more than {MAX_CAPABILITIES}")
    city.capability_mask(request.capabilities)
    if request.rating_milli > MAX_RATING_MILLI:
        raise invalid("rating_milli", f"is above {MAX_RATING_MILLI}")
    return city, request.driver_id, tuple(dict.fromkeys(request.capabilities)), request.rating_milli


def read_suspension(request: pb.SuspendDriverRequest, cities: Cities) -> tuple[ids.CityId, str, str]:
    """City, driver and what the operator says of it. Raises INVALID_FIELD, UNKNOWN_CITY."""
    city = cities[request.city_id]
    return city.city_id, ids.check_name("driver_id", request.driver_id), read_reason(request.reason)


def read_resolution(resolution: int, city: City) -> int:
    """Raises INVALID_FIELD."""
    if resolution > city.index_resolution:
        raise invalid("resolution", f"is above {city.index_resolution}, the city's index resolution")
    return resolution


def write_ride(ride: Ride) -> ride_pb2.Ride:
    """The ride, as apps see it."""
    return ride_pb2.Ride(
        ride_id=ride.ride_id,
        city_id=ride.city_id,
        rider_id=ride.rider_id,
        product=ride.product,
        stops=_write_stops(ride),
        state=ride_pb2.RideState.Value(f"RIDE_STATE_{ride.state.value}"),
        version=ride.version,
        quote_id=ride.quote.quote_id,
        fare=_write_fare(ride),
        multiplier_milli=ride.quote.multiplier_milli,
        requested_at_ms=ride.requested_at_ms,
        pickup_at_ms=ride.pickup_at_ms,
        assignment=_write_assignment(ride),
        deadline_ms=ride.next_deadline_ms or 0,
        updated_at_ms=ride.updated_at_ms,
    )


def write_offer(ride: Ride, offer: Offer, now_ms: int) -> offer_pb2.Offer:
    """The offer, as its driver sees it."""
    live = offer.state is OfferState.LIVE
    direction = bearings_deg(ride.pickup.lat, ride.pickup.lng, ride.dropoff.lat, ride.dropoff.lng)
    return offer_pb2.Offer(
        offer_id=offer.offer_id,
        ride_id=ride.ride_id,
        driver_id=offer.driver_id,
        state=offer_pb2.OfferState.Value(f"OFFER_STATE_{offer.state.value}"),
        phase=offer.phase,
        product=ride.product,
        stops=_write_stops(ride),
        pickup_eta_s=offer.pickup_eta_s,
        pickup_distance_m=offer.pickup_distance_m,
        trip_distance_m=ride.quote.distance_m,
        trip_duration_s=ride.quote.duration_s,
        fare=_write_fare(ride),
        multiplier_milli=ride.quote.multiplier_milli,
        made_at_ms=offer.made_at_ms,
        expires_at_ms=offer.expires_at_ms,
        remaining_ms=max(0, offer.expires_at_ms - now_ms) if live else 0,
        direction_deg=float(direction),
    )


def write_driver(driver: Driver) -> driver_pb2.Driver:
    """The driver, as operators and itself see it."""
    rate = acceptance_milli(np.array([driver.record.shown_milli]), np.array([driver.record.accepted_milli]))
    return driver_pb2.Driver(
        driver_id=driver.driver_id,
        city_id=driver.city_id,
        version=driver.version,
        capabilities=driver.capabilities,
        rating_milli=driver.rating_milli,
        online=driver.online,
        suspended=driver.suspended,
        ride_id=driver.ride_id,
        acceptance_milli=int(rate[0]),
        free_since_ms=driver.free_since_ms if driver.free else 0,
        updated_at_ms=driver.updated_at_ms,
    )


def write_stats(stats: Stats, now_ms: int) -> pb.GetStatsResponse:
    """How a city stands."""
    return pb.GetStatsResponse(
        as_of_ms=now_ms,
        drivers_online=stats.drivers_online,
        drivers_available=stats.drivers_available,
        rides=[
            pb.RideStateCount(state=ride_pb2.RideState.Value(f"RIDE_STATE_{state.value}"), count=stats.rides[state])
            for state in RideState
            if state in stats.rides
        ],
        waited_mean_s=round(stats.waited_mean_s),
        waited_max_s=round(stats.waited_max_s),
    )


def write_tracking(track: Track, now_ms: int) -> pb.WatchRideResponse:
    """Where the driver is, between two states."""
    return pb.WatchRideResponse(
        tracking=pb.Tracking(
            driver_id=track.driver_id,
            position=geo_pb2.LatLng(lat=track.place.lat, lng=track.place.lng),
            heading_deg=track.heading_deg,
            eta_s=track.eta_s,
            age_ms=track.age_ms,
        ),
        as_of_ms=now_ms,
    )


def write_demand(places: Sequence[Place], resolution: int, now_ms: int) -> pb.CountDemandResponse:
    """Open requests per cell."""
    lat = np.array([place.lat for place in places], np.float64)
    lng = np.array([place.lng for place in places], np.float64)
    cells, counts = np.unique(cells_of(lat, lng, resolution), return_counts=True)
    return pb.CountDemandResponse(resolution=resolution, cells=cells.tolist(), open_requests=counts.tolist(), as_of_ms=now_ms)


def _check_text(field: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise invalid(field, f"is longer than {limit} characters")
    if "\0" in text:
        raise invalid(field, "holds a NUL, which PostgreSQL keeps in no text")
    return text


def _write_stops(ride: Ride) -> list[ride_pb2.Stop]:
    return [
        ride_pb2.Stop(position=geo_pb2.LatLng(lat=stop.place.lat, lng=stop.place.lng), label=stop.label) for stop in ride.stops
    ]


def _write_fare(ride: Ride) -> money_pb2.Money:
    return money_pb2.Money(amount_minor=ride.quote.fare_minor, currency_code=ride.quote.currency_code)


def _write_assignment(ride: Ride) -> ride_pb2.Assignment | None:
    assignment = ride.assignment
    if assignment is None:
        return None
    return ride_pb2.Assignment(
        driver_id=assignment.driver_id,
        accepted_at_ms=assignment.accepted_at_ms,
        pickup_eta_s=assignment.pickup_eta_s,
        arrived_at_ms=assignment.arrived_at_ms,
        started_at_ms=assignment.started_at_ms,
        completed_at_ms=assignment.completed_at_ms,
        travel_times_version=assignment.travel_times_version,
    )
