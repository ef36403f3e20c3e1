"""Short locks in a real Valkey: whose they are, when they end, and that nothing but speed rests on them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

from hexhail.cities import Cities, load_city
from hexhail.client import RideState
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import CityId
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import open_valkey
from matching.model import OfferState
from matching.redis_claims import RedisClaims
from matching.redis_scripts import SCRIPTS
from tests.e2e.people import MIDDLE, NEAR, Passenger, phones, until
from tests.e2e.test_presence import nearby
from tests.e2e.world import START_MS, gridport, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from hexhail.embedded import Stores

CITY = CityId("gridport")
ONE_AT_A_TIME = {
    "ranking": {"policy": "eta"},
    "offers": {"phases": [{"size": 1, "timeout_s": 5.0, "radius_m": 5000.0}]},
}


@asynccontextmanager
async def claims_at(url: str, clock: ManualClock) -> AsyncIterator[RedisClaims]:
    async with aclosing(open_valkey(url, SCRIPTS)) as valkey:
        yield RedisClaims(valkey, Cities([load_city("gridport", Settings())]), clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
async def claims(valkey: Redis, valkey_url: str, clock: ManualClock) -> AsyncIterator[RedisClaims]:
    async with claims_at(valkey_url, clock) as made:
        yield made


async def test_of_many_who_claim_a_ride_one_has_it(claims: RedisClaims) -> None:
    won = await asyncio.gather(*(claims.claim_ride(CITY, "gridport-1", f"o{n}", 60_000) for n in range(20)))
    assert won.count(True) == 1


async def test_drivers_are_claimed_one_by_one(claims: RedisClaims) -> None:
    assert await claims.claim_drivers(CITY, ["d1", "d2"], "ride-a", 60_000) == [True, True]
    assert await claims.claim_drivers(CITY, ["d2", "d3", "d1"], "ride-b", 60_000) == [False, True, False]
    assert await claims.claim_drivers(CITY, [], "ride-b", 60_000) == []


async def test_a_ride_claims_again_what_it_holds_itself(claims: RedisClaims, clock: ManualClock) -> None:
    """Given an offer that has just ended, and its claim not given back yet: the ride's next search may ask the driver."""
    assert await claims.claim_drivers(CITY, ["d1"], "ride-1", 1_000) == [True]
    clock.advance(999)
    assert await claims.claim_drivers(CITY, ["d1"], "ride-1", 1_000) == [True]
    clock.advance(999)
    assert await claims.claim_drivers(CITY, ["d1"], "ride-10", 1_000) == [False]


async def test_only_the_owner_gives_a_claim_back(claims: RedisClaims) -> None:
    """Also not one whose name the owner's begins with."""
    assert await claims.claim_drivers(CITY, ["d1"], "ride-10", 60_000) == [True]
    for other in ("ride-2", "ride-1", "ride-100", ""):
        await claims.release_drivers(CITY, ["d1"], other)
        assert await claims.claim_drivers(CITY, ["d1"], "ride-3", 60_000) == [False]
    await claims.release_drivers(CITY, ["d1"], "ride-10")
    assert await claims.claim_drivers(CITY, ["d1"], "ride-3", 60_000) == [True]


async def test_a_claim_ends_by_the_clock_whatever_the_key_says(claims: RedisClaims, clock: ManualClock, valkey: Redis) -> None:
    assert await claims.claim_ride(CITY, "gridport-1", "slow", 300_000)
    clock.advance(299_999)
    assert not await claims.claim_ride(CITY, "gridport-1", "quick", 300_000)
    clock.advance(1)
    assert await claims.claim_ride(CITY, "gridport-1", "quick", 300_000)
    (key,) = await valkey.keys("m:claim:*")
    assert 0 < await valkey.pttl(key) <= 300_000  # and what nobody gives back is swept away by Valkey


async def test_who_comes_back_after_its_time_cannot_free_anothers_claim(claims: RedisClaims, clock: ManualClock) -> None:
    assert await claims.claim_ride(CITY, "gridport-1", "slow", 1_000)
    clock.advance(1_000)
    assert await claims.claim_ride(CITY, "gridport-1", "quick", 300_000)
    await claims.release_ride(CITY, "gridport-1", "slow")
    assert not await claims.claim_ride(CITY, "gridport-1", "third", 300_000)


