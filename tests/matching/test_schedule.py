"""When is a scheduled ride searched, and what if its rider is busy then? On the pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hexhail.kernel.errors import DomainError, Reason
from matching.candidates import consider
from matching.model import (
    DeadlinePassed,
    DriverArrived,
    FactKind,
    OfferAccepted,
    OfferShown,
    OfferState,
    RiderCancelled,
    RiderFoundBusy,
    RideState,
)
from matching.offers import OfferParams, decide, schedule, search_is_over
from matching.schedule import ScheduleParams, check_pickup_at
from tests.matching.rides import NEAREST_FIRST, NOW_MS, candidates, facts, plan, searching

if TYPE_CHECKING:
    from matching.model import Ride

MIN_MS = 60_000
PICKUP_AT_MS = NOW_MS + 120 * MIN_MS
PARAMS = OfferParams()


def scheduled(pickup_at_ms: int = PICKUP_AT_MS) -> Ride:
    """A ride that is wanted for then."""
    return schedule(replace(searching(), version=0, pickup_at_ms=pickup_at_ms), NOW_MS, PARAMS).ride


def begun(at_ms: int) -> Ride:
    """A scheduled ride whose search began then."""
    ride = decide(scheduled(), DeadlinePassed(0.0), at_ms, PARAMS).ride
    assert ride.state is RideState.SEARCHING
    return ride


def test_it_is_first_looked_at_in_time_for_the_longest_pickup_and_a_margin() -> None:
    ride = scheduled()
    assert (ride.state, ride.version) == (RideState.SCHEDULED, 1)
    assert ride.next_deadline_ms == PICKUP_AT_MS - 35 * MIN_MS


def test_what_is_wanted_soon_is_looked_at_now() -> None:
    assert scheduled(NOW_MS + 15 * MIN_MS).next_deadline_ms == NOW_MS


@pytest.mark.parametrize(
    ("expected_pickup_s", "minutes_before"),
    [(None, 15), (300.0, 10), (0.0, 5), (1_500.0, 30), (9_000.0, 35)],
    ids=["unknown", "short", "none at all", "long", "longer than is allowed for"],
)
def test_the_search_begins_as_long_before_as_recent_pickups_took(expected_pickup_s: float | None, minutes_before: int) -> None:
    ride = scheduled()
    due_ms = PICKUP_AT_MS - minutes_before * MIN_MS
    assert ride.next_deadline_ms is not None
    if ride.next_deadline_ms < due_ms:
        early = decide(ride, DeadlinePassed(expected_pickup_s), ride.next_deadline_ms, PARAMS)
        assert [(fact.kind, fact.text) for fact in early.facts] == [(FactKind.SEARCH_POSTPONED, "EARLY")]
        ride = early.ride
    assert ride.next_deadline_ms == due_ms
    decision = decide(ride, DeadlinePassed(expected_pickup_s), due_ms, PARAMS)
    assert decision.ride.state is RideState.SEARCHING
    assert decision.ride.next_deadline_ms == decision.ride.search_began_at_ms == due_ms
    assert [fact.kind for fact in decision.facts] == [FactKind.SEARCH_BEGAN]


def test_a_rider_who_is_busy_is_waited_for_until_the_search_would_be_over() -> None:
    ride, now_ms = begun_before_search(), PICKUP_AT_MS - 15 * MIN_MS
    waits = 0
    while ride.state is RideState.SCHEDULED:
        decision = decide(ride, RiderFoundBusy(), now_ms, PARAMS)
        ride = decision.ride
        if ride.state is RideState.SCHEDULED:
            assert [(fact.kind, fact.text) for fact in decision.facts] == [(FactKind.SEARCH_POSTPONED, "RIDER_BUSY")]
            assert ride.next_deadline_ms == now_ms + MIN_MS
            now_ms += MIN_MS
            waits += 1
    assert waits == 24
    assert ride.state is RideState.CANCELLED_BY_SYSTEM
    assert [(fact.kind, fact.text) for fact in decision.facts] == [(FactKind.RIDE_CANCELLED, "RIDER_BUSY")]


def begun_before_search() -> Ride:
    """A scheduled ride at the moment when it would be searched."""
    ride = scheduled()
    assert ride.next_deadline_ms is not None
    return decide(ride, DeadlinePassed(), ride.next_deadline_ms, PARAMS).ride


def test_that_the_rider_was_busy_says_nothing_of_a_ride_that_is_searched() -> None:
    ride = begun(PICKUP_AT_MS)
    assert decide(ride, RiderFoundBusy(), PICKUP_AT_MS, PARAMS).ride is ride


def test_the_rider_may_cancel_it_for_nothing() -> None:
    decision = decide(scheduled(), RiderCancelled(), NOW_MS, PARAMS)
    assert decision.ride.state is RideState.CANCELLED_BY_RIDER
    assert [fact.kind for fact in decision.facts] == [FactKind.RIDE_CANCELLED]


def test_a_ride_that_nobody_began_to_search_in_time_has_expired() -> None:
    """Everything was down for hours, say: nobody is sent for a rider who has gone."""
    late = decide(scheduled(), DeadlinePassed(), PICKUP_AT_MS + 10 * MIN_MS, PARAMS)
    assert late.ride.state is RideState.EXPIRED
    assert late.ride.next_deadline_ms is None


def test_the_search_lasts_until_some_minutes_after_the_pickup_time() -> None:
    ride = begun(PICKUP_AT_MS - 5 * MIN_MS)
    assert not search_is_over(ride, PICKUP_AT_MS + 10 * MIN_MS - 1, PARAMS)
    assert search_is_over(ride, PICKUP_AT_MS + 10 * MIN_MS, PARAMS)


def test_who_did_not_answer_in_one_round_of_the_search_is_asked_again_in_the_next() -> None:
    """A round lasts as long as the search of a ride that is wanted at once."""
    ride, now_ms = begun(PICKUP_AT_MS), PICKUP_AT_MS
    ride = decide(ride, plan(ride, "d1"), now_ms, PARAMS).ride
    ride = decide(ride, OfferShown("o-d1"), now_ms, PARAMS).ride
    ride = decide(ride, DeadlinePassed(), now_ms + 5_000, PARAMS).ride
    assert ride.offer("o-d1").state is OfferState.EXPIRED
    assert reason_against_d1(ride) == "OFFERED_BEFORE"
    ride = decide(ride, plan(ride), now_ms + 30_000, PARAMS).ride
    assert (ride.state, ride.phase) == (RideState.SEARCHING, 0)
    assert reason_against_d1(ride) == ""


def reason_against_d1(ride: Ride) -> str:
    considered = consider(
        ride, 1, candidates("d1"), facts({}), NEAREST_FIRST, searched_radius_m=1.0, complete=True, as_of_ms=NOW_MS
    )
    return considered.reasons[0]


def test_a_ride_wanted_at_once_has_one_round() -> None:
    ride = searching()
    late = decide(ride, plan(ride), NOW_MS + 31_000, PARAMS).ride
    assert search_is_over(late, NOW_MS + 31_000, PARAMS)


def test_a_driver_who_is_early_waits_until_the_pickup_time_and_then_as_long_as_for_anyone() -> None:
    now_ms = PICKUP_AT_MS - 5 * MIN_MS
    ride = begun(now_ms)
    for event in (plan(ride, "d1"), OfferAccepted("o-d1"), DriverArrived("d1")):
        ride = decide(ride, event, now_ms, PARAMS).ride
    assert ride.next_deadline_ms == PICKUP_AT_MS + 10 * MIN_MS


@pytest.mark.parametrize("ahead_ms", [15 * MIN_MS, 7 * 24 * 60 * MIN_MS])
def test_it_may_be_wanted_a_quarter_of_an_hour_to_a_week_ahead(ahead_ms: int) -> None:
    check_pickup_at(NOW_MS + ahead_ms, NOW_MS, ScheduleParams())


@pytest.mark.parametrize("ahead_ms", [-MIN_MS, 0, 15 * MIN_MS - 1, 7 * 24 * 60 * MIN_MS + 1, 2**62])
def test_and_not_otherwise(ahead_ms: int) -> None:
    with pytest.raises(DomainError, match=r"pickup_at_ms must lie 900 to 604800 s ahead") as refused:
        check_pickup_at(NOW_MS + ahead_ms, NOW_MS, ScheduleParams())
    assert refused.value.reason is Reason.INVALID_FIELD


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_ahead_s", 0.0), ("late_s", -1.0), ("margin_s", -1.0), ("max_ahead_s", 60.0), ("busy_retry_s", 0.0)],
)
def test_parameters_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ScheduleParams(**{name: value})
