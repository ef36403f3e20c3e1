"""By which streets does one travel? The fastest ways of many pairs at once, read off the all-pairs tables. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.graph import MM_PER_M

if TYPE_CHECKING:
    from hexhail.kernel.units import Ints
    from routing.graph import RoadGraph
    from routing.tables import Tables

_MM_BITS: Final = 30
_NOWHERE: Final = np.iinfo(np.int64).max


def fastest_ways(graph: RoadGraph, tables: Tables, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """The edges of the fastest way of each pair: (first int64[n + 1], edges int64[m]), way i from `first[i]` to `first[i + 1]`.

    starts, ends : int64[n], nodes. A way from a node to itself, or where none leads, has no edges.
    All pairs take one step at a time: at each node, the edge with the least time left behind it (of several the shortest, then
    the one to the lowest node), in whole milliseconds, so the time left falls with every step.
    """
    out = _out_edges(graph)
    n = len(starts)
    under_way = np.flatnonzero((starts != ends) & np.isfinite(tables.times_s[ends, starts]))
    at = starts.copy()
    rows: list[Ints] = [np.empty(0, dtype=np.int64)]
    steps: list[Ints] = [np.empty(0, dtype=np.int64)]
    while len(under_way):
        choices = out[at[under_way]]
        heads, goals = graph.head[choices], ends[under_way, None]
        left_s = graph.time_s[choices] + tables.times_s[goals, heads]
        left_m = graph.length_m[choices] + tables.distances_m[goals, heads]
        possible = (choices >= 0) & np.isfinite(left_s)
        cost = np.where(possible, left_s * MS_PER_S, 0.0).round().astype(np.int64) << _MM_BITS
        cost += np.where(possible, left_m * MM_PER_M, 0.0).round().astype(np.int64)
        best = np.where(possible, cost, _NOWHERE).argmin(axis=1)
        taken = choices[np.arange(len(choices)), best]
        rows.append(under_way)
        steps.append(taken)
        at[under_way] = graph.head[taken]
        under_way = under_way[at[under_way] != ends[under_way]]
    row, edges = np.concatenate(rows), np.concatenate(steps)
    first = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=n))))
    return first, edges[np.argsort(row, kind="stable")]


def _out_edges(graph: RoadGraph) -> Ints:
    """The edges that leave each node, in the order of their heads: int64[n_nodes, most], -1 behind the last."""
    degrees = np.diff(graph.first_edge)
    out = np.full((graph.n_nodes, int(degrees.max(initial=1))), -1, dtype=np.int64)
    tail = graph.tail()
    out[tail, np.arange(graph.n_edges) - graph.first_edge[tail]] = np.arange(graph.n_edges)
    return out
