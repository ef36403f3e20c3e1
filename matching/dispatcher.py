"""What riders, drivers and operators ask for, turned into changes: gather, decide, commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import RideId, RiderId, mint
from matching.changer import MAX_ATTEMPTS
from matching.model import Happening, OfferAccepted, OfferDeclined, OfferWithdrawn, Ride
from matching.notices import driver_subject
from matching.offers import begin, schedule
from matching.schedule import check_pickup_at
from matching.store import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.changer import Changer
    from matching.lateness import Lateness
    from matching.model import Event, Stop
    from matching.notices import Notices
    from matching.offers import OfferParams
    from matching.peers import Pricing
    from matching.remembered import Wanted
    from matching.store import Claims, Driver, Drivers, RequestKey, Rides
    from matching.teller import Teller

log = structlog.get_logger(__name__)

RIDE_CLAIM_TTL_MS = 5 * 60 * 1000
"""Source: M6 of docs/sources.md."""
_RIVAL_WAIT_S = 0.05
_CLAIM_ATTEMPTS = 10


class Dispatcher:
    """The changes that callers ask for. `actor` is the caller as the event log names it."""

    def __init__(
        self,
        rides: Rides,
        drivers: Drivers,
        claims: Claims,
        pricing: Pricing,
        changer: Changer,
        teller: Teller,
        notices: Notices,
        clock: Clock,
        params: Mapping[CityId, OfferParams],
        lateness: Lateness,
    ) -> None:
        self._rides = rides
        self._drivers = drivers
        self._claims = claims
        self._pricing = pricing
        self._changer = changer
        self._teller = teller
        self._notices = notices
        self._clock = clock
        self._params = params
        self._lateness = lateness

    async def request_ride(
        self,
        city: City,
        rider_id: str,
        product: str,
        stops: tuple[Stop, ...],
        quote_token: bytes,
        notes: str,
        pickup_at_ms: int,
        actor: str,
        request: RequestKey,
        answer: Callable[[Ride], bytes],
    ) -> Ride:
        """A new ride, committed and about to be searched, at once or in time for `pickup_at_ms`.

        Raises INVALID_FIELD, QUOTE_ALTERED, QUOTE_EXPIRED, QUOTE_USED, NOT_YOURS, RIDER_BUSY, PEER_UNAVAILABLE,
        STORE_UNAVAILABLE; OVERLOADED where it would be searched too late.
        """
        params = self._params[city.city_id]
        if pickup_at_ms:
            check_pickup_at(pickup_at_ms, self._clock.now_ms(), params.schedule)
        else:
            self._lateness.check(self._clock.now_ms())
        quote = await self._pricing.verify_quote(city.city_id, quote_token, rider_id, product, [stop.place for stop in stops])
        now_ms = self._clock.now_ms()
        ride = Ride(
            ride_id=RideId(mint(city.city_id, now_ms)),
            city_id=city.city_id,
            rider_id=RiderId(rider_id),
            product=product,
            stops=stops,
            quote=quote,
            requested_at_ms=now_ms,
            notes=notes,
            pickup_at_ms=pickup_at_ms,
        )
        decision = schedule(ride, now_ms, params) if pickup_at_ms else begin(ride, now_ms, params)
        return await self._changer.commit(None, decision, actor, request, answer)

    async def rider_event(
        self, ride_id: RideId, rider_id: str, event: Event, actor: str, request: RequestKey, answer: Callable[[Ride], bytes]
    ) -> Ride:
        """What a rider does to its ride. Raises RIDE_NOT_FOUND, NOT_YOURS, ILLEGAL_TRANSITION, CONFLICT, STORE_UNAVAILABLE."""

        def check(ride: Ride) -> None:
            if ride.rider_id != rider_id:
                raise DomainError(Reason.NOT_YOURS, "the ride is another rider's", ride_id=ride_id)

        return await self._changer.change(self._changer.ride(ride_id, check), event, actor, request, answer)

    async def driver_event(
        self, ride_id: RideId, event: Event, actor: str, request: RequestKey, answer: Callable[[Ride], bytes]
    ) -> Ride:
        """What a driver does to its ride; the event names the driver.

        Raises RIDE_NOT_FOUND, NOT_YOURS, ILLEGAL_TRANSITION, CONFLICT, STORE_UNAVAILABLE.
        """
        return await self._changer.change(self._changer.ride(ride_id), event, actor, request, answer)

    async def operator_event(
        self, ride_id: RideId, event: Event, actor: str, request: RequestKey, answer: Callable[[Ride], bytes]
    ) -> Ride:
        """What an operator does to a ride. Raises RIDE_NOT_FOUND, ILLEGAL_TRANSITION, CONFLICT, STORE_UNAVAILABLE."""
        return await self._changer.change(self._changer.ride(ride_id), event, actor, request, answer)

    async def offer_event(
        self, driver_id: str, event: Event, offer_id: str, actor: str, request: RequestKey, answer: Callable[[Ride], bytes]
    ) -> Ride:
        """What a driver does to an offer, short of accepting it.

        Raises OFFER_NOT_FOUND, NOT_YOURS, ILLEGAL_TRANSITION, CONFLICT, STORE_UNAVAILABLE.
        """
        wanted = self._ride_of_offer(offer_id, driver_id)
        if event.kind is Happening.OFFER_SHOWN:  # all phones of a phase show their offers at about the same time
            return await self._changer.join(wanted, event, actor, request, answer, Ride.unshown_offers)
        return await self._changer.change(wanted, event, actor, request, answer)

    async def accept(
        self, driver_id: str, offer_id: str, actor: str, request: RequestKey, answer: Callable[[Ride], bytes]
    ) -> Ride:
        """The ride, if the driver has it now: the first commit wins, whatever becomes of the claim.

        Raises OFFER_NOT_FOUND, NOT_YOURS, ALREADY_TAKEN, OFFER_CLOSED, ILLEGAL_TRANSITION, DRIVER_BUSY, DRIVER_OFFLINE,
        DRIVER_SUSPENDED, CONFLICT, STORE_UNAVAILABLE.
        """
        wanted = self._ride_of_offer(offer_id, driver_id)
        changed = asyncio.Event()
        for attempt in range(MAX_ATTEMPTS + _CLAIM_ATTEMPTS):
            changed.clear()
            ride, decision = await self._changer.decided(wanted, OfferAccepted(offer_id), fresh=attempt > 0)
            if decision.ride is ride:
                return await self._changer.leave(ride, request, answer)
            if attempt < _CLAIM_ATTEMPTS and not await self._claim(ride, offer_id):
                await self._until_changed(ride, changed)
                continue
            try:
                return await self._changer.commit(ride, decision, actor, request, answer)
            except Conflict:
                continue
            finally:
                await self._release(ride, offer_id)
        raise DomainError(Reason.CONFLICT, "others changed the ride again and again", ride_id=ride.ride_id)

    async def upsert_driver(
        self,
        city_id: CityId,
        driver_id: str,
        capabilities: tuple[str, ...],
        rating_milli: int,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
    ) -> Driver:
        """A driver made known, or changed. Raises STORE_UNAVAILABLE."""
        now_ms = self._clock.now_ms()
        driver = await self._drivers.upsert_driver(city_id, driver_id, capabilities, rating_milli, actor, request, answer, now_ms)
        if driver.online:
            await self._teller.tell([driver])
        return driver

    async def go_online(
        self, city_id: CityId, driver_id: str, actor: str, request: RequestKey, answer: Callable[[Driver], bytes]
    ) -> Driver:
        """A driver ready for offers. Raises DRIVER_NOT_FOUND, DRIVER_SUSPENDED, STORE_UNAVAILABLE."""
        return await self._changer.to_the_end(self._set_online(city_id, driver_id, True, actor, request, answer))

    async def go_offline(
        self, city_id: CityId, driver_id: str, actor: str, request: RequestKey, answer: Callable[[Driver], bytes]
    ) -> Driver:
        """A driver who gets no more offers; `settle_offline` does the rest. Raises DRIVER_NOT_FOUND, STORE_UNAVAILABLE."""
        return await self._changer.to_the_end(self._set_online(city_id, driver_id, False, actor, request, answer))

    async def settle_offline(self, city_id: CityId, driver_id: str, actor: str) -> None:
        """Declines what is still offered to a driver who is offline, and ends its session. Doing it again does no harm.

        Raises DRIVER_NOT_FOUND, CONFLICT, STORE_UNAVAILABLE.
        """
        if (await self._drivers.driver(city_id, driver_id)).online:
            return  # an old request repeated: the driver has come back since
        await self._close_offers(city_id, driver_id, lambda offer_id: OfferDeclined(offer_id, by_driver=False), actor)

    async def suspend_driver(
        self,
        city_id: CityId,
        driver_id: str,
        suspended: bool,
        reason: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
    ) -> Driver:
        """A driver who gets no offers until it is lifted, or who gets them again; `settle_suspended` does the rest.

        Raises DRIVER_NOT_FOUND, STORE_UNAVAILABLE.
        """
        return await self._changer.to_the_end(self._set_suspended(city_id, driver_id, suspended, reason, actor, request, answer))

    async def settle_suspended(self, city_id: CityId, driver_id: str, actor: str) -> None:
        """Withdraws what is still offered to a driver who is suspended, and ends its session. Doing it again does no harm.

        Raises DRIVER_NOT_FOUND, CONFLICT, STORE_UNAVAILABLE.
        """
        if (await self._drivers.driver(city_id, driver_id)).suspended:
            await self._close_offers(city_id, driver_id, OfferWithdrawn, actor)

    async def _close_offers(self, city_id: CityId, driver_id: str, event: Callable[[str], Event], actor: str) -> None:
        for _, offer in await self._rides.live_offers(city_id, driver_id, ()):
            await self._changer.change(self._ride_of_offer(offer.offer_id, driver_id), event(offer.offer_id), actor)
        self._notices.publish(city_id, [driver_subject(city_id, driver_id)])

    async def _set_suspended(
        self,
        city_id: CityId,
        driver_id: str,
        suspended: bool,
        reason: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
    ) -> Driver:
        now_ms = self._clock.now_ms()
        driver = await self._drivers.set_suspended(city_id, driver_id, suspended, reason, actor, request, answer, now_ms)
        await self._teller.tell([driver])
        return driver

    async def _set_online(
        self,
        city_id: CityId,
        driver_id: str,
        online: bool,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
    ) -> Driver:
        driver = await self._drivers.set_online(city_id, driver_id, online, actor, request, answer, self._clock.now_ms())
        await self._teller.tell([driver])
        return driver

    def _ride_of_offer(self, offer_id: str, driver_id: str) -> Wanted:
        def check(ride: Ride) -> None:
            if ride.offer(offer_id).driver_id != driver_id:
                raise DomainError(Reason.NOT_YOURS, "the offer is another driver's", offer_id=offer_id)

        return self._changer.ride_of_offer(offer_id, check)

    async def _claim(self, ride: Ride, offer_id: str) -> bool:
        try:
            return await self._claims.claim_ride(ride.city_id, ride.ride_id, offer_id, RIDE_CLAIM_TTL_MS)
        except DomainError as error:
            log.warning("accepting without a claim", reason=error.reason, ride_id=ride.ride_id)
            return True  # the conditional update decides alone

    async def _release(self, ride: Ride, offer_id: str) -> None:
        try:
            await self._claims.release_ride(ride.city_id, ride.ride_id, offer_id)
        except DomainError as error:
            log.warning("claim left to expire", reason=error.reason, ride_id=ride.ride_id)

    async def _until_changed(self, ride: Ride, changed: asyncio.Event) -> None:
        """A rival is accepting: PostgreSQL will say who has the ride, so wait for its notice, but not long."""
        with self._notices.watch(ride.ride_id, lambda _ride: changed.set()):
            try:
                async with asyncio.timeout(_RIVAL_WAIT_S):
                    await changed.wait()
            except TimeoutError:
                return
