"""Was any driver in two rides, or any ride in two cars? From accept to release, as the clients were told."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hexhail.client import RideView


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A driver was bound to a ride from `begin_ms` on, until `end_ms`; None where no release is known."""

    begin_ms: int
    ride_id: str
    driver_id: str
    end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """An interval that began while another of its driver had not ended, or (`of_ride`) one of its ride and another driver."""

    second: Interval
    of_ride: bool


def double_assignments(intervals: Iterable[Interval]) -> int:
    """How often was a driver bound to a second ride, or a ride to a second driver, before the first was released?"""
    return len(overlaps(intervals))


def overlaps(intervals: Iterable[Interval]) -> list[Overlap]:
    """Which bindings began before their driver, or their ride, was released from an earlier one?

    By begin: each interval counts once where an earlier one of the same driver had not ended, and once where an earlier one
    of the same ride and another driver had not. One that begins at the instant in which the other ends does not count. The
    same acceptance told twice is one. Independent of order. Whoever has two sources (clients, outbox) counts each by itself
    and reports the larger figure: both see the same events, so their sum would count most of them twice.
    """
    kept: dict[tuple[int, str, str], Interval] = {}
    for interval in intervals:
        key = (interval.begin_ms, interval.ride_id, interval.driver_id)
        known = kept.get(key)
        if known is None or known.end_ms is None:
            kept[key] = interval
        elif interval.end_ms is not None:
            kept[key] = min(known, interval, key=_end_ms)
    found: list[Overlap] = []
    of_driver: dict[str, float] = defaultdict(lambda: -math.inf)
    of_ride: dict[str, dict[str, float]] = defaultdict(dict)
    for interval in (kept[key] for key in sorted(kept)):
        winners = of_ride[interval.ride_id]
        if of_driver[interval.driver_id] > interval.begin_ms:
            found.append(Overlap(interval, of_ride=False))
        if any(end_ms > interval.begin_ms for driver, end_ms in winners.items() if driver != interval.driver_id):
            found.append(Overlap(interval, of_ride=True))
        of_driver[interval.driver_id] = max(of_driver[interval.driver_id], _end_ms(interval))
        winners[interval.driver_id] = max(winners.get(interval.driver_id, -math.inf), _end_ms(interval))
    return found


def bindings(events: Iterable[tuple[str, int, str, bool]]) -> list[Interval]:
    """From accept to release: (ride id, time, driver id, whether it began or ended) in the order of the log -> intervals."""
    open_since: dict[tuple[str, str], int] = {}
    intervals: list[Interval] = []
    for ride_id, at_ms, driver_id, began in events:
        key = (ride_id, driver_id)
        if began:
            if key in open_since:
                intervals.append(Interval(open_since[key], ride_id, driver_id))
            open_since[key] = at_ms
        else:
            intervals.append(Interval(open_since.pop(key, at_ms), ride_id, driver_id, at_ms))
    return intervals + [Interval(begun_ms, ride_id, driver_id) for (ride_id, driver_id), begun_ms in open_since.items()]


def _end_ms(interval: Interval) -> float:
    return math.inf if interval.end_ms is None else interval.end_ms


@dataclass(slots=True)
class _Bound:
    ride_id: str
    driver_id: str
    begin_ms: int
    version: int
    end_ms: int | None = None


class Witness:
    """Keeps what the clients were told of assignments. Times are the service's own, as its answers state them."""

    def __init__(self) -> None:
        self._bound: dict[tuple[str, str, int], _Bound] = {}
        self._open: dict[str, list[_Bound]] = defaultdict(list)

    def accepted(self, ride: RideView, driver_id: str) -> None:
        """A driver was told that the ride is its own."""
        named = ride.assignment is not None and ride.assignment.driver_id == driver_id
        begin_ms = ride.assignment.accepted_at_ms if named and ride.assignment is not None else ride.updated_at_ms
        self._begin(ride, driver_id, begin_ms)

    def told(self, ride: RideView) -> None:
        """Somebody was told how the ride stands.

        Final, or searched again: its driver is released. A driver named in another's place releases nobody: without a word of
        release in between, both hold the ride.
        """
        if ride.state.is_final or ride.state.is_searching:
            for bound in self._open.pop(ride.ride_id, []):
                if ride.version <= bound.version:
                    self._open[ride.ride_id].append(bound)
                else:
                    bound.end_ms = ride.updated_at_ms
        elif ride.assignment is not None:
            self._begin(ride, ride.assignment.driver_id, ride.assignment.accepted_at_ms)

    def gave_back(self, ride_id: str, driver_id: str, at_ms: int) -> None:
        """A driver was told that it is rid of the ride."""
        for bound in [bound for bound in self._open.get(ride_id, []) if bound.driver_id == driver_id]:
            bound.end_ms = at_ms
            self._open[ride_id].remove(bound)

    def intervals(self) -> list[Interval]:
        """Every binding so far."""
        return sorted(Interval(b.begin_ms, b.ride_id, b.driver_id, b.end_ms) for b in self._bound.values())

    def _begin(self, ride: RideView, driver_id: str, begin_ms: int) -> None:
        key = (ride.ride_id, driver_id, begin_ms)
        if key not in self._bound:
            bound = self._bound[key] = _Bound(ride.ride_id, driver_id, begin_ms, ride.version)
            self._open[ride.ride_id].append(bound)
