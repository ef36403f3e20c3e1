"""What drivers' phones say becomes the travel times of the quotes that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import routing.__main__
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.geo import Place
from routing.city import LearnedCity, router_for
from routing.learner import LearnerParams
from routing.patches import patches_of
from routing.published import PublishedSource
from routing.road import RoadRouter
from tests.e2e.people import DROPOFF, MIDDLE, phones, until
from tests.e2e.world import START_MS, TOKEN_KEY, gridport, world_of

if TYPE_CHECKING:
    from pathlib import Path

    from hexhail.client import QuoteView
    from hexhail.embedded import Stores

BLOCKS = 3
STEP_MS = 20_000


async def test_a_fleet_that_drives_teaches_what_quotes_say(
    stores: Stores, postgres_dsn: str, valkey: object, tmp_path: Path
) -> None:
    city, clock = gridport(), ManualClock(START_MS)
    base = router_for(city.policies["routing"], city.time_zone, tmp_path, None)
    assert isinstance(base, RoadRouter)
    base.tables_dir = tmp_path
    known = LearnedCity(base, tmp_path / "traffic.npz", LearnerParams(publish_period_s=60.0, fewest_stretches=6))
    source = PublishedSource(base, known.path, len(patches_of(base.free_flow)), clock)
    nodes = base.free_flow.places()
    tracks = [[Place(*nodes[row * 31 + column]) for column in range(0, 31, BLOCKS)] for row in (8, 14, 20)]

    async with (
        world_of(stores, city, clock, source=source) as world,
        phones(world, [track[0] for track in tracks]) as drivers,
        routing.__main__.running(
            [(city, known)],
            clock=clock,
            token_key=TOKEN_KEY,
            listen=f"unix:{tmp_path}/traffic.sock",
            location_address=world.addresses.location,
        ),
    ):
        rider = world.rider()

        async def quote() -> QuoteView:
            (given,) = await rider.quotes([MIDDLE, DROPOFF], ["economy"])
            return given

        before = await quote()
        assert before.travel_times_version == base.version
        step = 0

        async def driven_on() -> QuoteView | None:
            nonlocal step
            step += 1
            for phone, track in zip(drivers, tracks, strict=True):
                there_and_back = [*track, *track[-2:0:-1]]
                await phone.report(there_and_back[step % len(there_and_back)])
            clock.advance(STEP_MS)
            given = await quote()
            return given if given.travel_times_version != base.version else None

        after = await until(driven_on, "no traffic was learned")

    assert after.duration_s != before.duration_s
    assert known.path.is_file()
