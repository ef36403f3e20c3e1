"""How many drivers are available where? Counted from one snapshot that all questions share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from location.freshness import fresh

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Cells, Ints
    from location.metrics import LocationMetrics
    from location.store import LocationStore


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


def at_resolution(supply: Supply, resolution: int) -> Supply:
    """The same supply in coarser cells. Pure."""
    parents, inverse = np.unique(geo.parents_of(supply.cells, resolution), return_inverse=True)
    available = np.zeros(len(parents), dtype=np.int64)
    np.add.at(available, inverse, supply.available)
    return Supply(parents, available, supply.as_of_ms, supply.complete)


class SupplyCounter:
    """Counts the supply of one city."""

    def __init__(self, store: LocationStore, limit_ms: int, max_age_ms: int, clock: Clock, metrics: LocationMetrics) -> None:
        self._store = store
        self._limit_ms = limit_ms
        self._max_age_ms = max_age_ms
        self._clock = clock
        self._metrics = metrics
        self._reading = asyncio.Lock()
        self._snapshot: Supply | None = None

    async def supply(self) -> Supply:
        """The supply per index cell, at most `max_age_ms` old. Raises STORE_UNAVAILABLE.

        `complete` only if the same epoch's states were all told before and after the reading: a wipe in between shows.
        """
        async with self._reading:
            now_ms = self._clock.now_ms()
            if self._snapshot is None or abs(now_ms - self._snapshot.as_of_ms) > self._max_age_ms:
                self._snapshot = await self._read(now_ms)
            return self._snapshot

    async def _read(self, now_ms: int) -> Supply:
        before = await self._store.state_epoch()
        latest: dict[bytes, int] = {}
        async for drivers in self._store.read_everyone():
            rows = np.flatnonzero(fresh(drivers.positions["received_at_ms"], now_ms, self._limit_ms)).tolist()
            cells = drivers.positions["cell"].tolist()
            latest.update((drivers.driver_ids[row], cells[row]) for row in rows)
        after = await self._store.state_epoch()
        self._metrics.supply_snapshots += 1
        occupied, counts = np.unique(np.fromiter(latest.values(), dtype=np.uint64, count=len(latest)), return_counts=True)
        complete = before.complete and after.complete and before.epoch == after.epoch
        return Supply(occupied, counts.astype(np.int64), now_ms, complete)
