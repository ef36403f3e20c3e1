"""The index of one city in Valkey or Redis: one slot per driver, one script per batch and bucket, one round trip per question."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hexhail.kernel.ids import bucket_of
from hexhail.kernel.units import from_e7
from hexhail.rpc.background import computed
from hexhail.stores.valkey import answered
from location import redis_scripts as scripts
from location.keys import bucket_keys, cell_name, session_key
from location.model import POSITION, RECORD, Changes, IndexedDrivers, Occupancy, StateEpoch, taken
from location.records import msgpack_array, msgpack_digits, msgpack_name, msgpack_positions, pack_states, rows_of
from location.redis_geo import MAX_LAT, geo_scores, search_radius_m

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Ints
    from hexhail.stores.line import Call
    from hexhail.stores.script import Script
    from hexhail.stores.valkey import Valkey
    from location.keys import BucketKeys
    from location.model import DriverState, Records

_NOWHERE: Final = bytes(POSITION.itemsize)

ROWS_PER_SCRIPT: Final = 256
"""Drivers written by one script: it takes about 1 ms, in which nobody else is served."""

ROWS_PER_READ: Final = 1_000
"""Drivers whose records one command reads."""

CHANGES_PER_READ: Final = 1_000
"""More than a script writes under one stamp, so that a reading always gets beyond the stamp where it begins."""


class _Names(dict[str, bytes]):
    """Drivers' ids as scripts are given them, each packed once. A plain look-up: it is done for every fix."""

    MOST: Final = 1_000_000

    def __missing__(self, driver_id: str) -> bytes:
        if len(self) >= self.MOST:
            self.clear()
        name = self[driver_id] = msgpack_name(driver_id)
        return name


SCRIPTS: Final = tuple(script.text for script in scripts.ALL)


