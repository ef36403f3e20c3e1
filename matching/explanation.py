"""Why did a ride go to this driver and not to another? Its events put together: searches, offers, and what became of both. Pure.

Everything is as the event log has it; the ride's own row only says what the log has lost. What a policy, a router or a driver
said is repeated here, never decided again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from matching.model import OfferState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matching.model import Ride

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConsideredDriver:
    """One candidate of one search.

    parts : name -> thousandths, in the policy's order; they add up to `score_milli`
    not_offered_reason : empty where an offer was made
    """

    driver_id: str
    distance_m: float
    pickup_eta_s: float | None
    rating_milli: int
    acceptance_milli: int
    idle_s: int
    score_milli: int
    parts: tuple[tuple[str, int], ...]
    not_offered_reason: str = ""
    left_out: bool = False
    """By location already: there is no score, and nothing but the distance is known."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search for drivers. `number` counts from 1 within the ride; a phase may be searched more than once."""

    phase: int
    policy: str
    searched_radius_m: float
    complete: bool
    as_of_ms: int
    candidates: tuple[ConsideredDriver, ...]
    failed_policy: str = ""
    policy_failure: str = ""
    travel_times_version: str = ""
    travel_times_fell_back: bool = False
    number: int = 0
    version: int = 0
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class OfferCourse:
    """What became of one offer. Times that have not come are 0, and so is the search of an offer that the log does not hold."""

    offer_id: str
    driver_id: str
    phase: int
    made_at_ms: int
    expires_at_ms: int
    pickup_eta_s: int
    pickup_distance_m: int
    state: OfferState = OfferState.LIVE
    shown_at_ms: int = 0
    closed_at_ms: int = 0
    search: int = 0


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a ride's, as far as this module asks.

    kind : as the log names it, such as "OFFERS_MADE"
    ride_state : where the ride stands with this version; empty in old events
    details : what else it says, for people
    """

    version: int
    index: int
    at_ms: int
    kind: str
    actor: str
    ride_state: str = ""
    driver_id: str = ""
    offer_ids: tuple[str, ...] = ()
    search: Search | None = None
    offers: tuple[OfferCourse, ...] = ()
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of why a ride went as it did. Incomplete where the log has lost versions of it."""

    ride: Ride
    searches: tuple[Search, ...]
    offers: tuple[OfferCourse, ...]
    events: tuple[LogEvent, ...]
    complete: bool


def explain(ride: Ride, log: Iterable[LogEvent]) -> Explanation:
    """Why did this ride go as it went? `log` holds its events in any order; later versions than the ride's do not count."""
    events = sorted((e for e in log if e.version <= ride.version), key=lambda e: (e.version, e.index))
    searches: list[Search] = []
    offers: dict[str, OfferCourse] = {}
    for event in events:
        if event.search is not None:
            found = _best_first(event.search.candidates)
            searches.append(
                replace(event.search, candidates=found, number=len(searches) + 1, version=event.version, at_ms=event.at_ms)
            )
        searched = searches[-1].number if searches and searches[-1].version == event.version else 0
        offers |= {offer.offer_id: replace(offer, search=searched) for offer in event.offers}
        offers |= _answered(offers, event)
    offers |= {offer.offer_id: _as_kept(offers.get(offer.offer_id), offer) for offer in _courses_in(ride)}
    complete = {event.version for event in events} == set(range(1, ride.version + 1))
    ordered = sorted(offers.values(), key=lambda offer: (offer.made_at_ms, offer.offer_id))
    return Explanation(ride, tuple(searches), tuple(ordered), tuple(events), complete)


def _best_first(candidates: Sequence[ConsideredDriver]) -> tuple[ConsideredDriver, ...]:
    return tuple(
        sorted(
            candidates, key=lambda each: (each.left_out, each.distance_m if each.left_out else -each.score_milli, each.driver_id)
        )
    )


_CLOSES_ALL = {"OFFERS_EXPIRED": OfferState.EXPIRED}
"""What closes the offers that it names, and how."""
_CLOSES_REST = frozenset({"ASSIGNMENT_BEGAN", "RIDE_CANCELLED", "RIDE_EXPIRED", "RIDE_ENDED"})
"""What leaves no offer live."""
_CLOSES_ONE = {
    "ASSIGNMENT_BEGAN": OfferState.ACCEPTED,
    "OFFER_DECLINED": OfferState.DECLINED,
    "OFFER_WITHDRAWN": OfferState.WITHDRAWN,
    **_CLOSES_ALL,
}


def _answered(offers: Mapping[str, OfferCourse], event: LogEvent) -> dict[str, OfferCourse]:
    """Those of the offers that this event changes."""
    named = {offer_id: offers[offer_id] for offer_id in event.offer_ids if offer_id in offers}
    if event.kind == "OFFER_SHOWN":
        return {key: replace(offer, shown_at_ms=event.at_ms) for key, offer in named.items()}
    changed: dict[str, OfferCourse] = {}
    if event.kind in _CLOSES_ONE:
        state = _CLOSES_ONE[event.kind]
        changed |= {key: replace(offer, state=state, closed_at_ms=event.at_ms) for key, offer in named.items()}
    if event.kind in _CLOSES_REST:
        changed |= {
            key: replace(offer, state=OfferState.WITHDRAWN, closed_at_ms=event.at_ms)
            for key, offer in offers.items()
            if offer.state is OfferState.LIVE and key not in named
        }
    return changed


