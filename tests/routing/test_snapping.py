"""Who goes straight: every pair looked at one by one says the same, however few or many they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel import geo
from routing import snapping as under_test
from routing.grid import GridParams, grid_graph
from routing.snapping import Junctions, straight_m, straight_pairs

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=9, columns=5, jitter=0.25))
JUNCTIONS = Junctions(GRAPH)

places = st.lists(st.tuples(st.floats(40.496, 40.512), st.floats(-74.005, -73.99)), min_size=1, max_size=12).map(np.array)


@pytest.mark.parametrize("few", [0, 10_000])
@settings(deadline=None)
@given(places, places, st.sampled_from([20.0, 200.0]))
def test_pairs_go_straight_that_are_no_farther_apart_than_from_their_junctions(
    few: int, origins: Floats, destinations: Floats, limit_m: float
) -> None:
    starts, ends = JUNCTIONS.snap(origins, limit_m), JUNCTIONS.snap(destinations, limit_m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test, "FEW", few)
        patch.setattr(under_test, "PAIRS_AT_ONCE", 3)
        rows, columns, apart_m = straight_pairs(starts, ends)

    found = dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), apart_m.tolist(), strict=True))
    expected = {}
    for column, (start_lat, start_lng) in enumerate(origins):
        for row, (end_lat, end_lng) in enumerate(destinations):
            apart = geo.distance_m(geo.Place(start_lat, start_lng), geo.Place(end_lat, end_lng))
            if np.isfinite(starts.gap_m[column] + ends.gap_m[row]) and apart <= starts.gap_m[column] + ends.gap_m[row]:
                expected[row, column] = apart
    assert found == expected
    n = min(len(origins), len(destinations))
    in_pairs = straight_m(starts.parted(n)[0], ends.parted(n)[0]).tolist()
    assert in_pairs == [expected.get((i, i), np.inf) for i in range(n)]


@given(places)
def test_a_place_meets_the_nearest_junction_of_all(origins: Floats) -> None:
    snapped = JUNCTIONS.snap(origins, 300.0)

    apart_m = geo.distances_m(origins[:, :1], origins[:, 1:], GRAPH.lat, GRAPH.lng)
    nearest_m = apart_m.min(axis=1)
    np.testing.assert_array_equal(np.isfinite(snapped.gap_m), nearest_m <= 300.0)
    np.testing.assert_allclose(snapped.gap_m[nearest_m <= 300.0], nearest_m[nearest_m <= 300.0], atol=0.1)
