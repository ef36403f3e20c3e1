"""What workers tell each other of a change, and the line on which it comes in: a dead one is found out by its silence."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.ids import RideId
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import answered, connect
from matching import keys
from matching.notices import Notices
from matching.rows import ride_of_line
from tests.e2e.people import until
from tests.matching.rides import NOW_MS, offered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.stores.valkey import Valkey
    from matching.model import Ride

RIDE = offered("d1", "d2")


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


@dataclass
class Worker:
    """One of several, and what its watchers were given."""

    notices: Notices
    given: list[Ride | None] = field(default_factory=list)
    remembered: list[Ride] = field(default_factory=list)


@pytest.fixture
async def workers(asked: Valkey, valkey_url: str) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two that listen, the second with a watcher of the ride."""
    cities, clock = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS)
    async with aclosing(connect(valkey_url)) as one, aclosing(connect(valkey_url)) as two:
        first, second = (Worker(Notices(ear, asked, cities, clock, name)) for ear, name in ((one, "w1"), (two, "w2")))
        second.notices.on_ride = second.remembered.append
        with second.notices.watch(RIDE.ride_id, second.given.append):
            listening = [asyncio.create_task(each.notices.listen()) for each in (first, second)]
            try:
                channel = keys.notices("gridport")
                await until_heard(asked, channel, 2)
                await until(lambda: second.given, "not woken when the line was there")
                second.given.clear()
                yield first, second
            finally:
                for task in listening:
                    task.cancel()
                await asyncio.gather(*listening, return_exceptions=True)


async def until_heard(asked: Valkey, channel: str, count: int) -> None:
    async def heard() -> bool:
        ((_, listeners),) = answered(await asked.ask([("PUBSUB", "SHARDNUMSUB", channel)]))
        return bool(listeners == count)

    await until(heard, f"not {count} listen")


async def test_watchers_elsewhere_are_given_the_ride_as_it_was_committed(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    first.notices.publish("gridport", [RIDE.ride_id], RIDE)
    await until(lambda: second.given, "not woken by the other worker's notice")
    assert second.given == second.remembered == [RIDE]


async def test_what_nobody_watches_is_not_read(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    first.notices.publish("gridport", ["gridport-other"], replace(RIDE, ride_id=RideId("gridport-other")))
    first.notices.publish("gridport", [RIDE.ride_id], RIDE)
    await until(lambda: second.given, "not woken by the other worker's notice")
    assert second.remembered == [RIDE]


async def test_what_is_remembered_is_kept_up_though_nobody_watches_it(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    other = replace(RIDE, ride_id=RideId("gridport-other"))
    second.notices.is_remembered = {other.ride_id}.__contains__
    first.notices.publish("gridport", [other.ride_id], other)
    await until(lambda: second.remembered, "not heard")
    assert second.remembered == [other]
    assert second.given == []


async def test_notices_without_a_ride_and_unreadable_ones_send_watchers_to_postgresql(
    workers: tuple[Worker, Worker], asked: Valkey
) -> None:
    first, second = workers
    first.notices.publish("gridport", [RIDE.ride_id])
    for wrong in ('{"ride_id": 1}', "{not json", '{"body": null}'):
        answered(await asked.ask([("SPUBLISH", keys.notices("gridport"), f"w0\n{RIDE.ride_id}\n{wrong}")]))
    answered(await asked.ask([("SPUBLISH", keys.notices("gridport"), f"w0\n{RIDE.ride_id}")]))
    await until(lambda: len(second.given) == 5, "not woken five times")
    assert second.given == [None] * 5
    assert second.remembered == []


async def test_a_worker_alone_says_little_until_another_hears_it(valkey_url: str, asked: Valkey) -> None:
    """The first notice that another hears has no ride: its watchers read PostgreSQL. The next one has."""
    cities, clock = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS)
    async with aclosing(connect(valkey_url)) as ear:
        notices = Notices(ear, asked, cities, clock, "w1")
        notices.publish("gridport", [RIDE.ride_id], RIDE)
        await notices.close()
        heard = ear.pubsub()
        await heard.ssubscribe(keys.notices("gridport"))
        await heard.get_message(timeout=10.0)
        also = ear.pubsub()
        await also.ssubscribe(keys.notices("gridport"))
        await until_heard(asked, keys.notices("gridport"), 2)
        told = []
        for _ in range(2):
            notices.publish("gridport", [RIDE.ride_id], RIDE)
            message = await heard.get_message(timeout=10.0)
            assert message is not None
            told.append(message["data"].decode().split("\n")[2])
        assert [line == "{}" for line in told] == [True, False]
        assert ride_of_line(told[1]) == RIDE
        for each in (heard, also):
            await each.aclose()  # type: ignore[no-untyped-call]
