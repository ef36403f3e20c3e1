"""Who is available? Matching alone says so, and this tells location: every change at once, everything when location lost it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hexhail.cities import Cities, City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.peers import Location
    from matching.store import Driver, DriverKey, Drivers

log = structlog.get_logger(__name__)

_BATCH = 500
_ON_ITS_WAY_MS = 1_000
"""Who changed so lately is being told by whoever changed it: telling it again says nothing of what was lost."""


class Teller:
    """Keeps location's states equal to PostgreSQL's. What cannot be told now is told as soon as location answers again."""

    def __init__(
        self,
        location: Location,
        drivers: Drivers,
        cities: Cities,
        clock: Clock,
        *,
        check_period_s: float = 1.0,
        retell_period_s: float = 60.0,
        repaired: Callable[[CityId, int], None] = lambda _city_id, _count: None,
    ) -> None:
        """`repaired` is told of how many drivers location had not heard the last, though nothing was known to be untold."""
        self._location = location
        self._drivers = drivers
        self._cities = cities
        self._clock = clock
        self._check_period_s = check_period_s
        self._retell_period_ms = retell_period_s * MS_PER_S
        self._repaired = repaired
        self._untold: dict[DriverKey, Driver] = {}
        self._sending = asyncio.Lock()
        self._answers = True
        self._epochs: dict[CityId, str] = {}
        self._told_all_at_ms: dict[CityId, int] = {}

    async def tell(self, drivers: Iterable[Driver]) -> None:
        """Tells location of changed drivers, now if it answers, later if not. Never raises for location's silence.

        After one silence nobody waits for another: what is untold is kept, and `run` tries again.
        """
        for driver in drivers:
            known = self._untold.get(driver.key)
            if known is None or known.version < driver.version:
                self._untold[driver.key] = driver
        if not self._answers:
            return
        try:
            await self.send_untold()
        except DomainError as error:
            self._answers = False
            log.warning("location not told yet", reason=error.reason, waiting=len(self._untold))

    async def send_untold(self) -> None:
        """Sends what is waiting. Raises what location raises; nothing is lost by that."""
        async with self._sending:
            while self._untold:
                city_id = next(iter(self._untold))[0]
                batch = [driver for key, driver in self._untold.items() if key[0] == city_id][:_BATCH]
                await self._send(city_id, batch)
                for driver in batch:
                    if self._untold.get(driver.key) is driver:
                        del self._untold[driver.key]

    async def check_epochs(self) -> None:
        """Tells everything again where location's epoch is new or its states incomplete, and now and then anyway."""
        for city in self._cities:
            epoch, complete = await self._location.epoch(city.city_id)
            now_ms = self._clock.now_ms()
            due = now_ms - self._told_all_at_ms.get(city.city_id, 0) >= self._retell_period_ms
            if complete and not due and self._epochs.get(city.city_id) == epoch:
                continue
            if self._epochs.get(city.city_id) not in (None, epoch):
                log.warning("location lost its states: telling all again", city_id=city.city_id)
            again = complete and self._epochs.get(city.city_id) == epoch
            self._epochs[city.city_id] = epoch
            await self._tell_all(city, epoch, again)
            self._told_all_at_ms[city.city_id] = now_ms

    async def run(self) -> None:
        """Checks epochs every second and sends what is waiting, for ever."""
        while True:
            try:
                await self.check_epochs()
                await self.send_untold()
                self._answers = True
            except DomainError as error:
                self._answers = False
                log.warning("location not told yet", reason=error.reason, waiting=len(self._untold))
            await self._clock.sleep(self._check_period_s)

    async def tell_changed(self, city_id: CityId, from_ms: int, until_ms: int) -> None:
        """Tells again who changed between these times: whoever changed it may have died before telling it.

        Raises STORE_UNAVAILABLE, PEER_UNAVAILABLE, EPOCH_CHANGED.
        """
        epoch = self._epochs.get(city_id)
        if epoch is None:
            return  # all will be told
        async for page in self._drivers.drivers_changed(city_id, from_ms, min(until_ms, self._clock.now_ms() - _ON_ITS_WAY_MS)):
            self._repaired(city_id, await self._location.tell(city_id, epoch, _known(self._cities[city_id], page), False))

    async def _tell_all(self, city: City, epoch: str, again: bool) -> None:
        """Who is offline is told as well, if that is news since the last time: it may have been lost with a process."""
        since_ms = self._told_all_at_ms.get(city.city_id, 0) - self._retell_period_ms
        settled_ms = self._clock.now_ms() - _ON_ITS_WAY_MS
        async for page in self._drivers.drivers_to_tell(city.city_id, round(since_ms)):
            drivers = [driver for driver in page if driver.updated_at_ms <= settled_ms] if again else page
            news = await self._location.tell(city.city_id, epoch, _known(city, drivers), completes_snapshot=False)
            if again:
                self._repaired(city.city_id, news)
        await self._location.tell(city.city_id, epoch, (), completes_snapshot=True)

    async def _send(self, city_id: CityId, batch: list[Driver]) -> None:
        for attempt in (1, 2):
            if city_id not in self._epochs:
                self._epochs[city_id], _ = await self._location.epoch(city_id)
            try:
                known = _known(self._cities[city_id], batch)
                await self._location.tell(city_id, self._epochs[city_id], known, completes_snapshot=False)
            except DomainError as error:
                if error.reason is not Reason.EPOCH_CHANGED or attempt == 2:
                    raise
                del self._epochs[city_id]
                self._told_all_at_ms.pop(city_id, None)
            else:
                return


def _known(city: City, drivers: Iterable[Driver]) -> list[Driver]:
    """The same drivers, with only those capabilities that the city's list still has: others would be refused."""
    return [
        replace(driver, capabilities=tuple(name for name in driver.capabilities if name in city.capabilities))
        for driver in drivers
    ]
