"""From the streams to the index: fixes gather for the few milliseconds that the last write takes, then go in together.

Whoever hands in fixes waits until they are dealt with, so a slow store slows its senders down: gRPC stops reading, and memory is
bounded by one batch a stream. While the store is away, batches wait here; only what a newer fix of the same driver supersedes is
dropped. The time of receipt stays what it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError
from location.freshness import Box, judge, supersede
from location.model import ACCEPTED, PENDING, DropReason, Ingested, Outcomes, Records
from location.records import pack_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from location.metrics import LocationMetrics
    from location.params import LocationParams
    from location.store import LocationStore

log = structlog.get_logger(__name__)

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Submission:
    driver_ids: Sequence[str]
    fixes: Records
    outcomes: Outcomes
    done: asyncio.Future[None]


class Ingester:
    """Takes in the fixes of one city."""

    def __init__(self, city: City, store: LocationStore, params: LocationParams, clock: Clock, metrics: LocationMetrics) -> None:
        west, south, east, north = city.area.bounds
        self._box = Box(south, west, north, east).widened(params.belief.city_margin_m)
        self._index_resolution = city.index_resolution
        self._city_id = city.city_id
        self._store = store
        self._params = params
        self._clock = clock
        self._metrics = metrics
        self._open: dict[_Submission, None] = {}
        self._work = asyncio.Event()

    async def submit(self, driver_ids: Sequence[str], fixes: Records) -> Ingested:
        """What becomes of these fixes (FIX[n], one driver id a row)? Returns once each is in the index or dropped."""
        outcomes = judge(fixes, self._box, self._params.belief)
        if (outcomes == PENDING).any():
            submission = _Submission(driver_ids, fixes, outcomes, asyncio.get_running_loop().create_future())
            self._open[submission] = None
            self._work.set()
            try:
                await submission.done
            finally:
                self._open.pop(submission, None)
        ingested = _summary(outcomes)
        self._metrics.count(ingested)
        return ingested

    async def flush(self) -> None:
        """Writes what has gathered. Raises STORE_UNAVAILABLE, and then holds on to it."""
        batch = list(self._open)
        rows = [np.flatnonzero(submission.outcomes == PENDING) for submission in batch]
        ids = [s.driver_ids[row] for s, some in zip(batch, rows, strict=True) for row in some.tolist()]
        if not ids:
            return
        fixes = np.concatenate([s.fixes[some] for s, some in zip(batch, rows, strict=True)])
        bounds = np.cumsum([len(some) for some in rows])[:-1]
        seen: dict[str, int] = {}
        driver_rows = np.fromiter((seen.setdefault(driver_id, len(seen)) for driver_id in ids), dtype=np.int64, count=len(ids))
        outcomes = supersede(driver_rows, fixes)
        kept = np.flatnonzero(outcomes == PENDING)
        self._settle(batch, rows, np.split(outcomes, bounds))
        self._metrics.flushes += 1
        positions = pack_positions(fixes[kept], self._index_resolution)
        taken = await self._store.write_fixes([ids[row] for row in kept.tolist()], positions)
        outcomes[kept] = np.where(taken, ACCEPTED, DropReason.NOT_NEWER)
        self._settle(batch, rows, np.split(outcomes, bounds))

    async def run(self) -> None:
        """Flushes whenever something has gathered; while the store is away, tries again and again, ever more slowly."""
        retry_s = FIRST_RETRY_S
        self._work.set()  # started again after a failure, it finds what had gathered
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self.flush()
                retry_s = FIRST_RETRY_S
            except DomainError as error:
                self._metrics.flush_failures += 1
                log.warning("fixes wait for the store", city_id=self._city_id, reason=error.reason, waiting=len(self._open))
                self._work.set()
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)

    @staticmethod
    def _settle(batch: Sequence[_Submission], rows: Sequence[np.ndarray], outcomes: Sequence[Outcomes]) -> None:
        for submission, some, what in zip(batch, rows, outcomes, strict=True):
            submission.outcomes[some] = what
            if not submission.done.done() and not (submission.outcomes == PENDING).any():
                submission.done.set_result(None)


def _summary(outcomes: Outcomes) -> Ingested:
    numbers, counts = np.unique(outcomes, return_counts=True)
    by_outcome = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    accepted = by_outcome.pop(ACCEPTED, 0)
    return Ingested(accepted, {DropReason(number): count for number, count in by_outcome.items()})
