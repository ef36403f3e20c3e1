"""Drivers who listen for offers, think, and drive whom they get: every step of a ride, after so many seconds."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from ulid import ULID

from benchmarks.ride_accounting import Drive
from benchmarks.sending_grpc import all_of, bearer, close_all, open_channels
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1 import offer_pb2
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceStub
from hexhail.kernel.errors import Reason
from hexhail.kernel.randomness import generator
from hexhail.rpc import loop
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from benchmarks.sending_grpc import Metadata

ARRIVES, STARTS = 0.4, 0.5
"""When in its course a ride's driver arrives at the pickup, and starts; shares of its length."""
_OPENED_AT_ONCE: Final = 100
_OPENED_S: Final = 300.0
_CALL_S: Final = 10.0
_ATTEMPTS: Final = 6
_PAUSE_S: Final = 0.5
_LOOK_S: Final = 0.2
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
_COMPETITION: Final = frozenset({Reason.ALREADY_TAKEN, Reason.OFFER_CLOSED})


@dataclass(frozen=True, slots=True)
class DriverLoad:
    """Who listens, and how it drives.

    think_s : from an offer to its acceptance in the mean; each between half of it and one and a half times it
    ride_s : from the answer to the acceptance until the ride is completed
    """

    matching: str
    city_id: str
    token_key: bytes
    driver_ids: Sequence[str]
    connections: int
    think_s: float
    ride_s: float
    seed: int


@dataclass(slots=True)
class DriverRun:
    """What came of it.

    opened_s : how long it took to open all streams
    first_offers : ride id -> when its first offer was received, seconds of the machine's monotonic clock
    refusals : by reason, of those who came too late
    errors : by method and status, calls that ended otherwise, each time they went out
    given_up : rides that a driver could not bring to their end
    """

    opened_s: float = 0.0
    offers: int = 0
    reopened: int = 0
    first_offers: dict[str, float] = field(default_factory=dict)
    drives: list[Drive] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    given_up: list[str] = field(default_factory=list)


class _Refused(Exception):
    """The service said no, and will say so again."""


