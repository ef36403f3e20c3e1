"""What has this process done so far? Counters in memory, for whoever exports them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from location.model import DropReason, Ingested


@dataclass(slots=True)
class LocationMetrics:
    """Counters that only grow."""

    fixes_accepted: int = 0
    fixes_dropped: Counter[DropReason] = field(default_factory=Counter)
    flushes: int = 0
    flush_failures: int = 0
    sessions_opened: int = 0
    states_applied: int = 0
    states_ignored: int = 0
    drivers_swept: int = 0
    positions_forgotten: int = 0
    nearby_questions: int = 0
    nearby_readings: int = 0
    supply_snapshots: int = 0

    def count(self, ingested: Ingested) -> None:
        """Adds what became of some fixes."""
        self.fixes_accepted += ingested.accepted
        self.fixes_dropped.update(ingested.drops)
