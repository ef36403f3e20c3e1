"""The bench of routing finds out what is wrong: its independent answers agree with the routers', and a lie is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.metropolis import metropolis
from benchmarks.road_checks import Roads, route_faults, trip_faults
from hexhail.kernel import geo
from routing.components import component_labels
from routing.joining import RoadParams
from routing.model import Route
from routing.road import RoadRouter
from routing.tables import build_tables

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats

TOWN = metropolis(1_500, 7)
PARAMS = RoadParams(time_factor=1.3, snap_limit_m=150.0, approach_speed_mps=4.0, terminal_s=20.0)
ROUTER = RoadRouter(TOWN, build_tables(TOWN), PARAMS)
ROADS = Roads(TOWN, PARAMS)


def places_about(count: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return TOWN.places()[rng.integers(0, TOWN.n_nodes, count)] + rng.normal(0, 1e-3, (count, 2))


def test_the_independent_answers_are_those_of_a_router() -> None:
    origins = places_about(60, 1)
    for destination in (*places_about(12, 2), origins[0], np.array([0.0, 0.0])):
        times_s, lengths_m = ROADS.trips(origins, destination)

        assert trip_faults("times", ROUTER.times_s(origins, destination[None], 0)[:, 0], times_s) == []
        assert trip_faults("lengths", ROUTER.distances_m(origins, destination[None])[:, 0], lengths_m) == []
        there = np.flatnonzero(np.isfinite(times_s))
        routes = [ROUTER.route(geo.Place(*origins[i]), geo.Place(*destination), 0) for i in there]
        assert route_faults("routes", routes, times_s[there], lengths_m[there]) == []


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([100.0, 200.0, np.inf], None),
        ([100.001, 200.0, np.inf], None),
        ([100.1, 200.0, np.inf], "1 of 3 are wrong, 100.1 instead of 100.0"),
        ([100.0, np.inf, np.inf], "1 of 3 are wrong, inf instead of 200.0"),
        ([100.0, 200.0, 1e9], "1 of 3 are wrong"),
        ([100.0, np.nan, 3.0], "2 of 3 are wrong, nan instead"),
        ([100.0, 200.0], "(2,) answers to (3,) questions"),
    ],
)
def test_a_wrong_time_is_a_fault(found: list[float], complaint: str | None) -> None:
    faults = trip_faults("trips", np.array(found), np.array([100.0, 200.0, np.inf]))

    assert len(faults) == (complaint is not None)
    assert complaint is None or complaint in faults[0]


def test_a_route_that_takes_another_time_or_cuts_a_corner_is_a_fault() -> None:
    route = Route(np.zeros((2, 2)), np.array([0.0, 60.0]), np.array([0.0, 500.0]))

    assert route_faults("way", [route], np.array([60.0]), np.array([500.0])) == []
    assert route_faults("way", [route], np.array([60.0]), np.array([450.0])) == []
    assert "instead of 61" in route_faults("way", [route], np.array([61.0]), np.array([500.0]))[0]
    assert "10.0 m shorter" in route_faults("way", [route], np.array([60.0]), np.array([510.0]))[0]


def test_a_metropolis_hangs_together_and_is_the_same_again() -> None:
    assert component_labels(TOWN)[0] == 1
    assert metropolis(1_500, 7).digest() == TOWN.digest() != metropolis(1_500, 8).digest()
    assert 19_000 < metropolis(20_000, 7).n_nodes < 21_000
    assert 2.0 < TOWN.n_edges / TOWN.n_nodes < 3.5
