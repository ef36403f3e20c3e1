"""What a ride is, what can happen to it, and where that leads: the value types and the one transition table. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError, Reason

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import CityId, DriverId, OfferId, QuoteId, RideId, RiderId


class RideState(StrEnum):
    """Where a ride stands."""

    SCHEDULED = "SCHEDULED"
    SEARCHING = "SEARCHING"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    ARRIVED = "ARRIVED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELLED_BY_RIDER = "CANCELLED_BY_RIDER"
    CANCELLED_BY_SYSTEM = "CANCELLED_BY_SYSTEM"
    NO_SHOW = "NO_SHOW"
    EXPIRED = "EXPIRED"
    ENDED_BY_OPERATOR = "ENDED_BY_OPERATOR"


OPEN = frozenset({RideState.SEARCHING, RideState.OFFERED})
"""Wanted now, and nobody's yet: what counts as demand."""
ASSIGNED = frozenset({RideState.ACCEPTED, RideState.ARRIVED, RideState.IN_PROGRESS})
"""A driver is bound to it."""
ACTIVE = OPEN | ASSIGNED
"""A rider has at most one of these."""
FINAL = frozenset(RideState) - ACTIVE - {RideState.SCHEDULED}
"""Nothing changes any more."""


class Happening(StrEnum):
    """What can happen to a ride."""

    DEADLINE_PASSED = "DEADLINE_PASSED"
    OFFERS_PLANNED = "OFFERS_PLANNED"
    OFFER_SHOWN = "OFFER_SHOWN"
    OFFER_ACCEPTED = "OFFER_ACCEPTED"
    OFFER_DECLINED = "OFFER_DECLINED"
    OFFER_WITHDRAWN = "OFFER_WITHDRAWN"
    RIDER_CANCELLED = "RIDER_CANCELLED"
    RIDER_FOUND_BUSY = "RIDER_FOUND_BUSY"
    DRIVER_CANCELLED = "DRIVER_CANCELLED"
    NO_PROGRESS = "NO_PROGRESS"
    DRIVER_SILENT = "DRIVER_SILENT"
    DRIVER_ARRIVED = "DRIVER_ARRIVED"
    RIDE_STARTED = "RIDE_STARTED"
    RIDE_COMPLETED = "RIDE_COMPLETED"
    REASSIGNED_BY_OPERATOR = "REASSIGNED_BY_OPERATOR"
    ENDED_BY_OPERATOR = "ENDED_BY_OPERATOR"


_S, _H = RideState, Happening

