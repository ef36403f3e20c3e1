"""Who is there soonest: what looking at all pairs says, for routers with tables and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel.randomness import generator
from routing import soonest as under_test
from routing.crow import CrowParams, CrowRouter
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.soonest import Soonest, first_of_each, soonest
from routing.tables import build_tables

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.model import Router

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=12, columns=9, jitter=0.2, one_way_share=0.3))
ROAD = RoadRouter(GRAPH, build_tables(GRAPH), RoadParams(time_factor=1.7, terminal_s=20.0))
CROW = CrowRouter(CrowParams(1.3, (20.0,) * 24, "UTC"))


def strewn(count: int, seed: int) -> Floats:
    """Places about the grid, some of them off the streets."""
    rng = generator(seed, "strewn")
    low, high = GRAPH.places().min(axis=0) - 0.002, GRAPH.places().max(axis=0) + 0.002
    return rng.uniform(low, high, (count, 2))


def among_all(router: Router, origins: Floats, destinations: Floats, count: int, limit_s: float) -> Soonest:
    """The same by looking at all pairs."""
    times_s = router.times_s(origins, destinations, 0).T.astype(np.float64)
    row, origin = np.nonzero(times_s <= limit_s)
    return first_of_each(row, origin, np.rint(times_s[row, origin] * 1000).astype(np.int64), count)


@pytest.mark.parametrize("router", [ROAD, CROW], ids=["road", "crow"])
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(0, 25), st.integers(1, 8), st.sampled_from([60.0, 240.0, 1e6]), st.integers(0, 10_000))
def test_it_is_what_all_pairs_say(router: Router, n: int, m: int, count: int, limit_s: float, seed: int) -> None:
    """To a millisecond: sums of float32 and of float64 are not rounded alike, and so the order of near ties is not the same."""
    origins, destinations = strewn(n, seed), strewn(m, seed + 1)
    found, expected = (
        soonest(router, origins, destinations, count, limit_s, 0),
        among_all(router, origins, destinations, count, limit_s),
    )

    times_ms = router.times_s(origins, destinations, 0).astype(np.float64)[found.origin, found.destination] * 1000
    assert np.abs(found.time_ms - times_ms).max(initial=0) <= 1
    assert found.destination.tolist() == expected.destination.tolist()
    assert np.abs(found.time_ms - expected.time_ms).max(initial=0) <= 1
    assert len({*zip(found.destination.tolist(), found.origin.tolist(), strict=True)}) == len(found)


def test_most_of_a_large_crowd_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    right = under_test.first_of_each

    def counting(*columns: object) -> Soonest:
        looked_at.append(len(columns[0]))  # type: ignore[arg-type]
        return right(*columns)  # type: ignore[arg-type]

    monkeypatch.setattr(under_test, "first_of_each", counting)
    found = soonest(ROAD, strewn(2_000, 1), strewn(300, 2), 5, 1e6, 0)

    assert len(found) >= 5 * 250
    assert sum(looked_at) < 2_000 * 300 / 10


def test_equal_times_end_on_the_first_origins() -> None:
    place = GRAPH.places()[50:51]
    found = soonest(ROAD, np.repeat(place, 4, axis=0), place, 3, 100.0, 0)

    assert found.origin.tolist() == [0, 1, 2]
    assert found.time_ms.tolist() == [0, 0, 0]


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        soonest(ROAD, strewn(1, 1), strewn(1, 2), 0, 10.0, 0)
    with pytest.raises(ValueError, match="origins"):
        soonest(ROAD, np.array([[95.0, 0.0]]), strewn(1, 2), 1, 10.0, 0)
