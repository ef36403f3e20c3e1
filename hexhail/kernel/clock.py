"""What time is it? One clock per process, given to whoever needs it; decisions get `now_ms` as an argument."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time, and a way to wait for it."""

    def now_ms(self) -> int:
        """Unix milliseconds, UTC. Never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Returns once `seconds` have passed on this clock."""


class SystemClock:
    """The machine's time, moved by a constant offset, so that a demo can live on the night of its data."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        self._last_ms = 0

    def now_ms(self) -> int:
        """Unix milliseconds, UTC; holds still where the machine's clock is set back."""
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000 + self.offset_ms)
        return self._last_ms

    async def sleep(self, seconds: float) -> None:
        """Returns once `seconds` have passed."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock for tests: it stands still until told to go on, and refuses to go back."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        """Unix milliseconds, UTC."""
        return self._now_ms

    @property
    def sleepers(self) -> int:
        """How many wait for it to go on? Whoever advances it for one who is not asleep yet lets that one sleep on."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Returns once the clock has been advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now_ms + round(seconds * 1000), self._count, future))
        await future

    def advance(self, ms: int) -> None:
        """Goes on by `ms`, waking in order whoever sleeps until then."""
        if ms < 0:
            raise ValueError(f"a clock does not go back (by {-ms} ms)")
        self._now_ms += ms
        while self._sleepers and self._sleepers[0][0] <= self._now_ms:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
