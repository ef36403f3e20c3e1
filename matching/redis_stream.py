"""A city's events as a Redis Stream: entries behind the last one known, and only if that one is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.stores.valkey import answered
from matching import keys
from matching import redis_scripts as scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.stores.valkey import Valkey
    from matching.relaying import LoggedEvent


class RedisStream:
    """The stream of one city."""

    def __init__(self, valkey: Valkey, city_id: str, length: int) -> None:
        self._valkey = valkey
        self._key = keys.events(city_id)
        self._length = length

    async def append(self, known_id: str, events: Sequence[LoggedEvent]) -> str | None:
        """Writes these events behind an entry that is known to be there; the id of the last one.

        None, and nothing is written, where it is not there any more. Raises STORE_UNAVAILABLE: they may have been written then.
        """
        fields = [value for event in events for value in (event.kind, event.envelope)]
        call = scripts.APPEND.call([self._key], known_id, self._length, *fields)
        (entry_id,) = answered(await self._valkey.ask([call]))
        return str(entry_id.decode()) if entry_id is not None else None

    async def begin(self, epoch: str, from_at_ms: int, reason: str, after_id: str) -> str:
        """Says that an epoch begins; the entry's id, which is above `after_id`. Raises STORE_UNAVAILABLE."""
        after_ms = int(after_id.partition("-")[0] or 0)
        fields = ("epoch", epoch, "from_at_ms", str(from_at_ms), "reason", reason)
        call = scripts.BEGIN.call([self._key], after_ms, self._length, *fields)
        (entry_id,) = answered(await self._valkey.ask([call]))
        return str(entry_id.decode())
