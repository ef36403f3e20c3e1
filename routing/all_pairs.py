"""The cheapest ways between all nodes of a network that falls apart at small cuts, as streets do.

A search from each node finds the same crossings anew thousands of times. Here nodes are taken out one by one, those with few
neighbours first, and what led through a node is kept as an edge between its neighbours. Put back in the opposite order, a node's
ways are its edges to those neighbours and their ways, which are known by then: one sum and one minimum of whole rows each.
Source: elimination as for sparse systems of equations (Carré 1971; minimum degree, Tinney and Walker 1967), rebuilt by rows as
in Planken, de Weerdt, van der Krogt, Computing all-pairs shortest paths by leveraging low treewidth, 2012.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from hexhail.kernel.units import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class AllPairs:
    """What the cheapest ways cost. `place` says which row and which column of `into` are a node's.

    into : float64[n_nodes, n_nodes], from the node of the column to the node of the row; inf where no way leads
    place : int64[n_nodes]
    """

    into: Floats
    place: Ints

    def towards(self, nodes: Ints) -> Floats:
        """What does the way to each of some nodes cost, from every node? float64[n, n_nodes]."""
        return self.into[self.place[nodes]].take(self.place, axis=1)


def all_pairs(n_nodes: int, tail: npt.NDArray[np.integer], head: npt.NDArray[np.integer], cost: Floats) -> AllPairs:
    """What does the cheapest way cost, from every node to every other?

    tail, head : int[n_edges], the nodes that each edge leaves and leads to; there may be several alike, or to their own tail
    cost : float64[n_edges], finite, >= 0

    Costs are only added and compared: of whole numbers, all sums below 2**53 are exact. Takes two squares of n_nodes float64, and
    time in proportion to n_nodes times the edges there are with those that were put in (nine for each of Manhattan's nodes). A
    network without small cuts, such as one where each node leads to all others, takes n_nodes times longer than that.
    """
    order, neighbours = _taken_out(n_nodes, tail.tolist(), head.tolist())
    place = np.empty(n_nodes, dtype=np.int64)
    place[order] = np.arange(n_nodes - 1, -1, -1)
    above = [np.sort(place[neighbours[node]]) for node in reversed(order)]
    out = np.full((n_nodes, n_nodes), np.inf)
    for start, end, edge_cost in zip(place[tail].tolist(), place[head].tolist(), cost.tolist(), strict=True):
        out[start, end] = min(out[start, end], edge_cost)
    np.fill_diagonal(out, 0.0)
    _contract(out, above)
    return AllPairs(_put_back(out, above), place)


def _taken_out(n_nodes: int, tail: list[int], head: list[int]) -> tuple[list[int], list[list[int]]]:
    """In which order are nodes taken out, and whom does each then leave behind as neighbours of each other?"""
    beside: list[set[int]] = [set() for _ in range(n_nodes)]
    for start, end in zip(tail, head, strict=True):
        if start != end:
            beside[start].add(end)
            beside[end].add(start)
    waiting = [(len(others), node) for node, others in enumerate(beside)]
    heapq.heapify(waiting)
    order: list[int] = []
    out = [False] * n_nodes
    while waiting:
        degree, node = heapq.heappop(waiting)
        others = beside[node]
        if out[node] or degree != len(others):
            continue
        out[node] = True
        order.append(node)
        for other in others:
            left = beside[other]
            left |= others
            left -= {other, node}
            heapq.heappush(waiting, (len(left), other))
    return order, [list(others) for others in beside]


def _contract(out: Floats, above: list[Ints]) -> None:
    """Whatever leads through a node becomes an edge between those above it, from the lowest node up."""
    for node in range(len(above) - 1, -1, -1):
        others = above[node]
        if len(others) > 1:
            among = np.ix_(others, others)
            out[among] = np.minimum(out[among], out[others, node][:, None] + out[node, others])


def _put_back(out: Floats, above: list[Ints]) -> Floats:
    """The costs of all ways by destination, from those of the edges. `out` becomes the same by origin."""
    into = np.empty_like(out)
    into[0, 0] = 0.0
    for node in range(1, len(above)):
        others = above[node]
        if len(others):
            away, back = out[others, :node], into[others, :node]
            away += out[node, others][:, None]
            back += out[others, node][:, None]
            away.min(axis=0, out=out[node, :node])
            back.min(axis=0, out=into[node, :node])
        else:
            into[node, :node] = np.inf
        into[:node, node] = out[node, :node]
        out[:node, node] = into[node, :node]
        into[node, node] = 0.0
    return into
