"""Who comes first: the case table of tests/specs/ranking.json on the pure function, and what holds of every policy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import geo
from matching.ranking import POLICIES, Candidates, RankingParams, rank
from tests.matching.rides import candidates

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
        idle_s=np.zeros(len(drivers)),
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
        idle_s=column(0, 10_000),
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


@given(some_candidates(), st.sampled_from(sorted(POLICIES)), st.integers(1, 10_000))
def test_waiting_adds_a_part_that_is_bounded_and_grows_and_nothing_else(
    candidates: Candidates, policy: str, per_min: int
) -> None:
    plain = rank(candidates, RankingParams(policy=policy))
    fair = rank(candidates, RankingParams(policy=policy, idle_bonus_milli_per_min=per_min, idle_bonus_cap_min=20.0))
    assert "idle" not in plain.parts
    assert {name: part.tolist() for name, part in fair.parts.items() if name != "idle"} == {
        name: part.tolist() for name, part in plain.parts.items()
    }
    bonus = fair.parts["idle"]
    assert ((bonus >= 0) & (bonus <= 20 * per_min)).all()
    assert (np.diff(bonus[np.argsort(candidates.idle_s, kind="stable")]) >= 0).all()


def test_of_two_alike_whoever_waited_longer_is_asked_first_where_the_city_wants_it() -> None:
    both = candidates("just", "long", distance_m=np.array([400.0, 500.0]), idle_s=np.array([60.0, 1_200.0]))
    assert rank(both, RankingParams()).order.tolist() == [0, 1]
    assert rank(both, RankingParams(idle_bonus_milli_per_min=100)).order.tolist() == [1, 0]


@pytest.mark.parametrize("bad", [{"idle_bonus_milli_per_min": -1}, {"idle_bonus_cap_min": -0.5}])
def test_waiting_is_never_held_against_anybody(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        RankingParams(**bad)


@given(some_candidates())
def test_some_of_the_candidates_keep_their_columns(candidates: Candidates) -> None:
    candidates = replace(candidates, capabilities=tuple(frozenset({each}) for each in candidates.driver_ids))
    rows = list(range(0, len(candidates), 2))
    taken = candidates.take(rows)
    assert taken.driver_ids == tuple(candidates.driver_ids[row] for row in rows)
    assert taken.distance_m.tolist() == candidates.distance_m[rows].tolist()
    assert all(taken.able(each)[row] for row, each in enumerate(taken.driver_ids))


def test_who_is_able_is_nobody_where_nobody_asked() -> None:
    assert candidates_of([{"id": "d1", "north_m": 0, "east_m": 0, "rating_milli": 0}]).able("xl").tolist() == [False]