class RedisLocationStore:
    """A LocationStore. It survives FLUSHALL and restarts with nothing: a new epoch says what was lost. `valkey` knows `SCRIPTS`.

    A store that comes back with an older state of its data (a snapshot, a replica that lagged) has the old epoch: what it lost is
    told again by matching's periodic telling, so turn its snapshots off.
    """

    def __init__(self, valkey: Valkey, city_id: CityId, buckets: int) -> None:
        self._valkey = valkey
        self.buckets = buckets
        self._session_key = session_key(city_id)
        self._names = _Names()
        self._bucket_keys = tuple(bucket_keys(city_id, bucket) for bucket in range(buckets))

    async def open_session(self, at_least: int) -> int:
        """A session id of at least this, newer than all given out before in the city."""
        (session,) = await self._ask([scripts.OPEN_SESSION.call((self._session_key,), at_least)])
        return int(session)

    async def last_session(self) -> int:
        """The newest session id given out; 0 where none is known."""
        (session,) = await self._ask([("GET", self._session_key)])
        return int(session or 0)

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
        """Takes in POSITION[n] of distinct drivers; int64[n]: -1 where not newer than what was known, else the driver's
        availability, 0 where matching has said nothing. Repeating a write is harmless."""
        if not driver_ids:
            return np.zeros(0, dtype=np.int64)
        calls, rows_of_call = await computed(len(driver_ids), self._fix_calls, driver_ids, positions)
        answers = np.empty(len(driver_ids), dtype=np.int64)
        for rows, reply in zip(rows_of_call, await self._ask(calls), strict=True):
            answers[rows] = np.frombuffer(reply, dtype=np.uint8) - np.int64(ord("1"))
        return answers

    def _fix_calls(self, driver_ids: Sequence[str], positions: Records) -> tuple[list[Call], list[Ints]]:
        """The calls that write these fixes, and which rows are in each."""
        buckets = self._buckets_of(driver_ids)
        order = np.lexsort((positions["cell"], buckets))
        ordered = taken(positions, order)
        elements = msgpack_positions(ordered)
        scores = msgpack_digits(geo_scores(from_e7(ordered["lat_e7"]), from_e7(ordered["lng_e7"])))
        names = [self._names[driver_ids[row]] for row in order.tolist()]
        calls, rows_of_call = [], []
        for bucket, first, end in _runs(buckets[order], ROWS_PER_SCRIPT):
            some = slice(first, end)
            arrays = (b"".join(names[some]), elements[some].tobytes(), scores[some].tobytes())
            packed_arrays = (msgpack_array(end - first, each) for each in arrays)
            calls.append(self._bucket_call(scripts.WRITE_FIXES, self._bucket_keys[bucket], *packed_arrays))
            rows_of_call.append(order[some])
        return calls, rows_of_call

    async def write_states(self, states: Sequence[DriverState]) -> int:
        """Takes in what matching says; how many were newer than what was known?"""
        records = rows_of(pack_states(states))
        calls = []
        for bucket, rows in self._by_bucket([state.driver_id for state in states], ROWS_PER_SCRIPT):
            pairs = (word for row in rows for word in (states[row].driver_id, records[row]))
            calls.append(self._bucket_call(scripts.WRITE_STATES, bucket, *pairs))
        return sum(await self._ask(calls))

    async def state_epoch(self) -> StateEpoch:
        """The present epoch; makes one where there is none. It has no TTL: it is lost only with the store, and tells so.

        Each bucket has its own, so that the loss of one shard of a cluster shows; the city's is made of all. Where a bucket is
        wiped between the reading of an epoch and a write of states, the new one may hold states of the old epoch. They are what
        matching last said, and it tells all again, so they do no harm.
        """
        makes: list[Call] = [("SET", bucket.epoch, secrets.token_hex(8), "NX") for bucket in self._bucket_keys]
        reads: list[Call] = [("MGET", bucket.epoch, bucket.told) for bucket in self._bucket_keys]
        return _epoch_of((await self._ask([*makes, *reads]))[len(makes) :])

    async def complete_epoch(self, epoch: str) -> bool:
        """Notes that all states have been told; False where the epoch is another by now."""
        known = await self._ask([("MGET", bucket.epoch, bucket.told) for bucket in self._bucket_keys])
        if _epoch_of(known).epoch != epoch:
            return False
        calls = [
            scripts.COMPLETE_EPOCH.call((bucket.epoch, bucket.told), of_bucket)
            for bucket, (of_bucket, _) in zip(self._bucket_keys, known, strict=True)
        ]
        return all(await self._ask(calls))

    async def read_near(self, place: Place, reach_m: float, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of these cells that are within the reach of the place, and perhaps a few beyond; each once."""
        return await self._read_near(place, reach_m, "these", cells)

    async def read_near_all_but(self, place: Place, reach_m: float, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The same, of all occupied cells except these."""
        return await self._read_near(place, reach_m, "all_but", cells)

    async def occupancy(self) -> Occupancy:
        """How many drivers the index holds in each occupied cell."""
        total: dict[int, int] = {}
        for counts in await self._ask([("HGETALL", bucket.occupancy) for bucket in self._bucket_keys]):
            for cell, count in counts.items():
                number = int(cell, 16)
                total[number] = total.get(number, 0) + int(count)
        return Occupancy(
            np.fromiter(total.keys(), dtype=np.uint64, count=len(total)),
            np.fromiter(total.values(), dtype=np.int64, count=len(total)),
        )

    async def read_changes(self, bucket: int, mark: str) -> Changes:
        """Some of those drivers of a bucket that changed after a mark (`""`: of all that have a position and are not silent)."""
        call = self._bucket_call(scripts.READ_CHANGES, self._bucket_keys[bucket], mark or "-inf", CHANGES_PER_READ)
        ((epoch, told, stamp, ids, records),) = await self._ask([call])
        drivers = _drivers_of([(ids, records)])
        whole = len(drivers.driver_ids) < CHANGES_PER_READ
        if stamp is not None:
            # a stamp may be that of many: where the reading ends amid them, the next begins with them
            mark = ("(" if whole else "") + stamp.decode()
        return Changes(drivers, mark, whole, _epoch_of([(epoch, told)]))

    async def read_positions(self, driver_ids: Sequence[str]) -> list[bytes | None]:
        """The POSITION record of each driver, fresh or not; None where none is known."""
        found: list[bytes | None] = [None] * len(driver_ids)
        groups = list(self._by_bucket(driver_ids, ROWS_PER_READ))
        replies = await self._ask([("HMGET", bucket.records, *(driver_ids[row] for row in rows)) for bucket, rows in groups])
        for (_, rows), records in zip(groups, replies, strict=True):
            for row, record in zip(rows, records, strict=True):
                if record is not None and not record.startswith(_NOWHERE):
                    found[row] = record[: POSITION.itemsize]
        return found

    async def sweep(self, silent_at_ms: int, impossible_at_ms: int, forgotten_at_ms: int, limit: int) -> tuple[int, int]:
        """Takes silent drivers out of the index and forgets positions long past; returns how many of either."""
        times = (silent_at_ms, impossible_at_ms, forgotten_at_ms, limit)
        replies = await self._ask([self._bucket_call(scripts.SWEEP, bucket, *times) for bucket in self._bucket_keys])
        return sum(silent for silent, _ in replies), sum(past for _, past in replies)

    async def erase(self, driver_ids: Sequence[str]) -> int:
        """Forgets all that is kept of these drivers; how many were known?"""
        groups = self._by_bucket(driver_ids, ROWS_PER_SCRIPT)
        calls = [self._bucket_call(scripts.ERASE, bucket, *(driver_ids[row] for row in rows)) for bucket, rows in groups]
        return sum(await self._ask(calls))

    async def _read_near(
        self, place: Place, reach_m: float, mode: str, cells: Sequence[int]
    ) -> tuple[IndexedDrivers, StateEpoch]:
        lat = min(max(place.lat, -MAX_LAT), MAX_LAT)  # beyond, there is nobody, and GEOSEARCH refuses
        circle = (place.lng, lat, search_radius_m(reach_m))
        names = [cell_name(cell) for cell in cells]
        calls = [self._bucket_call(scripts.READ_NEAR, bucket, *circle, mode, *names) for bucket in self._bucket_keys]
        replies = await self._ask(calls)
        return _each_once(_drivers_of([reply[2:] for reply in replies])), _epoch_of([reply[:2] for reply in replies])

    def _buckets_of(self, driver_ids: Sequence[str]) -> Ints:
        if self.buckets == 1:
            return np.zeros(len(driver_ids), dtype=np.int64)
        return np.fromiter((bucket_of(driver_id, self.buckets) for driver_id in driver_ids), np.int64, len(driver_ids))

    def _by_bucket(self, driver_ids: Sequence[str], at_most: int) -> Iterator[tuple[BucketKeys, list[int]]]:
        rows: list[list[int]] = [[] for _ in self._bucket_keys]
        for row, driver_id in enumerate(driver_ids):
            rows[bucket_of(driver_id, self.buckets)].append(row)
        for bucket, all_rows in zip(self._bucket_keys, rows, strict=True):
            for start in range(0, len(all_rows), at_most):
                yield bucket, all_rows[start : start + at_most]

    def _bucket_call(self, script: Script, bucket: BucketKeys, *arguments: str | bytes | float) -> Call:
        return script.call(bucket.scripted, bucket.cell_prefix, *arguments)

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        """All replies, in one round trip."""
        return answered(await self._valkey.ask(calls)) if calls else []


def _runs(buckets: Ints, at_most: int) -> Iterator[tuple[int, int, int]]:
    """The stretches of equal numbers in an ascending column, cut into pieces: (number, first row, row behind the last)."""
    bounds = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
    for first, end in itertools.pairwise(bounds):
        for start in range(first, end, at_most):
            yield int(buckets[first]), start, min(start + at_most, end)


def _drivers_of(replies: Iterable[Sequence[bytes]]) -> IndexedDrivers:
    """Drivers out of their ids, one a line, and their records."""
    ids: list[bytes] = []
    blocks: list[bytes] = []
    for names, records in replies:
        ids += names.split(b"\n") if names else []
        blocks.append(records)
    return IndexedDrivers(ids, np.frombuffer(b"".join(blocks), dtype=RECORD))


def _each_once(drivers: IndexedDrivers) -> IndexedDrivers:
    """The same drivers, each once: a script that the store broke off (a slot on the move) may leave one in two sets."""
    first = {driver_id: row for row, driver_id in reversed(list(enumerate(drivers.driver_ids)))}
    if len(first) == len(drivers.driver_ids):
        return drivers
    rows = sorted(first.values())
    return IndexedDrivers([drivers.driver_ids[row] for row in rows], taken(drivers.records, np.array(rows, dtype=np.int64)))


def _epoch_of(buckets: Sequence[Sequence[bytes | None]]) -> StateEpoch:
    """The city's epoch out of those of its buckets, each the epoch and the epoch told."""
    epochs = [epoch or b"" for epoch, _ in buckets]
    complete = all(epoch is not None and epoch == told for epoch, told in buckets)
    if not all(epochs):
        return StateEpoch("", complete=False)
    name = epochs[0] if len(epochs) == 1 else hashlib.blake2b(b"|".join(epochs), digest_size=8).hexdigest().encode()
    return StateEpoch(name.decode(), complete)
