"""Who comes first: the case table of tests/specs/ranking.json on the pure function, and what holds of every policy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import geo
from matching.ranking import POLICIES, Candidates, RankingParams, acceptance_milli, rank

CASES = json.loads((Path(__file__).parents[1] / "specs" / "ranking.json").read_text())["cases"]
PICKUP = geo.Place(40.500, -74.000)
SPEED_MPS = 8.0


def place_of(driver: dict[str, Any]) -> geo.Place:
    """Where a driver of the table stands."""
    north, east = (math.degrees(driver[key] / geo.EARTH_RADIUS_M) for key in ("north_m", "east_m"))
    return geo.Place(PICKUP.lat + north, PICKUP.lng + east / math.cos(math.radians(PICKUP.lat)))


def candidates_of(drivers: list[dict[str, Any]]) -> Candidates:
    places = np.array([(place_of(d).lat, place_of(d).lng) for d in drivers])
    distance_m = geo.distances_m(places[:, 0], places[:, 1], PICKUP.lat, PICKUP.lng)
    return Candidates(
        driver_ids=tuple(d["id"] for d in drivers),
        distance_m=distance_m,
        pickup_eta_s=distance_m / SPEED_MPS,
        rating_milli=np.array([d["rating_milli"] for d in drivers]),
        acceptance_milli=np.full(len(drivers), 900),
        heading_deg=np.array([d.get("heading_deg", np.nan) for d in drivers], np.float64),
        bearing_deg=geo.bearings_deg(places[:, 0], places[:, 1], PICKUP.lat, PICKUP.lng),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    candidates = candidates_of(case["drivers"])
    ranking = rank(candidates, RankingParams(policy=case["policy"]))
    assert [candidates.driver_ids[row] for row in ranking.order] == case["order"]


@st.composite
def some_candidates(draw: st.DrawFn) -> Candidates:
    n = draw(st.integers(0, 12))

    def column(low: float, high: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array(draw(st.lists(st.floats(low, high), min_size=n, max_size=n)), np.float64)

    return Candidates(
        driver_ids=tuple(f"d{i}" for i in draw(st.permutations(range(n)))),
        distance_m=column(0, 5_000),
        pickup_eta_s=column(0, 3_600),
        rating_milli=np.rint(column(0, 5_000)).astype(np.int64),
        acceptance_milli=np.rint(column(0, 1_000)).astype(np.int64),
        heading_deg=column(0, 360),
        bearing_deg=column(0, 360),
    )


@given(some_candidates(), st.sampled_from(sorted(POLICIES)), st.randoms(use_true_random=False))
def test_row_order_never_matters(candidates: Candidates, policy: str, random: Any) -> None:
    rows = list(range(len(candidates)))
    random.shuffle(rows)
    shuffled = candidates.take(rows)
    params = RankingParams(policy=policy)
    first = [candidates.driver_ids[row] for row in rank(candidates, params).order]
    assert first == [shuffled.driver_ids[row] for row in rank(shuffled, params).order]


@given(some_candidates(), st.sampled_from(sorted(POLICIES)))
def test_scores_fall_along_the_order_and_are_the_sum_of_their_parts(candidates: Candidates, policy: str) -> None:
    ranking = rank(candidates, RankingParams(policy=policy))
    assert (np.diff(ranking.score_milli[ranking.order]) <= 0).all()
    assert (sum(ranking.parts.values(), start=np.zeros(len(candidates), np.int64)) == ranking.score_milli).all()


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_acceptance_is_a_share_and_grows_with_what_is_accepted(shown: int, accepted: int) -> None:
    rates = acceptance_milli(np.array([shown, shown]), np.array([accepted, accepted + 1]))
    assert 0 <= rates[0] <= 1000
    assert rates[1] >= rates[0]


def test_a_policy_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="'nearest' is not among classic, eta, eta_weighted"):
        RankingParams(policy="nearest")
