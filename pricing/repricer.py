"""Keeps every city's surge up to date: gathers supply and demand, has the multipliers decided, publishes them.

Of several processes one holds a city's lease and recomputes; the others follow what it publishes. A recompute happens from whole
inputs or not at all: where one is missing, the last good values stay, marked as stale and as of when they were good.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S
from hexhail.rpc.background import end
from pricing.model import Surge
from pricing.packed import EPOCH_LENGTH
from pricing.surge import surge_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Cells, Ints
    from pricing.board import Board
    from pricing.params import PricingParams
    from pricing.recorder import QuoteRecorder
    from pricing.store import PricingStore, Published

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
"""How soon to try again after a recompute failed, where that is sooner than the period."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many of something are in which cells: uint64[n], int64[n]; `complete` is False where some may be missing."""

    cells: Cells
    counts: Ints
    as_of_ms: int
    complete: bool = True


class CountSource(Protocol):
    """Somebody who counts a city's drivers or requests per cell. Raises PEER_UNAVAILABLE, or the reason that the peer gives."""

    async def count(self, city: City) -> Counts:
        """The counts in cells of the city's surge resolution."""
        ...


class Outcome(Enum):
    """What became of a recompute."""

    PUBLISHED = auto()
    FOLLOWED = auto()
    """Another process recomputes."""
    KEPT = auto()
    """An input was missing: the last good values stay, marked as stale."""


@dataclass(frozen=True, slots=True)
class RepricedCity:
    """A city, its parameters, and the recorder of its quotes."""

    city: City
    params: PricingParams
    recorder: QuoteRecorder


class Repricer:
    """The loop of every city, and the follower of what others publish."""

    def __init__(
        self,
        cities: Mapping[CityId, RepricedCity],
        *,
        clock: Clock,
        board: Board,
        store: PricingStore,
        supply: CountSource,
        requests: CountSource,
    ) -> None:
        self._cities = cities
        self._clock = clock
        self._board = board
        self._store = store
        self._supply = supply
        self._requests = requests
        self._owner = secrets.token_hex(8)
        self._one_at_a_time = {city_id: asyncio.Lock() for city_id in cities}

    async def run(self) -> None:
        """Recomputes on the cities' periods, and follows, until cancelled; then gives its leases back."""
        loops = [self._keep_repricing(one) for one in self._cities.values()]
        tasks = {asyncio.create_task(loop) for loop in (*loops, self._keep_following())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(tasks)
            await self._give_leases_back()

    async def recompute(self) -> dict[CityId, Outcome]:
        """Recomputes every city once, now."""
        return {city_id: await self.recompute_city(city_id) for city_id in self._cities}

    async def recompute_city(self, city_id: CityId) -> Outcome:
        """Recomputes one city now, if this process is the one to do it."""
        one = self._cities[city_id]
        async with self._one_at_a_time[city_id]:
            try:
                return await self._recompute(one, self._clock.now_ms())
            except DomainError as error:
                if error.reason is not Reason.STORE_UNAVAILABLE:
                    raise
                self._keep(city_id, error)
                return Outcome.KEPT

    async def _recompute(self, one: RepricedCity, now_ms: int) -> Outcome:
        city, period_s = one.city, one.params.surge_period_s
        await one.recorder.catch_up(now_ms)
        lease_ms = round((2 * period_s + 3) * MS_PER_S)  # a missed period and a slow peer do not cost the lease
        leads = await self._store.take_lease(city, self._owner, lease_ms, now_ms)
        published = await self._adopt(city)
        if not leads:
            return Outcome.FOLLOWED
        last = self._board.latest(city.city_id)
        try:
            fresh = await self._decide(one, last, now_ms)
        except DomainError as error:
            self._keep(city.city_id, error)
            kept = self._board.latest(city.city_id)
            if kept is not None and kept.replaces(published.surge):
                await self._publish(one, kept, published)
            return Outcome.KEPT
        if not await self._publish(one, fresh, published):
            return Outcome.FOLLOWED
        self._board.put(city.city_id, fresh)
        return Outcome.PUBLISHED

    def _keep(self, city_id: CityId, error: DomainError) -> None:
        """Marks the last good values; says why once, not at every further attempt."""
        last = self._board.latest(city_id)
        say = log.debug if last is not None and last.stale else log.warning
        say("surge is not recomputed", city_id=city_id, error=str(error))
        self._board.mark_stale(city_id)

    async def _adopt(self, city: City) -> Published:
        published = await self._store.published(city)
        if published.surge is not None:
            self._board.put(city.city_id, published.surge)
        return published

    async def _decide(self, one: RepricedCity, last: Surge | None, now_ms: int) -> Surge:
        """The next version, from whole inputs. Raises PEER_UNAVAILABLE where an input is missing or too old."""
        city, params = one.city, one.params
        supply, requests, quotes = await asyncio.gather(
            self._supply.count(city),
            self._requests.count(city),
            self._store.count_quotes(city, round(params.quote_window_s * MS_PER_S), now_ms),
        )
        for peer, counted in (("location", supply), ("matching", requests)):
            if not counted.complete:
                raise DomainError(Reason.PEER_UNAVAILABLE, f"{peer} does not know everything", peer=peer)
            if now_ms - counted.as_of_ms > params.surge_max_age_s * MS_PER_S:
                raise DomainError(Reason.PEER_UNAVAILABLE, f"{peer} counts as of {counted.as_of_ms}: too old", peer=peer)
        counts = ((supply.cells, supply.counts), (requests.cells, requests.counts), quotes)
        table = await asyncio.to_thread(surge_table, *counts, params.surge)  # a large city's take longer than the loop may wait
        return Surge(
            epoch=last.epoch if last else secrets.token_hex(EPOCH_LENGTH // 2),
            version=last.version + 1 if last else 1,
            as_of_ms=min(now_ms, supply.as_of_ms, requests.as_of_ms),
            stale=False,
            table=table,
        )

    async def _publish(self, one: RepricedCity, surge: Surge, instead_of: Published) -> bool:
        lifetime_ms = round(2 * one.params.surge_max_age_s * MS_PER_S)
        if await self._store.publish(one.city, surge, instead_of.header, lifetime_ms):
            return True
        log.info("another process published first", city_id=one.city.city_id)
        await self._adopt(one.city)
        return False

    async def _keep_repricing(self, one: RepricedCity) -> None:
        while True:
            wait_s = one.params.surge_period_s
            try:
                outcome = await self.recompute_city(one.city.city_id)
            except Exception:
                log.exception("recomputing surge failed", city_id=one.city.city_id)
                outcome = Outcome.KEPT
                self._board.mark_stale(one.city.city_id)
            if outcome is Outcome.KEPT:
                wait_s = min(wait_s, _RETRY_S)
            await self._clock.sleep(wait_s)

    async def _keep_following(self) -> None:
        while True:
            try:
                async for city_id in self._store.publications(list(self._cities)):
                    await self._adopt(self._cities[city_id].city)
            except DomainError as error:
                log.warning("publications are not heard", error=str(error))
            except Exception:
                log.exception("following publications failed")
            await self._clock.sleep(_RETRY_S)

    async def _give_leases_back(self) -> None:
        for one in self._cities.values():
            try:
                await self._store.drop_lease(one.city, self._owner)
            except DomainError as error:
                log.info("a lease is left to expire", city_id=one.city.city_id, error=str(error))
