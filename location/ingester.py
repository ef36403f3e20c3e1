"""From the streams to the index: fixes gather for some milliseconds, are judged together, and go in together.

Fixes come from drivers' own streams one by one (`put`, by way of an `Inbox`) and in batches (`submit`). A flush takes all that
has gathered, reads up what this worker does not know of its drivers, judges it in one call (`freshness.believe`), and writes what
is believed, one row a driver. One flush is judged while the one before is being written.

Whoever hands in fixes is told when they are dealt with, and may have only so many on their way: a slow store slows its senders
down, gRPC stops reading, and memory is bounded. While the store is away, what was judged is written again and again (repeating is
harmless), and what gathers meanwhile waits; of it, only what a newer fix of the same driver supersedes is dropped. The time of
receipt stays what it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError
from hexhail.rpc.background import computed
from location.freshness import Box, believe, is_newer, reporting_intervals_ms
from location.inbox import Inbox
from location.model import (
    ACCEPTED,
    FIX,
    PENDING,
    POSITION,
    TRACK,
    Availability,
    DropReason,
    Ingested,
    Outcomes,
    Records,
    blocks,
    taken,
    tally,
)
from location.records import pack_positions, unpack_positions
from location.roster import Roster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Ints
    from location.metrics import LocationMetrics
    from location.params import LocationParams
    from location.roster import Reporters
    from location.store import LocationStore

log = structlog.get_logger(__name__)

GATHER_S: Final = 0.025
"""Flushes begin no closer together than this: a few hundred fixes in one cost little more than one."""

MAX_WAITING: Final = 200_000
"""So many fixes may wait for a flush; then no stream is read until some are dealt with."""

MAX_FLUSHES: Final = 2
"""So many flushes are being written at once, while the next is judged."""

MOST_AT_ONCE: Final = 2_048
"""So many fixes are one write: about 10 ms of the store's time. What is written stays so when another fails."""

WRITES_AT_ONCE: Final = 3
"""So many writes are under way at once: the store has always one to work on while the next is packed."""

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
FORGET_AFTER_MS: Final = 600_000
"""Drivers silent for so long are forgotten, once they are a quarter of all; who comes back is read up again."""

FORGET_PERIOD_MS: Final = 60_000

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Batch:
    """Fixes handed in together; `done` is given the outcomes."""

    reporters: Reporters
    indices: Ints
    fixes: Records
    done: asyncio.Future[Outcomes]


