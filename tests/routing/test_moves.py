"""Drivers' positions become stretches of what they drove, from junction to junction."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel.geo import Place
from routing.grid import GridParams, grid_graph
from routing.moves import NOWHERE, Anchors, MoveParams, Sightings, Stretches, moved_on, plausible
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=10, columns=10, block_m=120.0, jitter=0.0, one_way_share=0.0))
ROUTER = RoadRouter(GRAPH, build_tables(GRAPH), RoadParams())
PARAMS = MoveParams()
NOON_MS = 1_760_000_000_000
AVAILABLE, ON_RIDE = 2, 3


def seen(place: Place, at_ms: int, *, driver: int = 0, doing: int = AVAILABLE) -> Sightings:
    places = np.array([[place.lat, place.lng]])
    snapped = ROUTER.snap(places)
    return Sightings(np.array([driver]), places, np.array([at_ms]), np.array([doing]), snapped.nodes, snapped.gap_m)


def drive(
    start: int, end: int, *, slowness: float = 1.0, every_s: float = 2.0, anchors: Anchors | None = None, begin_ms: int = NOON_MS
) -> tuple[Anchors, list[Stretches]]:
    """Follows the fastest way from node to node, and reports on the way."""
    nodes = GRAPH.places()
    route = ROUTER.route(Place(*nodes[start]), Place(*nodes[end]), 0)
    anchors, found = anchors or Anchors.none(), list[Stretches]()
    for at_s in np.arange(0.0, route.duration_s * slowness + every_s, every_s):
        lat = float(np.interp(at_s / slowness, route.cumulative_s, route.places[:, 0]))
        lng = float(np.interp(at_s / slowness, route.cumulative_s, route.places[:, 1]))
        anchors, stretches = moved_on(anchors, seen(Place(lat, lng), begin_ms + round(at_s * 1000)), GRAPH, PARAMS)
        found += [stretches] if len(stretches) else []
    return anchors, found


@pytest.mark.parametrize("slowness", [1.0, 2.5])
def test_a_drive_across_town_becomes_stretches_that_took_what_they_took(slowness: float) -> None:
    _, found = drive(0, 99, slowness=slowness)

    assert len(found) >= 4
    taken_s = sum(float(each.taken_s.sum()) for each in found)
    first, last = int(found[0].starts[0]), int(found[-1].ends[0])
    free_s = float(build_tables(GRAPH).times_s[last, first])
    assert taken_s == pytest.approx(free_s * slowness, rel=0.1)
    for one, other in itertools.pairwise(found):
        assert one.ends[0] == other.starts[0]


def test_whoever_stands_about_has_driven_nothing_meanwhile() -> None:
    anchors, _ = drive(0, 2)
    here = Place(*GRAPH.places()[2])
    for second in range(20, 400, 10):
        anchors, stretches = moved_on(anchors, seen(here, NOON_MS + second * 1000), GRAPH, PARAMS)
        assert not len(stretches)

    _, found = drive(2, 9, anchors=anchors, begin_ms=NOON_MS + 410_000)

    assert found
    assert found[0].taken_s[0] < 120


def test_whoever_stands_about_in_silence_has_driven_nothing_meanwhile_either() -> None:
    anchors, _ = drive(0, 2)
    silent_ms = round(PARAMS.standing_s * 1000) + 90_000

    _, found = drive(3, 9, anchors=anchors, begin_ms=NOON_MS + silent_ms)

    assert found
    assert found[0].taken_s[0] < PARAMS.standing_s


def test_a_short_wait_at_a_light_counts() -> None:
    anchors, _ = drive(0, 1)
    middle = GRAPH.places()[1] * 0.5 + GRAPH.places()[2] * 0.5
    for second in range(20, 60, 4):
        anchors, _ = moved_on(anchors, seen(Place(*middle), NOON_MS + second * 1000), GRAPH, PARAMS)

    _, stretches = moved_on(anchors, seen(Place(*GRAPH.places()[5]), NOON_MS + 70_000), GRAPH, PARAMS)

    assert len(stretches) == 1
    assert stretches.taken_s[0] >= 50


def test_who_begins_something_else_is_anchored_anew() -> None:
    places = GRAPH.places()
    anchors, _ = moved_on(Anchors.none(), seen(Place(*places[0]), NOON_MS), GRAPH, PARAMS)

    anchors, stretches = moved_on(anchors, seen(Place(*places[5]), NOON_MS + 60_000, doing=ON_RIDE), GRAPH, PARAMS)

    assert not len(stretches)
    assert anchors.node.tolist() == [5]


def test_what_took_too_long_is_no_stretch() -> None:
    places = GRAPH.places()
    anchors, _ = moved_on(Anchors.none(), seen(Place(*places[0]), NOON_MS), GRAPH, PARAMS)
    late_ms = NOON_MS + round(PARAMS.longest_s * 1000) + 1
    _, stretches = moved_on(anchors, seen(Place(*places[5]), late_ms), GRAPH, PARAMS)
    assert not len(stretches)


def test_a_sighting_from_before_changes_nothing() -> None:
    places = GRAPH.places()
    anchors, _ = moved_on(Anchors.none(), seen(Place(*places[0]), NOON_MS), GRAPH, PARAMS)
    after, stretches = moved_on(anchors, seen(Place(*places[5]), NOON_MS - 1), GRAPH, PARAMS)
    assert not len(stretches)
    assert after.node.tolist() == anchors.node.tolist()
    assert after.at_ms.tolist() == anchors.at_ms.tolist()


def test_far_from_every_junction_nobody_is_anchored() -> None:
    anchors, stretches = moved_on(Anchors.none(), seen(Place(40.6, -74.0), NOON_MS), GRAPH, PARAMS)
    assert anchors.node.tolist() == [NOWHERE]
    assert not len(stretches)


def test_who_is_forgotten_begins_anew_and_the_others_go_on() -> None:
    places = GRAPH.places()
    both = [seen(Place(*places[0]), NOON_MS, driver=driver) for driver in (0, 1)]
    anchors = Anchors.none()
    for one in both:
        anchors, _ = moved_on(anchors, one, GRAPH, PARAMS)

    anchors = anchors.without(np.array([0]))

    counts = []
    for driver in (0, 1):
        anchors, stretches = moved_on(anchors, seen(Place(*places[5]), NOON_MS + 60_000, driver=driver), GRAPH, PARAMS)
        counts.append(len(stretches))
    assert counts == [0, 1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_drivers_do_not_disturb_each_other(seed: int, drivers: int) -> None:
    rng = np.random.default_rng(seed)
    together, alone = Anchors.none(), [Anchors.none() for _ in range(drivers)]
    for step in range(8):
        places = GRAPH.places()[rng.integers(0, GRAPH.n_nodes, drivers)] + rng.normal(0.0, 1e-4, (drivers, 2))
        at_ms = np.full(drivers, NOON_MS + step * 40_000)
        doing = rng.integers(2, 4, drivers)
        snapped = ROUTER.snap(places)
        every = Sightings(np.arange(drivers), places, at_ms, doing, snapped.nodes, snapped.gap_m)
        together, stretches = moved_on(together, every, GRAPH, PARAMS)
        count = 0
        for driver in range(drivers):
            one = slice(driver, driver + 1)
            only = Sightings(np.array([0]), places[one], at_ms[one], doing[one], snapped.nodes[one], snapped.gap_m[one])
            alone[driver], found = moved_on(alone[driver], only, GRAPH, PARAMS)
            count += len(found)
            assert together.node[driver] == alone[driver].node[0]
            assert together.at_ms[driver] == alone[driver].at_ms[0]
        assert len(stretches) == count


def test_what_cannot_have_been_driven_is_left_out() -> None:
    free_s = np.array([10.0, 10.0, 10.0, 0.0])
    kept = plausible(np.array([20.0, 2.0, 200.0, 20.0]), free_s, 0.7, 8.0)
    assert kept.tolist() == [True, False, False, False]


@pytest.mark.parametrize("field", ["near_m", "stretch_m", "longest_s", "standing_s", "standing_m"])
def test_unfit_parameters_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PARAMS, **{field: 0.0})
