"""What happened to the people of a live run, as they saw it themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from hexhail.client import FixAckView, RideState
from simulator.witness import Witness

if TYPE_CHECKING:
    from hexhail.client import RideView, SurgeView
    from hexhail.kernel.geo import Place


class Outcome(StrEnum):
    """What became of a request. One of them, always."""

    MATCHED = "matched"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    OPEN = "open_at_end"


@dataclass(slots=True)
class RideRecord:
    """One request, from its rider's side. Times are seconds on the rider's monotonic clock.

    sent_s : when RequestRide went out
    named_s : when WatchRide named a driver first
    arrived_s : when WatchRide first said that the driver is at the pickup (or that the ride has begun)
    failed : why there is no ride: RequestRide came back with this reason or code
    """

    rider_id: str
    pickup: Place
    sent_s: float
    named_s: float | None = None
    arrived_s: float | None = None
    state: RideState | None = None
    failed: str = ""

    @property
    def outcome(self) -> Outcome:
        """Matched once a driver was named, whatever came later; else final, or open."""
        if self.named_s is not None:
            return Outcome.MATCHED
        if self.state is RideState.EXPIRED:
            return Outcome.EXPIRED
        if self.state is not None and self.state.is_final:
            return Outcome.CANCELLED
        return Outcome.OPEN

    def told(self, ride: RideView, now_s: float) -> None:
        """WatchRide said this."""
        self.state = ride.state
        if ride.assignment is None:
            return
        if self.named_s is None:
            self.named_s = now_s
        arrived = ride.state in {RideState.ARRIVED, RideState.IN_PROGRESS, RideState.COMPLETED}
        if arrived and self.arrived_s is None:
            self.arrived_s = now_s


@dataclass(slots=True)
class Promises:
    """What drivers were expected to need, against what they will: known to the simulation as soon as they set out.

    late_s : how much longer than promised it takes, below 0 where it takes less; one entry a drive
    """

    late_s: list[float] = field(default_factory=list)

    def held(self, promised_s: float, takes_s: float) -> None:
        """A driver has set out."""
        self.late_s.append(takes_s - promised_s)


@dataclass(slots=True)
class FixCounts:
    """Fixes sent, and what the acknowledgements said became of them."""

    sent: int = 0
    accepted: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def told(self, ack: FixAckView) -> None:
        """An acknowledgement came."""
        self.accepted += ack.accepted
        self.dropped.update(ack.drops)


@dataclass(slots=True)
class SurgeSeen:
    """The multipliers over time.

    max_milli : the highest so far; None before the first reading
    cells : every cell that was above 1 at some time
    timeline : (seconds since the first request's hour, highest multiplier, cells above 1), one row per change
    now : cell -> multiplier, of those above 1
    """

    max_milli: int | None = None
    cells: set[int] = field(default_factory=set)
    timeline: list[tuple[float, int, int]] = field(default_factory=list)
    now: dict[int, int] = field(default_factory=dict)

    def told(self, surge: SurgeView, at_s: float) -> None:
        """A reading came."""
        above = surge.multiplier_milli > 1000
        self.now = dict(zip(surge.cells[above].tolist(), surge.multiplier_milli[above].tolist(), strict=True))
        self.cells.update(self.now)
        highest = max(self.now.values(), default=1000)
        self.max_milli = max(self.max_milli or 1000, highest)
        if not self.timeline or self.timeline[-1][1:] != (highest, len(self.now)):
            self.timeline.append((round(at_s, 1), highest, len(self.now)))


class Ledger:
    """All that a run counts, but for the calls themselves."""

    def __init__(self) -> None:
        self.due = 0
        """Requests whose time came."""
        self.not_quoted: Counter[str] = Counter()
        """No ride was requested, because GetQuotes came back with this reason or code."""
        self.rides: list[RideRecord] = []
        """One for each RequestRide sent."""
        self.fixes = FixCounts()
        self.surge = SurgeSeen()
        self.witness = Witness()
        self.arrivals = Promises()
        """From accepting to being at the pickup."""
        self.trips = Promises()
        """From setting out with the rider to the drop-off, as quoted."""
        self.offers_shown = 0
        self.reopened: Counter[str] = Counter()
        """Streams that ended early and were opened again, by their name."""

    def requested(self) -> list[RideRecord]:
        """The requests that became rides, or may have: their answer is still out."""
        return [record for record in self.rides if not record.failed]

    def searching(self) -> list[RideRecord]:
        """The rides that have no driver yet."""
        return [record for record in self.rides if not record.failed and record.outcome is Outcome.OPEN]

    def match_ms(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """float64[n_matched], milliseconds from sending RequestRide to WatchRide naming the driver."""
        waits = [(r.named_s - r.sent_s) * 1000 for r in self.rides if r.named_s is not None]
        return np.array(waits, dtype=np.float64)

    def pickup_s(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """float64[n_picked_up], seconds from sending RequestRide to WatchRide saying that the driver is at the pickup."""
        waits = [r.arrived_s - r.sent_s for r in self.rides if r.arrived_s is not None]
        return np.array(waits, dtype=np.float64)
