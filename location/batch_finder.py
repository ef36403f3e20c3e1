"""Who is near many places at once? Asks the mirror for what is true now, and computes beside the loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from location.batch import nearest

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from location.batch import BatchAnswer, BatchQuestion
    from location.metrics import LocationMetrics
    from location.mirror import Mirror


class BatchFinder:
    """Finds the nearest drivers of many places of one city; one batch after the other, so that they leave room for the rest."""

    def __init__(self, mirror: Mirror, clock: Clock, metrics: LocationMetrics) -> None:
        self._mirror = mirror
        self._clock = clock
        self._metrics = metrics
        self._computing = asyncio.Lock()

    async def find(self, question: BatchQuestion) -> BatchAnswer:
        """As exact and as fresh as a search at each of the places. Raises STORE_UNAVAILABLE."""
        self._metrics.nearby_batches += 1
        async with self._computing:
            snapshot = await self._mirror.refresh()
            return await asyncio.to_thread(nearest, snapshot, question, self._clock.now_ms())
