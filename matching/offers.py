"""What happens to a ride and its offers now? The lifecycle without I/O: one function that service and simulator run.

Source: phases, sizes and times are M4 of docs/sources.md; that an accept wins until an expiry is committed, and the later
deadlines, are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S
from matching.fees import FeeParams, fee_for_cancelling
from matching.model import (
    ASSIGNED,
    FINAL,
    OPEN,
    TRANSITIONS,
    Assignment,
    DeadlinePassed,
    Decision,
    DriverArrived,
    DriverCancelled,
    DriverSilent,
    EndedByOperator,
    Event,
    Fact,
    FactKind,
    FeeKind,
    NoProgress,
    Offer,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OffersPlanned,
    OfferState,
    OfferWithdrawn,
    ReassignedByOperator,
    ReleaseReason,
    Ride,
    RideCompleted,
    RiderCancelled,
    RiderFoundBusy,
    RideStarted,
    RideState,
)
from matching.schedule import ScheduleParams, looked_at_ms, search_begins_at_ms, search_ends_at_ms

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class PhaseParams:
    """How many drivers are asked at once, for how long, and from how far."""

    size: int
    timeout_s: float
    radius_m: float

    def __post_init__(self) -> None:
        """Raises ValueError for a phase that asks nobody."""
        if self.size < 1 or self.timeout_s <= 0 or self.radius_m <= 0:
            raise ValueError("a phase needs size >= 1, timeout_s > 0 and radius_m > 0")


@dataclass(frozen=True, slots=True)
class OfferParams:
    """The course of a search, and how long each later state may last."""

    phases: tuple[PhaseParams, ...] = (PhaseParams(3, 5.0, 2_000.0), PhaseParams(3, 5.0, 2_000.0), PhaseParams(3, 5.0, 5_000.0))
    """In order; the last repeats."""
    search_limit_s: float = 30.0
    retry_s: float = 2.0
    """When the widest phase found nobody: how soon to look again."""
    pickup_limit_s: float = 3_600.0
    no_show_after_s: float = 600.0
    ride_limit_s: float = 6 * 3_600.0
    in_windows: bool = False
    """Searching rides wait for the next window of a batched city: only the end of the search is their deadline."""
    schedule: ScheduleParams = field(default_factory=ScheduleParams)
    fees: FeeParams = field(default_factory=FeeParams)

    def __post_init__(self) -> None:
        """Raises ValueError where a search could not begin or never end."""
        if not self.phases:
            raise ValueError("phases is empty: a search needs one at least")
        for name in ("search_limit_s", "retry_s", "pickup_limit_s", "no_show_after_s", "ride_limit_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")

    def phase(self, number: int) -> PhaseParams:
        """The parameters of a phase, counted from 1."""
        return self.phases[min(number, len(self.phases)) - 1]


def begin(ride: Ride, now_ms: int, params: OfferParams | None = None) -> Decision:
    """A new ride, wanted now: it is searched at once, or in the next window."""
    begun = replace(
        ride, state=RideState.SEARCHING, version=1, updated_at_ms=now_ms, search_began_at_ms=now_ms, next_deadline_ms=now_ms
    )
    return Decision(_left_to_windows(begun, params) if params else begun, (Fact(FactKind.RIDE_REQUESTED),))


def schedule(ride: Ride, now_ms: int, params: OfferParams) -> Decision:
    """A new ride, wanted at its `pickup_at_ms`: it waits until it is time to search."""
    waits_until_ms = max(now_ms, looked_at_ms(ride.pickup_at_ms, params.schedule))
    scheduled = replace(ride, state=RideState.SCHEDULED, version=1, updated_at_ms=now_ms, next_deadline_ms=waits_until_ms)
    return Decision(scheduled, (Fact(FactKind.RIDE_REQUESTED),))


def next_phase(ride: Ride) -> int:
    """Which phase does the coming search belong to, counted from 1?"""
    return ride.phase + 1


def search_is_over(ride: Ride, now_ms: int, params: OfferParams) -> bool:
    """Has the time for finding a driver run out?"""
    return now_ms >= _search_ends_at_ms(ride, params)


def decide(ride: Ride, event: Event, now_ms: int, params: OfferParams) -> Decision:
    """What does this event make of this ride?

    An event that makes no difference (a winner's repeat, say) gives the ride itself, unchanged. A change bumps the version.
    Raises ILLEGAL_TRANSITION where the table does not have the move, and for offers ALREADY_TAKEN, OFFER_CLOSED, OFFER_NOT_FOUND;
    NOT_YOURS where a driver moves another's ride.
    """
    rule: Callable[[Ride, Event, int, OfferParams], Decision] = _RULES[type(event)]
    decision = rule(ride, event, now_ms, params)
    after = decision.ride
    if after is ride:
        return decision
    if after.state not in TRANSITIONS.get(ride.state, {}).get(event.kind, ()):
        raise _illegal(ride, event)
    after = _left_to_windows(after, params)
    return Decision(replace(after, version=ride.version + 1, updated_at_ms=now_ms), decision.facts)


def _left_to_windows(ride: Ride, params: OfferParams) -> Ride:
    if params.in_windows and ride.state is RideState.SEARCHING:
        return replace(ride, next_deadline_ms=_search_ends_at_ms(ride, params))
    return ride


def _deadline_passed(ride: Ride, event: DeadlinePassed, now_ms: int, params: OfferParams) -> Decision:
    if ride.state in FINAL or (ride.next_deadline_ms is not None and now_ms < ride.next_deadline_ms):
        return Decision(ride)
    if ride.state is RideState.SCHEDULED:
        return _search_due(ride, event, now_ms, params)
    if ride.state is RideState.SEARCHING and not search_is_over(ride, now_ms, params):
        return Decision(ride)  # due for another search, which ends in OffersPlanned
    if ride.state in OPEN:
        return _phase_over(ride, now_ms, params)
    if ride.state is RideState.IN_PROGRESS:
        ended = _close(ride, RideState.ENDED_BY_OPERATOR)
        return Decision(ended, (_released(ride, ReleaseReason.ENDED_BY_OPERATOR), Fact(FactKind.RIDE_ENDED, text="OVERDUE")))
    if ride.state is RideState.ARRIVED:
        facts = (_released(ride, ReleaseReason.NO_SHOW), Fact(FactKind.RIDE_CANCELLED), _fee_due(ride, FeeKind.NO_SHOW))
        return Decision(_close(ride, RideState.NO_SHOW), facts)
    cancelled = _close(ride, RideState.CANCELLED_BY_SYSTEM)
    reason = Fact(FactKind.RIDE_CANCELLED, text="PICKUP_LIMIT")
    return Decision(cancelled, (_released(ride, ReleaseReason.CANCELLED_BY_SYSTEM), reason))


def _search_due(ride: Ride, event: DeadlinePassed, now_ms: int, params: OfferParams) -> Decision:
    if now_ms >= search_ends_at_ms(ride.pickup_at_ms, params.schedule):
        return Decision(_close(ride, RideState.EXPIRED), (Fact(FactKind.RIDE_EXPIRED),))
    begins_at_ms = search_begins_at_ms(ride.pickup_at_ms, event.expected_pickup_s, params.schedule)
    if now_ms < begins_at_ms:
        return Decision(replace(ride, next_deadline_ms=begins_at_ms), (Fact(FactKind.SEARCH_POSTPONED, text="EARLY"),))
    expected_s = params.schedule.expected_pickup_s if event.expected_pickup_s is None else event.expected_pickup_s
    return Decision(_searching(ride, now_ms), (Fact(FactKind.SEARCH_BEGAN, expected_pickup_s=expected_s),))


def _rider_found_busy(ride: Ride, event: RiderFoundBusy, now_ms: int, params: OfferParams) -> Decision:
    if ride.state is not RideState.SCHEDULED:
        return Decision(ride)
    again_ms = now_ms + round(params.schedule.busy_retry_s * MS_PER_S)
    if again_ms >= search_ends_at_ms(ride.pickup_at_ms, params.schedule):
        cancelled = _close(ride, RideState.CANCELLED_BY_SYSTEM)
        return Decision(cancelled, (Fact(FactKind.RIDE_CANCELLED, text="RIDER_BUSY"),))
    return Decision(replace(ride, next_deadline_ms=again_ms), (Fact(FactKind.SEARCH_POSTPONED, text="RIDER_BUSY"),))


def _phase_over(ride: Ride, now_ms: int, params: OfferParams) -> Decision:
    expired = tuple(offer.offer_id for offer in ride.live_offers())
    facts = (Fact(FactKind.OFFERS_EXPIRED, offer_ids=expired),) if expired else ()
    offers = _close_live(ride.offers, OfferState.EXPIRED)
    if search_is_over(ride, now_ms, params):
        over = replace(ride, state=RideState.EXPIRED, offers=offers, next_deadline_ms=None)
        return Decision(over, (*facts, Fact(FactKind.RIDE_EXPIRED)))
    again = replace(ride, state=RideState.SEARCHING, offers=offers, next_deadline_ms=now_ms)
    return Decision(_next_round(again, now_ms, params), facts)


def _offers_planned(ride: Ride, event: OffersPlanned, now_ms: int, params: OfferParams) -> Decision:
    if ride.state is not RideState.SEARCHING:
        raise _illegal(ride, event)
    if event.phase != next_phase(ride):
        return Decision(ride)
    if not event.offers:
        # Nobody found by half an answer is not nobody there: the same phase is tried again.
        widest = params.in_windows or event.phase >= len(params.phases) or not event.complete
        wait_ms = round(params.retry_s * MS_PER_S) if widest else 0
        deadline_ms = min(now_ms + wait_ms, _search_ends_at_ms(ride, params))
        phase = ride.phase if widest else event.phase
        return Decision(_next_round(replace(ride, phase=phase, next_deadline_ms=deadline_ms), now_ms, params))
    expires_at_ms = min(now_ms + round(params.phase(event.phase).timeout_s * MS_PER_S), _search_ends_at_ms(ride, params))
    made = tuple(
        Offer(
            offer_id=planned.offer_id,
            driver_id=planned.driver_id,
            phase=event.phase,
            state=OfferState.LIVE,
            made_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
            pickup_eta_s=planned.pickup_eta_s,
            pickup_distance_m=planned.pickup_distance_m,
        )
        for planned in event.offers
    )
    offered = replace(
        ride,
        state=RideState.OFFERED,
        phase=event.phase,
        offers=ride.offers + made,
        next_deadline_ms=expires_at_ms,
        travel_times_version=event.travel_times_version,
    )
    return Decision(offered, (Fact(FactKind.OFFERS_MADE, offer_ids=tuple(offer.offer_id for offer in made)),))


def _offer_shown(ride: Ride, event: OfferShown, now_ms: int, params: OfferParams) -> Decision:
    offer = ride.offer(event.offer_id)
    if offer.state is not OfferState.LIVE or offer.shown_at_ms:
        return Decision(ride)
    shown = replace(offer, shown_at_ms=now_ms)
    fact = Fact(FactKind.OFFER_SHOWN, offer.driver_id, (offer.offer_id,))
    return Decision(replace(ride, offers=_with(ride.offers, shown)), (fact,))


def _offer_accepted(ride: Ride, event: OfferAccepted, now_ms: int, params: OfferParams) -> Decision:
    offer = ride.offer(event.offer_id)
    if ride.assignment is not None:
        if ride.assignment.offer_id == offer.offer_id:
            return Decision(ride)  # the winner's repeat succeeds
        if ride.assignment.driver_id == offer.driver_id:  # by another offer of the same ride, made when this one was never shown
            raise _closed(offer)
        raise DomainError(Reason.ALREADY_TAKEN, "another driver has the ride", ride_id=ride.ride_id)
    if offer.state is not OfferState.LIVE:
        raise _closed(offer)
    accepted = _with(ride.offers, replace(offer, state=OfferState.ACCEPTED, shown_at_ms=offer.shown_at_ms or now_ms))
    # live offers are all of the latest phase, and so are their travel times
    assignment = Assignment(
        offer.driver_id, offer.offer_id, now_ms, offer.pickup_eta_s, travel_times_version=ride.travel_times_version
    )
    after = replace(
        ride,
        state=RideState.ACCEPTED,
        offers=_close_live(accepted, OfferState.WITHDRAWN),
        assignment=assignment,
        next_deadline_ms=max(now_ms, ride.pickup_at_ms) + round(params.pickup_limit_s * MS_PER_S),
    )
    return Decision(after, (Fact(FactKind.ASSIGNMENT_BEGAN, offer.driver_id, (offer.offer_id,)),))


def _closed(offer: Offer) -> DomainError:
    return DomainError(Reason.OFFER_CLOSED, f"the offer is {offer.state}", offer_id=offer.offer_id, state=offer.state)


def _offer_declined(ride: Ride, event: OfferDeclined, now_ms: int, params: OfferParams) -> Decision:
    offer = ride.offer(event.offer_id)
    if offer.state is OfferState.ACCEPTED:
        raise _illegal(ride, event)
    if offer.state is not OfferState.LIVE:
        return Decision(ride)
    fact = Fact(FactKind.OFFER_DECLINED, offer.driver_id, (offer.offer_id,))
    shown_at_ms = offer.shown_at_ms or (now_ms if event.by_driver else 0)
    after = replace(ride, offers=_with(ride.offers, replace(offer, state=OfferState.DECLINED, shown_at_ms=shown_at_ms)))
    return Decision(_searched_if_nobody_is_asked(after, now_ms), (fact,))


def _offer_withdrawn(ride: Ride, event: OfferWithdrawn, now_ms: int, params: OfferParams) -> Decision:
    offer = ride.offer(event.offer_id)
    if offer.state is not OfferState.LIVE:
        return Decision(ride)
    fact = Fact(FactKind.OFFER_WITHDRAWN, offer.driver_id, (offer.offer_id,))
    after = replace(ride, offers=_with(ride.offers, replace(offer, state=OfferState.WITHDRAWN)))
    return Decision(_searched_if_nobody_is_asked(after, now_ms), (fact,))


def _rider_cancelled(ride: Ride, event: RiderCancelled, now_ms: int, params: OfferParams) -> Decision:
    if ride.state is RideState.CANCELLED_BY_RIDER:
        return Decision(ride)
    released = (_released(ride, ReleaseReason.CANCELLED_BY_RIDER),) if ride.state in ASSIGNED else ()
    fee = fee_for_cancelling(ride, now_ms, params.fees)
    fees = (_fee_due(ride, fee),) if fee is not None else ()
    return Decision(_close(ride, RideState.CANCELLED_BY_RIDER), (*released, Fact(FactKind.RIDE_CANCELLED), *fees))


def _driver_cancelled(ride: Ride, event: DriverCancelled, now_ms: int, params: OfferParams) -> Decision:
    assignment = _assignment_of(ride, event)
    after = _taken_back(ride, assignment, now_ms)
    return Decision(after, (_released(ride, ReleaseReason.CANCELLED_BY_DRIVER, event.reason),))


def _no_progress(ride: Ride, event: NoProgress, now_ms: int, params: OfferParams) -> Decision:
    if ride.version != event.version:
        return Decision(ride)
    after = _taken_back(ride, _assignment_of(ride, event), now_ms)
    return Decision(after, (_released(ride, ReleaseReason.NO_PROGRESS),))


def _driver_silent(ride: Ride, event: DriverSilent, now_ms: int, params: OfferParams) -> Decision:
    if ride.version != event.version:
        return Decision(ride)
    assignment = _assignment_of(ride, event)
    released = _released(ride, ReleaseReason.DRIVER_SILENT)
    if ride.state is RideState.IN_PROGRESS:
        return Decision(_close(ride, RideState.ENDED_BY_OPERATOR), (released, Fact(FactKind.RIDE_ENDED, text="DRIVER_SILENT")))
    return Decision(_taken_back(ride, assignment, now_ms), (released,))


def _driver_arrived(ride: Ride, event: DriverArrived, now_ms: int, params: OfferParams) -> Decision:
    assignment = _assignment_of(ride, event)
    if ride.state is RideState.ARRIVED:
        return Decision(ride)
    after = replace(
        ride,
        state=RideState.ARRIVED,
        assignment=replace(assignment, arrived_at_ms=now_ms),
        next_deadline_ms=max(now_ms, ride.pickup_at_ms) + round(params.no_show_after_s * MS_PER_S),
    )
    return Decision(after, (Fact(FactKind.DRIVER_ARRIVED, event.driver_id),))


def _ride_started(ride: Ride, event: RideStarted, now_ms: int, params: OfferParams) -> Decision:
    assignment = _assignment_of(ride, event)
    if ride.state is RideState.IN_PROGRESS:
        return Decision(ride)
    after = replace(
        ride,
        state=RideState.IN_PROGRESS,
        assignment=replace(assignment, started_at_ms=now_ms),
        next_deadline_ms=now_ms + round(params.ride_limit_s * MS_PER_S),
    )
    return Decision(after, (Fact(FactKind.RIDE_STARTED, event.driver_id),))


def _ride_completed(ride: Ride, event: RideCompleted, now_ms: int, params: OfferParams) -> Decision:
    assignment = _assignment_of(ride, event)
    if ride.state is RideState.COMPLETED:
        return Decision(ride)
    after = replace(
        _close(ride, RideState.COMPLETED),
        assignment=replace(assignment, completed_at_ms=now_ms),
    )
    facts = (_released(ride, ReleaseReason.COMPLETED), Fact(FactKind.RIDE_COMPLETED, event.driver_id))
    return Decision(after, facts)


def _reassigned_by_operator(ride: Ride, event: ReassignedByOperator, now_ms: int, params: OfferParams) -> Decision:
    if ride.state not in ASSIGNED or ride.assignment is None:
        raise _illegal(ride, event)
    after = _taken_back(ride, ride.assignment, now_ms)
    return Decision(after, (_released(ride, ReleaseReason.REASSIGNED, event.reason),))


def _ended_by_operator(ride: Ride, event: EndedByOperator, now_ms: int, params: OfferParams) -> Decision:
    if ride.state is RideState.ENDED_BY_OPERATOR:
        return Decision(ride)
    released = (_released(ride, ReleaseReason.ENDED_BY_OPERATOR, event.reason),) if ride.state in ASSIGNED else ()
    ended = _close(ride, RideState.ENDED_BY_OPERATOR)
    return Decision(ended, (*released, Fact(FactKind.RIDE_ENDED, text=event.reason)))


_RULES: dict[type, Callable[..., Decision]] = {
    DeadlinePassed: _deadline_passed,
    OffersPlanned: _offers_planned,
    OfferShown: _offer_shown,
    OfferAccepted: _offer_accepted,
    OfferDeclined: _offer_declined,
    OfferWithdrawn: _offer_withdrawn,
    RiderCancelled: _rider_cancelled,
    RiderFoundBusy: _rider_found_busy,
    DriverCancelled: _driver_cancelled,
    NoProgress: _no_progress,
    DriverSilent: _driver_silent,
    DriverArrived: _driver_arrived,
    RideStarted: _ride_started,
    RideCompleted: _ride_completed,
    ReassignedByOperator: _reassigned_by_operator,
    EndedByOperator: _ended_by_operator,
}


def _search_ends_at_ms(ride: Ride, params: OfferParams) -> int:
    ends_at_ms = _round_ends_at_ms(ride, params)
    return max(ends_at_ms, search_ends_at_ms(ride.pickup_at_ms, params.schedule)) if ride.pickup_at_ms else ends_at_ms


def _round_ends_at_ms(ride: Ride, params: OfferParams) -> int:
    return ride.search_began_at_ms + round(params.search_limit_s * MS_PER_S)


def _next_round(ride: Ride, now_ms: int, params: OfferParams) -> Ride:
    """A scheduled ride is searched in rounds: whoever did not answer in the last one is asked again in the next."""
    if now_ms < _round_ends_at_ms(ride, params) or search_is_over(ride, now_ms, params):
        return ride
    return replace(ride, phase=0, search_began_at_ms=now_ms)


def _searched_if_nobody_is_asked(ride: Ride, now_ms: int) -> Ride:
    return ride if ride.live_offers() else replace(ride, state=RideState.SEARCHING, next_deadline_ms=now_ms)


def _searching(ride: Ride, now_ms: int) -> Ride:
    return replace(ride, state=RideState.SEARCHING, phase=0, search_began_at_ms=now_ms, next_deadline_ms=now_ms)


def _taken_back(ride: Ride, assignment: Assignment, now_ms: int) -> Ride:
    """The ride, to be searched again, and never again offered to this driver."""
    declined = replace(ride.offer(assignment.offer_id), state=OfferState.DECLINED)
    return replace(_searching(ride, now_ms), assignment=None, offers=_with(ride.offers, declined))


def _assignment_of(
    ride: Ride, event: DriverCancelled | DriverArrived | RideStarted | RideCompleted | NoProgress | DriverSilent
) -> Assignment:
    if ride.assignment is None:
        raise _illegal(ride, event)
    if ride.assignment.driver_id != event.driver_id:
        raise DomainError(Reason.NOT_YOURS, "the ride is another driver's", ride_id=ride.ride_id)
    return ride.assignment


def _close(ride: Ride, state: RideState) -> Ride:
    return replace(ride, state=state, offers=_close_live(ride.offers, OfferState.WITHDRAWN), next_deadline_ms=None)


def _close_live(offers: tuple[Offer, ...], state: OfferState) -> tuple[Offer, ...]:
    return tuple(replace(offer, state=state) if offer.state is OfferState.LIVE else offer for offer in offers)


def _with(offers: tuple[Offer, ...], changed: Offer) -> tuple[Offer, ...]:
    return tuple(changed if offer.offer_id == changed.offer_id else offer for offer in offers)


def _released(ride: Ride, reason: ReleaseReason, text: str = "") -> Fact:
    driver_id = ride.assignment.driver_id if ride.assignment else ""
    return Fact(FactKind.ASSIGNMENT_ENDED, driver_id, release_reason=reason, text=text)


def _fee_due(ride: Ride, fee: FeeKind) -> Fact:
    driver_id = ride.assignment.driver_id if ride.assignment else ""
    return Fact(FactKind.FEE_DUE, driver_id, fee=fee)


def _illegal(ride: Ride, event: Event) -> DomainError:
    return DomainError(
        Reason.ILLEGAL_TRANSITION,
        f"{event.kind} cannot happen to a ride that is {ride.state}",
        ride_id=ride.ride_id,
        state=ride.state,
        event=event.kind,
    )
