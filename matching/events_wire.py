"""What the event log says of a change: facts to envelopes, with the inputs that the decision saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import ride_pb2
from matching.model import Fact, FactKind, Ride
from matching.window import windows_of
from matching.wire import write_driver, write_offer, write_ride

if TYPE_CHECKING:
    from collections.abc import Callable

    from matching.candidates import Consideration
    from matching.store import Change, Driver
    from matching.window import WindowAssigned

POLICY_VERSION = "1"


def encode_ride_events(change: Change) -> list[tuple[str, bytes]]:
    """Kind and envelope of every event of a change, in order."""
    ride = change.decision.ride
    events: list[tuple[str, event_pb2.Envelope]] = []
    if change.consideration is not None:
        ranked = _candidates_ranked(ride, change.consideration)
        events.append((FactKind.CANDIDATES_RANKED.value, event_pb2.Envelope(candidates_ranked=ranked)))
    events += [(fact.kind.value, _envelope(ride, fact)) for fact in change.decision.facts]
    caused = [fact.actor or change.actor for fact in change.decision.facts]
    if not events:
        # Every version is in the log, so that whoever reads it can tell that none is missing.
        events.append(("RIDE_CHANGED", event_pb2.Envelope(ride_changed=event_pb2.RideChanged(ride=write_ride(ride)))))
    actors = [change.actor] * (len(events) - len(caused)) + caused
    for index, (_, envelope) in enumerate(events):
        envelope.city_id = ride.city_id
        envelope.aggregate_id = ride.ride_id
        envelope.version = ride.version
        envelope.index = index
        envelope.version_events = len(events)
        envelope.at_ms = ride.updated_at_ms
        envelope.policy_version = POLICY_VERSION
        envelope.traffic_version = _traffic_version(change)
        envelope.surge_version = ride.quote.surge_version
        envelope.actor = actors[index]
        envelope.ride_state = ride_pb2.RideState.Value(f"RIDE_STATE_{ride.state.value}")
    return [(kind, envelope.SerializeToString()) for kind, envelope in events]


def _traffic_version(change: Change) -> str:
    """Which travel times did this change see? Those of its search, or else the latest that the ride was decided with."""
    ride = change.decision.ride
    if change.consideration is not None:
        return change.consideration.travel_times_version
    return ride.travel_times_version or ride.quote.travel_times_version


def encode_driver_event(driver: Driver, kind: str, now_ms: int, actor: str, note: str) -> bytes:
    """The envelope of a change of a driver; `note` is what an operator said of it."""
    envelope = event_pb2.Envelope(
        city_id=driver.city_id,
        aggregate_id=driver.driver_id,
        version=driver.version,
        at_ms=now_ms,
        policy_version=POLICY_VERSION,
        actor=actor,
        version_events=1,
    )
    if kind == "DRIVER_UPSERTED":
        envelope.driver_upserted.driver.CopyFrom(write_driver(driver))
    elif kind == "DRIVER_WENT_ONLINE":
        envelope.driver_went_online.SetInParent()
    elif kind == "DRIVER_SUSPENDED":
        envelope.driver_suspended.CopyFrom(event_pb2.DriverSuspended(suspended=driver.suspended, reason=note))
    else:
        envelope.driver_went_offline.SetInParent()
    return envelope.SerializeToString()


def encode_window_event(event: WindowAssigned, number: int) -> bytes:
    """The envelope of a window of a batched city."""
    window, driver = event.window, event.assignment.driver
    pairs, reach = window.pairs(), window.reach
    assigned = event_pb2.WindowAssigned(
        window=number,
        ride_ids=[ride.ride_id for ride in window.rides],
        driver_ids=window.driver_ids,
        pair_ride_index=pairs.ride.tolist(),
        pair_driver_index=pairs.driver.tolist(),
        pair_cost_milli=pairs.cost_milli.tolist(),
        pair_chosen=(driver[pairs.ride] == pairs.driver).tolist(),
        pair_pickup_ms=reach.pickup_ms[window.open].tolist(),
        waiting_cost_milli=window.waiting_milli.tolist(),
        ride_versions=[ride.version for ride in window.rides],
        total_cost_milli=event.assignment.cost_milli,
        complete=window.complete,
        travel_times_fell_back=window.travel_times_fell_back,
    )
    return event_pb2.Envelope(
        city_id=window.city_id,
        aggregate_id=windows_of(window.city_id),
        version=number,
        at_ms=window.at_ms,
        policy_version=POLICY_VERSION,
        traffic_version=window.travel_times_version,
        actor="system",
        window_assigned=assigned,
    ).SerializeToString()


def _envelope(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    return _ENVELOPES[fact.kind](ride, fact)


def _offers_made(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    offers = [write_offer(ride, offer, ride.updated_at_ms) for offer in ride.offers if offer.offer_id in fact.offer_ids]
    return event_pb2.Envelope(offers_made=event_pb2.OffersMade(phase=ride.phase, offers=offers))


def _assignment_began(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    eta_s = ride.assignment.pickup_eta_s if ride.assignment else 0
    began = event_pb2.AssignmentBegan(driver_id=fact.driver_id, offer_id=fact.offer_ids[0], pickup_eta_s=eta_s)
    return event_pb2.Envelope(assignment_began=began)


def _assignment_ended(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    reason = fact.release_reason.value if fact.release_reason else "UNSPECIFIED"
    ended = event_pb2.AssignmentEnded(
        driver_id=fact.driver_id,
        reason=event_pb2.AssignmentEndReason.Value(f"ASSIGNMENT_END_REASON_{reason}"),
        note=fact.text,
    )
    return event_pb2.Envelope(assignment_ended=ended)


def _ride_cancelled(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    state = ride_pb2.RideState.Value(f"RIDE_STATE_{ride.state.value}")
    return event_pb2.Envelope(ride_cancelled=event_pb2.RideCancelled(state=state, reason=fact.text))


def _search_postponed(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    postponed = event_pb2.SearchPostponed(until_ms=ride.next_deadline_ms or 0, reason=fact.text)
    return event_pb2.Envelope(search_postponed=postponed)


def _fee_due(ride: Ride, fact: Fact) -> event_pb2.Envelope:
    due = event_pb2.FeeDue(
        kind=event_pb2.FeeKind.Value(f"FEE_KIND_{fact.fee.value if fact.fee else 'UNSPECIFIED'}"),
        rider_id=ride.rider_id,
        driver_id=fact.driver_id,
        at_ms=ride.updated_at_ms,
    )
    return event_pb2.Envelope(fee_due=due)


_ENVELOPES: dict[FactKind, Callable[[Ride, Fact], event_pb2.Envelope]] = {
    FactKind.RIDE_REQUESTED: lambda ride, _: event_pb2.Envelope(ride_requested=event_pb2.RideRequested(ride=write_ride(ride))),
    FactKind.SEARCH_BEGAN: lambda _, fact: event_pb2.Envelope(
        search_began=event_pb2.SearchBegan(expected_pickup_s=round(fact.expected_pickup_s))
    ),
    FactKind.SEARCH_POSTPONED: _search_postponed,
    FactKind.OFFERS_MADE: _offers_made,
    FactKind.OFFER_SHOWN: lambda _, fact: event_pb2.Envelope(
        offer_shown=event_pb2.OfferShown(offer_id=fact.offer_ids[0], driver_id=fact.driver_id)
    ),
    FactKind.OFFER_DECLINED: lambda _, fact: event_pb2.Envelope(
        offer_declined=event_pb2.OfferDeclined(offer_id=fact.offer_ids[0], driver_id=fact.driver_id)
    ),
    FactKind.OFFER_WITHDRAWN: lambda _, fact: event_pb2.Envelope(
        offer_withdrawn=event_pb2.OfferWithdrawn(offer_id=fact.offer_ids[0], driver_id=fact.driver_id)
    ),
    FactKind.OFFERS_EXPIRED: lambda ride, fact: event_pb2.Envelope(
        offers_expired=event_pb2.OffersExpired(phase=ride.phase, offer_ids=fact.offer_ids)
    ),
    FactKind.ASSIGNMENT_BEGAN: _assignment_began,
    FactKind.ASSIGNMENT_ENDED: _assignment_ended,
    FactKind.DRIVER_ARRIVED: lambda _, fact: event_pb2.Envelope(driver_arrived=event_pb2.DriverArrived(driver_id=fact.driver_id)),
    FactKind.RIDE_STARTED: lambda _, fact: event_pb2.Envelope(ride_started=event_pb2.RideStarted(driver_id=fact.driver_id)),
    FactKind.RIDE_COMPLETED: lambda _, fact: event_pb2.Envelope(ride_completed=event_pb2.RideCompleted(driver_id=fact.driver_id)),
    FactKind.RIDE_CANCELLED: _ride_cancelled,
    FactKind.RIDE_EXPIRED: lambda _ride, _fact: event_pb2.Envelope(ride_expired=event_pb2.RideExpired()),
    FactKind.FEE_DUE: _fee_due,
    FactKind.RIDE_ENDED: lambda _, fact: event_pb2.Envelope(ride_ended=event_pb2.RideEnded(reason=fact.text)),
}


def _candidates_ranked(ride: Ride, consideration: Consideration) -> event_pb2.CandidatesRanked:
    candidates, ranking = consideration.candidates, consideration.ranking
    eta_ms = np.where(np.isfinite(candidates.pickup_eta_s), candidates.pickup_eta_s * 1000, 2**32 - 1)
    return event_pb2.CandidatesRanked(
        phase=consideration.phase,
        policy=consideration.policy,
        driver_id=candidates.driver_ids,
        distance_mm=np.rint(candidates.distance_m * 1000).astype(np.uint32).tolist(),
        pickup_eta_ms=np.minimum(eta_ms, 2**32 - 1).astype(np.uint32).tolist(),
        rating_milli=candidates.rating_milli.tolist(),
        acceptance_milli=candidates.acceptance_milli.tolist(),
        score_milli=ranking.score_milli.tolist(),
        not_offered_reason=consideration.reasons,
        searched_radius_m=consideration.searched_radius_m,
        complete=consideration.complete,
        as_of_ms=consideration.as_of_ms,
        travel_times_fell_back=consideration.travel_times_fell_back,
        idle_s=np.rint(candidates.idle_s).astype(np.uint32).tolist(),
        parts=[event_pb2.ScorePartColumn(name=name, score_milli=part.tolist()) for name, part in ranking.parts.items()],
        policy_fell_back=ranking.failure is not None,
        failed_policy=ranking.failed_policy,
        policy_failure=ranking.failure.value if ranking.failure else "",
        left_out=[
            event_pb2.DriverLeftOut(driver_id=each.driver_id, reason=each.reason, distance_mm=round(each.distance_m * 1000))
            for each in consideration.left_out
        ],
    )
