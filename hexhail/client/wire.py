"""Protobuf to views and back, for every app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.matching.v1 import offer_pb2, ride_pb2
from hexhail.client.views import (
    AssignmentView,
    DriverView,
    FixAckView,
    OfferState,
    OfferView,
    QuoteView,
    RideState,
    RideView,
    SessionView,
    StatsView,
    SurgeView,
    TrackingView,
)
from hexhail.kernel.geo import Place
from hexhail.kernel.units import to_e7

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hexhail.api.location.v1 import location_service_pb2
    from hexhail.api.matching.v1 import driver_pb2, matching_service_pb2
    from hexhail.api.pricing.v1 import quote_pb2, surge_pb2
    from hexhail.client.views import FixReport, FleetFixes

UNKNOWN_HEADING_CDEG = 65_535

_RIDE_STATES = {number: RideState(name.removeprefix("RIDE_STATE_")) for name, number in ride_pb2.RideState.items() if number}
_OFFER_STATES = {number: OfferState(name.removeprefix("OFFER_STATE_")) for name, number in offer_pb2.OfferState.items() if number}


def position(place: Place) -> geo_pb2.LatLng:
    """A place for the wire."""
    return geo_pb2.LatLng(lat=place.lat, lng=place.lng)


def stops(places: Sequence[Place]) -> list[ride_pb2.Stop]:
    """Places as the stops of a ride."""
    return [ride_pb2.Stop(position=position(place)) for place in places]


def _places(wire: Iterable[ride_pb2.Stop]) -> tuple[Place, ...]:
    return tuple(Place(stop.position.lat, stop.position.lng) for stop in wire)


def ride_state(number: ride_pb2.RideState.ValueType) -> RideState:
    """A state of a ride."""
    return _RIDE_STATES[number]


def offer_state(number: offer_pb2.OfferState.ValueType) -> OfferState:
    """A state of an offer."""
    return _OFFER_STATES[number]


def ride_view(ride: ride_pb2.Ride) -> RideView:
    """A ride as apps see it."""
    assignment: AssignmentView | None = None
    if ride.HasField("assignment") and ride.assignment.driver_id:
        bound = ride.assignment
        assignment = AssignmentView(
            bound.driver_id,
            bound.accepted_at_ms,
            bound.pickup_eta_s,
            bound.arrived_at_ms,
            bound.started_at_ms,
            bound.completed_at_ms,
            bound.travel_times_version,
        )
    return RideView(
        ride_id=ride.ride_id,
        rider_id=ride.rider_id,
        product=ride.product,
        stops=_places(ride.stops),
        state=_RIDE_STATES[ride.state],
        version=ride.version,
        fare_minor=ride.fare.amount_minor,
        currency_code=ride.fare.currency_code,
        multiplier_milli=ride.multiplier_milli,
        requested_at_ms=ride.requested_at_ms,
        updated_at_ms=ride.updated_at_ms,
        assignment=assignment,
        pickup_at_ms=ride.pickup_at_ms,
    )


def tracking_view(tracking: matching_service_pb2.Tracking) -> TrackingView:
    """A driver's place on its way, as apps see it."""
    return TrackingView(
        driver_id=tracking.driver_id,
        place=Place(tracking.position.lat, tracking.position.lng),
        heading_deg=tracking.heading_deg if tracking.HasField("heading_deg") else None,
        eta_s=tracking.eta_s if tracking.HasField("eta_s") else None,
        age_ms=tracking.age_ms,
    )


def quote_view(quote: quote_pb2.Quote) -> QuoteView:
    """A quote as apps see it."""
    return QuoteView(
        quote_id=quote.quote_id,
        product=quote.product,
        fare_minor=quote.fare.amount_minor,
        currency_code=quote.fare.currency_code,
        multiplier_milli=quote.receipt.multiplier_milli,
        distance_m=quote.distance_m,
        duration_s=quote.duration_s,
        expires_at_ms=quote.expires_at_ms,
        quote_token=quote.quote_token,
        travel_times_version=quote.receipt.travel_times_version,
    )


