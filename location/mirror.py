"""The drivers of a city as this worker last read them: one reader of the store for all who count, watch and search in bulk.

Nobody asks, nothing is read. Whoever asks says how old the answer may be; who asks at the same time shares a reading.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError
from hexhail.kernel.units import MS_PER_S
from location.known import KnownDrivers, Snapshot

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from location.metrics import LocationMetrics
    from location.store import LocationStore


@dataclass(slots=True)
class _Bucket:
    """How far a bucket was read, and what it said of its states then."""

    mark: str = ""
    epoch: str = ""
    complete: bool = False


class Mirror:
    """Mirrors one city."""

    def __init__(self, store: LocationStore, limit_ms: int, clock: Clock, metrics: LocationMetrics) -> None:
        self._store = store
        self._limit_ms = limit_ms
        self._clock = clock
        self._metrics = metrics
        self._buckets = [_Bucket() for _ in range(store.buckets)]
        self._known = KnownDrivers(limit_ms)
        self._epoch = ""
        self._named: list[str] = []
        self._reading = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._failed = 0
        self._failure: DomainError | None = None
        self._latest = self._known.snapshot("", 0, complete=False)

    @property
    def latest(self) -> Snapshot:
        """What was read last, without asking the store; nobody and as of long ago where that was never done."""
        return self._latest

    async def refresh(self, max_age_ms: int = 0) -> Snapshot:
        """Everyone who is fresh, read at most `max_age_ms` ago; 0 asks for a reading that begins after the question.

        Raises STORE_UNAVAILABLE, and leaves the latest snapshot as it is.
        """
        asked_after = self._begun
        async with self._reading:
            if self._done > asked_after or self._is_younger_than(max_age_ms):
                return self._latest
            if self._failure is not None and self._failed > asked_after:
                raise _copy(self._failure)
            self._begun += 1
            try:
                self._latest = await self._read()
            except DomainError as error:
                self._failed, self._failure = self._begun, _copy(error)
                raise
            self._done = self._begun
            return self._latest

    async def run(self) -> None:
        """Lets go, now and then, of what nobody has asked about for so long that none of it counts any more."""
        while True:
            await self._clock.sleep(self._limit_ms / MS_PER_S)
            if len(self._known) and not self._reading.locked() and not self._is_younger_than(self._limit_ms):
                self._let_go()

    def _is_younger_than(self, age_ms: int) -> bool:
        return self._done > 0 and age_ms > 0 and abs(self._clock.now_ms() - self._latest.as_of_ms) <= age_ms

    def _let_go(self) -> None:
        self._known.forget_all()
        for bucket in self._buckets:
            bucket.mark = ""
        self._latest = self._known.snapshot(self._epoch, self._latest.as_of_ms, complete=False)

    async def _read(self) -> Snapshot:
        as_of_ms = self._clock.now_ms()
        answers = await asyncio.gather(*(self._read_bucket(row) for row in range(len(self._buckets))), return_exceptions=True)
        for answer in answers:
            if answer is not None:
                raise answer
        epochs = [bucket.epoch for bucket in self._buckets]
        if epochs != self._named:
            self._epoch, self._named = (await self._store.state_epoch()).epoch, epochs
        self._metrics.mirror_readings += 1
        complete = all(bucket.complete for bucket in self._buckets)
        return self._known.snapshot(self._epoch, as_of_ms, complete=complete)

    async def _read_bucket(self, number: int) -> None:
        """Takes in all that changed in a bucket. What was read before a failure stays: the next reading goes on behind it."""
        bucket = self._buckets[number]
        while True:
            changes = await self._store.read_changes(number, bucket.mark)
            epoch = changes.epoch.epoch
            if epoch != bucket.epoch:
                self._known.forget_bucket(number, len(self._buckets))
                begun, bucket.mark, bucket.epoch = bool(bucket.mark), "", epoch
                if begun:
                    continue  # the bucket was lost: what it has now is to be read from the start
            if not epoch:
                await self._store.state_epoch()  # gives it one, so that its loss will show
                continue
            self._known.take_in(changes.drivers)
            self._metrics.mirror_changes += len(changes.drivers.driver_ids)
            bucket.mark, bucket.complete = changes.mark, changes.epoch.complete
            if changes.whole:
                return


def _copy(error: DomainError) -> DomainError:
    """The same, to be raised elsewhere: an error that is kept would keep all that it was raised through."""
    return DomainError(error.reason, error.message, violations=error.violations, **error.metadata)
