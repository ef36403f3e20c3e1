"""Which parts of a road network can be driven to and fro?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from routing.graph import RoadGraph, graph_of_edges

if TYPE_CHECKING:
    import numpy.typing as npt

    from routing.graph import Ints32


def component_labels(graph: RoadGraph) -> tuple[int, Ints32]:
    """How many strongly connected components, and which one is each node in? int32[n_nodes]."""
    return strong_labels(graph.n_nodes, graph.tail(), graph.head)


def strong_labels(n_nodes: int, tail: npt.NDArray[np.integer], head: npt.NDArray[np.integer]) -> tuple[int, Ints32]:
    """The same of a list of edges in any order: int[n_edges] twice."""
    matrix = csr_array((np.ones(len(tail), dtype=np.int8), (tail, head)), shape=(n_nodes, n_nodes))
    count, labels = connected_components(matrix, directed=True, connection="strong")
    return int(count), np.asarray(labels, dtype=np.int32)


def largest_component(graph: RoadGraph) -> RoadGraph:
    """The part in which every node reaches every other: the largest (the first one, where two are as large)."""
    count, labels = component_labels(graph)
    if count == 1:
        return graph
    kept = labels == labels[np.argmax(np.bincount(labels)[labels])]
    number = np.cumsum(kept, dtype=np.int32) - 1
    tail = graph.tail()
    inside = kept[tail] & kept[graph.head]
    return graph_of_edges(
        graph.lat[kept],
        graph.lng[kept],
        tail=number[tail[inside]],
        head=number[graph.head[inside]],
        length_m=graph.length_m[inside],
        time_s=graph.time_s[inside],
        bends=None if graph.bends is None else graph.bends.taken(np.flatnonzero(inside)),
    )
