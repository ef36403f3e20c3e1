"""How rides, offers and drivers look as rows of PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId, DriverId, OfferId, QuoteId, RideId, RiderId
from matching.model import Assignment, Offer, OfferState, QuoteFacts, Ride, RideState, Stop
from matching.progress import Check, Watch
from matching.records import Record
from matching.store import Driver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import asyncpg

    Row = asyncpg.Record

_RIDE_COLUMNS = ("ride_id", "city_id", "rider_id", "requested_at_ms", "state", "version", "updated_at_ms", "next_deadline_ms")


def ride_body(ride: Ride) -> str:
    """What no query looks into, as JSON."""
    return json.dumps(_body(ride))


def ride_of(row: Row) -> Ride:
    """The ride that a row with its offers describes."""
    return _ride(row, json.loads(row["body"]), json.loads(row["offers"] or "[]"))


def ride_line(ride: Ride) -> str:
    """The whole ride as one line of JSON, for another worker."""
    columns = {name: getattr(ride, name) for name in _RIDE_COLUMNS}
    offers = [_plain(offer) for offer in ride.offers]
    return json.dumps({**columns, "quote_id": ride.quote.quote_id, "body": _body(ride), "offers": offers})


def ride_of_line(line: str | bytes) -> Ride:
    """The ride that a line describes. Raises ValueError, KeyError and TypeError for what is no such line."""
    row = json.loads(line)
    return _ride(row, row["body"], row["offers"])


def _plain(flat: QuoteFacts | Assignment | Offer) -> dict[str, object]:
    """The fields of a dataclass that has only plain ones. `asdict` copies each of them deeply, and takes ten times as long."""
    return {field.name: getattr(flat, field.name) for field in fields(flat)}


def _body(ride: Ride) -> dict[str, object]:
    return {
        "product": ride.product,
        "stops": [[stop.place.lat, stop.place.lng, stop.label] for stop in ride.stops],
        "notes": ride.notes,
        "quote": _plain(ride.quote),
        "pickup_at_ms": ride.pickup_at_ms,
        "phase": ride.phase,
        "travel_times_version": ride.travel_times_version,
        "search_began_at_ms": ride.search_began_at_ms,
        "assignment": _plain(ride.assignment) if ride.assignment else None,
    }


def _ride(row: Row | Mapping[str, Any], body: Mapping[str, Any], offers: Sequence[Mapping[str, Any]]) -> Ride:
    return Ride(
        ride_id=RideId(row["ride_id"]),
        city_id=CityId(row["city_id"]),
        rider_id=RiderId(row["rider_id"]),
        product=body["product"],
        stops=tuple(Stop(Place(lat, lng), label) for lat, lng, label in body["stops"]),
        quote=QuoteFacts(**{**body["quote"], "quote_id": QuoteId(row["quote_id"])}),
        requested_at_ms=row["requested_at_ms"],
        state=RideState(row["state"]),
        version=row["version"],
        updated_at_ms=row["updated_at_ms"],
        notes=body["notes"],
        pickup_at_ms=body["pickup_at_ms"],
        phase=body["phase"],
        travel_times_version=body.get("travel_times_version", ""),
        search_began_at_ms=body["search_began_at_ms"],
        next_deadline_ms=row["next_deadline_ms"],
        assignment=Assignment(**body["assignment"]) if body["assignment"] else None,
        offers=tuple(offer_of(offer) for offer in offers),
    )


def offer_of(row: Row | Mapping[str, Any]) -> Offer:
    """The offer that a row describes."""
    return Offer(
        offer_id=OfferId(row["offer_id"]),
        driver_id=DriverId(row["driver_id"]),
        phase=row["phase"],
        state=OfferState(row["state"]),
        made_at_ms=row["made_at_ms"],
        expires_at_ms=row["expires_at_ms"],
        pickup_eta_s=row["pickup_eta_s"],
        pickup_distance_m=row["pickup_distance_m"],
        shown_at_ms=row["shown_at_ms"],
    )


def check_of(row: Row) -> Check:
    """The check that a row of the statement `LEASE_CHECKS` describes."""
    return Check(
        ride_id=RideId(row["ride_id"]),
        driver_id=DriverId(row["driver_id"]),
        state=RideState(row["state"]),
        version=row["version"],
        pickup=Place(row["pickup_lat"], row["pickup_lng"]),
        pickup_at_ms=row["pickup_at_ms"],
        watch=Watch(**json.loads(row["watch"])) if row["watch"] else None,
    )


def watch_body(watch: Watch) -> str:
    """What is remembered of a driver on a ride, as JSON."""
    return json.dumps(asdict(watch))


def driver_of(row: Row) -> Driver:
    """The driver that a row of the statement `DRIVERS` describes."""
    return _driver(row, row["ride_id"] or "", row["has_live_offer"])


def driver_of_change(row: Row, ride_id: str) -> Driver:
    """The driver that a change of a ride has bound or freed, with the ride that it has now. Neither leaves it a live offer."""
    return _driver(row, ride_id, has_live_offer=False)


def _driver(row: Row, ride_id: str, has_live_offer: bool) -> Driver:
    return Driver(
        city_id=CityId(row["city_id"]),
        driver_id=DriverId(row["driver_id"]),
        version=row["version"],
        capabilities=tuple(row["capabilities"]),
        rating_milli=row["rating_milli"],
        online=row["online"],
        suspended=row["suspended"],
        updated_at_ms=row["updated_at_ms"],
        record=Record(row["shown_milli"], row["accepted_milli"]),
        free_since_ms=row["free_since_ms"],
        ride_id=ride_id,
        has_live_offer=has_live_offer,
    )
