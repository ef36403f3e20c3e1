"""A road network as a few flat arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.bends import Bends

Ints32 = npt.NDArray[np.int32]

MM_PER_M = 1000


@dataclass(frozen=True, slots=True, eq=False)
class RoadGraph:
    """Directed streets between junctions; the edges that leave node i are those from `first_edge[i]` to `first_edge[i + 1]`.

    lat, lng : float64[n_nodes], degrees
    first_edge : int32[n_nodes + 1]
    head : int32[n_edges], the node that an edge leads to; no edge leads to its own tail
    length_m : float64[n_edges], metres, >= 0, kept as whole millimetres
    time_s : float64[n_edges], seconds of free flow, kept as whole milliseconds, at least one
    bends : where edges run between their ends, for drawing; None where straight lines do

    Whole millimetres and milliseconds, so that sums compare exactly (see `tables`). The arrays are copied and read-only.
    Raises ValueError naming the field.
    """

    lat: Floats
    lng: Floats
    first_edge: Ints32
    head: Ints32
    length_m: Floats
    time_s: Floats
    bends: Bends | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("lat", "f8"), ("lng", "f8"), ("first_edge", "i4"), ("head", "i4")):
            self._keep(name, np.array(getattr(self, name), dtype=dtype))
        self._check_nodes()
        self._check_edges()
        self._keep("length_m", np.rint(np.asarray(self.length_m, dtype="f8") * MM_PER_M) / MM_PER_M)
        whole_ms = np.maximum(np.rint(np.asarray(self.time_s, dtype="f8") * MS_PER_S), 1.0)
        self._keep("time_s", whole_ms / MS_PER_S)

    def _keep(self, name: str, column: npt.NDArray[np.generic]) -> None:
        column.setflags(write=False)
        object.__setattr__(self, name, column)

    def _check_nodes(self) -> None:
        for name, limit in (("lat", 90.0), ("lng", 180.0)):
            column = getattr(self, name)
            if column.shape != (self.n_nodes,) or not self.n_nodes:
                raise ValueError(f"{name} has shape {column.shape}, not [n_nodes] with a node at least")
            if not np.isfinite(column).all() or (np.abs(column) > limit).any():
                raise ValueError(f"{name} holds values that are not finite or not on the globe")

    def _check_edges(self) -> None:
        first = self.first_edge
        if first.shape != (self.n_nodes + 1,) or first[0] != 0 or first[-1] != self.n_edges or (np.diff(first) < 0).any():
            raise ValueError("first_edge does not count the edges of each node")
        if self.n_edges and (self.head.min() < 0 or self.head.max() >= self.n_nodes):
            raise ValueError("head names a node that is not there")
        if (self.head == self.tail()).any():
            raise ValueError("head holds an edge that leads to its own tail")
        for name in ("length_m", "time_s"):
            column = np.asarray(getattr(self, name))
            if column.shape != (self.n_edges,):
                raise ValueError(f"{name} has shape {column.shape}, not [{self.n_edges}]")
            if not np.isfinite(column).all() or (column < 0).any():
                raise ValueError(f"{name} holds values that are not finite or below 0")
        if self.bends is not None and self.bends.n_edges != self.n_edges:
            raise ValueError(f"bends are those of {self.bends.n_edges} edges, not of {self.n_edges}")

    @property
    def n_nodes(self) -> int:
        """How many junctions?"""
        return len(self.lat)

    @property
    def n_edges(self) -> int:
        """How many directed edges?"""
        return len(self.head)

    def tail(self) -> Ints32:
        """Which node does each edge leave? int32[n_edges]."""
        return np.repeat(np.arange(self.n_nodes, dtype=np.int32), np.diff(self.first_edge))

    def places(self) -> Floats:
        """Where are the nodes? float64[n_nodes, 2], lat and lng in degrees."""
        return np.column_stack((self.lat, self.lng))

    def top_speed_mps(self) -> float:
        """How fast at most does an edge bring one from junction to junction, as the crow flies? 0 where there are no edges."""
        if not self.n_edges:
            return 0.0
        tail = self.tail()
        straight_m = geo.distances_m(self.lat[tail], self.lng[tail], self.lat[self.head], self.lng[self.head])
        return float((straight_m / self.time_s).max())

    def course(self, edge: int) -> Floats:
        """Along which points does an edge run? float64[k, 2], lat and lng in degrees, both ends included."""
        ends = self.places()[[np.searchsorted(self.first_edge, edge, side="right") - 1, self.head[edge]]]
        return ends if self.bends is None else np.concatenate((ends[:1], self.bends.places(edge), ends[1:]))

    def slowed(self, slowness: npt.NDArray[np.floating]) -> RoadGraph:
        """The same streets where driving takes `slowness` (float[n_edges], finite, above 0) times as long. Raises ValueError."""
        if slowness.shape != (self.n_edges,) or not (np.isfinite(slowness).all() and (slowness > 0).all()):
            raise ValueError(f"slowness has shape {slowness.shape}, or is not finite and above 0")
        return replace(self, time_s=self.time_s * slowness)

    def digest(self) -> str:
        """What names this graph's content? Equal graphs, and only they, give equal text (32 hexadecimal digits).

        Bends do not count: no time or length depends on them.
        """
        return _digest(self.lat, self.lng, self.first_edge, self.head, self.length_m, self.time_s)

    def streets_digest(self) -> str:
        """What names the streets alone? The same whatever their times and lengths are."""
        return _digest(self.lat, self.lng, self.first_edge, self.head)


def _digest(*columns: npt.NDArray[np.generic]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for column in columns:
        state.update(len(column).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(column).tobytes())
    return state.hexdigest()


def graph_of_edges(
    lat: Floats, lng: Floats, *, tail: Ints32, head: Ints32, length_m: Floats, time_s: Floats, bends: Bends | None = None
) -> RoadGraph:
    """The graph of a list of edges in any order: int32[n_edges] twice, float64[n_edges] twice. Raises as RoadGraph does."""
    order = np.lexsort((head, tail))
    first_edge = np.concatenate(([0], np.cumsum(np.bincount(tail, minlength=len(lat))))).astype(np.int32)
    in_order = None if bends is None else bends.taken(order)
    return RoadGraph(lat, lng, first_edge, head[order], length_m[order], time_s[order], in_order)
