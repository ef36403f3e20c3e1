"""What has this process done so far? Counters in memory, for whoever exports them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hexhail.kernel.counters import counted_by, counter
from location.model import DropReason

if TYPE_CHECKING:
    from location.model import Ingested


@dataclass(slots=True)
class LocationMetrics:
    """Counters of one city; they only grow."""

    fixes_accepted: int = counter("Fixes taken into the index.")
    fixes_dropped: Counter[DropReason] = field(
        default_factory=Counter, metadata=counted_by("reason", DropReason, "Fixes not taken into the index.")
    )
    flushes: int = counter("Writes of gathered fixes to the store.")
    flush_failures: int = counter("Writes of gathered fixes that the store did not answer.")
    sessions_opened: int = counter("Sessions opened.")
    states_applied: int = counter("Drivers' states taken from matching.")
    states_ignored: int = counter("Drivers' states that were not newer than the known ones.")
    drivers_swept: int = counter("Drivers taken out of the index because they went silent.")
    positions_forgotten: int = counter("Positions deleted because their time was over.")
    nearby_questions: int = counter("Searches for nearby drivers.")
    nearby_readings: int = counter("Readings of the store that searches for nearby drivers took.")
    road_times: int = counter("Drivers timed to a place, for searches by road time.")
    nearby_batches: int = counter("Searches for nearby drivers at many places at once.")
    mirror_readings: int = counter("Readings of all changes, for whoever counts, watches or searches in bulk.")
    mirror_changes: int = counter("Changed drivers that these readings brought.")
    supply_snapshots: int = counter("Counts of supply.")
    watch_messages: int = counter("Messages to watchers.")
    drivers_erased: int = counter("Drivers of whom everything was erased on demand.")

    def count(self, ingested: Ingested) -> None:
        """Adds what became of some fixes."""
        self.fixes_accepted += ingested.accepted
        self.fixes_dropped.update(ingested.drops)
