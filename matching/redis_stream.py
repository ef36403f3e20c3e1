"""A city's events as a Redis Stream: entries behind the last one known, and only if that one is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.stores.valkey import valkey_answers
from matching import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from matching.relaying import LoggedEvent

# KEYS[1] the stream; ARGV: the last entry known, about how many entries are kept, then kind and envelope in turn.
_APPEND = """
local id = ARGV[1]
if #redis.call('XRANGE', KEYS[1], id, id) == 0 then return false end
for i = 3, #ARGV, 2 do
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'kind', ARGV[i], 'envelope', ARGV[i + 1])
end
return id
"""
# ARGV: milliseconds that the entry's id lies above, about how many entries are kept, then the entry's fields. Ids grow across
# epochs, though the stream be empty and its server's clock behind: who reads on from an id of the last one misses nothing.
_BEGIN = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local id = string.format('%.0f-0', math.max(now_ms, tonumber(ARGV[1]) + 1))
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], id, unpack(ARGV, 3))
if type(added) == 'table' and added.err then
  added = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3))
end
return added
"""


class RedisStream:
    """The stream of one city."""

    def __init__(self, redis: Redis, city_id: str, length: int) -> None:
        self._redis = redis
        self._key = keys.events(city_id)
        self._length = length
        self._append = redis.register_script(_APPEND)
        self._begin = redis.register_script(_BEGIN)

    async def append(self, known_id: str, events: Sequence[LoggedEvent]) -> str | None:
        """Writes these events behind an entry that is known to be there; the id of the last one.

        None, and nothing is written, where it is not there any more. Raises STORE_UNAVAILABLE: they may have been written then.
        """
        fields = [value for event in events for value in (event.kind, event.envelope)]
        async with valkey_answers():
            entry_id = await self._append(keys=[self._key], args=[known_id, self._length, *fields])
        return entry_id.decode() if entry_id is not None else None

    async def begin(self, epoch: str, from_at_ms: int, reason: str, after_id: str) -> str:
        """Says that an epoch begins; the entry's id, which is above `after_id`. Raises STORE_UNAVAILABLE."""
        after_ms = int(after_id.partition("-")[0] or 0)
        fields = ("epoch", epoch, "from_at_ms", str(from_at_ms), "reason", reason)
        async with valkey_answers():
            entry_id: bytes = await self._begin(keys=[self._key], args=[after_ms, self._length, *fields])
        return entry_id.decode()
