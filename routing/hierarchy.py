"""Travel times on a road network too large for an all-pairs table: searches on a customizable contraction hierarchy.

The order in which the junctions are contracted depends on the streets alone: it is found once and kept. Traffic is brought in
afterwards, in a fraction of a second on real streets.
Source: Dibbelt, Strasser, Wagner, Customizable Contraction Hierarchies, 2014 (RoutingKit, by pyroutingkit).
"""

from __future__ import annotations

import hashlib
import math
from functools import partial
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Self

import numpy as np
import pyroutingkit

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S
from routing.cache_files import one_at_a_time, write_folder
from routing.joining import JoinedRouter

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from hexhail.kernel.units import Ints
    from routing.graph import RoadGraph
    from routing.joining import RoadParams
    from routing.model import Floats32

LAYOUT = 1
"""The number of the cache's format: another format, another name."""
SEAL = "seal"
ROWS = 16
"""Destinations that are searched from before another thread may ask."""


class Hierarchy:
    """The streets of a graph, ready for searches in any state of the traffic. Threads may share it.

    Every edge is turned round: what the hierarchy does fast is one source with many targets, and what is asked most is one
    pickup with many drivers on their way to it.
    """

    def __init__(self, topology: pyroutingkit.CCHTopology) -> None:
        self.topology = topology

    @property
    def n_edges(self) -> int:
        """How many directed edges?"""
        return int(self.topology.arc_count)


def build_hierarchy(graph: RoadGraph) -> Hierarchy:
    """The hierarchy of a graph: some 10 s for 200,000 junctions."""
    topology = pyroutingkit.CCHTopology()
    topology.build(_ids(graph.head), _ids(graph.tail()), graph.lat.astype("f4"), graph.lng.astype("f4"), graph.n_nodes)
    return Hierarchy(topology)


def load_hierarchy(graph: RoadGraph, cache_dir: Path | None) -> Hierarchy:
    """The hierarchy of a graph, from the cache folder, where the first process to ask puts it.

    The folder is named by the streets, whatever their traffic. Processes that ask at the same time wait for the first; what is
    damaged is made anew. Without a cache folder, the hierarchy is made here. Raises OSError where the folder cannot be written.
    """
    if cache_dir is None:
        return build_hierarchy(graph)
    path = cache_dir / f"hierarchy-{LAYOUT}-{graph.streets_digest()}"
    with one_at_a_time(path):
        kept = _read(path, graph)
        if kept is None:
            kept = build_hierarchy(graph)
            write_folder(path, partial(_fill, kept.topology))
    return kept


class HierarchyRouter(JoinedRouter):
    """A `Router` on a road graph and its hierarchy.

    Times are to the millisecond those of `routing.tables`. Of several ways equally fast it takes one, always the same.
    Distances come from the ways themselves, one search each: ask for few. A way of 24 days or more counts as none.

    Raises ValueError where the hierarchy is another graph's size, or an edge alone takes so long.
    """

    def __init__(
        self, graph: RoadGraph, hierarchy: Hierarchy, params: RoadParams, sibling: HierarchyRouter | None = None
    ) -> None:
        if hierarchy.n_edges != graph.n_edges:
            raise ValueError(f"the hierarchy is for {hierarchy.n_edges} edges, the graph has {graph.n_edges}")
        whole_ms = np.rint(graph.time_s * MS_PER_S)
        if (whole_ms >= pyroutingkit.INF_WEIGHT).any():
            raise ValueError(f"the graph has an edge of {whole_ms.max() / 86_400_000:.0f} days: too long for a hierarchy")
        super().__init__("hierarchy", graph, params, sibling)
        self._hierarchy = hierarchy
        self._metric = pyroutingkit.CCHMetric(hierarchy.topology)
        self._metric.customize(_ids(whole_ms))
        self._asking = Lock()
        """A metric keeps what a search finds in itself, and lets other threads run meanwhile: one search at a time."""

    def with_slowness(self, slowness: npt.NDArray[np.floating], params: RoadParams | None = None) -> Self:
        """The router of another state of the traffic. Other threads run meanwhile, and may ask this one."""
        return type(self)(self.free_flow.slowed(slowness), self._hierarchy, params or self.params, self)

    def _road_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        times_s = np.empty((len(ends), len(starts)), dtype=np.float32)
        targets = _ids(starts)
        for begin in range(0, len(ends), ROWS):
            rows = slice(begin, begin + ROWS)
            times_s[rows] = self._searched_s(_ids(ends[rows]), targets)
        return times_s

    def _road_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        by_column, columns = np.unique(starts, return_inverse=True)
        rows = [[self._length_m(start, end) for start in by_column.tolist()] for end in ends.tolist()]
        return np.array(rows, dtype=np.float32).reshape(len(ends), len(by_column))[:, columns]

    def _paired_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        sources, targets = _ids(ends), _ids(starts)
        times_s = np.empty(len(starts), dtype=np.float32)
        for i in range(len(starts)):
            times_s[i : i + 1] = self._searched_s(sources[i : i + 1], targets[i : i + 1])
        return times_s

    def _paired_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        lengths_m = (self._length_m(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        return np.fromiter(lengths_m, np.float32, len(starts))

    def _way(self, start: int, end: int) -> list[int]:
        edges = self._edges_back(start, end)
        if edges is None:
            raise DomainError(Reason.NO_ROUTE)
        return edges[::-1]

    def _length_m(self, start: int, end: int) -> float:
        edges = self._edges_back(start, end)
        return math.inf if edges is None else float(self.graph.length_m[np.array(edges, dtype=np.int64)].sum())

    def _edges_back(self, start: int, end: int) -> list[int] | None:
        """The edges of the fastest way, the last first; None where no way leads."""
        with self._asking:
            whole_ms, _, edges = self._metric.query(end, start)
        return None if whole_ms >= pyroutingkit.INF_WEIGHT else list(edges)

    def _searched_s(self, ends: npt.NDArray[np.uint32], starts: npt.NDArray[np.uint32]) -> Floats32:
        with self._asking:
            whole_ms = self._metric.distances_many_to_many(ends, starts)
        times_s: Floats32 = (whole_ms / MS_PER_S).astype(np.float32)
        times_s[whole_ms >= pyroutingkit.INF_WEIGHT] = np.inf
        return times_s


def _ids(numbers: npt.NDArray[np.number]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(numbers, dtype=np.uint32)


def _read(path: Path, graph: RoadGraph) -> Hierarchy | None:
    """What the folder holds; None where it is not there, damaged, or another version's: nothing else checks what is in it."""
    seal = path / SEAL
    if not seal.is_file() or seal.read_bytes() != _seal(path):
        return None
    topology = pyroutingkit.CCHTopology()
    topology.load(str(path))
    return Hierarchy(topology) if topology.arc_count == graph.n_edges else None


def _fill(topology: pyroutingkit.CCHTopology, path: Path) -> None:
    topology.save(str(path))
    (path / SEAL).write_bytes(_seal(path))


def _seal(path: Path) -> bytes:
    state = hashlib.blake2b(version("pyroutingkit").encode(), digest_size=16)
    for file in sorted(path.iterdir()):
        if file.name != SEAL:
            state.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
            state.update(file.read_bytes())
    return state.hexdigest().encode()
