"""Which worker holds a driver's session, when the driver comes back elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.ids import CityId
from hexhail.kernel.settings import Settings
from matching.redis_sessions import RENEWED_AT_ONCE, SESSION_TTL_MS, RedisSessions
from tests.matching.rides import NOW_MS

if TYPE_CHECKING:
    from hexhail.stores.valkey import Valkey

CITY = CityId("gridport")


async def test_an_old_stream_neither_ends_nor_renews_the_session_that_another_worker_holds(asked: Valkey) -> None:
    cities, clock = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS)
    first, second, third = (RedisSessions(asked, cities, clock, worker) for worker in ("a", "b", "c"))
    await first.open(CITY, "d1", "s1")
    await second.open(CITY, "d1", "s2")
    await first.renew()
    assert not await first.holds(CITY, "d1", "s1")
    assert await second.holds(CITY, "d1", "s2")
    await first.close(CITY, "d1", "s1")
    assert await third.with_session(CITY, ["d1"]) == {"d1"}
    await second.close(CITY, "d1", "s2")
    assert await third.with_session(CITY, ["d1"]) == set()


async def test_more_sessions_than_are_renewed_in_one_go_are_all_renewed(asked: Valkey) -> None:
    """Others believe a session for 15 s from its last renewal."""
    cities, clock = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS)
    here, elsewhere = (RedisSessions(asked, cities, clock, worker) for worker in ("a", "b"))
    drivers = [f"d{number}" for number in range(2 * RENEWED_AT_ONCE + 1)]
    await asyncio.gather(*(here.open(CITY, driver, f"s-{driver}") for driver in drivers))
    clock.advance(SESSION_TTL_MS - 1)
    await here.renew()
    clock.advance(SESSION_TTL_MS - 1)
    assert await elsewhere.with_session(CITY, drivers) == set(drivers)
    clock.advance(1)
    assert await elsewhere.with_session(CITY, drivers) == set()
