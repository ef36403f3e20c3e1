"""Riders and drivers who do anything at any time, over gRPC, and write down all that they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.history import OK, UNKNOWN, Answered, Call, History, OfferTold, Told
from hexhail.client import (
    DriverApp,
    FleetApp,
    FleetFixes,
    OfferState,
    OperatorApp,
    RiderApp,
    RideState,
    RideView,
    Role,
    RpcError,
    is_passing,
)
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import MS_PER_S
from simulator.waiting import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from hexhail.client import Channels, OffersView, OfferView
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Floats

FLEET = "chaos"
_ATTEMPTS = 12
"""Of every call: about fifteen seconds, in which services and stores come back."""
_REOPEN_S = 0.1
_AWAY = frozenset({Reason.DRIVER_OFFLINE, Reason.DRIVER_SUSPENDED})
"""Why there are no offers to watch."""


@dataclass(frozen=True, slots=True)
class CrowdParams:
    """What people do, and how often.

    rides_per_s : new riders, at even times whatever becomes of them; each asks for one ride
    drivers : so many, all of one fleet
    report_s : each driver's position is reported so often
    """

    city_id: str
    seed: int
    drivers: int = 60
    rides_per_s: float = 15.0
    report_s: float = 2.0
    accept_share: float = 0.75
    decline_share: float = 0.12
    twice_share: float = 0.08
    """Calls that are made twice at once, as requests of their own."""
    rider_cancels_share: float = 0.2
    driver_cancels_share: float = 0.08
    abandoned_share: float = 0.03
    """Rides whose driver does nothing more."""
    scheduled_share: float = 0.1
    ahead_s: tuple[float, float] = (2.5, 5.0)
    """Of scheduled rides."""
    operated_share: float = 0.06
    """Rides that an operator ends or reassigns, wherever they stand."""
    suspended_share: float = 0.15
    """Of the times that a driver is online."""
    think_s: tuple[float, float] = (0.0, 0.6)
    step_s: tuple[float, float] = (0.0, 0.4)
    """From one step of a ride to the next."""
    online_s: tuple[float, float] = (4.0, 25.0)
    offline_s: tuple[float, float] = (0.2, 2.0)
    patience_s: tuple[float, float] = (0.0, 3.0)
    """Of riders who cancel."""


class Crowd:
    """All people of a run, and their history."""

    def __init__(
        self,
        params: CrowdParams,
        channels: Channels,
        tokens: Callable[[Role, str], str],
        clock: Clock,
        starts: Floats,
        trips: Floats,
    ) -> None:
        """`starts` : float64[drivers, 2], where drivers stand; `trips` : float64[n, 2, 2], pickup and drop-off; lat and lng."""
        self.params = params
        self.history = History()
        self.clock = clock
        self.closing = asyncio.Event()
        """Nobody new comes, and everybody now does what is expected."""
        self.requested = 0
        self.busy_riders = 0
        """Who wants a ride, and has not been told of its end."""
        self.unknown: Counter[str] = Counter()
        """Calls whose answer never came, by how they ended."""
        self.unquoted: Counter[str] = Counter()
        """Riders who were given no price, by reason or code."""
        token = tokens(Role.OPERATOR, "chaos")
        self.desk = OperatorApp(channels, params.city_id, "chaos", token, attempts=_ATTEMPTS)
        self._channels = channels
        self._tokens = tokens
        self.starts = starts
        self._trips = trips
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: list[BaseException] = []
        self.driver_ids = tuple(f"{FLEET}.d{number}" for number in range(params.drivers))

    async def open(self) -> None:
        """Every driver is registered and begins to work. Raises DomainError or RpcError."""
        city_id = self.params.city_id
        await asyncio.gather(*(self.desk.upsert_driver(driver_id, ["economy"], 4_500) for driver_id in self.driver_ids))
        self.begin(self._report())
        for driver_id in self.driver_ids:
            app = DriverApp(self._channels, city_id, driver_id, self._tokens(Role.DRIVER, driver_id), attempts=_ATTEMPTS)
            self.begin(_Driver(self, app).work())

    async def ride(self) -> None:
        """Riders come, until it is closed."""
        began_s = asyncio.get_running_loop().time()
        while not self.closing.is_set():
            number = self.requested
            self.requested += 1
            app_id = f"r{number}"
            token = self._tokens(Role.RIDER, app_id)
            app = RiderApp(self._channels, self.params.city_id, app_id, token, attempts=_ATTEMPTS)
            self.begin(self._ride(_Rider(self, app, self._trips[number % len(self._trips)], number)))
            due_s = began_s + self.requested / self.params.rides_per_s
            await happens(self.closing, due_s - asyncio.get_running_loop().time())

    async def _ride(self, rider: _Rider) -> None:
        self.busy_riders += 1
        try:
            await rider.ride()
        finally:
            self.busy_riders -= 1

    async def close(self) -> None:
        """Everybody stops where they are; what they had not been told, they are not told."""
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Somebody begins to do something; a defect of ours is kept."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def told(self, to: str, ride: RideView) -> None:
        """Somebody was told how a ride stands."""
        self.history.told.append(told_of(to, ride, self.clock.now_ms()))

    async def ask(
        self, who: str, call: Call, work: Callable[[], Awaitable[object]], ride_id: str = "", offer_id: str = ""
    ) -> object | None:
        """What the call gives, written down; None where it was refused or nobody knows."""
        asked_ms = self.clock.now_ms()
        result: object | None = None
        try:
            result = await work()
            outcome = OK
        except DomainError as refusal:
            outcome = UNKNOWN if is_passing(refusal) or refusal.reason is Reason.DEADLINE_PASSED else refusal.reason.value
            if outcome == UNKNOWN:
                self.unknown[f"{call} {refusal.reason}"] += 1
        except RpcError as error:
            outcome = UNKNOWN
            self.unknown[f"{call} {error.code}"] += 1
        if isinstance(result, RideView):
            self.told(who, result)
            ride_id = result.ride_id
        self.history.answers.append(Answered(who, call, outcome, asked_ms, self.clock.now_ms(), ride_id, offer_id))
        return result if result is not None or outcome != OK else True

    async def _report(self) -> None:
        """Reports all positions, in columns; opens the stream again where it breaks."""
        app = FleetApp(self._channels, self.params.city_id, FLEET, self._tokens(Role.FLEET, FLEET))
        sequence = 0

        async def batches() -> AsyncIterator[FleetFixes]:
            nonlocal sequence
            count, first = len(self.driver_ids), True
            while True:
                sequence += 1
                yield FleetFixes(
                    new_driver_ids=self.driver_ids if first else (),
                    driver_index=np.arange(count),
                    sequence=np.full(count, sequence),
                    device_time_ms=np.full(count, self.clock.now_ms()),
                    lat=self.starts[:, 0],
                    lng=self.starts[:, 1],
                    heading_deg=np.full(count, np.nan),
                    speed_mps=np.zeros(count),
                )
                first = False
                await asyncio.sleep(self.params.report_s)

        while True:
            with suppress(DomainError, RpcError):
                async for _ in app.stream_fleet_fixes(batches()):
                    pass
            await asyncio.sleep(_REOPEN_S)


class _Rider:
    """One rider, who wants one ride."""

    def __init__(self, crowd: Crowd, app: RiderApp, trip: Floats, number: int) -> None:
        self._crowd = crowd
        self._app = app
        self._stops = [Place(*place) for place in trip.tolist()]
        self._dice = generator(crowd.params.seed, "rider", number)

    async def ride(self) -> None:
        """From the wish to the end."""
        crowd, params, dice = self._crowd, self._crowd.params, self._dice
        try:
            (quote,) = await self._app.quotes(self._stops, ["economy"])
        except (DomainError, RpcError) as error:
            crowd.unquoted[str(error.reason if isinstance(error, DomainError) else error.code)] += 1
            return
        later = dice.random() < params.scheduled_share
        pickup_at_ms = crowd.clock.now_ms() + round(dice.uniform(*params.ahead_s) * MS_PER_S) if later else 0
        ride = await crowd.ask(
            self._app.rider_id,
            Call.REQUEST,
            lambda: self._app.request_ride(quote, self._stops, pickup_at_ms=pickup_at_ms),
        )
        if not isinstance(ride, RideView):
            return
        if dice.random() < params.operated_share:
            crowd.begin(self._operate(ride.ride_id, dice.uniform(*params.patience_s), ends=dice.random() < 0.5))
        crowd.history.waiting[ride.ride_id] = self._app.rider_id
        if dice.random() < params.rider_cancels_share:
            crowd.begin(self._cancel(ride.ride_id, dice.uniform(*params.patience_s), twice=dice.random() < params.twice_share))
        await self._watch(ride.ride_id)

    async def _cancel(self, ride_id: str, after_s: float, *, twice: bool) -> None:
        await asyncio.sleep(after_s)
        calls = [
            self._crowd.ask(self._app.rider_id, Call.CANCEL, lambda: self._app.cancel(ride_id), ride_id) for _ in range(1 + twice)
        ]
        await asyncio.gather(*calls)

    async def _operate(self, ride_id: str, after_s: float, *, ends: bool) -> None:
        await asyncio.sleep(after_s)
        desk = self._crowd.desk
        if ends:
            await self._crowd.ask("operator", Call.END, lambda: desk.end_ride(ride_id), ride_id)
        else:
            await self._crowd.ask("operator", Call.REASSIGN, lambda: desk.reassign_ride(ride_id), ride_id)

    async def _watch(self, ride_id: str) -> None:
        version = 0
        while ride_id in self._crowd.history.waiting:
            try:
                async for seen in self._app.watch_ride(ride_id, version):
                    if isinstance(seen, RideView):
                        version = seen.version
                        self._crowd.told(self._app.rider_id, seen)
                        if seen.state.is_final:
                            self._crowd.history.waiting.pop(ride_id, None)
            except (DomainError, RpcError) as error:
                if not is_passing(error):
                    self._crowd.unknown[f"WATCH {error}"] += 1
            await asyncio.sleep(_REOPEN_S)


class _Driver:
    """One driver: now online, now offline, answering offers as the dice fall."""

    def __init__(self, crowd: Crowd, app: DriverApp) -> None:
        self._crowd = crowd
        self._app = app
        self._dice = generator(crowd.params.seed, "driver", app.driver_id)
        self._answered: set[str] = set()

    async def work(self) -> None:
        """For ever."""
        params, dice = self._crowd.params, self._dice
        await asyncio.sleep(dice.uniform(0.0, 0.5))
        while True:
            if await self._ask(Call.ONLINE, self._app.go_online) is None:
                await asyncio.sleep(_REOPEN_S)
                continue
            watching = self._crowd.begin(self._watch())
            if dice.random() < params.suspended_share and not self._crowd.closing.is_set():
                await self._be_suspended()
            if await happens(self._crowd.closing, dice.uniform(*params.online_s)):
                await watching
                return
            await self._ask(Call.OFFLINE, self._app.go_offline)
            await asyncio.sleep(dice.uniform(*params.offline_s))
            watching.cancel()
            await asyncio.wait((watching,))

    async def _be_suspended(self) -> None:
        """For a while, in which it may be on a ride all the same. Lifted by whatever number of calls that takes."""
        desk, driver_id = self._crowd.desk, self._app.driver_id
        await asyncio.sleep(self._dice.uniform(*self._crowd.params.patience_s))
        await self._ask(Call.SUSPEND, lambda: desk.suspend_driver(driver_id))
        await asyncio.sleep(self._dice.uniform(*self._crowd.params.offline_s))
        lifted = None
        while lifted is None:
            lifted = await self._ask(Call.LIFT, lambda: desk.lift_suspension(driver_id))

    async def _ask(
        self, call: Call, work: Callable[[], Awaitable[object]], ride_id: str = "", offer_id: str = ""
    ) -> object | None:
        return await self._crowd.ask(self._app.driver_id, call, work, ride_id, offer_id)

    async def _watch(self) -> None:
        """Follows the offers, until cancelled: the phone shows none any more then."""
        try:
            while True:
                try:
                    async for view in self._app.watch_offers():
                        self._told(view)
                except (DomainError, RpcError) as error:
                    if not is_passing(error) and getattr(error, "reason", "") not in _AWAY:
                        self._crowd.unknown[f"WATCH_OFFERS {error}"] += 1
                await asyncio.sleep(_REOPEN_S)
        finally:
            self._forget()

    def _told(self, view: OffersView) -> None:
        history = self._crowd.history
        if view.snapshot:
            self._forget()
        for offer in view.offers:
            told = OfferTold(self._app.driver_id, offer.offer_id, offer.ride_id, offer.state.value, self._crowd.clock.now_ms())
            history.offers.append(told)
            if offer.state is not OfferState.LIVE:
                history.showing.pop(offer.offer_id, None)
                continue
            history.showing[offer.offer_id] = self._app.driver_id
            if offer.offer_id not in self._answered:
                self._answered.add(offer.offer_id)
                self._crowd.begin(self._answer(offer))

    def _forget(self) -> None:
        showing = self._crowd.history.showing
        for offer_id in [offer_id for offer_id, driver_id in showing.items() if driver_id == self._app.driver_id]:
            del showing[offer_id]

    async def _answer(self, offer: OfferView) -> None:
        params, dice = self._crowd.params, self._dice
        choice = dice.random() * (params.accept_share if self._crowd.closing.is_set() else 1.0)
        if dice.random() < 0.5:
            await self._ask(Call.ACK, lambda: self._app.ack(offer.offer_id), offer.ride_id, offer.offer_id)
        await asyncio.sleep(dice.uniform(*params.think_s))
        if choice < params.accept_share:
            await self._accept(offer)
        elif choice < params.accept_share + params.decline_share:
            await self._ask(Call.DECLINE, lambda: self._app.decline(offer.offer_id), offer.ride_id, offer.offer_id)

    async def _accept(self, offer: OfferView) -> None:
        twice = self._dice.random() < self._crowd.params.twice_share
        calls = [
            self._ask(Call.ACCEPT, lambda: self._app.accept(offer.offer_id), offer.ride_id, offer.offer_id)
            for _ in range(1 + twice)
        ]
        answers = [answer for answer in await asyncio.gather(*calls) if isinstance(answer, RideView)]
        if answers and answers[0].state is RideState.ACCEPTED:
            await self._serve(offer.ride_id)

    async def _serve(self, ride_id: str) -> None:
        params, dice = self._crowd.params, self._dice
        cancels, abandons = dice.random() < params.driver_cancels_share, dice.random() < params.abandoned_share
        stops_at = int(dice.integers(0, 3))
        steps = ((Call.ARRIVE, self._app.arrive), (Call.START, self._app.start), (Call.COMPLETE, self._app.complete))
        for number, (call, step) in enumerate(steps):
            await asyncio.sleep(dice.uniform(*params.step_s))
            if not self._crowd.closing.is_set() and number == stops_at:
                if abandons:
                    return
                if cancels and call is not Call.COMPLETE:
                    await self._ask(Call.GIVE_BACK, lambda: self._app.cancel_assignment(ride_id), ride_id)
                    return
            if await self._ask(call, lambda step=step: step(ride_id), ride_id) is None:  # type: ignore[misc]
                return


def told_of(to: str, ride: RideView, heard_ms: int) -> Told:
    """A word of a ride, written down."""
    bound = ride.assignment
    driver_id, accepted_at_ms = ("", 0) if bound is None else (bound.driver_id, bound.accepted_at_ms)
    return Told(to, ride.ride_id, ride.version, ride.state.value, driver_id, accepted_at_ms, heard_ms)