def offer_view(offer: offer_pb2.Offer) -> OfferView:
    """An offer as apps see it."""
    return OfferView(
        offer_id=offer.offer_id,
        ride_id=offer.ride_id,
        state=_OFFER_STATES[offer.state],
        phase=offer.phase,
        stops=_places(offer.stops),
        pickup_eta_s=offer.pickup_eta_s,
        pickup_distance_m=offer.pickup_distance_m,
        fare_minor=offer.fare.amount_minor,
        multiplier_milli=offer.multiplier_milli,
        remaining_ms=offer.remaining_ms,
        trip_duration_s=offer.trip_duration_s,
        trip_distance_m=offer.trip_distance_m,
        direction_deg=offer.direction_deg,
    )


def driver_view(driver: driver_pb2.Driver) -> DriverView:
    """A driver as apps see it."""
    return DriverView(
        driver_id=driver.driver_id,
        version=driver.version,
        capabilities=tuple(driver.capabilities),
        rating_milli=driver.rating_milli,
        online=driver.online,
        suspended=driver.suspended,
        ride_id=driver.ride_id,
        acceptance_milli=driver.acceptance_milli,
        free_since_ms=driver.free_since_ms,
    )


def stats_view(stats: matching_service_pb2.GetStatsResponse) -> StatsView:
    """How a city stands, as operators see it."""
    return StatsView(
        as_of_ms=stats.as_of_ms,
        drivers_online=stats.drivers_online,
        drivers_available=stats.drivers_available,
        rides={_RIDE_STATES[each.state]: each.count for each in stats.rides},
        waited_mean_s=stats.waited_mean_s,
        waited_max_s=stats.waited_max_s,
    )


def fix(report: FixReport) -> fix_pb2.Fix:
    """One fix for the wire."""
    return fix_pb2.Fix(
        sequence=report.sequence,
        device_time_ms=report.device_time_ms,
        position=position(report.place),
        heading_deg=report.heading_deg,
        speed_mps=report.speed_mps,
    )


def fix_columns(fixes: FleetFixes) -> fix_pb2.FixColumns:
    """Many drivers' fixes for the wire."""
    unknown = np.isnan(fixes.heading_deg)
    heading_cdeg = np.where(unknown, UNKNOWN_HEADING_CDEG, np.rint(np.nan_to_num(fixes.heading_deg) * 100)).astype(np.int64)
    return fix_pb2.FixColumns(
        new_driver_ids=fixes.new_driver_ids,
        driver_index=fixes.driver_index.tolist(),
        sequence=fixes.sequence.tolist(),
        device_time_ms=fixes.device_time_ms.tolist(),
        lat_e7=to_e7(fixes.lat).tolist(),
        lng_e7=to_e7(fixes.lng).tolist(),
        heading_cdeg=heading_cdeg.tolist(),
        speed_mmps=np.rint(fixes.speed_mps * 1000).astype(np.int64).tolist(),
    )


def fixes_answer(
    answer: location_service_pb2.StreamFixesResponse | location_service_pb2.StreamFleetFixesResponse,
) -> SessionView | FixAckView:
    """What a stream of fixes answered."""
    if answer.WhichOneof("message") == "session_opened":
        opened = answer.session_opened
        return SessionView(opened.session_id, opened.report_interval_ms, opened.server_time_ms)
    drops: dict[str, int] = {}
    for drop in answer.ack.drops:
        name = fix_pb2.FixDropReason.Name(drop.reason).removeprefix("FIX_DROP_REASON_")
        drops[name] = drops.get(name, 0) + drop.count
    return FixAckView(answer.ack.up_to_sequence, answer.ack.accepted, drops, answer.ack.report_interval_ms)


def surge_view(columns: surge_pb2.SurgeColumns, *, snapshot: bool, version: int, as_of_ms: int, stale: bool) -> SurgeView:
    """Multipliers as apps see them."""
    return SurgeView(
        snapshot=snapshot,
        version=version,
        cells=np.array(columns.cells, dtype=np.uint64),
        multiplier_milli=np.array(columns.multiplier_milli, dtype=np.int64),
        as_of_ms=as_of_ms,
        stale=stale,
    )
