"""How many drivers are available where? Counted from the mirror, once for all who ask within the age that a count may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from location.model import Availability

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Cells, Ints
    from location.known import Snapshot
    from location.metrics import LocationMetrics
    from location.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Supply:
    """Fresh available drivers per cell.

    cells : uint64[n], ascending
    available : int64[n]
    """

    cells: Cells
    available: Ints
    as_of_ms: int
    complete: bool

    def of_cells(self, cells: Cells) -> Ints:
        """How many in each of these: uint64[m] -> int64[m]; 0 where the snapshot holds nobody."""
        if not len(self.cells):
            return np.zeros(len(cells), dtype=np.int64)
        row = np.minimum(np.searchsorted(self.cells, cells), len(self.cells) - 1)
        return np.where(self.cells[row] == cells, self.available[row], 0)


def supply_of(snapshot: Snapshot) -> Supply:
    """How many available drivers does a snapshot, which holds the fresh ones, show in each index cell? Pure."""
    is_available = snapshot.records["state"]["availability"] == Availability.AVAILABLE
    cells, available = np.unique(snapshot.records["position"]["cell"][is_available], return_counts=True)
    return Supply(cells, available.astype(np.int64), snapshot.as_of_ms, snapshot.complete)


def at_resolution(supply: Supply, resolution: int) -> Supply:
    """The same supply in coarser cells. Pure."""
    parents, inverse = np.unique(geo.parents_of(supply.cells, resolution), return_inverse=True)
    available = np.zeros(len(parents), dtype=np.int64)
    np.add.at(available, inverse, supply.available)
    return Supply(parents, available, supply.as_of_ms, supply.complete)


class SupplyCounter:
    """Counts the supply of one city."""

    def __init__(self, mirror: Mirror, max_age_ms: int, clock: Clock, metrics: LocationMetrics) -> None:
        self._mirror = mirror
        self._max_age_ms = max_age_ms
        self._clock = clock
        self._metrics = metrics
        self._counted: Snapshot | None = None
        self._supply: Supply | None = None

    async def supply(self) -> Supply:
        """The supply per index cell, at most `max_age_ms` old. Raises STORE_UNAVAILABLE.

        `complete` only if all states had been told in the epoch that was read.
        """
        if self._supply is not None and self._is_young(self._supply):
            return self._supply
        snapshot = await self._mirror.refresh(self._max_age_ms)
        if self._supply is None or self._counted is not snapshot:
            self._counted, self._supply = snapshot, supply_of(snapshot)
            self._metrics.supply_snapshots += 1
        return self._supply

    def _is_young(self, supply: Supply) -> bool:
        return self._max_age_ms > 0 and abs(self._clock.now_ms() - supply.as_of_ms) <= self._max_age_ms
