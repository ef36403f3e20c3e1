"""Who is asked in this phase, and why are the others not? Pure: facts about nearby drivers in, a plan with reasons out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from matching.model import OfferState, Ride
from matching.ranking import Candidates, Ranking, RankingParams, rank

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Ints
    from matching.peers import LeftOut


class NotOffered(StrEnum):
    """Why a candidate is not made an offer."""

    UNKNOWN_DRIVER = "UNKNOWN_DRIVER"
    OFFLINE = "OFFLINE"
    SUSPENDED = "SUSPENDED"
    BUSY = "BUSY"
    HAS_OFFER = "HAS_OFFER"
    NO_SESSION = "NO_SESSION"
    DECLINED_BEFORE = "DECLINED_BEFORE"
    OFFERED_BEFORE = "OFFERED_BEFORE"
    """In this search: saw the offer and left it."""
    NOT_SHOWN_BEFORE = "NOT_SHOWN_BEFORE"
    """In this search: was asked as often as one who never sees an offer is."""
    UNREACHABLE = "UNREACHABLE"
    CLAIMED = "CLAIMED"
    OUTRANKED = "OUTRANKED"
    OTHER_RIDE = "OTHER_RIDE"
    """The window gave the driver to another ride."""
    DEARER_THAN_WAITING = "DEARER_THAN_WAITING"
    """The window left the ride waiting rather than have the driver come."""


UNSHOWN_LIMIT = 2
"""So often a search asks a driver whose phone does not show the offers."""


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What PostgreSQL and the sessions say of the candidates, as columns of one length, in the candidates' order."""

    known: Bools
    online: Bools
    suspended: Bools
    busy: Bools
    has_live_offer: Bools
    has_session: Bools

    def take(self, rows: Ints) -> DriverFacts:
        """Of some of them, by row numbers."""
        return DriverFacts(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Consideration:
    """Every candidate of one phase: its place in the ranking, or why it has none.

    reasons : str[n], empty for those who can be asked
    second_chance : bool[n], those whose last offer of this search never came to be seen: they are asked once nobody else is left
    travel_times_version : names the travel times of the candidates' pickup_eta_s
    travel_times_fell_back : the city's own router did not answer, so another one did
    left_out : drivers near by who are no candidates
    """

    phase: int
    policy: str
    candidates: Candidates
    ranking: Ranking
    reasons: tuple[str, ...]
    searched_radius_m: float
    complete: bool
    as_of_ms: int
    travel_times_version: str = ""
    travel_times_fell_back: bool = False
    second_chance: tuple[bool, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def eligible(self) -> list[int]:
        """Rows that can be asked, best first; second chances after all first ones."""
        rows = [row for row in self.ranking.order.tolist() if not self.reasons[row]]
        return sorted(rows, key=self.second_chance.__getitem__) if any(self.second_chance) else rows


_BEFORE = (NotOffered.DECLINED_BEFORE, NotOffered.OFFERED_BEFORE, NotOffered.NOT_SHOWN_BEFORE)


def asked_before(ride: Ride) -> dict[str, NotOffered | None]:
    """Who has been asked for this ride in vain, and why are they not asked again? None for those who have a second chance."""
    # In this search, and by itself: an offer that was withdrawn for another driver's sake says nothing against its own.
    expired = [o for o in ride.offers if o.state is OfferState.EXPIRED and o.made_at_ms >= ride.search_began_at_ms]
    unshown = Counter[str](offer.driver_id for offer in expired if not offer.shown_at_ms)
    asked: dict[str, NotOffered | None] = {
        driver_id: NotOffered.NOT_SHOWN_BEFORE if times >= UNSHOWN_LIMIT else None for driver_id, times in unshown.items()
    }
    asked |= {offer.driver_id: NotOffered.OFFERED_BEFORE for offer in expired if offer.shown_at_ms}
    return asked | {o.driver_id: NotOffered.DECLINED_BEFORE for o in ride.offers if o.state is OfferState.DECLINED}


def consider(
    ride: Ride,
    phase: int,
    candidates: Candidates,
    facts: DriverFacts,
    ranked: RankingParams | Ranking,
    *,
    searched_radius_m: float,
    complete: bool,
    as_of_ms: int,
    travel_times_version: str = "",
    travel_times_fell_back: bool = False,
    left_out: tuple[LeftOut, ...] = (),
) -> Consideration:
    """Who can be asked for this ride now, and in which order? `ranked` is their order, or a built-in policy to make it by. What
    stands behind it says what the search for candidates covered, and whose travel times they came with.
    """
    before = asked_before(ride)
    ids = candidates.driver_ids
    checks: list[tuple[NotOffered, Bools]] = [
        (NotOffered.UNKNOWN_DRIVER, ~facts.known),
        (NotOffered.OFFLINE, ~facts.online),
        (NotOffered.SUSPENDED, facts.suspended),
        (NotOffered.BUSY, facts.busy),
        (NotOffered.HAS_OFFER, facts.has_live_offer),
        *((reason, np.array([before.get(i) is reason for i in ids], dtype=np.bool_)) for reason in _BEFORE),
        (NotOffered.NO_SESSION, ~facts.has_session),
        (NotOffered.UNREACHABLE, ~np.isfinite(candidates.pickup_eta_s)),
    ]
    reasons = [""] * len(candidates)
    for reason, applies in reversed(checks):
        for row in np.flatnonzero(applies).tolist():
            reasons[row] = reason.value
    ranking = rank(candidates, ranked) if isinstance(ranked, RankingParams) else ranked
    return Consideration(
        phase,
        ranking.policy,
        candidates,
        ranking,
        tuple(reasons),
        searched_radius_m,
        complete,
        as_of_ms,
        travel_times_version,
        travel_times_fell_back,
        tuple(i in before for i in ids),
        left_out,
    )


def with_outcome(consideration: Consideration, asked: list[int], claimed_by_others: list[int]) -> Consideration:
    """The same, with the reason of those who could have been asked and were not."""
    reasons = list(consideration.reasons)
    for row in consideration.eligible():
        if row in claimed_by_others:
            reasons[row] = NotOffered.CLAIMED.value
        elif row not in asked:
            reasons[row] = NotOffered.OUTRANKED.value
    return replace(consideration, reasons=tuple(reasons))
