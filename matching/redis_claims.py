"""Claims in Valkey: set if nobody holds it, with an owner token, released by compare-and-delete."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hexhail.kernel.ids import bucket_of
from hexhail.stores.valkey import answered
from matching import keys
from matching import redis_scripts as scripts
from matching.reconciling import HeldClaim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.stores.line import Call
    from hexhail.stores.valkey import Valkey

_KEYS_PER_SCAN = 1_000


class RedisClaims:
    """Claims on drivers and rides."""

    def __init__(self, valkey: Valkey, cities: Cities, clock: Clock) -> None:
        self._valkey = valkey
        self._cities = cities
        self._clock = clock

    async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        """Which of these drivers are ours now? bool[n]. Raises STORE_UNAVAILABLE."""
        slots = self._by_slot(city_id, driver_ids)
        calls = [self._claim([self._driver_key(city_id, i) for i in slot], owner, ttl_ms) for slot in slots]
        ours = answered(await self._valkey.ask(calls))
        won = {i: bool(one) for slot, of_slot in zip(slots, ours, strict=True) for i, one in zip(slot, of_slot, strict=True)}
        return [won[i] for i in driver_ids]

    async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
        """Gives back those that are still ours. Raises STORE_UNAVAILABLE."""
        slots = self._by_slot(city_id, driver_ids)
        calls = [scripts.RELEASE.call([self._driver_key(city_id, i) for i in slot], owner) for slot in slots]
        answered(await self._valkey.ask(calls))

    async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
        """Is this ride ours for the instant of accepting? Raises STORE_UNAVAILABLE."""
        ((won,),) = answered(await self._valkey.ask([self._claim([keys.ride_claim(city_id, ride_id)], owner, ttl_ms)]))
        return bool(won)

    async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
        """Gives it back if it is still ours. Raises STORE_UNAVAILABLE."""
        answered(await self._valkey.ask([scripts.RELEASE.call([keys.ride_claim(city_id, ride_id)], owner)]))

    async def held(self, city_id: CityId) -> AsyncIterator[list[HeldClaim]]:
        """Every claim on a driver of a city, in pages. Raises STORE_UNAVAILABLE."""
        cursor, pattern = b"0", keys.driver_claims(city_id)
        while True:
            ((cursor, names),) = answered(await self._valkey.ask([("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SCAN)]))
            values = answered(await self._valkey.ask([("MGET", *names)]))[0] if names else []
            yield [_held(name, value) for name, value in zip(names, values, strict=True) if value is not None]
            if cursor == b"0":
                return

    async def drop(self, city_id: CityId, claims: Sequence[HeldClaim]) -> int:
        """Takes these away, as far as they are still the same; how many? Raises STORE_UNAVAILABLE."""
        calls = [scripts.DROP.call([self._driver_key(city_id, claim.driver_id)], claim.value) for claim in claims]
        return sum(answered(await self._valkey.ask(calls)))

    def _claim(self, names: Sequence[str], owner: str, ttl_ms: int) -> Call:
        return scripts.CLAIM.call(names, owner, ttl_ms, self._clock.now_ms())

    def _by_slot(self, city_id: CityId, driver_ids: Sequence[str]) -> list[list[str]]:
        """The drivers of each bucket, since a script touches one slot. One call for several spares the store and the caller."""
        slots: defaultdict[int, list[str]] = defaultdict(list)
        for driver_id in driver_ids:
            slots[bucket_of(driver_id, self._cities[city_id].buckets)].append(driver_id)
        return list(slots.values())

    def _driver_key(self, city_id: CityId, driver_id: str) -> str:
        return keys.driver_claim(city_id, bucket_of(driver_id, self._cities[city_id].buckets), driver_id)


def _held(name: Any, value: Any) -> HeldClaim:
    owner, made_at_ms, _ = value.decode().rsplit("|", 2)
    return HeldClaim(keys.driver_of_claim(name.decode()), owner, int(made_at_ms), value)
