"""Who is available, as location is told: nothing is lost by its silence, everything is told again after its loss."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import CityId, DriverId
from hexhail.kernel.settings import Settings
from matching.store import Driver
from matching.teller import Teller
from tests.e2e.people import until
from tests.matching.rides import NOW_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CITY = CityId("gridport")
RETELL_MS = 60_000


@dataclass
class FakeLocation:
    """Location as far as the teller sees it: an epoch, and the newest version of each driver told in it."""

    current: str = "e1"
    complete: bool = False
    silent: bool = False
    told: dict[str, int] = field(default_factory=dict)
    capabilities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    snapshots: int = 0
    in_the_middle: Any = None

    def lose_all(self, epoch: str) -> None:
        self.current, self.complete = epoch, False
        self.told.clear()

    async def epoch(self, city_id: CityId) -> tuple[str, bool]:
        self._answer()
        return self.current, self.complete

    async def tell(self, city_id: CityId, epoch: str, drivers: Sequence[Driver], completes_snapshot: bool) -> int:
        self._answer()
        if epoch != self.current:
            raise DomainError(Reason.EPOCH_CHANGED)
        if self.in_the_middle:
            act, self.in_the_middle = self.in_the_middle, None
            act()
        self.calls.append([driver.driver_id for driver in drivers])
        news = sum(driver.version > self.told.get(driver.driver_id, 0) for driver in drivers)
        for driver in drivers:
            self.capabilities[driver.driver_id] = driver.capabilities
            self.told[driver.driver_id] = max(driver.version, self.told.get(driver.driver_id, 0))
        self.complete = self.complete or completes_snapshot
        self.snapshots += completes_snapshot
        return news

    def _answer(self) -> None:
        if self.silent:
            raise DomainError(Reason.PEER_UNAVAILABLE, peer="location")

    nearby: Any = None
    positions: Any = None


@dataclass
class FakeDrivers:
    """PostgreSQL as far as the teller sees it."""

    online: list[Driver] = field(default_factory=list)

    asked_since_ms: list[int] = field(default_factory=list)

    async def drivers_to_tell(self, city_id: CityId, changed_since_ms: int) -> AsyncIterator[list[Driver]]:
        self.asked_since_ms.append(changed_since_ms)
        for driver in self.online:
            yield [driver]

    async def drivers_changed(self, city_id: CityId, from_ms: int, until_ms: int) -> AsyncIterator[list[Driver]]:
        yield [driver for driver in self.online if from_ms <= driver.updated_at_ms <= until_ms]

    driver: Any = None
    drivers: Any = None
    upsert_driver: Any = None
    set_online: Any = None
    set_suspended: Any = None
    stats: Any = None


def driver(driver_id: str, version: int = 1) -> Driver:
    return Driver(CITY, DriverId(driver_id), version, ("economy",), 4_500, True, False, NOW_MS)


@dataclass
class Bench:
    location: FakeLocation
    drivers: FakeDrivers
    clock: ManualClock
    teller: Teller


@pytest.fixture
def bench() -> Bench:
    location, drivers, clock = FakeLocation(), FakeDrivers(), ManualClock(NOW_MS)
    return Bench(location, drivers, clock, Teller(location, drivers, Cities([load_city("gridport", Settings())]), clock))


async def test_a_change_is_told_at_once(bench: Bench) -> None:
    await bench.teller.tell([driver("d1", 3)])
    assert bench.location.told == {"d1": 3}


async def test_what_location_does_not_hear_is_kept_and_told_later(bench: Bench) -> None:
    bench.location.silent = True
    await bench.teller.tell([driver("d1")])
    await bench.teller.tell([driver("d2")])
    with pytest.raises(DomainError):
        await bench.teller.send_untold()
    bench.location.silent = False
    await bench.teller.send_untold()
    assert bench.location.told == {"d1": 1, "d2": 1}
    bench.location.calls.clear()
    await bench.teller.send_untold()
    assert bench.location.calls == []


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_of_several_changes_that_wait_the_newest_is_told(bench: Bench, order: tuple[int, int]) -> None:
    bench.location.silent = True
    for version in order:
        await bench.teller.tell([driver("d1", version)])
    bench.location.silent = False
    await bench.teller.send_untold()
    assert bench.location.told == {"d1": 2}
    assert bench.location.calls == [["d1"]]


async def test_a_change_that_comes_while_the_one_before_is_on_its_way_is_told_too(bench: Bench) -> None:
    newer: list[asyncio.Task[None]] = []
    bench.location.in_the_middle = lambda: newer.append(asyncio.create_task(bench.teller.tell([driver("d1", 2)])))
    await bench.teller.tell([driver("d1", 1)])
    await asyncio.gather(*newer)
    assert bench.location.told == {"d1": 2}


async def test_a_lost_epoch_is_found_out_by_telling_and_the_change_is_told_in_the_new_one(bench: Bench) -> None:
    await bench.teller.tell([driver("d1")])
    bench.location.lose_all("e2")
    await bench.teller.tell([driver("d2")])
    assert bench.location.told == {"d2": 1}


async def test_when_location_lost_its_states_all_are_told_again(bench: Bench) -> None:
    bench.drivers.online = [driver("d1"), driver("d2")]
    await bench.teller.check_epochs()
    assert bench.location.told == {"d1": 1, "d2": 1}
    assert bench.location.complete
    bench.location.lose_all("e2")
    await bench.teller.check_epochs()
    assert bench.location.told == {"d1": 1, "d2": 1}
    assert bench.location.complete


async def test_all_are_told_again_even_if_a_change_found_out_first(bench: Bench) -> None:
    bench.drivers.online = [driver("d1")]
    await bench.teller.check_epochs()
    bench.location.lose_all("e2")
    await bench.teller.tell([driver("d2")])
    await bench.teller.check_epochs()
    assert bench.location.told == {"d1": 1, "d2": 1}


async def test_a_snapshot_that_was_cut_short_is_told_again(bench: Bench) -> None:
    bench.drivers.online = [driver("d1"), driver("d2")]
    bench.location.in_the_middle = lambda: setattr(bench.location, "silent", True)
    with pytest.raises(DomainError):
        await bench.teller.check_epochs()
    assert not bench.location.complete
    bench.location.silent = False
    await bench.teller.check_epochs()
    assert bench.location.told == {"d1": 1, "d2": 1}
    assert bench.location.complete


async def test_what_is_known_is_not_told_all_the_time_but_now_and_then(bench: Bench) -> None:
    await bench.teller.check_epochs()
    bench.clock.advance(RETELL_MS - 1)
    await bench.teller.check_epochs()
    assert bench.location.snapshots == 1
    bench.clock.advance(1)
    await bench.teller.check_epochs()
    assert bench.location.snapshots == 2


async def test_many_changes_go_in_few_calls(bench: Bench) -> None:
    await bench.teller.tell([driver(f"d{n}") for n in range(1_200)])
    assert [len(call) for call in bench.location.calls] == [500, 500, 200]


async def test_the_loop_outlasts_locations_silence(bench: Bench) -> None:
    bench.location.silent = True
    running = asyncio.create_task(bench.teller.run())
    try:
        await bench.teller.tell([driver("d1")])
        bench.location.silent = False

        def told() -> bool:
            bench.clock.advance(1_000)
            return bench.location.told == {"d1": 1}

        await until(told, "not told though location answers")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_driver_is_known_by_city_and_id() -> None:
    assert driver("d1").key == (CITY, "d1")
    assert replace(driver("d1"), version=9).key == driver("d1").key


async def test_the_first_telling_is_of_everybody_the_next_of_whoever_changed_since(bench: Bench) -> None:
    """Who went offline as a process died is told by the next one: nobody else remembers it."""
    await bench.teller.check_epochs()
    bench.clock.advance(RETELL_MS)
    await bench.teller.check_epochs()
    first, second = bench.drivers.asked_since_ms
    assert first <= 0
    assert NOW_MS - RETELL_MS <= second <= NOW_MS


async def test_capabilities_that_the_city_has_dropped_are_not_told(bench: Bench) -> None:
    await bench.teller.tell([replace(driver("d1"), capabilities=("economy", "rickshaw"))])
    assert bench.location.told == {"d1": 1}
    assert bench.location.capabilities == {"d1": ("economy",)}
