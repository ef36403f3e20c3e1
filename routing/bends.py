"""Where streets run between two junctions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats, Ints

Integers = npt.NDArray[np.signedinteger]
E7 = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Bends:
    """The points between the ends of each edge, from tail to head; those of edge i are `first[i]` to `first[i + 1]`.

    first : int32[n_edges + 1]
    lat_e7, lng_e7 : int32[n_points], degrees times ten million: a centimetre, in 8 bytes a point

    The arrays are copied and read-only. Raises ValueError naming the field.
    """

    first: Integers
    lat_e7: Integers
    lng_e7: Integers

    def __post_init__(self) -> None:
        for name in ("first", "lat_e7", "lng_e7"):
            column = np.array(getattr(self, name), dtype=np.int32)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        first, n_points = self.first, len(self.lat_e7)
        if first.ndim != 1 or not len(first) or first[0] != 0 or first[-1] != n_points or (np.diff(first) < 0).any():
            raise ValueError("bends: first does not count the points of each edge")
        for name, limit in (("lat_e7", 90), ("lng_e7", 180)):
            column = getattr(self, name)
            if column.shape != (n_points,) or (column > limit * E7).any() or (column < -limit * E7).any():
                raise ValueError(f"bends: {name} holds values that are not on the globe, or not one of each point")

    @property
    def n_edges(self) -> int:
        """Of how many edges?"""
        return len(self.first) - 1

    def places(self, edge: int) -> Floats:
        """Between which points does one edge run? float64[k, 2], lat and lng in degrees, k >= 0."""
        inside = slice(self.first[edge], self.first[edge + 1])
        return np.column_stack((self.lat_e7[inside], self.lng_e7[inside])) / E7

    def taken(self, edges: Ints) -> Bends:
        """The bends of these edges, in this order: int64[n]."""
        first, points = ragged(self.first[:-1][edges], self.first[1:][edges])
        return Bends(first, self.lat_e7[points], self.lng_e7[points])


def ragged(begin: Integers, end: Integers) -> tuple[Ints, Ints]:
    """The rows `begin[i]` to `end[i]` of every i one after another: (first int64[n + 1], rows int64[sum])."""
    counts = np.asarray(end, dtype=np.int64) - begin
    first = np.concatenate(([0], np.cumsum(counts)))
    return first, np.arange(first[-1]) + np.repeat(np.asarray(begin, dtype=np.int64) - first[:-1], counts)


def places_e7(degrees: Floats) -> npt.NDArray[np.int32]:
    """Degrees as they are kept here: float64[n] -> int32[n]."""
    return np.rint(degrees * E7).astype(np.int32)
