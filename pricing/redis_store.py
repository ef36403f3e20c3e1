"""The store of pricing in Valkey or Redis."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog

from hexhail.stores.valkey import valkey_answers, valkey_errors
from pricing.keys import cell_of_member, lease_key, published_channel, quote_member, quotes_key, surge_key
from pricing.packed import HEADER_BYTES, pack_surge, unpack_surge
from pricing.store import Published

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from redis.asyncio import Redis

    from hexhail.cities import City
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Cells, Ints
    from pricing.model import Surge

log = structlog.get_logger(__name__)

# The expiry is judged by the clock of whoever asks; the time to live only collects garbage.
_TAKE_LEASE: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  local owner, expires_at_ms = string.match(held, '^(%S+) (%d+)$')
  if owner ~= ARGV[1] and expires_at_ms and tonumber(expires_at_ms) > tonumber(ARGV[2]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[3], 'PX', ARGV[4])
return 1
"""

_DROP_LEASE: Final = """
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^%S+') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""

_PUBLISH: Final = """
if redis.call('GETRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1) ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('SPUBLISH', KEYS[2], '')
return 1
"""


class RedisPricingStore:
    """A `PricingStore` in Valkey."""

    def __init__(self, calls: Redis) -> None:
        self._calls = calls
        self._take_lease = calls.register_script(_TAKE_LEASE)
        self._drop_lease = calls.register_script(_DROP_LEASE)
        self._publish = calls.register_script(_PUBLISH)

    async def record_quotes(self, city: City, quotes: Mapping[tuple[int, str], int], window_ms: int, now_ms: int) -> None:
        """Keeps when each (cell, rider) last had a quote, ms, and forgets those older than the window."""
        if not quotes:
            return
        key = quotes_key(city.city_id)
        async with valkey_answers():
            pipeline = self._calls.pipeline(transaction=False)
            scores = {quote_member(cell, rider_id): at_ms for (cell, rider_id), at_ms in quotes.items()}
            pipeline.zadd(key, scores, gt=True)
            pipeline.zremrangebyscore(key, "-inf", now_ms - window_ms)
            pipeline.pexpire(key, 2 * window_ms)
            await pipeline.execute()

    async def holds_quote(self, city: City, cell: int, rider_id: str) -> bool:
        """Is this quote recorded?"""
        async with valkey_answers():
            return await self._calls.zscore(quotes_key(city.city_id), quote_member(cell, rider_id)) is not None

    async def count_quotes(self, city: City, window_ms: int, now_ms: int) -> tuple[Cells, Ints]:
        """In which cells were quotes given within the window, and to how many riders? uint64[n], int64[n]."""
        async with valkey_answers():
            members: list[bytes] = await self._calls.zrangebyscore(  # type: ignore[assignment]  # by its type, also text
                quotes_key(city.city_id), f"({now_ms - window_ms}", "+inf"
            )
        counts = Counter(cell_of_member(member) for member in members)
        return np.fromiter(counts.keys(), np.uint64, len(counts)), np.fromiter(counts.values(), np.int64, len(counts))

    async def take_lease(self, city: City, owner: str, lease_ms: int, now_ms: int) -> bool:
        """Takes or renews the lease on recomputing. False where another holds it."""
        async with valkey_answers():
            return bool(await self._take_lease([lease_key(city.city_id)], [owner, now_ms, now_ms + lease_ms, lease_ms]))

    async def drop_lease(self, city: City, owner: str) -> None:
        """Gives the lease back, if `owner` has it."""
        async with valkey_answers():
            await self._drop_lease([lease_key(city.city_id)], [owner])

    async def published(self, city: City) -> Published:
        """What is published? Bytes that cannot be read are reported as no surge, under their own header."""
        async with valkey_answers():
            packed: bytes | None = await self._calls.get(surge_key(city.city_id))  # type: ignore[assignment]
        if packed is None:
            return Published(b"", None)
        try:
            surge = unpack_surge(packed, city.surge_resolution)
        except ValueError as error:
            log.warning("the published surge cannot be read", city_id=city.city_id, error=str(error))
            return Published(packed[:HEADER_BYTES], None)
        return Published(packed[:HEADER_BYTES], surge)

    async def publish(self, city: City, surge: Surge, instead_of: bytes, lifetime_ms: int) -> bool:
        """Publishes and announces, unless something else than the publication `instead_of` is there: then False."""
        keys = [surge_key(city.city_id), published_channel(city.city_id)]
        packed = pack_surge(surge, city.surge_resolution)
        async with valkey_answers():
            return bool(await self._publish(keys, [HEADER_BYTES, instead_of, packed, lifetime_ms]))

    async def publications(self, city_ids: list[CityId]) -> AsyncIterator[CityId]:
        """Yields a city for each of its publications from now on."""
        cities = {published_channel(city_id).encode(): city_id for city_id in city_ids}
        with valkey_errors():
            async with self._calls.pubsub() as pubsub:
                await pubsub.ssubscribe(*cities)
                while True:
                    message: dict[str, Any] | None = await pubsub.get_message(timeout=None)
                    if message is not None and message["type"] in ("smessage", "ssubscribe"):
                        # A subscription counts too: what was published before it would be missed until the next publication.
                        yield cities[message["channel"]]
