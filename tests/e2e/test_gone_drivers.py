"""Drivers who do not come, or of whom nothing is heard any more: found out by looking, through the services."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from hexhail.client import RideState
from hexhail.kernel.geo import Place
from tests.e2e.people import MIDDLE, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hexhail.embedded import Stores
    from tests.e2e.people import Phone
    from tests.e2e.world import World

STEP_MS = 5_000
POLICY = {
    "ranking": {"policy": "eta"},
    "offers": {"phases": [{"size": 1, "timeout_s": 60.0, "radius_m": 5_000.0}], "search_limit_s": 600.0},
    "progress": {
        "progress_check_s": 5.0,
        "checks_without_progress": 3,
        "pickup_silent_limit_s": 10.0,
        "ride_silent_limit_s": 15.0,
    },
}
FAR = [Place(MIDDLE.lat + 0.011, MIDDLE.lng), Place(MIDDLE.lat + 0.0125, MIDDLE.lng)]


class Looks:
    """Time that passes for a ride, look by look at its driver."""

    def __init__(self, world: World, connection: asyncpg.Connection[asyncpg.Record], ride_id: str) -> None:
        self._world = world
        self._connection = connection
        self._ride_id = ride_id

    async def go_on(self, *reporting: Phone) -> None:
        """Some seconds go by, these phones report, and the ride's driver, if it still has one, is looked at."""
        self._world.clock.advance(STEP_MS)
        for phone in reporting:
            await phone.report()
        await self._world.matching.timekeeper.sweep()
        await self._world.matching.minder.look_at(self._world.city.city_id)
        await until(self._looked_at, "nobody looked")

    async def go_on_until(self, condition: Callable[[], bool], *reporting: Phone) -> int:
        """The same until something has come about; how often?"""
        for count in range(30):
            if condition():
                return count
            await self.go_on(*reporting)
        raise AssertionError("it never came about")

    async def reasons(self) -> list[str]:
        """Why the assignments of the ride ended, in order."""
        statement = "SELECT release_reason FROM matching.assignments WHERE ride_id = $1 ORDER BY accepted_at_ms"
        return [row["release_reason"] for row in await self._connection.fetch(statement, self._ride_id)]

    async def _looked_at(self) -> bool:
        return not await self._connection.fetchval(
            "SELECT EXISTS (SELECT 1 FROM matching.assignments WHERE ride_id = $1 AND released_at_ms IS NULL"
            " AND accepted_at_ms < $2 AND coalesce((watch->>'checked_at_ms')::bigint, 0) < $2)",
            self._ride_id,
            self._world.clock.now_ms(),
        )


@asynccontextmanager
async def looks(world: World, postgres_dsn: str, ride_id: str) -> AsyncIterator[Looks]:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        yield Looks(world, connection, ride_id)
    finally:
        await connection.close()


async def test_a_ride_whose_drivers_phone_died_goes_to_the_next_and_one_under_way_ends(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport(matching=POLICY)) as world, phones(world, FAR) as (first, second):
        rider = Passenger(world, world.rider())
        ride = await rider.request()
        await first.app.accept((await first.next_offer()).offer_id)
        async with looks(world, postgres_dsn, ride.ride_id) as time:
            count = await time.go_on_until(lambda: bool(second.live()), second)
            assert count * STEP_MS > 30_000 + 10_000, "who was heard of until a moment ago is not silent"
            assert not first.live()
            await second.app.accept(second.live()[0].offer_id)
            await second.app.arrive(ride.ride_id)
            await second.app.start(ride.ride_id)
            await time.go_on_until(lambda: rider.states()[-1] is RideState.ENDED_BY_OPERATOR)
            await rider.end_of_watch()
            assert await time.reasons() == ["DRIVER_SILENT", "DRIVER_SILENT"]
        assert (await world.matching.store.driver(world.city.city_id, "d2")).ride_id == ""


async def test_a_ride_whose_driver_stands_still_goes_to_the_next_after_three_looks_without_progress(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport(matching=POLICY)) as world, phones(world, FAR) as (first, second):
        rider = Passenger(world, world.rider())
        ride = await rider.request()
        await first.app.accept((await first.next_offer()).offer_id)
        async with looks(world, postgres_dsn, ride.ride_id) as time:
            for _ in range(3):
                await time.go_on(first, second)
            assert (await rider.app.get_ride(ride.ride_id)).state is RideState.ACCEPTED
            await time.go_on_until(lambda: bool(second.live()), first, second)
            assert second.live()[0].ride_id == ride.ride_id
            assert not first.live()
            assert await time.reasons() == ["NO_PROGRESS"]
