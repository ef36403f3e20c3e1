"""The synthetic city's demand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hexhail.kernel import geo
from routing.grid import GridParams, grid_graph
from simulator.gridport import DemandParams, ShockParams, default_shock, grid_requests

GRAPH = grid_graph(GridParams(40.4865, -74.0177))
SHOCK = default_shock(GRAPH)
DEMAND = DemandParams()


def near_shock(pickup: np.ndarray, radius_m: float) -> np.ndarray:
    return geo.distances_m(SHOCK.centre_lat, SHOCK.centre_lng, pickup[:, 0], pickup[:, 1]) <= radius_m


def test_the_same_seed_gives_the_same_requests() -> None:
    first, again = grid_requests(GRAPH, DEMAND, SHOCK), grid_requests(GRAPH, DEMAND, SHOCK)

    np.testing.assert_array_equal(first.at_s, again.at_s)
    np.testing.assert_array_equal(first.dropoff, again.dropoff)
    assert not np.array_equal(first.at_s, grid_requests(GRAPH, replace(DEMAND, seed=2), SHOCK).at_s)


@pytest.mark.parametrize("seed", range(5))
def test_trips_are_short_and_within_the_demo(seed: int) -> None:
    requests = grid_requests(GRAPH, replace(DEMAND, seed=seed), SHOCK)
    trip_m = geo.distances_m(*requests.pickup.T, *requests.dropoff.T)

    assert ((requests.at_s >= 0) & (requests.at_s < 120)).all()
    assert ((trip_m >= 400) & (trip_m <= 1200)).all()
    assert requests.start_ms is None


@pytest.mark.parametrize("seed", range(5))
def test_the_shock_is_a_crowd_in_one_place_for_a_while(seed: int) -> None:
    requests = grid_requests(GRAPH, replace(DEMAND, seed=seed), SHOCK)
    here = near_shock(requests.pickup, SHOCK.radius_m)
    during = (requests.at_s >= SHOCK.begins_s) & (requests.at_s < SHOCK.ends_s)

    assert (here & during).sum() > 80
    assert (here & ~during).sum() < 10


def test_without_a_shock_the_rate_is_the_steady_one() -> None:
    requests = grid_requests(GRAPH, replace(DEMAND, rate_per_s=5.0, minutes=10), None)

    assert len(requests) == pytest.approx(3000, rel=0.1)
    assert np.histogram(requests.at_s, bins=10)[0].min() > 220


def test_a_shock_leaves_the_steady_demand_as_it_was() -> None:
    steady, shaken = grid_requests(GRAPH, DEMAND, None), grid_requests(GRAPH, DEMAND, SHOCK)

    assert set(steady.at_s.tolist()) < set(shaken.at_s.tolist())


def test_a_sample_keeps_its_share() -> None:
    whole = grid_requests(GRAPH, replace(DEMAND, rate_per_s=10.0), None)
    part = grid_requests(GRAPH, replace(DEMAND, rate_per_s=10.0, sample=0.25), None)

    assert len(part) == pytest.approx(len(whole) / 4, rel=0.2)
    assert set(part.at_s.tolist()) < set(whole.at_s.tolist())


def test_no_demand_gives_no_requests() -> None:
    assert len(grid_requests(GRAPH, replace(DEMAND, rate_per_s=0.0), None)) == 0


def test_a_shock_away_from_the_streets_is_refused() -> None:
    with pytest.raises(ValueError, match="radius_m"):
        grid_requests(GRAPH, DEMAND, ShockParams(41.0, -74.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate_per_s", -1.0), ("minutes", float("nan")), ("trip_max_m", 100.0), ("sample", 0.0), ("seed", -1)],
)
def test_unfit_demand_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(DEMAND, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("centre_lat", 91.0), ("begins_s", 60.0), ("radius_m", -1.0), ("rate_per_s", float("inf"))]
)
def test_unfit_shocks_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(SHOCK, **{field: value})
