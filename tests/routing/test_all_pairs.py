"""All ways by taking nodes out and putting them back, against an independent method, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.all_pairs import all_pairs


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and edges of any kind: parallel, to their own tail, of no cost, none at all."""
    n_nodes = draw(st.integers(1, 12))
    node = st.integers(0, n_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node, st.integers(0, 50)), max_size=60))
    tail, head, cost = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    return n_nodes, tail, head, cost.astype(np.float64)


def by_floyd_warshall(n_nodes: int, tail: np.ndarray, head: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The same by Floyd and Warshall's three loops."""
    ways = np.full((n_nodes, n_nodes), np.inf)
    np.minimum.at(ways, (tail, head), cost)
    np.fill_diagonal(ways, 0.0)
    for middle in range(n_nodes):
        ways = np.minimum(ways, ways[:, middle, None] + ways[middle])
    return ways


@settings(deadline=None, max_examples=300)
@given(networks())
def test_all_ways_cost_what_an_independent_method_finds(network: tuple[int, np.ndarray, np.ndarray, np.ndarray]) -> None:
    n_nodes = network[0]

    ways = all_pairs(*network)

    np.testing.assert_array_equal(ways.towards(np.arange(n_nodes)), by_floyd_warshall(*network).T)


@settings(deadline=None)
@given(networks(), st.integers(0, 1000))
def test_any_nodes_may_be_asked_for_in_any_order(network: tuple[int, np.ndarray, np.ndarray, np.ndarray], seed: int) -> None:
    n_nodes = network[0]
    asked = np.random.default_rng(seed).integers(0, n_nodes, 5)
    ways = all_pairs(*network)

    np.testing.assert_array_equal(ways.towards(asked), ways.towards(np.arange(n_nodes))[asked])


def test_sums_of_whole_numbers_are_exact_up_to_two_to_the_53rd() -> None:
    cost = np.array([2.0**52, 2.0**51, 2.0**51 - 1, 1.0])
    tail, head = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4])

    assert all_pairs(5, tail, head, cost).towards(np.array([3, 4]))[:, 0].tolist() == [2.0**53 - 1, 2.0**53]


@pytest.mark.parametrize("side", [1, 2, 7])
def test_a_square_of_streets_takes_its_manhattan_distance(side: int) -> None:
    node = np.arange(side * side).reshape(side, side)
    along = np.stack((node[:, :-1].ravel(), node[:, 1:].ravel()))
    across = np.stack((node[:-1].ravel(), node[1:].ravel()))
    beside = np.concatenate((along, across), axis=1)
    tail, head = np.concatenate((beside, beside[::-1]), axis=1)
    row, column = np.divmod(np.arange(side * side), side)

    ways = all_pairs(side * side, tail, head, np.ones(len(tail))).towards(np.arange(side * side))

    np.testing.assert_array_equal(ways, np.abs(row[:, None] - row) + np.abs(column[:, None] - column))
