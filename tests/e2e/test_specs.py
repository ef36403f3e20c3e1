"""The case tables of tests/specs once more, through gRPC: what the pure functions say is what riders and drivers meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.kernel.errors import DomainError, Reason
from tests.e2e.people import NEAR, Passenger, Phone, phones, until
from tests.e2e.world import gridport, world_of
from tests.matching.test_ranking import place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hexhail.embedded import Stores

SPECS = Path(__file__).parents[1] / "specs"
LIFECYCLE = json.loads((SPECS / "lifecycle.json").read_text())["cases"]
RANKING = json.loads((SPECS / "ranking.json").read_text())["cases"]
ONE_AT_A_TIME = {"phases": [{"size": 1, "timeout_s": 5.0, "radius_m": 5000.0}]}


class Played:
    """A ride of the table: each step as the RPC that brings it about."""

    def __init__(self, rider: Passenger, phone: Phone | None) -> None:
        self.rider = rider
        self.phone = phone
        self.offer_id = ""

    @property
    def driver(self) -> Phone:
        assert self.phone is not None
        return self.phone

    async def offer(self) -> None:
        """The search offers the ride by itself."""
        self.offer_id = (await self.driver.next_offer()).offer_id

    async def accept(self) -> None:
        await self.driver.app.accept(self.offer_id)

    async def decline(self) -> None:
        await self.driver.app.decline(self.offer_id)

    async def give_back(self) -> None:
        await self.driver.app.cancel_assignment(self.rider.ride_id)

    async def arrive(self) -> None:
        await self.driver.app.arrive(self.rider.ride_id)

    async def start(self) -> None:
        await self.driver.app.start(self.rider.ride_id)

    async def complete(self) -> None:
        await self.driver.app.complete(self.rider.ride_id)

    async def cancel(self) -> None:
        await self.rider.app.cancel(self.rider.ride_id)

    async def reassign(self) -> None:
        await self.rider.world.operator().reassign_ride(self.rider.ride_id)

    async def end(self) -> None:
        await self.rider.world.operator().end_ride(self.rider.ride_id)

    async def what_follows(self, happening: str) -> str:
        """The state that a step leads to, or the reason of its refusal."""
        step: Callable[[], Awaitable[None]] = getattr(self, happening)
        try:
            await step()
        except DomainError as refusal:
            return refusal.reason.value
        return (await self.rider.app.get_ride(self.rider.ride_id)).state.value


@pytest.mark.parametrize("case", LIFECYCLE, ids=lambda case: f"{case['name']} ({len(case['steps'])})")
async def test_what_becomes_of_a_ride(stores: Stores, postgres_dsn: str, valkey: object, case: dict[str, Any]) -> None:
    somebody = any(happening == "offer" for happening, _ in case["steps"])
    city = gridport(matching={"offers": ONE_AT_A_TIME})
    async with world_of(stores, city) as world, phones(world, [NEAR] if somebody else []) as crowd:
        rider = Passenger(world, world.rider())
        await rider.request()
        ride = Played(rider, crowd[0] if crowd else None)
        for happening, expected in case["steps"]:
            assert await ride.what_follows(happening) == expected, happening


@pytest.mark.parametrize("case", RANKING, ids=lambda case: case["name"])
async def test_who_is_asked_first(stores: Stores, postgres_dsn: str, valkey: object, case: dict[str, Any]) -> None:
    """Offers go to one driver at a time, each declines: the order in which they come is the order of the ranking."""
    city = gridport(matching={"ranking": {"policy": case["policy"]}, "offers": ONE_AT_A_TIME})
    drivers = case["drivers"]
    places, ratings = [place_of(d) for d in drivers], [d["rating_milli"] for d in drivers]
    async with (
        world_of(stores, city) as world,
        phones(world, places, ratings_milli=ratings, names=[d["id"] for d in drivers]) as crowd,
    ):
        for phone, driver in zip(crowd, drivers, strict=True):
            await phone.report(heading_deg=driver.get("heading_deg"))
        await Passenger(world, world.rider()).request()
        asked: list[str] = []
        while len(asked) < len(crowd):
            await until(lambda: any(phone.live() for phone in crowd), f"nobody is asked after {asked}")
            (phone,) = [phone for phone in crowd if phone.live()]
            asked.append(phone.app.driver_id)
            await phone.app.decline(phone.live()[0].offer_id)
            await until(lambda p=phone: not p.live(), "a declined offer stays live")  # type: ignore[misc]
        assert asked == case["order"]


def test_every_reason_of_the_tables_is_one_of_ours() -> None:
    states_and_reasons = {expected for case in LIFECYCLE for _, expected in case["steps"]}
    assert {name for name in states_and_reasons if name in Reason.__members__} == {"ILLEGAL_TRANSITION", "OFFER_CLOSED"}