TRANSITIONS: dict[RideState, dict[Happening, frozenset[RideState]]] = {
    _S.SCHEDULED: {
        _H.DEADLINE_PASSED: frozenset({_S.SCHEDULED, _S.SEARCHING, _S.EXPIRED}),
        _H.RIDER_FOUND_BUSY: frozenset({_S.SCHEDULED, _S.CANCELLED_BY_SYSTEM}),
        _H.RIDER_CANCELLED: frozenset({_S.CANCELLED_BY_RIDER}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
    _S.SEARCHING: {
        _H.OFFERS_PLANNED: frozenset({_S.OFFERED, _S.SEARCHING}),
        _H.DEADLINE_PASSED: frozenset({_S.EXPIRED}),
        _H.RIDER_CANCELLED: frozenset({_S.CANCELLED_BY_RIDER}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
    _S.OFFERED: {
        _H.OFFER_SHOWN: frozenset({_S.OFFERED}),
        _H.OFFER_ACCEPTED: frozenset({_S.ACCEPTED}),
        _H.OFFER_DECLINED: frozenset({_S.OFFERED, _S.SEARCHING}),
        _H.OFFER_WITHDRAWN: frozenset({_S.OFFERED, _S.SEARCHING}),
        _H.DEADLINE_PASSED: frozenset({_S.SEARCHING, _S.EXPIRED}),
        _H.RIDER_CANCELLED: frozenset({_S.CANCELLED_BY_RIDER}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
    _S.ACCEPTED: {
        _H.DRIVER_ARRIVED: frozenset({_S.ARRIVED}),
        _H.DRIVER_CANCELLED: frozenset({_S.SEARCHING}),
        _H.NO_PROGRESS: frozenset({_S.SEARCHING}),
        _H.DRIVER_SILENT: frozenset({_S.SEARCHING}),
        _H.REASSIGNED_BY_OPERATOR: frozenset({_S.SEARCHING}),
        _H.DEADLINE_PASSED: frozenset({_S.CANCELLED_BY_SYSTEM}),
        _H.RIDER_CANCELLED: frozenset({_S.CANCELLED_BY_RIDER}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
    _S.ARRIVED: {
        _H.RIDE_STARTED: frozenset({_S.IN_PROGRESS}),
        _H.DRIVER_CANCELLED: frozenset({_S.SEARCHING}),
        _H.DRIVER_SILENT: frozenset({_S.SEARCHING}),
        _H.REASSIGNED_BY_OPERATOR: frozenset({_S.SEARCHING}),
        _H.DEADLINE_PASSED: frozenset({_S.NO_SHOW}),
        _H.RIDER_CANCELLED: frozenset({_S.CANCELLED_BY_RIDER}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
    _S.IN_PROGRESS: {
        _H.RIDE_COMPLETED: frozenset({_S.COMPLETED}),
        _H.DRIVER_SILENT: frozenset({_S.ENDED_BY_OPERATOR}),
        _H.DEADLINE_PASSED: frozenset({_S.ENDED_BY_OPERATOR}),
        _H.ENDED_BY_OPERATOR: frozenset({_S.ENDED_BY_OPERATOR}),
    },
}
"""State -> what can happen there -> where that may lead. Whatever is not in the table changes nothing."""


class OfferState(StrEnum):
    """Where an offer stands; all but LIVE are final."""

    LIVE = "LIVE"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Stop:
    """A place on a ride."""

    place: Place
    label: str = ""


@dataclass(frozen=True, slots=True)
class QuoteFacts:
    """What a verified quote promised."""

    quote_id: QuoteId
    fare_minor: int
    currency_code: str
    multiplier_milli: int
    surge_version: int
    distance_m: int
    duration_s: int
    travel_times_version: str = ""
    """Names the travel times that distance and duration come from; empty where a ride was kept before that was."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A ride shown to one driver until a deadline."""

    offer_id: OfferId
    driver_id: DriverId
    phase: int
    state: OfferState
    made_at_ms: int
    expires_at_ms: int
    pickup_eta_s: int
    pickup_distance_m: int
    shown_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A driver bound to a ride. Times are 0 until they come."""

    driver_id: DriverId
    offer_id: OfferId
    accepted_at_ms: int
    pickup_eta_s: int
    arrived_at_ms: int = 0
    started_at_ms: int = 0
    completed_at_ms: int = 0
    travel_times_version: str = ""
    """Names the travel times of `pickup_eta_s`."""


@dataclass(frozen=True, slots=True)
class Ride:
    """One request and all that becomes of it, its offers included: the aggregate that one version guards."""

    ride_id: RideId
    city_id: CityId
    rider_id: RiderId
    product: str
    stops: tuple[Stop, ...]
    quote: QuoteFacts
    requested_at_ms: int
    state: RideState = RideState.SEARCHING
    version: int = 0
    updated_at_ms: int = 0
    notes: str = ""
    pickup_at_ms: int = 0
    """Of a scheduled ride; 0 where it was wanted at once."""
    phase: int = 0
    """Of the latest offers; 0 before any."""
    travel_times_version: str = ""
    """Names the travel times of the latest offers; empty before any."""
    search_began_at_ms: int = 0
    next_deadline_ms: int | None = None
    """When the ride needs attention again; None in a final state."""
    assignment: Assignment | None = None
    """While a driver is bound to the ride, and after it has ended with one."""
    offers: tuple[Offer, ...] = ()

    @property
    def pickup(self) -> Place:
        """Where the rider waits."""
        return self.stops[0].place

    @property
    def dropoff(self) -> Place:
        """Where the ride ends."""
        return self.stops[-1].place

    def offer(self, offer_id: str) -> Offer:
        """The offer of this id. Raises OFFER_NOT_FOUND."""
        for offer in self.offers:
            if offer.offer_id == offer_id:
                return offer
        raise DomainError(Reason.OFFER_NOT_FOUND, offer_id=offer_id)

    def unshown_offers(self) -> int:
        """How many can be accepted that no phone has shown yet?"""
        return sum(1 for offer in self.live_offers() if not offer.shown_at_ms)

    def live_offers(self) -> tuple[Offer, ...]:
        """Those that can be accepted."""
        return tuple(offer for offer in self.offers if offer.state is OfferState.LIVE)


@dataclass(frozen=True, slots=True)
class PlannedOffer:
    """A driver chosen for an offer that is not made yet."""

    offer_id: OfferId
    driver_id: DriverId
    pickup_eta_s: int
    pickup_distance_m: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The ride's deadline has come and nothing else has happened.

    expected_pickup_s : what pickups of this city took lately, for a scheduled ride; None where too few are known
    """

    expected_pickup_s: float | None = None
    kind = Happening.DEADLINE_PASSED


@dataclass(frozen=True, slots=True)
class OffersPlanned:
    """A search has ended; with no driver where `offers` is empty.

    complete : location knew everything that it was asked
    travel_times_version : names the travel times of the offers' pickup_eta_s
    """

    phase: int
    offers: tuple[PlannedOffer, ...]
    complete: bool = True
    travel_times_version: str = ""
    kind = Happening.OFFERS_PLANNED


@dataclass(frozen=True, slots=True)
class OfferShown:
    """The driver's phone shows the offer."""

    offer_id: str
    kind = Happening.OFFER_SHOWN


@dataclass(frozen=True, slots=True)
class OfferAccepted:
    """The driver wants the ride."""

    offer_id: str
    kind = Happening.OFFER_ACCEPTED


@dataclass(frozen=True, slots=True)
class OfferDeclined:
    """The driver does not want the ride.

    by_driver : it said so of this offer, so it has seen it; not so of one that was declined for it when it went offline
    """

    offer_id: str
    by_driver: bool = True
    kind = Happening.OFFER_DECLINED


@dataclass(frozen=True, slots=True)
class OfferWithdrawn:
    """The offer is taken from the driver, who may not have it now; it says nothing of what the driver wants."""

    offer_id: str
    kind = Happening.OFFER_WITHDRAWN


@dataclass(frozen=True, slots=True)
class RiderCancelled:
    """The rider does not want it any more."""

    kind = Happening.RIDER_CANCELLED


@dataclass(frozen=True, slots=True)
class RiderFoundBusy:
    """A scheduled ride could not begin to search: its rider is on another one."""

    kind = Happening.RIDER_FOUND_BUSY


@dataclass(frozen=True, slots=True)
class DriverCancelled:
    """The driver gives the ride back."""

    driver_id: str
    reason: str = ""
    kind = Happening.DRIVER_CANCELLED


@dataclass(frozen=True, slots=True)
class NoProgress:
    """The driver does not come nearer to the pickup. Says nothing of a ride that has changed since it was of this version."""

    driver_id: str
    version: int
    kind = Happening.NO_PROGRESS


@dataclass(frozen=True, slots=True)
class DriverSilent:
    """Nothing is heard of the driver. Says nothing of a ride that has changed since it was of this version."""

    driver_id: str
    version: int
    kind = Happening.DRIVER_SILENT


@dataclass(frozen=True, slots=True)
class DriverArrived:
    """The driver is at the pickup."""

    driver_id: str
    kind = Happening.DRIVER_ARRIVED


@dataclass(frozen=True, slots=True)
class RideStarted:
    """The rider is in the car."""

    driver_id: str
    kind = Happening.RIDE_STARTED


@dataclass(frozen=True, slots=True)
class RideCompleted:
    """The rider is at the drop-off."""

    driver_id: str
    kind = Happening.RIDE_COMPLETED


@dataclass(frozen=True, slots=True)
class ReassignedByOperator:
    """An operator takes the ride from its driver, for another to have it."""

    reason: str = ""
    kind = Happening.REASSIGNED_BY_OPERATOR


@dataclass(frozen=True, slots=True)
class EndedByOperator:
    """An operator ends the ride, wherever it stands."""

    reason: str = ""
    kind = Happening.ENDED_BY_OPERATOR


Event = (
    DeadlinePassed
    | OffersPlanned
    | OfferShown
    | OfferAccepted
    | OfferDeclined
    | OfferWithdrawn
    | RiderCancelled
    | RiderFoundBusy
    | DriverCancelled
    | NoProgress
    | DriverSilent
    | DriverArrived
    | RideStarted
    | RideCompleted
    | ReassignedByOperator
    | EndedByOperator
)


class ReleaseReason(StrEnum):
    """Why an assignment ended. Mirrors AssignmentEndReason on the wire."""

    COMPLETED = "COMPLETED"
    CANCELLED_BY_DRIVER = "CANCELLED_BY_DRIVER"
    CANCELLED_BY_RIDER = "CANCELLED_BY_RIDER"
    CANCELLED_BY_SYSTEM = "CANCELLED_BY_SYSTEM"
    NO_SHOW = "NO_SHOW"
    ENDED_BY_OPERATOR = "ENDED_BY_OPERATOR"
    NO_PROGRESS = "NO_PROGRESS"
    DRIVER_SILENT = "DRIVER_SILENT"
    REASSIGNED = "REASSIGNED"


class FeeKind(StrEnum):
    """What a rider owes besides a fare. Mirrors FeeKind on the wire."""

    NO_SHOW = "NO_SHOW"
    LATE_CANCELLATION = "LATE_CANCELLATION"


class FactKind(StrEnum):
    """What the event log says of a ride. Mirrors the messages of events/v1."""

    RIDE_REQUESTED = "RIDE_REQUESTED"
    SEARCH_BEGAN = "SEARCH_BEGAN"
    SEARCH_POSTPONED = "SEARCH_POSTPONED"
    CANDIDATES_RANKED = "CANDIDATES_RANKED"
    OFFERS_MADE = "OFFERS_MADE"
    OFFER_SHOWN = "OFFER_SHOWN"
    OFFER_DECLINED = "OFFER_DECLINED"
    OFFER_WITHDRAWN = "OFFER_WITHDRAWN"
    OFFERS_EXPIRED = "OFFERS_EXPIRED"
    ASSIGNMENT_BEGAN = "ASSIGNMENT_BEGAN"
    ASSIGNMENT_ENDED = "ASSIGNMENT_ENDED"
    DRIVER_ARRIVED = "DRIVER_ARRIVED"
    RIDE_STARTED = "RIDE_STARTED"
    RIDE_COMPLETED = "RIDE_COMPLETED"
    RIDE_CANCELLED = "RIDE_CANCELLED"
    RIDE_EXPIRED = "RIDE_EXPIRED"
    RIDE_ENDED = "RIDE_ENDED"
    FEE_DUE = "FEE_DUE"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a change made true, for the event log."""

    kind: FactKind
    driver_id: str = ""
    offer_ids: tuple[str, ...] = ()
    release_reason: ReleaseReason | None = None
    fee: FeeKind | None = None
    expected_pickup_s: float = 0.0
    text: str = ""
    """A reason, or what a driver said."""
    actor: str = ""
    """Who caused it, where that is not who caused the change."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event makes of a ride, and what is true since. `ride is before` where it makes no difference."""

    ride: Ride
    facts: tuple[Fact, ...] = field(default=())
