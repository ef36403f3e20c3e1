"""Streets between junctions: what is joined, what stays, and that no way becomes longer or shorter by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from hexhail.kernel import geo
from routing.chains import Joined, Segments, cut_at, join, strong_part, unite
from routing.components import component_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Floats, Ints

Integers = npt.NDArray[np.signedinteger]
FAR_M = 1e9


@dataclass(frozen=True)
class Town:
    """Points, and connections in any order: km/h there and back."""

    lat: Floats
    lng: Floats
    tail: Ints
    head: Ints
    ahead: Floats
    back: Floats

    def segments(self) -> Segments:
        return unite(self.lat, self.lng, self.tail, self.head, (self.ahead, self.back))[0]


def town(places: list[tuple[float, float]], streets: Sequence[tuple[int, int, float, float]]) -> Town:
    lat, lng = np.array(places, dtype=np.float64).reshape(-1, 2).T
    columns = np.array(streets, dtype=np.float64).reshape(-1, 4)
    ends = columns[:, :2].astype(np.int64)
    return Town(lat, lng, ends[:, 0], ends[:, 1], columns[:, 2], columns[:, 3])


def joined(place: Town, longest_m: float = FAR_M) -> Joined:
    return join(place.lat, place.lng, strong_part(len(place.lat), place.segments())[0], longest_m)


def edges(result: Joined) -> list[tuple[int, int]]:
    return list(zip(result.graph.tail().tolist(), result.graph.head.tolist(), strict=True))


LINE = [(40.0, -74.0), (40.001, -74.0), (40.001, -73.999), (40.002, -73.999)]


def test_points_without_a_choice_become_part_of_an_edge() -> None:
    result = joined(town(LINE, [(0, 1, 30, 30), (2, 1, 60, 60), (2, 3, 30, 30)]))
    graph = result.graph
    steps_m = geo.distances_m(*np.array(LINE[:-1]).T, *np.array(LINE[1:]).T)

    assert graph.places().tolist() == [list(LINE[0]), list(LINE[-1])]
    assert edges(result) == [(0, 1), (1, 0)]
    assert graph.length_m == pytest.approx(steps_m.sum(), abs=1e-3)
    assert graph.time_s == pytest.approx((steps_m / (np.array([30, 60, 30]) / 3.6)).sum(), abs=1e-3)
    assert graph.course(0) == pytest.approx(np.array(LINE), abs=1e-7)
    assert graph.course(1) == pytest.approx(np.array(LINE[::-1]), abs=1e-7)
    assert (result.points_joined, result.points_added) == (2, 0)


def test_where_a_one_way_begins_is_a_junction() -> None:
    ring = [(0, 1, 30, 30), (1, 2, 30, 0), (2, 3, 30, 0), (3, 0, 30, 0)]

    result = joined(town(LINE, ring))

    assert result.graph.places()[:2].tolist() == [list(LINE[0]), list(LINE[1])]
    assert edges(result) == [(0, 1), (1, 0), (1, 2), (2, 0)]


def test_a_street_back_to_its_own_junction_stays_reachable() -> None:
    lasso = [(0, 1, 30, 30), (1, 2, 30, 30), (2, 3, 30, 30), (3, 1, 30, 30)]

    result = joined(town(LINE, lasso))

    assert result.points_added == 2
    assert result.graph.n_nodes == 4
    assert len(set(edges(result))) == result.graph.n_edges == 8


def test_a_ring_without_any_junction_stays() -> None:
    result = joined(town(LINE, [(0, 1, 30, 0), (1, 2, 30, 0), (2, 3, 30, 0), (3, 0, 30, 0)]))

    assert result.graph.n_nodes == 3
    assert edges(result) == [(0, 1), (1, 2), (2, 0)]


def test_of_two_streets_between_the_same_junctions_both_stay() -> None:
    places = [(40.0, -74.0), (40.001, -74.0), (40.0005, -73.999), (39.999, -74.0), (40.002, -74.0)]
    streets = [(0, 1, 30, 30), (0, 2, 30, 30), (2, 1, 30, 30), (3, 0, 30, 30), (1, 4, 30, 30)]

    result = joined(town(places, streets))

    assert result.graph.n_nodes == 5
    assert result.graph.length_m.sum() == pytest.approx(2 * town(places, streets).segments().length_m.sum(), abs=0.1)
    assert len(set(edges(result))) == result.graph.n_edges


def test_a_carriageway_for_each_direction_needs_no_points_of_its_own() -> None:
    places = [(40.0, -74.0), (40.001, -74.0), (40.0005, -73.9999), (39.999, -74.0), (40.002, -74.0)]
    streets = [(0, 1, 50, 0), (1, 2, 50, 0), (2, 0, 50, 0), (3, 0, 30, 30), (1, 4, 30, 30)]

    result = joined(town(places, streets))

    assert (result.points_joined, result.points_added) == (1, 0)


def test_a_long_street_gets_points_in_equal_parts() -> None:
    result = joined(town([(40.0, 179.99), (40.0, -179.99)], [(0, 1, 36, 72)]), longest_m=500.0)
    graph = result.graph
    whole_m = geo.distance_m(geo.Place(40.0, 179.99), geo.Place(40.0, -179.99))

    assert result.points_added == 3
    assert graph.length_m == pytest.approx(whole_m / 4, abs=2e-3)
    assert sorted(set(np.round(graph.time_s, 2))) == pytest.approx([whole_m / 80, whole_m / 40], abs=0.02)
    assert sorted(np.abs(graph.lng).tolist()) == pytest.approx([179.99, 179.99, 179.995, 179.995, 180.0], abs=1e-6)


def test_a_bollard_ends_the_streets_on_both_its_sides() -> None:
    place = town(LINE, [(0, 1, 30, 30), (1, 2, 30, 30), (2, 3, 30, 30)])

    lat, lng, segments = cut_at(np.array([False, True, False, False]), place.lat, place.lng, place.segments())
    kept, points_dropped, directions_dropped = strong_part(len(lat), segments)

    assert (points_dropped, directions_dropped) == (2, 2)
    assert join(lat, lng, kept, FAR_M).graph.places().tolist() == [list(LINE[3]), list(LINE[1])]


def test_pieces_of_street_that_are_there_twice_count_once_and_as_the_faster() -> None:
    place = town(LINE[:2], [(0, 1, 30, 0), (1, 0, 50, 40), (0, 1, 20, 0), (1, 1, 30, 30)])

    segments, twice = unite(place.lat, place.lng, place.tail, place.head, (place.ahead, place.back))

    assert twice == 2
    assert segments.length_m[0] / segments.forward_s[0] * 3.6 == pytest.approx(40)
    assert segments.length_m[0] / segments.backward_s[0] * 3.6 == pytest.approx(50)


SPEEDS = st.sampled_from([(30.0, 30.0), (50.0, 0.0), (0.0, 20.0), (40.0, 60.0)])
SIDE = 4


@st.composite
def towns(draw: st.DrawFn) -> Town:
    """Points of a small lattice, some at the same place, and connections of any two that are near each other."""
    n = SIDE * SIDE
    shifts = draw(st.lists(st.sampled_from([0.0, 0.0003, 0.001]), min_size=2 * n, max_size=2 * n))
    places = [(40 + (i // SIDE) * 1e-3 + shifts[2 * i], -74 + (i % SIDE) * 1e-3 + shifts[2 * i + 1]) for i in range(n)]
    near = [(i, j) for i in range(n) for j in (i + 1, i + SIDE, i + SIDE + 1) if j < n]
    chosen = draw(st.lists(st.tuples(st.sampled_from(near), SPEEDS), min_size=1, max_size=40))
    return town(places, [(i, j, *speeds) for (i, j), speeds in chosen])


def shortest_s(n: int, tail: Integers, head: Integers, time_s: Floats) -> Floats:
    """Independent of what is tested: every direction for itself, all points, as scipy finds it."""
    return np.asarray(dijkstra(csr_array((time_s, (tail, head)), shape=(n, n))))


@settings(max_examples=60, deadline=None)
@given(towns(), st.sampled_from([60.0, 150.0, FAR_M]), st.integers(0, 2**32 - 1))
def test_joining_changes_no_time_no_length_and_depends_on_no_order(place: Town, longest_m: float, seed: int) -> None:
    segments = strong_part(len(place.lat), place.segments())[0]
    if not len(segments.a):
        return
    result = join(place.lat, place.lng, segments, longest_m)
    graph = result.graph

    assert component_labels(graph)[0] == 1
    assert len(set(edges(result))) == graph.n_edges
    assert graph.length_m.max() <= longest_m + 1e-3

    ahead, back = np.isfinite(segments.forward_s), np.isfinite(segments.backward_s)
    tail, head = np.concatenate((segments.a[ahead], segments.b[back])), np.concatenate((segments.b[ahead], segments.a[back]))
    time_s = np.concatenate((segments.forward_s[ahead], segments.backward_s[back]))
    length_m = np.concatenate((segments.length_m[ahead], segments.length_m[back]))
    assert graph.length_m.sum() == pytest.approx(length_m.sum(), abs=1e-3 * graph.n_edges)

    numbers = {(lat, lng): i for i, (lat, lng) in reversed(list(enumerate(zip(place.lat, place.lng, strict=True))))}
    own = [(node, numbers[at]) for node, at in enumerate(map(tuple, graph.places().tolist())) if at in numbers]
    if len(numbers) == len(place.lat):
        nodes, points = np.array(own).T
        expected = shortest_s(len(place.lat), tail, head, np.maximum(time_s, 1e-9))[np.ix_(points, points)]
        found = shortest_s(graph.n_nodes, graph.tail(), graph.head, graph.time_s)[np.ix_(nodes, nodes)]
        assert found == pytest.approx(expected, abs=2e-3 * graph.n_edges)

    for edge in range(graph.n_edges):
        course = graph.course(edge)
        drawn_m = geo.distances_m(*course[:-1].T, *course[1:].T).sum()
        assert drawn_m == pytest.approx(graph.length_m[edge], abs=0.05 * len(course))

    shuffled = np.random.default_rng(seed).permutation(len(place.tail))
    turned = np.random.default_rng(seed).random(len(shuffled)) < 0.5
    again = Town(
        place.lat,
        place.lng,
        np.where(turned, place.head, place.tail)[shuffled],
        np.where(turned, place.tail, place.head)[shuffled],
        np.where(turned, place.back, place.ahead)[shuffled],
        np.where(turned, place.ahead, place.back)[shuffled],
    )
    assert joined(again, longest_m).graph.digest() == graph.digest()
