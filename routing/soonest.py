"""Who would be at each of many places soonest? The few best of all pairs, without looking at all pairs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.model import check_places

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.model import Floats32, Router
    from routing.snapping import Snapped

ROWS_AT_ONCE: Final = 64
"""Rows of a table that are looked through in one go: they stay in the processor's cache."""
SAMPLE_ROWS: Final = 16
"""From so many places it is guessed how far all must look."""
SAMPLE_SHARE: Final = 75
"""The first look goes as far as is enough for so many in a hundred of them; who has too few then looks twice as far."""
PAIRS_AT_ONCE: Final = 1_000_000
"""Pairs that a router without a table is asked about in one go, so that memory stays bounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Soonest:
    """The origins from which each destination is reached soonest, by destination, then by time, then by origin.

    destination, origin : int64[n], their numbers
    time_ms : int64[n]
    """

    destination: Ints
    origin: Ints
    time_ms: Ints

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.destination)


@runtime_checkable
class KnowsSoonest(Protocol):
    """A router that need not look at all pairs."""

    def soonest(self, origins: Floats, destinations: Floats, count: int, limit_s: float) -> Soonest:
        """As the function `soonest`."""


def soonest(router: Router, origins: Floats, destinations: Floats, count: int, limit_s: float, depart_ms: int) -> Soonest:
    """From which `count` origins is each destination reached soonest, within a limit?

    origins, destinations : float64[n, 2], lat and lng, degrees
    Times are those of the router, in whole milliseconds; of equal ones the first origins count.
    Raises ValueError for coordinates that are not on the globe, and for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, not 1 or more")
    origins, destinations = check_places("origins", origins), check_places("destinations", destinations)
    if not len(origins) or not len(destinations):
        return _nobody()
    if isinstance(router, KnowsSoonest):
        return router.soonest(origins, destinations, count, limit_s)
    step = max(PAIRS_AT_ONCE // len(origins), 1)
    found = []
    for begin in range(0, len(destinations), step):
        times_s = router.times_s(origins, destinations[begin : begin + step], depart_ms).T
        row, origin = np.nonzero(times_s <= limit_s)
        found.append(first_of_each(row + begin, origin, whole_ms(times_s[row, origin]), count))
    return _joined(found)


def soonest_by_table(
    table_s: Floats32, starts: Snapped, ends: Snapped, start_s: Floats, end_s: Floats, factor: float, count: int, limit_s: float
) -> Soonest:
    """The same from a table of all pairs of junctions, along the streets.

    table_s : float32[n_nodes, n_nodes], by destination; inf where no way leads
    start_s, end_s : float64[n], what is added at either end, seconds; inf for a place off the streets
    factor : what the table's times are multiplied with

    Places at one junction share what is found there. Junctions nearby are looked through as far as is enough for most; whoever
    then cannot be sure looks twice as far.
    """
    on_streets = np.flatnonzero(np.isfinite(start_s))
    is_end = np.isfinite(end_s)
    if not len(on_streets) or not is_end.any():
        return _nobody()
    order = on_streets[np.argsort(starts.nodes[on_streets], kind="stable")]
    crowd = _Crowd(order, start_s, np.searchsorted(starts.nodes[order], np.arange(len(table_s) + 1)))
    nodes, which = np.unique(ends.nodes[is_end], return_inverse=True)
    found = _by_node(table_s, nodes, crowd, factor, count, limit_s - float(end_s[is_end].min()))
    first = np.searchsorted(found.destination, np.arange(len(nodes) + 1))
    rows, destination = ragged_rows(first[which], first[which + 1], np.flatnonzero(is_end))
    origin, time_ms = found.origin[rows], found.time_ms[rows] + whole_ms(end_s)[destination]
    within = time_ms <= limit_s * MS_PER_S
    return Soonest(destination[within], origin[within], time_ms[within])


def with_straight(found: Soonest, straight: Soonest, count: int) -> Soonest:
    """The same where some pairs go straight, which never takes longer: with their times, and with those among the first."""
    wide = 1 + int(max(found.origin.max(initial=0), straight.origin.max(initial=0)))
    keys = np.sort(straight.destination * wide + straight.origin)
    wanted = found.destination * wide + found.origin
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    by_road = keys[at] != wanted if len(keys) else np.ones(len(wanted), dtype=np.bool_)
    roads = Soonest(found.destination[by_road], found.origin[by_road], found.time_ms[by_road])
    both = _joined([roads, straight])
    return first_of_each(both.destination, both.origin, both.time_ms, count)


def first_of_each(row: Ints, origin: Ints, time_ms: Ints, count: int) -> Soonest:
    """Of each row the `count` pairs of the least time, of equal ones those with the first origins."""
    if not len(row):
        return _nobody()
    bits = [int(column.max()).bit_length() for column in (row, time_ms, origin)]
    if sum(bits) < 63:
        key = np.sort((((row << bits[1]) | time_ms) << bits[2]) | origin)
        origin = key & ((1 << bits[2]) - 1)
        key >>= bits[2]
        row, time_ms = key >> bits[1], key & ((1 << bits[1]) - 1)
    else:
        order = np.lexsort((origin, time_ms, row))
        row, origin, time_ms = row[order], origin[order], time_ms[order]
    kept = _among_first(row, count)
    return Soonest(row[kept], origin[kept], time_ms[kept])


def ragged_rows(begins: Ints, ends: Ints, label: Ints) -> tuple[Ints, Ints]:
    """All the numbers of ranges, one range after the other, and the label of the range that each comes from."""
    sizes = ends - begins
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(begins - before, sizes), np.repeat(label, sizes)


@dataclass(frozen=True, slots=True, eq=False)
class _Crowd:
    """The origins in the order of their junctions.

    origins : int64[n], those of node i are first[i] to first[i + 1]
    start_s : float64[n_origins], by origin
    """

    origins: Ints
    start_s: Floats
    first: Ints

    def at(self, row: Ints, node: Ints) -> tuple[Ints, Ints, Ints]:
        """Everyone at these junctions: whose `row` that was, who, and the number of the junction among those given."""
        rows, which = ragged_rows(self.first[node], self.first[node + 1], np.arange(len(node)))
        return row[which], self.origins[rows], which


def _by_node(table_s: Floats32, nodes: Ints, crowd: _Crowd, factor: float, count: int, limit_s: float) -> Soonest:
    """Who is at each of these junctions soonest, no end added? `destination` counts the junctions given."""
    least_s = float(crowd.start_s[crowd.origins].min())
    enough = min(count, len(crowd.origins))
    found: list[Soonest] = []
    waiting = np.arange(len(nodes))
    reach_s = _guessed_reach_s(table_s, nodes, crowd, factor, enough)
    while len(waiting):
        reach_s = min(reach_s, limit_s)
        row, node, road_s = _within(table_s, nodes[waiting], crowd, reach_s, factor)
        row, origin, which = crowd.at(row, node)
        time_ms = whole_ms(road_s[which] * factor + crowd.start_s[origin])
        best = first_of_each(row, origin, time_ms, count)
        have = np.bincount(best.destination, minlength=len(waiting))
        worst_ms = np.zeros(len(waiting), dtype=np.int64)
        np.maximum.at(worst_ms, best.destination, best.time_ms)
        # nobody who was not looked at is nearer than the reach and the shortest start
        sure = (have >= enough) & (worst_ms <= (reach_s + least_s) * MS_PER_S) | np.bool_(reach_s >= limit_s)
        kept = sure[best.destination]
        found.append(Soonest(waiting[best.destination[kept]], best.origin[kept], best.time_ms[kept]))
        waiting = waiting[~sure]
        reach_s *= 2
    joined = _joined(found)
    order = np.argsort(joined.destination, kind="stable")
    return Soonest(joined.destination[order], joined.origin[order], joined.time_ms[order])


def _guessed_reach_s(table_s: Floats32, nodes: Ints, crowd: _Crowd, factor: float, enough: int) -> float:
    """How far must most look, so as to be sure? At least a second."""
    rows = table_s[nodes[:: max(len(nodes) // SAMPLE_ROWS, 1)]]
    order = np.argsort(rows, axis=1)
    passed = np.cumsum(np.diff(crowd.first)[order], axis=1)
    at = (passed >= enough).argmax(axis=1)
    own = np.arange(len(rows))
    reaches_s = rows[own, order[own, at]] * factor
    start_s = crowd.start_s[crowd.origins]
    reaches_s = reaches_s[np.isfinite(reaches_s)] + float(np.median(start_s) - start_s.min())
    return max(float(np.percentile(reaches_s, SAMPLE_SHARE)), 1.0) if len(reaches_s) else np.inf


def _within(table_s: Floats32, nodes: Ints, crowd: _Crowd, reach_s: float, factor: float) -> tuple[Ints, Ints, Floats32]:
    """Which junctions that hold somebody are no farther from these? Row int64[n], node int64[n], seconds float32[n]."""
    n = len(table_s)
    held: Bools = np.diff(crowd.first) > 0
    limit = np.float32(min(reach_s / factor, float(np.finfo(np.float32).max)))
    cells, road_s = [], []
    for begin in range(0, len(nodes), ROWS_AT_ONCE):
        block = table_s[nodes[begin : begin + ROWS_AT_ONCE]]
        near = np.flatnonzero(block <= limit)
        cells.append(near + begin * n)
        road_s.append(block.ravel()[near])
    cell, seconds = np.concatenate(cells), np.concatenate(road_s)
    row, node = np.divmod(cell, n)
    holds = held[node]
    return row[holds], node[holds], seconds[holds]


def _among_first(row: Ints, count: int) -> Bools:
    """Which of these rows, in order, are among the first so many of their number?"""
    late = np.zeros(len(row), dtype=np.bool_)
    late[count:] = row[count:] == row[:-count] if count < len(row) else False
    return ~late


def whole_ms(seconds: Floats | Floats32) -> Ints:
    reached = np.where(np.isfinite(seconds), seconds, 0.0)
    return np.rint(reached.astype(np.float64) * MS_PER_S).astype(np.int64)


def _joined(found: list[Soonest]) -> Soonest:
    if not found:
        return _nobody()
    columns = [(each.destination, each.origin, each.time_ms) for each in found]
    destination, origin, time_ms = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Soonest(destination, origin, time_ms)


def _nobody() -> Soonest:
    none = np.zeros(0, dtype=np.int64)
    return Soonest(none, none, none)
