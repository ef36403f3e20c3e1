"""All drivers that are known of a city, in columns that everybody here reads. Pure: what changed goes in, snapshots come out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from hexhail.kernel.ids import bucket_of
from hexhail.kernel.units import from_e7
from location.freshness import fresh
from location.model import RECORD, blocks

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from location.model import IndexedDrivers, Records

DriverIds = npt.NDArray[np.object_]
"""Ids of drivers as bytes."""

_LEAST_ROOM: Final = 256


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everyone who was fresh when the store was last read, each once. Its arrays never change.

    driver_ids : object[n]
    numbers : int64[n], ascending. A number is one driver's from when it becomes known until it is forgotten, and nobody's again
    changes : int64[n], grows whenever a driver changes
    records : RECORD[n]
    complete : had all states been told in this epoch?
    """

    driver_ids: DriverIds
    numbers: Ints
    changes: Ints
    records: Records
    epoch: str
    complete: bool
    as_of_ms: int

    @cached_property
    def lat(self) -> Floats:
        """float64[n], degrees."""
        return from_e7(self.records["position"]["lat_e7"])

    @cached_property
    def lng(self) -> Floats:
        """float64[n], degrees."""
        return from_e7(self.records["position"]["lng_e7"])

    @cached_property
    def received_at_ms(self) -> Ints:
        """int64[n]."""
        return np.ascontiguousarray(self.records["position"]["received_at_ms"])


class KnownDrivers:
    """The columns behind the snapshots; they take in some thousands of changed drivers in a millisecond or two.

    Invariants: the first `_count` rows are in use, in the order of their numbers; `_number_of` names exactly these drivers. Only
    who is fresh stays: whoever is heard of again comes with all that is known of it, so nothing is lost with the others.
    """

    def __init__(self, limit_ms: int) -> None:
        self._limit_ms = limit_ms
        self._number_of: dict[bytes, int] = {}
        self._last_number = 0
        self._last_change = 0
        self._count = 0
        self._driver_ids: DriverIds = np.empty(_LEAST_ROOM, object)
        self._numbers = np.zeros(_LEAST_ROOM, np.int64)
        self._changes = np.zeros(_LEAST_ROOM, np.int64)
        self._records: Records = blocks(np.zeros(_LEAST_ROOM, RECORD))

    def __len__(self) -> int:
        """How many drivers are known?"""
        return self._count

    def take_in(self, drivers: IndexedDrivers) -> None:
        """Takes in who changed; where a driver comes twice, the later row holds."""
        names, records = drivers.driver_ids, blocks(drivers.records)
        if not names:
            return
        numbers = np.fromiter(map(self._number_of.get, names, repeat(0)), np.int64, len(names))
        known = np.flatnonzero(numbers)
        rows = np.searchsorted(self._numbers[: self._count], numbers[known])
        self._last_change += 1
        self._records[rows] = records[known]  # of rows named twice, numpy leaves the last
        self._changes[rows] = self._last_change
        new = {names[row]: row for row in np.flatnonzero(numbers == 0).tolist()}
        if new:
            self._append(list(new), records[list(new.values())])

    def forget_bucket(self, bucket: int, buckets: int) -> None:
        """Forgets all drivers of a bucket."""
        names = self._driver_ids[: self._count].tolist()
        self._keep(np.fromiter((bucket_of(name.decode(), buckets) != bucket for name in names), np.bool_, len(names)))

    def forget_all(self) -> None:
        """Forgets everybody."""
        self._keep(np.zeros(self._count, np.bool_))

    def snapshot(self, epoch: str, as_of_ms: int, *, complete: bool) -> Snapshot:
        """Everyone who is fresh; the others are forgotten."""
        received_at_ms = self._records[: self._count].view(RECORD)["position"]["received_at_ms"]
        alive = fresh(received_at_ms, as_of_ms, self._limit_ms)  # whoever was erased was heard of in 1970
        if not alive.all():
            self._keep(alive)
        used = slice(self._count)
        columns = (self._driver_ids[used].copy(), self._numbers[used].copy(), self._changes[used].copy())
        return Snapshot(*columns, self._records[used].copy().view(RECORD), epoch, complete, as_of_ms)

    def _append(self, names: list[bytes], records: Records) -> None:
        new = slice(self._count, self._count + len(names))
        numbers = range(self._last_number + 1, self._last_number + 1 + len(names))
        self._number_of.update(zip(names, numbers, strict=True))
        self._last_number += len(names)
        self._count += len(names)
        if self._count > len(self._numbers):
            self._move_to(2 * self._count)
        self._driver_ids[new], self._numbers[new], self._records[new] = names, numbers, records
        self._changes[new] = self._last_change

    def _keep(self, kept: Bools) -> None:
        for name in self._driver_ids[: self._count][~kept].tolist():
            del self._number_of[name]
        rows = np.flatnonzero(kept)
        for column in (self._driver_ids, self._numbers, self._changes, self._records):
            column[: len(rows)] = column[rows]
        self._driver_ids[len(rows) : self._count] = None
        self._records[len(rows) : self._count] = np.zeros((), self._records.dtype)
        self._count = len(rows)
        if len(self._numbers) > max(_LEAST_ROOM, 8 * self._count):
            self._move_to(max(_LEAST_ROOM, 2 * self._count))

    def _move_to(self, room: int) -> None:
        """Into arrays of this length."""
        kept = min(room, len(self._numbers))
        for name in ("_driver_ids", "_numbers", "_changes", "_records"):
            old = getattr(self, name)
            moved = np.empty(room, old.dtype)
            moved[:kept] = old[:kept]
            setattr(self, name, moved)
