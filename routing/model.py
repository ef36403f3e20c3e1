"""What every router answers, and the shape of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Bools, Floats

Floats32 = npt.NDArray[np.float32]
GLOBE = np.array([90.0, 180.0])


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One way from a place to another, the legs to and from the network included.

    places : float64[k, 2], lat and lng in degrees; the origin first, the destination last, straight lines between, k >= 2
    cumulative_s : float64[k], seconds from the origin, not falling, 0 first
    cumulative_m : float64[k], metres from the origin, not falling, 0 first

    Raises ValueError where the columns do not fit each other.
    """

    places: Floats
    cumulative_s: Floats
    cumulative_m: Floats

    def __post_init__(self) -> None:
        if self.places.ndim != 2 or self.places.shape[1] != 2 or len(self.places) < 2:
            raise ValueError(f"places has shape {self.places.shape}, not [k, 2] with k >= 2")
        for name, column in (("cumulative_s", self.cumulative_s), ("cumulative_m", self.cumulative_m)):
            if column.shape != (len(self.places),):
                raise ValueError(f"{name} has shape {column.shape}, not [{len(self.places)}]")
            if column[0] != 0 or not np.isfinite(column).all() or (np.diff(column) < 0).any():
                raise ValueError(f"{name} does not begin at 0, or falls, or is not finite")

    @property
    def duration_s(self) -> float:
        """How long does the whole route take?"""
        return float(self.cumulative_s[-1])

    @property
    def length_m(self) -> float:
        """How long is the whole route?"""
        return float(self.cumulative_m[-1])


class Router(Protocol):
    """Travel times and distances between places.

    Places are float64[n, 2]: lat, lng in degrees. A pair that cannot be travelled, or with an end that the router does not
    cover, is `inf`; nothing is moved silently. The same place twice is 0. Empty columns give empty answers. Distances are
    those of the fastest way. `depart_ms` is Unix time in milliseconds.

    Every method raises ValueError for coordinates that are not finite or not on the globe.
    """

    version: str
    """Names the data and the parameters that the answers come from: equal versions give equal answers."""

    @property
    def top_speed_mps(self) -> float:
        """No two places are nearer in time than their great-circle distance at this speed, whenever one departs; above 0."""
        ...

    def covers(self, places: Floats) -> Bools:
        """Which of these places can a route begin or end at? bool[n]."""
        ...

    def times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from each origin to each destination? float32[n, m], seconds."""
        ...

    def distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from each origin to each destination, by the fastest way? float32[n, m], metres."""
        ...

    def pair_times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from the i-th origin to the i-th destination? float32[n], seconds. ValueError if n differs."""
        ...

    def pair_distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from the i-th origin to the i-th destination, by the fastest way? float32[n], metres."""
        ...

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:
        """By which way does one travel? Raises DomainError NO_ROUTE where the time would be `inf`."""
        ...


def check_places(field: str, places: Floats) -> Floats:
    """The same places as float64[n, 2]. Raises ValueError for another shape, and for points that are not on the globe."""
    columns = np.asarray(places, dtype=np.float64)
    if columns.size == 0:
        return np.empty((0, 2))
    if columns.ndim != 2 or columns.shape[1] != 2:
        raise ValueError(f"{field} has shape {columns.shape}, not [n, 2]")
    if not (np.abs(columns) <= GLOBE).all():
        what = "on the globe" if np.isfinite(columns).all() else "finite"
        raise ValueError(f"{field} holds coordinates that are not {what}")
    return columns


def check_pairs(origins: Floats, destinations: Floats) -> tuple[Floats, Floats]:
    """Both ends of pairs, as float64[n, 2] each. Raises ValueError as `check_places`, and where their numbers differ."""
    froms, tos = check_places("origins", origins), check_places("destinations", destinations)
    if len(froms) != len(tos):
        raise ValueError(f"{len(froms)} origins and {len(tos)} destinations are not pairs")
    return froms, tos
