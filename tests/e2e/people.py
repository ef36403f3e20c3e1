"""Riders and drivers of the end-to-end tests: apps that remember what they were told, and wait until they were told it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hexhail.client import FixReport, OfferState, RideView, TrackingView
from hexhail.kernel.geo import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from hexhail.client import DriverApp, OfferView, QuoteView, RiderApp
    from hexhail.client.views import RideState
    from tests.e2e.world import World

PATIENCE_S = 10.0
MIDDLE = Place(40.500, -74.000)
NEAR = Place(40.5009, -74.0012)
DROPOFF = Place(40.506, -73.994)


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits until the condition gives something true, and gives it; fails naming `what` when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                result = condition()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return result
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(what) from None


class Phone:
    """A driver's phone: online, watching, and remembering every offer it was shown."""

    def __init__(self, world: World, app: DriverApp, place: Place) -> None:
        self.world = world
        self.app = app
        self.place = place
        self.offers: dict[str, OfferView] = {}
        self.sequence = itertools.count(1)
        self.connected = asyncio.Event()
        self.stream_ended = asyncio.Event()

    def live(self) -> list[OfferView]:
        """Offers that can be accepted, as far as the phone knows."""
        return [offer for offer in self.offers.values() if offer.state is OfferState.LIVE]

    async def next_offer(self) -> OfferView:
        """The first live offer, once there is one."""
        await until(self.live, f"no offer for {self.app.driver_id}")
        return self.live()[0]

    async def next_offer_of(self, ride_id: str) -> OfferView:
        """The live offer of this ride, once there is one."""
        await until(lambda: any(offer.ride_id == ride_id for offer in self.live()), f"no offer of {ride_id}")
        return next(offer for offer in self.live() if offer.ride_id == ride_id)

    async def report(self, place: Place | None = None, clock_error_ms: int = 0, heading_deg: float | None = None) -> Any:
        """One fix, acknowledged; on a stream of its own, which is closed again."""
        self.place = place or self.place

        async def fixes() -> AsyncIterator[FixReport]:
            at_ms = self.world.clock.now_ms() + clock_error_ms
            yield FixReport(next(self.sequence), at_ms, self.place, heading_deg)

        return [answer async for answer in self.app.stream_fixes(fixes())][-1]

    async def watch(self) -> None:
        """Follows the driver's offers until the stream ends."""
        try:
            async for view in self.app.watch_offers():
                self.offers.update({offer.offer_id: offer for offer in view.offers})
                self.connected.set()
        finally:
            self.stream_ended.set()


@asynccontextmanager
async def phones(
    world: World,
    places: Sequence[Place],
    prefix: str = "d",
    ratings_milli: Sequence[int] = (),
    names: Sequence[str] = (),
) -> AsyncIterator[list[Phone]]:
    """Drivers `d1`, `d2` ... or of these names, registered, online, positioned and listening until the block ends."""
    operator = world.operator()
    names = list(names) or [f"{prefix}{n}" for n in range(1, len(places) + 1)]
    made = [Phone(world, world.driver(name), place) for name, place in zip(names, places, strict=True)]
    ratings = list(ratings_milli) or [4_500] * len(made)

    async def begin(phone: Phone, rating_milli: int) -> None:
        await operator.upsert_driver(phone.app.driver_id, ["economy"], rating_milli)
        await phone.app.go_online()
        await phone.report()

    await asyncio.gather(*(begin(phone, rating) for phone, rating in zip(made, ratings, strict=True)))
    watching = [asyncio.create_task(phone.watch()) for phone in made]
    try:
        await asyncio.gather(*(asyncio.wait_for(phone.connected.wait(), PATIENCE_S) for phone in made))
        yield made
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


class Passenger:
    """A rider who asks for a ride and remembers all that it hears of it."""

    def __init__(self, world: World, app: RiderApp, stops: Sequence[Place] = (MIDDLE, DROPOFF)) -> None:
        self.world = world
        self.app = app
        self.stops = tuple(stops)
        self.told: list[RideView] = []
        self.tracks: list[TrackingView] = []
        self.ride_id = ""
        self._watching: asyncio.Task[None] | None = None

    async def quote(self) -> QuoteView:
        """A quote for the economy product."""
        (quote,) = await self.app.quotes(self.stops, ["economy"])
        return quote

    async def request(self, quote: QuoteView | None = None, pickup_at_ms: int = 0) -> RideView:
        """Asks for a ride and watches it."""
        ride = await self.app.request_ride(quote or await self.quote(), self.stops, pickup_at_ms=pickup_at_ms)
        self.ride_id = ride.ride_id
        self._watching = asyncio.create_task(self._watch())
        return ride

    def states(self) -> list[RideState]:
        """The states told so far, each once, in order."""
        return [state for state, _ in itertools.groupby(ride.state for ride in self.told)]

    async def until_state(self, state: RideState) -> RideView:
        """The ride, once it was told to be in this state."""
        await until(lambda: state in self.states(), f"never told {state}, but {self.states()}")
        return next(ride for ride in self.told if ride.state is state)

    async def end_of_watch(self) -> None:
        """Returns when the service ends the stream."""
        assert self._watching is not None
        await asyncio.wait_for(self._watching, PATIENCE_S)

    async def _watch(self) -> None:
        async for seen in self.app.watch_ride(self.ride_id):
            if isinstance(seen, RideView):
                self.told.append(seen)
            else:
                self.tracks.append(seen)
