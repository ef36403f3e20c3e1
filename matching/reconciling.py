"""What did a crash leave behind, and how is it repaired? Rules for one ride, for claims and for sessions. Pure.

A change of a ride is one transaction, so a ride that contradicts its offers or its assignment should never be seen. If it is, by
a defect or by a hand in the tables, the ride's row is believed: it is what the rider was told.

Source: our choice; decision 29.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from matching.model import ASSIGNED, FINAL, Decision, Fact, FactKind, OfferState, ReleaseReason, RideState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matching.model import Offer, Ride
    from matching.offers import OfferParams


class Repair(StrEnum):
    """What was repaired."""

    OFFERS_CLOSED = "OFFERS_CLOSED"
    """A live offer of a ride that is not offered."""
    OFFER_WITHDRAWN = "OFFER_WITHDRAWN"
    """A live offer to a driver who is offline or suspended."""
    ASSIGNMENT_RELEASED = "ASSIGNMENT_RELEASED"
    """An active assignment of a ride that is over, or another driver's."""
    ASSIGNMENT_RESTORED = "ASSIGNMENT_RESTORED"
    """A ride with a driver to whom nothing bound it."""
    RIDE_TAKEN_BACK = "RIDE_TAKEN_BACK"
    """A ride with a driver who cannot be bound to it any more."""
    DEADLINE_GIVEN = "DEADLINE_GIVEN"
    """A ride that nothing would have looked at again."""
    DEADLINE_DROPPED = "DEADLINE_DROPPED"
    """A ride that is over, with a deadline."""
    LEASE_CUT = "LEASE_CUT"
    """A ride that is due, leased for longer than any worker leases."""
    CLAIM_RELEASED = "CLAIM_RELEASED"
    """A driver claimed for an offer that is not live."""
    SESSION_DROPPED = "SESSION_DROPPED"
    """A session that is over by the clock, and whose key has remained."""
    STATE_TOLD = "STATE_TOLD"
    """A driver of whom location had not heard the last."""


@dataclass(frozen=True, slots=True)
class Mending:
    """What a ride becomes.

    restores : its driver is to be bound to it again
    """

    decision: Decision
    repairs: tuple[Repair, ...]
    restores: bool = False


@dataclass(frozen=True, slots=True)
class HeldClaim:
    """A claim as it lies in Valkey."""

    driver_id: str
    owner: str
    made_at_ms: int
    value: bytes


_RELEASE_REASONS = {
    RideState.COMPLETED: ReleaseReason.COMPLETED,
    RideState.CANCELLED_BY_RIDER: ReleaseReason.CANCELLED_BY_RIDER,
    RideState.NO_SHOW: ReleaseReason.NO_SHOW,
    RideState.ENDED_BY_OPERATOR: ReleaseReason.ENDED_BY_OPERATOR,
}


def mended(ride: Ride, bound_driver_id: str | None, now_ms: int, params: OfferParams) -> Mending | None:
    """What must become of a ride that contradicts itself? None where it does not.

    bound_driver_id : of the ride's active assignment, if there is one
    """
    after, repairs, facts, restores = ride, list[Repair](), list[Fact](), False
    if ride.live_offers() and ride.state is not RideState.OFFERED:
        after = replace(after, offers=_withdrawn(after))
        repairs.append(Repair.OFFERS_CLOSED)
    if ride.state in ASSIGNED and ride.assignment is None:
        after, facts = _without_driver(after, now_ms)
        repairs.append(Repair.RIDE_TAKEN_BACK)
    driver_id = after.assignment.driver_id if after.assignment and after.state in ASSIGNED else None
    if bound_driver_id is not None and bound_driver_id != driver_id:
        reason = _RELEASE_REASONS.get(ride.state, ReleaseReason.CANCELLED_BY_SYSTEM)
        facts.insert(0, _ended(bound_driver_id, reason))
        repairs.append(Repair.ASSIGNMENT_RELEASED)
    if driver_id is not None and driver_id != bound_driver_id:
        restores = True
        repairs.append(Repair.ASSIGNMENT_RESTORED)
    if after.state in FINAL and after.next_deadline_ms is not None:
        after = replace(after, next_deadline_ms=None)
        repairs.append(Repair.DEADLINE_DROPPED)
    if after.state not in FINAL and after.next_deadline_ms is None:
        after = replace(after, next_deadline_ms=_deadline_ms(after, now_ms, params))
        repairs.append(Repair.DEADLINE_GIVEN)
    if not repairs:
        return None
    return Mending(_changed(ride, after, facts, now_ms), tuple(repairs), restores)


def taken_back(ride: Ride, now_ms: int) -> Mending:
    """What becomes of a ride whose driver cannot be bound to it again? It is searched, or ended if it was under way."""
    ended = [_ended(ride.assignment.driver_id, ReleaseReason.CANCELLED_BY_SYSTEM)] if ride.assignment else []
    after, facts = _without_driver(ride, now_ms)
    return Mending(_changed(ride, after, [*ended, *facts], now_ms), (Repair.RIDE_TAKEN_BACK,))


def left_behind(held: Iterable[HeldClaim], live: set[tuple[str, str]], now_ms: int, grace_ms: int) -> list[HeldClaim]:
    """Which of these claims serve no offer? Not those that are so young that their offer may be about to be made.

    live : driver and ride of every live offer, read after the claims
    """
    return [claim for claim in held if (claim.driver_id, claim.owner) not in live and now_ms - claim.made_at_ms > grace_ms]


def _without_driver(ride: Ride, now_ms: int) -> tuple[Ride, list[Fact]]:
    closed = replace(ride, offers=_withdrawn(ride))
    if ride.state is RideState.IN_PROGRESS:
        over = replace(closed, state=RideState.ENDED_BY_OPERATOR, next_deadline_ms=None)
        return over, [Fact(FactKind.RIDE_ENDED, text="DRIVER_LOST")]
    searching = replace(
        closed, state=RideState.SEARCHING, assignment=None, phase=0, search_began_at_ms=now_ms, next_deadline_ms=now_ms
    )
    return searching, []


def _deadline_ms(ride: Ride, now_ms: int, params: OfferParams) -> int:
    """Now, or as late as if the state had just begun."""
    limits_s = {
        RideState.ACCEPTED: params.pickup_limit_s,
        RideState.ARRIVED: params.no_show_after_s,
        RideState.IN_PROGRESS: params.ride_limit_s,
    }
    if ride.state not in limits_s:
        return now_ms
    from_ms = now_ms if ride.state is RideState.IN_PROGRESS else max(now_ms, ride.pickup_at_ms)
    return from_ms + round(limits_s[ride.state] * MS_PER_S)


def _withdrawn(ride: Ride) -> tuple[Offer, ...]:
    return tuple(replace(offer, state=OfferState.WITHDRAWN) if offer.state is OfferState.LIVE else offer for offer in ride.offers)


def _ended(driver_id: str, reason: ReleaseReason) -> Fact:
    return Fact(FactKind.ASSIGNMENT_ENDED, driver_id, release_reason=reason)


def _changed(before: Ride, after: Ride, facts: list[Fact], now_ms: int) -> Decision:
    return Decision(replace(after, version=before.version + 1, updated_at_ms=now_ms), tuple(facts))
