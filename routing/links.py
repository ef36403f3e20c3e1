"""From a list of connections, as files have them, to the graph of all that hangs together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from routing.car_tags import MAX_SPEED_KMH
from routing.components import largest_component
from routing.graph import graph_of_edges
from routing.road_files import GraphReport, RoutingFileError

if TYPE_CHECKING:
    from pathlib import Path

    from hexhail.kernel.units import Floats, Ints
    from routing.bends import Bends
    from routing.graph import RoadGraph


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Directed connections of junctions, in any order, as a file has them.

    lat, lng : float64[n_nodes], degrees
    tail, head : int64[n], which node each leads from and to
    length_m, time_s : float64[n], metres, seconds of free flow
    bends : where they run, if the file says so
    """

    lat: Floats
    lng: Floats
    tail: Ints
    head: Ints
    length_m: Floats
    time_s: Floats
    bends: Bends | None = None


def graph_of_links(path: Path, links: Links) -> tuple[RoadGraph, GraphReport]:
    """The graph of a file's connections, and what was left out of it.

    No edge is driven faster than MAX_SPEED_KMH, loops go, of parallel edges the fastest is kept (the shortest, where two are
    as fast), and the largest strongly connected component remains.

    Raises RoutingFileError where nothing remains.
    """
    least_s = links.length_m / (MAX_SPEED_KMH / 3.6)
    time_s = np.maximum(links.time_s, least_s)
    order = np.lexsort((links.length_m, time_s, links.head, links.tail))
    order = order[links.tail[order] != links.head[order]]
    tail, head = links.tail[order].astype(np.int32), links.head[order].astype(np.int32)
    if not len(order):
        raise RoutingFileError(path, "has no edge between two nodes")
    best = np.concatenate(([True], (np.diff(tail) != 0) | (np.diff(head) != 0)))
    chosen = order[best]
    whole = graph_of_edges(
        links.lat,
        links.lng,
        tail=tail[best],
        head=head[best],
        length_m=links.length_m[chosen],
        time_s=time_s[chosen],
        bends=None if links.bends is None else links.bends.taken(chosen),
    )
    graph = largest_component(whole)
    if not graph.n_edges:
        raise RoutingFileError(path, "has no two nodes that reach each other")
    length_m = float(graph.length_m.sum())
    report = GraphReport(
        nodes=graph.n_nodes,
        edges=graph.n_edges,
        length_m=length_m,
        nodes_dropped=whole.n_nodes - graph.n_nodes,
        edges_dropped=whole.n_edges - graph.n_edges,
        dropped_m=max(float(whole.length_m.sum()) - length_m, 0.0),
        parallel_dropped=len(order) - len(chosen),
        loops_dropped=len(links.tail) - len(order),
        slowed=int((links.time_s < least_s).sum()),
    )
    return graph, report
