"""Fares are exact, never fall when anything grows, and their lines sum to them."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.fare import FareParams, HourBand, TimeOfDayParams, fare, time_of_day_milli
from tests.pricing.world import spec

SPEC = spec("fare")
NEW_YORK = ZoneInfo("America/New_York")

AMOUNTS = st.integers(0, 100_000)
METRES, SECONDS = st.integers(0, 500_000), st.integers(0, 100_000)
FACTORS = st.integers(100, 10_000)
PARAMS = st.builds(FareParams, base_minor=AMOUNTS, per_km_minor=AMOUNTS, per_min_minor=AMOUNTS, minimum_minor=AMOUNTS)


@pytest.mark.parametrize("case", SPEC["cases"], ids=lambda case: case["name"])
def test_each_case_of_the_table(case: dict[str, Any]) -> None:
    at_ms = round(datetime.fromisoformat(case["at"]).timestamp() * 1000)
    tod_milli = time_of_day_milli(at_ms, NEW_YORK, TimeOfDayParams())
    params = FareParams(**SPEC["products"][case["product"]])
    priced = fare(case["distance_m"], case["duration_s"], case["multiplier_milli"], tod_milli, params)
    assert tod_milli == case["time_of_day_milli"]
    assert {line.kind.name: line.amount_minor for line in priced.lines} == case["lines"]
    assert priced.fare_minor == case["fare_minor"] == sum(case["lines"].values())


@given(METRES, SECONDS, FACTORS, FACTORS, PARAMS)
def test_the_fare_is_the_exact_price_rounded_half_up_once(
    distance_m: int, duration_s: int, surge: int, tod: int, params: FareParams
) -> None:
    exact = (
        (params.base_minor + Fraction(params.per_km_minor * distance_m, 1000) + Fraction(params.per_min_minor * duration_s, 60))
        * Fraction(surge, 1000)
        * Fraction(tod, 1000)
    )
    priced = fare(distance_m, duration_s, surge, tod, params)
    assert priced.fare_minor == max(floor(exact + Fraction(1, 2)), params.minimum_minor)


@given(METRES, SECONDS, FACTORS, FACTORS, PARAMS)
def test_the_lines_sum_to_the_fare_and_stand_in_order(
    distance_m: int, duration_s: int, surge: int, tod: int, params: FareParams
) -> None:
    priced = fare(distance_m, duration_s, surge, tod, params)
    assert sum(line.amount_minor for line in priced.lines) == priced.fare_minor
    order = [line.kind.value for line in priced.lines]
    assert order == sorted(set(order))
    assert all(line.amount_minor for line in priced.lines)


@given(METRES, SECONDS, FACTORS, FACTORS, PARAMS, st.integers(0, 50_000), st.integers(0, 10_000), st.integers(0, 1_000))
def test_a_longer_or_scarcer_ride_is_never_cheaper(
    distance_m: int, duration_s: int, surge: int, tod: int, params: FareParams, further: int, longer: int, scarcer: int
) -> None:
    short = fare(distance_m, duration_s, surge, tod, params)
    long = fare(distance_m + further, duration_s + longer, surge + scarcer, tod, params)
    assert short.fare_minor <= long.fare_minor


def test_negative_lengths_have_no_fare() -> None:
    with pytest.raises(ValueError, match="negative"):
        fare(-1, 0, 1000, 1000, FareParams())


@pytest.mark.parametrize(
    ("bands", "complaint"),
    [
        ([(7, 7, 1300)], "hours of a day"),
        ([(9, 7, 1300)], "hours of a day"),
        ([(22, 25, 1300)], "hours of a day"),
        ([(-1, 2, 1300)], "hours of a day"),
        ([(7, 9, 0)], "factor_milli"),
        ([(7, 9, 1300), (8, 10, 1200)], "overlap"),
    ],
)
def test_bands_that_are_no_hours_are_refused(bands: list[tuple[int, int, int]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TimeOfDayParams(tuple(HourBand(*band) for band in bands))


@pytest.mark.parametrize("name", ["base_minor", "per_km_minor", "per_min_minor", "minimum_minor"])
def test_negative_prices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        FareParams(**{name: -1})
