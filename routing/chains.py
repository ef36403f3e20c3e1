"""From the points of a map to streets between junctions: what lies between two junctions becomes one edge. Pure.

Shapes: a chain is the way from one junction to the next, over points at which there is no choice. Chains lie one after another
in flat columns: `points[first[i]:first[i + 1]]` are those of chain i, both ends included.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from routing.bends import Bends, places_e7, ragged
from routing.components import strong_labels
from routing.graph import graph_of_edges

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.graph import RoadGraph

_E7_DIGITS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Straight pieces of street between two points, each once, driven in one direction or both.

    a, b : int64[n], points, a < b except where `cut_at` has put a point of its own
    length_m : float64[n], metres
    forward_s, backward_s : float64[n], seconds from a to b and from b to a; inf where that is not allowed
    """

    a: Ints
    b: Ints
    length_m: Floats
    forward_s: Floats
    backward_s: Floats

    def taken(self, rows: Ints | Bools) -> Segments:
        """These rows only, in this order."""
        return Segments(self.a[rows], self.b[rows], self.length_m[rows], self.forward_s[rows], self.backward_s[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The streets between junctions, and how many points went into edges or had to be added."""

    graph: RoadGraph
    points_joined: int
    points_added: int


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """first : int64[n + 1]; points : int64[first[n]]; step_m, step_s, back_s : float64, from each point to the next of its
    chain, 0 at its last; open, back : bool[n], whether it is driven from its first point to its last, and back
    """

    first: Ints
    points: Ints
    step_m: Floats
    step_s: Floats
    back_s: Floats
    open: Bools
    back: Bools


def unite(lat: Floats, lng: Floats, tail: Ints, head: Ints, speeds_kmh: tuple[Floats, Floats]) -> tuple[Segments, int]:
    """The pieces of street between points, and how many were there twice. Of several between the same points, the fastest.

    tail, head : int64[n], points, in any order
    speeds_kmh : float64[n] twice, from tail to head and back; 0 where that is not allowed
    """
    apart = tail != head
    tail, head = tail[apart], head[apart]
    ahead, back = (speed[apart] for speed in speeds_kmh)
    turned = tail > head
    a, b = np.where(turned, head, tail), np.where(turned, tail, head)
    forward, backward = np.where(turned, back, ahead), np.where(turned, ahead, back)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    another = (np.diff(a) != 0) | (np.diff(b) != 0)
    starts = np.flatnonzero(np.concatenate((np.ones(min(len(a), 1), dtype=np.bool_), another)))
    if not len(starts):
        return Segments(a, b, ahead, ahead, back), 0
    forward, backward = np.maximum.reduceat(forward[order], starts), np.maximum.reduceat(backward[order], starts)
    a, b = a[starts], b[starts]
    length_m = geo.distances_m(lat[a], lng[a], lat[b], lng[b])
    return Segments(a, b, length_m, _time_s(length_m, forward), _time_s(length_m, backward)), len(order) - len(starts)


def _time_s(length_m: Floats, speed_kmh: Floats) -> Floats:
    closed = np.full(len(length_m), np.inf)
    return np.asarray(np.divide(length_m, speed_kmh / 3.6, out=closed, where=speed_kmh > 0), dtype=np.float64)


def cut_at(blocked: Bools, lat: Floats, lng: Floats, segments: Segments) -> tuple[Floats, Floats, Segments]:
    """The same streets, ending at these points instead of passing them: bool[n_points] -> lat, lng, segments.

    Every street that comes there gets an end of its own, a new point at the same place.
    """
    ends = np.concatenate((segments.a, segments.b))
    there = np.flatnonzero(blocked[ends])
    places = ends[there]
    ends[there] = len(lat) + np.arange(len(there))
    a, b = np.split(ends, 2)
    whole = Segments(a, b, segments.length_m, segments.forward_s, segments.backward_s)
    return np.concatenate((lat, lat[places])), np.concatenate((lng, lng[places])), whole


def strong_part(n_points: int, segments: Segments) -> tuple[Segments, int, int]:
    """The part in which every point reaches every other, and how many points and directions are outside it: the largest (the
    one of the lowest point, where two are as large).
    """
    ahead, back = np.isfinite(segments.forward_s), np.isfinite(segments.backward_s)
    tail = np.concatenate((segments.a[ahead], segments.b[back]))
    head = np.concatenate((segments.b[ahead], segments.a[back]))
    used = np.zeros(n_points, dtype=np.bool_)
    used[segments.a] = used[segments.b] = True
    _, labels = strong_labels(n_points, tail, head)
    sizes = np.bincount(labels[used]) if used.any() else np.zeros(1, dtype=np.int64)
    largest = labels[used][np.argmax(sizes[labels[used]])] if used.any() else -1
    inside = (labels[segments.a] == largest) & (labels[segments.b] == largest)
    directions = np.isfinite(segments.forward_s).astype(np.int64) + np.isfinite(segments.backward_s)
    kept = segments.taken(inside)
    return kept, int(used.sum() - sizes.max()), int(directions[~inside].sum())


def join(lat: Floats, lng: Floats, segments: Segments, longest_m: float) -> Joined:
    """The graph of the junctions of these streets, every edge with the length and the bends of what it passes.

    A junction is where one can choose, or must turn back, or a one-way begins. A street from a junction back to itself, or
    beside a shorter one between the same two, gets points of its own, so that both stay; so does one longer than `longest_m`,
    in equal parts, so that every place on it has a point near by.

    segments : in one strongly connected part (`strong_part`), at least one
    """
    chains = _walk(_junctions(len(lat), segments), segments)
    parts = _parts(chains, longest_m)
    added_lat, added_lng, cut = _cut(chains, parts, lat, lng)
    lat, lng = np.concatenate((lat, added_lat)), np.concatenate((lng, added_lng))
    graph = _graph(lat, lng, cut)
    n_points = len(np.union1d(segments.a, segments.b))
    return Joined(graph, n_points + len(added_lat) - graph.n_nodes, len(added_lat))


def _junctions(n_points: int, segments: Segments) -> Bools:
    """Which points must stay? bool[n_points]. Not those between two others, driven through alike in either direction."""
    ends = np.concatenate((segments.a, segments.b))
    degree = np.bincount(ends, minlength=n_points)
    between = np.flatnonzero(degree == 2)
    order = np.argsort(ends, kind="stable")
    at = (np.cumsum(degree) - degree)[between]
    leaves = np.concatenate((np.isfinite(segments.forward_s), np.isfinite(segments.backward_s)))
    comes = np.concatenate((np.isfinite(segments.backward_s), np.isfinite(segments.forward_s)))
    one, other = order[at], order[at + 1]
    alike = (comes[one] == leaves[other]) & (comes[other] == leaves[one])
    junctions = np.ones(n_points, dtype=np.bool_)
    junctions[between[alike]] = False
    return junctions


def _walk(junctions: Bools, segments: Segments) -> _Chains:
    n = len(segments.a)
    ends = np.concatenate((segments.a, segments.b))
    order = np.argsort(ends, kind="stable")
    begin = _packed(np.concatenate(([0], np.cumsum(np.bincount(ends, minlength=len(junctions))))))
    around, both = _packed(order % n), _packed(segments.a + segments.b)
    stays = bytearray(junctions.astype(np.uint8).tobytes())
    seen = bytearray(n)
    points, steps, first = array("q"), array("q"), array("q", [0])

    def walk(start: int, segment: int) -> None:
        point = start
        points.append(point)
        while True:
            seen[segment] = 1
            steps.append(segment)
            point = both[segment] - point
            points.append(point)
            if stays[point]:
                break
            one, other = around[begin[point]], around[begin[point] + 1]
            segment = other if one == segment else one
        steps.append(-1)
        first.append(len(points))

    for start in np.flatnonzero(junctions).tolist():
        for segment in around[begin[start] : begin[start + 1]]:
            if not seen[segment]:
                walk(start, segment)
    for segment, start in enumerate(segments.a.tolist()):
        if not seen[segment]:  # a ring without a junction: its lowest point becomes one
            stays[start] = 1
            walk(start, segment)
    return _chains(_unpacked(first), _unpacked(points), _unpacked(steps), segments)


def _packed(column: Ints) -> array[int]:
    """For loops that read one value at a time: faster than numpy there, smaller than a list."""
    return array("q", np.ascontiguousarray(column, dtype=np.int64).tobytes())


def _unpacked(column: array[int]) -> Ints:
    return np.frombuffer(column, dtype=np.int64)


def _chains(first: Ints, points: Ints, steps: Ints, segments: Segments) -> _Chains:
    last = steps < 0
    along = segments.a[steps] == points
    step_s = np.where(along, segments.forward_s[steps], segments.backward_s[steps])
    back_s = np.where(along, segments.backward_s[steps], segments.forward_s[steps])
    is_open, is_back = np.isfinite(step_s)[first[:-1]], np.isfinite(back_s)[first[:-1]]
    return _Chains(
        first,
        points,
        np.where(last, 0.0, segments.length_m[steps]),
        np.where(last | ~np.isfinite(step_s), 0.0, step_s),
        np.where(last | ~np.isfinite(back_s), 0.0, back_s),
        is_open,
        is_back,
    )


def _parts(chains: _Chains, longest_m: float) -> Ints:
    """Into how many parts is each chain to be cut? int64[n]."""
    length_m = np.add.reduceat(chains.step_m, chains.first[:-1])
    begin, end = chains.points[chains.first[:-1]], chains.points[chains.first[1:] - 1]
    parts = np.maximum(np.ceil(length_m / longest_m).astype(np.int64), 1)
    parts[begin == end] = np.maximum(parts[begin == end], 3)  # two would lead both ways between the same two points
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    order = np.lexsort((length_m, high, low))
    order = order[parts[order] == 1]
    as_before = np.flatnonzero((np.diff(low[order]) == 0) & (np.diff(high[order]) == 0))
    taken: set[tuple[int, int]] = set()
    for chain in order[np.union1d(as_before, as_before + 1)].tolist():
        u, v = int(begin[chain]), int(end[chain])
        directed = {(u, v)} if chains.open[chain] else set()
        directed |= {(v, u)} if chains.back[chain] else set()
        if directed & taken:
            parts[chain] = 2
        taken |= directed if parts[chain] == 1 else set()
    return parts


def _cut(chains: _Chains, parts: Ints, lat: Floats, lng: Floats) -> tuple[Floats, Floats, _Chains]:
    """New points, and the chains in their parts."""
    whole = np.flatnonzero(parts == 1)
    first, rows = ragged(chains.first[:-1][whole], chains.first[1:][whole])
    points, step_m, step_s, back_s = [chains.points[rows]], [chains.step_m[rows]], [chains.step_s[rows]], [chains.back_s[rows]]
    sizes, origins = [np.diff(first)], [whole]
    added_lat, added_lng = [np.empty(0)], [np.empty(0)]
    number = len(lat)
    for chain in np.flatnonzero(parts > 1).tolist():
        inside = slice(chains.first[chain], chains.first[chain + 1])
        passed = chains.points[inside]
        totals = [_running(column[inside]) for column in (chains.step_m, chains.step_s, chains.back_s)]
        along = totals[0] if totals[0][-1] > 0 else np.arange(len(passed), dtype=np.float64)
        count = int(parts[chain])
        at = along[-1] * np.arange(1, count) / count
        new = number + np.arange(count - 1)
        number += count - 1
        added_lat.append(np.round(np.interp(at, along, lat[passed]), _E7_DIGITS))
        turned = np.interp(at, along, np.unwrap(lng[passed], period=360.0))
        added_lng.append(np.round((turned + 180.0) % 360.0 - 180.0, _E7_DIGITS))
        order = np.argsort(np.concatenate((along, at)), kind="stable")
        order = np.concatenate(([0], order[(order != 0) & (order != len(along) - 1)], [len(along) - 1]))
        is_new = order >= len(along)
        copies = np.where(is_new, 2, 1)  # a new point ends one part and begins the next
        points.append(np.repeat(np.concatenate((passed, new))[order], copies))
        marks = np.flatnonzero(np.repeat(is_new, copies))[::2]
        length = len(points[-1])
        for column, total in zip((step_m, step_s, back_s), totals, strict=True):
            reached = np.maximum.accumulate(np.concatenate((total, np.interp(at, along, total)))[order])
            column.append(np.diff(np.repeat(reached, copies), append=reached[-1]))
        sizes.append(np.diff(np.concatenate(([0], marks + 1, [length]))))
        origins.append(np.full(count, chain))
    origin = np.concatenate(origins)
    cut = _Chains(
        np.concatenate(([0], np.cumsum(np.concatenate(sizes)))),
        np.concatenate(points),
        np.concatenate(step_m),
        np.concatenate(step_s),
        np.concatenate(back_s),
        chains.open[origin],
        chains.back[origin],
    )
    return np.concatenate(added_lat), np.concatenate(added_lng), cut


def _running(steps: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(steps[:-1])))


def _graph(lat: Floats, lng: Floats, chains: _Chains) -> RoadGraph:
    begin, end = chains.first[:-1], chains.first[1:]
    nodes, ends = np.unique(np.concatenate((chains.points[begin], chains.points[end - 1])), return_inverse=True)
    tails, heads = np.split(ends, 2)
    length_m, time_s, back_s = (np.add.reduceat(column, begin) for column in (chains.step_m, chains.step_s, chains.back_s))
    first, inner = ragged(begin + 1, end - 1)
    turned = _turned(first, inner)
    n_inner, points = np.diff(first), np.concatenate((chains.points[inner], chains.points[turned]))
    bends = Bends(
        np.concatenate(([0], np.cumsum(np.tile(n_inner, 2)))).astype(np.int32), places_e7(lat[points]), places_e7(lng[points])
    )
    driven = np.flatnonzero(np.concatenate((chains.open, chains.back)))
    return graph_of_edges(
        lat[nodes],
        lng[nodes],
        tail=np.concatenate((tails, heads)).astype(np.int32)[driven],
        head=np.concatenate((heads, tails)).astype(np.int32)[driven],
        length_m=np.tile(length_m, 2)[driven],
        time_s=np.concatenate((time_s, back_s))[driven],
        bends=bends.taken(driven),
    )


def _turned(first: Ints, rows: Ints) -> Ints:
    """Every group of rows in the opposite order."""
    counts = np.diff(first)
    place = np.repeat(first[:-1] + first[1:] - 1, counts) - np.arange(len(rows))
    return rows[place]
