"""Why did a ride go as it did? What operators see of its searches, offers and events, without protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.client.views import OfferState, RideState, RideView


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A driver considered in one search. `parts` add up to the score; the reason is empty where an offer was made.

    left_out : by location already; nothing but the distance is known
    """

    driver_id: str
    score_milli: int
    parts: Mapping[str, int]
    not_offered_reason: str
    distance_m: float
    pickup_eta_s: int
    rating_milli: int
    acceptance_milli: int
    idle_s: int
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class SearchView:
    """One search for drivers, its candidates best first. `search` counts from 1; a phase may be searched more than once."""

    search: int
    phase: int
    version: int
    at_ms: int
    policy: str
    failed_policy: str
    policy_failure: str
    travel_times_version: str
    travel_times_fell_back: bool
    searched_radius_m: float
    complete: bool
    as_of_ms: int
    candidates: tuple[CandidateView, ...]


@dataclass(frozen=True, slots=True)
class OfferCourseView:
    """What became of one offer. Times that have not come are 0."""

    offer_id: str
    driver_id: str
    search: int
    phase: int
    state: OfferState
    made_at_ms: int
    expires_at_ms: int
    shown_at_ms: int
    closed_at_ms: int
    pickup_eta_s: int
    pickup_distance_m: int


@dataclass(frozen=True, slots=True)
class RideEventView:
    """One event of the log; the state is None where an old event does not say."""

    version: int
    index: int
    at_ms: int
    kind: str
    actor: str
    state: RideState | None
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AbsenceView:
    """Why one search did not ask the driver asked about; an empty reason where it did."""

    search: int
    driver_id: str
    reason: str
    ride_id: str


@dataclass(frozen=True, slots=True)
class RideExplanation:
    """All that is known of why a ride went as it did; incomplete where the log has lost versions of it."""

    ride: RideView
    searches: tuple[SearchView, ...]
    offers: tuple[OfferCourseView, ...]
    events: tuple[RideEventView, ...]
    absences: tuple[AbsenceView, ...]
    complete: bool
    as_of_ms: int
    quote_travel_times_version: str
    surge_version: int
