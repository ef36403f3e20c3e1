"""What moves before a watcher's eyes: while somebody watches, one task reads the store, at the shortest period that was asked."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.units import MS_PER_S
from location.watching import View, difference, view_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from hexhail.kernel.clock import Clock
    from location.known import DriverIds
    from location.metrics import LocationMetrics
    from location.mirror import Mirror
    from location.model import Records
    from location.watching import Scope

log = structlog.get_logger(__name__)

HEARTBEAT_MS: Final = 5_000
"""After so long without a change a watcher is told that there was none. Source: our choice."""

EARLY: Final = 0.05
"""The share of its period by which a watcher may be served early: the clocks that measure it and that wait for it may differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One message to a watcher.

    sequence : 1, 2, 3 ... in each stream
    snapshot : the drivers are all that there are; else those that changed
    driver_ids, records : object[k], RECORD[k]
    gone : ids of who is not to be seen any more
    as_of_ms : when the store was read
    """

    epoch: str
    sequence: int
    snapshot: bool
    driver_ids: DriverIds
    records: Records
    gone: list[bytes]
    as_of_ms: int


@dataclass(slots=True, eq=False)
class _Eyes:
    """What one watcher wants, and what it was last sent."""

    scope: Scope
    period_ms: int
    view: View | None = None
    sequence: int = 0
    sent_at_ms: int = 0
    as_of_ms: int = 0

    @property
    def due_at_ms(self) -> float:
        """When may it be sent the next message?"""
        return self.sent_at_ms + (1 - EARLY) * self.period_ms


class Watcher:
    """Watches one city for whoever asks."""

    def __init__(self, mirror: Mirror, limit_ms: int, clock: Clock, metrics: LocationMetrics) -> None:
        self._mirror = mirror
        self._limit_ms = limit_ms
        self._clock = clock
        self._metrics = metrics
        self._open: set[_Eyes] = set()
        self._reader: asyncio.Task[None] | None = None
        self._pace_ms = 0
        self._round: asyncio.Future[None] | None = None
        self._rounds = 0
        self._round_at_ms = 0

    async def watch(self, scope: Scope, period_ms: int) -> AsyncGenerator[Sighting, None]:
        """All fresh drivers of a scope; then, at most once in a period, what changed.

        Freshness is judged at the moment of sending: who falls silent is gone though the store be away. Nothing else is said
        until it answers again; it must answer at the start, else STORE_UNAVAILABLE is raised.
        """
        eyes = _Eyes(scope, period_ms)
        with self._opened(eyes):
            await self._mirror.refresh()
            looked_at_ms = self._clock.now_ms()
            while True:
                looked_in = self._rounds
                if (sighting := self._look(eyes)) is not None:
                    eyes.sent_at_ms = looked_at_ms
                    self._metrics.watch_messages += 1
                    yield sighting
                while self._rounds == looked_in or self._round_at_ms < eyes.due_at_ms:
                    await self._next_round()
                looked_at_ms = self._round_at_ms

    def _look(self, eyes: _Eyes) -> Sighting | None:
        """The next message, if there is anything to say."""
        now_ms, snapshot = self._clock.now_ms(), self._mirror.latest
        view, rows = view_of(snapshot, eyes.scope, now_ms, self._limit_ms)
        news = difference(eyes.view, view)
        is_heartbeat_due = now_ms - eyes.sent_at_ms >= HEARTBEAT_MS and snapshot.as_of_ms > eyes.as_of_ms
        if not news.says_something() and not is_heartbeat_due:
            return None
        eyes.view, eyes.as_of_ms = view, snapshot.as_of_ms
        eyes.sequence += 1
        changed = rows[news.rows]
        return Sighting(
            epoch=view.epoch,
            sequence=eyes.sequence,
            snapshot=news.snapshot,
            driver_ids=snapshot.driver_ids[changed],
            records=snapshot.records[changed],
            gone=news.gone,
            as_of_ms=snapshot.as_of_ms,
        )

    @contextmanager
    def _opened(self, eyes: _Eyes) -> Iterator[None]:
        """Has the store read for this watcher for the time of the block."""
        self._open.add(eyes)
        self._keep_pace()
        try:
            yield
        finally:
            self._open.discard(eyes)
            self._keep_pace()

    def _keep_pace(self) -> None:
        """Lets the reader run while somebody watches; a slower pace it takes up by itself."""
        pace_ms = min((eyes.period_ms for eyes in self._open), default=0)
        if self._reader is not None and (not pace_ms or pace_ms < self._pace_ms):
            self._reader.cancel()
            self._reader = None
        self._pace_ms = pace_ms
        if pace_ms and self._reader is None:
            if self._round is None or self._round.done():
                self._round = asyncio.get_running_loop().create_future()
            self._reader = asyncio.create_task(self._read_on(), name="reader for watchers")
            self._reader.add_done_callback(self._on_reader_end)

    async def _next_round(self) -> None:
        assert self._round is not None  # noqa: S101 - somebody watches
        await asyncio.shield(self._round)

    async def _read_on(self) -> None:
        """Reads round by round, and wakes the watchers after each, though it found the store away."""
        away = False
        while self._reader is asyncio.current_task():
            await self._clock.sleep(self._pace_ms / MS_PER_S)
            try:
                await self._mirror.refresh()
                away = False
            except DomainError as error:
                if not away:
                    log.warning("watchers wait for the store", reason=error.reason)
                away = True
            self._rounds += 1
            self._round_at_ms = self._clock.now_ms()
            over, self._round = self._round, asyncio.get_running_loop().create_future()
            if over is not None:
                over.set_result(None)

    def _on_reader_end(self, reader: asyncio.Task[None]) -> None:
        """A defect ends the streams that wait for the reader; the next one to watch starts it anew."""
        if reader.cancelled() or (defect := reader.exception()) is None:
            return
        if self._reader is reader:
            self._reader = None
        if self._round is not None and not self._round.done():
            self._round.set_exception(defect)
