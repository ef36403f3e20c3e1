"""What pricing speaks of: receipts, quotes, and the surge of a city at one time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId, QuoteId, RiderId
    from hexhail.kernel.units import Cells, Ints

UNSURGED_MILLI = 1000


class FareLineKind(Enum):
    """What a line of a receipt pays for, in the order in which the lines stand."""

    BASE = auto()
    DISTANCE = auto()
    DURATION = auto()
    TIME_OF_DAY = auto()
    SURGE = auto()
    MINIMUM = auto()


@dataclass(frozen=True, slots=True)
class FareLine:
    """One part of a fare, in minor units; below 0 where a factor below 1 makes the ride cheaper."""

    kind: FareLineKind
    amount_minor: int


@dataclass(frozen=True, slots=True)
class SurgeBasis:
    """Why a cell's multiplier is what it is: the figures that it was computed from, and when."""

    cell: int
    surge_version: int
    as_of_ms: int
    stale: bool
    supply: int
    demand_milli: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The factors of a price, and lines that sum exactly to it.

    travel_times_version : names the times and distances that were priced
    travel_times_fell_back : the city's own router did not answer, so another one did
    """

    lines: tuple[FareLine, ...]
    multiplier_milli: int
    time_of_day_milli: int
    surge: SurgeBasis
    travel_times_version: str
    travel_times_fell_back: bool = False


@dataclass(frozen=True, slots=True)
class StopE7:
    """A place on a ride in 1e-7 degrees: integers, so that two of them are the same or they are not."""

    lat_e7: int
    lng_e7: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A price for one rider, one product and these stops, until it expires."""

    quote_id: QuoteId
    city_id: CityId
    rider_id: RiderId
    product: str
    stops: tuple[StopE7, ...]
    fare_minor: int
    currency_code: str
    receipt: Receipt
    distance_m: int
    duration_s: int
    issued_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class SurgeTable:
    """Surge per cell; a cell that is not listed had neither supply nor demand, so its multiplier is 1000.

    cells : uint64[n], ascending, each once
    multiplier_milli, supply, demand_milli : int64[n]

    Raises ValueError where the columns do not fit each other.
    """

    cells: Cells
    multiplier_milli: Ints
    supply: Ints
    demand_milli: Ints

    def __post_init__(self) -> None:
        """Checks the columns, and closes them to change."""
        for name in ("multiplier_milli", "supply", "demand_milli"):
            if getattr(self, name).shape != self.cells.shape:
                raise ValueError(f"{name} is not as long as cells")
        if (self.cells[1:] <= self.cells[:-1]).any():
            raise ValueError("cells do not ascend")
        for column in (self.cells, self.multiplier_milli, self.supply, self.demand_milli):
            column.setflags(write=False)

    def __len__(self) -> int:
        """How many cells are listed?"""
        return len(self.cells)

    def of(self, cells: Cells) -> SurgeTable:
        """The rows of these cells, listed or not. uint64[m], in any order -> m rows, or fewer where a cell is named twice."""
        return self._of_ascending(np.unique(cells))

    def _of_ascending(self, wanted: Cells) -> SurgeTable:
        if not len(self.cells):
            nothing = np.zeros(len(wanted), dtype=np.int64)
            return SurgeTable(wanted, np.full(len(wanted), UNSURGED_MILLI, dtype=np.int64), nothing, nothing.copy())
        row = np.minimum(np.searchsorted(self.cells, wanted), len(self.cells) - 1)
        listed = self.cells[row] == wanted
        return SurgeTable(
            wanted,
            np.where(listed, self.multiplier_milli[row], UNSURGED_MILLI),
            np.where(listed, self.supply[row], 0),
            np.where(listed, self.demand_milli[row], 0),
        )

    def surging(self) -> SurgeTable:
        """The rows whose multiplier is above 1000."""
        above = self.multiplier_milli > UNSURGED_MILLI
        return SurgeTable(self.cells[above], self.multiplier_milli[above], self.supply[above], self.demand_milli[above])

    def changed_since(self, earlier: SurgeTable) -> SurgeTable:
        """The rows of `self` for every cell whose multiplier is another than in `earlier`."""
        cells = np.union1d(self.surging().cells, earlier.surging().cells)  # all others were and are at 1000
        now, then = self._of_ascending(cells), earlier._of_ascending(cells)
        return self._of_ascending(cells[now.multiplier_milli != then.multiplier_milli])


@dataclass(frozen=True, slots=True, eq=False)
class Surge:
    """The surge of a city as published: `version` counts the recomputations within an epoch.

    `stale` says that newer inputs could not be had since, so that these are the last good values, still as of `as_of_ms`.
    """

    epoch: str
    version: int
    as_of_ms: int
    stale: bool
    table: SurgeTable

    def as_stale(self) -> Surge:
        """The same values, marked."""
        return replace(self, stale=True)

    def replaces(self, other: Surge | None) -> bool:
        """Should a holder of `other` take this one instead? Within an epoch by version, then by the mark; else the newer one."""
        if other is None:
            return True
        if self.epoch != other.epoch:
            return self.as_of_ms >= other.as_of_ms
        return (self.version, self.stale) > (other.version, other.stale)
