"""What came of every ride of a load, as riders and drivers were told and as PostgreSQL holds it; does it add up? Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from simulator.witness import Interval, double_assignments

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from hexhail.kernel.units import Floats

FINAL: Final = frozenset({"COMPLETED", "CANCELLED_BY_RIDER", "CANCELLED_BY_SYSTEM", "NO_SHOW", "EXPIRED", "ENDED_BY_OPERATOR"})

EVENT_OF: Final = {
    "REQUESTED": "RIDE_REQUESTED",
    "ACCEPTED": "ASSIGNMENT_BEGAN",
    "ARRIVED": "DRIVER_ARRIVED",
    "IN_PROGRESS": "RIDE_STARTED",
    "COMPLETED": "RIDE_COMPLETED",
}
"""What a caller was told -> the event that must then be in the log."""


@dataclass(slots=True)
class RiderSeen:
    """One ride, as its rider was told. Times are seconds of the machine's monotonic clock; None where it never came to that.

    due_s : when the rider was to ask for a price
    begun_s, requested_s : when the call for the ride began, and when it was answered
    told : state -> when the rider was first told of it
    tracks : how often the rider was told where the driver is
    failed : why it went no further; empty where the ride ended
    """

    due_s: float
    quoted_from_s: float = 0.0
    begun_s: float | None = None
    requested_s: float | None = None
    ride_id: str = ""
    driver_id: str = ""
    told: dict[str, float] = field(default_factory=dict)
    tracks: int = 0
    failed: str = ""


@dataclass(slots=True)
class Drive:
    """One ride that a driver was told is its own.

    think_s : how long it took from the offer to the call that accepts
    accepted_at_ms, completed_at_ms : by the service's clock, as it answered
    told : states that the driver's calls were answered with
    """

    driver_id: str
    ride_id: str
    think_s: float
    accepted_at_ms: int
    completed_at_ms: int | None = None
    told: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the rides of one phase, milliseconds.

    first_offer_ms : from the call for a ride to its first offer on a driver's stream
    match_ms : from that call until its rider was told of the driver, less the driver's thinking
    late_ms : by how much the load was behind its own plan
    """

    first_offer_ms: Floats
    match_ms: Floats
    late_ms: Floats


def latencies(
    rides: Iterable[RiderSeen], first_offers: Mapping[str, float], drives: Mapping[str, Drive], never_ms: float
) -> Latencies:
    """How long did these rides take? `never_ms` for those that were never offered, or never accepted."""
    seen = list(rides)
    offered = [
        1000 * (first_offers[ride.ride_id] - ride.begun_s)
        if ride.begun_s is not None and ride.ride_id in first_offers
        else never_ms
        for ride in seen
    ]
    matched = [
        1000 * (ride.told["ACCEPTED"] - ride.begun_s - drives[ride.ride_id].think_s)
        if ride.begun_s is not None and "ACCEPTED" in ride.told and ride.ride_id in drives
        else never_ms
        for ride in seen
    ]
    late = [1000 * (ride.quoted_from_s - ride.due_s) for ride in seen]
    return Latencies(np.array(offered), np.array(matched), np.array(late))


def served_share(rides: Sequence[RiderSeen], within_s: float) -> float:
    """Which share of the rides was completed so soon after it was due?"""
    return sum(_is_served(ride, within_s) for ride in rides) / len(rides) if rides else 0.0


def completed_per_s(rides: Sequence[RiderSeen], within_s: float, seconds: float) -> float:
    """How many of the rides that were due in these seconds were served, a second?"""
    return sum(_is_served(ride, within_s) for ride in rides) / seconds


def _is_served(ride: RiderSeen, within_s: float) -> bool:
    return ride.told.get("COMPLETED", np.inf) - ride.due_s <= within_s


def assignment_faults(told: Iterable[Drive], kept: Iterable[tuple[str, str, int, int | None]]) -> int:
    """How often was a driver in two rides or a ride in two cars, by whichever source saw more?

    kept : driver id, ride id, from when until when, Unix milliseconds
    """
    clients = [Interval(drive.accepted_at_ms, drive.ride_id, drive.driver_id, drive.completed_at_ms) for drive in told]
    rows = [Interval(begin_ms, ride_id, driver_id, end_ms) for driver_id, ride_id, begin_ms, end_ms in kept]
    return max(double_assignments(clients), double_assignments(rows))


def lost_rides(
    riders: Iterable[RiderSeen],
    drives: Iterable[Drive],
    kept_rides: Mapping[str, tuple[str, str | None]],
    kept_events: Collection[tuple[str, str]],
) -> list[str]:
    """Which acknowledged transitions does PostgreSQL not hold, and which rides are not final? A line for each.

    kept_rides : ride id -> state, driver id or None
    kept_events : ride id and kind of each event in the log
    """
    lost = []
    for ride in riders:
        told = (["REQUESTED"] if ride.requested_s is not None else []) + [state for state in ride.told if state in EVENT_OF]
        lost += _missing(ride.ride_id, told, "a rider", kept_events)
        if ride.requested_s is not None and ride.ride_id not in kept_rides:
            lost.append(f"{ride.ride_id}: requested, and not there")
    for drive in drives:
        lost += _missing(drive.ride_id, drive.told, drive.driver_id, kept_events)
        _, driver_id = kept_rides.get(drive.ride_id, ("", None))
        if driver_id != drive.driver_id:
            lost.append(f"{drive.ride_id}: {drive.driver_id} was told that it is its own, and it is {driver_id}'s")
    lost += [f"{ride_id}: is {state} in the end" for ride_id, (state, _) in kept_rides.items() if state not in FINAL]
    return lost


def _missing(ride_id: str, told: Sequence[str], whom: str, kept_events: Collection[tuple[str, str]]) -> list[str]:
    return [
        f"{ride_id}: {whom} was told {state}, and the log does not have it"
        for state in told
        if (ride_id, EVENT_OF[state]) not in kept_events
    ]
