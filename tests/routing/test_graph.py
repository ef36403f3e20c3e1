"""Road graphs: what they refuse, the synthetic grid, the part that hangs together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.components import component_labels, largest_component
from routing.graph import RoadGraph, graph_of_edges
from routing.grid import GridParams, grid_graph

GRID = GridParams(40.5, -74.0, rows=6, columns=7)


def test_edges_in_any_order_make_the_same_graph() -> None:
    graph = grid_graph(GRID)
    shuffled = np.random.default_rng(1).permutation(graph.n_edges)

    again = graph_of_edges(
        graph.lat,
        graph.lng,
        tail=graph.tail()[shuffled],
        head=graph.head[shuffled],
        length_m=graph.length_m[shuffled],
        time_s=graph.time_s[shuffled],
    )

    assert again.digest() == graph.digest()


def test_another_graph_has_another_digest() -> None:
    graph = grid_graph(GRID)

    assert replace(graph, time_s=graph.time_s * 1.1).digest() != graph.digest()


def test_lengths_and_times_are_whole_millimetres_and_milliseconds() -> None:
    graph = RoadGraph(
        np.zeros(2), np.array([0.0, 0.1]), np.array([0, 1, 1], "i4"), np.array([1], "i4"), np.array([1.00049]), np.zeros(1)
    )

    assert graph.length_m[0] == 1.0
    assert graph.time_s[0] == 0.001


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lat", [0.0, np.nan, 0.0]),
        ("lng", [0.0, 181.0, 0.0]),
        ("lng", [0.0]),
        ("first_edge", [0, 1, 1, 1]),
        ("first_edge", [0, 1, 2]),
        ("head", [1, 3]),
        ("head", [0, 2]),
        ("length_m", [1.0, -1.0]),
        ("length_m", [1.0]),
        ("time_s", [1.0, np.inf]),
    ],
)
def test_unfit_columns_are_refused_by_name(field: str, value: list[float]) -> None:
    columns = {
        "lat": [0.0, 0.0, 0.0],
        "lng": [0.0, 0.1, 0.2],
        "first_edge": [0, 1, 2, 2],
        "head": [1, 2],
        "length_m": [1.0, 1.0],
        "time_s": [1.0, 1.0],
    }
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    RoadGraph(**arrays)

    with pytest.raises(ValueError, match=field):
        RoadGraph(**arrays | {field: np.array(value)})


def test_the_largest_part_that_hangs_together_is_kept() -> None:
    places = np.arange(6) / 100
    tail, head = np.array([0, 1, 1, 2, 3, 4, 5, 2], "i4"), np.array([1, 0, 2, 1, 4, 3, 0, 4], "i4")
    graph = graph_of_edges(places, places, tail=tail, head=head, length_m=np.arange(8.0), time_s=np.arange(1.0, 9.0))

    kept = largest_component(graph)

    assert kept.lat.tolist() == [0.0, 0.01, 0.02]
    assert sorted(zip(kept.tail().tolist(), kept.head.tolist(), kept.length_m.tolist(), strict=True)) == [
        (0, 1, 0.0),
        (1, 0, 1.0),
        (1, 2, 2.0),
        (2, 1, 3.0),
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        GridParams,
        st.floats(-60, 60),
        st.floats(-170, 170),
        rows=st.integers(2, 9),
        columns=st.integers(2, 9),
        avenue_every=st.integers(1, 6),
        one_way_share=st.floats(0, 1),
        jitter=st.floats(0, 0.3),
        seed=st.integers(0, 10**6),
    )
)
def test_every_corner_of_a_grid_reaches_every_other(params: GridParams) -> None:
    graph = grid_graph(params)

    assert graph.n_nodes == params.rows * params.columns
    assert component_labels(graph)[0] == 1
    assert grid_graph(params).digest() == graph.digest()


def test_a_grid_has_one_way_streets_and_faster_avenues() -> None:
    graph = grid_graph(replace(GRID, rows=16, columns=16, one_way_share=0.5))
    speeds_kmh = graph.length_m / graph.time_s * 3.6

    assert graph.n_edges < 2 * 2 * 16 * 15
    assert {round(speed / 5) * 5 for speed in speeds_kmh} == {30, 50}


@pytest.mark.parametrize(
    "field", ["south_west_lat", "south_west_lng", "rows", "block_m", "speed_kmh", "one_way_share", "jitter", "seed"]
)
def test_unfit_grid_parameters_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(GRID, **{field: -999})
