"""What one driver's stream has handed in, and what became of it: counts between two acknowledgements."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from location.model import summed
from location.roster import Reporters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.kernel.clock import Clock
    from location.ingester import Ingester
    from location.model import Ingested

WINDOW: Final = 64
"""So many fixes of one stream may be on their way; then nothing more is read from it, and gRPC slows the sender."""


class Inbox:
    """The fixes of one stream on their way into the index."""

    def __init__(self, ingester: Ingester, driver_id: str, session: int, clock: Clock, ack_spacing_ms: int) -> None:
        self.session = session
        self.reporters = Reporters([driver_id])
        self._ingester = ingester
        self._clock = clock
        self._ack_spacing_ms = ack_spacing_ms
        self._waiting = 0
        self._outcomes: Counter[int] = Counter()
        self._up_to_sequence = 0
        self._report_interval_ms = 0
        self._acked_at_ms = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._room = asyncio.Event()
        self._ack_due = asyncio.Event()

    async def put(self, row: tuple[float, ...]) -> None:
        """Hands in one fix, a row of layout FIX. Waits where too many are on their way."""
        while self._waiting >= WINDOW:
            self._room.clear()
            await self._room.wait()
        if self._ingester.is_crowded:
            await self._ingester.until_uncrowded()
        self._waiting += 1
        self._ingester.put(self, row)

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come: what is on its way is acknowledged, and then, if there was a failure, it is raised."""
        self._ended = True
        self._failure = failure
        self._ack_due.set()

    def fail(self, failure: BaseException) -> None:
        """A fix that was on its way will not be dealt with: called once for each."""
        self._waiting -= 1
        self.end(failure)

    def settle(self, sequence: int, outcome: int, report_interval_ms: int) -> None:
        """Notes what became of a fix."""
        self._waiting -= 1
        self._outcomes[outcome] += 1
        self._up_to_sequence = max(self._up_to_sequence, sequence)
        self._report_interval_ms = report_interval_ms
        self._room.set()
        if self._ended or abs(self._clock.now_ms() - self._acked_at_ms) >= self._ack_spacing_ms:
            self._ack_due.set()
        else:
            self._ingester.ack_later(self)

    def ack_now(self) -> None:
        """Enough time has passed since the last acknowledgement."""
        self._ack_due.set()

    async def acks(self) -> AsyncIterator[tuple[int, Ingested, int]]:
        """What became of the fixes since the last of these: up to which sequence, the counts, how often to report from now on.

        At most one in `ack_spacing_ms`, but for the last. Ends when all is dealt with that came before `end`.
        """
        while True:
            await self._ack_due.wait()
            self._ack_due.clear()
            while self._outcomes:  # more may come while one is being sent
                outcomes, self._outcomes = self._outcomes, Counter()
                self._acked_at_ms = self._clock.now_ms()
                yield self._up_to_sequence, summed(outcomes), self._report_interval_ms
            if self._ended and not self._waiting:
                if self._failure is not None:
                    raise self._failure
                return
