"""Travel times without a map: the great circle, longer by a factor, at the hour's usual speed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S, Bools, Floats
from routing.model import Floats32, Route, check_pairs, check_places

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place

HOURS = 24
ROUNDING_SLACK = 1.000_1
"""How much faster a way may seem to be, in float32."""


@dataclass(frozen=True, slots=True)
class CrowParams:
    """How much longer than straight the streets are (>= 1), and how fast one drives in each hour of the city's day.

    Raises ValueError naming the field.
    """

    detour_factor: float
    speed_kmh_by_hour: tuple[float, ...]
    time_zone: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.detour_factor) and self.detour_factor >= 1):
            raise ValueError(f"detour_factor is {self.detour_factor}, not 1 or more")
        if len(self.speed_kmh_by_hour) != HOURS:
            raise ValueError(f"speed_kmh_by_hour holds {len(self.speed_kmh_by_hour)} speeds, not {HOURS}")
        if not all(math.isfinite(speed) and speed > 0 for speed in self.speed_kmh_by_hour):
            raise ValueError("speed_kmh_by_hour holds a speed that is not above 0")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"time_zone {self.time_zone!r} is not known") from error


class CrowRouter:
    """A `Router` that knows no streets: symmetric, covers the whole globe. Source: our choice."""

    def __init__(self, params: CrowParams) -> None:
        self._params = params
        self._zone = ZoneInfo(params.time_zone)
        self.version = f"crow-{hashlib.blake2b(repr(params).encode(), digest_size=6).hexdigest()}"

    def speed_mps(self, depart_ms: int) -> float:
        """How fast does one drive in this hour of the city's day?"""
        hour = datetime.fromtimestamp(depart_ms / MS_PER_S, self._zone).hour
        return self._params.speed_kmh_by_hour[hour] / 3.6

    @property
    def top_speed_mps(self) -> float:
        """The fastest hour's."""
        return max(self._params.speed_kmh_by_hour) / 3.6 / self._params.detour_factor * ROUNDING_SLACK

    def covers(self, places: Floats) -> Bools:
        """Every place. bool[n]."""
        return np.ones(len(check_places("places", places)), dtype=np.bool_)

    def times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from each origin to each destination? float32[n, m], seconds."""
        return self.distances_m(origins, destinations) / np.float32(self.speed_mps(depart_ms))

    def distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from each origin to each destination? float32[n, m], metres."""
        froms, tos = check_places("origins", origins), check_places("destinations", destinations)
        straight_m = geo.distances_m(froms[:, :1], froms[:, 1:], tos[:, 0], tos[:, 1])
        return (straight_m * self._params.detour_factor).astype(np.float32)

    def pair_times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from the i-th origin to the i-th destination? float32[n], seconds."""
        return self.pair_distances_m(origins, destinations) / np.float32(self.speed_mps(depart_ms))

    def pair_distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from the i-th origin to the i-th destination? float32[n], metres."""
        froms, tos = check_pairs(origins, destinations)
        straight_m = geo.distances_m(froms[:, 0], froms[:, 1], tos[:, 0], tos[:, 1])
        return (straight_m * self._params.detour_factor).astype(np.float32)

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:
        """The straight line. Never fails for places on the globe."""
        places = check_places("places", np.array([[origin.lat, origin.lng], [destination.lat, destination.lng]]))
        length_m = geo.distance_m(origin, destination) * self._params.detour_factor
        duration_s = length_m / self.speed_mps(depart_ms)
        if not math.isfinite(duration_s):
            raise DomainError(Reason.NO_ROUTE)
        return Route(places, np.array([0.0, duration_s]), np.array([0.0, length_m]))
