"""What a window may pair, at what cost, and what it says of those whom it did not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.kernel.ids import CityId, DriverId, OfferId, RideId
from matching.assignment import AssignmentParams, assign
from matching.candidates import Consideration, DriverFacts
from matching.model import DeadlinePassed, Offer, OfferDeclined, OffersPlanned, OfferState, PlannedOffer, RideState
from matching.offers import OfferParams, begin, decide
from matching.params import BatchParams, Dispatch, MatchingParams
from matching.ranking import PolicyFailure
from matching.window import Reach, Scores, cost_ranking, given_to, ranking_in, window_of, with_window_outcome
from tests.matching.rides import NOW_MS, candidates, searching

if TYPE_CHECKING:
    from matching.model import Ride
    from matching.window import Window

PARAMS = AssignmentParams(
    candidates=2, waiting_s=600.0, waiting_per_s=10.0, idle_credit=0.1, idle_credit_limit_s=20.0, unshown_s=50.0
)
DRIVERS = ("d1", "d2", "d3")


def facts(**columns: list[bool]) -> DriverFacts:
    """Of the three drivers; free, unless said otherwise."""
    n = len(DRIVERS)
    usual = {"known": [True] * n, "online": [True] * n, "suspended": [False] * n, "busy": [False] * n}
    usual |= {"has_live_offer": [False] * n, "has_session": [True] * n}
    return DriverFacts(**{name: np.array(values) for name, values in (usual | columns).items()})


def asked(ride: Ride, driver_id: str, state: OfferState, shown_at_ms: int = 0) -> Ride:
    """The ride after an offer to this driver in its present search."""
    offer = Offer(
        OfferId(f"o-{driver_id}-{len(ride.offers)}"), DriverId(driver_id), 1, state, NOW_MS, NOW_MS + 5, 60, 400, shown_at_ms
    )
    return replace(ride, offers=(*ride.offers, offer))


def window(
    rides: list[Ride],
    drivers: DriverFacts,
    pickup_s: list[list[float]],
    idle_s: tuple[float, ...] = (0.0,) * 3,
    scores: Scores | None = None,
) -> Window:
    """Seconds by ride and driver, in the order of time as `soonest` gives them."""
    order = [sorted(range(len(row)), key=row.__getitem__) for row in pickup_s]
    ride = np.repeat(np.arange(len(rides)), 3)
    driver = np.array(order).ravel()
    ms = np.array([round(pickup_s[r][d] * 1000) for r, d in zip(ride, driver, strict=True)])
    return window_of(
        CityId("gridport"),
        rides,
        DRIVERS,
        Reach(ride, driver, ms),
        drivers,
        np.array(idle_s),
        PARAMS,
        NOW_MS + 4_000,
        travel_times_version="v",
        travel_times_fell_back=False,
        complete=True,
        scores=scores,
    )


def made(seen: Window) -> list[str]:
    return given_to(seen, assign(seen.pairs(), seen.waiting_milli, len(seen.driver_ids)))


def open_pairs(seen: Window) -> list[tuple[int, str]]:
    pairs = seen.pairs()
    return [(r, seen.driver_ids[d]) for r, d in zip(pairs.ride.tolist(), pairs.driver.tolist(), strict=True)]


@pytest.mark.parametrize("fact", ["known", "online", "suspended", "busy", "has_live_offer", "has_session"])
def test_who_cannot_be_asked_makes_room_for_the_next(fact: str) -> None:
    unfit = [fact in {"suspended", "busy", "has_live_offer"}, *[fact not in {"suspended", "busy", "has_live_offer"}] * 2]
    seen = window([searching()], facts(**{fact: unfit}), [[10.0, 20.0, 30.0]])

    assert open_pairs(seen) == [(0, "d2"), (0, "d3")]


def test_as_many_are_considered_as_the_parameters_say_and_no_more() -> None:
    assert open_pairs(window([searching()], facts(), [[30.0, 20.0, 10.0]])) == [(0, "d3"), (0, "d2")]


def test_who_declined_or_ignored_a_ride_is_not_asked_for_it_again_but_for_others() -> None:
    no = asked(asked(searching(), "d1", OfferState.DECLINED), "d2", OfferState.EXPIRED, shown_at_ms=NOW_MS)
    other = replace(searching(), ride_id=RideId("gridport-other"))
    seen = window([no, other], facts(), [[10.0, 20.0, 30.0]] * 2)

    assert open_pairs(seen) == [(0, "d3"), (1, "d1"), (1, "d2")]


def test_who_never_saw_the_offer_counts_as_farther_away_for_this_ride() -> None:
    once = asked(searching(), "d1", OfferState.EXPIRED)

    assert made(window([once], facts(), [[10.0, 59.0, 90.0]])) == ["d2"]
    assert made(window([once], facts(), [[10.0, 61.0, 90.0]])) == ["d1"]


def test_costs_are_times_less_what_idling_earns_and_waits_grow() -> None:
    seen = window([searching()], facts(), [[10.0, 20.0, 30.0]], idle_s=(0.0, 150.0, 9_000.0))

    assert seen.cost_milli.tolist() == [10_000, 5_000, 10_000]
    assert seen.waiting_milli.tolist() == [640_000]
    assert made(seen) == ["d2"]


def test_a_policy_of_the_citys_own_makes_the_costs_and_its_words_explain_them() -> None:
    """Pairs stand in the order of their times; the score below zero is the cost, and whoever did not see the offer costs more."""
    parts = {"distance": np.array([-9_000, -2_000, -5_000]), "electric": np.array([0, 0, 4_000])}
    once = asked(searching(), "d2", OfferState.EXPIRED)
    seen = window([once], facts(), [[10.0, 20.0, 30.0]], scores=Scores("theirs", parts))

    assert seen.cost_milli.tolist() == [9_000, 2_000 + round(PARAMS.unshown_s * 1000), 1_000]
    assert made(seen) == ["d1"], "of the two who are there soonest"
    ranking = ranking_in(seen, 0)
    assert (ranking.policy, ranking.failure) == ("theirs", None)
    assert set(ranking.parts) == {"distance", "electric", "not_shown_before"}
    assert np.sum([*ranking.parts.values()], axis=0).tolist() == ranking.score_milli.tolist() == (-seen.cost_milli).tolist()
    first = window([searching()], facts(), [[1.0, 2.0, 3.0]], scores=Scores("theirs", parts))
    assert set(ranking_in(first, 0).parts) == set(parts)


def test_where_that_policy_fails_times_make_the_costs_and_the_failure_is_named() -> None:
    failed = Scores("theirs", {}, PolicyFailure.TOO_SLOW)
    seen, plain = (window([searching()], facts(), [[10.0, 20.0, 30.0]], scores=scores) for scores in (failed, None))
    assert seen.cost_milli.tolist() == plain.cost_milli.tolist()
    ranking = ranking_in(seen, 0)
    assert (ranking.policy, ranking.failed_policy, ranking.failure) == ("batched", "theirs", PolicyFailure.TOO_SLOW)
    assert ranking_in(plain, 0).failed_policy == ""


def outcome(driver_id: str, given: set[str]) -> list[str]:
    someone = candidates(*DRIVERS)
    ranking = cost_ranking(DRIVERS, np.array([30, 10, 20]), np.array([30, 10, 5]))
    assert ranking.order.tolist() == [2, 1, 0]
    before = Consideration(1, ranking.policy, someone, ranking, ("OFFLINE", "", ""), 1_000.0, True, NOW_MS)
    return list(with_window_outcome(before, driver_id, given).reasons)


def test_everybody_who_was_not_asked_has_a_reason() -> None:
    assert outcome("d2", {"d2", "d3"}) == ["OFFLINE", "", "OTHER_RIDE"]
    assert outcome("d2", {"d2"}) == ["OFFLINE", "", "OUTRANKED"]
    assert outcome("", {"d3"}) == ["OFFLINE", "DEARER_THAN_WAITING", "OTHER_RIDE"]


def test_in_windows_only_the_end_of_the_search_is_a_searching_ride_s_deadline() -> None:
    """Requested, left without a driver, declined, left to expire: it waits for the next window, and expires as ever."""
    params = OfferParams(in_windows=True)
    ends_ms = NOW_MS + 30_000
    ride = begin(searching(), NOW_MS, params).ride
    assert ride.next_deadline_ms == ends_ms

    nobody = decide(ride, OffersPlanned(1, ()), NOW_MS + 2_000, params).ride
    assert (nobody.next_deadline_ms, nobody.phase) == (ends_ms, 0)

    planned = PlannedOffer(OfferId("o1"), DriverId("d1"), 60, 400)
    offered = decide(nobody, OffersPlanned(1, (planned,)), NOW_MS + 4_000, params).ride
    assert offered.next_deadline_ms == NOW_MS + 9_000

    declined = decide(offered, OfferDeclined("o1"), NOW_MS + 5_000, params).ride
    assert (declined.state, declined.next_deadline_ms) == (RideState.SEARCHING, ends_ms)

    expired = decide(offered, DeadlinePassed(), NOW_MS + 9_000, params).ride
    assert (expired.state, expired.next_deadline_ms) == (RideState.SEARCHING, ends_ms)
    assert decide(expired, DeadlinePassed(), ends_ms, params).ride.state is RideState.EXPIRED


def test_a_city_says_how_its_rides_find_their_drivers() -> None:
    assert not MatchingParams().lifecycle.in_windows
    assert MatchingParams(dispatch=Dispatch.BATCHED).lifecycle.in_windows
    with pytest.raises(ValueError, match="none of phased, batched"):
        MatchingParams(dispatch="greedy")
    with pytest.raises(ValueError, match="in_windows follows from dispatch"):
        MatchingParams(offers=OfferParams(in_windows=True))


@pytest.mark.parametrize("wish", [{"window_s": 0.0}, {"lease_s": 2.0}, {"looked_at": 0}, {"max_rides": 0}, {"radius_m": 0.0}])
def test_windows_that_cannot_be_meant_are_refused(wish: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wish))):
        BatchParams(**wish)  # type: ignore[arg-type]
