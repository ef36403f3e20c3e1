"""What observations say of the traffic: recovered where it was driven, borrowed where it was not, bounded everywhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.grid import GridParams, grid_graph
from routing.patches import Patches, patches_of
from routing.tables import Tables, build_tables
from routing.traffic import Beliefs, Evidence, Observations, TrafficParams, at_first, estimated, evidence_of, learned
from routing.ways import fastest_ways

if TYPE_CHECKING:
    from routing.graph import RoadGraph

PARAMS = TrafficParams()


@cache
def town() -> tuple[RoadGraph, Tables, Patches]:
    graph = grid_graph(GridParams(40.5, -74.0, rows=20, columns=20, block_m=120.0, jitter=0.1, seed=2))
    return graph, build_tables(graph), patches_of(graph, 9)


def driven(count: int, beliefs: Beliefs, sigma: float = 0.0, *, whole: bool = True, seed: int = 1) -> Observations:
    """Rides between random junctions, as long as these beliefs have it, but for chance."""
    graph, tables, patches = town()
    rng = np.random.default_rng(seed)
    starts, ends = rng.integers(0, graph.n_nodes, (2, count))
    ends = np.where(starts == ends, (ends + 1) % graph.n_nodes, ends)
    driving = patches.of_ways(*fastest_ways(graph, tables, starts, ends))
    legs_m = rng.uniform(0.0, 80.0, count) if whole else np.zeros(count)
    seen = Observations(driving, legs_m, np.ones(count), np.full(count, whole))
    return replace(seen, taken_s=beliefs.predicted_s(seen) * np.exp(rng.normal(0.0, sigma, count)))


def truth(seed: int = 7) -> Beliefs:
    _, _, patches = town()
    return Beliefs(np.random.default_rng(seed).uniform(1.2, 4.0, len(patches)), terminal_s=45.0, leg_s_per_m=0.25)


def test_what_was_driven_often_is_recovered() -> None:
    _, _, patches = town()
    real = truth()
    seen = driven(3_000, real)

    found = learned(seen, Evidence.none(len(patches)), replace(at_first(patches, PARAMS), terminal_s=60.0), patches, PARAMS)

    assert np.percentile(np.abs(found.predicted_s(seen) / seen.taken_s - 1), 98) < 0.15
    driven_s = np.asarray(seen.driving.sum(axis=0))
    often = driven_s > np.median(driven_s)
    assert np.median(np.abs(found.slowness / real.slowness - 1)[often]) < 0.12


def test_half_of_what_chance_makes_longer_or_shorter_takes_longer_than_thought() -> None:
    _, _, patches = town()
    real = truth()
    seen = driven(3_000, real, sigma=0.3)

    found = learned(seen, Evidence.none(len(patches)), replace(at_first(patches, PARAMS), terminal_s=60.0), patches, PARAMS)

    fresh = driven(2_000, real, sigma=0.3, seed=9)
    assert 0.46 < np.mean(fresh.taken_s > found.predicted_s(fresh)) < 0.54


def test_a_few_wild_observations_change_little() -> None:
    _, _, patches = town()
    seen = driven(2_000, truth())
    wild = replace(seen, taken_s=np.where(np.arange(2_000) % 20 == 0, seen.taken_s * 30, seen.taken_s))
    before = replace(at_first(patches, PARAMS), terminal_s=60.0)

    calm, shaken = (learned(each, Evidence.none(len(patches)), before, patches, PARAMS) for each in (seen, wild))

    assert np.median(shaken.predicted_s(seen) / calm.predicted_s(seen)) < 1.08


def test_nothing_observed_changes_nothing() -> None:
    _, _, patches = town()
    before = truth()
    none = driven(5, before).rows(np.zeros(0, dtype=np.int64))

    assert learned(none, Evidence.none(len(patches)), before, patches, PARAMS) is before
    np.testing.assert_allclose(estimated(Evidence.none(len(patches)), before.slowness, patches, PARAMS), before.slowness)


def test_a_street_that_nobody_drove_borrows_from_its_neighbours_and_from_the_city() -> None:
    _, _, patches = town()
    n = len(patches)
    coupling = patches.coupling.toarray()
    here = 0
    beside = int(np.flatnonzero(coupling[here] < 0)[0])
    free_s = np.full(n, 400.0)
    free_s[[here, beside]] = 0.0
    jam = Evidence(free_s, free_s * np.where(coupling[here] < 0, 5.0, 2.2))
    calm = Evidence(free_s, free_s * 2.2)

    jammed, quiet = (estimated(each, np.full(n, 2.2), patches, PARAMS) for each in (jam, calm))

    assert jammed[here] > quiet[here] * 1.3
    np.testing.assert_allclose(quiet, 2.2, rtol=1e-6)
    slow_everywhere = estimated(Evidence(free_s, free_s * 4.4), np.full(n, 2.2), patches, PARAMS)
    assert slow_everywhere[here] > 3.5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(1.1, 5.0))
def test_what_took_longer_makes_nothing_faster(seed: int, which: int, factor: float) -> None:
    _, _, patches = town()
    rng = np.random.default_rng(seed)
    n = len(patches)
    free_s = rng.exponential(100.0, n) * (rng.random(n) < 0.7)
    took_s = free_s * rng.uniform(1.0, 4.0, n)
    more_s = took_s.copy()
    more_s[which % n] *= factor
    # the level of the city is held, so that it is the field itself that is looked at
    calm = replace(PARAMS, level_trust_s=1e12)

    less, more = (estimated(Evidence(free_s, each), np.full(n, 2.2), patches, calm) for each in (took_s, more_s))

    assert (more >= less - 1e-9).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_no_estimate_leaves_its_bounds(seed: int, scale: float) -> None:
    _, _, patches = town()
    rng = np.random.default_rng(seed)
    free_s = rng.exponential(300.0, len(patches))

    found = estimated(Evidence(free_s, free_s * scale), np.full(len(patches), 2.2), patches, PARAMS)

    assert (found >= PARAMS.min_slowness).all()
    assert (found <= PARAMS.max_slowness).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_the_order_of_observations_does_not_matter_and_parts_add_up(seed: int) -> None:
    _, _, patches = town()
    beliefs = at_first(patches, PARAMS)
    seen = driven(80, truth(), sigma=0.3, seed=seed)
    order = np.random.default_rng(seed).permutation(80)

    whole, shuffled = (evidence_of(each, beliefs, PARAMS) for each in (seen, seen.rows(order)))
    parts = evidence_of(seen.rows(np.arange(30)), beliefs, PARAMS) + evidence_of(seen.rows(np.arange(30, 80)), beliefs, PARAMS)

    for other in (shuffled, parts):
        np.testing.assert_allclose(other.free_s, whole.free_s)
        np.testing.assert_allclose(other.took_s, whole.took_s)


def test_stretches_say_nothing_of_setting_out() -> None:
    _, _, patches = town()
    before = replace(at_first(patches, PARAMS), terminal_s=33.0)
    seen = driven(300, replace(truth(), terminal_s=0.0), whole=False)

    found = learned(seen, Evidence.none(len(patches)), before, patches, PARAMS)

    assert (found.terminal_s, found.leg_s_per_m) == (before.terminal_s, before.leg_s_per_m)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("usual_slowness", 9.0),
        ("usual_slowness", float("nan")),
        ("min_slowness", 0.0),
        ("trust_s", -1.0),
        ("coupling_s", float("inf")),
        ("most_surprise", 1.0),
        ("rounds", 0),
    ],
)
def test_unfit_parameters_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PARAMS, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("column", "value"), [("taken_s", 0.0), ("taken_s", float("inf")), ("legs_m", -1.0), ("legs_m", np.nan)])
def test_unfit_observations_are_refused_by_name(column: str, value: float) -> None:
    seen = driven(3, truth())
    wrong = getattr(seen, column).copy()
    wrong[1] = value
    with pytest.raises(ValueError, match=column):
        replace(seen, **{column: wrong})
    with pytest.raises(ValueError, match=column):
        replace(seen, **{column: wrong[:2]})
