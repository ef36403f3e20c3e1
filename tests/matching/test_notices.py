"""The line on which notices come in: a dead one is found out by its silence, and everybody is woken when it is back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.settings import Settings
from matching.notices import Notices
from tests.e2e.people import until
from tests.matching.rides import NOW_MS


@dataclass
class Line:
    """A subscription. One that is dead says nothing, and takes questions without an answer."""

    dead: bool
    messages: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    pings: int = 0
    closed: bool = False

    async def ssubscribe(self, *_channels: str) -> None:
        await self.messages.put({"type": "ssubscribe"})

    async def get_message(self, timeout: float | None) -> dict[str, Any] | None:
        if self.dead:
            return None
        return await self.messages.get()

    async def ping(self) -> None:
        self.pings += 1
        if not self.dead:
            await self.messages.put({"type": "pong"})

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FakeRedis:
    lines: list[Line]
    opened: int = 0

    def pubsub(self) -> Line:
        self.opened += 1
        return self.lines[self.opened - 1]


async def test_a_line_that_has_gone_dead_is_left_and_everybody_woken() -> None:
    dead, alive = Line(dead=True), Line(dead=False)
    redis: Any = FakeRedis([dead, alive])
    clock = ManualClock(NOW_MS)
    notices = Notices(redis, redis, Cities([load_city("gridport", Settings())]), clock, "w1")
    woken: list[str] = []
    with notices.watch("ride", lambda _ride: woken.append("ride")), notices.watch("other", lambda _ride: woken.append("other")):
        listening = asyncio.create_task(notices.listen())
        try:

            def is_back() -> bool:
                clock.advance(100)
                return redis.opened == 2 and len(woken) == 4

            await until(is_back, "still on the dead line")
            assert (dead.pings, dead.closed) == (1, True)
            for pings in (1, 2):
                await alive.messages.put(None)
                await until(lambda n=pings: alive.pings == n, "not asked whether it is there")  # type: ignore[misc]
            await alive.messages.put({"type": "smessage", "data": b"w2\nride"})
            await until(lambda: len(woken) == 5, "not woken by another worker's notice")
            await alive.messages.put({"type": "smessage", "data": b"w1\nride"})
            await alive.messages.put(None)
            await until(lambda: alive.pings == 3, "not asked whether it is there")
            assert woken[4:] == ["ride"], "one's own notice wakes nobody again"
            assert redis.opened == 2
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
