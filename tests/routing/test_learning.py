"""What rides with known durations teach, ways and traffic made to agree."""

from __future__ import annotations

from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from routing.grid import GridParams, grid_graph
from routing.joining import RoadParams
from routing.knowledge import MemoryParams, beliefs_in
from routing.learning import TimedRides, fit_to_learn, hours_of, learn_rides
from routing.patches import patches_of
from routing.road import RoadRouter
from routing.tables import build_tables
from routing.traffic import TrafficParams

ZONE = "America/New_York"
NOON_MS = 1_357_059_600_000  # 2013-01-01T12:00 in New York
PARAMS, MEMORY = TrafficParams(), MemoryParams()


@cache
def free_flow() -> RoadRouter:
    graph = grid_graph(GridParams(40.5, -74.0, rows=14, columns=14, block_m=150.0, jitter=0.1, seed=4))
    return RoadRouter(graph, build_tables(graph), RoadParams())


def real_city() -> RoadRouter:
    """Slow in the west, fast in the east, and nobody was told."""
    base = free_flow()
    graph = base.free_flow
    east = graph.lng[graph.tail()] > np.median(graph.lng)
    return base.with_slowness(np.where(east, 1.3, 3.5), RoadParams(terminal_s=40.0))


def rides(count: int, seed: int = 1, sigma: float = 0.15) -> TimedRides:
    rng = np.random.default_rng(seed)
    nodes = free_flow().free_flow.places()
    ends = rng.integers(0, len(nodes), (2, count))
    ends[1] = np.where(ends[0] == ends[1], (ends[1] + 1) % len(nodes), ends[1])
    origins, destinations = (nodes[each] + rng.normal(0.0, 1e-4, (count, 2)) for each in ends)
    taken_s = real_city().pair_times_s(origins, destinations, 0) * np.exp(rng.normal(0.0, sigma, count))
    at_ms = NOON_MS + np.sort(rng.integers(0, 1_800_000, count))
    return TimedRides(origins, destinations, at_ms, taken_s.astype(np.float64))


def test_rides_not_learned_from_are_foretold() -> None:
    base = free_flow()
    lessons, asked = rides(1_500), rides(400, seed=2)
    patches = patches_of(base.free_flow, 9)

    knowledge = learn_rides(base, patches, lessons, ZONE, PARAMS, MEMORY)

    beliefs = beliefs_in(knowledge, 12, patches, PARAMS)
    slowness = beliefs.slowness[patches.of_edge]
    learned = base.with_slowness(slowness, RoadParams(1.0, 300.0, 1 / beliefs.leg_s_per_m, beliefs.terminal_s))
    off = np.abs(learned.pair_times_s(asked.origins, asked.destinations, 0) / asked.taken_s - 1)
    factor = np.median(lessons.taken_s / base.pair_times_s(lessons.origins, lessons.destinations, 0))
    constant_off = np.abs(factor * base.pair_times_s(asked.origins, asked.destinations, 0) / asked.taken_s - 1)
    assert np.median(off) < 0.13
    assert np.median(off) < 0.6 * np.median(constant_off)


def test_what_cannot_teach_is_counted_by_its_first_reason() -> None:
    base = free_flow()
    some = rides(7)
    origins, destinations, taken_s = some.origins.copy(), some.destinations.copy(), np.full(7, 300.0)
    nodes = base.free_flow.places()
    origins[:], destinations[:] = nodes[0], nodes[-1]
    origins[0] = (41.0, -74.0)
    destinations[1] = origins[1]
    taken_s[2], taken_s[3], taken_s[4] = np.nan, 59.0, 90_000.0
    odd = TimedRides(origins, destinations, some.at_ms, taken_s)

    good, dropped = fit_to_learn(base, odd)

    assert good.tolist() == [5, 6]
    assert dropped == {"off_network": 1, "no_trip": 1, "no_end": 1, "too_short": 1, "too_long": 1}


def test_no_rides_teach_nothing_and_say_so() -> None:
    base = free_flow()
    none = rides(3).rows(np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match="no rides to learn from"):
        learn_rides(base, patches_of(base.free_flow), none, ZONE, PARAMS, MEMORY)


def test_hours_are_those_of_the_citys_day() -> None:
    at_ms = np.array([NOON_MS, NOON_MS + 3_599_999, NOON_MS + 3_600_000, NOON_MS - 12 * 3_600_000])
    assert hours_of(at_ms, ZONE).tolist() == [12, 12, 13, 0]
    assert hours_of(at_ms[:1], "Asia/Kathmandu").tolist() == [22]
    assert ZoneInfo("Asia/Kathmandu").key


@pytest.mark.parametrize("name", ["origins", "destinations", "taken_s"])
def test_columns_of_other_lengths_are_refused_by_name(name: str) -> None:
    some = rides(3)
    columns = {each: getattr(some, each) for each in ("origins", "destinations", "at_ms", "taken_s")}
    columns[name] = columns[name][:2]
    with pytest.raises(ValueError, match=name):
        TimedRides(**columns)
