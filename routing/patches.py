"""Which streets share their traffic? Those of one cell that lead the same way. Pure.

A street at a time tells too little: a night of rides passes most streets never. The streets of a cell (H3, some hundred metres
across) that lead into the same quarter of the compass rise and fall together, rush hours into town and out of it apart. The
quarters are turned to the city's own grid, so that in Manhattan the avenues are apart from the streets that cross them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_array, diags_array

from hexhail.kernel import geo

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from hexhail.kernel.units import Cells, Floats, Ints
    from routing.graph import RoadGraph

    Sparse: TypeAlias = csr_array[Any, tuple[int, int]]

RESOLUTION: Final = 8
"""H3 cells of about 0.7 km2. Finer ones say no more of Manhattan's rides (docs/decisions/0018)."""

QUARTERS: Final = 4
ACROSS: Final = 0.3
"""How much the quarters of a cell have in common, where the same quarter of the next cell counts 1. Source: our choice."""


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """The patches of a road graph.

    of_edge : int64[n_edges], which patch each edge is in
    cells, quarters : uint64[n], int64[n], what each patch is
    driving : float64 csr[n_edges, n], seconds of free flow of each edge, in its patch
    coupling : float64 csr[n, n], the weighted Laplacian of who is next to whom: rows add up to 0
    """

    of_edge: Ints
    cells: Cells
    quarters: Ints
    driving: Sparse
    coupling: Sparse

    def __len__(self) -> int:
        """How many?"""
        return len(self.cells)

    def of_ways(self, first: Ints, edges: Ints) -> Sparse:
        """How many seconds of free flow does each way spend in each patch? float64 csr[n_ways, n].

        Way i has the edges from `first[i]` to `first[i + 1]` of `edges`.
        """
        ways = csr_array((np.ones(len(edges)), edges, first), shape=(len(first) - 1, self.driving.shape[0]))
        spent: Sparse = ways @ self.driving
        return spent


def patches_of(graph: RoadGraph, resolution: int = RESOLUTION) -> Patches:
    """The patches of a graph."""
    tail, head = graph.tail(), graph.head
    cells = geo.cells_of((graph.lat[tail] + graph.lat[head]) / 2, (graph.lng[tail] + graph.lng[head]) / 2, resolution)
    bearing_deg = geo.bearings_deg(graph.lat[tail], graph.lng[tail], graph.lat[head], graph.lng[head])
    turned_deg = (bearing_deg - grid_angle_deg(bearing_deg, graph.length_m) + 45.0) % 360.0
    quarters = np.minimum((turned_deg // 90.0).astype(np.int64), QUARTERS - 1)
    distinct, of_edge = np.unique(np.column_stack((cells, quarters.astype(np.uint64))), axis=0, return_inverse=True)
    of_edge = of_edge.ravel()
    driving = csr_array((graph.time_s, of_edge, np.arange(graph.n_edges + 1)), shape=(graph.n_edges, len(distinct)))
    of_patch = distinct[:, 1].astype(np.int64)
    return Patches(of_edge, distinct[:, 0], of_patch, driving, _coupling(distinct[:, 0], of_patch))


def grid_angle_deg(bearing_deg: Floats, length_m: Floats) -> float:
    """By how much are most streets turned from north, 0 to 90? The mean of all bearings, right angles counted as one."""
    fourfold = np.exp(4j * np.radians(bearing_deg)) @ length_m
    return float(np.degrees(np.angle(fourfold)) / 4 % 90.0)


def _coupling(cells: Cells, quarters: Ints) -> Sparse:
    row_of = {key: row for row, key in enumerate(zip(cells.tolist(), quarters.tolist(), strict=True))}
    ones: list[int] = []
    others: list[int] = []
    weights: list[float] = []
    for (cell, quarter), row in row_of.items():
        pairs = [((near, quarter), 1.0) for near in geo.ring(cell, 1)] + [((cell, each), ACROSS) for each in range(QUARTERS)]
        for key, weight in pairs:
            other = row_of.get(key, row)
            if other != row:
                ones.append(row)
                others.append(other)
                weights.append(weight)
    n = len(row_of)
    rows, columns = np.array(ones, dtype=np.int64), np.array(others, dtype=np.int64)
    joined = csr_array((np.array(weights), (rows, columns)), shape=(n, n))
    laplacian: Sparse = (diags_array(np.asarray(joined.sum(axis=1))) - joined).tocsr()
    return laplacian
