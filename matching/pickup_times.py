"""How long do pickups of a city take? Pure: what was seen lately, for rides that are scheduled.

One process's own pickups: where it has not seen enough of them, it says so, and a parameter stands in.

Source: our choice, decision 25.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.units import MS_PER_S
from matching.model import Ride, RideState

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId

_KEPT = 200
_KEPT_MS = 3_600 * MS_PER_S
_ENOUGH = 20
_SHARE = 0.9
"""Of the pickups, that took no longer than what is expected."""


class PickupTimes:
    """The recent pickups of each city: when the driver arrived, and how long that took from accepting."""

    def __init__(self) -> None:
        self._recent: dict[CityId, deque[tuple[int, float]]] = {}

    def see(self, ride: Ride) -> None:
        """Remembers the pickup, if this change of the ride is the driver's arrival."""
        assignment = ride.assignment
        if ride.state is not RideState.ARRIVED or assignment is None or assignment.arrived_at_ms != ride.updated_at_ms:
            return
        took_s = (assignment.arrived_at_ms - assignment.accepted_at_ms) / MS_PER_S
        self._recent.setdefault(ride.city_id, deque(maxlen=_KEPT)).append((assignment.arrived_at_ms, took_s))

    def expected_s(self, city_id: CityId, now_ms: int) -> float | None:
        """What nine in ten of the last hour's pickups (the newest 200 at most) did not exceed; None of fewer than 20."""
        took_s = [took_s for at_ms, took_s in self._recent.get(city_id, ()) if now_ms - at_ms <= _KEPT_MS]
        return float(np.quantile(took_s, _SHARE)) if len(took_s) >= _ENOUGH else None
