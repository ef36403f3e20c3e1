"""The index of one city in Valkey or Redis: one slot per driver, one script per batch and bucket, one round trip per question."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from redis.exceptions import NoScriptError

from hexhail.kernel.ids import bucket_of
from hexhail.stores.valkey import valkey_answers
from location import redis_scripts as scripts
from location.keys import bucket_keys, cell_name, city_keys
from location.model import POSITION, STATE, IndexedDrivers, Occupancy, StateEpoch
from location.records import pack_states, rows_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import redis.asyncio

    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Bools
    from location.keys import BucketKeys
    from location.model import DriverState, Records

Call = tuple[str | bytes | int | float, ...]

ROWS_PER_SCRIPT: Final = 256
"""Drivers written by one script: it takes about 2 ms, in which nobody else is served."""

DRIVERS_PER_READ: Final = 1_000


class RedisLocationStore:
    """A LocationStore. It survives FLUSHALL and restarts: scripts are loaded again, and a new epoch says what was lost."""

    def __init__(self, client: redis.asyncio.Redis, city_id: CityId, buckets: int) -> None:
        self._client = client
        self._buckets = buckets
        self._keys = city_keys(city_id)
        self._bucket_keys = tuple(bucket_keys(city_id, bucket) for bucket in range(buckets))

    async def open_session(self, at_least: int) -> int:
        """A session id of at least this, newer than all given out before in the city."""
        (session,) = await self._ask([self._call(scripts.OPEN_SESSION, (self._keys.session,), at_least)])
        return int(session)

    async def last_session(self) -> int:
        """The newest session id given out; 0 where none is known."""
        (session,) = await self._ask([("GET", self._keys.session)])
        return int(session or 0)

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Bools:
        """Takes in POSITION[n] of distinct drivers; bool[n]: was it newer than what was known?"""
        taken = np.zeros(len(driver_ids), dtype=np.bool_)
        calls, rows_of_call = [], []
        for bucket, rows in self._by_bucket(driver_ids, ROWS_PER_SCRIPT):
            records = rows_of(positions[rows])
            pairs = (word for row, record in zip(rows, records, strict=True) for word in (driver_ids[row], record))
            calls.append(self._call(scripts.WRITE_FIXES, bucket.scripted, bucket.cell_prefix, *pairs))
            rows_of_call.append(rows)
        for rows, reply in zip(rows_of_call, await self._ask(calls), strict=True):
            taken[rows] = np.frombuffer(reply, dtype="S1") == b"1"
        return taken

    async def write_states(self, states: Sequence[DriverState]) -> int:
        """Takes in what matching says; how many were newer than what was known?"""
        records = rows_of(pack_states(states))
        calls = []
        for bucket, rows in self._by_bucket([state.driver_id for state in states], ROWS_PER_SCRIPT):
            pairs = (word for row in rows for word in (states[row].driver_id, records[row]))
            calls.append(self._call(scripts.WRITE_STATES, bucket.scripted, bucket.cell_prefix, *pairs))
        return sum(await self._ask(calls))

    async def state_epoch(self) -> StateEpoch:
        """The present epoch; makes one where there is none. It has no TTL: it is lost only with the store, and tells so.

        It lies in the city's own slot: where the store is wiped between the reading of an epoch and a write of states, the new
        store may hold states of the old epoch. They are what matching last said, and it tells all again, so they do no harm.
        """
        make: Call = ("SET", self._keys.epoch, secrets.token_hex(8), "NX")
        _, told = await self._ask([make, self._epoch_call()])
        return _epoch_of(told)

    async def complete_epoch(self, epoch: str) -> bool:
        """Notes that all states have been told; False where the epoch is another by now."""
        (done,) = await self._ask([self._call(scripts.COMPLETE_EPOCH, (self._keys.epoch, self._keys.told), epoch)])
        return bool(done)

    async def read_cells(self, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of these cells, each seen once."""
        return await self._read("these", cells)

    async def read_all_but(self, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of all occupied cells except these, each seen once."""
        return await self._read("all_but", cells)

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

    async def read_everyone(self) -> AsyncIterator[IndexedDrivers]:
        """All indexed drivers, some at a time: one that moves meanwhile may be missed or come twice."""
        for bucket in self._bucket_keys:
            (counts,) = await self._ask([("HGETALL", bucket.occupancy)])
            cells: list[bytes] = []
            drivers = 0
            for cell, count in counts.items():
                cells.append(cell)
                drivers += int(count)
                if drivers >= DRIVERS_PER_READ:
                    yield await self._read_named(bucket, cells)
                    cells, drivers = [], 0
            if cells:
                yield await self._read_named(bucket, cells)

    async def read_positions(self, driver_ids: Sequence[str]) -> list[bytes | None]:
        """The POSITION record of each driver, fresh or not."""
        found: list[bytes | None] = [None] * len(driver_ids)
        groups = list(self._by_bucket(driver_ids, len(driver_ids)))
        replies = await self._ask([("HMGET", bucket.positions, *(driver_ids[row] for row in rows)) for bucket, rows in groups])
        for (_, rows), records in zip(groups, replies, strict=True):
            for row, record in zip(rows, records, strict=True):
                found[row] = record
        return found

    async def sweep(self, silent_at_ms: int, impossible_at_ms: int, forgotten_at_ms: int, limit: int) -> tuple[int, int]:
        """Takes silent drivers out of the index and forgets positions long past; returns how many of either."""
        times = (silent_at_ms, impossible_at_ms, forgotten_at_ms, limit)
        calls = [self._call(scripts.SWEEP, bucket.scripted, bucket.cell_prefix, *times) for bucket in self._bucket_keys]
        replies = await self._ask(calls)
        return sum(silent for silent, _ in replies), sum(past for _, past in replies)

    async def _read(self, mode: str, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        names = [cell_name(cell) for cell in cells]
        calls = [
            self._call(scripts.READ_DRIVERS, bucket.scripted, bucket.cell_prefix, mode, *names) for bucket in self._bucket_keys
        ]
        # asked on both sides of the reading: neither a wipe nor the last of the telling can slip in between unseen
        before, *replies, after = await self._ask([self._epoch_call(), *calls, self._epoch_call()])
        return _indexed(replies), _epoch_of(after if before == after else (after[0], None))

    async def _read_named(self, bucket: BucketKeys, cells: Sequence[bytes]) -> IndexedDrivers:
        call = self._call(scripts.READ_DRIVERS, bucket.scripted, bucket.cell_prefix, "these", *cells)
        return _indexed(await self._ask([call]))

    def _epoch_call(self) -> Call:
        return ("MGET", self._keys.epoch, self._keys.told)

    def _by_bucket(self, driver_ids: Sequence[str], at_most: int) -> Iterator[tuple[BucketKeys, list[int]]]:
        rows: list[list[int]] = [[] for _ in self._bucket_keys]
        for row, driver_id in enumerate(driver_ids):
            rows[bucket_of(driver_id, self._buckets)].append(row)
        for bucket, all_rows in zip(self._bucket_keys, rows, strict=True):
            for start in range(0, len(all_rows), at_most):
                yield bucket, all_rows[start : start + at_most]

    @staticmethod
    def _call(script: scripts.Script, keys: Sequence[str], *arguments: str | bytes | int) -> Call:
        return ("EVALSHA", script.sha, len(keys), *keys, *arguments)

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        """All replies, in one round trip; scripts that the server does not know (new, flushed) are loaded and asked again."""
        async with valkey_answers():
            replies = await self._pipelined(calls)
            unknown = [row for row, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                for script in scripts.ALL:
                    await self._client.script_load(script.text)
                again = await self._pipelined([calls[row] for row in unknown])
                for row, reply in zip(unknown, again, strict=True):
                    replies[row] = reply
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    async def _pipelined(self, calls: Sequence[Call]) -> list[Any]:
        if not calls:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call)
            return list(await pipe.execute(raise_on_error=False))


def _indexed(replies: Sequence[Sequence[bytes]]) -> IndexedDrivers:
    ids: list[bytes] = []
    for names, _, _ in replies:
        ids += names.split(b"\n") if names else []
    positions = np.frombuffer(b"".join(reply[1] for reply in replies), dtype=POSITION)
    return IndexedDrivers(ids, positions, np.frombuffer(b"".join(reply[2] for reply in replies), dtype=STATE))


def _epoch_of(reply: Sequence[bytes | None]) -> StateEpoch:
    epoch, told = reply
    return StateEpoch((epoch or b"").decode(), epoch is not None and epoch == told)
