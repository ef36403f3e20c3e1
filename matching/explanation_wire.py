"""The event log's envelopes to what explanations ask for, and explanations to protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1 import offer_pb2, ride_pb2
from hexhail.kernel.ids import check_name
from hexhail.kernel.units import MS_PER_S
from matching.explanation import (
    Absence,
    Bound,
    ConsideredDriver,
    DriverChange,
    DriverHistory,
    Explanation,
    LogEvent,
    OfferCourse,
    Search,
)
from matching.wire import write_offer, write_ride

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from matching.store import Driver

NO_WAY_MS = 2**32 - 1
"""A pickup time in the log that means that no way leads there."""


def read_asked_driver(driver_id: str) -> str:
    """The driver asked about; empty for none. Raises INVALID_FIELD."""
    return check_name("driver_id", driver_id) if driver_id else ""


def read_log(envelopes: Iterable[bytes]) -> list[LogEvent]:
    """A ride's events."""
    return [_event(event_pb2.Envelope.FromString(each)) for each in envelopes]


def read_driver_history(driver: Driver, envelopes: Iterable[bytes], bound: Iterable[Bound]) -> DriverHistory:
    """A driver's past, from its events, oldest first."""
    present = DriverChange(driver.updated_at_ms, driver.online, driver.suspended, driver.capabilities)
    changes = [change for change in map(_driver_change, map(event_pb2.Envelope.FromString, envelopes)) if change is not None]
    return DriverHistory(driver.driver_id, present, tuple(changes), tuple(bound))


def _driver_change(envelope: event_pb2.Envelope) -> DriverChange | None:
    match envelope.WhichOneof("event"):
        case "driver_went_online":
            return DriverChange(envelope.at_ms, online=True)
        case "driver_went_offline":
            return DriverChange(envelope.at_ms, online=False)
        case "driver_suspended":
            return DriverChange(envelope.at_ms, suspended=envelope.driver_suspended.suspended)
        case "driver_upserted":
            return DriverChange(envelope.at_ms, capabilities=tuple(envelope.driver_upserted.driver.capabilities))
    return None


def _event(envelope: event_pb2.Envelope) -> LogEvent:
    name = envelope.WhichOneof("event") or ""
    said: Any = getattr(envelope, name) if name else None
    offers = tuple(_made(offer) for offer in envelope.offers_made.offers)
    return LogEvent(
        version=envelope.version,
        index=envelope.index,
        at_ms=envelope.at_ms,
        kind=name.upper(),
        actor=envelope.actor,
        ride_state=_enum_name(ride_pb2.RideState, envelope.ride_state, "RIDE_STATE_") if envelope.ride_state else "",
        driver_id=getattr(said, "driver_id", "") if name != "candidates_ranked" else "",
        offer_ids=_offer_ids(said),
        search=_search(envelope) if name == "candidates_ranked" else None,
        offers=offers,
        details=tuple(_details(name, said)),
    )


def _offer_ids(said: Any) -> tuple[str, ...]:
    one, many = getattr(said, "offer_id", ""), getattr(said, "offer_ids", ())
    return (one,) if one else tuple(many)


def _made(offer: offer_pb2.Offer) -> OfferCourse:
    return OfferCourse(
        offer_id=offer.offer_id,
        driver_id=offer.driver_id,
        phase=offer.phase,
        made_at_ms=offer.made_at_ms,
        expires_at_ms=offer.expires_at_ms,
        pickup_eta_s=offer.pickup_eta_s,
        pickup_distance_m=offer.pickup_distance_m,
    )


def _search(envelope: event_pb2.Envelope) -> Search:
    ranked = envelope.candidates_ranked
    idle_s: Sequence[int] = ranked.idle_s or [0] * len(ranked.driver_id)
    candidates = tuple(
        ConsideredDriver(
            driver_id=driver_id,
            distance_m=ranked.distance_mm[row] / 1000,
            pickup_eta_s=None if ranked.pickup_eta_ms[row] == NO_WAY_MS else ranked.pickup_eta_ms[row] / MS_PER_S,
            rating_milli=ranked.rating_milli[row],
            acceptance_milli=ranked.acceptance_milli[row],
            idle_s=idle_s[row],
            score_milli=ranked.score_milli[row],
            parts=tuple((part.name, part.score_milli[row]) for part in ranked.parts),
            not_offered_reason=ranked.not_offered_reason[row],
        )
        for row, driver_id in enumerate(ranked.driver_id)
    )
    candidates += tuple(
        ConsideredDriver(each.driver_id, each.distance_mm / 1000, None, 0, 0, 0, 0, (), each.reason, left_out=True)
        for each in ranked.left_out
    )
    return Search(
        phase=ranked.phase,
        policy=ranked.policy,
        searched_radius_m=ranked.searched_radius_m,
        complete=ranked.complete,
        as_of_ms=ranked.as_of_ms,
        candidates=candidates,
        failed_policy=ranked.failed_policy,
        policy_failure=ranked.policy_failure,
        travel_times_version=envelope.traffic_version,
        travel_times_fell_back=ranked.travel_times_fell_back,
    )


