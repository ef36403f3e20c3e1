"""What a phone is told of its offers, in whatever order the notices come."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.ids import CityId, DriverId
from hexhail.kernel.settings import Settings
from matching.model import OfferState
from matching.notices import Notices, offers_subject
from matching.remembered import Remembered
from matching.store import Driver
from matching.watcher import OffersSeen, Watcher
from tests.matching.rides import NOW_MS, offered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from matching.model import Offer, Ride

CITY = CityId("gridport")


class Nothing:
    """Stands for PostgreSQL with one driver and no offers, for sessions that hold, and for a Valkey that nobody else hears."""

    async def driver(self, city_id: CityId, driver_id: str) -> Driver:
        return Driver(city_id, DriverId(driver_id), 1, ("economy",), 4_500, online=True, suspended=False, updated_at_ms=0)

    async def live_offers(self, *_asked: object) -> list[tuple[Ride, Offer]]:
        return []

    async def open(self, *_session: object) -> None: ...

    async def close(self, *_session: object) -> None: ...

    async def holds(self, *_session: object) -> bool:
        return True

    async def ask(self, calls: Sequence[object]) -> list[int]:
        return [1] * len(calls)


MADE, SECOND = offered("d1"), offered("d1")
SECOND = replace(SECOND, ride_id="gridport-2", offers=(replace(SECOND.offers[0], offer_id="gridport-o2"),))  # type: ignore[arg-type]
ENDED = replace(MADE, version=MADE.version + 1, offers=(replace(MADE.offers[0], state=OfferState.WITHDRAWN),))
SUBJECT = [offers_subject(CITY, "d1")]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Notices, AsyncIterator[OffersSeen]]]:
    """A phone that has been told that there are no offers yet."""
    nothing: Any = Nothing()
    notices = Notices(nothing, nothing, Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS), "w1")
    phone = Watcher(nothing, nothing, notices, nothing, nothing, Remembered()).offers(CITY, "d1", "s1")
    try:
        async with asyncio.timeout(10):
            assert await anext(phone) == OffersSeen(True, ())
            yield notices, phone
    finally:
        await phone.aclose()  # type: ignore[attr-defined]


async def test_an_end_that_came_before_the_snapshot_counts_for_what_comes_after() -> None:
    """Given a phone that hears of an offer's end while it reads: the notice that made the offer was overtaken by both."""
    async with listening() as (notices, phone):
        notices.publish(CITY, SUBJECT)
        notices.publish(CITY, SUBJECT, ENDED)
        reading = asyncio.ensure_future(anext(phone))
        await asyncio.sleep(0)
        for ride in (MADE, SECOND):
            notices.publish(CITY, SUBJECT, ride)
        assert await reading == OffersSeen(False, ((SECOND, SECOND.offers[0]),))


async def test_an_offer_that_has_ended_is_not_told_again_by_a_notice_that_was_overtaken() -> None:
    async with listening() as (notices, phone):
        for ride in (MADE, ENDED):
            notices.publish(CITY, SUBJECT, ride)
            assert await anext(phone) == OffersSeen(False, ((ride, ride.offers[0]),))
        for ride in (MADE, SECOND):
            notices.publish(CITY, SUBJECT, ride)
        assert await anext(phone) == OffersSeen(False, ((SECOND, SECOND.offers[0]),))