def _courses_in(ride: Ride) -> list[OfferCourse]:
    return [
        OfferCourse(
            offer_id=offer.offer_id,
            driver_id=offer.driver_id,
            phase=offer.phase,
            made_at_ms=offer.made_at_ms,
            expires_at_ms=offer.expires_at_ms,
            pickup_eta_s=offer.pickup_eta_s,
            pickup_distance_m=offer.pickup_distance_m,
            state=offer.state,
            shown_at_ms=offer.shown_at_ms,
        )
        for offer in ride.offers
    ]


def _as_kept(logged: OfferCourse | None, kept: OfferCourse) -> OfferCourse:
    """The log knows when and why; the row knows what is so where the log does not. An offer that was accepted, and whose driver
    then lost the ride, is declined in its row, and accepted here: the event that ended the assignment tells the rest.
    """
    if logged is None:
        return kept
    if logged.state is OfferState.LIVE and kept.state is not OfferState.LIVE:
        logged = replace(logged, state=kept.state)
    return replace(logged, shown_at_ms=logged.shown_at_ms or kept.shown_at_ms)


class Absent(StrEnum):
    """Why a search did not find a driver: what was so at that moment, or else that it was not found."""

    SUSPENDED = "SUSPENDED"
    OFFLINE = "OFFLINE"
    BUSY = "BUSY"
    WRONG_CLASS = "WRONG_CLASS"
    OUT_OF_RADIUS = "OUT_OF_RADIUS"
    """Another search of the ride found the driver farther away than this one looked."""
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class DriverChange:
    """One event of a driver's: what is so from then on, None where it says nothing of it."""

    at_ms: int
    online: bool | None = None
    suspended: bool | None = None
    capabilities: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A driver was on a ride: from when, and until when (None: still)."""

    ride_id: str
    from_ms: int
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class DriverHistory:
    """What is known of one driver's past.

    present : all that is so now
    changes : what the log holds, oldest first
    """

    driver_id: str
    present: DriverChange
    changes: tuple[DriverChange, ...] = ()
    bound: tuple[Bound, ...] = ()

    def at(self, at_ms: int) -> DriverChange:
        """What was so then; None where the log has lost it. What the log says nothing of has not changed since it began."""
        logged = self.changes
        return DriverChange(
            at_ms,
            _latest([c.online for c in logged if c.at_ms <= at_ms], [c.online for c in logged], self.present.online),
            _latest([c.suspended for c in logged if c.at_ms <= at_ms], [c.suspended for c in logged], self.present.suspended),
            _latest(
                [c.capabilities for c in logged if c.at_ms <= at_ms], [c.capabilities for c in logged], self.present.capabilities
            ),
        )

    def ride_at(self, at_ms: int) -> str:
        """Which ride was the driver on then? Empty for none."""
        rides = (b.ride_id for b in self.bound if b.from_ms <= at_ms and (b.until_ms is None or at_ms < b.until_ms))
        return next(rides, "")


def _latest(before: Sequence[T | None], ever: Sequence[T | None], present: T | None) -> T | None:
    said = [each for each in before if each is not None]
    if said:
        return said[-1]
    return present if all(each is None for each in ever) else None


@dataclass(frozen=True, slots=True)
class Absence:
    """Why one search did not ask a driver: as with its other candidates, or why it was none of them."""

    search: int
    driver_id: str
    reason: str
    ride_id: str = ""


def absences(explanation: Explanation, history: DriverHistory, capabilities: Sequence[str]) -> list[Absence]:
    """Why did each search not ask this driver? `capabilities` are what the ride's product asks for."""
    seen_m = [c.distance_m for search in explanation.searches for c in search.candidates if c.driver_id == history.driver_id]
    return [_absence(search, history, frozenset(capabilities), min(seen_m, default=0.0)) for search in explanation.searches]


def _absence(search: Search, history: DriverHistory, needed: frozenset[str], seen_m: float) -> Absence:
    for candidate in search.candidates:
        if candidate.driver_id == history.driver_id:
            return Absence(search.number, history.driver_id, candidate.not_offered_reason)
    then, ride_id = history.at(search.at_ms), history.ride_at(search.at_ms)
    checks = (
        (Absent.SUSPENDED, then.suspended is True),
        (Absent.OFFLINE, then.online is False),
        (Absent.BUSY, bool(ride_id)),
        (Absent.WRONG_CLASS, then.capabilities is not None and not needed <= set(then.capabilities)),
        (Absent.OUT_OF_RADIUS, seen_m > search.searched_radius_m),
    )
    reason = next((reason for reason, applies in checks if applies), Absent.NOT_FOUND)
    return Absence(search.number, history.driver_id, reason, ride_id if reason is Absent.BUSY else "")