class _Driver:
    """One driver's phone."""

    def __init__(self, load: DriverLoad, run: DriverRun, stub: Any, driver_id: str, number: int) -> None:
        self._load = load
        self._run = run
        self._stub = stub
        self._id = driver_id
        self._number = number
        self._metadata: Metadata = bearer(mint_token(load.token_key, Role.DRIVER, driver_id))
        self._open: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._call: Any = None
        self._answered = 0
        self._leaving = False
        self.ready = asyncio.Event()

    async def listen(self) -> None:
        """Until told to leave; opens the stream again where it ends."""
        while not self._leaving:
            self._call = self._stub.WatchOffers(pb.WatchOffersRequest(city_id=self._load.city_id), metadata=self._metadata)
            try:
                async for message in self._call:
                    self.ready.set()
                    self._told(message)
            except grpc.aio.AioRpcError as error:
                if not self._leaving:
                    self._run.errors[f"WatchOffers {error.code().name}"] += 1
            except asyncio.CancelledError:
                if not self._leaving:
                    raise
            if not self._leaving:
                self._run.reopened += 1
                await asyncio.sleep(_PAUSE_S)

    def leave(self) -> None:
        """Hangs up."""
        self._leaving = True
        if self._call is not None:
            self._call.cancel()

    async def idle(self) -> None:
        """Returns once all that it had begun is done."""
        while self._work:
            await asyncio.wait(self._work)

    def _told(self, message: pb.WatchOffersResponse) -> None:
        for offer in message.offers:
            if offer.state == offer_pb2.OFFER_STATE_LIVE:
                received_s = time.perf_counter()
                self._run.offers += 1
                self._run.first_offers.setdefault(offer.ride_id, received_s)
                if offer.offer_id not in self._open:
                    self._open.add(offer.offer_id)
                    self._begin(self._ack(offer.offer_id))
                    self._begin(self._answer(offer.offer_id, offer.ride_id, received_s))
            else:
                self._open.discard(offer.offer_id)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _ack(self, offer_id: str) -> None:
        """The phone shows the offer, and says so: nobody waits for it, and it is not said again of an offer that is over."""
        try:
            request = pb.AckOfferRequest(request_id=str(ULID()), offer_id=offer_id)
            await self._ask("AckOffer", request, wanted=lambda: offer_id in self._open)
        except _Refused:
            pass  # counted; the offer's own end is told to its phone

    async def _answer(self, offer_id: str, ride_id: str, received_s: float) -> None:
        try:
            think_s = self._load.think_s * float(generator(self._load.seed, self._number, self._answered).uniform(0.5, 1.5))
            self._answered += 1
            await asyncio.sleep(max(0.0, received_s + think_s - time.perf_counter()))
            if offer_id not in self._open:
                return  # withdrawn: another was faster
            thought_s = time.perf_counter() - received_s
            accept = pb.AcceptOfferRequest(request_id=str(ULID()), offer_id=offer_id)
            ride = (await self._ask("AcceptOffer", accept)).ride
        except _Refused:
            return
        finally:
            self._open.discard(offer_id)
        drive = Drive(self._id, ride_id, thought_s, ride.assignment.accepted_at_ms, told=["ACCEPTED"])
        self._run.drives.append(drive)
        try:
            await self._drive(drive)
        except _Refused as refusal:
            self._run.given_up.append(f"{ride_id}: {refusal}")

    async def _drive(self, drive: Drive) -> None:
        ride_id, began_s, ride_s = drive.ride_id, time.perf_counter(), self._load.ride_s
        await asyncio.sleep(ARRIVES * ride_s)
        await self._ask("ReportArrival", pb.ReportArrivalRequest(request_id=str(ULID()), ride_id=ride_id))
        drive.told.append("ARRIVED")
        await asyncio.sleep(max(0.0, began_s + STARTS * ride_s - time.perf_counter()))
        await self._ask("StartRide", pb.StartRideRequest(request_id=str(ULID()), ride_id=ride_id))
        drive.told.append("IN_PROGRESS")
        await asyncio.sleep(max(0.0, began_s + ride_s - time.perf_counter()))
        answer = await self._ask("CompleteRide", pb.CompleteRideRequest(request_id=str(ULID()), ride_id=ride_id))
        drive.told.append("COMPLETED")
        drive.completed_at_ms = answer.ride.assignment.completed_at_ms

    async def _ask(self, method: str, request: Any, wanted: Callable[[], bool] = lambda: True) -> Any:
        """The answer; asked again, under the same request_id, while wanted and of use. Raises _Refused."""
        for attempt in range(_ATTEMPTS):
            if not wanted():
                raise _Refused(f"{method}: no longer wanted")
            try:
                return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                known = domain_error(error)
                if known is not None and known.reason in _COMPETITION:
                    self._run.refusals[known.reason.value] += 1
                    raise _Refused(known.reason.value) from None
                what = f"{method} {error.code().name} {known.reason.value if known else error.details()}"
                self._run.errors[what] += 1
                if error.code() not in _PASSING:
                    raise _Refused(what) from None
                await asyncio.sleep(_PAUSE_S * 2**attempt)
        raise _Refused(f"{method}: no answer")


def run_drivers(load: DriverLoad, *, under_way: Callable[[], None], stopped: Callable[[], bool]) -> DriverRun:
    """Opens everybody's stream, calls `under_way`, and serves until `stopped`, and until all that was begun is done."""
    return loop.run(_run(load, under_way, stopped))


async def _run(load: DriverLoad, under_way: Callable[[], None], stopped: Callable[[], bool]) -> DriverRun:
    run = DriverRun()
    channels = open_channels(load.matching, load.connections)
    stubs = [MatchingServiceStub(channel) for channel in channels]
    drivers = [
        _Driver(load, run, stubs[number % len(stubs)], driver_id, number) for number, driver_id in enumerate(load.driver_ids)
    ]
    listening: list[asyncio.Task[None]] = []
    try:
        began_s = time.perf_counter()
        for start in range(0, len(drivers), _OPENED_AT_ONCE):
            opening = drivers[start : start + _OPENED_AT_ONCE]
            listening += [asyncio.create_task(each.listen()) for each in opening]
            async with asyncio.timeout(_OPENED_S):
                await all_of([_ready(each) for each in opening])
        run.opened_s = time.perf_counter() - began_s
        gc.collect()
        gc.freeze()
        under_way()
        while not stopped():  # noqa: ASYNC110 - told through a pipe, which has no event
            await asyncio.sleep(_LOOK_S)
        for each in drivers:
            await each.idle()
        for each in drivers:
            each.leave()
        await asyncio.wait(listening)
    finally:
        await close_all(channels)
    return run


async def _ready(driver: _Driver) -> None:
    await driver.ready.wait()
