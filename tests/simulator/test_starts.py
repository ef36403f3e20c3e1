"""Drivers begin where rides ended, or anywhere on the streets."""

from __future__ import annotations

from datetime import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.kernel import geo
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables
from simulator.requests import RequestsFileError
from simulator.starts import load_ride_ends, starts_near, starts_on_streets

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=11, columns=11))
ROUTER = RoadRouter(GRAPH, build_tables(GRAPH), RoadParams(snap_limit_m=100.0))


def event(kind: str, at: str, lat: float) -> str:
    return f"1,{kind},2013-01-01 {at},2013-01-01 00:00:00,-73.999,40.501,-73.991,{lat},2,201,201\n"


def test_rides_that_ended_before_the_start_tell_where_drivers_are(tmp_path: Path) -> None:
    path = tmp_path / "rides.csv"
    path.write_text(
        event("START", "00:01:00", 40.1)
        + event("END", "00:05:00", 40.2)
        + event("END", "00:19:59", 40.3)
        + event("END", "00:19:59", 0.0)
        + event("END", "00:20:00", 40.4)
    )

    assert load_ride_ends(path, time(0, 20))[:, 0].tolist() == [40.2, 40.3]


def test_a_list_of_requests_gives_its_destinations(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "request_id,o_lat,o_lon,d_lat,d_lon,departure_time,passengers\n"
        "0,40.5,-73.9,40.2,-73.99,2014-12-21 07:00:00,1\n1,40.5,-73.9,40.3,-73.99,2014-12-21 09:00:00,1\n"
    )

    assert load_ride_ends(path, time(8))[:, 0].tolist() == [40.2]
    assert load_ride_ends(path, time(6))[:, 0].tolist() == [40.2, 40.3]


def test_a_file_that_tells_of_no_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rides.csv"
    path.write_text(event("END", "00:05:00", 0.0))

    with pytest.raises(RequestsFileError, match="no place where a ride ended"):
        load_ride_ends(path, time(0, 20))


@pytest.mark.parametrize("count", [0, 3, 50, 500])
def test_starts_are_near_places_on_the_network_and_all_different(count: int) -> None:
    places = np.concatenate((GRAPH.places()[:50], [[41.0, -74.0]]))

    starts = starts_near(places, count, 1, ROUTER)

    assert starts.shape == (count, 2)
    assert ROUTER.covers(starts).all()
    assert len(np.unique(starts, axis=0)) == count
    away_m = geo.distances_m(starts[:, :1], starts[:, 1:], places[:, 0], places[:, 1])
    assert (away_m.min(axis=1, initial=np.inf) < 30).all()
    np.testing.assert_array_equal(starts, starts_near(places, count, 1, ROUTER))


def test_places_off_the_network_start_nobody() -> None:
    with pytest.raises(ValueError, match="none of the places"):
        starts_near(np.array([[41.0, -74.0]]), 3, 1, ROUTER)


def test_starts_on_streets_lie_on_them() -> None:
    starts = starts_on_streets(GRAPH, 400, 1)

    assert starts.shape == (400, 2)
    assert ROUTER.covers(starts).all()
    assert np.ptp(starts[:, 0]) > 0.007
    assert not np.array_equal(starts, starts_on_streets(GRAPH, 400, 2))