def _details(name: str, said: Any) -> Iterator[tuple[str, str]]:
    """What an event says, field by field; of searches, offers and rides, which are told apart, only what there is of them."""
    if name == "candidates_ranked":
        yield "phase", str(said.phase)
        yield "found", str(len(said.driver_id))
        yield "asked", str(sum(not reason for reason in said.not_offered_reason))
    elif name == "offers_made":
        yield "phase", str(said.phase)
        yield "driver_ids", ", ".join(offer.driver_id for offer in said.offers)
    elif name in {"ride_requested", "ride_changed"}:
        yield "product", said.ride.product
        yield "fare_minor", str(said.ride.fare.amount_minor)
        yield "currency_code", said.ride.fare.currency_code
        yield "multiplier_milli", str(said.ride.multiplier_milli)
    elif said is not None:
        yield from _fields(said)


def _fields(said: Message) -> Iterator[tuple[str, str]]:
    for about, value in said.ListFields():
        if about.message_type is not None:
            continue
        values = [_written(about, each) for each in value] if about.is_repeated else [_written(about, value)]
        yield about.name, ", ".join(values)


def _written(about: FieldDescriptor, value: Any) -> str:
    if about.enum_type is None:
        return str(value)
    names = [each.name for each in about.enum_type.values]
    prefix = names[0].removesuffix("UNSPECIFIED")
    return str(about.enum_type.values_by_number[value].name.removeprefix(prefix))


def _enum_name(enum: Any, value: int, prefix: str) -> str:
    return str(enum.Name(value).removeprefix(prefix))


def write_explanation(explanation: Explanation, absences: Iterable[Absence], now_ms: int) -> pb.ExplainRideResponse:
    """Why the ride went as it did, for operators."""
    ride = explanation.ride
    return pb.ExplainRideResponse(
        ride=write_ride(ride),
        candidates=[_write_candidate(search, each) for search in explanation.searches for each in search.candidates],
        offers=[write_offer(ride, offer, now_ms) for offer in ride.offers],
        searches=[_write_search(search) for search in explanation.searches],
        offer_courses=[_write_course(course) for course in explanation.offers],
        events=[_write_event(event) for event in explanation.events],
        complete=explanation.complete,
        as_of_ms=now_ms,
        quote_travel_times_version=ride.quote.travel_times_version,
        surge_version=ride.quote.surge_version,
        absences=[
            pb.ExplainedAbsence(search=each.search, driver_id=each.driver_id, reason=each.reason, ride_id=each.ride_id)
            for each in absences
        ],
    )


def _write_search(search: Search) -> pb.ExplainedSearch:
    return pb.ExplainedSearch(
        search=search.number,
        phase=search.phase,
        version=search.version,
        at_ms=search.at_ms,
        policy=search.policy,
        policy_fell_back=bool(search.policy_failure),
        failed_policy=search.failed_policy,
        policy_failure=search.policy_failure,
        travel_times_version=search.travel_times_version,
        travel_times_fell_back=search.travel_times_fell_back,
        searched_radius_m=search.searched_radius_m,
        complete=search.complete,
        as_of_ms=search.as_of_ms,
    )


def _write_candidate(search: Search, candidate: ConsideredDriver) -> pb.ExplainedCandidate:
    return pb.ExplainedCandidate(
        phase=search.phase,
        driver_id=candidate.driver_id,
        at_ms=search.at_ms,
        distance_m=candidate.distance_m,
        pickup_eta_s=round(candidate.pickup_eta_s or 0),
        score_milli=candidate.score_milli,
        parts=[pb.ScorePart(name=name, score_milli=part) for name, part in candidate.parts],
        not_offered_reason=candidate.not_offered_reason,
        search=search.number,
        rating_milli=candidate.rating_milli,
        acceptance_milli=candidate.acceptance_milli,
        idle_s=candidate.idle_s,
        left_out=candidate.left_out,
    )


def _write_course(course: OfferCourse) -> pb.ExplainedOffer:
    return pb.ExplainedOffer(
        offer_id=course.offer_id,
        driver_id=course.driver_id,
        search=course.search,
        phase=course.phase,
        state=offer_pb2.OfferState.Value(f"OFFER_STATE_{course.state.value}"),
        made_at_ms=course.made_at_ms,
        expires_at_ms=course.expires_at_ms,
        shown_at_ms=course.shown_at_ms,
        closed_at_ms=course.closed_at_ms,
        pickup_eta_s=course.pickup_eta_s,
        pickup_distance_m=course.pickup_distance_m,
    )


def _write_event(event: LogEvent) -> pb.ExplainedEvent:
    return pb.ExplainedEvent(
        version=event.version,
        index=event.index,
        at_ms=event.at_ms,
        kind=event.kind,
        actor=event.actor,
        state=ride_pb2.RideState.Value(f"RIDE_STATE_{event.ride_state or 'UNSPECIFIED'}"),
        details=[pb.ExplainedDetail(name=name, value=value) for name, value in event.details],
    )
