"""Claims in Valkey: set if nobody holds it, with an owner token, released by compare-and-delete."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hexhail.kernel.ids import bucket_of
from hexhail.stores.valkey import valkey_answers
from matching import keys
from matching.reconciling import HeldClaim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId

# A lock that has expired may belong to somebody else by now: delete it only while it holds our token.
_RELEASE = """
for _, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value and string.sub(value, 1, string.len(ARGV[1]) + 1) == ARGV[1] .. '|' then redis.call('DEL', key) end
end
return 0
"""
# Ours if nobody holds it, or if the holder's time is over by our clock: the key's own lifetime only collects garbage. Ours too
# if it was ours before: a ride that asks a driver again does not wait for its own last claim to be given back.
_CLAIM = """
local expires_at_ms = string.format('%.0f', tonumber(ARGV[3]) + tonumber(ARGV[2]))
local won = {}
for number, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local others = value and string.sub(value, 1, string.len(ARGV[1]) + 1) ~= ARGV[1] .. '|'
  local expires = others and tonumber(string.match(value, '|(%d+)$'))
  won[number] = (expires and expires > tonumber(ARGV[3])) and 0 or 1
  if won[number] == 1 then
    redis.call('SET', key, ARGV[1] .. '|' .. ARGV[3] .. '|' .. expires_at_ms, 'PX', ARGV[2])
  end
end
return won
"""

_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_KEYS_PER_SCAN = 1_000


class RedisClaims:
    """Claims on drivers and rides."""

    def __init__(self, redis: Redis, cities: Cities, clock: Clock) -> None:
        self._redis = redis
        self._cities = cities
        self._clock = clock
        self._claim = redis.register_script(_CLAIM)
        self._release = redis.register_script(_RELEASE)
        self._drop = redis.register_script(_DROP)

    async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        """Which of these drivers are ours now? bool[n]. Raises STORE_UNAVAILABLE."""
        won: dict[str, bool] = {}
        for slot in self._by_slot(city_id, driver_ids):
            ours = await self._claim_all([self._driver_key(city_id, i) for i in slot], owner, ttl_ms)
            won |= zip(slot, ours, strict=True)
        return [won[i] for i in driver_ids]

    async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
        """Gives back those that are still ours. Raises STORE_UNAVAILABLE."""
        for slot in self._by_slot(city_id, driver_ids):
            async with valkey_answers():
                await self._release(keys=[self._driver_key(city_id, i) for i in slot], args=[owner])

    async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
        """Is this ride ours for the instant of accepting? Raises STORE_UNAVAILABLE."""
        (won,) = await self._claim_all([keys.ride_claim(city_id, ride_id)], owner, ttl_ms)
        return won

    async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
        """Gives it back if it is still ours. Raises STORE_UNAVAILABLE."""
        async with valkey_answers():
            await self._release(keys=[keys.ride_claim(city_id, ride_id)], args=[owner])

    async def held(self, city_id: CityId) -> AsyncIterator[list[HeldClaim]]:
        """Every claim on a driver of a city, in pages. Raises STORE_UNAVAILABLE."""
        cursor, pattern = 0, keys.driver_claims(city_id)
        while True:
            async with valkey_answers():
                cursor, names = await self._redis.scan(cursor, match=pattern, count=_KEYS_PER_SCAN)
                values = await self._redis.mget(names) if names else []
            yield [_held(name, value) for name, value in zip(names, values, strict=True) if value is not None]
            if not cursor:
                return

    async def drop(self, city_id: CityId, claims: Sequence[HeldClaim]) -> int:
        """Takes these away, as far as they are still the same; how many? Raises STORE_UNAVAILABLE."""
        async with valkey_answers(), self._redis.pipeline(transaction=False) as pipe:
            for claim in claims:
                await self._drop(keys=[self._driver_key(city_id, claim.driver_id)], args=[claim.value], client=pipe)
            return sum(await pipe.execute())

    async def _claim_all(self, names: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        async with valkey_answers():
            return [bool(won) for won in await self._claim(keys=names, args=[owner, ttl_ms, self._clock.now_ms()])]

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