def _nothing() -> Any:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class _Flush:
    """What goes in together: first the fixes of single streams, row by row with `inboxes`, then those of the batches.

    size : how many fixes it has
    driver_rows : int64[n], in the roster of this generation
    fixes : FIX[n]
    received_at_ms : int64[n]
    outcomes : int8[n], PENDING where to be written
    report_interval_ms : int64[n], how often each driver is asked to report from now on
    kept, driver_ids : int64[k], which fixes are to be written, and whose they are
    """

    inboxes: list[Inbox]
    batches: list[_Batch]
    size: int
    generation: int
    driver_rows: Ints = field(default_factory=_nothing)
    fixes: Records = field(default_factory=_nothing)
    received_at_ms: Ints = field(default_factory=_nothing)
    outcomes: Outcomes = field(default_factory=_nothing)
    report_interval_ms: Ints = field(default_factory=_nothing)
    kept: Ints = field(default_factory=_nothing)
    driver_ids: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Tells everyone what became of their fixes."""
        singles = len(self.inboxes)
        columns = (self.fixes["sequence"], self.outcomes, self.report_interval_ms)
        rows = zip(self.inboxes, *(column[:singles].tolist() for column in columns), strict=True)
        for inbox, sequence, outcome, report_interval_ms in rows:
            inbox.settle(sequence, outcome, report_interval_ms)
        first = singles
        for batch in self.batches:
            if not batch.done.done():
                batch.done.set_result(self.outcomes[first : first + len(batch.fixes)])
            first += len(batch.fixes)

    def fail(self) -> None:
        """Tells everyone that a defect of ours came between, or the end of the service."""
        error = RuntimeError("these fixes were not dealt with")
        for inbox in self.inboxes:
            inbox.fail(error)
        for batch in self.batches:
            if not batch.done.done():
                batch.done.set_exception(error)


class Ingester:
    """Takes in the fixes of one city."""

    def __init__(self, city: City, store: LocationStore, params: LocationParams, clock: Clock, metrics: LocationMetrics) -> None:
        west, south, east, north = city.area.bounds
        self._box = Box(south, west, north, east).widened(params.belief.city_margin_m)
        self._index_resolution = city.index_resolution
        self._limit_ms = round(city.freshness_limit_s * 1000)
        self.usual_interval_ms = min(params.reporting.report_interval_ms, self._limit_ms // 3)
        self._city_id = city.city_id
        self._store = store
        self._params = params
        self._clock = clock
        self._metrics = metrics
        self._roster = Roster()
        self._inboxes: list[Inbox] = []
        self._rows: list[tuple[float, ...]] = []
        self._batches: list[_Batch] = []
        self._waiting = 0
        self._work = asyncio.Event()
        self._uncrowded = asyncio.Event()
        self._room = asyncio.Semaphore(WRITES_AT_ONCE)
        self._unsettled: set[_Flush] = set()
        self._late: set[Inbox] = set()
        self._forgot_at_ms = clock.now_ms()

    def open(self, driver_id: str, session: int) -> Inbox:
        """Where a driver's stream hands in its fixes."""
        return Inbox(self, driver_id, session, self._clock, self._params.ack_spacing_ms)

    @property
    def is_crowded(self) -> bool:
        """Do so many fixes wait that no more should be handed in?"""
        return self._waiting >= MAX_WAITING

    async def until_uncrowded(self) -> None:
        """Returns when there is room again."""
        while self.is_crowded:
            self._uncrowded.clear()
            await self._uncrowded.wait()

    def put(self, inbox: Inbox, row: tuple[float, ...]) -> None:
        """Takes one fix of a stream, a row of layout FIX; the inbox is told what becomes of it."""
        self._inboxes.append(inbox)
        self._rows.append(row)
        self._waiting += 1
        self._work.set()

    def ack_later(self, inbox: Inbox) -> None:
        """Reminds the inbox of its acknowledgement at the next round."""
        self._late.add(inbox)

    async def submit(self, reporters: Reporters, indices: Ints, fixes: Records) -> Ingested:
        """What becomes of these fixes (FIX[n], of the reporters int64[n])? Returns once each is in the index or dropped."""
        if not len(fixes):
            return Ingested(0, {})
        await self.until_uncrowded()
        batch = _Batch(reporters, indices, fixes, asyncio.get_running_loop().create_future())
        self._batches.append(batch)
        self._waiting += len(fixes)
        self._work.set()
        return tally(await batch.done)

    def report_interval_ms(self, reporters: Reporters) -> int:
        """How often is the first of these drivers asked to report?"""
        known_ms = int(self._roster.report_interval_ms[reporters.rows_in(self._roster)[0]])
        return known_ms or self.usual_interval_ms

    async def run(self) -> None:
        """Flushes whenever something has gathered, for ever. However it ends, nobody is left waiting for what it had taken."""
        loop = asyncio.get_running_loop()
        writing = asyncio.Semaphore(MAX_FLUSHES)
        before: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as writes:
                writes.create_task(self._acknowledge())
                while True:
                    await self._work.wait()
                    await writing.acquire()
                    began_s = loop.time()
                    self._forget_silent()
                    flush = self._taken_up()
                    await self._judge(flush)
                    before = writes.create_task(self._write(flush, before))
                    before.add_done_callback(lambda _: writing.release())
                    await asyncio.sleep(max(0.0, began_s + GATHER_S - loop.time()))
        finally:
            for flush in list(self._unsettled):
                flush.fail()
                self._let_go(flush)

    def _taken_up(self) -> _Flush:
        """All that has gathered."""
        inboxes, rows, batches = self._inboxes, self._rows, self._batches
        self._inboxes, self._rows, self._batches = [], [], []
        self._work.clear()
        roster = self._roster
        flush = _Flush(inboxes, batches, len(rows) + sum(len(batch.fixes) for batch in batches), roster.generation)
        self._unsettled.add(flush)
        flush.fixes = np.concatenate([np.array(rows, dtype=FIX), *(batch.fixes for batch in batches)])
        singles = np.fromiter((inbox.reporters.rows_in(roster)[0] for inbox in inboxes), dtype=np.int64, count=len(inboxes))
        flush.driver_rows = np.concatenate([singles, *(batch.reporters.rows_in(roster)[batch.indices] for batch in batches)])
        known_ms = roster.report_interval_ms[flush.driver_rows]
        flush.report_interval_ms = np.where(known_ms > 0, known_ms, self.usual_interval_ms)
        return flush

    def _let_go(self, flush: _Flush) -> None:
        """A flush is settled, or has failed: there is room for as many fixes again."""
        if flush in self._unsettled:
            self._unsettled.remove(flush)
            self._waiting -= flush.size
            self._uncrowded.set()

    async def _judge(self, flush: _Flush) -> None:
        roster = self._roster
        distinct, driver_of_fix = np.unique(flush.driver_rows, return_inverse=True)
        await self._read_up(distinct, driver_of_fix, flush.fixes)
        tracks = taken(roster.tracks, distinct)
        belief = await computed(len(tracks), believe, driver_of_fix, flush.fixes, tracks, self._box, self._params.belief)
        blocks(roster.tracks)[distinct] = blocks(belief.tracks)
        flush.outcomes = belief.outcomes
        flush.received_at_ms = belief.received_at_ms
        flush.kept = np.flatnonzero(belief.outcomes == PENDING)
        flush.driver_ids = [roster.driver_ids[row] for row in flush.driver_rows[flush.kept].tolist()]

    async def _read_up(self, distinct: Ints, driver_of_fix: Ints, fixes: Records) -> None:
        """Reads the last position of drivers that are new here, or come with a new session: another worker may have had them."""
        roster = self._roster
        sessions = np.zeros(len(distinct), dtype=np.int64)
        np.maximum.at(sessions, driver_of_fix, fixes["session"])
        unread = distinct[roster.tracks["believed"]["session"][distinct] < sessions]
        if not len(unread):
            return
        driver_ids = [roster.driver_ids[row] for row in unread.tolist()]
        positions = await self._until_answered(lambda: self._store.read_positions(driver_ids))
        rows = unread[[row for row, position in enumerate(positions) if position is not None]]
        found = unpack_positions(np.frombuffer(b"".join(filter(None, positions)), dtype=POSITION))
        known = taken(roster.tracks, rows)["believed"]
        # a receipt far in the future is none of this clock's, and tells nothing of how far the driver can have come
        newer = is_newer(found, known) & (found["received_at_ms"] < self._clock.now_ms() + self._limit_ms)
        tracks = np.zeros(int(newer.sum()), dtype=TRACK)
        tracks["believed"] = found[newer]
        blocks(roster.tracks)[rows[newer]] = blocks(tracks)

    async def _write(self, flush: _Flush, before: asyncio.Task[None] | None) -> None:
        """Writes what is believed, until the store has it; settles the flushes in the order of their judging."""
        await self._write_believed(flush)
        if before is not None:
            await asyncio.wait([before])
        flush.settle()
        self._let_go(flush)
        self._metrics.count(tally(flush.outcomes))

    async def _write_believed(self, flush: _Flush) -> None:
        kept, roster = flush.kept, self._roster
        if not len(kept):
            return
        fixes, received_at_ms = taken(flush.fixes, kept), flush.received_at_ms[kept]
        positions = await computed(len(kept), pack_positions, fixes, received_at_ms, self._index_resolution)
        availability = np.empty(len(kept), dtype=np.int64)

        async def write(rows: Ints) -> None:
            async with self._room:
                driver_ids, some = [flush.driver_ids[row] for row in rows.tolist()], taken(positions, rows)
                availability[rows] = await self._until_answered(partial(self._store.write_fixes, driver_ids, some))

        async with asyncio.TaskGroup() as writes:
            for rows in self._pieces(positions):
                writes.create_task(write(rows))
        self._metrics.flushes += 1
        flush.outcomes[kept] = np.where(availability >= 0, ACCEPTED, DropReason.NOT_NEWER)
        if flush.generation == roster.generation:
            rows = flush.driver_rows[kept]
            tracks = taken(roster.tracks, rows)
            if (availability < 0).any():  # two flushes are written at once: the later may have come first
                overtaken = (availability < 0) & is_newer(tracks["believed"], flush.fixes[kept])
                flush.outcomes[kept[overtaken]] = DropReason.SUPERSEDED
            on_ride = availability == Availability.ON_RIDE
            roster.report_interval_ms[rows] = flush.report_interval_ms[kept] = reporting_intervals_ms(
                tracks, on_ride, self._clock.now_ms(), self._limit_ms, self._params.reporting
            )

    @staticmethod
    def _pieces(positions: Records) -> list[Ints]:
        """The rows of a flush in pieces that a slow store writes well within the time of an answer; those of a cell together."""
        order = np.argsort(positions["cell"], kind="stable")
        return [order[first : first + MOST_AT_ONCE] for first in range(0, len(order), MOST_AT_ONCE)]

    async def _until_answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Asks the store again and again, ever more slowly, until it answers."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                return await ask()
            except DomainError as error:
                self._metrics.flush_failures += 1
                log.warning("fixes wait for the store", city_id=self._city_id, reason=error.reason, waiting=self._waiting)
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _acknowledge(self) -> None:
        """Sees to acknowledgements that were put off."""
        while True:
            await self._clock.sleep(self._params.ack_spacing_ms / 1000)
            late, self._late = self._late, set()
            for inbox in late:
                inbox.ack_now()

    def _forget_silent(self) -> None:
        """Forgets, now and then, who has not reported to this worker for long."""
        now_ms = self._clock.now_ms()
        if abs(now_ms - self._forgot_at_ms) >= FORGET_PERIOD_MS:
            self._forgot_at_ms = now_ms
            self._roster.forget_before(now_ms - FORGET_AFTER_MS)
