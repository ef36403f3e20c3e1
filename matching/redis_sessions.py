"""Which drivers have a phone that listens: this worker's own streams, and in Valkey those of all workers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.ids import CityId, DriverId, bucket_of
from hexhail.stores.valkey import valkey_answers
from matching import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from matching.store import DriverKey

log = structlog.get_logger(__name__)

SESSION_TTL_MS = 15_000
"""A worker that dies takes its drivers out of the offers within this time; a living one renews every third of it."""


RENEWED_AT_ONCE = 500
"""So many in one go: neither this process nor Valkey does anything else meanwhile."""

# A session may have moved to another worker since: end or renew it only while it is still this worker's.
_CLOSE = """
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, string.len(ARGV[1]) + 1) == ARGV[1] .. '|' then return redis.call('DEL', KEYS[1]) end
return 0
"""
_RENEW = """
local ours, value = ARGV[1] .. '|', ARGV[1] .. '|' .. ARGV[2]
for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or string.sub(held, 1, string.len(ours)) == ours then redis.call('SET', key, value, 'PX', ARGV[3]) end
end
return 1
"""

_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_KEYS_PER_SCAN = 1_000


class RedisSessions:
    """Sessions of drivers. The newest stream of a driver holds its session; older ones end."""

    def __init__(self, redis: Redis, cities: Cities, clock: Clock, worker_id: str) -> None:
        self._redis = redis
        self._cities = cities
        self._clock = clock
        self._worker_id = worker_id
        self._streams: dict[DriverKey, str] = {}
        self._close = redis.register_script(_CLOSE)
        self._renew = redis.register_script(_RENEW)
        self._drop = redis.register_script(_DROP)

    async def open(self, city_id: CityId, driver_id: str, stream_id: str) -> None:
        """This stream is the driver's session from now on."""
        key = _driver_key(city_id, driver_id)
        self._streams[key] = stream_id
        try:
            async with valkey_answers():
                await self._redis.set(self._name(key), f"{self._worker_id}|{self._expires_at_ms()}", px=SESSION_TTL_MS)
        except DomainError as error:
            log.warning("session known here only, until it is renewed", reason=error.reason, driver_id=driver_id)

    async def close(self, city_id: CityId, driver_id: str, stream_id: str) -> None:
        """The stream has ended: no session, unless a newer stream holds it."""
        key = _driver_key(city_id, driver_id)
        if self._streams.get(key) != stream_id:
            return
        del self._streams[key]
        try:
            async with valkey_answers():
                await self._close(keys=[self._name(key)], args=[self._worker_id])
        except DomainError as error:
            log.warning("session left to expire", reason=error.reason, driver_id=driver_id)

    async def holds(self, city_id: CityId, driver_id: str, stream_id: str) -> bool:
        """Is this stream still the driver's session, and not one that came later, here or on another worker?"""
        key = _driver_key(city_id, driver_id)
        if self._streams.get(key) != stream_id:
            return False
        try:
            async with valkey_answers():
                value = await self._redis.get(self._name(key))
        except DomainError:
            return True  # nobody can say otherwise now, and two streams of one phone do no harm
        return value is None or _parts(value)[0] == self._worker_id

    async def renew(self) -> None:
        """Tells all workers again which drivers are here. Raises STORE_UNAVAILABLE."""
        if not self._streams:
            return
        streams = sorted(self._streams)
        for first in range(0, len(streams), RENEWED_AT_ONCE):
            names: defaultdict[tuple[CityId, int], list[str]] = defaultdict(list)
            for city_id, driver_id in streams[first : first + RENEWED_AT_ONCE]:
                if (city_id, driver_id) in self._streams:  # it may have ended while others were renewed
                    bucket = bucket_of(driver_id, self._cities[city_id].buckets)
                    names[city_id, bucket].append(keys.session(city_id, bucket, driver_id))
            async with valkey_answers():
                for of_one_slot in names.values():
                    await self._renew(keys=of_one_slot, args=[self._worker_id, self._expires_at_ms(), SESSION_TTL_MS])

    async def with_session(self, city_id: CityId, driver_ids: Sequence[str]) -> set[str]:
        """Those of these drivers that have a session, on whichever worker. Raises STORE_UNAVAILABLE."""
        here = {i for i in driver_ids if _driver_key(city_id, i) in self._streams}
        elsewhere = [i for i in driver_ids if i not in here]
        if not elsewhere:
            return here
        async with valkey_answers():
            values = await self._redis.mget([self._name(_driver_key(city_id, driver_id)) for driver_id in elsewhere])
        now_ms = self._clock.now_ms()
        return here | {i for i, value in zip(elsewhere, values, strict=True) if _lives(value, self._worker_id, now_ms)}

    async def drop_expired(self, city_id: CityId) -> int:
        """Takes away sessions that are over by the clock, whatever their keys say; how many? Raises STORE_UNAVAILABLE."""
        cursor, dropped, now_ms = 0, 0, self._clock.now_ms()
        names: list[Any]
        while True:
            async with valkey_answers():
                cursor, names = await self._redis.scan(cursor, match=keys.sessions(city_id), count=_KEYS_PER_SCAN)
                values = await self._redis.mget(names) if names else []
                async with self._redis.pipeline(transaction=False) as pipe:
                    for name, value in zip(names, values, strict=True):
                        if value is not None and _parts(value)[1] <= now_ms:
                            await self._drop(keys=[name], args=[value], client=pipe)
                    done: list[int] = await pipe.execute()
                dropped += sum(done)
            if not cursor:
                return dropped

    def _expires_at_ms(self) -> int:
        return self._clock.now_ms() + SESSION_TTL_MS

    def _name(self, key: DriverKey) -> str:
        city_id, driver_id = key
        return keys.session(city_id, bucket_of(driver_id, self._cities[city_id].buckets), driver_id)


def _driver_key(city_id: CityId, driver_id: str) -> DriverKey:
    return city_id, DriverId(driver_id)


def _lives(value: bytes | str | None, worker_id: str, now_ms: int) -> bool:
    if value is None:
        return False
    worker, expires_at_ms = _parts(value)
    return worker != worker_id and expires_at_ms > now_ms


def _parts(value: bytes | str) -> tuple[str, int]:
    text = value if isinstance(value, str) else value.decode()
    worker, _, expires_at_ms = text.rpartition("|")
    return worker, int(expires_at_ms)
