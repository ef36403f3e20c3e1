"""Streets that share their traffic: every street in one patch, and patches beside each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.graph import graph_of_edges
from routing.grid import GridParams, grid_graph
from routing.patches import grid_angle_deg, patches_of

EVEN = GridParams(40.5, -74.0, rows=12, columns=14, jitter=0.0, one_way_share=0.0)


def test_every_street_is_in_one_patch_with_all_of_its_free_flow() -> None:
    graph = grid_graph(replace(EVEN, jitter=0.2))
    patches = patches_of(graph, 9)

    assert patches.of_edge.shape == (graph.n_edges,)
    assert set(patches.of_edge.tolist()) == set(range(len(patches)))
    np.testing.assert_allclose(np.asarray(patches.driving.sum(axis=1)), graph.time_s)


def test_streets_that_lead_into_different_quarters_are_apart() -> None:
    graph = grid_graph(EVEN)
    patches = patches_of(graph)
    tail = graph.tail()
    north, east = graph.lat[graph.head] - graph.lat[tail], graph.lng[graph.head] - graph.lng[tail]
    leading = np.where(np.abs(north) > np.abs(east), np.where(north > 0, 0, 2), np.where(east > 0, 1, 3))

    for patch in range(len(patches)):
        assert len(set(leading[patches.of_edge == patch].tolist())) == 1
    assert len(set(patches.quarters.tolist())) == 4


@settings(deadline=None)
@given(st.floats(0.0, 89.0), st.integers(0, 100))
def test_the_angle_of_a_grid_is_found_whatever_it_is(angle_deg: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bearing_deg = (angle_deg + 90.0 * rng.integers(0, 4, 200) + rng.normal(0.0, 3.0, 200)) % 360.0

    found = grid_angle_deg(bearing_deg, rng.uniform(50.0, 150.0, 200))

    assert min(abs(found - angle_deg), 90.0 - abs(found - angle_deg)) < 2.0


def test_what_is_coupled_pulls_both_ways_and_adds_up_to_nothing() -> None:
    coupling = patches_of(grid_graph(EVEN), 9).coupling.toarray()

    np.testing.assert_allclose(coupling, coupling.T)
    np.testing.assert_allclose(coupling.sum(axis=1), 0.0, atol=1e-12)
    assert np.linalg.eigvalsh(coupling).min() > -1e-9
    assert (coupling.diagonal() > 0).all()


def test_a_way_spends_its_free_flow_in_the_patches_that_it_crosses() -> None:
    graph = grid_graph(EVEN)
    patches = patches_of(graph, 9)
    edges = np.array([0, 5, 9, 40])

    spent = patches.of_ways(np.array([0, 3, 3, 4]), edges).toarray()

    assert spent[0].sum() == pytest.approx(graph.time_s[edges[:3]].sum())
    assert spent[1].sum() == 0
    assert spent[2, patches.of_edge[40]] == pytest.approx(graph.time_s[40])


def test_one_street_alone_is_a_patch_of_its_own() -> None:
    one = graph_of_edges(
        np.array([40.5, 40.501]),
        np.array([-74.0, -74.0]),
        tail=np.array([0], dtype=np.int32),
        head=np.array([1], dtype=np.int32),
        length_m=np.array([111.0]),
        time_s=np.array([10.0]),
    )
    patches = patches_of(one)
    assert len(patches) == 1
    assert patches.coupling.toarray().tolist() == [[0.0]]
