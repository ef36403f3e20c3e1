"""What does a watcher see, and what must it be sent so that it knows the newest? Pure.

Each message is the difference between what a watcher was last sent and what is now. So one that reads slowly gets the newest
state with its next message, whatever happened in between, and nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from location.freshness import fresh

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hexhail.kernel.units import Ints
    from location.freshness import Box
    from location.known import DriverIds, Snapshot


class Scope(Protocol):
    """Whom somebody watches."""

    def rows_of(self, snapshot: Snapshot) -> Ints:
        """Their rows, int64[m], ascending. Snapshots come in the order in which they were made."""


@dataclass(frozen=True, slots=True)
class InBox:
    """Whoever is in a box, its edges included."""

    box: Box

    def rows_of(self, snapshot: Snapshot) -> Ints:
        """Who is there now?"""
        lat, lng, box = snapshot.lat, snapshot.lng, self.box
        return np.flatnonzero((lat >= box.south) & (lat <= box.north) & (lng >= box.west) & (lng <= box.east))


class Named:
    """Drivers by their ids. It remembers their numbers, so that only those who became known since are looked up."""

    def __init__(self, driver_ids: Iterable[str]) -> None:
        self._driver_ids = frozenset(driver_id.encode() for driver_id in driver_ids)
        self._numbers = np.zeros(0, dtype=np.int64)
        self._looked_up = 0

    def rows_of(self, snapshot: Snapshot) -> Ints:
        """Which of them are known now?"""
        first_new = int(np.searchsorted(snapshot.numbers, self._looked_up, side="right"))
        names, numbers = snapshot.driver_ids[first_new:].tolist(), snapshot.numbers[first_new:].tolist()
        found = [number for name, number in zip(names, numbers, strict=True) if name in self._driver_ids]
        candidates = np.append(self._numbers, np.array(found, dtype=np.int64))
        rows = np.searchsorted(snapshot.numbers, candidates)
        present = rows < len(snapshot.numbers)
        present[present] = snapshot.numbers[rows[present]] == candidates[present]
        self._numbers = candidates[present]
        self._looked_up = max(self._looked_up, numbers[-1] if numbers else 0)
        return rows[present]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Who can be seen, and in what state: as a snapshot has it, in the order of the numbers.

    driver_ids : object[m]
    numbers, changes : int64[m]
    """

    epoch: str
    driver_ids: DriverIds
    numbers: Ints
    changes: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What must be sent.

    snapshot : nothing sent before counts any more
    rows : int64[k] of the view that is now
    gone : ids of who was to be seen and is not any more
    """

    snapshot: bool
    rows: Ints
    gone: list[bytes]

    def says_something(self) -> bool:
        """Would the watcher learn anything?"""
        return self.snapshot or bool(len(self.rows)) or bool(self.gone)


def view_of(snapshot: Snapshot, scope: Scope, now_ms: int, limit_ms: int) -> tuple[View, Ints]:
    """Who of a scope is to be seen: those fresh at this moment, however old the snapshot is? And their rows in it, int64[m]."""
    rows = scope.rows_of(snapshot)
    rows = rows[fresh(snapshot.received_at_ms[rows], now_ms, limit_ms)]
    return View(snapshot.epoch, snapshot.driver_ids[rows], snapshot.numbers[rows], snapshot.changes[rows]), rows


def difference(before: View | None, now: View) -> Difference:
    """What must a watcher who was sent `before` be sent, so that it has what is `now`?

    Everything where it has nothing yet, or has it of another epoch. Who is gone and back under a new number is sent, not gone.
    Source: our choice.
    """
    if before is None or before.epoch != now.epoch:
        return Difference(True, np.arange(len(now.numbers)), [])
    if not len(before.numbers):
        return Difference(False, np.arange(len(now.numbers)), [])
    where = np.minimum(np.searchsorted(before.numbers, now.numbers), len(before.numbers) - 1)
    had = before.numbers[where] == now.numbers
    rows = np.flatnonzero(~(had & (before.changes[where] == now.changes)))
    left = np.ones(len(before.numbers), dtype=np.bool_)
    left[where[had]] = False
    gone: list[bytes] = before.driver_ids[left].tolist()
    if gone:
        sent = set(now.driver_ids[rows].tolist())
        gone = [name for name in gone if name not in sent]
    return Difference(False, rows, gone)
