"""Which drivers have a phone that listens: this worker's own streams, and in Valkey those of all workers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.ids import CityId, DriverId, bucket_of
from hexhail.stores.valkey import answered
from matching import keys
from matching import redis_scripts as scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.stores.line import Call
    from hexhail.stores.valkey import Valkey
    from matching.store import DriverKey

log = structlog.get_logger(__name__)

SESSION_TTL_MS = 15_000
"""A worker that dies takes its drivers out of the offers within this time; a living one renews every third of it."""


RENEWED_AT_ONCE = 500
"""So many in one go: neither this process nor Valkey does anything else meanwhile."""

_KEYS_PER_SCAN = 1_000


class RedisSessions:
    """Sessions of drivers. The newest stream of a driver holds its session; older ones end."""

    def __init__(self, valkey: Valkey, cities: Cities, clock: Clock, worker_id: str) -> None:
        self._valkey = valkey
        self._cities = cities
        self._clock = clock
        self._worker_id = worker_id
        self._streams: dict[DriverKey, str] = {}

    async def open(self, city_id: CityId, driver_id: str, stream_id: str) -> None:
        """This stream is the driver's session from now on."""
        key = _driver_key(city_id, driver_id)
        self._streams[key] = stream_id
        try:
            value = f"{self._worker_id}|{self._expires_at_ms()}"
            answered(await self._valkey.ask([("SET", self._name(key), value, "PX", SESSION_TTL_MS)]))
        except DomainError as error:
            log.warning("session known here only, until it is renewed", reason=error.reason, driver_id=driver_id)

    async def close(self, city_id: CityId, driver_id: str, stream_id: str) -> None:
        """The stream has ended: no session, unless a newer stream holds it."""
        key = _driver_key(city_id, driver_id)
        if self._streams.get(key) != stream_id:
            return
        del self._streams[key]
        try:
            answered(await self._valkey.ask([scripts.CLOSE_SESSION.call([self._name(key)], self._worker_id)]))
        except DomainError as error:
            log.warning("session left to expire", reason=error.reason, driver_id=driver_id)

    async def holds(self, city_id: CityId, driver_id: str, stream_id: str) -> bool:
        """Is this stream still the driver's session, and not one that came later, here or on another worker?"""
        key = _driver_key(city_id, driver_id)
        if self._streams.get(key) != stream_id:
            return False
        try:
            (value,) = answered(await self._valkey.ask([("GET", self._name(key))]))
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
            told = (self._worker_id, self._expires_at_ms(), SESSION_TTL_MS)
            answered(await self._valkey.ask([scripts.RENEW_SESSIONS.call(of_slot, *told) for of_slot in names.values()]))

    async def with_session(self, city_id: CityId, driver_ids: Sequence[str]) -> set[str]:
        """Those of these drivers that have a session, on whichever worker. Raises STORE_UNAVAILABLE."""
        here = {i for i in driver_ids if _driver_key(city_id, i) in self._streams}
        elsewhere: defaultdict[int, list[str]] = defaultdict(list)
        for i in driver_ids:
            if i not in here:
                elsewhere[bucket_of(i, self._cities[city_id].buckets)].append(i)
        calls: list[Call] = [("MGET", *(keys.session(city_id, bucket, i) for i in ids)) for bucket, ids in elsewhere.items()]
        replies, now_ms = answered(await self._valkey.ask(calls)), self._clock.now_ms()
        for ids, values in zip(elsewhere.values(), replies, strict=True):
            here.update(i for i, value in zip(ids, values, strict=True) if _lives(value, self._worker_id, now_ms))
        return here

    async def drop_expired(self, city_id: CityId) -> int:
        """Takes away sessions that are over by the clock, whatever their keys say; how many? Raises STORE_UNAVAILABLE."""
        cursor, dropped, now_ms, pattern = b"0", 0, self._clock.now_ms(), keys.sessions(city_id)
        while True:
            ((cursor, names),) = answered(await self._valkey.ask([("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SCAN)]))
            values = answered(await self._valkey.ask([("MGET", *names)]))[0] if names else []
            over = [pair for pair in zip(names, values, strict=True) if pair[1] is not None and _parts(pair[1])[1] <= now_ms]
            dropped += sum(answered(await self._valkey.ask([scripts.DROP.call([name], value) for name, value in over])))
            if cursor == b"0":
                return int(dropped)

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
