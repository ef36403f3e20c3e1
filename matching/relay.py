"""Brings a city's events from the log to its stream: at least once, in order per ride, by one worker at a time."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.units import MS_PER_S
from matching.relaying import EpochReason, Telling, begun, told, why_anew

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.metrics import MatchingMetrics
    from matching.relaying import RelayParams
    from matching.store import EventLog, EventStream, Leases

log = structlog.get_logger(__name__)


class Relay:
    """The relay of one city. Several may run: one has the lease, and what a stale one writes are repeats."""

    def __init__(
        self,
        city_id: CityId,
        leases: Leases,
        event_log: EventLog,
        stream: EventStream,
        clock: Clock,
        params: RelayParams,
        metrics: MatchingMetrics,
    ) -> None:
        self._city_id = city_id
        self._duty = f"relay/{city_id}"
        self._leases = leases
        self._log = event_log
        self._stream = stream
        self._clock = clock
        self._params = params
        self._metrics = metrics
        self._term: int | None = None
        self._look_at_ms = 0
        """When the lease is asked for again, and the stream looked at."""
        self._telling = Telling()
        self._woken = asyncio.Event()
        self._silent = False

    def wake(self) -> None:
        """Something has been committed here."""
        self._woken.set()

    async def run(self) -> None:
        """Tells what is committed, for ever."""
        while True:
            await self._until_woken()
            try:
                await self.tell()
                self._silent = False
            except DomainError as error:
                if not self._silent:
                    log.warning("events are told later", city_id=self._city_id, reason=error.reason, error=error.message)
                self._silent = True
            await self._clock.sleep(self._params.pause_s)

    async def tell(self) -> int:
        """Tells all that is committed by now, if this worker has the lease; how many events? Raises STORE_UNAVAILABLE."""
        try:
            return await self._tell()
        except DomainError:
            # A database that was away may come back without its last transactions: what it knows of the telling counts, not this.
            self._term, self._look_at_ms = None, 0
            raise

    async def _tell(self) -> int:
        count = 0
        while await self._is_ours():
            new_round = not self._telling.seeing
            page = await self._log.read(self._city_id, self._telling, self._params.batch)
            if not page.seeing:
                return count
            entry_id = await self._stream.append(self._telling.entry_id, page.events)
            if entry_id is None:
                await self._begin(EpochReason.STREAM_LOST)
                continue
            count += len(page.events)
            self._metrics.events_told += len(page.events)
            if not await self._record(told(self._telling, page, entry_id)):
                return count
            self._metrics.relay_rounds += page.last
            if page.last and new_round:
                return count
        return count

    async def close(self) -> None:
        """Leaves the lease to others."""
        if self._term is None:
            return
        self._term = None
        try:
            await self._leases.give_up(self._duty)
        except DomainError as error:
            log.warning("lease left to expire", city_id=self._city_id, reason=error.reason)

    async def _is_ours(self) -> bool:
        """Has this worker the lease? Asked for now and then; whoever gets it anew reads how far the one before had come."""
        now_ms = self._clock.now_ms()
        if now_ms < self._look_at_ms:
            return self._term is not None
        lease_ms = round(self._params.lease_s * MS_PER_S)
        term = await self._leases.take(self._duty, now_ms, lease_ms)
        if term is not None and term != self._term:
            self._telling, now = await self._log.progress(self._city_id)
            log.info("relaying events", city_id=self._city_id, epoch=self._telling.epoch, term=term)
            self._term = term
            reason = why_anew(self._telling, now)
            if reason is not None:
                await self._begin(reason)
        self._term = term
        if term is not None and await self._stream.append(self._telling.entry_id, ()) is None:
            await self._begin(EpochReason.STREAM_LOST)
        self._look_at_ms = now_ms + lease_ms // 3
        return self._term is not None

    async def _begin(self, reason: EpochReason) -> None:
        """Begins an epoch: entry first, so that a record of it never points to an entry that was not written."""
        begins = begun(secrets.token_hex(8), self._clock.now_ms(), self._params)
        entry_id = await self._stream.begin(begins.epoch, begins.from_at_ms, reason.value, self._telling.entry_id)
        self._metrics.stream_epochs += 1
        if reason is not EpochReason.FIRST:
            log.warning("the stream of events begins anew", city_id=self._city_id, reason=reason, from_at_ms=begins.from_at_ms)
        await self._record(replace(begins, entry_id=entry_id))

    async def _record(self, progress: Telling) -> bool:
        """Keeps the progress; False, and no lease any more, where another worker's term has begun."""
        if self._term is not None and await self._log.record(self._city_id, self._term, progress):
            self._telling = progress
            return True
        self._term = None
        return False

    async def _until_woken(self) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(self._params.poll_s)), asyncio.ensure_future(self._woken.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._woken.clear()
