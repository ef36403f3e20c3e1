"""What a city knows of its traffic: lately, and at each hour of its day."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from routing.grid import GridParams, grid_graph
from routing.knowledge import HOURS, Knowledge, MemoryParams, beliefs_in, nothing_known, observed, taught
from routing.patches import patches_of
from routing.traffic import Observations, TrafficParams

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=12, columns=12, jitter=0.1, seed=2))
PATCHES = patches_of(GRAPH, 9)
PARAMS, MEMORY = TrafficParams(), MemoryParams()
NOON_MS = 1_760_000_000_000


def driven(slowness: float, count: int = 400, *, whole: bool = False) -> Observations:
    """Single streets all over the city, each so many times as slow as free flow."""
    edges = np.arange(count) * 7 % GRAPH.n_edges
    driving = PATCHES.of_ways(np.arange(count + 1), edges)
    taken_s = GRAPH.time_s[edges] * slowness
    return Observations(driving, np.zeros(count), taken_s, np.full(count, whole))


def slowness_in(knowledge: Knowledge, hour: int) -> float:
    return float(np.median(beliefs_in(knowledge, hour, PATCHES, PARAMS).slowness))


def test_a_city_that_knows_nothing_thinks_what_is_usual() -> None:
    nothing = nothing_known(PATCHES, NOON_MS)

    assert nothing.is_none
    assert slowness_in(nothing, 3) == pytest.approx(PARAMS.usual_slowness)


def test_what_was_seen_lately_is_thought_now_and_fades_to_what_is_usual() -> None:
    usual = taught(nothing_known(PATCHES, NOON_MS), driven(2.0), np.full(400, 9), PATCHES, PARAMS, MEMORY)
    jammed = usual
    for minute in range(10):
        jammed = observed(jammed, driven(4.0), 9, NOON_MS + minute * 60_000, PATCHES, PARAMS, MEMORY)

    assert slowness_in(jammed, 9) > 3.3
    later = jammed.aged(NOON_MS + 3 * 3_600_000, MEMORY)
    assert slowness_in(later, 9) < slowness_in(jammed, 9)
    forgotten = replace(later, hours=usual.hours)
    assert slowness_in(forgotten, 9) == pytest.approx(slowness_in(usual, 9), rel=1e-2)


def test_hours_are_apart_and_an_hour_that_nobody_drove_borrows_from_the_others() -> None:
    knowledge = nothing_known(PATCHES, NOON_MS)
    hours = np.repeat([3, 8], 400)
    both = Observations(
        PATCHES.of_ways(np.arange(801), np.arange(800) * 7 % GRAPH.n_edges),
        np.zeros(800),
        GRAPH.time_s[np.arange(800) * 7 % GRAPH.n_edges] * np.where(hours == 3, 1.2, 3.6),
        np.zeros(800, dtype=np.bool_),
    )
    knowledge = taught(knowledge, both, hours, PATCHES, PARAMS, MEMORY)

    night, rush, noon = (slowness_in(knowledge, hour) for hour in (3, 8, 12))

    assert night < 1.6
    assert rush > 2.9
    assert night < noon < rush


def test_what_is_remembered_of_an_hour_is_bounded_and_gives_way_to_newer() -> None:
    memory = MemoryParams(usual_most_s=60.0)
    knowledge = nothing_known(PATCHES, NOON_MS)
    for slowness in (2.0, 4.0):
        for _ in range(15):
            knowledge = taught(knowledge, driven(slowness), np.full(400, 7), PATCHES, PARAMS, memory)
            assert knowledge.hours.free_s.max() <= 60.0 + 1e-9

    assert knowledge.hours.free_s.shape == (HOURS, len(PATCHES))
    assert slowness_in(knowledge, 7) > 3.2


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    jammed = observed(nothing_known(PATCHES, NOON_MS), driven(4.0), 9, NOON_MS, PATCHES, PARAMS, MEMORY)
    assert np.isfinite(jammed.aged(NOON_MS - 86_400_000, MEMORY).lately.free_s).all()
    assert jammed.aged(NOON_MS - 86_400_000, MEMORY).lately.free_s.max() < jammed.lately.free_s.max()


@pytest.mark.parametrize("field", ["lately_half_life_s", "usual_most_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_unfit_memories_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        MemoryParams(**{field: value})
