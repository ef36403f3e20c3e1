"""One window of a batched city: who could serve whom, at what cost, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.units import MS_PER_S
from matching.assignment import WAITS, Pairs, pair_cost_milli, waiting_cost_milli
from matching.candidates import NotOffered, asked_before
from matching.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Bools, Floats, Ints
    from matching.assignment import Assignment, AssignmentParams
    from matching.candidates import Consideration, DriverFacts
    from matching.model import Ride
    from matching.ranking import PolicyFailure

POLICY = "batched"
"""Names the ranking of a window's considerations: the cheapest pair first."""


def windows_of(city_id: CityId) -> str:
    """The aggregate that a city's windows are in the event log."""
    return f"windows/{city_id}"


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Who could be at each pickup, and when, as columns of one length, by ride and then by time.

    ride, driver : int64[n], their numbers
    pickup_ms : int64[n]
    """

    ride: Ints
    driver: Ints
    pickup_ms: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What the city's own policy says of all pairs of a window.

    parts : name -> int64[n], thousandths, of each pair of `reach`; empty where it failed
    """

    policy: str
    parts: Mapping[str, Ints]
    failure: PolicyFailure | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What a window is decided by. Rides and drivers are in the order of their ids, so that ties end on these.

    cost_milli : int64[n], of each pair of `reach`
    open : bool[n], the pairs that can be made
    waiting_milli : int64[n_rides]
    scores : None where the city has no policy of its own
    """

    city_id: CityId
    at_ms: int
    rides: tuple[Ride, ...]
    driver_ids: tuple[str, ...]
    reach: Reach
    cost_milli: Ints
    open: Bools
    waiting_milli: Ints
    travel_times_version: str
    travel_times_fell_back: bool
    complete: bool
    scores: Scores | None = None

    def pairs(self) -> Pairs:
        """Those that can be made."""
        reach = self.reach
        return Pairs(reach.ride[self.open], reach.driver[self.open], self.cost_milli[self.open])


@dataclass(frozen=True, slots=True, eq=False)
class WindowAssigned:
    """A window and what came of it, for the event log."""

    window: Window
    assignment: Assignment


def window_of(
    city_id: CityId,
    rides: Sequence[Ride],
    driver_ids: Sequence[str],
    reach: Reach,
    facts: DriverFacts,
    idle_s: Floats,
    params: AssignmentParams,
    now_ms: int,
    *,
    travel_times_version: str,
    travel_times_fell_back: bool,
    complete: bool,
    scores: Scores | None = None,
) -> Window:
    """Which pairs can be made, and what would they and the waits cost?

    facts, idle_s : of the drivers, in the order of their ids
    scores : of the city's own policy; a pair's cost is then its score below zero
    Of each ride, as many as `params.candidates` who are there soonest of those who can be asked.
    """
    free = facts.known & facts.online & facts.has_session & ~(facts.suspended | facts.busy | facts.has_live_offer)
    number = {driver_id: i for i, driver_id in enumerate(driver_ids)}
    barred, again = set[tuple[int, int]](), set[tuple[int, int]]()
    for i, ride in enumerate(rides):
        for driver_id, reason in asked_before(ride).items():
            if driver_id in number:
                (again if reason is None else barred).add((i, number[driver_id]))
    can = free[reach.driver] & ~_among(reach, barred, len(driver_ids))
    can &= _rank(reach.ride, can) < params.candidates
    late_s = np.where(_among(reach, again, len(driver_ids)), params.unshown_s, 0.0)
    waited_s = np.array([max(now_ms - ride.search_began_at_ms, 0) / MS_PER_S for ride in rides], np.float64)
    if scores is None or scores.failure is not None:
        cost_milli = pair_cost_milli(reach.pickup_ms / MS_PER_S + late_s, idle_s[reach.driver], params)
    else:
        cost_milli = np.rint(late_s * MS_PER_S).astype(np.int64) - sum(scores.parts.values())
    return Window(
        city_id=city_id,
        at_ms=now_ms,
        rides=tuple(rides),
        driver_ids=tuple(driver_ids),
        reach=reach,
        cost_milli=cost_milli,
        open=can,
        waiting_milli=waiting_cost_milli(waited_s, params),
        travel_times_version=travel_times_version,
        travel_times_fell_back=travel_times_fell_back,
        complete=complete,
        scores=scores,
    )


def ranking_in(window: Window, number: int) -> Ranking:
    """One ride's pairs as a ranking, in the words of the policy whose scores made their costs."""
    first, end = np.searchsorted(window.reach.ride, (number, number + 1)).tolist()
    ids = [window.driver_ids[driver] for driver in window.reach.driver[first:end].tolist()]
    cost_milli, scores = window.cost_milli[first:end], window.scores
    by_time = cost_ranking(ids, window.reach.pickup_ms[first:end], cost_milli)
    if scores is None:
        return by_time
    if scores.failure is not None:
        return replace(by_time, failed_policy=scores.policy, failure=scores.failure)
    parts = {name: part[first:end] for name, part in scores.parts.items()}
    unshown = -cost_milli - sum(parts.values())
    return replace(by_time, policy=scores.policy, parts={**parts, "not_shown_before": unshown} if unshown.any() else parts)


def cost_ranking(driver_ids: Sequence[str], pickup_ms: Ints, cost_milli: Ints) -> Ranking:
    """A ride's pairs as a ranking: the less a pair costs the better, ties by id; what made it differ from the time is a part."""
    order = np.lexsort((np.asarray(driver_ids, dtype=np.str_), cost_milli)).astype(np.int64)
    parts = {"pickup_eta": -pickup_ms, "idle": pickup_ms - cost_milli}
    return Ranking(order, -cost_milli, parts, POLICY)


def with_window_outcome(consideration: Consideration, driver_id: str, given: set[str]) -> Consideration:
    """The same, with the reasons of those who could have been asked and were not.

    driver_id : whom the window gave the ride; empty where it was left waiting
    given : whom it gave any ride
    """
    reasons = list(consideration.reasons)
    for row, other in enumerate(consideration.candidates.driver_ids):
        if reasons[row] or other == driver_id:
            continue
        if other in given:
            reasons[row] = NotOffered.OTHER_RIDE.value
        else:
            reasons[row] = (NotOffered.OUTRANKED if driver_id else NotOffered.DEARER_THAN_WAITING).value
    return replace(consideration, reasons=tuple(reasons))


def given_to(window: Window, assignment: Assignment) -> list[str]:
    """The driver of each ride, empty for those left waiting."""
    return [window.driver_ids[driver] if driver != WAITS else "" for driver in assignment.driver.tolist()]


def _among(reach: Reach, some: set[tuple[int, int]], n_drivers: int) -> Bools:
    keys = np.array([ride * n_drivers + driver for ride, driver in some], dtype=np.int64)
    return np.isin(reach.ride * n_drivers + reach.driver, keys)


def _rank(ride: Ints, can: Bools) -> Ints:
    """Of each row, how many before it of the same ride can be asked?"""
    passed: Ints = np.cumsum(can) - can
    first = np.searchsorted(ride, ride)
    return passed - passed[first] if len(ride) else passed