async def test_a_value_that_is_none_of_ours_is_no_claim(claims: RedisClaims, valkey: Redis) -> None:
    assert await claims.claim_ride(CITY, "gridport-1", "a", 60_000)
    (key,) = await valkey.keys("m:claim:*")
    await valkey.set(key, "rubbish")
    assert await claims.claim_ride(CITY, "gridport-1", "b", 60_000)


async def test_rides_and_drivers_of_one_name_do_not_meet(claims: RedisClaims) -> None:
    assert await claims.claim_ride(CITY, "same", "a", 60_000)
    assert await claims.claim_drivers(CITY, ["same"], "b", 60_000) == [True]


async def test_silence_is_an_outage_not_an_answer(clock: ManualClock, tmp_path: Path) -> None:
    async with claims_at(f"unix://{tmp_path}/nobody.sock", clock) as claims:
        for question in (
            claims.claim_drivers(CITY, ["d1"], "a", 1_000),
            claims.release_drivers(CITY, ["d1"], "a"),
            claims.claim_ride(CITY, "gridport-1", "a", 1_000),
            claims.release_ride(CITY, "gridport-1", "a"),
        ):
            with pytest.raises(DomainError) as refused:
                await question
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
            assert refused.value.metadata["store"] == "valkey"


class SilentClaims:
    """A Valkey that answers no claim."""

    async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        self._silence()

    async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
        self._silence()

    async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
        self._silence()

    async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
        self._silence()

    def _silence(self) -> NoReturn:
        raise DomainError(Reason.STORE_UNAVAILABLE, "Valkey does not answer", store="valkey")


async def test_rides_are_offered_and_accepted_without_any_claim(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Given two riders who want the one driver, and no locks: one gets it, the other goes on searching."""
    async with (
        world_of(stores, gridport(matching=ONE_AT_A_TIME), wrap_claims=lambda _: SilentClaims()) as world,
        phones(world, [NEAR]) as (phone,),
    ):
        first, second = Passenger(world, world.rider("r1")), Passenger(world, world.rider("r2"))
        await first.request()
        offer = await phone.next_offer()
        await second.request()
        await phone.app.accept(offer.offer_id)
        await first.until_state(RideState.ACCEPTED)
        assert (await second.app.get_ride(second.ride_id)).state is RideState.SEARCHING
        await first.app.cancel(first.ride_id)

        async def free() -> bool:
            return await nearby(world) == (phone.app.driver_id,)

        await until(free, "location is not told that the driver is free again")
        world.clock.advance(2_000)
        await world.matching.timekeeper.sweep()
        assert (await phone.next_offer()).ride_id == second.ride_id


async def test_a_driver_who_goes_offline_declines_what_it_was_offered(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with (
        world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world,
        phones(world, [MIDDLE, NEAR]) as (leaving, staying),
    ):
        rider = Passenger(world, world.rider())
        await rider.request()
        offer = await leaving.next_offer()
        await leaving.app.go_offline()
        await asyncio.wait_for(leaving.stream_ended.wait(), 10)
        assert (await staying.next_offer()).ride_id == offer.ride_id
        ((_, closed),) = await world.matching.store.live_offers(CITY, leaving.app.driver_id, [offer.offer_id])
        assert closed.state is OfferState.DECLINED
        with pytest.raises(DomainError) as refused:
            await leaving.app.accept(offer.offer_id)
        assert refused.value.reason is Reason.OFFER_CLOSED


async def test_a_claim_is_given_back_as_soon_as_its_offer_is_closed(stores: Stores, postgres_dsn: str, valkey: Redis) -> None:
    """Who declines one ride can be asked for the next at once, and need not wait until the lock has run out."""
    async with (
        world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world,
        phones(world, [NEAR]) as (phone,),
    ):
        await Passenger(world, world.rider("r1")).request()
        offer = await phone.next_offer()
        assert len(await valkey.keys("m:claim:*")) == 1
        await phone.app.decline(offer.offer_id)

        async def free() -> bool:
            return not await valkey.keys("m:claim:*")

        await until(free, "the claim outlives its offer")
        await Passenger(world, world.rider("r2")).request()
        await until(lambda: phone.live() and phone.live()[0].ride_id != offer.ride_id, "not asked again")
