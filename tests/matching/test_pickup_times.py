"""How long do pickups of a city take? Learned from arrivals, and only from enough of them."""

from __future__ import annotations

from dataclasses import replace

from hexhail.kernel.ids import CityId
from matching.model import DriverArrived, OfferAccepted, RideStarted
from matching.offers import OfferParams, decide
from matching.pickup_times import PickupTimes
from tests.matching.rides import NOW_MS, offered

PARAMS = OfferParams()
CITY = CityId("gridport")
ACCEPTED = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, PARAMS).ride


def arrivals(took_s: range) -> PickupTimes:
    times = PickupTimes()
    for seconds in took_s:
        times.see(decide(ACCEPTED, DriverArrived("d1"), NOW_MS + seconds * 1000, PARAMS).ride)
    return times


def test_nine_in_ten_took_no_longer() -> None:
    assert arrivals(range(101)).expected_s(CITY, NOW_MS + 100_000) == 90.0


def test_too_few_say_nothing_and_neither_do_those_of_another_city() -> None:
    assert arrivals(range(19)).expected_s(CITY, NOW_MS + 100_000) is None
    assert arrivals(range(20)).expected_s(CityId("manhattan"), NOW_MS + 100_000) is None


def test_an_hour_later_they_are_forgotten() -> None:
    assert arrivals(range(100)).expected_s(CITY, NOW_MS + 3_800_000) is None


def test_each_pickup_counts_once_whatever_else_happens_to_the_ride() -> None:
    times = PickupTimes()
    arrived = decide(ACCEPTED, DriverArrived("d1"), NOW_MS + 1_000, PARAMS).ride
    for ride in (
        ACCEPTED,
        replace(arrived, updated_at_ms=NOW_MS + 2_000),
        decide(arrived, RideStarted("d1"), NOW_MS, PARAMS).ride,
    ):
        for _ in range(20):
            times.see(ride)
    assert times.expected_s(CITY, NOW_MS + 10_000) is None
