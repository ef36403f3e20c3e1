"""What does a driver do? Waits for offers, thinks, takes some, drives the rider, and stays where the ride ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hexhail.client import OfferState, RideState, RpcError
from hexhail.kernel.errors import DomainError
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import MS_PER_S
from simulator.waiting import happens, kept_open

if TYPE_CHECKING:
    import numpy as np

    from hexhail.client import DriverApp, OffersView, OfferView, RideView
    from hexhail.kernel.geo import Place
    from simulator.world import World


class Driver:
    """One driver: `index` is its row in the fleet."""

    def __init__(self, world: World, index: int, app: DriverApp) -> None:
        self._world = world
        self._index = index
        self._app = app
        self._chance: np.random.Generator | None = None
        self._thinking: dict[str, asyncio.Event] = {}
        """Offer -> set once it need not be answered."""
        self._ride_id = ""
        self._stirred = asyncio.Event()
        """Set once the ride is gone, or the run is over: whoever drives or waits looks up."""
        self._lost = False
        self._online = False
        self._offline = False
        self._switch = asyncio.Lock()
        self.ready = asyncio.Event()
        """The first look at the offers was had, or will never be."""

    async def work(self) -> None:
        """Online until told to go home; the session is opened again where it breaks."""
        reopened = self._world.ledger.reopened
        try:
            await kept_open("WatchOffers", self._session, self._is_wanted, reopened)
        except (DomainError, RpcError):
            if not self._offline:
                reopened["WatchOffers given up"] += 1
        finally:
            self.ready.set()

    def close(self) -> None:
        """The run is over: no more answers; a ride that has begun is completed at once."""
        for withdrawn in self._thinking.values():
            withdrawn.set()
        self._stirred.set()

    async def go_home(self) -> None:
        """Goes offline, which ends the session."""
        self._offline = True
        try:
            async with self._world.doors, self._switch:
                if self._online:
                    await self._app.go_offline()
        except (DomainError, RpcError):
            pass  # counted where all calls are; the session is cut off when its time is over

    def _is_wanted(self) -> bool:
        return not (self._offline or self._world.closing.is_set())

    async def _session(self) -> None:
        async with self._world.doors, self._switch:
            if self._offline or self._world.closing.is_set():
                return
            self._online = True
            await self._app.go_online()
        async for view in self._app.watch_offers():
            self.ready.set()
            self._told(view)

    def _told(self, view: OffersView) -> None:
        live = {offer.offer_id for offer in view.offers if offer.state is OfferState.LIVE}
        for offer_id, withdrawn in self._thinking.items():
            if view.snapshot and offer_id not in live:
                withdrawn.set()
        for offer in view.offers:
            if offer.state is OfferState.LIVE:
                if self._ride_id:
                    self._lose()  # an offer says that the service holds this driver to be free
                if offer.offer_id not in self._thinking and not self._world.closing.is_set():
                    self._world.begin(self._answer(offer))
            elif offer.offer_id in self._thinking:
                self._thinking[offer.offer_id].set()
            elif offer.state is OfferState.WITHDRAWN and offer.ride_id == self._ride_id:
                self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._stirred.set()

    async def _answer(self, offer: OfferView) -> None:
        withdrawn = self._thinking[offer.offer_id] = asyncio.Event()
        self._world.ledger.offers_shown += 1
        chance, params = self._dice(), self._world.params
        think_s, declines = chance.uniform(*params.think_s), chance.random() < params.decline_share
        self._world.begin(self._ack(offer.offer_id))
        try:
            if await happens(withdrawn, think_s):
                return
            if declines:
                await self._app.decline(offer.offer_id)
                return
            ride = await self._accept(offer)
        except (DomainError, RpcError):
            return  # counted where all calls are; the driver waits for the next offer
        finally:
            del self._thinking[offer.offer_id]
        if ride is not None:
            await self._serve(ride, offer.trip_duration_s)

    async def _ack(self, offer_id: str) -> None:
        with contextlib.suppress(DomainError, RpcError):  # counted where all calls are; who answers has seen the offer
            await self._app.ack(offer_id)

    async def _accept(self, offer: OfferView) -> RideView | None:
        try:
            return await self._app.accept(offer.offer_id)
        except RpcError:
            # The answer is lost, the deed may be done: the ride itself says whose it is.
            ride = await self._app.get_ride(offer.ride_id)
            mine = ride.assignment is not None and ride.assignment.driver_id == self._app.driver_id
            return ride if mine and ride.state is RideState.ACCEPTED else None

    async def _serve(self, ride: RideView, trip_s: int) -> None:
        """Drives to the rider, and the rider to where it wants to go; `trip_s` is how long that was said to take."""
        world = self._world
        world.ledger.witness.accepted(ride, self._app.driver_id)
        world.fleet.busy[self._index] = True
        self._ride_id, self._lost = ride.ride_id, False
        if not world.closing.is_set():
            self._stirred.clear()
        try:
            await self._fetch_and_carry(ride, trip_s)
        except (DomainError, RpcError):
            pass  # the ride is not ours any more, or its service is gone: both are counted where all calls are
        finally:
            self._ride_id = ""
            world.fleet.busy[self._index] = False
            world.fleet.motion.stand(self._index, world.now_s())

    async def _fetch_and_carry(self, ride: RideView, trip_s: int) -> None:
        world, app = self._world, self._app
        try:
            wait_s = self._drive_to(ride.stops[0])
        except DomainError:
            await app.cancel_assignment(ride.ride_id, "no way leads there")
            world.ledger.witness.gave_back(ride.ride_id, app.driver_id, world.clock.now_ms())
            return
        if ride.assignment is not None:
            since_s = world.now_s() - ride.assignment.accepted_at_ms / MS_PER_S
            world.ledger.arrivals.held(ride.assignment.pickup_eta_s, since_s + wait_s)
        if await happens(self._stirred, wait_s):
            return
        await app.arrive(ride.ride_id)
        if await happens(self._stirred, self._dice().uniform(*world.params.boarding_s)):
            return
        ride = await app.start(ride.ride_id)
        begun_s = world.now_s()
        for stop in ride.stops[1:]:
            wait_s = self._drive_to(stop)
            if stop is ride.stops[-1]:
                world.ledger.trips.held(trip_s, world.now_s() - begun_s + wait_s)
            if await happens(self._stirred, wait_s):
                break
        if not self._lost:
            async with world.doors:
                world.ledger.witness.told(await app.complete(ride.ride_id))

    def _drive_to(self, place: Place) -> float:
        """Sets out; how long will it take, seconds? Raises NO_ROUTE."""
        world = self._world
        now_s = world.now_s()
        here = world.fleet.motion.place(self._index, now_s)
        route = world.way(self._index, here, place)
        return world.fleet.motion.follow(self._index, route, now_s) - now_s

    def _dice(self) -> np.random.Generator:
        if self._chance is None:
            self._chance = generator(self._world.params.seed, "driver", self._index)
        return self._chance
