"""Events of one ride that come at once: one change, where they can be, and each with its own answer and its own cause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hexhail.api.events.v1 import event_pb2
from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import connect
from matching import changer
from matching.changer import Changer
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.model import OfferShown, Ride
from matching.notices import Notices
from matching.postgres_store import PostgresStore
from matching.redis_claims import RedisClaims
from matching.store import RequestKey, RequestRepeated
from matching.teller import Teller
from tests.matching.rides import NOW_MS
from tests.matching.test_store import CITY, PARAMS, Bench
from tests.matching.test_teller import FakeLocation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from hexhail.stores.valkey import Valkey

CROWD = ("d1", "d2", "d3")


class Acks:
    """A ride that is offered to a crowd, and what their phones say of it."""

    def __init__(self, bench: Bench, changer: Changer, ride: Ride) -> None:
        self.bench = bench
        self.changer = changer
        self.ride = ride

    def key(self, driver_id: str, body: bytes = b"body") -> RequestKey:
        return RequestKey(CITY, f"driver/{driver_id}", "ack-1", body)

    async def ack(self, driver_id: str, body: bytes = b"body") -> Ride:
        (offer,) = (offer for offer in self.ride.offers if offer.driver_id == driver_id)
        wanted = self.changer.ride_of_offer(offer.offer_id)
        actor, told = f"driver/{driver_id}", f"told {driver_id}".encode()
        key, event = self.key(driver_id, body), OfferShown(offer.offer_id)
        return await self.changer.join(wanted, event, actor, key, lambda _: told, Ride.unshown_offers)

    async def now(self) -> Ride:
        return await self.bench.store.ride(self.ride.ride_id)

    async def shown_by(self) -> list[tuple[int, str, str]]:
        """Version, driver and actor of every OFFER_SHOWN in the log."""
        rows = await self.bench.pool.fetch(
            "SELECT envelope FROM matching.outbox WHERE kind = 'OFFER_SHOWN' ORDER BY version, index"
        )
        envelopes = [event_pb2.Envelope.FromString(row["envelope"]) for row in rows]
        return [(envelope.version, envelope.offer_shown.driver_id, envelope.actor) for envelope in envelopes]


@pytest.fixture
async def acks(empty_pool: asyncpg.Pool[asyncpg.Record], asked: Valkey, valkey_url: str) -> AsyncIterator[Acks]:
    cities, clock, redis = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS), connect(valkey_url)
    store = PostgresStore(empty_pool, cities, encode_ride_events, encode_driver_event)
    teller = Teller(FakeLocation(), store, cities, clock)
    notices = Notices(redis, asked, cities, clock, "w1")
    changes = Changer(store, RedisClaims(asked, cities, clock), notices, teller, clock, {CITY: PARAMS})
    bench = Bench(empty_pool, store)
    for driver_id in CROWD:
        await bench.driver(driver_id)
    ride = await bench.offer(await bench.request(), *CROWD)
    try:
        yield Acks(bench, changes, ride)
    finally:
        await changes.close()
        await redis.aclose()


async def test_what_comes_at_once_is_one_version_in_which_everyone_has_done_its_own(acks: Acks) -> None:
    acks.changer.remembered.put(acks.ride)

    rides = await asyncio.gather(*(acks.ack(driver_id) for driver_id in CROWD))

    now = await acks.now()
    assert now.version == acks.ride.version + 1
    assert all(offer.shown_at_ms for offer in now.offers)
    assert rides == [now] * len(CROWD)
    assert await acks.shown_by() == [(now.version, driver_id, f"driver/{driver_id}") for driver_id in CROWD]
    for driver_id in CROWD:
        assert await acks.bench.store.first_answer(acks.key(driver_id), NOW_MS) == f"told {driver_id}".encode()


async def test_an_ack_waits_for_those_of_the_other_phones(acks: Acks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changer, "GATHER_S", 60.0)
    acks.changer.remembered.put(acks.ride)

    first = asyncio.create_task(acks.ack(CROWD[0]))
    for _ in range(20):
        await asyncio.sleep(0)
    rest = await asyncio.gather(*(acks.ack(driver_id) for driver_id in CROWD[1:]))

    assert [await first, *rest] == [await acks.now()] * len(CROWD)
    assert (await acks.now()).version == acks.ride.version + 1


async def test_a_phone_that_shows_nothing_is_not_waited_for_long(acks: Acks) -> None:
    acks.changer.remembered.put(acks.ride)

    async with asyncio.timeout(100 * changer.GATHER_S):
        assert (await acks.ack("d1")).offers[0].shown_at_ms


async def test_a_request_that_was_answered_before_spoils_nobody_elses(acks: Acks) -> None:
    """Given a phone that asks again with a name that it has used: its ack fails by itself."""
    await acks.bench.store.keep_answer(acks.key("d2", b"another body"), b"", NOW_MS)
    acks.changer.remembered.put(acks.ride)

    first, second, third = await asyncio.gather(*(acks.ack(driver_id) for driver_id in CROWD), return_exceptions=True)

    assert isinstance(second, RequestRepeated)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert [offer.shown_at_ms > 0 for offer in (await acks.now()).offers] == [True, False, True]


async def test_what_is_remembered_may_be_old(acks: Acks) -> None:
    """Given a worker that does not know yet that another has changed the ride."""
    acks.changer.remembered.put(acks.ride)
    await acks.bench.happen(acks.ride, OfferShown(acks.ride.offers[0].offer_id))

    await asyncio.gather(*(acks.ack(driver_id) for driver_id in CROWD))

    assert all(offer.shown_at_ms for offer in (await acks.now()).offers)


async def test_a_phone_that_says_it_twice_at_once_is_answered_twice(acks: Acks) -> None:
    acks.changer.remembered.put(acks.ride)

    first, again = await asyncio.gather(acks.ack("d1"), acks.ack("d1"), return_exceptions=True)

    assert not isinstance(first, BaseException)
    assert isinstance(again, RequestRepeated), "whose answer is the first one's"
    assert len(await acks.shown_by()) == 1


async def test_nothing_is_shown_where_the_ride_is_not_known(acks: Acks) -> None:
    with pytest.raises(DomainError) as refusal:
        await acks.changer.join(
            acks.changer.ride_of_offer("gridport-x"),
            OfferShown("gridport-x"),
            "driver/d1",
            acks.key("d1"),
            lambda _: b"",
            Ride.unshown_offers,
        )
    assert refusal.value.reason is Reason.OFFER_NOT_FOUND
